"""A plan as C that needs no Python: the tables of `kernels/cpu/embedded.h`, and a header of the model's own functions.

Steps that only Python can run (calls of NumPy, branches, loops, sizes known only during a run) are refused by name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusible.errors import LoweringError
from fusible.runtime.dims import DimText, single_symbol
from fusible.runtime.plan import Alloc, Call, Copy, If, Launch, Loop, PlanValue, Step
from fusible.runtime.requirements import SizeRule
from fusible.runtime.signature import DTYPES

if TYPE_CHECKING:
    from fusible.runtime.executable import Executable

__all__ = ["CModel", "c_model", "host_steps"]

MAX_RANK, MAX_OUTPUTS = 8, 64  # as in fusible.h and embedded.h
_TYPES = ("f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u64", "u32", "u16", "u8", "bool")
_SAME_MEMORY = frozenset({"reshape", "squeeze", "unsqueeze", "flatten", "identity"})
_KNOWN = {"name", "kind", "dtype", "shape", "index", "order", "whole", "corner"}  # what this file knows of a PlanValue


@dataclass(frozen=True, slots=True)
class CModel:
    """header: the text of NAME.h. source: that of NAME.c, with `@ID@` where the 32 bytes of the weights' hash belong.

    constants: (number of a constant, its offset in the file of weights), in order; weights_bytes: the file's size.
    """

    header: str
    source: str
    constants: tuple[tuple[int, int], ...]
    weights_bytes: int


def host_steps(executable: Executable) -> list[str]:
    """The steps that need Python, each with its nodes and the reason."""
    reasons = {(row["op"], tuple(row["nodes"])): str(row["reason"]) for row in executable.report.host}
    found = []
    for step in executable.plan.steps:
        why = _why_host(step, executable)
        if why is not None:
            op = getattr(step, "op", "") or type(step).__name__.lower()
            nodes = ", ".join(repr(n) for n in step.origin) or "a step made by the compiler"
            found.append(f"{op} at {nodes}: {reasons.get((op, tuple(step.origin)), why)}")
    return found


def _why_host(step: Step, executable: Executable) -> str | None:
    match step:
        case Launch():
            if executable.device is not None and step.kernel in executable.device.names:
                return f"it is a kernel for {executable.target}"
            return None if executable.is_native(step.kernel) else "it calls NumPy"
        case Call():
            return None if _same_memory(step, executable.plan.values) else "it calls NumPy"
        case If() | Loop():
            return "branches and loops are run by Python"
        case Alloc():
            return "its size is known only when it runs"
        case Copy():
            source = executable.plan.values[step.source]
            return (
                None if _row_major(source) else "what it copies is stored in another order or inside something larger"
            )


def _row_major(value: PlanValue) -> bool:
    return value.order is None and value.whole is None


def _same_memory(step: Call, values: Sequence[PlanValue]) -> bool:
    """True if the result is the operand under another shape."""
    if not step.view or step.op not in _SAME_MEMORY or len(step.outputs) != 1:
        return False
    operand = step.inputs[0]
    return operand is not None and _row_major(values[operand]) and values[step.outputs[0]].shape is not None


def c_model(executable: Executable, name: str) -> CModel:
    """The C of an executable, whose functions begin with `name`. Raises LoweringError naming what C cannot run."""
    if problems := [*_signature_problems(executable), *host_steps(executable)]:
        shown = "; ".join(problems[:20]) + (f"; and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise LoweringError("a model that is to run without Python", {"c": shown})
    return _Writer(executable, name).write()


def _signature_problems(executable: Executable) -> list[str]:
    problems = []
    for spec in (*executable.inputs, *executable.outputs):
        if spec.kind != "tensor" or spec.shape is None:
            problems.append(f"{spec.name!r} is no tensor of known rank: give its shape (shapes=, --shape)")
        elif len(spec.shape) > MAX_RANK or _type_of(spec.dtype) is None:
            problems.append(f"{spec}: the C interface has {', '.join(_TYPES)} and up to {MAX_RANK} dimensions")
    if len(executable.outputs) > MAX_OUTPUTS:
        problems.append(f"it has {len(executable.outputs)} outputs, more than {MAX_OUTPUTS}")
    for value in executable.plan.values:
        unknown = [n for n, d in value._field_defaults.items() if n not in _KNOWN and getattr(value, n) != d]
        problems += [f"value {value.name!r} is placed by {name!r}, which C does not know yet" for name in unknown]
    return problems


def _type_of(dtype: object) -> str | None:
    return next((f"FUSIBLE_{name.upper()}" for name in _TYPES if DTYPES[name] == dtype), None)


class _Writer:
    def __init__(self, executable: Executable, name: str) -> None:
        self.executable, self.plan, self.name = executable, executable.plan, name
        self.symbols: dict[str, int] = {}
        self.launches = [s for s in self.plan.steps if isinstance(s, Launch)]

    def write(self) -> CModel:
        bind = self._bind()
        constants, size = self._constants()
        parts = [self._head(), self._specs(), self._tables(constants), bind, self._measure(), self._all_tables()]
        return CModel(self._header(), "\n".join([*parts, self._functions()]), tuple(constants), size)

    # Sizes

    def _bind(self) -> str:
        """The function that reads symbols off the inputs and checks every dimension."""
        first, checks = [], []
        for n, number in enumerate(self.plan.inputs):
            for d, dim in enumerate(self.plan.values[number].shape or ()):
                symbol = single_symbol(dim)
                if symbol is not None and symbol not in self.symbols:
                    self.symbols[symbol] = len(self.symbols)
                    first.append(f"s[{self.symbols[symbol]}] = x[{n}].shape[{d}];")
                    first += self._bounds(symbol)
                else:
                    checks.append((dim, f"if (x[{n}].shape[{d}] != %s) return FUSIBLE_BAD_SHAPE;"))
        lines = [*first, *(form % self._dim(dim) for dim, form in checks), *map(self._rule, self.plan.rules)]
        body = [f"    {line}" for line in ["(void)x, (void)s;", "int error = 0;", *lines, "return error;"]]
        return "\n".join(["static int bind(const struct fusible_tensor *x, wide *s) {", *body, "}", ""])

    def _rule(self, rule: SizeRule) -> str:
        """The check of what sizes must satisfy."""
        holds = {"equal": "a == b", "fits": "a == 1 || a == b", "broadcast": "a == b || a == 1 || b == 1"}
        test = holds.get(rule.relation, "a <= b")
        sides = f"const wide a = {self._dim(rule.left)}, b = {self._dim(rule.right)};"
        return f"{{ {sides} if (!({test})) return FUSIBLE_BAD_SHAPE; }}"

    def _bounds(self, symbol: str) -> list[str]:
        low, high = self.plan.bounds.get(symbol, (0, None))
        value = f"s[{self.symbols[symbol]}]"
        tests = [f"{value} < {low}"] if low > 0 else []
        tests += [f"{value} > {high}"] if high is not None else []
        return [f"if ({' || '.join(tests)}) return FUSIBLE_OUT_OF_BOUNDS;"] if tests else []

    def _measure(self) -> str:
        """The function that evaluates sizes of buffers, dims of steps and dimensions of outputs."""
        lines = [f"bytes[{n}] = {self._dim(b.nbytes)};" for n, b in enumerate(self.plan.buffers)]
        dims = [d for step in self.launches for d in step.dims]
        lines += [f"dims[{n}] = {self._dim(d)};" for n, d in enumerate(dims)]
        lines += [f"dims[{len(dims) + n}] = {self._place(v)};" for n, v in enumerate(self._blocks())]
        for n, number in enumerate(self.plan.outputs):
            shape = self.plan.values[number].shape or ()
            lines += [f"shapes[{n * MAX_RANK + d}] = {self._dim(dim)};" for d, dim in enumerate(shape)]
        lines = ["(void)s, (void)bytes, (void)dims, (void)shapes;", "int error = 0;", *lines, "return error;"]
        head = "static int measure(const wide *s, wide *bytes, wide *dims, wide *shapes) {"
        return "\n".join([head, *(f"    {line}" for line in lines), "}", ""])

    def _blocks(self) -> list[PlanValue]:
        """The values that live inside something larger."""
        return [v for v in self.plan.values if v.kind == "arena" and v.corner is not None]

    def _place(self, value: PlanValue) -> str:
        """Where a block begins in its buffer, in bytes."""
        assert value.whole is not None and value.corner is not None
        order, terms = value.order or tuple(range(len(value.whole))), []
        for at, dimension in enumerate(order):
            factors = [value.corner[dimension], *(value.whole[d] for d in order[at + 1 :])]
            terms.append(" * ".join(f"({self._dim(f)})" for f in factors))
        return f"(wide){DTYPES[value.dtype].itemsize} * ({' + '.join(terms) or '0'})"

    def _dim(self, text: DimText) -> str:
        return str(text) if isinstance(text, int) else self._expression(ast.parse(text, mode="eval").body)

    def _expression(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=int() as literal):
                return f"(wide){literal}"
            case ast.Name(id=name) if name in self.symbols:
                return f"s[{self.symbols[name]}]"
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return f"(-{self._expression(operand)})"
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() as op, right=right):
                sign = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}[type(op)]
                return f"({self._expression(left)} {sign} {self._expression(right)})"
            case ast.Call(func=ast.Name(id="max" | "min" as name), args=[a, b]):
                return f"wide_{name}({self._expression(a)}, {self._expression(b)})"
            case ast.Call(func=ast.Name(id="floordiv" | "mod" | "bcast" as name), args=[a, b]):
                return f"wide_{name}({self._expression(a)}, {self._expression(b)}, &error)"
        why = f"the size {ast.unparse(node)[:80]!r} is known only in a run"
        raise LoweringError("a model that is to run without Python", {"c": why})

    # Tables

    def _constants(self) -> tuple[list[tuple[int, int]], int]:
        """(constant, offset) for those that a step reads, and the bytes of the file."""
        used = {n for step in self.plan.steps for n in _read(step)}
        numbers = sorted({v.index for n, v in enumerate(self.plan.values) if v.kind == "constant" and n in used})
        placed, offset = [], 64
        for number in numbers:
            placed.append((number, offset))
            offset += -(-self.executable.constants[number].nbytes // 64) * 64
        return placed, offset

    def _head(self) -> str:
        kernels = sorted({step.kernel for step in self.launches})
        return _HEAD.replace("@NAME@", self.name) + "".join(f"runner_kernel {kernel};\n" for kernel in kernels)

    def _specs(self) -> str:
        texts = []
        for which, specs, numbers in (
            ("input_specs", self.executable.inputs, self.plan.inputs),
            ("output_specs", self.executable.outputs, self.plan.outputs),
        ):
            rows = []
            for spec, number in zip(specs, numbers, strict=True):
                shape = self.plan.values[number].shape or ()
                dims = ", ".join(str(d if isinstance(d, int) else -1) for d in shape) or "0"
                text = _string(str(spec))
                rows.append(f"    {{{_string(spec.name)}, {_type_of(spec.dtype)}, {len(shape)}, {{{dims}}}, {text}}},")
            texts.append(_array(f"struct fusible_spec {which}", rows))
        return "\n".join(texts)

    def _tables(self, constants: Sequence[tuple[int, int]]) -> str:
        values, offsets = self.plan.values, dict(constants)
        held = [(n, v) for n, v in enumerate(values) if v.kind == "constant" and v.index in offsets]
        arena = [(n, v) for n, v in enumerate(values) if v.kind == "arena"]
        slots: list[int] = []
        steps: list[str] = []
        dims = 0
        for step in self.launches:
            used = [*(n for n in step.inputs if n is not None), *step.outputs]
            steps.append(f"    {{{step.kernel}, {len(slots)}, {len(used)}, {dims}}},")
            slots += used
            dims += len(step.dims)
        blocks = {id(v): dims + n for n, v in enumerate(self._blocks())}

        def place(value: PlanValue) -> int:
            return blocks.get(id(value), -1)

        outputs = [n if values[n].kind == "output" else -1 for n in self.plan.outputs]
        return "\n".join(
            [
                _numbers("int32_t input_values", self.plan.inputs),
                _numbers("int32_t output_values", outputs),
                _numbers("int32_t constant_values", (n for n, _ in held)),
                _numbers("uint64_t constant_offsets", (offsets[v.index] for _, v in held)),
                _numbers("int32_t arena_values", [*(m for n, v in arena for m in (n, v.index, place(v))), -1]),
                _numbers("int32_t firsts", (b.first for b in self.plan.buffers)),
                _numbers("int32_t lasts", (b.last for b in self.plan.buffers)),
                _numbers("int32_t slots", slots),
                _array("struct runner_step steps", steps),
                _array("char *const step_names", [f"    {_string(_step_name(s))}," for s in self.launches]),
                _array("struct embedded_move aliases", [f"    {{{to}, {from_}}}," for to, from_ in self._aliases()]),
                _array("struct embedded_move copies", [f"    {{{to}, {from_}}}," for to, from_ in self._copies()]),
            ]
        )

    def _aliases(self) -> list[tuple[int, int]]:
        calls = [s for s in self.plan.steps if isinstance(s, Call)]
        return [(s.outputs[0], s.inputs[0]) for s in calls if s.inputs[0] is not None]

    def _copies(self) -> list[tuple[int, int]]:
        """(position of an output, the value that it copies)."""
        sources = {s.output: s.source for s in self.plan.steps if isinstance(s, Copy)}
        return [(p, sources.get(n, n)) for p, n in enumerate(self.plan.outputs) if self.plan.values[n].kind != "output"]

    def _all_tables(self) -> str:
        limits = self.executable.limits
        held = {v.index for v in self.plan.values if v.kind == "constant"} & {n for n, _ in self._constants()[0]}
        counts: Mapping[str, int] = {
            "inputs": len(self.plan.inputs), "outputs": len(self.plan.outputs), "values": len(self.plan.values),
            "constants": sum(1 for v in self.plan.values if v.kind == "constant" and v.index in held),
            "buffers": len(self.plan.buffers), "symbols": len(self.symbols), "steps": len(self.launches),
            "dims": sum(len(s.dims) for s in self.launches) + len(self._blocks()), "aliases": len(self._aliases()),
            "copies": len(self._copies()),
        }  # fmt: skip
        names = {
            "input": "input_specs", "output": "output_specs", "input_value": "input_values",
            "output_value": "output_values", "constant_value": "constant_values",
            "constant_offset": "constant_offsets", "arena_value": "arena_values", "first": "firsts", "last": "lasts",
            "step": "steps", "step_name": "step_names", "slot": "slots", "alias": "aliases", "copy": "copies",
            "most_bytes_of_a_tensor": str(limits.tensor_bytes), "most_bytes": str(limits.memory_bytes),
            "bind": "bind", "measure": "measure", "id": "{@ID@}",
        }  # fmt: skip
        rows = [f"    .{name} = {value}," for name, value in {**counts, **names}.items()]
        return "\n".join(["static const struct embedded_tables tables = {", *rows, "};", ""])

    # The model's functions

    def _header(self) -> str:
        return _HEADER.replace("@UPPER@", self.name.upper()).replace("@NAME@", self.name).replace(
            "@INPUTS@", str(len(self.plan.inputs))
        ).replace("@OUTPUTS@", str(len(self.plan.outputs))).replace("@SIGNATURE@", self._signature())  # fmt: skip

    def _signature(self) -> str:
        lines = [f" *   input {n}   {_comment(str(s))}" for n, s in enumerate(self.executable.inputs)]
        lines += [f" *   output {n}  {_comment(str(s))}" for n, s in enumerate(self.executable.outputs)]
        return "\n".join(lines)

    def _functions(self) -> str:
        return _FUNCTIONS.replace("@NAME@", self.name)


def _read(step: Step) -> list[int]:
    match step:
        case Launch() | Call():
            return [n for n in step.inputs if n is not None]
        case Copy():
            return [step.source]
    return []


def _step_name(step: Launch) -> str:
    return f"{step.op} at {', '.join(repr(o) for o in step.origin) or 'a step made by the compiler'}"


def _array(what: str, rows: Sequence[str]) -> str:
    return "\n".join([f"static const {what}[] = {{", *(rows or ["    {0},"]), "};", ""])


def _numbers(what: str, numbers: Iterable[int]) -> str:
    texts = [str(n) for n in numbers] or ["0"]
    rows = [f"    {', '.join(texts[n : n + 20])}," for n in range(0, len(texts), 20)]
    return "\n".join([f"static const {what}[] = {{", *rows, "};", ""])


def _string(text: str) -> str:
    """A C literal. Names come from models, which are not trusted: all but letters, digits and the harmless is octal."""
    harmless = " _-./:,;()[]'"
    data = text.encode("utf-8", "surrogateescape")
    chars = [chr(b) if b < 128 and (chr(b).isalnum() or chr(b) in harmless) else f"\\{b:03o}" for b in data]
    return '"' + "".join(chars) + '"'


def _comment(text: str) -> str:
    """Text that may stand in a comment."""
    return "".join(c if c.isascii() and (c.isalnum() or c in " _-.:,()[]+") else "?" for c in text)


_HEADER = """\
/* Generated by Fusible: the functions of a model. Types, and who allocates what, are in fusible.h.
 *
@SIGNATURE@
 *
 * Functions that return int return an enum fusible_status.
 */
#ifndef @UPPER@_H
#define @UPPER@_H

#include "fusible.h"

#define @UPPER@_INPUTS @INPUTS@
#define @UPPER@_OUTPUTS @OUTPUTS@

#ifdef __cplusplus
extern "C" {
#endif

struct @NAME@;
struct @NAME@_session;

/* The FUSIBLE_VERSION that the library was built with: other than yours, do not go on. */
int @NAME@_version(void);

/* @UPPER@_INPUTS and @UPPER@_OUTPUTS descriptions; they live as long as the library is loaded. */
const struct fusible_spec *@NAME@_inputs(void);
const struct fusible_spec *@NAME@_outputs(void);

/* Maps the file of weights and starts the threads; threads: how many work on a run, 0 for all that may be used. */
int @NAME@_open(const char *weights, int threads, struct @NAME@ **model);
/* Sessions must be closed before. A null pointer is no model, and that is fine. */
void @NAME@_close(struct @NAME@ *model);

int @NAME@_session_open(struct @NAME@ *model, struct @NAME@_session **session);
void @NAME@_session_close(struct @NAME@_session *session);

/* Writes rank, shape and bytes of each output; reads rank and shape of each input. */
int @NAME@_shapes(struct @NAME@_session *session, const struct fusible_tensor *inputs, struct fusible_tensor *outputs);

/* Computes the outputs; memory of the session grows to what the shapes need and is kept for the next run. */
int @NAME@_run(struct @NAME@_session *session, const struct fusible_tensor *inputs, struct fusible_tensor *outputs);

/* What a status means; and the step at which the session's last run failed, or NULL. */
const char *@NAME@_status_text(int status);
const char *@NAME@_failed_step(const struct @NAME@_session *session);

#ifdef __cplusplus
}
#endif

#endif
"""

_HEAD = """\
/* Generated by Fusible: the plan of a model, for embedded.h. */

#define _GNU_SOURCE
#include "@NAME@.h"

/* The opaque types of the header are those of embedded.h. */
#define embedded_model @NAME@
#define embedded_session @NAME@_session
#include "embedded.h"

"""

_FUNCTIONS = """\
#define API __attribute__((visibility("default")))

API int @NAME@_version(void) { return FUSIBLE_VERSION; }
API const struct fusible_spec *@NAME@_inputs(void) { return input_specs; }
API const struct fusible_spec *@NAME@_outputs(void) { return output_specs; }
API int @NAME@_open(const char *weights, int threads, struct @NAME@ **model) {
    return embedded_open(&tables, weights, threads, model);
}
API void @NAME@_close(struct @NAME@ *model) { embedded_close(model); }
API int @NAME@_session_open(struct @NAME@ *model, struct @NAME@_session **session) {
    return embedded_session_open(model, session);
}
API void @NAME@_session_close(struct @NAME@_session *session) { embedded_session_close(session); }
API int @NAME@_shapes(struct @NAME@_session *session, const struct fusible_tensor *x, struct fusible_tensor *y) {
    return embedded_shapes(session, x, y);
}
API int @NAME@_run(struct @NAME@_session *session, const struct fusible_tensor *x, struct fusible_tensor *y) {
    return embedded_run(session, x, y);
}
API const char *@NAME@_status_text(int status) { return embedded_status_text(status); }
API const char *@NAME@_failed_step(const struct @NAME@_session *session) {
    return session ? session->failed : NULL;
}
"""
