"""Calls of torch as artifacts have them, checked before torch is told.

Torch is told where tensors lie by numbers alone, which it reads and writes by. So each number is checked against the
others, against the kernel's arguments, and against the buffers of every step of the plan that makes the call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from fusible.errors import ExecutionError
from fusible.runtime.devices.code import DeviceKernel
from fusible.runtime.devices.convolution import TorchCall, TorchConvolution
from fusible.runtime.devices.device import Span
from fusible.runtime.devices.facts import damaged
from fusible.runtime.plan import If, Launch, Loop, Plan, PlanValue
from fusible.runtime.signature import DTYPES
from fusible.runtime.views import block_of

__all__ = ["check_call", "check_reach", "check_steps"]

_KINDS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_POINTERS = {"float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16"}
_MOST = 2**31 - 1  # what cuDNN takes as a number of a window


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of a call; offset and steps count elements."""

    name: str
    argument: int
    offset: int
    sizes: tuple[int, ...]
    steps: tuple[int, ...]

    @property
    def reach(self) -> int:
        """Elements from the beginning of its buffer to behind its last one."""
        return self.offset + 1 + sum((size - 1) * step for size, step in zip(self.sizes, self.steps, strict=True))

    @property
    def apart(self) -> bool:
        """True if it is certain that no two elements lie at the same place."""
        reach = 0
        for step, size in sorted((step, size) for size, step in zip(self.sizes, self.steps, strict=True) if size > 1):
            if step <= reach:
                return False
            reach += (size - 1) * step
        return True


def _tensors(call: TorchCall) -> tuple[_Tensor, ...]:
    if isinstance(call, TorchConvolution):
        named = zip(("image", "weight", "result"), call.places, strict=True)
        return tuple(_Tensor(name, p.argument, p.offset, p.sizes, p.steps) for name, p in named)
    m, n, k = call.rows, call.columns, call.depth
    sizes = {"left": (m, k), "right": (k, n), "result": (m, n), "added": (m, n)}
    return tuple(
        _Tensor(name, p.argument, p.offset, (call.batch, *size), (p.batch, p.rows, p.columns))
        for (name, size), p in zip(sizes.items(), call.places, strict=False)
    )


def _itemsize(call: TorchCall) -> int:
    return DTYPES[_KINDS[call.dtype]].itemsize


def check_call(kernel: DeviceKernel) -> None:
    """Raise ArtifactError for a call of torch that contradicts itself or the arguments of its kernel."""
    call = kernel.product
    if call is None:
        return
    what = f"the {_called(call)} of the kernel {kernel.name!r}"
    if call.dtype not in _KINDS:
        raise damaged(what, f"its 'dtype' is {call.dtype!r:.40}, expected one of {', '.join(_KINDS)}")
    *operands, result = sorted(_tensors(call), key=lambda tensor: tensor.name == "result")
    for tensor in (*operands, result):
        name, type_ = kernel.arguments[tensor.argument]
        if type_ != _POINTERS[call.dtype]:
            raise damaged(what, f"its {tensor.name} is in {call.dtype}, and the argument {name!r} is {type_[:20]}")
    if result.argument in {tensor.argument for tensor in operands}:
        raise damaged(what, "its result is an operand too")
    if not result.apart:
        raise damaged(what, f"elements of its result, of sizes {result.sizes} and steps {result.steps}, share a place")
    needed = prod(result.sizes) * _itemsize(call)
    if call.scratch not in (0, needed) or (call.scratch and result.reach * _itemsize(call) > needed):
        raise damaged(what, f"its 'scratch' is {call.scratch}, and its result has {needed} bytes")
    if bool(call.scratch) != bool(kernel.source):
        raise damaged(what, "its result is for a kernel that is not there, or there is one and no result for it")
    if kernel.numbers or kernel.sizes is not None:
        raise damaged(what, "the kernel behind it takes sizes, which are fixed")
    if isinstance(call, TorchConvolution):
        _check_window(call, what)


def _called(call: TorchCall) -> str:
    return "convolution" if isinstance(call, TorchConvolution) else "product"


def _check_window(call: TorchConvolution, what: str) -> None:
    (batch, channels, *sizes), (columns, depth, *taps) = call.image.sizes, call.weight.sizes
    if call.groups * depth != channels or columns % call.groups:
        raise damaged(
            what, f"an image of {channels} channels and a weight of {columns} by {depth} in {call.groups} groups"
        )
    if max(*call.strides, *call.dilations, *call.pads, *taps) > _MOST:
        raise damaged(what, "a number of its window is more than 2**31 - 1")
    found = tuple(
        (size + 2 * pad - dilation * (tap - 1) - 1) // stride + 1
        for size, pad, dilation, tap, stride in zip(sizes, call.pads, call.dilations, taps, call.strides, strict=True)
    )
    if call.result.sizes != (batch, columns, *found):
        raise damaged(
            what, f"its result has sizes {call.result.sizes}, and its window gives {(batch, columns, *found)}"
        )
    stored = (batch, *found, columns)
    steps = [prod(stored[n + 1 :]) for n in range(len(stored))]
    if call.result.steps != (steps[0], 1, *steps[1:-1]):
        raise damaged(what, f"the channels of its result are not adjacent: its steps are {call.result.steps}")


def check_steps(
    plan: Plan, kernels: Mapping[str, DeviceKernel], constants: Sequence[np.ndarray], tensor_bytes: int
) -> None:
    """Raise ArtifactError for a step that calls torch over buffers that do not hold what the call says.

    kernels: by name. constants: of the executable. tensor_bytes: what one tensor may have. Buffers whose sizes a run
    defines are left to `check_reach`.
    """
    for step in plan.steps:
        match step:
            case If(then=then, otherwise=otherwise):
                check_steps(then, kernels, constants, tensor_bytes)
                check_steps(otherwise, kernels, constants, tensor_bytes)
            case Loop(body=body):
                check_steps(body, kernels, constants, tensor_bytes)
            case Launch(kernel=name) if name in kernels and (call := kernels[name].product) is not None:
                _check_step(step, call, kernels[name], plan, constants, tensor_bytes)


def _check_step(
    step: Launch, call: TorchCall, kernel: DeviceKernel, plan: Plan, constants: Sequence[np.ndarray], tensor_bytes: int
) -> None:
    named = ", ".join(map(repr, step.origin)) or "a step made by the compiler"
    what = f"the {_called(call)} of the kernel {kernel.name!r} at {named}"
    given: list[int | None] = [n for n in step.inputs if n is not None]
    first = len(given)
    given += step.outputs
    if call.scratch:
        given.insert(call.result.argument, None)
    pointers = sum(type_.startswith("*") for _, type_ in kernel.arguments) - kernel.own_pointers
    if len(given) != pointers or len(step.dims) != 1:
        raise damaged(
            what, f"the step has {len(given)} buffers and {len(step.dims) - 1} sizes, the kernel {pointers} and 0"
        )
    if not call.scratch and call.result.argument < first:
        raise damaged(what, "its result would be written over an input")
    for tensor in _tensors(call):
        if prod(tensor.sizes) * _itemsize(call) > tensor_bytes:
            raise damaged(what, f"its {tensor.name}, of sizes {tensor.sizes}, has more than {tensor_bytes} bytes")
        number = given[tensor.argument]
        if number is not None:
            _check_buffer(tensor, call, plan.values[number], constants, what)


def _check_buffer(
    tensor: _Tensor, call: TorchCall, value: PlanValue, constants: Sequence[np.ndarray], what: str
) -> None:
    if value.dtype != _KINDS[call.dtype]:
        raise damaged(what, f"its {tensor.name} is in {call.dtype}, and its buffer in {value.dtype or 'no numbers'}")
    reach = tensor.reach * _itemsize(call)
    if value.kind == "constant" and not 0 <= value.index < len(constants):
        raise damaged(what, f"its {tensor.name} is constant {value.index} of {len(constants)}")
    held = constants[value.index].nbytes if value.kind == "constant" else _extent(value, what)
    if held is not None and reach > held:
        raise damaged(what, f"its {tensor.name} reaches {reach} bytes into a buffer of {held}")


def _extent(value: PlanValue, what: str) -> int | None:
    """The bytes of a value from its first element to its last; None if a run defines them."""
    dims = (*(value.shape or ()), *(value.whole or ()), *(value.corner or ()))
    if value.shape is None or not all(isinstance(dim, int) for dim in dims):
        return None
    try:
        return block_of(value, {}).extent
    except (ExecutionError, ValueError, IndexError) as error:
        raise damaged(what, f"the shape of its buffer cannot be: {error}") from error


def check_reach(call: TorchCall, spans: Sequence[Span], where: str) -> None:
    """Raise ExecutionError for a call over memory that does not hold its tensors. spans: of its places, in order."""
    size = _itemsize(call)
    for tensor, span in zip(_tensors(call), spans, strict=True):
        if tensor.reach * size > span.nbytes or span.nbytes % size or span.itemsize not in (1, size):
            why = f"its {tensor.name} reaches {tensor.reach * size} bytes into memory of {span.nbytes}"
            raise ExecutionError(where, f"the {_called(call)} by torch does not fit the plan: {why}")
