"""The `mmtl` command: what runs on the device, and the door to train, calibrate and export.

Everything slow is imported inside the commands, so that help appears at once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from edge.errors import MmtlError, UsageError
from edge.options import (
    BundleFolder,
    CsvTarget,
    JsonlTarget,
    MqttAuthority,
    MqttTarget,
    NamedBundle,
    ProfileName,
    Provider,
    Rate,
    SourceName,
    Step,
    Strict,
)
from edge.profile_commands import profiles

if TYPE_CHECKING:
    from edge.bundle import Bundle
    from edge.recogniser import Recognizer
    from edge.sinks import Sink

COMMAND_GROUP = "mmtl.commands"
"""Entry points of commands that live outside `edge`; each names a function for typer."""

SUMMARIES = {
    "train": "Train a model and score it on speakers it has not heard.",
    "evaluate": "Score a bundle on a corpus, speaker by speaker.",
    "calibrate": "Fit the recogniser to one person: a guided session, or labelled clips.",
    "export": "Turn a checkpoint into what a device runs, and check that the two agree.",
}
"""Help of the commands that are not loaded to be listed."""

EXTRAS = {
    "torch": "train",
    "torchaudio": "train",
    "sklearn": "train",
    "matplotlib": "pictures",
    "onnx": "export",
    "paho": "mqtt",
    "websockets": "serve",
}
"""Which extra brings a package that the base installation lacks."""


class LazyCommand(TyperCommand):
    """A command of another package: loaded when it is called, not when it is listed."""

    def __init__(self, entry: EntryPoint) -> None:
        super().__init__(entry.name, callback=None, help=SUMMARIES.get(entry.name, ""))
        self._entry = entry

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Load the command and let it read its arguments."""
        loaded = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        loaded.command(self.name)(self._entry.load())
        return typer.main.get_command(loaded).make_context(info_name, args, parent, **extra)


class Commands(TyperGroup):
    """The commands of this module, and those of the entry points."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return all names, ours first."""
        return [*super().list_commands(ctx), *_entries()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Find a command by name."""
        entry = _entries().get(cmd_name)
        return LazyCommand(entry) if entry else super().get_command(ctx, cmd_name)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Hear how somebody speaks: neutral, happy, sad or angry, several times a second, on this device.",
)
app.add_typer(profiles, name="profile")


@app.callback(invoke_without_command=True)
def _root(
    *,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="With --version: the model's licence too.")
    ] = False,
) -> None:
    if show_version:
        typer.echo(f"mmtl {_version()}")
        if verbose:
            _describe_default_bundle()
        raise typer.Exit


@app.command()
def monitor(
    source: SourceName = "mic",
    bundle: BundleFolder = None,
    profile: ProfileName = None,
    provider: Provider = "auto",
    step_ms: Step = 240,
    rate: Rate = 16_000,
    strict: Strict = False,
    jsonl: JsonlTarget = None,
) -> None:
    """Watch a microphone, a file or the demo live in the terminal. Ctrl-C ends it."""
    from edge.monitor import LiveMonitor
    from edge.pipeline import listen
    from edge.sinks import JsonLines, PlainLines
    from edge.sources import open_source

    sound = open_source(source, rate=rate, paced=True)
    recogniser = _recogniser(bundle, profile, provider, step_ms)
    sinks = _provider_note(provider)
    sinks.append(LiveMonitor() if sys.stderr.isatty() else PlainLines(sys.stderr))
    if jsonl:
        sinks.append(JsonLines(jsonl))
    with contextlib.closing(recogniser.engine), _closed_after(sinks):
        listen(sound, recogniser, sinks, strict=strict)


@app.command()
def run(
    source: SourceName,
    jsonl: JsonlTarget = None,
    bundle: BundleFolder = None,
    profile: ProfileName = None,
    provider: Provider = "auto",
    step_ms: Step = 240,
    rate: Rate = 16_000,
    strict: Strict = False,
    paced: Annotated[bool, typer.Option("--paced/--as-fast-as-possible", help="Pace of a file.")] = False,
    csv: CsvTarget = None,
    mqtt: MqttTarget = None,
    mqtt_ca: MqttAuthority = None,
) -> None:
    """Recognise without a screen: events as JSON Lines, rows or messages, or a readable line each."""
    from edge.pipeline import listen
    from edge.sources import open_source

    sound = open_source(source, rate=rate, paced=paced)
    recogniser = _recogniser(bundle, profile, provider, step_ms)
    opened = itertools.chain(_provider_note(provider), _headless_sinks(jsonl, csv, mqtt, mqtt_ca))
    with contextlib.closing(recogniser.engine), _closed_after(opened) as sinks:
        if "NOTIFY_SOCKET" in os.environ:  # a service: systemd waits until the engine is warm
            from edge.readiness import ServiceManager, warm

            warm(recogniser)
            sinks.append(ServiceManager(report=_say))
        listen(sound, recogniser, sinks, strict=strict)


@app.command()
def verify(
    bundle: NamedBundle,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A sound file of speech, or demo.")],
    step_ms: Step = 240,
    seed: Annotated[int, typer.Option("--seed", help="Of the random block sizes.", min=0)] = 0,
) -> None:
    """Check that a stream of random blocks says what the whole-window graph says of the whole file."""
    from edge.audio import read_clip
    from edge.errors import VerificationError
    from edge.sources import demo_clip
    from edge.verification import verify as compare

    model, samples = _bundle(bundle), read_clip(demo_clip() if str(file) == "demo" else file)
    with _progress("comparing windows") as progress:
        report = compare(model, samples, step_ms=step_ms, seed=seed, progress=progress)
    checks = {
        f"streaming equals offline, within {report.tolerance:g}": report.equal,
        "the past does not depend on the future": report.causal,
        "reset restores the stream bit for bit": report.reset,
        "flush emits the tail": report.flushed,
    }
    typer.echo(f"{report.windows} windows, in which a probability moves by up to {report.spread:.3f}")
    typer.echo(
        f"largest difference {report.largest_difference:.2g}, in the window that ends at {report.at_s:.2f} s"
    )
    for check, passed in checks.items():
        typer.echo(f"{'ok    ' if passed else 'FAILED'}  {check}")
    if not report.passed:
        failed = "; ".join(check for check, passed in checks.items() if not passed)
        raise VerificationError(
            f"{bundle} does not stream as it should ({failed}): export the model again, or report this"
        )


@app.command()
def convert(
    events: Annotated[str, typer.Argument(metavar="EVENTS", help="A log that --jsonl wrote, or -.")],
    to: Annotated[str, typer.Option("--to", help="csv (windows); rttm, textgrid or srt (utterances).")],
    out: Annotated[Path | None, typer.Option("--out", help="File to write, not stdout.")] = None,
) -> None:
    """Turn a log of events into a table, segments or subtitles."""
    from edge.convert import converted, lines_of
    from edge.files import replacing
    from edge.sinks import write_text

    text = converted(lines_of(events), "stdin" if events == "-" else events, to)
    if out is None:
        write_text(text)
        return
    with replacing(out.resolve()) as partial:  # /dev/stdout is a link, and stays one
        partial.write_bytes(text.encode())


@app.command()
def serve(
    tcp: Annotated[str | None, typer.Option("--tcp", metavar="[HOST:]PORT", help="Raw sound in.")] = None,
    websocket: Annotated[
        str | None, typer.Option("--websocket", metavar="[HOST:]PORT", help="Messages of raw sound in.")
    ] = None,
    bundle: BundleFolder = None,
    profile: ProfileName = None,
    provider: Provider = "auto",
    step_ms: Step = 240,
    clients: Annotated[int, typer.Option("--clients", help="Most at a time.", min=1)] = 16,
    client_profiles: Annotated[
        bool, typer.Option("--client-profiles", help="Let clients name a profile kept on this device.")
    ] = False,
    idle_s: Annotated[float, typer.Option("--idle-s", help="Without sound, then let go.", min=1)] = 30.0,
) -> None:
    """Recognise s16le mono sound from TCP or WebSocket clients; only this machine's, unless HOST is given.

    A client may first send {"rate": HZ}, or ask for /?rate=HZ; it gets the events as JSON. Ctrl-C ends it.
    With --client-profiles it may first send {"profile": "NAME"} too.
    """
    from edge.bundle import default_bundle, load_bundle
    from edge.ear import kept_for_clients, shared_engines
    from edge.profile import find_profile, load_profile
    from edge.recogniser import Settings
    from edge.server import Limits, parse_address
    from edge.server import serve as serve_clients

    addresses = {"tcp": tcp, "websocket": websocket}
    listen = {kind: parse_address(text) for kind, text in addresses.items() if text is not None}
    model = load_bundle(bundle or default_bundle())
    speaker = load_profile(find_profile(profile), model) if profile else None
    make = shared_engines(model, profile=speaker, settings=Settings(step_ms=step_ms), provider=provider)
    find = kept_for_clients(model) if client_profiles else None
    engine = make().engine

    def ready(ports: dict[str, int]) -> None:
        if provider == "auto":
            _say(f"runs on {engine.provider}: {engine.reason}")

    with contextlib.closing(engine):
        limits = Limits(connections=clients, idle_s=idle_s)
        serve_clients(make, **listen, find=find, limits=limits, say=_say, ready=ready)


@app.command("build-engine")
def build_engine(
    bundle: NamedBundle,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of engines, not this user's cache (in a service, its state)."),
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="fp32, fp16, or auto: the fastest that agrees.")
    ] = "auto",
    batch: Annotated[int, typer.Option("--batch", help="Most windows at once, of all streams.", min=1)] = 8,
    force: Annotated[bool, typer.Option("--force", help="Build even if there is one that holds.")] = False,
) -> None:
    """Build a model's TensorRT engine, on the machine that shall run it. Ctrl-C ends it.

    An engine that is there and holds (the same model, TensorRT and GPU) is kept, and nothing built.
    """
    from edge.engine_choice import build_engine as build
    from edge.engine_choice import this_machine
    from edge.plan import Wanted

    model, machine, wanted = _bundle(bundle), this_machine(), Wanted(precision, batch)
    with _progress("building the engine") as progress:
        try:
            plan = build(model, wanted, machine, folder=out, force=force, say=_say, progress=progress)
        except KeyboardInterrupt as error:
            raise typer.Abort from error
    holds = plan.fingerprint
    typer.echo(
        f"{plan.path}\n{holds.recurrence} {holds.precision}, up to {holds.batch} windows at once, "
        f"for {holds.gpu} under TensorRT {holds.tensorrt}"
    )


@app.command()
def benchmark(
    bundle: Annotated[
        str, typer.Argument(metavar="[BUNDLE]", help="Folder of a model, not the one that ships.")
    ] = "default",
    seconds: Annotated[float, typer.Option("--seconds", help="Sound to measure on.", min=1.0)] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Measure what the recogniser costs on this machine, and against running the whole window again."""
    from edge.benchmarking import benchmark as measure

    with _progress("measuring") as progress:
        figures = measure(_bundle(bundle), seconds=seconds, progress=progress)
    if as_json:
        import json

        typer.echo(json.dumps(figures.described(), indent=2))
    else:
        from edge.benchmarking import table

        typer.echo(table(figures))


@app.command()
def devices() -> None:
    """List the microphones: number, name, host API, channels and the rates that really open."""
    from rich.console import Console
    from rich.table import Table

    from edge.devices import input_devices

    found = input_devices()
    if not found:
        typer.echo("No microphone found. Plug one in, or check that this user may use sound (group audio).")
        return
    table = Table("", "number", "name", "host API", "channels", "rates that open (Hz)", box=None)
    for item in found:
        rates = " ".join(map(str, item.rates)) or "none"
        table.add_row(
            "*" if item.default else "", str(item.index), item.name, item.host_api, str(item.channels), rates
        )
    Console().print(table)


@app.command()
def doctor(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Folder of a model, not the one that ships.")
    ] = "default",
    profile: ProfileName = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
) -> None:
    """Look at sound, model and engine of this machine: for each thing a verdict, and what to do about it.

    The exit code is that of the first problem: 3 sound, 4 model or profile, 5 engine; 0 if there is none.
    """
    from edge.bundle import default_bundle
    from edge.checks import Patient
    from edge.doctor import described, examine, exit_code, lines
    from edge.sinks import write_text
    from edge.symptoms import System

    folder = default_bundle() if bundle == "default" else Path(bundle)
    shown, counted = itertools.tee(examine(Patient(System(), folder, profile)))
    if as_json:
        import json

        write_text(json.dumps(described(shown), indent=2))
    else:
        for line in lines(shown):  # each once it is known
            write_text(line)
    raise typer.Exit(exit_code(counted))


def main() -> None:
    """Run the command line and leave with the design's exit code."""
    from edge.sinks import ReaderGone

    try:
        code = app(prog_name="mmtl", standalone_mode=False)
    except ReaderGone:
        return
    except MmtlError as error:
        _fail(str(error), error.exit_code)
    except _Misuse as error:
        if not str(error):  # no arguments: the help is on the screen
            raise SystemExit(UsageError.exit_code) from error
        _fail(_described_misuse(error), UsageError.exit_code)
    except typer.Abort:
        _fail("stopped before it was done", MmtlError.exit_code)
    except Exception as error:  # noqa: BLE001 - the last resort, which says so
        _fail_unexpectedly(error)
    if code:
        raise SystemExit(code)


_Misuse: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises for a command line it cannot read; its versions keep it in different places."""


def _described_misuse(error: Any) -> str:
    command = error.ctx.command_path if error.ctx else "mmtl"
    return f"{error.format_message().rstrip('.')}: see {command} --help"


def _fail_unexpectedly(error: Exception) -> NoReturn:
    """Say what extra brings a missing package, or else that something unforeseen happened.

    Raises:
        SystemExit: always.
    """
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing in EXTRAS:
        _fail(f"this command needs {missing}: pip install 'mmtl[{EXTRAS[missing]}]'", UsageError.exit_code)
    if os.environ.get("MMTL_DEBUG"):
        raise error
    _fail(f"unexpected: {type(error).__name__}: {error} (MMTL_DEBUG=1 shows where)", MmtlError.exit_code)


def _recogniser(bundle: Path | None, profile: str | None, provider: str, step_ms: int) -> Recognizer:
    from edge.profile import find_profile
    from edge.recogniser import Recognizer, Settings

    return Recognizer.load(
        bundle,
        profile=find_profile(profile) if profile else None,
        settings=Settings(step_ms=step_ms),
        provider=provider,
    )


def _provider_note(asked: str) -> list[Sink]:
    """Return what tells those who left the choice to us what was chosen, and why."""
    from edge.sinks import ProviderNote

    return [ProviderNote(_say)] if asked == "auto" else []


def _bundle(name: str) -> Bundle:
    from edge.bundle import default_bundle, load_bundle

    return load_bundle(default_bundle() if name == "default" else Path(name))


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[float], None]]:
    """Show a bar with the time left on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=None)  # it pulses until a share is known
        yield lambda share: bar.update(task, total=1.0, completed=share)


def _headless_sinks(
    jsonl: str | None, csv: str | None, mqtt: str | None, authority: Path | None
) -> Iterator[Sink]:
    """Open what a run writes to; readable lines take stdout where nothing else does."""
    from edge.sinks import CsvRows, JsonLines, PlainLines, standard_output

    if jsonl and csv and (jsonl == csv or Path(jsonl).resolve() == Path(csv).resolve()):
        raise UsageError(f"--jsonl and --csv both name {jsonl}: give each its own file, or one of them -")
    if authority and not mqtt:
        raise UsageError("--mqtt-ca is there without --mqtt: say where to publish to, HOST[:PORT]/TOPIC")
    if jsonl:
        yield JsonLines(jsonl)
    if csv:
        yield CsvRows(csv)
    if "-" not in (jsonl, csv):
        yield PlainLines(standard_output())
    if mqtt:
        from edge.mqtt import Mqtt, parse_target

        yield Mqtt(parse_target(mqtt, authority=authority, environment=os.environ), report=_say)


@contextlib.contextmanager
def _closed_after(opened: Iterable[Sink]) -> Iterator[list[Sink]]:
    """Close each sink at the end, also where a later one cannot be opened."""
    with contextlib.ExitStack() as stack:
        sinks = []
        for sink in opened:
            stack.callback(sink.close)
            sinks.append(sink)
        yield sinks


def _describe_default_bundle() -> None:
    from edge.bundle import default_bundle, read_manifest

    manifest = read_manifest(default_bundle())
    typer.echo(f"model {manifest.name}: weights under {manifest.licence}")
    for corpus in manifest.training.get("corpora", []):
        typer.echo(f"  trained on {corpus['name']}, {corpus['licence']}")


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=COMMAND_GROUP)}


def _version() -> str:
    try:
        return version("mmtl")
    except PackageNotFoundError:
        return "(a copy that was not installed)"


def _say(message: str) -> None:
    sys.stderr.write(f"mmtl: {' '.join(message.split())}\n")  # which a progress bar keeps above itself
    sys.stderr.flush()


def _fail(message: str, exit_code: int) -> NoReturn:
    typer.echo(f"mmtl: {' '.join(message.split())}", err=True)
    raise SystemExit(exit_code)
