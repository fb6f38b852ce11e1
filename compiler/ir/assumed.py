"""What a size probably is that is known only at the call: by it the compiler chooses between ways to compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fusible.compiler.ir.symbol_values import evaluate, symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol

__all__ = ["assumed_size", "growing_sizes"]

_POWERS_TRIED = 24  # of two
_USUAL = 224  # pixels of an image's side; sentences and windows of sound are as long or longer


def assumed_size(dim: Dim) -> int:
    """The size itself, or what it is where every symbol is 224 or the nearest to it that its bounds allow; at least 0.

    Only for choices that are right for any size and better for some: nothing that is computed may depend on it.
    """
    if isinstance(dim, int):
        return max(dim, 0)
    try:
        return max(int(evaluate(dim, {symbol.name: _usual(symbol) for symbol in symbols_of(dim)})), 0)
    except (ZeroDivisionError, ValueError):  # a divisor such as `height - 224`; sizes that agree only for other heights
        return _USUAL


def growing_sizes(bounds: Mapping[str, tuple[int, int | None]]) -> Iterator[dict[str, int]]:
    """Sizes for symbols: the least within their bounds, at least 1 where these allow it, then doubled again and again.

    For reports, which need some sizes that agree: lengths behind windows agree from some length on only.
    """
    for power in range(_POWERS_TRIED if bounds else 1):
        yield {n: max(low, 2**power if high is None else min(2**power, high)) for n, (low, high) in bounds.items()}


def _usual(symbol: Symbol) -> int:
    most = _USUAL if symbol.upper is None else min(symbol.upper, _USUAL)
    return max(symbol.lower, most)
