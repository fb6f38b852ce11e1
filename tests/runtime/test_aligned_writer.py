"""Whole blocks go to a file at multiples of the size of a huge page, whatever the sizes of what is written."""

from __future__ import annotations

import io

import numpy as np
import pytest

from fusible.runtime import aligned_writer
from fusible.runtime.aligned_writer import AlignedWriter


class _Recorded(io.BytesIO):
    """A file that takes at most so many bytes a call, as the system may, and notes where each call began."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.calls = most, list[tuple[int, int]]()

    def write(self, data: object) -> int:
        part = memoryview(data)[: self.most]  # type: ignore[arg-type]
        self.calls.append((self.tell(), len(part)))
        return super().write(part)


@pytest.mark.parametrize("most", [1 << 20, 1000])
def test_blocks_are_whole_and_in_order(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(aligned_writer, "BLOCK", 4096)
    rng = np.random.default_rng(0)
    parts = [rng.bytes(int(n)) for n in (0, 64, 4032, 1, 20000, 4096, 0, 3, 8192, *rng.integers(0, 9000, 40))]
    file = _Recorded(most)
    writer = AlignedWriter(file)
    for number, part in enumerate(parts):
        writer.write(memoryview(part) if number % 2 else part)
    writer.flush()
    assert file.getvalue() == b"".join(parts)
    if most > 4096:
        assert all(start % 4096 == 0 for start, _ in file.calls)
        assert all(size % 4096 == 0 for _, size in file.calls[:-1])


def test_arrays_of_other_types_are_bytes() -> None:
    file = _Recorded(1 << 30)
    writer = AlignedWriter(file)
    array = np.arange(300_000, dtype=np.float64).reshape(3, -1)
    writer.write(memoryview(array))
    assert file.calls == [(0, 2 << 20)]  # from where it lies, before anything is flushed
    writer.write(memoryview(array[:, :0]))
    writer.flush()
    assert file.getvalue() == array.tobytes()
