"""The ordinary recogniser, with its windows computed by a Triton Inference Server.

    sound -> front-end, level, ring buffer (here) -> Triton: window -> embedding -> head, decision (here)

    pip install MMTL 'tritonclient[http]'     # MMTL: a checkout of it, or its wheel
    python client.py mic --url localhost:8000

A request is one window and does not depend on earlier ones: any replica can answer it. The state of a stream
and the speaker's profile never leave this process.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.arrays import Array
from edge.audio.sources import open_source
from edge.engine_builder.candidates import largest_difference, reference_of
from edge.errors import EngineError, MmtlError, UsageError, VerificationError
from edge.inference.window_engine import WindowwiseEngine
from edge.model.bundle import Bundle, load_bundle
from edge.model.profile import find_profile, load_profile
from edge.output.sinks import JsonLines, ReaderGone
from edge.recognition.pipeline import listen
from edge.recognition.recognizer import Recognizer

TIMEOUT_S: Final = 0.8
"""Time-out of a request; two of them are shorter than the 2 s of sound in a microphone's buffer."""


class TritonWindow:
    """Runs full windows on a Triton server, as `edge.inference.engine.WindowEngine` does on the CPU.

    The only state is the connection. A request that fails is sent once more; a load balancer may route it to
    another replica. For one thread.
    """

    def __init__(self, url: str, model: str) -> None:
        """Connect.

        Args:
            url: HOST:PORT of the server or its load balancer, HTTP.
            model: its name on the server.

        Raises:
            UsageError: tritonclient is not installed, or the address is invalid.
            EngineError: the server, or the model on it, is not available.
        """
        if "://" in url:
            raise UsageError(f"{url} is no address, expected HOST:PORT", remedy="for example localhost:8000")
        self.where = f"{model} at {url}"
        self._model = model
        self._http = _tritonclient()
        self._client = self._http.InferenceServerClient(
            url, connection_timeout=TIMEOUT_S, network_timeout=TIMEOUT_S
        )
        self._largest = int(self._tried(self._client.get_model_config, model)["max_batch_size"])

    def __call__(self, frames: Array) -> tuple[Array, Array]:
        """Map (B, T, F) normalised frames, B of any size, to (B, D) embeddings and (B, C) generic logits.

        Raises:
            EngineError: the server does not answer, or refuses.
        """
        most = self._largest
        pieces = [frames[first : first + most] for first in range(0, len(frames), most)]
        answers = [self._tried(self._infer, piece) for piece in pieces]
        embeddings, logits = zip(*answers, strict=True)
        return np.concatenate(embeddings), np.concatenate(logits)

    def require(self, bundle: Bundle) -> None:
        """Check that the server's model is that of the bundle.

        Raises:
            EngineError: the server does not answer.
            VerificationError: it is another model.
        """
        wanted = reference_of(bundle)
        found = self(wanted.frames[:1])  # one, since many clients may connect at once
        difference = largest_difference(found, (wanted.embedding[:1], wanted.logits[:1]))
        if not difference <= max(wanted.tolerance.values()):
            raise VerificationError(
                f"{self.where} is not the model in {bundle.folder} (they differ by {difference:.2g})",
                remedy="use the bundle that was exported with the server's models",
            )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _infer(self, frames: Array) -> tuple[Array, Array]:
        windows = self._http.InferInput("frames", list(frames.shape), "FP32")
        windows.set_data_from_numpy(np.ascontiguousarray(frames))
        answer = self._client.infer(self._model, [windows])
        embedding, logits = answer.as_numpy("embedding"), answer.as_numpy("logits")
        if embedding is None or logits is None:
            raise EngineError("its answer has no embedding or no logits")
        return embedding, logits

    def _tried(self, ask: Callable[..., Any], *question: Any) -> Any:
        """Send a request, and repeat it once if it fails."""
        try:
            with contextlib.suppress(Exception):
                return ask(*question)
            return ask(*question)
        except Exception as error:  # tritonclient raises whatever its transport raises
            reason = " ".join(str(error).split()) or type(error).__name__
            raise EngineError(
                f"{self.where} does not serve ({reason})",
                remedy="see that Triton runs there and has loaded the model",
            ) from error


def recognizer(bundle: Bundle, window: TritonWindow, profile: str | None = None) -> Recognizer:
    """Return a recogniser whose windows the server computes; after a failure, this CPU does.

    Args:
        bundle: the model.
        window: the server.
        profile: name or file of a speaker's profile.
    """
    window.require(bundle)
    engine = WindowwiseEngine(bundle, window, provider="triton", reason=window.where, close=window.close)
    speaker = load_profile(find_profile(profile), bundle) if profile else None
    return Recognizer(bundle, profile=speaker, engine=engine)


def main(arguments: Sequence[str] | None = None) -> int:
    """Recognise one source and write its events to stdout, one JSON object a line.

    Returns:
        The exit code, as that of `mmtl run`.
    """
    options = _options(arguments)
    try:
        with contextlib.closing(TritonWindow(options.url, options.model)) as window:
            listener = recognizer(load_bundle(options.bundle), window, options.profile)
            listen(open_source(options.source, paced=options.paced), listener, [JsonLines("-")])
    except ReaderGone:
        return 0
    except MmtlError as error:
        sys.stderr.write(f"client: {error}\n")
        return error.exit_code
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "source", metavar="SOURCE", help="mic, mic:INDEX_OR_NAME, a file, - (raw s16le) or demo"
    )
    parser.add_argument("--url", default="localhost:8000", help="HOST:PORT of Triton's HTTP")
    parser.add_argument("--model", default="mmtl_window_onnx", help="or mmtl_window_plan")
    parser.add_argument("--bundle", type=Path, default=Path(__file__).parent / "bundle")
    parser.add_argument("--profile", help="name or file of a speaker's profile")
    parser.add_argument("--paced", action="store_true", help="deliver a file in real time")
    return parser.parse_args(arguments)


def _tritonclient() -> Any:
    try:
        import tritonclient.http
    except (ModuleNotFoundError, RuntimeError) as error:  # it turns the first into the second
        raise UsageError(
            "talking to Triton needs its client", remedy="pip install 'tritonclient[http]'"
        ) from error
    return tritonclient.http


if __name__ == "__main__":
    sys.exit(main())
