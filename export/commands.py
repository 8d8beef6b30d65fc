"""`mmtl export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from export.parity import Parity


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="best.safetensors of a run folder, or the folder of a bundle.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="What to write: a folder, or for jetson an archive (.tar.gz).", show_default=False
        ),
    ],
    export_format: Annotated[
        Literal["bundle", "tensorrt", "triton", "jetson"],
        typer.Option(
            "--format",
            help="bundle: what mmtl runs; tensorrt: that and the graphs which build-engine builds from; "
            "triton: a model repository; jetson: one archive to install from. The last three are not yet run "
            "on a GPU.",
        ),
    ] = "bundle",
    name: Annotated[
        str, typer.Option(help="Name of the model: the bundle's or that of --out, if not given.")
    ] = "",
    clips: Annotated[
        Path | None,
        typer.Option(
            help="Compare on these too: a folder of recordings, or a manifest .csv with a path column."
        ),
    ] = None,
    no_fp16: Annotated[bool, typer.Option("--no-fp16", help="Leave out the graphs in FP16.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace what is there.")] = False,
) -> None:
    """Turn a checkpoint into what a device runs, and check that the two agree."""
    from edge.output.progress import progress_bar
    from edge.system.outputs import require_distinct_files
    from export.parity import Checks, table
    from export.parity_audio import find_clips
    from export.targets import ExportRequest, export_target
    from export.trained_model import read_model

    recordings = find_clips(clips) if clips else []
    require_distinct_files({"--out": out}, [checkpoint, clips, *recordings])
    request = ExportRequest(export_format, out, name=name, replace=replace, fp16=not no_fp16)
    model = read_model(checkpoint)
    measured: list[Parity] = []
    try:
        with progress_bar("comparing") as progress:
            written = export_target(model, request, Checks(recordings, measured.append, progress))
    finally:  # a refusal is explained by what was measured; under the bar it would land on stderr
        typer.echo("\n".join(map(table, measured)), nl=bool(measured))
    typer.echo(f"{export_format} {written}")
