"""The commands `mmtl monitor` and `run`, which recognise, and `convert`, which reads events."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import (
    Anonymous,
    Append,
    BundleFolder,
    ChannelName,
    CsvTarget,
    Embed,
    JsonlTarget,
    MetricsAddress,
    MqttAuthority,
    MqttDiscovery,
    MqttNames,
    MqttPasswordFile,
    MqttTarget,
    ProfileName,
    Provider,
    Rate,
    RawChannels,
    Replace,
    ReportFolder,
    SourceName,
    SourceNames,
    Step,
    Strict,
    TableName,
    Workers,
)
from edge.cli.targets import MqttOptions, Targets, closed_after, require_apart, served_metrics, without_names

if TYPE_CHECKING:
    from edge.metrics.registry import Metrics
    from edge.output.sinks import Sink
    from edge.recognition.recognizer import Recognizer


def monitor(
    source: SourceName = "mic",
    bundle: BundleFolder = None,
    profile: ProfileName = None,
    provider: Provider = "auto",
    step_ms: Step = 240,
    rate: Rate = 16_000,
    channels: RawChannels = 1,
    channel: ChannelName = "auto",
    strict: Strict = False,
    jsonl: JsonlTarget = None,
    replace: Replace = False,
    append: Append = False,
    anonymous: Anonymous = False,
    metrics: MetricsAddress = None,
) -> None:
    """Show the emotion in a microphone, a file or the demo live in the terminal. Ctrl-C ends it."""
    from edge.audio.downmix import parse_channel
    from edge.audio.sources import open_source
    from edge.output.sinks import JsonLines
    from edge.recognition.pipeline import listen
    from edge.system.outputs import existing_policy

    existing = existing_policy(replace=replace, append=append)
    heard = parse_channel(channel)
    sound = open_source(source, rate=rate, channels=channels, paced=True, channel=heard)
    require_apart({"--jsonl": jsonl}, source, bundle, profile)
    with served_metrics(metrics) as measured:
        recognizer = _recognizer(bundle, profile, provider, step_ms)
        sinks = [*_provider_note(provider), *_measuring(measured, recognizer)]
        sinks.append(_shown(alone=jsonl is None))
        if jsonl is not None:
            sinks.append(JsonLines(jsonl, existing))
        if anonymous:
            sinks = [without_names(sink, recognizer) for sink in sinks]
        with contextlib.closing(recognizer.engine), closed_after(sinks):
            listen(sound, recognizer, sinks, strict=strict)


def _shown(*, alone: bool) -> Sink:
    """Return the sink that shows events: the live monitor, or lines where it cannot be drawn.

    Args:
        alone: whether the events go nowhere else, so that the command ends when their reader has gone.
    """
    from edge.output.console import can_redraw, plain_console
    from edge.output.monitor import LiveMonitor
    from edge.output.sinks import PlainLines, say

    console = plain_console(stderr=True)
    if can_redraw(console):
        return LiveMonitor(console)
    # sys.stderr never fails here; the stream that Python opened reports that its reader has gone.
    return PlainLines((alone and sys.__stderr__) or sys.stderr, say)


def run(
    sources: SourceNames,
    jsonl: JsonlTarget = None,
    bundle: BundleFolder = None,
    profile: ProfileName = None,
    provider: Provider = "auto",
    step_ms: Step = 240,
    rate: Rate = 16_000,
    channels: RawChannels = 1,
    channel: ChannelName = "auto",
    strict: Strict = False,
    paced: Annotated[
        bool,
        typer.Option(
            "--paced/--as-fast-as-possible", help="Read a file in real time, or as fast as possible."
        ),
    ] = False,
    csv: CsvTarget = None,
    mqtt: MqttTarget = None,
    mqtt_ca: MqttAuthority = None,
    mqtt_password_file: MqttPasswordFile = None,
    mqtt_discovery: MqttDiscovery = False,
    replace: Replace = False,
    append: Append = False,
    anonymous: Anonymous = False,
    mqtt_names: MqttNames = False,
    metrics: MetricsAddress = None,
    out: ReportFolder = None,
    table: TableName = "csv",
    workers: Workers = None,
    embed: Embed = False,
) -> None:
    """Recognise without a screen: write events as JSON Lines, CSV, MQTT messages or readable lines.

    With --out: recognise many recordings into a table and a page.
    """
    from edge.audio.downmix import parse_channel
    from edge.audio.sources import open_source
    from edge.cli.report import only_source, require_unused, run_report
    from edge.recognition.pipeline import listen
    from edge.system.outputs import existing_policy

    if out is not None:
        events = {"--jsonl": jsonl, "--csv": csv, "--mqtt": mqtt, "--append": append, "--paced": paced}
        require_unused({**events, "--strict": strict, "--anonymous": anonymous, "--metrics": metrics})
        run_report(
            sources,
            out,
            bundle=bundle,
            profile=profile,
            provider=provider,
            step_ms=step_ms,
            channel=channel,
            table=table,
            workers=workers,
            embed=embed,
            replace=replace,
        )
        return
    source = only_source(sources, {"--table": table != "csv", "--workers": workers, "--embed": embed})
    existing = existing_policy(replace=replace, append=append)
    broker = MqttOptions(mqtt, mqtt_ca, mqtt_password_file, mqtt_names, mqtt_discovery)
    targets = Targets(jsonl, csv, broker, existing, anonymous)
    heard = parse_channel(channel)
    sound = open_source(source, rate=rate, channels=channels, paced=paced, channel=heard)
    require_apart(targets.files(), source, bundle, profile, mqtt_ca, mqtt_password_file)
    with served_metrics(metrics) as measured:
        recognizer = _recognizer(bundle, profile, provider, step_ms)
        opened = itertools.chain(
            _provider_note(provider), _measuring(measured, recognizer), targets.sinks(recognizer)
        )
        with contextlib.closing(recognizer.engine), closed_after(opened) as sinks:
            if "NOTIFY_SOCKET" in os.environ:  # a service: systemd waits until the engine is warm
                from edge.output.sinks import say
                from edge.output.systemd import ServiceManager

                recognizer.warm_up()
                sinks.append(ServiceManager(report=say))
            listen(sound, recognizer, sinks, strict=strict)


def convert(
    events: Annotated[str, typer.Argument(metavar="EVENTS", help="Log written by --jsonl, or - for stdin.")],
    to: Annotated[
        str, typer.Option("--to", help="Format: csv (windows); rttm, textgrid or srt (utterances).")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="File to write; stdout by default.")] = None,
    replace: Replace = False,
    session: Annotated[
        int | None,
        typer.Option("--session", help="Session to convert, if the log has several: 1, 2, ...", min=1),
    ] = None,
) -> None:
    """Convert a log of events to a table, segments or subtitles."""
    from edge.output.convert import converted, lines_of
    from edge.output.sinks import say, write_text
    from edge.system.outputs import require_distinct_files, write_atomically

    require_distinct_files({"--out" if out else "stdout": out or "-"}, [events])
    name = "stdin" if events == "-" else events
    text = converted(lines_of(events), name, to, session=session, warn=say)
    if out is None:
        write_text(text)
    else:
        write_atomically(out, text, replace=replace)


def _recognizer(bundle: Path | None, profile: str | None, provider: str, step_ms: int) -> Recognizer:
    from edge.model.profile import find_profile
    from edge.recognition.recognizer import Recognizer
    from edge.recognition.settings import Settings

    return Recognizer.load(
        bundle,
        profile=find_profile(profile) if profile else None,
        settings=Settings(step_ms=step_ms),
        provider=provider,
    )


def _measuring(metrics: Metrics | None, recognizer: Recognizer) -> list[Sink]:
    """Return the sinks of --metrics, after a first run of the model; none without it."""
    if metrics is None:
        return []
    recognizer.warm_up()
    return [metrics.stream(), metrics.readiness()]


def _provider_note(asked: str) -> list[Sink]:
    """Return the sink that reports the provider, and why, if the user asked for "auto"."""
    from edge.output.sinks import ProviderNote, say

    return [ProviderNote(say)] if asked == "auto" else []
