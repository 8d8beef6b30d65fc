"""All commands of `mmtl` as one application: those of `edge`, and those of train, calibrate and export.

Slow modules are imported inside the commands, so that help appears at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from edge.cli.listen import convert, monitor, run
from edge.cli.machine import benchmark, build_engine, devices, doctor, verify
from edge.cli.profiles import profiles
from edge.cli.serve import serve
from edge.errors import MmtlError, UsageError

COMMAND_GROUP = "mmtl.commands"
"""Entry points of commands that live outside `edge`; each names a function for typer."""

SUMMARIES = {
    "train": "Train a model and score it on speakers that are not in its training data.",
    "evaluate": "Score a model on a corpus, speaker by speaker.",
    "tables": "Train and test the systems of the paper's tables, fold by fold.",
    "calibrate": "Adapt the recogniser to one person, in a guided session or from labelled clips.",
    "export": "Convert a checkpoint into the files that a device runs, and compare the results of both.",
}
"""Help of the commands that are listed without being loaded."""


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
    help="Recognise emotion in speech (neutral, happy, sad, angry) several times a second, on this device.",
)
for command in (monitor, run, verify, convert, serve, build_engine, benchmark, devices, doctor):
    app.command()(command)
app.add_typer(profiles, name="profile")


@app.callback(invoke_without_command=True)
def _root(
    *,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="With --version: print the model's licence too.")
    ] = False,
) -> None:
    if show_version:
        typer.echo(f"mmtl {installed_version()}")
        if verbose:
            _describe_default_bundle()
        raise typer.Exit


def dispatch(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code.

    Raises:
        KeyboardInterrupt: a signal stopped the command, perhaps while it waited for an answer.
        UsageError: the arguments are invalid.
        MmtlError: the command failed, or stdin ended before it answered all questions.
    """
    try:
        with typer.main.get_command(app).make_context("mmtl", [*arguments]) as context:
            context.command.invoke(context)
    except typer.Exit as leaving:
        return leaving.exit_code
    except typer.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise MmtlError("stopped before it was done") from error
    except _Misuse as error:
        if not str(error):  # no arguments: the help is on the screen
            return UsageError.exit_code
        raise _usage_error(error) from error
    return 0


_Misuse: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises for an invalid command line; its versions keep the class in different places."""


def _usage_error(error: Any) -> UsageError:
    command = error.ctx.command_path if error.ctx else "mmtl"
    return UsageError(error.format_message().rstrip("."), remedy=f"see {command} --help")


def _describe_default_bundle() -> None:
    from edge.model.bundle import default_bundle
    from edge.model.manifest import read_manifest

    manifest = read_manifest(default_bundle())
    typer.echo(f"model {manifest.name}: weights under {manifest.licence}")
    for corpus in manifest.training.get("corpora", []):
        typer.echo(f"  trained on {corpus['name']}, {corpus['licence']}")


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=COMMAND_GROUP)}


def installed_version() -> str:
    """Return the version of this program."""
    try:
        return version("mmtl")
    except PackageNotFoundError:
        return "(not installed)"
