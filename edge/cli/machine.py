"""The commands that examine this machine and its model: verify, benchmark, build-engine, devices, doctor."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import ChannelName, NamedBundle, ProfileName, Step

if TYPE_CHECKING:
    from edge.model.bundle import Bundle


def verify(
    bundle: NamedBundle,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Sound file with speech, or demo.")],
    step_ms: Step = 240,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random block sizes.", min=0)] = 0,
    channel: ChannelName = "auto",
) -> None:
    """Check that streaming a file in random blocks gives the same results as offline inference."""
    from edge.audio.downmix import parse_channel
    from edge.audio.sound_file import read_clip
    from edge.audio.sources import demo_clip
    from edge.diagnostics.verification import verify as compare
    from edge.errors import VerificationError
    from edge.output.progress import progress_bar

    chosen = parse_channel(channel)
    model, samples = _bundle(bundle), read_clip(demo_clip() if str(file) == "demo" else file, chosen)
    with progress_bar("comparing windows") as progress:
        report = compare(model, samples, step_ms=step_ms, seed=seed, progress=progress)
    checks = {
        f"streaming equals offline, within {report.tolerance:g}": report.equal,
        "the past does not depend on the future": report.causal,
        "reset restores the stream bit for bit": report.reset,
        "flush emits the tail": report.flushed,
    }
    typer.echo(f"{report.windows} windows; a probability varies by up to {report.spread:.3f} between them")
    typer.echo(
        f"largest difference {report.largest_difference:.2g}, in the window that ends at {report.at_s:.2f} s"
    )
    for check, passed in checks.items():
        typer.echo(f"{'ok    ' if passed else 'FAILED'}  {check}")
    if not report.passed:
        failed = "; ".join(check for check, passed in checks.items() if not passed)
        raise VerificationError(
            f"{bundle} gives other results when streamed ({failed} failed)",
            remedy="export the model again, or report this",
        )


def benchmark(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Model: default, small, or the folder of a bundle.")
    ] = "default",
    seconds: Annotated[
        float, typer.Option("--seconds", help="Duration in seconds of the sound to measure on.", min=1.0)
    ] = 20.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
) -> None:
    """Measure time and memory of the recogniser on this machine, and compare with whole-window inference."""
    from edge.diagnostics.benchmark import benchmark as measure
    from edge.output.progress import progress_bar

    with progress_bar("measuring") as progress:
        figures = measure(_bundle(bundle), seconds=seconds, progress=progress)
    if as_json:
        import json

        typer.echo(json.dumps(figures.described(), indent=2))
    else:
        from edge.diagnostics.benchmark import table

        typer.echo(table(figures))


def build_engine(
    bundle: NamedBundle,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the engine; by default this user's cache, or the state folder of a service.",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            "--precision", help="fp32, fp16, or auto: the fastest whose results agree with the model's."
        ),
    ] = "auto",
    batch: Annotated[
        int,
        typer.Option("--batch", help="Maximum number of windows computed at once, over all streams.", min=1),
    ] = 8,
    force: Annotated[bool, typer.Option("--force", help="Build even if a valid engine exists.")] = False,
) -> None:
    """Build a model's TensorRT engine, on the machine that will run it. Ctrl-C ends it.

    An existing engine that is valid (the same model, TensorRT and GPU) is kept, and nothing is built.

    Not yet run on a GPU.
    """
    from edge.engine_builder.selection import build_engine as build
    from edge.engine_builder.selection import build_environment
    from edge.gpu.plan import PlanRequirements
    from edge.output.progress import progress_bar
    from edge.output.sinks import say

    model, machine, requirements = _bundle(bundle), build_environment(), PlanRequirements(precision, batch)
    with progress_bar("building the engine") as progress:
        plan = build(model, requirements, machine, folder=out, force=force, say=say, progress=progress)
    holds = plan.fingerprint
    typer.echo(
        f"{plan.path}\n{holds.recurrence} {holds.precision}, up to {holds.batch} windows at once, "
        f"for {holds.gpu} under TensorRT {holds.tensorrt}"
    )


def devices() -> None:
    """List the microphones: number, name, host API, channels and the sample rates that open."""
    from rich.table import Column, Table

    from edge.audio.devices import input_devices
    from edge.output.console import plain_console
    from edge.output.text import printable

    found = input_devices()
    if not found:
        typer.echo("No microphone found. Plug one in, or check that this user may record (group audio).")
        return
    name = Column("name", overflow="fold")
    table = Table("", "number", name, "host API", "channels", "rates that open (Hz)", box=None)
    for item in found:
        rates = " ".join(map(str, item.rates)) or "none"
        table.add_row(
            "*" if item.default else "",
            str(item.index),
            printable(item.name),
            item.host_api,
            str(item.channels),
            rates,
        )
    plain_console().print(table)


def doctor(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Model: default, small, or the folder of a bundle.")
    ] = "default",
    profile: ProfileName = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Check sound, model and engine of this machine, and say what to do about each problem.

    The exit code is that of the first problem: 3 sound, 4 model or profile, 5 engine; 0 without problems.
    """
    from edge.diagnostics.checks import DiagnosticContext
    from edge.diagnostics.doctor import described, examine, exit_code, lines
    from edge.diagnostics.probes import SystemProbe
    from edge.model.bundle import find_bundle
    from edge.output.sinks import write_text

    folder = find_bundle(bundle)
    shown, counted = itertools.tee(examine(DiagnosticContext(SystemProbe(), folder, profile)))
    if as_json:
        import json

        write_text(json.dumps(described(shown), indent=2))
    else:
        for line in lines(shown):  # each once it is known
            write_text(line)
    raise typer.Exit(exit_code(counted))


def _bundle(name: str) -> Bundle:
    from edge.model.bundle import find_bundle, load_bundle

    return load_bundle(find_bundle(name))
