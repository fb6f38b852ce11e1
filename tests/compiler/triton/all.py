"""python -m tests.compiler.triton.all [WORD...]: every Triton kernel, in checking mode and built for five GPUs.

All cases of this folder: contractions, regions, templates, weights of few bits. Each runs on triton-cpu with every
access checked and is compared with float64 (whole models with ONNX Runtime), and is built for sm_80, sm_90, sm_100,
sm_120 and gfx942, where nothing may spill. A table says for each kernel of kernels/triton, and for kernels without a
template, which element types were seen, in how many cases, the worst error in units of the tolerance (of the largest
error and of the RMS, whichever is nearer to its bound), and for how many targets each case was built.

It fails if a case does, if a function of kernels/triton is reached by no case, and if a kernel was not seen with each
element type that it takes. WORDs choose cases whose names have them all, `--sample N` a spread of N; then the last two
are not asked. It takes about an hour on one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.errors import FusibleError
from fusible.runtime.native.machine import usable_threads
from tests.compiler.triton.covered import functions, reached
from tests.compiler.triton.proofs import TARGETS, Shown, proofs
from tests.fast_compiler import fast_compiler
from tests.tolerance import shares_of_bounds

__all__ = ["Judged", "judged", "missing", "rows"]

FLOATS = ("f32", "f16", "bf16")
TAKES: dict[str, tuple[str, ...]] = {
    "attention": FLOATS,
    "contraction": (*FLOATS, "i8", "u8", "f8e4m3fn", "f8e5m2"),
    "dynamic_quantisation.quantise_block": ("f32",),
    "dynamic_quantisation.quantise_whole": ("f32",),
    "float8": ("f32", "f8e4m3fn", "f8e5m2"),
    "halves": (*FLOATS, "i4", "u4"),
    "partial_sums": FLOATS,
    "recurrent.gru": FLOATS,
    "recurrent.lstm": FLOATS,
    "recurrent.rnn": FLOATS,
    "resize": (*FLOATS, "i64", "u8"),
    "scatter": (*FLOATS, "i64", "u8"),
    "top_k": (*FLOATS, "f64", "i64", "u64", "i8"),
    "no template": (*FLOATS, "f64", "i64", "i32", "i8", "u8", "bool"),
}
"""The element types that each kernel must be seen with. Modules with several kernels have a line for each."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a case. shares: errors in units of the tolerance; refused: why there is no kernel of it."""

    name: str
    kernels: frozenset[str]
    functions: frozenset[tuple[str, str]]
    types: frozenset[str]
    ways: frozenset[str]
    error: float
    built: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    refused: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Row:
    """A line of the table."""

    types: set[str] = field(default_factory=set)
    cases: int = 0
    error: float = 0.0
    built: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TARGETS, 0))


def judged(name: str) -> Judged:
    """Run and build a case by its name."""
    proof, start = proofs()[name], time.monotonic()
    wrong: list[str] = []
    shown: dict[str, Shown] = {}
    with shares_of_bounds() as shares:
        try:
            proof.run()
            shown = {target: proof.built(gpu_target(target)) for target in (TARGETS if proof.builds else TARGETS[1:2])}
        except NotPrintable as reason:
            return Judged(name, *4 * [frozenset()], 0.0, (), refused=str(reason))  # type: ignore[arg-type]
        except (AssertionError, FusibleError) as error:
            wrong.append(f"{type(error).__name__}: {error}")
    wrong += [one.wrong for one in shown.values() if one.wrong]
    texts = [text for one in shown.values() for text in one.texts]
    found = frozenset(reached(texts))
    return Judged(
        name, frozenset(_lines(found, bool(texts))), found,
        frozenset().union(*(one.types for one in shown.values())),
        frozenset().union(*(one.ways for one in shown.values())),
        max(shares, default=0.0), tuple(t for t, one in shown.items() if not one.wrong), tuple(wrong),
        seconds=time.monotonic() - start,
    )  # fmt: skip


def _lines(found: set[tuple[str, str]] | frozenset[tuple[str, str]], printed: bool) -> Iterator[str]:
    for module, name in found:
        if f"{module}.{name}" in TAKES:
            yield f"{module}.{name}"
        elif module in TAKES:
            yield module
    if printed and not any(module not in ("float8", "partial_sums") for module, _ in found):
        yield "no template"


def rows(outcomes: Sequence[Judged]) -> dict[str, Row]:
    """The table: a line for each kernel, then one for each way in which kernels work."""
    found: dict[str, Row] = defaultdict(Row)
    for one in outcomes:
        for line in (*one.kernels, *(f"({way})" for way in one.ways)):
            row = found[line]
            row.types |= one.types
            row.cases += 1
            row.error = max(row.error, one.error)
            for target in one.built:
                row.built[target] += 1
    return dict(sorted(found.items(), key=lambda item: (item[0][0] == "(", item[0])))


def missing(outcomes: Sequence[Judged]) -> list[str]:
    """What no case shows: functions of kernels/triton, element types of kernels, targets."""
    seen = frozenset[tuple[str, str]]().union(*(one.functions for one in outcomes))
    found = [f"no case reaches kernels/triton/{m}.py: {name}" for m, name in functions() if (m, name) not in seen]
    table = rows(outcomes)
    for line, types in TAKES.items():
        row = table.get(line, Row())
        found += [f"{line} was not seen with {dtype}" for dtype in types if dtype not in row.types]
        found += [f"{line} was not built for {target}" for target, count in row.built.items() if not count]
    return found


def told(text: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def table_text(outcomes: Sequence[Judged]) -> str:
    """The table as text."""
    heads = ["kernel", "cases", "worst error", *(t.partition(":")[2] for t in TARGETS), "element types"]
    lines = [heads]
    for name, row in rows(outcomes).items():
        counts = map(str, row.built.values())
        lines.append([name, f"{row.cases}", f"{row.error:.2f}", *counts, ", ".join(sorted(row.types))])
    widths = [max(len(line[n]) for line in lines) for n in range(len(heads) - 1)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[-1]]) for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is wrong, and the table; exit 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="only so many cases, spread over all")
    parser.add_argument("--workers", type=int, default=usable_threads(), help="processes")
    options = parser.parse_args(arguments)
    names = [name for name in proofs() if all(word in name for word in options.words)]
    chosen = names[:: max(1, len(names) // options.sample)][: options.sample] if options.sample else names
    start, outcomes = time.monotonic(), []
    with (
        TemporaryDirectory() as folder,
        fast_compiler(Path(folder), "-O1", lowered=True),
        ProcessPoolExecutor(options.workers) as pool,
    ):
        for waiting in as_completed([pool.submit(judged, name) for name in chosen]):
            one = waiting.result()
            outcomes.append(one)
            if one.wrong:
                told("\n    ".join([f"WRONG {one.name}", *one.wrong]))
            if len(outcomes) % 20 == 0:
                told(f"{len(outcomes)} of {len(chosen)} cases, {time.monotonic() - start:.0f} s")
    return _summary(outcomes, whole=len(chosen) == len(proofs()))


def _summary(outcomes: Sequence[Judged], whole: bool) -> int:
    refused = [one for one in outcomes if one.refused]
    absent = missing(outcomes) if whole else []
    told(f"\n{table_text(outcomes)}\n")
    for reason in sorted({one.refused for one in refused}):
        told(f"{sum(one.refused == reason for one in refused)} refused: {reason}")
    for text in absent:
        told(f"MISSING {text}")
    wrong = sum(bool(one.wrong) for one in outcomes)
    told(f"{len(outcomes)} cases, {len(refused)} refused: {wrong} are wrong, {len(absent)} things are missing")
    return 1 if wrong or absent else 0


if __name__ == "__main__":
    sys.exit(main())
