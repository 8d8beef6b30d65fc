"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SourceName = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="mic, mic:INDEX_OR_NAME, a file, - (raw s16le) or demo."),
]
BundleFolder = Annotated[
    Path | None, typer.Option("--bundle", help="Folder of a model, not the one that ships.")
]
NamedBundle = Annotated[
    str, typer.Argument(metavar="BUNDLE", help='Folder of a model, or "default" for the one that ships.')
]
ProfileName = Annotated[str | None, typer.Option("--profile", help="Name or file of a speaker's profile.")]
Provider = Annotated[
    str, typer.Option("--provider", help="auto, cpu, cuda or tensorrt (the last two not yet run on a GPU).")
]
Step = Annotated[int, typer.Option("--step-ms", help="From window to window: a multiple of 80.")]
Rate = Annotated[int, typer.Option("--rate", help="Hz of raw sound on stdin.")]
ChannelName = Annotated[
    str,
    typer.Option(
        "--channel",
        metavar="N|mix|auto",
        help="Channel to hear, counted from 0. auto: the mean of two, one of them where they cancel each "
        "other, the first of more.",
    ),
]
RawChannels = Annotated[
    int, typer.Option("--channels", metavar="N", help="Channels of raw sound on stdin, interleaved.")
]
Strict = Annotated[bool, typer.Option("--strict", help="End with exit code 6 as soon as sound is lost.")]
JsonlTarget = Annotated[
    str | None, typer.Option("--jsonl", metavar="PATH|-", help="Write events to a file or -.")
]
CsvTarget = Annotated[
    str | None, typer.Option("--csv", metavar="PATH|-", help="Write windows as rows to a file or -.")
]
MqttTarget = Annotated[
    str | None,
    typer.Option(
        "--mqtt",
        metavar="[mqtts://][USER@]HOST[:PORT]/TOPIC",
        help="Publish events to a broker, at TOPIC/TYPE; the password is taken from MMTL_MQTT_PASSWORD.",
    ),
]
MqttAuthority = Annotated[
    Path | None,
    typer.Option("--mqtt-ca", help="Certificates (PEM) to trust, not the system's; asks for TLS."),
]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite files that are there.")]
Append = Annotated[bool, typer.Option("--append", help="Add to files that are there.")]
Anonymous = Annotated[
    bool, typer.Option("--anonymous", help="Leave out the names of file, microphone and profile.")
]
MqttNames = Annotated[
    bool,
    typer.Option("--mqtt-names", help="Publish the names of file, microphone and profile to the broker too."),
]
