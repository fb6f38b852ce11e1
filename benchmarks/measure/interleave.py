"""Timing two callables in one process, block by block in random order."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

__all__ = ["Work", "iterations_for", "time_block", "time_pair"]

Work = Callable[[], object]
MAX_ITERATIONS = 100_000


def time_block(work: Work, iterations: int) -> list[float]:
    """Seconds of each of `iterations` calls, after one that does not count: it finds the caches as others left them."""
    work()
    seconds = []
    for _ in range(iterations):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return seconds


def iterations_for(seconds: float, block_seconds: float) -> int:
    """How many calls of `seconds` each fill a block; at least one."""
    return max(1, min(MAX_ITERATIONS, round(block_seconds / max(seconds, 1e-9))))


def time_pair(
    first: Work, second: Work, *, rounds: int, block_seconds: float, seed: int
) -> tuple[list[list[float]], list[list[float]]]:
    """Time both in `rounds` rounds; in each, one block of each, the order drawn by chance.

    Returns for each of the two its blocks: the seconds of every call. Block r of one is adjacent in time to block r of
    the other, so that a machine that slows down slows both. Both get blocks of about `block_seconds`.
    """
    chance = random.Random(seed)
    works = (first, second)
    counts = [iterations_for(min(time_block(work, 3)), block_seconds) for work in works]
    blocks: tuple[list[list[float]], list[list[float]]] = ([], [])
    for _ in range(rounds):
        for index in chance.sample((0, 1), 2):
            blocks[index].append(time_block(works[index], counts[index]))
    return blocks
