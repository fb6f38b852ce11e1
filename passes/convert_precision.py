"""Compute in a smaller floating-point type:  f(x)  ->  cast(f(cast(x))), with casts only at the borders.

Weights are converted once, quantised ones stay so and are dequantised to the smaller type; numbers too large for the
type become its largest. Inputs and outputs of the model keep their types, and so do ops that are not defined by
expressions over tensors, ops whose results easily leave the range of 16 bits or lose what matters in them (powers,
exponentials, long sums), and the bodies of branches and loops. Inside a kernel everything is computed in fp32 and
rounded where the type says so; products of matrices are summed in fp32.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from fusible.compiler.ir.definition import Opaque, Positions
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.errors import InvalidModel
from fusible.passes.base import Pass, PassContext
from fusible.passes.exactness import Exactness
from fusible.passes.ledger import Entry, Kind

__all__ = ["ConvertPrecision"]

WIDE = frozenset(
    {"cast", "exp", "log", "pow", "reciprocal", "softplus", "cum_sum", "cum_prod"}
    | {"reduce_sum", "reduce_prod", "reduce_l1", "reduce_l2", "reduce_sum_square"}
    | {"reduce_log_sum", "reduce_log_sum_exp", "quantize_linear", "dequantize_linear"}
)
"""Ops that stay in fp32."""


class ConvertPrecision(Pass):
    """The pass `convert-precision`: to the type `context.target["precision"]`; without one it does nothing.

    The caller asks for the type by name, so this is no liberty that the exactness bound would have to allow.
    """

    name = "convert-precision"
    exactness = Exactness.EXACT

    def run(self, graph: Graph, context: PassContext) -> int:
        """Convert what the graph itself computes; subgraphs stay as they are."""
        dtype = context.target.get("precision")
        return _Converter(graph, dtype, context).run(self.name) if isinstance(dtype, DType) else 0


class _Converter:
    def __init__(self, graph: Graph, dtype: DType, context: PassContext) -> None:
        self.graph, self.dtype, self.context = graph, dtype, context
        self.narrow: dict[Value, Value] = {}  # fp32 values, and the same in the smaller type

    def run(self, name: str) -> int:
        done = 0
        for node in list(self.graph):
            if any(_is_float(v) for v in node.inputs) and _stays(node) is None and self.context.take():
                done += self._converted(node)
        if done:
            self._dequantise_to_narrow()
            reason = f"{done} nodes compute in {self.dtype.value}"
            self.context.ledger.add(Entry(Kind.FIRED, name, "", (), reason))
        return done

    def _dequantise_to_narrow(self) -> None:
        """cast(dequantize_linear(q))  ->  dequantize_linear(q) in the smaller type, which rounds the same product.

        Kernels unpack what they read for themselves, but not through a cast: the weight would be stored dequantised.
        """
        for node in list(self.graph):
            if node.op.name != "dequantize_linear" or not _is_float(node.output) or node.output in self.graph.outputs:
                continue
            casts = node.output.users
            if not casts or not all(self._narrows(n) for n in casts):
                continue
            attrs = {name: getattr(node.attrs, name) for name in node.op.attribute_names}
            with self.graph.inserting_before(node, node.origin):
                made = self.graph.add_node(node.op, list(node.inputs), {**attrs, "output_dtype": self.dtype})
            for cast in casts:
                self.graph.replace(cast, made.outputs)
            self.graph.erase(node)

    def _narrows(self, node: Node) -> bool:
        return node.op.name == "cast" and node.attrs.dtype is self.dtype and node.graph is self.graph

    def _converted(self, node: Node) -> bool:
        """Put a node that computes in the smaller type in the place of another; False if its op does not allow it."""
        attrs = {attribute: getattr(node.attrs, attribute) for attribute in node.op.attribute_names}
        with self.graph.inserting_before(node, node.origin):
            operands = [self._narrowed(v) for v in node.inputs]
            try:
                made = self.graph.add_node(node.op, operands, attrs, outputs=len(node.outputs))
            except InvalidModel:  # the op takes fp32 alone
                return False
            wanted = [_retyped(v, self.dtype) for v in node.outputs]
            if [v.type for v in made.outputs] != wanted:
                self.graph.erase(made)
                return False
            results = []
            for old, new in zip(node.outputs, made.outputs, strict=True):
                results.append(self.graph.add("cast", new, dtype=DType.F32) if _is_float(old) else new)
                if _is_float(old):
                    self.narrow[results[-1]] = new
        self.graph.replace(node, results)
        return True

    def _narrowed(self, value: Value | None) -> Value | None:
        """A value in the smaller type, if it is an fp32 tensor: converted once."""
        if value is None or not _is_float(value):
            return value
        if value not in self.narrow:
            if value.constant is None:
                self.narrow[value] = self.graph.add("cast", value, dtype=self.dtype)
            else:
                self.narrow[value] = self.graph.constant(_rounded(value.constant.array, self.dtype), value.name)
        return self.narrow[value]


def _stays(node: Node) -> str | None:
    """Why a node keeps computing in fp32, or None."""
    if node.op.name in WIDE:
        return "its results leave the range of 16 bits"
    if node.subgraphs or node.op.dynamic or node.defines or not node.op.pure:
        return "it is no expression over tensors"
    if any(v.content is not None for v in node.outputs):
        return "its elements are known"
    return "it has no definition" if isinstance(node.op.definition(node), Opaque | Positions) else None


def _is_float(value: Value | None) -> bool:
    return value is not None and isinstance(value.type, TensorType) and value.type.dtype is DType.F32


def _retyped(value: Value, dtype: DType) -> object:
    if not _is_float(value):
        return value.type
    assert isinstance(value.type, TensorType)
    return TensorType(dtype, value.type.shape)


def _rounded(array: np.ndarray, dtype: DType) -> np.ndarray:
    """The numbers in the smaller type; finite ones stay finite."""
    largest = np.float32(ml_dtypes.finfo(dtype.numpy).max)  # type: ignore[no-untyped-call]
    bounded = np.where(np.isfinite(array), np.clip(array, -largest, largest), array)
    return bounded.astype(dtype.numpy)
