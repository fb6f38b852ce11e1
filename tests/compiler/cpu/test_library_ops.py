"""TopK and scatters on the target cpu: native, and equal to the target numpy to the bit; or refused with a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import fusible
from fusible.errors import ExecutionError

Given = Mapping[str, np.ndarray]
_THREADS = (1, 3)


def model(
    kind: str,
    given: Given,
    outputs: Sequence[str],
    *,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    constants: Given | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    """One node that reads `given`, of the shapes stated or their own, and then `constants`."""
    stated, constants = shapes or {}, constants or {}
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), stated.get(n, a.shape))
        for n, a in given.items()
    ]
    node = helper.make_node(kind, [*given, *constants], outputs, name="node", **attributes)
    kinds = [onnx.TensorProto.INT64 if n == "indices_of" else inputs[0].type.tensor_type.elem_type for n in outputs]
    results = [helper.make_tensor_value_info(n, t, None) for n, t in zip(outputs, kinds, strict=True)]
    fixed = [onnx.numpy_helper.from_array(a, n) for n, a in constants.items()]
    graph = helper.make_graph([node], "model", inputs, results, fixed)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def top_k_model(x: np.ndarray, k: int, shape: Sequence[int | str] | None = None, **attributes: Any) -> onnx.ModelProto:
    """values, indices_of = TopK(x)."""
    constants = {"k": np.asarray([k], np.int64)}
    outputs, shapes = ["values", "indices_of"], None if shape is None else {"x": shape}
    return model("TopK", {"x": x}, outputs, shapes=shapes, constants=constants, **attributes)


def native(proto: onnx.ModelProto, threads: int = 1) -> fusible.Executable:
    """Compiled; every step is a kernel of C."""
    exe = fusible.compile(proto, target="cpu", options=fusible.Options(threads=threads))
    assert exe.report.host == ()
    assert all(getattr(step, "kernel", "").startswith("k") for step in exe.plan.steps) and exe.plan.steps
    return exe


def check(proto: onnx.ModelProto, *given: Given) -> None:
    """Results to the bit those of NumPy, which compares NaN with itself as equal."""
    reference = fusible.compile(proto, target="numpy")
    for threads in _THREADS:
        exe = native(proto, threads)
        for inputs in given:
            results = exe.run(inputs)
            for name, expected in reference.run(inputs).items():
                assert results[name].dtype == expected.dtype
                np.testing.assert_array_equal(results[name], expected)


def numbers(shape: Sequence[int], kind: type = np.float32, seed: int = 0) -> np.ndarray:
    """Many of them are equal."""
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * 9).round().astype(kind)


def places(shape: Sequence[int], size: int, kind: type = np.int64) -> np.ndarray:
    """Indices, of which some are negative and some the same."""
    return np.random.default_rng([7, *shape]).integers(-size, size, shape).astype(kind)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize(
    ("shape", "axis", "k"),
    [((1, 9000), -1, 10), ((70, 1000), 1, 5), ((6, 50, 7), 1, 50), ((9, 3, 2), 0, 4), ((1,), 0, 1), ((3, 0), -1, 0)],
)
def test_top_k(shape: tuple[int, ...], axis: int, k: int, largest: int, kind: type) -> None:
    x = numbers(shape, kind)
    check(top_k_model(x, k, axis=axis, largest=largest, sorted=largest), {"x": x})


def test_top_k_of_numbers_and_what_is_none() -> None:
    x = np.random.default_rng(3).choice(np.asarray([np.nan, -0.0, 0, 1, np.inf, -np.inf], np.float32), (40, 300))
    for k in (7, 290):
        for largest in (0, 1):
            check(top_k_model(x, k, largest=largest), {"x": x})


def test_top_k_of_symbolic_sizes(tmp_path: Path) -> None:
    shapes = [(1, 3), (5, 800), (0, 4), (64, 3000)]
    x = numbers(shapes[0])
    proto = top_k_model(x, 3, ["rows", "size"])
    check(proto, *({"x": numbers(shape)} for shape in shapes))
    native(proto).save(tmp_path / "k.fusible")
    again, given = fusible.load(tmp_path / "k.fusible"), {"x": numbers((5, 800))}
    expected = fusible.compile(proto, target="numpy").run(given)
    np.testing.assert_array_equal(again.run(given)["indices_of"], expected["indices_of"])


def test_more_elements_than_there_are() -> None:
    exe = native(top_k_model(numbers((2, 5)), 3, ["rows", "size"]))
    with pytest.raises(ExecutionError, match="3 must be at most size = 2"):
        exe.run({"x": numbers((2, 2))})


_COMBINED = [(np.float32, reduction) for reduction in ("none", "add", "mul", "max", "min")]
_COMBINED += [(np.int32, "add"), (np.int32, "max"), (np.int64, "mul"), (np.int64, "none")]


def elements(shape: Sequence[int], at: Sequence[int], axis: int, kind: type = np.float32) -> dict[str, np.ndarray]:
    """x, indices, updates of ScatterElements."""
    return {"x": numbers(shape, kind), "indices": places(at, shape[axis]), "updates": numbers(at, kind, 1)}


def rows(shape: Sequence[int], at: Sequence[int], kind: type = np.float32) -> dict[str, np.ndarray]:
    """x, indices, updates of ScatterND."""
    depth = at[-1]
    columns = [places(at[:-1], n) for n in shape[:depth]]
    updates = numbers((*at[:-1], *shape[depth:]), kind, 1)
    return {"x": numbers(shape, kind), "indices": np.stack(columns, -1), "updates": updates}


@pytest.mark.parametrize(("kind", "reduction"), _COMBINED)
def test_scatter_elements(kind: type, reduction: str) -> None:
    cases = [((200, 300), (150, 300), 0), ((4, 5, 3), (2, 9, 3), 1), ((1,), (1,), 0), ((3, 4), (0, 4), 0)]
    for shape, at, axis in cases:
        given = elements(shape, at, axis, kind)
        check(model("ScatterElements", given, ["y"], axis=axis, reduction=reduction), given)


@pytest.mark.parametrize(("kind", "reduction"), _COMBINED)
def test_scatter_nd(kind: type, reduction: str) -> None:
    cases = [((300, 129), (400, 1)), ((4, 5, 3), (2, 6, 2)), ((6, 7), (30, 2)), ((1,), (1, 1)), ((3, 4), (0, 1))]
    for shape, at in cases:
        given = rows(shape, at, kind)
        check(model("ScatterND", given, ["y"], reduction=reduction), given)


@pytest.mark.parametrize("kind", [np.bool_, np.int8, np.uint16, np.float16, np.float64, np.uint64])
def test_any_element_is_set(kind: type) -> None:
    given = rows((9, 5), (4, 1), kind) | {"indices": places((4, 1), 9, np.int32).astype(np.int64)}
    check(model("ScatterND", given, ["y"]), given)
    given = elements((9, 5), (4, 5), 0, kind)
    check(model("ScatterElements", given, ["y"]), given)


def test_narrow_indices() -> None:
    given = elements((9, 5), (4, 5), 0) | {"indices": places((4, 5), 9, np.int32)}
    check(model("ScatterElements", given, ["y"], reduction="add"), given)


def test_scatters_of_symbolic_sizes() -> None:
    shapes = {"x": ["n", "m"], "indices": ["count", "m"], "updates": ["count", "m"]}
    cases = [elements(s, at, 0) for s, at in [((4, 3), (2, 3)), ((300, 200), (400, 200)), ((1, 0), (5, 0))]]
    check(model("ScatterElements", cases[0], ["y"], shapes=shapes, axis=0, reduction="add"), *cases)
    shapes = {"x": ["n", "m"], "indices": ["count", 1], "updates": ["count", "m"]}
    cases = [rows(s, at) for s, at in [((4, 3), (2, 1)), ((300, 200), (400, 1)), ((1, 1), (0, 1))]]
    check(model("ScatterND", cases[0], ["y"], shapes=shapes, reduction="max"), *cases)


@pytest.mark.parametrize("wrong", [9, -10])
def test_an_index_out_of_range_is_an_error(wrong: int) -> None:
    for kind, given in {"ScatterElements": elements((9, 4), (3, 4), 0), "ScatterND": rows((9, 4), (3, 1))}.items():
        given["indices"].flat[-1] = wrong
        for threads in _THREADS:
            with pytest.raises(ExecutionError, match="out of range"):
                native(model(kind, given, ["y"]), threads).run(given)


def test_sizes_that_do_not_fit_are_an_error() -> None:
    kinds = {"ScatterElements": elements((9, 4), (3, 4), 0), "ScatterND": rows((9, 4), (3, 1))}
    for kind, given in kinds.items():
        shapes = {"x": ["a", "b"], "indices": ["c", "d" if kind == "ScatterElements" else 1], "updates": ["e", "f"]}
        exe = native(model(kind, given, ["y"], shapes=shapes))
        exe.run(given)
        for wrong in (given["updates"][:2], np.vstack([given["updates"]] * 2), given["updates"][:, :2]):
            with pytest.raises(ExecutionError):
                exe.run(given | {"updates": wrong})
        if kind == "ScatterElements":
            with pytest.raises(ExecutionError):
                exe.run(given | {"x": given["x"][:, :3]})


@pytest.mark.parametrize(
    ("proto", "reason"),
    [
        (top_k_model(numbers((3, 4), np.int64), 2), "it has an operand of i64"),
        (model("ScatterND", rows((9, 5), (4, 1), np.float64), ["y"], reduction="add"), "it combines elements of f64"),
        (model("ScatterND", rows((9, 5), (4, 1), np.complex128), ["y"]), "it has an operand of c128"),
    ],
)
def test_what_is_refused_calls_numpy_and_says_why(proto: onnx.ModelProto, reason: str) -> None:
    exe = fusible.compile(proto, target="cpu")
    assert [row["reason"] for row in exe.report.host] == [reason]
