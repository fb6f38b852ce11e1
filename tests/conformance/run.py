"""Run one case under a time bound and say how it ended."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import numpy as np

import fusible
from tests.conformance.cases import Case, Value
from tests.conformance.in_float64 import results_in_float64


class CaseTimeout(BaseException):
    """A case took too long. No `Exception`, so that nothing between here and the case turns it into another error."""


class WrongResult(Exception):
    """An output is not what was expected."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended; `reason` is empty if it passed. host: steps that a target with kernels left to NumPy."""

    name: str
    kind: str
    op: str
    reason: str
    seconds: float
    host: int = 0

    @property
    def passed(self) -> bool:
        return not self.reason

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "passed": self.passed, "seconds": round(self.seconds, 3)}


def run_case(case: Case, *, target: str = "numpy", verify: bool = False, seconds: float = 20.0) -> Outcome:
    """Compile and run a case. Whatever goes wrong is the outcome's reason; nothing is raised but KeyboardInterrupt."""
    started = time.perf_counter()
    reason, host = "", 0
    try:
        with _time_bound(seconds):
            host = _check(case, target, verify)
    except CaseTimeout:
        reason = f"Timeout: took more than {seconds:g} s"
    except (fusible.FusibleError, WrongResult) as error:
        reason = f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 a crash of the compiler is one of the ways a case can end
        reason = f"Crash: {type(error).__name__}: {error} ({_place(error)})"
    return Outcome(case.name, case.kind, case.op, reason, time.perf_counter() - started, host)


def _check(case: Case, target: str, verify: bool) -> int:
    """Returns how many steps are calls of NumPy. Raises WrongResult, and what compiling and running raise."""
    options = fusible.Options(verify="off" if not verify else "kernels" if target == "triton-cpu" else "passes")
    executable = fusible.compile(case.source, target=target, options=options)
    session = executable.session()
    session._poison = True  # what a kernel forgets to write is then NaN
    for inputs, expected in case.data_sets:
        feeds = case.feeds(inputs)
        results = session.run(feeds)
        if len(results) != len(expected):
            raise WrongResult(f"{len(expected)} outputs were expected, got {len(results)}")
        for (name, got), wanted in zip(results.items(), expected, strict=True):
            problem = difference(wanted, got, case.rtol, case.atol, numbers=not case.random)
            if problem and not _is_near_the_truth(case, feeds, name, got, wanted):
                raise WrongResult(f"output {name!r}: {problem}")
    return len(executable.report.host)


def _is_near_the_truth(case: Case, feeds: Mapping[str, Value], name: str, got: Value, wanted: Value) -> bool:
    """True if each element of an fp16 result is as near as the case asks for to what it expects, or else to float64.

    onnx rounds after each operation of what it expects, and is itself up to 1.4 steps of the type off (Attention).
    """
    if not isinstance(got, np.ndarray) or not isinstance(wanted, np.ndarray) or got.dtype != np.float16:
        return False
    exact = (results_in_float64(case.source, feeds) or {}).get(name)
    if exact is None or got.dtype != wanted.dtype or not got.shape == wanted.shape == exact.shape:
        return False
    near = [
        np.isclose(got.astype(np.float64), of, rtol=case.rtol, atol=case.atol, equal_nan=True) for of in (wanted, exact)
    ]
    return bool(np.all(near[0] | near[1]))


def difference(wanted: Value, got: Value, rtol: float, atol: float, *, numbers: bool = True) -> str:
    """What is wrong with `got`, or "". As the official suite compares, but for integers, which must be exact.

    numbers: False compares shapes and dtypes only.
    """
    match wanted, got:
        case None, None:
            return ""
        case list(), list() if len(wanted) == len(got):
            pairs = enumerate(zip(wanted, got, strict=True))
            problems = ((place, difference(one, other, rtol, atol, numbers=numbers)) for place, (one, other) in pairs)
            return next((f"element {place}: {problem}" for place, problem in problems if problem), "")
        case np.ndarray(), np.ndarray():
            return _array_difference(wanted, got, rtol, atol, numbers)
        case _:
            return f"{_describe(wanted)} was expected, got {_describe(got)}"


def _array_difference(wanted: np.ndarray, got: np.ndarray, rtol: float, atol: float, numbers: bool) -> str:
    if (wanted.dtype, wanted.shape) != (got.dtype, got.shape):
        return f"{_describe(wanted)} was expected, got {_describe(got)}"
    if not numbers:
        return ""
    if wanted.dtype.kind in "biuOSU":
        wrong = wanted != got
    else:
        exact = np.complex128 if wanted.dtype.kind == "c" else np.float64
        rtol = max(rtol, 2**-6) if wanted.dtype.name == "bfloat16" else rtol
        wrong = ~np.isclose(got.astype(exact), wanted.astype(exact), rtol=rtol, atol=atol, equal_nan=True)
    if not np.any(wrong):
        return ""
    where = tuple(int(place) for place in np.argwhere(wrong)[0])
    first = f"at {where} {wanted[where]!r} was expected, got {got[where]!r}"
    return f"{int(np.sum(wrong))} of {wanted.size} elements differ; {first}"


def _describe(value: Value) -> str:
    match value:
        case np.ndarray():
            return f"{value.dtype}{list(value.shape)}"
        case list():
            return f"a sequence of {len(value)}"
        case _:
            return str(value)


@contextmanager
def _time_bound(seconds: float) -> Iterator[None]:
    """Raise CaseTimeout in the block after `seconds` (between two steps of the interpreter; main thread only)."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise CaseTimeout

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def totals(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """By operator, sorted: how many cases passed, failed and ran."""
    counts: dict[str, dict[str, int]] = {}
    for outcome in sorted(outcomes, key=lambda item: item.op.lower()):
        row = counts.setdefault(outcome.op, {"passed": 0, "failed": 0, "total": 0})
        row["passed" if outcome.passed else "failed"] += 1
        row["total"] += 1
    return counts
