"""Which of a kernel's candidates is built: what a lockfile says, else what a device measures, else the static model.

A lockfile is JSON: by key of a kernel on a device, the configuration chosen, and how it was. The same lockfile gives
the same builds, on any machine.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from time import perf_counter

from fusible.errors import UsageError

__all__ = ["Choice", "Config", "Measure", "Source", "TuningLock", "choose"]

Config = Mapping[str, int | str]
"""A candidate: block sizes, warps, stages... by name; words where there are few possibilities."""

Measure = Callable[[Config, "float | None"], "float | None"]
"""Seconds of a candidate, given the least so far; None if it cannot run (too much shared memory, say)."""

_FORMAT = 1


class Source(StrEnum):
    """How a choice was made."""

    MEASURED = "measured"
    STATIC = "static"


@dataclass(frozen=True, slots=True)
class Choice:
    """config: what is built. seconds: measured, None by the static model. tried: candidates that ran.

    device: what they ran on.
    """

    config: Config
    source: Source
    seconds: float | None = None
    tried: int = 0
    device: str = ""


@dataclass(slots=True)
class TuningLock:
    """Choices by key."""

    entries: dict[str, Choice] = field(default_factory=dict)

    @staticmethod
    def read(path: Path) -> TuningLock:
        """A lockfile; an empty one if there is none. Raises UsageError if it cannot be read as one."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format"] != _FORMAT:
                raise UsageError(f"the tuning lockfile {str(path)!r} has format {data['format']}, expected {_FORMAT}")
            return TuningLock({key: _choice(entry) for key, entry in data["entries"].items()})
        except FileNotFoundError:
            return TuningLock()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{str(path)!r} is no tuning lockfile: {error!r}; remove it to tune anew") from error

    def write(self, path: Path) -> None:
        """Replace the file, at once. Equal locks give equal bytes. Raises UsageError if it cannot be written."""
        entries = {key: _entry(choice) for key, choice in sorted(self.entries.items())}
        text = json.dumps({"format": _FORMAT, "entries": entries}, sort_keys=True, indent=1) + "\n"
        try:
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, path)
        except OSError as error:
            raise UsageError(f"the tuning lockfile {str(path)!r} cannot be written: {error.strerror}") from error


def choose(
    key: str,
    candidates: Sequence[Config],
    lock: TuningLock,
    measure: Measure | None = None,
    *,
    budget: float = 10.0,
) -> Choice:
    """The candidate for a kernel, which the lock remembers.

    key: all that decides it: the kernel's text, the sizes it was timed for, the device. candidates: what may be built,
    best first by the static model. A choice of the lock holds if it is still a candidate; one of the static model only
    if nothing can be measured. measure: times a candidate here; None where there is no device. budget: seconds, after
    which the rest is not tried. Raises UsageError for no candidates, or if none can run.
    """
    if not candidates:
        raise UsageError(f"the kernel {key!r} has no candidates")
    known = lock.entries.get(key)
    if known is not None and known.config in candidates and (known.source is Source.MEASURED or measure is None):
        return known
    found = Choice(candidates[0], Source.STATIC) if measure is None else _measured(key, candidates, measure, budget)
    lock.entries[key] = found
    return found


def _measured(key: str, candidates: Sequence[Config], measure: Measure, budget: float) -> Choice:
    """The fastest candidate; of equals, the first."""
    began = perf_counter()
    best: tuple[float, Config] | None = None
    tried = 0
    for config in candidates:
        if tried and perf_counter() - began > budget:
            break
        seconds = measure(config, None if best is None else best[0])
        if seconds is None:
            continue
        tried += 1
        if best is None or seconds < best[0]:
            best = seconds, config
    if best is None:
        raise UsageError(f"none of the {len(candidates)} candidates of the kernel {key!r} can run on this device")
    return Choice(best[1], Source.MEASURED, best[0], tried)


def _entry(choice: Choice) -> dict[str, object]:
    seconds = None if choice.seconds is None else float(f"{choice.seconds:.3g}")
    found: dict[str, object] = {"config": dict(choice.config), "source": str(choice.source)}
    found |= {"seconds": seconds, "tried": choice.tried}
    return found | ({"device": choice.device} if choice.device else {})


def _choice(entry: Mapping[str, object]) -> Choice:
    config, seconds, tried = entry["config"], entry["seconds"], entry["tried"]
    if not isinstance(config, dict) or not all(isinstance(value, int | str) for value in config.values()):
        raise ValueError(f"not a configuration: {config!r}")
    if not isinstance(seconds, float | int | None) or not isinstance(tried, int):
        raise ValueError(f"not a measurement: {seconds!r}, {tried!r}")
    taken = None if seconds is None else float(seconds)
    return Choice(config, Source(str(entry["source"])), taken, tried, str(entry.get("device", "")))
