"""`mmtl export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    checkpoint: Annotated[Path, typer.Argument(help="best.safetensors of a run folder.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder of the bundle to write.", show_default=False)],
    form: Annotated[Literal["bundle"], typer.Option("--format", help="What to write.")] = "bundle",
    name: Annotated[str | None, typer.Option(help="Name of the model; the folder's, if not given.")] = None,
    replace: Annotated[bool, typer.Option(help="Replace a bundle that is there.")] = False,
) -> None:
    """Turn a checkpoint into a bundle, and check that the two agree."""
    from export.bundling import export_bundle
    from train.checkpoint import load_checkpoint

    parity = export_bundle(load_checkpoint(checkpoint), out, name or out.name, replace=replace)
    typer.echo(
        f"{form} {out}\n"
        f"torch to ONNX      {parity.torch_to_onnx:.1e} in logits\n"
        f"window to stream   {parity.window_to_stream:.1e} in probability\n"
        f"labels agree       {100 * parity.same_labels:.1f} % of {parity.windows} windows"
    )
