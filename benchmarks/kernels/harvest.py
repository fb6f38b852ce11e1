"""The shapes that kernels meet in models: every distinct op, operand types and attributes.

    python -m fusible.benchmarks.kernels.harvest --out FILE [--limit N] MODEL...

A model is run once on its inputs, after the default passes but without fusion, so that every size is known, those that
only a run can tell included. What is met is ranked by its estimated cost; of each op at most N cases stay (of products
and convolutions three times as many), spread from the smallest to the largest. MODEL is a file or a name of the zoo;
without one, all models of the zoo are taken. To the file are added the cases written by hand of ops that no model has.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fusible.benchmarks.costs import fixed_graph
from fusible.benchmarks.kernels.cases import Case, Operand, load_cases, merge_cases, save_cases
from fusible.benchmarks.kernels.written import written_cases
from fusible.compiler.costs import node_cost
from fusible.compiler.ir.attributes import substitute_attrs
from fusible.compiler.ir.evaluate import RuntimeValue, bind_symbols, evaluate_graph
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.ops import attribute_values
from fusible.compiler.ir.symbols import SymInt
from fusible.compiler.ir.types import DType, SequenceType, TensorType, Type, substitute_type
from fusible.errors import FusibleError, UsageError
from fusible.passes.base import Phase

__all__ = ["estimated_cost", "harvest_model", "main", "select_cases", "shapes_of"]

PER_OP = 12
# The ops in which models spend their time come in many forms (1x1, depthwise, strided; tall, wide): more of them stay.
_HEAVY = ("conv", "gemm", "matmul")
_HEAVY_FACTOR = 3
_FIXED_ELEMENTS = 16  # operands of at most so many elements keep them: bounds, axes, scales, zero points
_NO_KERNELS = frozenset(
    {"if", "loop", "fused", "fail", "require", "dims", "optional", "optional_get_element", "optional_has_element"}
)
# Ops whose work may depend on the value of a floating-point constant; of others it is no part of the case.
_BY_VALUE = frozenset(
    {"clip", "pow", "pad", "one_hot", "imputer", "label_encoder", "tree_ensemble", "tf_idf_vectorizer"}
)
# Estimates need only an order: a byte moved is worth so many operations.
_OPERATIONS_PER_BYTE = 4


def harvest_model(path: Path, inputs: Mapping[str, np.ndarray], name: str) -> list[Case]:
    """The cases of one model, each once, sorted. name: the origin they are given.

    Nodes whose sizes stay unknown (inside a loop that makes them) are left out. Raises FusibleError for a model that
    cannot be imported or run.
    """
    graph = fixed_graph(path, inputs, (Phase.IMPORT, Phase.CANONICAL, Phase.OPTIMISE))
    met: dict[Value, RuntimeValue] = {}
    sizes: dict[str, int] = {}

    def note(value: Value, result: RuntimeValue) -> None:
        bind_symbols(value.type, result, sizes)
        met[value] = result if _is_small(result) else None

    operands = [inputs[value.name] for value in graph.inputs]
    for formal, given in zip(graph.inputs, operands, strict=True):
        note(formal, given)
    with np.errstate(all="ignore"):
        evaluate_graph(graph, operands, observe=note)
    found = (_case(node, met, sizes, name) for inner in graph.all_graphs() for node in inner)
    return merge_cases(case for case in found if case is not None)


def _is_small(result: RuntimeValue) -> bool:
    return isinstance(result, np.ndarray) and result.size <= _FIXED_ELEMENTS and result.dtype.kind in "iub"


def _case(node: Node, met: Mapping[Value, RuntimeValue], sizes: Mapping[str, int], name: str) -> Case | None:
    if node.op.name in _NO_KERNELS:
        return None
    operands = tuple(None if value is None else _operand(node, value, met, sizes) for value in node.inputs)
    attrs = substitute_attrs(node.attrs, dict(sizes))
    literal = all(o is None or _is_fixed(o.type) for o in operands)
    if not literal or any(_is_symbolic(a) for a in attribute_values(attrs).values()):
        return None
    return Case(node.op.name, operands, attrs, len(node.outputs), (name,))


def _operand(node: Node, value: Value, met: Mapping[Value, RuntimeValue], sizes: Mapping[str, int]) -> Operand:
    type_ = substitute_type(value.type, dict(sizes))
    if value.constant is not None:
        floats = value.constant.dtype.kind not in "iubO"
        if value.constant.size <= _FIXED_ELEMENTS and (not floats or node.op.name in _BY_VALUE or node.op.dynamic):
            return Operand.of(value.constant.array, type_, constant=True)
        return Operand(type_, constant=True)
    # Whole numbers that a dynamic op takes are sizes and axes: its work depends on them.
    array = met.get(value) if node.op.dynamic or node.op.name == "range" else None
    return Operand(type_) if not isinstance(array, np.ndarray) else Operand.of(array, _literal_type(array))


def _literal_type(array: np.ndarray) -> TensorType:
    return TensorType(DType.of(array.dtype), tuple(array.shape))


def _is_fixed(type_: Type) -> bool:
    match type_:
        case TensorType():
            return type_.static_shape is not None
        case SequenceType(element=element):
            return element is not None and _is_fixed(element)
    return False


def _is_symbolic(attribute: Any) -> bool:
    if isinstance(attribute, tuple):
        return any(_is_symbolic(a) for a in attribute)
    return isinstance(attribute, SymInt)


def estimated_cost(case: Case) -> float:
    """An estimate by which cases of one op can be put in order. Raises InvalidModel for operands that do not fit."""
    # The types suffice, and the elements that are fixed: no array need be made.
    formal = tuple(None if o is None else replace(o, constant=False) for o in case.operands)
    node = replace(case, operands=formal).node([None if o is None else o.array for o in formal])
    cost = node_cost(node)
    operations, moved = (count if isinstance(count, int) else 0 for count in (cost.flops, cost.bytes))
    return float(operations + _OPERATIONS_PER_BYTE * moved)


def select_cases(cases: Iterable[Case], limit: int | None, ops: Sequence[str] = ()) -> list[Case]:
    """At most `limit` cases of each op, spread evenly over the order of cost, least and greatest among them.

    ops: only these; all if empty. Raises UsageError for an op that no case is of.
    """
    by_op: dict[str, list[Case]] = {}
    for case in merge_cases(cases):
        by_op.setdefault(case.op, []).append(case)
    missing = [op for op in ops if op not in by_op]
    if missing:
        raise UsageError(f"no shape is of op {missing[0]!r}; there are shapes of {', '.join(by_op)}")
    chosen: list[Case] = []
    for op, group in by_op.items():
        if not ops or op in ops:
            ranked = sorted(group, key=lambda case: (estimated_cost(case), case.text))
            chosen += ranked if limit is None else [ranked[i] for i in _spread(len(ranked), limit)]
    return chosen


def _built_in(cases: Sequence[Case], limit: int) -> list[Case]:
    """A selection that has three times as many cases of the ops that matter most."""
    heavy = [op for op in _HEAVY if any(case.op == op for case in cases)]
    rest = [case for case in cases if case.op not in _HEAVY]
    return [*select_cases(rest, limit), *(select_cases(cases, limit * _HEAVY_FACTOR, heavy) if heavy else [])]


def _spread(count: int, limit: int) -> list[int]:
    """At most `limit` positions of `count`, evenly, from the first to the last; the last alone for a limit of 1."""
    if count <= limit:
        return list(range(count))
    if limit == 1:
        return [count - 1]
    return sorted({round(i * (count - 1) / (limit - 1)) for i in range(limit)})


def shapes_of(source: str) -> list[Case]:
    """The cases of a model file, a model of the zoo or a file of shapes. Raises UsageError for anything else."""
    path = Path(source)
    if path.suffix == ".json":
        return load_cases(path)
    from fusible.benchmarks.zoo.catalog import names, obtain, obtain_file  # noqa: PLC0415 - only where a model is asked for

    if path.suffix == ".onnx" or path.is_file():
        if not path.is_file():
            raise UsageError(f"{source} is no file")
        found = obtain_file(path, {})
        return harvest_model(found.path, found.inputs, found.name)
    if source not in names():
        raise UsageError(f"{source!r} is neither a file nor a model of the zoo, which has {', '.join(names())}")
    found = obtain(source)
    return harvest_model(found.path, found.inputs, found.name)


def _zoo() -> list[str]:
    from fusible.benchmarks.zoo.catalog import names  # noqa: PLC0415 - as above

    return list(names())


def with_written(cases: Sequence[Case]) -> list[Case]:
    """The cases, and those written by hand of every op that is not among them."""
    have = {case.op for case in cases}
    return merge_cases([*cases, *(case for case in written_cases() if case.op not in have)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Harvest models and write a file of shapes. Exit code 1 if a model fails (the rest goes on), 2 for wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--limit", type=int, default=PER_OP, metavar="N", help="cases of each op (default %(default)s)")
    options = parser.parse_args(arguments)
    cases: list[Case] = []
    code = 0
    try:
        for model in options.models or _zoo():
            try:
                found = shapes_of(model)
            except UsageError:
                raise
            except FusibleError as error:
                print(f"error: {model}: {error}", file=sys.stderr)
                code = 1
                continue
            print(f"{model}: {len(found)} cases of {len({case.op for case in found})} ops", flush=True)
            cases += found
        kept = with_written(_built_in(cases, options.limit))
        save_cases(kept, options.out)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(kept)} cases of {len({case.op for case in kept})} ops")
    return code


if __name__ == "__main__":
    sys.exit(main())
