"""Elementary functions of float32 tiles: by our own vector functions, vector after vector over a stored tile."""

from __future__ import annotations

from fusible.compiler.backends.triton.lower_shape import lower_elementwise
from fusible.compiler.backends.triton.state import Handler, Lowering
from fusible.compiler.backends.triton.ttir import Element, Operation, Tensor

__all__ = ["FUNCTION_HANDLERS"]

_VECTOR = {
    "math.exp": "vf_exp",
    "math.exp2": "tile_exp2",
    "math.expm1": "vf_expm1",
    "math.log": "vf_log",
    "math.log1p": "vf_log1p",
    "math.tanh": "vf_tanh",
    "math.erf": "vf_erf",
    "__nv_expf": "vf_exp",
    "__nv_exp2f": "tile_exp2",
    "__nv_expm1f": "vf_expm1",
    "__nv_logf": "vf_log",
    "__nv_log1pf": "vf_log1p",
    "__nv_tanhf": "vf_tanh",
    "__nv_erff": "vf_erf",
    "__nv_fast_expf": "vf_exp",
    "__nv_fast_logf": "vf_log",
    "__nv_fast_tanhf": "vf_tanh",
}


def _function(state: Lowering, operation: Operation) -> None:
    """One of `_VECTOR` for tiles of float32, else libm's function, element by element."""
    result = operation.results[0]
    name = _VECTOR.get(operation.attributes.get("symbol", operation.name))
    if name is None or not isinstance(result.type, Tensor) or result.type.element is not Element.F32:
        lower_elementwise(state, operation)
        return
    target = state.copy(state.tile(operation.operands[0]))
    state.code.line(f"MAP({name}, {target.buffer}, {target.size});")
    state.tiles[result] = target


FUNCTION_HANDLERS: dict[str, Handler] = {
    **{name: _function for name in _VECTOR if name.startswith("math.")},
    "tt.extern_elementwise": _function,
}
