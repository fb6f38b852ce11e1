"""A random graph from a seed."""

from __future__ import annotations

import random

from tests.differential import contractions, elementwise, folds, movement, patterns, rarer
from tests.differential.builder import LARGEST, Builder, Sample
from tests.differential.tensors import F32

__all__ = ["generate"]

_FAMILIES = (
    (elementwise.GENERATORS, 10),
    (movement.GENERATORS, 7),
    (folds.GENERATORS, 5),
    (contractions.GENERATORS, 4),
    (rarer.GENERATORS, 1),
)


def generate(seed: int, prefix: str = "") -> Sample:
    """The graph of a seed: some nodes of every family, or a pattern that models have with something around it."""
    rng = random.Random(seed)
    b = Builder(rng, prefix, largest=8 * LARGEST if rng.random() < 0.03 else LARGEST)
    if b.chance(0.35):
        _apply(b, patterns.GENERATORS)
    if b.chance(0.15):
        b.wild_leaf(b.shape(), F32)
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4, 6, 9))):
        _apply(b, rng.choices([f for f, _ in _FAMILIES], [w for _, w in _FAMILIES])[0])
    while not b.nodes:
        _apply(b, elementwise.GENERATORS)
    return b.finish(_symbols(b))


def _apply(b: Builder, generators: dict) -> None:  # type: ignore[type-arg]
    (chosen,) = b.rng.choices(list(generators), list(generators.values()))
    chosen(b)


def _symbols(b: Builder) -> dict[int, str] | None:
    """Now and then all inputs' sizes of one number become a name; where that makes no model, the judge goes without."""
    if not b.chance(0.12):
        return None
    sizes = sorted({extent for array in b.feeds.values() for extent in array.shape if extent > 1})
    return {b.rng.choice(sizes): f"{b.prefix}n"} if sizes else None
