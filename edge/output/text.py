"""Events as lines for people: what logs, plain terminals, the monitor and the service status show."""

from __future__ import annotations

from edge.events import (
    LATE_S,
    Device,
    Drift,
    EngineChange,
    Event,
    Overrun,
    Session,
    StreamWarning,
    Summary,
    Utterance,
    Window,
)


def describe(event: Event, percentages: bool) -> str:
    """Write an event as one line for people; empty for an event that has no line.

    Args:
        event: any event.
        percentages: whether probabilities are shown: only if the bundle's temperature was fitted.
    """
    match event:
        case Session():
            profile = f"profile {event.profile}" if event.profile else "no profile"
            text = f"listening to {event.source}: {event.bundle}, {profile}, {event.provider}"
        case Window():
            text = f"{clock_time(event.end_s)}  {_claim(event.label, event.smoothed, percentages)}"
        case Utterance():
            span = f"{clock_time(event.start_s)} to {clock_time(event.end_s)}"
            claim = _claim(event.label, event.probs, percentages)
            text = f"{clock_time(event.end_s)}  utterance {span}: {claim}"
        case Overrun():
            text = f"{clock_time(event.start_s)}  overrun: {event.lost_s:.2f} s of sound lost"
        case Device():
            reason = f" ({event.reason})" if event.reason else ""
            text = f"{clock_time(event.time_s)}  device {event.name}: {event.state}{reason}"
        case Drift():
            text = f"{clock_time(event.time_s)}  {describe_drift(event)}"
        case EngineChange():
            text = f"{clock_time(event.time_s)}  engine: {event.provider} from here on ({event.reason})"
        case StreamWarning():
            text = f"{clock_time(event.time_s)}  warning: {event.message}"
        case Summary():
            text = f"{clock_time(event.duration_s)}  end: {describe_summary(event)}"
        case _:
            return ""
    return printable(text)


def describe_drift(drift: Drift) -> str:
    """Write what has moved since the calibration, how far, and what to do: at most 76 columns.

    Level and entropy have a direction and are written with a sign, the distances in spreads without.
    """
    sign = "" if drift.unit == "spreads" else "+"
    digits = ".1f" if abs(drift.change) < 999.5 else ".0e"  # a damaged profile can be 10^8 spreads away
    return f"drift: {drift.what} {drift.change:{sign}{digits}} {drift.unit}: {drift.advice}"


def describe_summary(summary: Summary) -> str:
    """Write the counts, the compute time, and how often sound was lost."""
    parts = [_count(summary.windows, "window"), _count(summary.utterances, "utterance")]
    if summary.latency_ms:
        parts.append("step " + ", ".join(f"{key} {ms:.1f} ms" for key, ms in summary.latency_ms.items()))
    parts.append(f"real-time factor {summary.real_time_factor:.3f}")
    if summary.lag_ms.get("max", 0.0) > 1000.0 * LATE_S:
        parts.append(f"events up to {summary.lag_ms['max'] / 1000.0:.1f} s late")
    parts.append(f"sound lost {_count(summary.dropped, 'time')}" if summary.dropped else "no sound lost")
    return ", ".join(parts)


def clock_time(seconds: float) -> str:
    """Write seconds of the stream as m:ss.t, or h:mm:ss.t from an hour on."""
    tenths = max(0, round(seconds * 10))
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{start}:{tenths // 10:02d}.{tenths % 10}"


def printable(text: str) -> str:
    """Replace control characters and line breaks by "?": names come from files and devices."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _claim(label: str, probs: dict[str, float], percentages: bool) -> str:
    if percentages and label in probs:
        return f"{label} {probs[label]:.0%}"
    return label


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
