"""Patterns, rules and the driver: what matches, what is said of what does not, and what a broken rule leads to."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.types import DType
from fusible.errors import PassError, UsageError
from fusible.passes import (
    Exactness,
    Kind,
    PassContext,
    Reject,
    RewritePass,
    any_of,
    approx,
    attributes,
    op,
    optional,
    rule,
)
from tests.passes.checking import F32, I64, context, ops, random, reasons, run, tensor

EXACT, LOOSE = Exactness.EXACT, Exactness.REASSOCIATING


@rule(exactness=LOOSE)
def scale_into_weight(x: Any, w: Any, s: Any) -> Any:
    """(x @ w) * s  ->  x @ (w * s)."""

    def build(graph: Graph, x: Any, w: Any, s: Any) -> Any:
        if w.constant is None or s.constant is None:
            return Reject("weight or scale is not constant", w, s)
        if s.constant.size != 1:
            return Reject(f"scale has {s.constant.size} elements, only scalars move through matmul", s)
        return graph.add("matmul", x, graph.constant(w.constant * s.constant))

    return op.mul(op.matmul(x, w), s), build


def scaled(scale: Any, *, swapped: bool = False, second_use: bool = False) -> Graph:
    graph = Graph("g")
    x = tensor(graph, ["n", 3])
    with graph.inserting_before(None, ("MatMul_0",)):
        product = graph.add("matmul", x, graph.constant(random((3, 4))), name="product")
    s = graph.constant(np.asarray(scale, np.float32), "scale") if scale is not None else tensor(graph, [], "scale")
    with graph.inserting_before(None, ("Mul_1",)):
        y = graph.add("mul", *((s, product) if swapped else (product, s)))
    graph.set_outputs([y, *([product] if second_use else [])], ["y", "p"][: 1 + second_use])
    return graph


FOLD = RewritePass("fold-scales", [scale_into_weight])


@pytest.mark.parametrize("swapped", [False, True])
def test_it_fires_in_both_orders_and_merges_origins(swapped: bool) -> None:
    graph = scaled(2.5, swapped=swapped)
    used = run(FOLD, graph, [random((2, 3))], 1)
    assert ops(graph) == ["matmul"]
    assert next(iter(graph)).origin == ("MatMul_0", "Mul_1")
    (entry,) = used.ledger.select(Kind.FIRED)
    assert (entry.pass_name, entry.rule, entry.nodes) == ("fold-scales", "scale_into_weight", ("MatMul_0", "Mul_1"))


def test_a_refusal_has_its_reason_and_culprits() -> None:
    used = run(FOLD, scaled([1.0, 2, 3, 4]), [random((2, 3))], 0)
    (entry,) = used.ledger.select(Kind.DECLINED)
    assert entry.reason == "scale has 4 elements, only scalars move through matmul"
    assert entry.culprits == ("scale",) and entry.nodes == ("Mul_1",)


def test_an_interior_value_with_another_use_is_a_near_miss() -> None:
    used = run(FOLD, scaled(2.0, second_use=True), [random((2, 3))], 0)
    (entry,) = used.ledger.select(Kind.NEAR_MISS)
    assert entry.reason == "2 nodes match, then a value inside the pattern is also used elsewhere"
    assert entry.culprits == ("product",)


def test_the_limit_stops_it() -> None:
    run(FOLD, scaled(2.0), [random((2, 3))], 0, limit=0)


def test_the_exactness_bound_stops_it() -> None:
    used = context(exactness=EXACT)
    assert FOLD.run(scaled(2.0), used) == 0
    assert "EXACT is the loosest allowed" in reasons(used)


def chain(*names: str) -> Graph:
    graph = Graph("g")
    x = tensor(graph, [3])
    value = x
    for name in names:
        value = graph.add(name, value)
    graph.set_outputs([value], ["y"])
    return graph


def test_one_name_is_one_value_and_one_pattern_one_node() -> None:
    @rule(exactness=LOOSE)
    def doubled(x: Any) -> Any:
        def build(graph: Graph, x: Any) -> Any:
            return graph.add("mul", graph.add("exp", x), graph.constant(np.float32(2)))

        e = op.exp(x)
        return op.add(e, e), build

    for same in (True, False):
        graph = Graph("g")
        x, z = tensor(graph, [3]), tensor(graph, [3], "z")
        e = graph.add("exp", x)
        graph.set_outputs([graph.add("add", e, e if same else graph.add("exp", z))], ["y"])
        run(RewritePass("p", [doubled]), graph, [random((3,)), random((3,), seed=1)], int(same))


def test_literals_alternatives_attributes_and_nodes() -> None:
    @rule(exactness=LOOSE)
    def halves(x: Any, axis: Any, node: Any) -> Any:
        def build(graph: Graph, x: Any, axis: int, node: Any) -> Any:
            assert axis == 1 and attributes(node) == {"axis": 1}
            return graph.add("log_softmax", x, **attributes(node))

        soft = op.softmax(x, axis=axis).named(node)
        return any_of(op.mul(soft, 0.5), op.div(soft, approx(2.0, 1e-3))), build

    def build(name: str, number: float) -> Graph:
        graph = Graph("g")
        y = graph.add(name, graph.add("softmax", tensor(graph, [2, 3]), axis=1), graph.constant(np.float32(number)))
        graph.set_outputs([y], ["y"])
        return graph

    wanted = RewritePass("p", [halves])
    for name, number, fires in (("mul", 0.5, 1), ("div", 2.001, 1), ("mul", 0.6, 0), ("div", 0.5, 0)):
        assert wanted.run(build(name, number), PassContext()) == fires


def test_optional_absent_and_further_inputs() -> None:
    @rule(exactness=EXACT)
    def upper_only(x: Any, hi: Any) -> Any:
        def build(graph: Graph, x: Any, hi: Any) -> Any:
            return graph.add("relu", x) if hi is None else graph.add("min", x, hi)

        return op.clip(x, None, optional(hi)), build

    graph = Graph("g")
    x, c = tensor(graph, [3]), graph.constant(np.float32(1))
    parts = [graph.add("clip", x), graph.add("clip", x, None, c), graph.add("clip", x, c)]
    graph.set_outputs([graph.add("concat", *parts, axis=0)], ["y"])
    assert RewritePass("p", [upper_only]).run(graph, PassContext()) == 2
    assert ops(graph) == ["relu", "min", "clip", "concat"]

    @rule(exactness=EXACT)
    def first(x: Any) -> Any:
        def build(graph: Graph, x: Any) -> Any:
            return Reject("seen", x)

        return op.concat(x, ...), build

    used = PassContext()
    RewritePass("q", [first]).run(graph, used)
    assert reasons(used) == "seen"


def test_several_outputs() -> None:
    @rule(exactness=EXACT)
    def swap_parts(x: Any) -> Any:
        def build(graph: Graph, x: Any) -> Any:
            halves = [graph.add("slice", x, starts=(i,), ends=(i + 1,), axes=(0,), steps=(1,)) for i in (0, 1)]
            return tuple(halves)

        parts = op.split(x, axis=0, split=(1, 1))
        return (parts[0], parts[1]), build

    graph = Graph("g")
    node = graph.add_node("split", [tensor(graph, [2])], {"axis": 0, "split": (1, 1)}, outputs=2)
    graph.set_outputs([node.outputs[1], graph.add("neg", node.outputs[0])], ["a", "b"])
    run(RewritePass("p", [swap_parts]), graph, [random((2,))], 1)
    assert ops(graph) == ["slice", "slice", "neg"]


def test_one_of_several_outputs() -> None:
    @rule(exactness=EXACT)
    def head(x: Any) -> Any:
        def build(graph: Graph, x: Any) -> Any:
            return graph.add("slice", x, starts=(0,), ends=(1,), axes=(0,), steps=(1,))

        return op.split(x, axis=0)[0], build

    graph = Graph("g")
    node = graph.add_node("split", [tensor(graph, [2])], {"axis": 0, "split": (1, 1)}, outputs=2)
    graph.set_outputs(node.outputs, ["a", "b"])
    run(RewritePass("p", [head]), graph, [random((2,))], 1)
    assert sorted(ops(graph)) == ["slice", "split"]


def unary(pattern: str, made: str, name: str) -> Any:
    def function(x: Any) -> Any:
        def build(graph: Graph, x: Any) -> Any:
            return graph.add(made, x)

        return op[pattern](x), build

    function.__name__ = name
    return rule(exactness=EXACT)(function)


def test_rules_that_fight_are_named() -> None:
    fight = RewritePass("fight", [unary("sin", "cos", "to_cos"), unary("cos", "sin", "to_sin")])
    with pytest.raises(PassError, match="rules 'to_cos' and 'to_sin' undo each other for ever"):
        fight.run(chain("sin"), PassContext())
    with pytest.raises(PassError, match="rule 'again' applies to its own result for ever"):
        RewritePass("fight", [unary("sin", "sin", "again")]).run(chain("sin"), PassContext())


def test_a_rule_that_grows_for_ever_is_named() -> None:
    @rule(exactness=EXACT)
    def grow(x: Any) -> Any:
        def build(graph: Graph, x: Any) -> Any:
            return graph.add("sin", graph.add("exp", x))

        return op.sin(x), build

    with pytest.raises(PassError, match="rule 'grow' applies to its own result"):
        RewritePass("fight", [grow]).run(chain("sin"), PassContext())


def test_a_wrong_rewrite_is_found_and_both_sides_are_shown() -> None:
    with pytest.raises(PassError) as caught:
        RewritePass("wrong", [unary("sin", "tan", "liar")]).run(chain("sin"), context())
    text = str(caught.value)
    assert "rule 'liar'" in text and "graph before" in text and "graph after" in text
    assert re.search(r"= sin\(", text) and re.search(r"= tan\(", text)


def test_another_type_is_an_error_of_the_rule() -> None:
    @rule(exactness=EXACT)
    def retype(x: Any) -> Any:
        def build(graph: Graph, x: Any) -> Any:
            return graph.add("cast", x, dtype=DType.F64)

        return op.sin(x), build

    with pytest.raises(PassError, match=re.escape("replaces f32[3] by f64[3]")):
        RewritePass("p", [retype]).run(chain("sin"), PassContext())


def test_a_refusal_leaves_no_trace_in_the_graph() -> None:
    @rule(exactness=EXACT)
    def hesitate(x: Any) -> Any:
        def build(graph: Graph, x: Any) -> Any:
            graph.add("exp", x)
            return Reject("no")

        return op.sin(x), build

    graph = chain("sin")
    run(RewritePass("p", [hesitate]), graph, [random((3,))], 0)
    assert ops(graph) == ["sin"]


def test_mistakes_in_rules_are_explained() -> None:
    with pytest.raises(UsageError, match="build asks for 'w', which the pattern does not bind; it binds x"):

        @rule(exactness=EXACT)
        def asks(x: Any) -> Any:
            return op.sin(x), lambda graph, w: w

    with pytest.raises(UsageError, match="its argument 'w' does not occur"):

        @rule(exactness=EXACT)
        def unused(x: Any, w: Any) -> Any:
            return op.sin(x), lambda graph, x: x

    with pytest.raises(UsageError, match="must end in an op"):

        @rule(exactness=EXACT)
        def plain(x: Any) -> Any:
            return x, lambda graph, x: x

    with pytest.raises(UsageError, match="no op 'sine'"):
        RewritePass("p", [unary("sine", "sin", "typo")]).run(chain("sin"), PassContext())
    with pytest.raises(UsageError, match="has no attribute 'axes', it has axis"):

        @rule(exactness=EXACT)
        def attribute(x: Any) -> Any:
            return op.softmax(x, axes=1), lambda graph, x: x

        RewritePass("p", [attribute]).run(chain("sin"), PassContext())


def test_integers_and_floats_as_literals() -> None:
    @rule(exactness=EXACT)
    def drop(x: Any) -> Any:
        return op.mul(x, 2), lambda graph, x: x

    for dtype, number, fires in ((I64, 2, 1), (I64, 3, 0), (F32, 2.0, 1), (F32, -2.0, 0)):
        graph = Graph("g")
        constant = graph.constant(np.asarray(number, dtype.numpy))
        graph.set_outputs([graph.add("mul", tensor(graph, [3], dtype=dtype), constant)], ["y"])
        assert RewritePass("p", [drop]).run(graph, PassContext()) == fires


@pytest.mark.parametrize("length", [1000])
def test_a_long_chain_of_transposes_is_no_fight(length: int) -> None:
    from fusible.passes.cancel_movements import cancel_transposes

    graph = Graph("g")
    value = tensor(graph, [2, 3, 4])
    for _ in range(length):
        value = graph.add("transpose", value, perm=(1, 2, 0))
    graph.set_outputs([value], ["y"])
    run(cancel_transposes, graph, [random((2, 3, 4))], None)
    assert len(graph) <= 1
