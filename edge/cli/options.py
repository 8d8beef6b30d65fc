"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SourceName = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="mic, mic:INDEX_OR_NAME, a sound file, - (raw s16le on stdin) or demo."
    ),
]
SourceNames = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="mic, mic:INDEX_OR_NAME, a sound file, - (raw s16le on stdin) or demo; with --out any number of "
        "folders, patterns, sound files and manifests (.csv).",
    ),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FOLDER",
        help="Recognise many recordings on all cores, and write a table with a row an utterance and "
        "report.html here. The same command goes on where it was stopped.",
    ),
]
TableName = Annotated[str, typer.Option("--table", help="With --out: format of the table, csv or parquet.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", help="With --out: processes; one a core by default.", min=1),
]
Embed = Annotated[bool, typer.Option("--embed", help="With --out: put the recordings into report.html.")]
BundleFolder = Annotated[
    Path | None, typer.Option("--bundle", help="Model: default, small, or the folder of a bundle.")
]
NamedBundle = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="Model: default, small, or the folder of a bundle.")
]
ProfileName = Annotated[
    str | None, typer.Option("--profile", help="Speaker's profile to apply: a name or a file.")
]
Provider = Annotated[
    str,
    typer.Option(
        "--provider",
        help="What runs the model: auto, cpu, cuda or tensorrt (the last two not yet run on a GPU).",
    ),
]
Step = Annotated[int, typer.Option("--step-ms", help="Time between windows in ms: a multiple of 80.")]
Rate = Annotated[int, typer.Option("--rate", help="Sample rate in Hz of raw sound on stdin.")]
ChannelName = Annotated[
    str,
    typer.Option(
        "--channel",
        metavar="N|mix|auto",
        help="Channel to use, counted from 0. auto: of two channels the mean, or one of them if they cancel "
        "each other; of more the first.",
    ),
]
RawChannels = Annotated[
    int, typer.Option("--channels", metavar="N", help="Number of interleaved channels of raw sound on stdin.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with code 6 as soon as sound is lost.")]
JsonlTarget = Annotated[
    str | None,
    typer.Option(
        "--jsonl", metavar="PATH|-", help="Write the events as JSON Lines to a file, or - for stdout."
    ),
]
CsvTarget = Annotated[
    str | None,
    typer.Option("--csv", metavar="PATH|-", help="Write the windows as CSV rows to a file, or - for stdout."),
]
MqttTarget = Annotated[
    str | None,
    typer.Option(
        "--mqtt",
        metavar="[mqtts://][USER@]HOST[:PORT]/TOPIC",
        help="Publish each event to an MQTT broker, at TOPIC/TYPE; the password is read from "
        "MMTL_MQTT_PASSWORD or --mqtt-password-file.",
    ),
]
MqttAuthority = Annotated[
    Path | None,
    typer.Option(
        "--mqtt-ca", help="Trust the certificates in this file (PEM), not the system's; turns on TLS."
    ),
]
MqttPasswordFile = Annotated[
    Path | None,
    typer.Option("--mqtt-password-file", help="Read the broker's password from the only line of this file."),
]
MqttDiscovery = Annotated[
    bool,
    typer.Option(
        "--mqtt-discovery", help="Announce emotion, confidence and speech as a device to Home Assistant."
    ),
]
MetricsAddress = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="[HOST:]PORT",
        help="Serve /metrics (Prometheus) and /healthz over HTTP, to this machine only unless HOST is given.",
    ),
]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite output files that exist.")]
Append = Annotated[bool, typer.Option("--append", help="Append to output files that exist.")]
Anonymous = Annotated[
    bool, typer.Option("--anonymous", help="Omit the names of file, microphone and profile from the output.")
]
MqttNames = Annotated[
    bool,
    typer.Option(
        "--mqtt-names", help="Publish the names of file, microphone and profile to the broker as well."
    ),
]
