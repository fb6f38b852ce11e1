"""How a reduction or a scan folds: an associative operation on one or more accumulators.

A combiner is data: for each accumulator its start, and the expression that merges two partial states. In `merge`,
`Arg(k)` is accumulator k of the left state and `Arg(width + k)` of the right one; the left state comes from smaller
indices. What is folded is a state too, so tuples (arg-max, Welford) need no other form.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Arg, Expr, apply

__all__ = ["COMBINERS", "Combiner", "lowest", "start_value"]

LOWEST, HIGHEST = "lowest", "highest"


@dataclass(frozen=True, slots=True)
class Combiner:
    """`start`: of each accumulator, a number or the least or greatest value of its type."""

    start: tuple[int | str, ...]
    merge: tuple[Expr, ...]

    @property
    def width(self) -> int:
        """The number of accumulators."""
        return len(self.start)


def lowest(dtype: DType) -> float | int | bool:
    """The least value of a type."""
    return _extreme(dtype, least=True)


def _extreme(dtype: DType, *, least: bool) -> float | int | bool:
    if dtype is DType.BOOL:
        return not least
    if dtype.is_float:
        return float("-inf") if least else float("inf")
    bits = int(dtype.value[1:])
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if dtype.is_signed else (0, (1 << bits) - 1)
    return low if least else high


def start_value(start: int | str, dtype: DType) -> float | int | bool:
    """The number that an accumulator of a type starts from."""
    if isinstance(start, str):
        return _extreme(dtype, least=start == LOWEST)
    return start


def _best(better: str, last: bool) -> Combiner:
    """(value, index) of the greatest or least value; of equal ones the first or the last. NaN wins, as in NumPy."""
    left_value, left_index, right_value, right_index = (Arg(n) for n in range(4))
    nan = apply("isnan", right_value)
    if not last:
        nan = apply("logical_and", nan, apply("logical_not", apply("isnan", left_value)))
    take = apply("logical_or", apply(better, right_value, left_value), nan)
    merge = (apply("select", take, right_value, left_value), apply("select", take, right_index, left_index))
    return Combiner((LOWEST if better in ("gt", "ge") else HIGHEST, 0), merge)


def _welford() -> Combiner:
    """(mean, sum of squared deviations, count): Chan, Golub and LeVeque, 1979, equation 2.1."""
    (mean_a, m2_a, n_a), (mean_b, m2_b, n_b) = (tuple(Arg(n) for n in range(k, k + 3)) for k in (0, 3))
    count = apply("add", n_a, n_b)
    share = apply("div", n_b, apply("max", count, 1.0))
    delta = apply("sub", mean_b, mean_a)
    mean = apply("add", mean_a, apply("mul", delta, share))
    cross = apply("mul", apply("mul", delta, delta), apply("mul", n_a, share))
    return Combiner((0, 0, 0), (mean, apply("add", apply("add", m2_a, m2_b), cross), count))


def _online_softmax() -> Combiner:
    """(maximum, sum of exp(x - maximum)): Milakov and Gimelshein, 2018, algorithm 3."""
    (max_a, sum_a), (max_b, sum_b) = (Arg(0), Arg(1)), (Arg(2), Arg(3))
    top = apply("max", max_a, max_b)

    def scaled(own: Expr, total: Expr) -> Expr:  # an infinite maximum must not become inf - inf
        return apply("mul", total, apply("select", apply("eq", own, top), 1.0, apply("exp", apply("sub", own, top))))

    return Combiner((LOWEST, 0), (top, apply("add", scaled(max_a, sum_a), scaled(max_b, sum_b))))


def _plain(start: int | str, function: str) -> Combiner:
    return Combiner((start,), (apply(function, Arg(0), Arg(1)),))


COMBINERS: dict[str, Combiner] = {
    "sum": _plain(0, "add"),
    "prod": _plain(1, "mul"),
    "max": _plain(LOWEST, "max"),
    "min": _plain(HIGHEST, "min"),
    "argmax": _best("gt", last=False),
    "argmin": _best("lt", last=False),
    "argmax_last": _best("ge", last=True),
    "argmin_last": _best("le", last=True),
    "welford": _welford(),
    "online_softmax": _online_softmax(),
}
