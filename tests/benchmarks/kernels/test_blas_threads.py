"""The threads of NumPy's BLAS are set for a while, and what was there before comes back."""

from __future__ import annotations

import pytest

from fusible.benchmarks.kernels import blas_threads as module
from fusible.benchmarks.kernels.blas_threads import blas_threads
from fusible.errors import UsageError
from fusible.runtime.native.machine import usable_threads


def _fake(state: list[int]) -> tuple[object, object]:
    def put(count: int) -> None:
        state[0] = count

    return put, lambda: state[0]


def test_the_number_holds_within_the_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [[4], [8]]
    monkeypatch.setattr(module, "_libraries", lambda: [_fake(state) for state in states])
    with pytest.raises(KeyError), blas_threads(2):  # it comes back after an error, too
        assert states == [[2], [2]]
        raise KeyError
    assert states == [[4], [8]]


def test_the_library_of_this_numpy_can_be_told() -> None:
    libraries = module._libraries()
    for _, get in libraries:
        with blas_threads(1):
            assert get() == 1


def test_a_library_that_cannot_be_told_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_libraries", list)
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="OPENBLAS_NUM_THREADS=77"), blas_threads(77):
        pass
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "77")
    with blas_threads(77):
        pass
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    with blas_threads(usable_threads()):
        pass
