"""The outputs of a run: which sinks the options ask for, and what they may not overwrite."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import UsageError

if TYPE_CHECKING:
    from edge.metrics.registry import Metrics
    from edge.output.sinks import Sink
    from edge.recognition.recognizer import Recognizer
    from edge.system.outputs import Existing


@dataclass(frozen=True)
class MqttOptions:
    """What the options say of the broker."""

    destination: str | None
    authority: Path | None
    password_file: Path | None
    names: bool
    discovery: bool

    def __post_init__(self) -> None:
        needing = {
            "--mqtt-ca": self.authority,
            "--mqtt-password-file": self.password_file,
            "--mqtt-discovery": self.discovery,
        }
        for option, given in needing.items():
            if given and not self.destination:
                raise UsageError(
                    f"{option} was given without --mqtt",
                    remedy="add --mqtt HOST[:PORT]/TOPIC, or leave it out",
                )

    def publisher(self) -> Sink:
        """Open the sink that publishes to the broker."""
        from edge.output.home_assistant import DiscoveredDevice
        from edge.output.mqtt import Mqtt, parse_destination
        from edge.output.sinks import say

        assert self.destination
        target = parse_destination(
            self.destination,
            authority=self.authority,
            password_file=self.password_file,
            environment=os.environ,
        )
        device = DiscoveredDevice(target.topic, version("mmtl")) if self.discovery else None
        return Mqtt(target, say, device)


@dataclass(frozen=True)
class Targets:
    """The outputs of a run, as the options name them."""

    jsonl: str | None
    csv: str | None
    mqtt: MqttOptions
    existing: Existing
    anonymous: bool

    def __post_init__(self) -> None:
        if self.mqtt.names and (self.anonymous or not self.mqtt.destination):
            raise UsageError(
                "--mqtt-names needs --mqtt and excludes --anonymous",
                remedy="add --mqtt, or leave one of them out",
            )

    def files(self) -> dict[str, str | None]:
        """Return the output files by option."""
        files = {"--jsonl": self.jsonl, "--csv": self.csv}
        return {**files, "stdout": "-"} if self._readable() else files

    def sinks(self, recognizer: Recognizer) -> Iterator[Sink]:
        """Open the sinks one by one."""
        from edge.output.sinks import CsvRows, JsonLines, PlainLines, WarningNote, say, standard_output

        def shown(sink: Sink) -> Sink:
            return without_names(sink, recognizer) if self.anonymous else sink

        if self.jsonl:
            yield shown(JsonLines(self.jsonl, self.existing))
        if self.csv:
            yield shown(CsvRows(self.csv, self.existing))
        if self._readable():
            yield shown(PlainLines(standard_output(), say if self._others() else None))
        else:
            yield WarningNote(say)
        if self.mqtt.destination:
            publisher = self.mqtt.publisher()
            yield publisher if self.mqtt.names else without_names(publisher, recognizer)

    def _readable(self) -> bool:
        """Whether readable lines go to stdout: nothing else does, and it is open or the only output."""
        from edge.system.outputs import is_stdout

        if is_stdout(self.jsonl) or is_stdout(self.csv):
            return False
        return sys.stdout is not None or not self._others()

    def _others(self) -> bool:
        """Whether any output besides readable lines is written."""
        return bool(self.jsonl or self.csv or self.mqtt.destination)


def require_apart(
    outputs: dict[str, str | None],
    source: str,
    bundle: Path | None,
    profile: str | None,
    *read: Path | None,
) -> None:
    """Refuse outputs that would overwrite what a run reads, or each other; `read` are further files."""
    from edge.audio.sources import demo_clip
    from edge.model.bundle import find_bundle
    from edge.model.profile import find_profile
    from edge.system.outputs import require_distinct_files

    device = source.partition(":")[0] == "mic"
    sound = None if device else demo_clip() if source == "demo" else source
    speaker = find_profile(profile) if profile else None
    require_distinct_files(outputs, [sound, find_bundle(bundle), speaker, *read])


def without_names(sink: Sink, recognizer: Recognizer) -> Sink:
    """Return a sink that passes events on without the names of file, microphone and profile."""
    from edge.output.anonymous import AnonymousSink

    return AnonymousSink(sink, speaker_bundle="speaker" in recognizer.bundle.manifest.training)


@contextlib.contextmanager
def served_metrics(text: str | None) -> Iterator[Metrics | None]:
    """Serve metrics, and /healthz, at an address: [HOST:]PORT, or None for not at all.

    Raises:
        UsageError: the text is no address, or it cannot be listened on.
    """
    if text is None:
        yield None
        return
    from edge.metrics.endpoint import serve_metrics
    from edge.metrics.registry import Metrics
    from edge.output.sinks import say
    from edge.server.access import Address, parse_address

    address, metrics = parse_address(text), Metrics(version("mmtl"))
    with serve_metrics(metrics, address.host, address.port) as port:
        say(f"metrics are at http://{Address(address.host, port)}/metrics")
        yield metrics
        metrics.set_not_ready("stopping")


@contextlib.contextmanager
def closed_after(opened: Iterable[Sink]) -> Iterator[list[Sink]]:
    """Close each sink at the end, even if a later one cannot be opened."""
    with contextlib.ExitStack() as stack:
        sinks = []
        for sink in opened:
            stack.callback(sink.close)
            sinks.append(sink)
        yield sinks
