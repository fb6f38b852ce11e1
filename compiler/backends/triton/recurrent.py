"""Recurrent layers as Triton kernels: the templates of kernels/triton/recurrent.py with the activations of a node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.launch import AccessFact, Argument, LaunchRule
from fusible.compiler.backends.triton.node_kernel import NodeKernel, kernel_source, tensor_of
from fusible.compiler.backends.triton.print_expr import literal_text
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.opset.recurrent import GruAttrs, LstmAttrs, RnnAttrs
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType
from fusible.kernels.numpy.recurrent_activations import ActivationChoice, choose_activations

__all__ = ["RECURRENT", "RecurrentPrinter", "print_recurrent"]

RECURRENT = {"lstm": 4, "gru": 3, "rnn": 1}
"""The ops, and how many gates they have."""

_DEFAULTS = {
    "lstm": ("Sigmoid", "Tanh", "Tanh"), "dynamic_quantize_lstm": ("Sigmoid", "Tanh", "Tanh"),
    "gru": ("Sigmoid", "Tanh"), "rnn": ("Tanh",),
}  # fmt: skip
_GATES = RECURRENT | {"dynamic_quantize_lstm": 4}
_MEMBERS = ("x", "w", "r", "bias", "lengths", "h", "c", "peepholes")
_RESULTS = ("y", "y_h", "y_c")
_ELEMENTS = (DType.F32, DType.F16, DType.BF16)
_SIZES = ("steps", "rows", "width", "hidden")
_ROWS, _DEPTH, _WARPS = 16, 16, 4
_UNITS = {"lstm": 16, "gru": 32, "rnn": 32}  # four gates of 32 units do not fit the registers

_ACTIVATIONS = {
    "relu": "tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)",
    "softsign": "tl.div_rn(x, 1.0 + tl.abs(x))",
    "softplus": "tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) + libdevice.log1p(tl.exp(0.0 - tl.abs(x)))",
    "affine": "x * {alpha} + {beta}",
    "leakyrelu": "tl.where(x >= 0, x, x * {alpha})",
    "thresholdedrelu": "tl.where(x >= {alpha}, x, 0.0)",
    "scaledtanh": "libdevice.tanh(x * {beta}) * {alpha}",
    "hardsigmoid": "tl.clamp(x * {alpha} + {beta}, 0.0, 1.0, propagate_nan=tl.PropagateNan.ALL)",
    "elu": "tl.where(x >= 0, x, libdevice.expm1(x) * {alpha})",
    "sigmoid": "sigmoid(x)",
    "tanh": "tanh(x)",
}


def print_recurrent(node: Node, target: GpuTarget, name: str = "kernel") -> PrintedKernel:
    """The kernel of an `lstm`, `gru` or `rnn` node. Raises NotPrintable with what it does not take.

    Its arguments are the node's inputs that are there, then its outputs, then the sizes that are not known. The
    program is the same for all GPUs: blocks are as small as a product of tiles may be, for a program does not see the
    others' states and few sequences are the rule.
    """
    del target
    return RecurrentPrinter(node, name).printed()


def _shape(value: Value) -> tuple[Dim, ...]:
    shape = tensor_of(value).shape
    assert shape is not None
    return shape


class RecurrentPrinter:
    """Text and rule of a layer. Of the class: the module of its template, its operands, and where r has the state."""

    template = "recurrent"
    members: tuple[str, ...] = _MEMBERS
    hidden_along = 2

    def __init__(self, node: Node, name: str) -> None:
        """Take a node and the kernel's name. Raises NotPrintable."""
        attrs = node.attrs
        assert isinstance(attrs, (LstmAttrs, GruAttrs, RnnAttrs))
        self.node, self.attrs, self.name = node, attrs, name
        self.gates = _GATES[node.op.name]
        self.operands = {m: v for m, v in zip(self.members, node.inputs, strict=False) if v is not None}
        self.results = dict(zip(_RESULTS, node.outputs, strict=False))
        self.dtype = self._checked()
        x, recurrent = _shape(self.operands["x"]), _shape(self.operands["r"])
        steps, rows = (x[1], x[0]) if attrs.layout else (x[0], x[1])
        self.sizes = dict(zip(_SIZES, (steps, rows, x[2], recurrent[self.hidden_along]), strict=True))
        self.directions = 2 if attrs.direction == "bidirectional" else 1
        self.kernel = NodeKernel.of(node, self.sizes)

    def _checked(self) -> DType:
        for member, value in (*self.operands.items(), *self.results.items()):
            dtype = tensor_of(value).dtype
            if member != "lengths" and dtype not in _ELEMENTS:
                raise NotPrintable(f"it has an operand of {dtype.value}")
        found = {tensor_of(v).dtype for m, v in self.operands.items() if m != "lengths"}
        if len(found) > 1:
            raise NotPrintable("its operands are of several types")
        return found.pop()

    def printed(self) -> PrintedKernel:
        """Text and rule."""
        arguments = self.kernel.arguments()
        constants = {"ROWS": _ROWS, "UNITS": _UNITS[self.node.op.name], "DEPTH": _DEPTH}
        blocks = ((self.directions, 1), (self.sizes["rows"], _ROWS))
        rule = LaunchRule(self.name, arguments, constants, self._facts(), blocks, _WARPS, 1)
        return PrintedKernel(self._source(arguments, constants), rule)

    def _names(self) -> dict[str, str]:
        """What the kernel calls each operand and result."""
        inputs = {member: f"x{n}" for n, member in enumerate(self.operands)}
        return inputs | {member: f"y{n}" for n, member in enumerate(self.results)}

    def _facts(self) -> tuple[AccessFact, ...]:
        names = self._names()
        found = [(m, False) for m in self.operands if m != "lengths"] + [(m, True) for m in self.results]
        return tuple(AccessFact(names[m], self.dtype, stores, 1, True) for m, stores in found)

    # Text

    def _source(self, arguments: Sequence[Argument], constants: Mapping[str, int]) -> str:
        functions, called = list(self._functions()), self.node.op.name
        imported = [called, *(n for n in ("sigmoid", "tanh") if any(f" {n}(x)" in text for text in functions))]
        parameters = [*(a.name for a in arguments), *(f"{c}: tl.constexpr" for c in constants)]
        title = f"{called} in {self.dtype.value}"
        body = list(self._kernel())
        return kernel_source(title, self.template, imported, functions, parameters, body, self.name)

    def _functions(self) -> Iterator[str]:
        """The activations, of each direction; those of gates and candidates cut their argument first."""
        count = len(_DEFAULTS[self.node.op.name])
        for number, choice in enumerate(self._choices()):
            lines = [f"@triton.jit\ndef {_hook(number, count)}(x):"]
            if self.attrs.clip is not None and number % count < 2:
                low, high = (literal_text(v, DType.F32) for v in (-self.attrs.clip, self.attrs.clip))
                lines.append(f"    x = tl.clamp(x, {low}, {high}, propagate_nan=tl.PropagateNan.ALL)")
            alpha, beta = (literal_text(v, DType.F32) for v in (choice.alpha, choice.beta))
            lines.append(f"    return {_ACTIVATIONS[choice.name].format(alpha=alpha, beta=beta)}")
            yield "\n".join(lines)

    def _choices(self) -> list[ActivationChoice]:
        defaults = _DEFAULTS[self.node.op.name]
        names = self.attrs.activations or defaults * self.directions
        count = len(defaults) * self.directions
        return choose_activations(names[:count], self.attrs.activation_alpha, self.attrs.activation_beta)

    def _kernel(self) -> Iterator[str]:
        choices = self._choices()
        count = len(choices) // self.directions
        yield from self._direction()
        if self.directions == 1:
            yield from self._call(None, str(self.attrs.direction == "reverse"), 0)
            return
        if choices[:count] == choices[count:]:
            yield from self._call("direction", "direction == 1", 0)
            return
        for number in range(2):
            yield f"if direction == {number}:"
            yield from (f"    {line}" for line in self._call("direction", "direction == 1", number))

    def _direction(self) -> Iterator[str]:
        """What a program finds out from its number: its direction, and its first row."""
        yield f"program = {self.kernel.program()}"
        yield f"blocks = ({self.kernel.size('rows')} + ROWS - 1) // ROWS"
        yield "first = program % blocks * ROWS"
        if self.directions == 2:
            yield "direction = program // blocks"

    def _call(self, direction: str | None, backward: str, number: int) -> Iterator[str]:
        """The call of the template for a direction, with the activations of direction `number`."""
        names, op = self._names(), self.node.op.name
        count, offsets = len(_DEFAULTS[op]), self._offsets()
        yield f"{op}("
        for member in self._members():
            text = names.get(member, "None")
            if direction is not None and member in names and member in offsets:
                text = f"{text} + {direction} * ({offsets[member]})"
            yield f"    {member}={text},"
        yield from (f"    {stride}={text}," for stride, text in self._strides().items())
        steps, rows, width, hidden = (self.kernel.size(n) for n in _SIZES)
        yield from (f"    {name}={text}," for name, text in self._place().items())
        yield f"    backward={backward}, steps={steps}, rows={rows}, width={width}, hidden={hidden},"
        hooks = [f"{letter}={_hook(number * count + n, count)}" for n, letter in enumerate("FGK"[:count])]
        yield f"    {', '.join([*hooks, *self._flags()])},"
        yield f"    {self._last()}"
        yield ")"

    def _place(self) -> Mapping[str, str]:
        """What says which rows are the program's."""
        return {"first": "first"}

    def _last(self) -> str:
        """The template's last arguments."""
        return 'ROWS=ROWS, UNITS=UNITS, DEPTH=DEPTH, PRECISION="ieee",'

    def _strides(self) -> dict[str, str]:
        steps, rows, width, hidden = (self.kernel.size(n) for n in _SIZES)
        line = f"{self.directions} * {hidden}"
        if self.attrs.layout:
            x = {"x_step": width, "x_row": f"{steps} * {width}"}
            return x | {"y_step": line, "y_row": f"{steps} * {line}", "state_row": line}
        x = {"x_step": f"{rows} * {width}", "x_row": width}
        return x | {"y_step": f"{rows} * {line}", "y_row": hidden, "state_row": hidden}

    def _offsets(self) -> dict[str, str]:
        """From one direction to the next, by operand and result."""
        _, rows, width, hidden = (self.kernel.size(n) for n in _SIZES)
        gates = self.gates
        state = hidden if self.attrs.layout else f"{rows} * {hidden}"
        return {
            "w": f"{gates} * {hidden} * {width}",
            "r": f"{gates} * {hidden} * {hidden}",
            "bias": f"{2 * gates} * {hidden}",
            "peepholes": f"3 * {hidden}",
            **dict.fromkeys(("h", "c", "y", "y_h", "y_c"), state),
        }

    def _members(self) -> list[str]:
        """What the template takes by address."""
        own = self.node.op.name == "lstm"
        inputs = [m for m in self.members if own or m not in ("c", "peepholes")]
        return [*inputs, *(_RESULTS if own else _RESULTS[:2])]

    def _flags(self) -> list[str]:
        match self.attrs:
            case LstmAttrs():
                return [f"COUPLED={bool(self.attrs.input_forget)}"]
            case GruAttrs():
                return [f"LINEAR_FIRST={bool(self.attrs.linear_before_reset)}"]
        return []


def _hook(number: int, count: int) -> str:
    """The name of an activation: by its role, and by the direction."""
    return f"{('gate', 'candidate', 'output')[number % count]}{number // count}"
