"""Answers about kernels that later compilations of a model take from the cache: the same bytes, nothing damaged, no
answer of other circumstances.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from fusible.compiler import known_kernels
from fusible.compiler.api import import_graph
from fusible.compiler.backends.cpu.memo import Kernels
from fusible.compiler.extend import register_op
from fusible.compiler.ir.ops import OPS
from fusible.compiler.ir.symbols import Symbol, SymInt, bounds_of, floordiv
from fusible.compiler.ir.types import DType
from fusible.compiler.known_kernels import KnownKernels
from fusible.compiler.options import Options
from fusible.compiler.pipeline import pipeline
from fusible.compiler.region.expr import Literal
from fusible.compiler.region.region import Buffer, Map
from fusible.compiler.stored_objects import Writer, read_objects
from tests.runtime import models

TARGET = "cuda:sm_90"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries are kept of small models too."""
    monkeypatch.setattr(known_kernels, "_FEWEST", 1)


def softmax(axis: int = -1, slope: float = 0.25) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["m"], name="scaled"),
        helper.make_node("Softmax", ["m"], ["y"], name="softmax", axis=axis),
    ]
    return models.make(nodes, [models.value("x", TensorProto.FLOAT, ["n", 24])], ["y"], {"s": np.float32(slope)})


def twice(x: np.ndarray) -> np.ndarray:
    return x + x


def entries(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/*.kernels.json"))


def compiled(model: onnx.ModelProto, cache: Path, out: Path) -> bytes:
    fusible.compile(model, target=TARGET, options=Options(cache_dir=cache)).save(out)
    return out.read_bytes()


def printed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Collects what is printed from now on."""
    seen: list[object] = []
    plain = Kernels._printed
    monkeypatch.setattr(Kernels, "_printed", lambda self, *args: seen.append(args) or plain(self, *args))
    return seen


def test_a_second_compilation_prints_nothing_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, out, seen = tmp_path / "cache", tmp_path / "x.fusible", printed(monkeypatch)
    first = compiled(softmax(), cache, out)
    (damaged,) = entries(cache)
    assert seen
    seen.clear()
    assert compiled(softmax(), cache, out) == first and not seen
    assert compiled(softmax(axis=0), cache, out) != first and seen
    text = damaged.read_text()
    damaged.write_text(text.replace("max", "min"))
    seen.clear()
    with pytest.warns(RuntimeWarning, match="was damaged"):
        assert compiled(softmax(), cache, out) == first
    assert seen and damaged.read_text() == text


def known(cache: Path, model: onnx.ModelProto | None = None, **changes: object) -> KnownKernels:
    shapes = changes.pop("shapes", None)
    options = replace(Options(cache_dir=cache), **changes)
    graph = import_graph(model or softmax(), shapes=shapes)
    return KnownKernels.of(graph, options, pipeline(TARGET), TARGET, cache)


def test_another_entry_for_whatever_decides_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        known(tmp_path),
        known(tmp_path, softmax(axis=0)),
        known(tmp_path, softmax(slope=0.5)),
        known(tmp_path, shapes={"n": 8}),
        known(tmp_path, shapes={"n": (1, 8)}),
        known(tmp_path, shapes={"n": (1, 16)}),
        known(tmp_path, precision="tf32"),
        known(tmp_path, allow_host=True),
    ]
    monkeypatch.setattr(known_kernels, "_versions", lambda: iter(["another text"]))
    cases.append(known(tmp_path))
    assert len({each.name for each in cases}) == len(cases)
    monkeypatch.undo()
    assert known(tmp_path).name == cases[0].name == known(tmp_path / "elsewhere").name


def test_the_text_of_the_package_is_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("compiler", "kernels", "passes", "runtime"):
        (tmp_path / part).mkdir()
    (tmp_path / "compiler" / "a.py").write_text("A = 1")
    monkeypatch.setattr(known_kernels, "_PACKAGE", tmp_path)
    before = list(known_kernels._versions())
    (tmp_path / "compiler" / "a.py").write_text("A = 2")
    assert list(known_kernels._versions()) != before


def test_nothing_is_kept_with_code_or_choices_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert known(tmp_path, tuning="lock.json").name == ""
    monkeypatch.setattr(OPS, "_ops", dict(OPS._ops))
    register_op("test.known", "Twice", numpy=twice, inputs=1)
    node = helper.make_node("Twice", ["x"], ["y"], domain="test.known")
    twofold = models.make([node], [models.value("x", TensorProto.FLOAT, ["n", 24])], ["y"])
    twofold.opset_import.append(helper.make_opsetid("test.known", 1))
    assert known(tmp_path, twofold).name == "" != known(tmp_path).name


def test_objects_come_back_equal_and_once() -> None:
    size = SymInt.of(Symbol("n", 1, 8))
    buffer = Buffer(DType.F32, (floordiv(size + 3, 2), 4))
    values = [
        (buffer, Buffer(DType.F32, (floordiv(size + 3, 2), 4))),
        {0: (1, 0), 1: (True, 1.0)},
        tuple(Map(Literal(number), DType.F32) for number in (0.0, -0.0, math.inf, 1)),
    ]
    writer = Writer()
    numbers = [writer.number(value) for value in values]
    text = json.dumps([writer.classes, writer.rows])
    made = read_objects(*json.loads(text))
    found = [made[n] for n in numbers]
    assert repr(found) == repr(values) and found[0] == values[0]
    assert found[0][0] is found[0][1]
    assert bounds_of(found[0][0].shape[0]) == bounds_of(values[0][0].shape[0]) == (2, 5)


@pytest.mark.parametrize("value", [np.float32(1), [1], object(), np.dtype("f4"), len])
def test_other_objects_are_not_stored(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be stored"):
        Writer().number((value,))


OTHERS = [("os", "system"), ("fusible.compiler.api", "compile"), ("pathlib", "Path")]


@pytest.mark.parametrize(("module", "name"), OTHERS)
def test_other_classes_are_not_made(module: str, name: str) -> None:
    with pytest.raises(TypeError, match="no class of the compiler"):
        read_objects([[module, name]], [[0, "true"], [3, 0]])
