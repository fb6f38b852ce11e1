"""How quantities are written in tables and on the page: three significant digits and a unit."""

from __future__ import annotations

import math

from fusible.benchmarks.records import Interval, Latency, Sentinel

__all__ = [
    "bytes_text",
    "count_text",
    "error_text",
    "interval_text",
    "noise_text",
    "number_text",
    "plural",
    "printable",
    "ratio_text",
    "seconds_text",
    "share_text",
    "shortened",
    "span_text",
    "visible",
]

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def printable(value: str) -> str:
    """Return text of a model or peer in one line, with control characters escaped: a name must not steer a terminal."""
    return visible(" ".join(value.split()))


def visible(value: str) -> str:
    """Return text with control characters escaped, and a space for every other kind of space."""
    return "".join(" " if char.isspace() else char if char.isprintable() else repr(char)[1:-1] for char in value)


def shortened(value: str, length: int) -> str:
    """Return at most so many characters; what was cut is marked by an ellipsis."""
    return value if len(value) <= length else value[: max(length - 1, 0)] + "…"


def plural(count: int, noun: str) -> str:
    """Return `1 thread`, `2 threads`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def number_text(value: float) -> str:
    """Return three significant digits without an exponent from 0.001 to 1e15: 0.123, 12.3, 1234."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.2e}" if digits > 5 or digits < -12 else f"{value:.{max(digits, 0)}f}"


def seconds_text(seconds: float) -> str:
    """Return a time with its unit: 0.01234 is `12.3 ms`."""
    scale, unit = _time_unit(seconds)
    return f"{number_text(seconds / scale)} {unit}"


def span_text(latency: Latency) -> str:
    """Return the quantiles p20 and p80 in the unit in which `seconds_text` shows p50."""
    scale, _ = _time_unit(latency.p50)
    return f"{number_text(latency.p20 / scale)}–{number_text(latency.p80 / scale)}"


def ratio_text(ratio: float) -> str:
    """Return a ratio: 1.20, 0.05, 12.3."""
    return f"{ratio:.2f}" if 0.1 <= abs(ratio) < 10 else number_text(ratio)


def interval_text(interval: Interval) -> str:
    """Return the ends of an interval of ratios."""
    return f"{ratio_text(interval.low)}–{ratio_text(interval.high)}"


def share_text(share: float) -> str:
    """Return a share in percent: 0.384 is `38 %`."""
    return f"{share * 100:.0f} %"


def count_text(value: int) -> str:
    """Return a count as it is."""
    return str(value)


def error_text(error: float) -> str:
    """Return a numerical error: two digits and an exponent, 0 if there is none."""
    return "0" if error == 0 else f"{error:.1e}"


def bytes_text(count: float) -> str:
    """Return a number of bytes with a unit: 1536 is `1.50 KiB`."""
    size = float(count)
    for unit in _SIZES[:-1]:
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{number_text(size)} {unit}"
        size /= 1024
    return f"{number_text(size)} {_SIZES[-1]}"


def noise_text(seen: Sentinel | None) -> str:
    """Return how quiet the machine was, in a sentence."""
    if seen is None:
        return "not measured"
    best = seconds_text(seen.seconds)
    p50, p80, worst = map(ratio_text, (seen.p50, seen.p80, seen.worst))
    times = f"{p50} times its best at p50, {p80} at p80, {worst} at worst"
    return f"a fixed piece of work ({best} at best) took {times} ({plural(seen.rounds, 'round')})"


def _time_unit(seconds: float) -> tuple[float, str]:
    return next((unit for unit in _TIMES if abs(seconds) >= unit[0]), _TIMES[-1] if seconds else _TIMES[0])
