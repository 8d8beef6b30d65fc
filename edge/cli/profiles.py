"""`mmtl profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import BundleFolder
from edge.system.shell import quoted

if TYPE_CHECKING:
    from edge.model.bundle import Bundle

profiles = typer.Typer(no_args_is_help=True, help="Look after speakers' profiles.")

Overwrite = Annotated[bool, typer.Option("--replace", help="Overwrite what there is of that name.")]


@profiles.command("list")
def list_profiles(bundle: BundleFolder = None) -> None:
    """List the profiles kept on this device: name, verdict, when made, for which model."""
    from edge.cli.profile_text import listing
    from edge.model.profile import kept_profiles

    paths = kept_profiles()
    typer.echo(listing(paths, _model(bundle)) if paths else "No profiles yet: mmtl calibrate makes one.")


@profiles.command("show")
def show_profile(
    name: Annotated[str, typer.Argument(help="Name of the speaker.")],
    text: Annotated[bool, typer.Option("--text", help="For people, not as JSON.")] = False,
    bundle: BundleFolder = None,
) -> None:
    """Print what is known of a profile, as JSON."""
    import json

    from edge.cli.profile_text import as_json, as_text
    from edge.model.profile import find_profile, read_profile

    kept = read_profile(find_profile(name))
    typer.echo(as_text(kept, _model(bundle)) if text else json.dumps(as_json(kept), indent=2))


@profiles.command("delete")
def delete_profile(name: Annotated[str, typer.Argument(help="Name of the speaker.")]) -> None:
    """Delete a profile for good, and what an unfinished session of that name has recorded."""
    from edge.model.profile_store import delete_profile as delete

    deleted = delete(name)
    if deleted.profile:
        typer.echo(f"Deleted the profile {name}.")
    if deleted.recordings:
        typer.echo(f"Deleted the recordings of the unfinished session of {name}.")


@profiles.command("export")
def export_profile(
    name: Annotated[str, typer.Argument(help="Name of the speaker.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to, for example NAME.safetensors.")],
    overwrite: Overwrite = False,
) -> None:
    """Copy a profile to a file, to keep it or to take it to another device with the same model."""
    from edge.model.profile_store import export_profile as export

    export(name, file, overwrite=overwrite)
    command = f"mmtl profile import {quoted(file.name)} --name {quoted(name)}"
    typer.echo(f"Wrote {file}. On the other device, beside the file: {command}")


@profiles.command("import")
def import_profile(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What mmtl profile export wrote.")],
    name: Annotated[str, typer.Option("--name", help="Of the profile; that of the file, if not given.")] = "",
    overwrite: Overwrite = False,
    bundle: BundleFolder = None,
) -> None:
    """Keep the profile in a file on this device; refused if it was made for another model."""
    from edge.model.profile import ADOPTED
    from edge.model.profile_store import import_profile as take_in

    kept = take_in(file, _model(bundle), name=name, overwrite=overwrite)
    if kept.verdict == ADOPTED:
        typer.echo(f"Imported the profile {kept.name}: mmtl monitor --profile {quoted(kept.name)}")
    else:
        typer.echo(f"Imported the profile {kept.name}, which did not help: it can be looked at, not applied.")


def _model(folder: Path | None) -> Bundle:
    from edge.model.bundle import default_bundle, load_bundle

    return load_bundle(folder or default_bundle())
