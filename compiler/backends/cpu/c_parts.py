"""A region without contractions as C: one nest (c_nest.py), or several where it reads by cases."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from fusible.compiler.backends.cpu.c_body import indented, shape_symbols
from fusible.compiler.backends.cpu.c_call import check_elements
from fusible.compiler.backends.cpu.c_nest import NestPrinter
from fusible.compiler.backends.cpu.c_turned import TurnedPrinter, is_turned
from fusible.compiler.backends.cpu.nest import Nest, NotPrintable, check_repetition, nest_of, vector_axes, vector_cost
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.region.region import Region
from fusible.compiler.region.split import digits_apart, pieces

__all__ = ["print_nest"]

_MOST_PARTS, _LEAST_PART = 24, 8
_MOST_DIGITS = 3
_MOST_KEPT = 1 << 20  # floats that a thread keeps between passes: what is computed twice costs less than such memory


def print_nest(region: Region, name: str, *, draft: bool = False) -> tuple[str, tuple[str | Dim, ...]]:
    """The C text of a region without contractions, up to the exported function `name`, and its shape symbols.

    A region that reads by cases is printed as several nests. draft: the text only has to exist, one nest will do, which
    takes a fraction of the time. Raises NotPrintable.
    """
    check_elements(region)
    whole = nest_of(region)
    check_repetition(whole)
    if draft:
        with suppress(NotPrintable):
            return _print_nests([whole], name)
    try:
        return _print_nests([nest_of(part) for part in _parts(region, _split_axis(region, whole))], name)
    except NotPrintable:
        others = (replace(whole, vector=axis) for axis in (*vector_axes(whole)[1:], -1))
        for nest in (whole, *others):  # integers are loaded once for all lanes only
            with suppress(NotPrintable):
                return _print_nests([nest], name)
        raise


def _print_nests(nests: Sequence[Nest], name: str) -> tuple[str, tuple[str | Dim, ...]]:
    symbols = list(dict.fromkeys(s for nest in nests for s in shape_symbols(nest)))
    numbers = list[Dim]()
    parts = _printers(nests, f"{name}_part", symbols, numbers, True)
    without = _printers(nests, f"{name}_long", symbols, numbers, False) if any(p.scratch for p, _ in parts) else []
    texts = [_print_parts(f"static void {name}_long", f"{name}_long", without, "")] if without else []
    texts.append(_print_parts(f"EXPORT void {name}", name, parts, f"{name}_long" if without else ""))
    return "\n".join([*texts, ""]), (*symbols, *numbers)


def _printers(
    nests: Sequence[Nest], name: str, symbols: Sequence[str], numbers: list[Dim], keeps: bool
) -> list[tuple[NestPrinter, str]]:
    """The printer of each nest and its text; their parameters are added to `numbers`."""
    found = []
    for n, nest in enumerate(nests):
        kind = TurnedPrinter if is_turned(nest) else NestPrinter
        printer = kind(nest, f"{name}{n}", symbols, len(numbers), keeps)
        found.append((printer, printer.text()))
        numbers += printer.numbers
    return found


def _print_parts(declared: str, name: str, printed: Sequence[tuple[NestPrinter, str]], otherwise: str) -> str:
    """Nests as one run of the pool: an item is a range of the rows of each, so that neighbouring pieces of a result are
    written by one thread. Where they would keep too much between passes, the function `otherwise` computes them.
    """
    parts = [p for p, _ in printed]
    members = [f"struct {p.name}_call {p.name};" for p in parts]
    begin = [f"{p.name}_begin(&call.{p.name}, buffers, dims, error, &rows, &points);" for p in parts]
    stashes = [(p, f"call.{p.name}") for p in parts if p.scratch]
    lines = [
        f"struct {name}_call call;",
        "long rows = 0, points = 0;",
        *begin,
        "const long items = nest_items(rows, points, pool_threads(pool));",
        *(f"call.{p.name}.items = items;" for p in parts),
        *(_print_scratch(stashes, otherwise) if stashes else []),
        f"pool_run(pool, {name}_task, &call, items);",
        *(["scratch_give(scratch);"] if stashes else []),
    ]
    head = f"{declared}(struct pool *pool, void *const *buffers, const int64_t *dims, int *error) {{"
    texts = [
        [f"struct {name}_call {{", *indented(members), "};"],
        [
            f"static void {name}_task(void *context, long item) {{",
            f"    struct {name}_call *c = context;",
            *(f"    {p.name}_task(&c->{p.name}, item);" for p in parts),
            "}",
        ],
        [head, *indented(lines), "}"],
    ]
    return "\n\n".join([*(text for _, text in printed), *("\n".join(text) for text in texts)]) + "\n"


def _print_scratch(stashes: Sequence[tuple[NestPrinter, str]], otherwise: str) -> list[str]:
    """Scratch memory of each thread for what nests keep between passes; they follow each other, so they share it."""
    return [
        "long floats = 0;",
        *(f"floats = long_max(floats, {p.scratch} * {call}.stash_floats);" for p, call in stashes),
        f"if (floats > {_MOST_KEPT}) {{",
        f"    {otherwise}(pool, buffers, dims, error);",
        "    return;",
        "}",
        "float *scratch;",
        "if (!scratch_get(&scratch, floats * pool_threads(pool), error)) return;",
        *(f"{call}.stash = scratch, {call}.thread_floats = floats, {call}.pool = pool;" for _, call in stashes),
    ]


def _split_axis(region: Region, whole: Nest) -> int:
    """The axis to take digits from: that of the vectors, or one whose digits leave a better axis for them."""
    best, axis = vector_cost(whole), whole.vector
    for other in whole.outer:
        apart = digits_apart(region, other)
        if apart is not region and (cost := vector_cost(nest_of(apart))) < best:
            best, axis = cost, other
    return axis


def _parts(region: Region, axis: int) -> list[Region]:
    """The regions for which nests are printed: without digits and cases along the vectors, if that is possible."""
    for _ in range(_MOST_DIGITS):
        apart = digits_apart(region, axis) if axis >= 0 else region
        if apart is region:
            break
        region, axis = apart, nest_of(apart).vector
    return pieces(region, axis, _MOST_PARTS, _LEAST_PART) if axis >= 0 else [region]
