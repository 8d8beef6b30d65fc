"""The commands `mmtl profile list`, `show`, `delete`, `export` and `import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import BundleFolder
from edge.system.shell import quoted

if TYPE_CHECKING:
    from edge.model.bundle import Bundle

profiles = typer.Typer(no_args_is_help=True, help="Manage speakers' profiles.")

Overwrite = Annotated[
    bool, typer.Option("--replace", help="Overwrite an existing profile or file of that name.")
]


@profiles.command("list")
def list_profiles(bundle: BundleFolder = None) -> None:
    """List the profiles kept on this device: name, verdict, when made, for which model."""
    from edge.cli.profile_text import listing
    from edge.model.profile import kept_profiles

    paths = kept_profiles()
    typer.echo(
        listing(paths, _model(bundle)) if paths else "No profiles yet: create one with mmtl calibrate NAME."
    )


@profiles.command("show")
def show_profile(
    name: Annotated[str, typer.Argument(help="Name of the speaker.")],
    text: Annotated[bool, typer.Option("--text", help="Print readable text instead of JSON.")] = False,
    bundle: BundleFolder = None,
) -> None:
    """Print a profile's figures as JSON."""
    import json

    from edge.cli.profile_text import as_json, as_text
    from edge.model.profile import find_profile, read_profile

    kept = read_profile(find_profile(name))
    typer.echo(as_text(kept, _model(bundle)) if text else json.dumps(as_json(kept), indent=2))


@profiles.command("delete")
def delete_profile(name: Annotated[str, typer.Argument(help="Name of the speaker.")]) -> None:
    """Delete a profile permanently, and the recordings of an unfinished session of that name."""
    from edge.model.profile_store import delete_profile as delete

    deleted = delete(name)
    if deleted.profile:
        typer.echo(f"Deleted the profile {name}.")
    if deleted.recordings:
        typer.echo(f"Deleted the recordings of the unfinished session of {name}.")


@profiles.command("export")
def export_profile(
    name: Annotated[str, typer.Argument(help="Name of the speaker.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="File to write, for example NAME.safetensors.")
    ],
    overwrite: Overwrite = False,
) -> None:
    """Copy a profile to a file, as a backup or for another device with the same model."""
    from edge.model.profile_store import export_profile as export

    export(name, file, overwrite=overwrite)
    command = f"mmtl profile import {quoted(file.name)} --name {quoted(name)}"
    typer.echo(f"Wrote {file}. On the other device, in the folder of the file, run: {command}")


@profiles.command("import")
def import_profile(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File written by mmtl profile export.")],
    name: Annotated[
        str, typer.Option("--name", help="Name of the profile; by default that of the file.")
    ] = "",
    overwrite: Overwrite = False,
    bundle: BundleFolder = None,
) -> None:
    """Import a profile from a file; refused if it was made for another model."""
    from edge.model.profile import ADOPTED
    from edge.model.profile_store import import_profile as take_in

    kept = take_in(file, _model(bundle), name=name, overwrite=overwrite)
    if kept.verdict == ADOPTED:
        typer.echo(f"Imported the profile {kept.name}: mmtl monitor --profile {quoted(kept.name)}")
    else:
        typer.echo(f"Imported the profile {kept.name}, which did not help: it can be shown, not applied.")


def _model(folder: Path | None) -> Bundle:
    from edge.model.bundle import find_bundle, load_bundle

    return load_bundle(find_bundle(folder))
