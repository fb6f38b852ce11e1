"""The rows of the self-test's table: checks that pass or fail, figures, and what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

from fusible.errors import FusibleError

__all__ = ["CheckFailed", "Result", "Row", "check", "require"]


class Result(StrEnum):
    """How a row ended."""

    OK = "ok"
    FAILED = "FAILED"
    SKIPPED = "skipped"


class CheckFailed(FusibleError):
    """A check found something else than it expected."""


@dataclass(frozen=True, slots=True)
class Row:
    """section: layer, session, speed, kernel or model. what: the check. detail: figures, or what went wrong."""

    section: str
    what: str
    result: Result
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        """Plain data."""
        return {key: str(value) for key, value in asdict(self).items()}


_REFUSALS = (FusibleError, RuntimeError, OSError, ValueError, TypeError, AttributeError, LookupError, ImportError)


def check(section: str, what: str, function: Callable[[], str]) -> Iterator[Row]:
    """The row of a check, which returns a detail. What it raises is the row's, so that the others run as well."""
    try:
        yield Row(section, what, Result.OK, function())
    except _REFUSALS as error:
        yield Row(section, what, Result.FAILED, f"{type(error).__name__}: {error}")


def require(holds: object, what: str) -> None:
    """Raise CheckFailed unless something holds."""
    if not holds:
        raise CheckFailed(what)
