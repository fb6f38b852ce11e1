"""Every error that Fusible raises on purpose; all derive from `FusibleError`.

A message says what is wrong, where (ONNX node names), what was expected and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = [
    "ArtifactError",
    "BoundsError",
    "DeviceError",
    "ExecutionError",
    "FusibleError",
    "InvalidModel",
    "InvalidNode",
    "KernelBuildError",
    "LimitExceeded",
    "LoweringError",
    "PassError",
    "SignatureError",
    "UnsupportedOp",
    "UsageError",
    "VerifyError",
]


class FusibleError(Exception):
    """The root of every error raised by Fusible."""


class UsageError(FusibleError):
    """An argument of a call or command makes no sense (unknown target, pass, option)."""


class InvalidModel(FusibleError):
    """The model file or graph breaks the ONNX standard or contradicts itself."""


class InvalidNode(InvalidModel):
    """One node contradicts its operator or the types of its operands; every name in the model may still be right."""


class UnsupportedOp(FusibleError):
    """A model uses an operator, or a form of it, that cannot be compiled.

    Attributes: op (with domain), opset, node (ONNX node name), why.
    """

    def __init__(self, op: str, opset: int, node: str, why: str) -> None:
        super().__init__(
            f"operator {op} (opset {opset}) at node {node!r} is not supported: {why}; "
            "`fusible ops` lists what is, `fusible.register_op` adds your own"
        )
        self.op, self.opset, self.node, self.why = op, opset, node, why


class LimitExceeded(FusibleError):
    """The model asks for more than `Options.limits` allows. Attributes: limit (its name), asked, allowed."""

    def __init__(self, limit: str, asked: object, allowed: object, where: str = "") -> None:
        place = f" at {where}" if where else ""
        super().__init__(
            f"limit {limit!r} exceeded{place}: asked for {asked}, allowed {allowed}; if the model is trusted, "
            f"raise it with Options(limits=Limits({limit}=...))"
        )
        self.limit, self.asked, self.allowed = limit, asked, allowed


class VerifyError(FusibleError):
    """An invariant of the IR does not hold. Attribute: invariant (its number and title)."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


class PassError(FusibleError):
    """A pass failed or broke the graph. Attributes: pass_name, dumps (paths of the graphs written)."""

    def __init__(self, pass_name: str, detail: str, dumps: Sequence[str] = ()) -> None:
        tail = f"; graphs written to {', '.join(dumps)}" if dumps else ""
        super().__init__(f"pass {pass_name!r}: {detail}{tail}")
        self.pass_name, self.dumps = pass_name, tuple(dumps)


class LoweringError(FusibleError):
    """No backend takes a piece of the graph. Attributes: region, reasons (backend -> reason)."""

    def __init__(self, region: str, reasons: Mapping[str, str]) -> None:
        listed = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        super().__init__(f"{region} cannot be lowered ({listed})")
        self.region, self.reasons = region, dict(reasons)


class KernelBuildError(FusibleError):
    """A compiler refused generated source. Attributes: source, command, output."""

    def __init__(self, source: str, command: Sequence[str], output: str) -> None:
        super().__init__(f"building a kernel failed: {' '.join(command)}\n{output}")
        self.source, self.command, self.output = source, tuple(command), output


class SignatureError(FusibleError):
    """An input, or a bound output, does not fit the signature. Attributes: name, expected, got."""

    def __init__(self, name: str, expected: str, got: str, kind: str = "input") -> None:
        super().__init__(f"{kind} {name!r}: expected {expected}, got {got}")
        self.name, self.expected, self.got = name, expected, got


class BoundsError(FusibleError):
    """A dimension lies outside the bounds it was compiled for. Attributes: symbol, value, bounds."""

    def __init__(self, symbol: str, value: int, bounds: tuple[int, int | None]) -> None:
        low, high = bounds
        text = f"[{low}, {'unbounded' if high is None else high}]"
        super().__init__(f"dimension {symbol!r} is {value}, outside the bounds {text} it was compiled for")
        self.symbol, self.value, self.bounds = symbol, value, bounds


class DeviceError(FusibleError):
    """A device is missing, unusable, or failed during a run."""


class ExecutionError(FusibleError):
    """A step of a run refused its data (an index out of range, shapes that do not fit). Attribute: where."""

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(f"{where}: {detail}")
        self.where = where


class ArtifactError(FusibleError):
    """An artifact is damaged, of another version, or needs something that is not installed."""
