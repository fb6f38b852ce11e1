"""fold-constants, simplify-shapes, common-subexpressions, dead-code, inline-constant-if."""

from __future__ import annotations

import numpy as np

from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes import Kind
from fusible.passes.common_subexpressions import CommonSubexpressions
from fusible.passes.dead_code import DeadCode
from fusible.passes.fold_constants import FoldConstants
from fusible.passes.inline_constant_if import InlineConstantIf
from fusible.passes.simplify_shapes import SimplifyShapes
from tests.passes.checking import F32, I64, context, ops, random, reasons, run, tensor

# fold-constants


def test_constants_fold_in_one_walk() -> None:
    graph = Graph("g")
    x = tensor(graph, ["n", 3])
    c = graph.add("transpose", graph.constant(random((3, 2))), perm=(1, 0))
    c = graph.add("reduce_sum", graph.add("exp", c), axes=(0,), keepdims=False)
    graph.set_outputs([graph.add("add", x, c)], ["y"])
    run(FoldConstants(), graph, [random((4, 3))], 3)
    assert ops(graph) == ["add"]


def test_a_result_beyond_the_budget_is_refused_loudly() -> None:
    graph = Graph("g")
    c = graph.add("expand", graph.constant(random((1, 100))), shape=(50, 100))
    graph.set_outputs([graph.add("add", tensor(graph, [100]), c)], ["y"])
    used = run(FoldConstants(), graph, [random((100,))], 0, fold_bytes=1000)
    assert ops(graph) == ["expand", "add"]
    assert "20000 bytes, folding may make 1000" in reasons(used, Kind.LOUD)
    run(FoldConstants(), graph, [random((100,))], 1, fold_bytes=20000)


def test_results_no_larger_than_their_operands_always_fold() -> None:
    graph = Graph("g")
    c = graph.add("neg", graph.constant(random((100,))))
    graph.set_outputs([graph.add("add", tensor(graph, [100]), c)], ["y"])
    run(FoldConstants(), graph, [random((100,))], 1, fold_bytes=0)


def test_a_size_that_becomes_known_refines_what_follows() -> None:
    graph = Graph("g")
    places = graph.add("non_zero", graph.constant(np.array([[0, 3], [2, 0], [1, 1]], np.float32)))
    x = tensor(graph, ["n", 1])
    moved = graph.add("transpose", places, perm=(1, 0))
    y = graph.add("add", graph.add("cast", moved, dtype=F32), x)
    graph.set_outputs([graph.add("reduce_sum", y, axes=(0,), keepdims=False)], ["y"])
    run(FoldConstants(), graph, [random((4, 1))], None)
    assert not any(node.defines for node in graph)


def test_chance_does_not_fold() -> None:
    graph = Graph("g")
    operands = (random((3,)), np.float32(0.5), np.array(True))
    made = graph.add_node("dropout", [graph.constant(o) for o in operands])
    graph.set_outputs([made.outputs[0]], ["y"])
    assert FoldConstants().run(graph, context()) == 0


# simplify-shapes


def test_shape_arithmetic_becomes_dims() -> None:
    graph = Graph("g")
    x = tensor(graph, ["n", 3])
    n = graph.add("gather", graph.add("shape", x), graph.constant(np.int64(0)), axis=0)
    twice = graph.add("mul", graph.add("reshape", n, shape=(1,)), graph.constant(np.int64([2])))
    graph.set_outputs([graph.add("concat", twice, graph.constant(np.int64([7])), axis=0)], ["y"])
    run(SimplifyShapes(), graph, [random((4, 3))], None)
    assert ops(graph) == ["dims"]


def test_known_shapes_become_constants() -> None:
    graph = Graph("g")
    x = tensor(graph, [4, 3])
    graph.set_outputs([graph.add("neg", graph.add("shape", x))], ["y"])
    run(SimplifyShapes(), graph, [random((4, 3))], None)
    assert ops(graph) == []


def test_reshape_to_a_known_target_is_static() -> None:
    graph = Graph("g")
    x = tensor(graph, ["n", 6])
    y = graph.add("reshape_dynamic", x, graph.constant(np.int64([0, 2, -1])))
    graph.set_outputs([graph.add("relu", y)], ["y"])
    run(SimplifyShapes(), graph, [random((4, 6))], 1)
    assert ops(graph) == ["reshape", "relu"]
    assert str(graph.outputs[0].type) == "f32[n_0, 2, 3]"


def test_reshape_to_an_unknown_target_stays() -> None:
    graph = Graph("g")
    y = graph.add("reshape_dynamic", tensor(graph, [6]), tensor(graph, [2], "target", I64))
    graph.set_outputs([y], ["y"])
    run(SimplifyShapes(), graph, [random((6,)), np.int64([2, 3])], 0)


# common-subexpressions


def test_equal_nodes_merge_across_operand_orders() -> None:
    graph = Graph("g")
    x, z = tensor(graph, [3]), tensor(graph, [3], "z")
    a, b = graph.add("add", x, z), graph.add("add", z, x)
    graph.set_outputs([graph.add("mul", graph.add("exp", a), graph.add("exp", b))], ["y"])
    run(CommonSubexpressions(), graph, [random((3,)), random((3,), seed=1)], 2)
    assert ops(graph) == ["add", "exp", "mul"]


def test_different_attributes_and_constants_do_not_merge() -> None:
    graph = Graph("g")
    x = tensor(graph, [3, 3])
    parts = [graph.add("softmax", x, axis=0), graph.add("softmax", x, axis=1)]
    parts += [graph.add("mul", x, graph.constant(np.float32(v))) for v in (0.0, -0.0)]
    graph.set_outputs([graph.add("concat", *parts, axis=0)], ["y"])
    run(CommonSubexpressions(), graph, [random((3, 3))], 0)


def test_two_results_stay_two() -> None:
    graph = Graph("g")
    x = tensor(graph, [3])
    graph.set_outputs([graph.add("exp", x), graph.add("exp", x)], ["y", "z"])
    run(CommonSubexpressions(), graph, [random((3,))], 0)


# dead-code


def test_what_nobody_uses_goes() -> None:
    graph = Graph("g")
    x = tensor(graph, [3])
    graph.add("exp", graph.add("neg", x))
    graph.set_outputs([graph.add("relu", x)], ["y"])
    run(DeadCode(), graph, [random((3,))], 2)
    assert ops(graph) == ["relu"]


def test_a_node_that_defines_a_size_in_use_stays() -> None:
    graph = Graph("g")
    x = tensor(graph, [3])
    found = graph.add("non_zero", x)
    assert isinstance(found.type, TensorType) and found.type.shape is not None
    graph.add("neg", found)
    graph.set_outputs([graph.add("dims", values=(found.type.shape[1],), shape=(1,))], ["y"])
    run(DeadCode(), graph, [np.float32([0, 1, 2])], 1)
    assert ops(graph) == ["non_zero", "dims"]


def test_the_limit_is_obeyed() -> None:
    graph = Graph("g")
    x = tensor(graph, [3])
    graph.add("exp", graph.add("neg", x))
    graph.set_outputs([graph.add("relu", x)], ["y"])
    run(DeadCode(), graph, [random((3,))], 1, limit=1)


# inline-constant-if


def conditional(condition: bool | None) -> Graph:
    graph = Graph("g")
    x = tensor(graph, ["n", 3])
    given = tensor(graph, [], "c", DType.BOOL) if condition is None else graph.constant(np.array(condition))
    branches = []
    for name in ("exp", "neg"):
        branch = Graph(name, graph.symbols)
        inner = branch.input(x.type, "x")
        y = branch.add(name, inner)
        if name == "neg":
            y = branch.add("slice", y, starts=(0,), ends=(1,), axes=(1,), steps=(1,))
        branch.set_outputs([y], ["r"])
        branches.append(branch)
    node = graph.add_node("if", [given, x], outputs=1, subgraphs=branches)
    graph.set_outputs([graph.add("relu", node.outputs[0])], ["y"])
    return graph


def test_the_branch_taken_is_inlined_and_its_type_known() -> None:
    for condition, names in ((True, ["exp", "relu"]), (False, ["neg", "slice", "relu"])):
        graph = conditional(condition)
        run(InlineConstantIf(), graph, [random((4, 3))], 1)
        assert ops(graph) == names
        assert str(graph.outputs[0].type) == f"f32[n_0, {3 if condition else 1}]"


def test_an_unknown_condition_stays() -> None:
    run(InlineConstantIf(), conditional(None), [random((4, 3)), np.array(True)], 0)
