"""Run something and check how long it took and how far the process grew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible

SECONDS = 2.0
BYTES = 500 * 10**6


@contextmanager
def bounded(seconds: float = SECONDS, nbytes: int = BYTES) -> Iterator[None]:
    """Fail if the block takes longer or lets the resident set grow by more (its peak is reset first).

    Seconds of this thread's processor time, so that a busy machine does not fail the test.
    """
    Path("/proc/self/clear_refs").write_text("5")
    before, started = _status("VmRSS"), time.thread_time()
    yield
    took, grown = time.thread_time() - started, _status("VmHWM") - before
    assert took <= seconds, f"took {took:.2f} s"
    assert grown <= nbytes, f"grew by {grown / 1e6:.0f} MB"


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field} in /proc/self/status")


def refused(act: Callable[[], Any], error: type[fusible.FusibleError] = fusible.FusibleError, match: str = "") -> str:
    """The message of the FusibleError that `act` must raise, within the bounds."""
    with bounded(), pytest.raises(error, match=match or None) as caught:
        act()
    return str(caught.value)


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[Any] | None]],
    outputs: list[str],
    initializers: dict[str, np.ndarray] | None = None,
    opset: int = 21,
) -> onnx.ModelProto:
    """A small model: inputs by name with (element type, shape); output types are left out."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [onnx.ValueInfoProto(name=o) for o in outputs],
        [onnx.numpy_helper.from_array(a, n) for n, a in (initializers or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
