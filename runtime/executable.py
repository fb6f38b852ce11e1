"""An executable: signature, kernels, constants and plan. Immutable; threads may share it."""

from __future__ import annotations

import linecache
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from fusible.errors import ArtifactError, UsageError
from fusible.runtime.native.program import Program
from fusible.runtime.plan import If, Loop, Plan
from fusible.runtime.report import Report
from fusible.runtime.session import RunLimits, Session
from fusible.runtime.signature import TensorSpec

if TYPE_CHECKING:
    from fusible.runtime.devices.program import DeviceProgram
    from fusible.runtime.devices.session import DeviceSession

__all__ = ["CustomKernel", "Executable"]


AnySession: TypeAlias = "Session | DeviceSession"
"""What runs an executable."""


class CustomKernel(NamedTuple):
    """A kernel that lives outside Fusible: `module:qualname` and the version it was compiled against."""

    path: str
    version: int = 1


@dataclass(frozen=True, eq=False)
class Executable:
    """A compiled model. Call it, or `run` it by name; both may happen in several threads at once."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    plan: Plan
    constants: tuple[np.ndarray, ...]
    source: str  # the generated Python module that holds the kernels
    target: str = "numpy"
    limits: RunLimits = field(default_factory=RunLimits)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    custom: tuple[CustomKernel, ...] = ()
    made_report: Report | Callable[[], Report] = field(default_factory=Report)  # what gives `report`
    functions: tuple[Callable[..., Any], ...] = ()  # the custom kernels themselves, in the order of `custom`
    program: Program | None = None  # native code, if the target has some
    device: DeviceProgram | None = None  # kernels on a device, for the targets that have one

    def __post_init__(self) -> None:
        # Beside native code there are few Python kernels, and what they import takes longer than the rest of loading:
        # their module waits until the first of them is called.
        object.__setattr__(self, "_kernels", {} if self.program is not None else self._python_kernels())
        object.__setattr__(self, "_constant_numbers", _constant_numbers(self.plan))
        object.__setattr__(self, "_idle", deque[AnySession]())

    @property
    def report(self) -> Report:
        """What the compilation did. Raises ArtifactError if it comes out of a damaged artifact."""
        if not isinstance(self.made_report, Report):
            object.__setattr__(self, "made_report", self.made_report())
        assert isinstance(self.made_report, Report)
        return self.made_report

    @property
    def sources(self) -> dict[str, str]:
        """The generated code by file name: Triton or C of kernels, and the Python module of those that call NumPy."""
        native = {} if self.program is None else dict(self.program.code.sources)
        device = {} if self.device is None else self.device.code.sources
        return native | device | {"kernels.py": self.source}

    def kernel(self, name: str) -> Callable[..., Any]:
        """A function of the generated module or of the native library."""
        kernels: dict[str, Callable[..., Any]] = self._kernels  # type: ignore[attr-defined]
        if name not in kernels:
            if self.program is not None and name in self.program.names:
                kernels[name] = self.program.kernel(name)
            else:
                kernels.update(self._python_kernels())
        if name not in kernels:
            raise ArtifactError(f"the plan names the kernel {name[:80]!r}, which is not there: compile the model again")
        return kernels[name]

    def _python_kernels(self) -> dict[str, Any]:
        return _load_module(self.source, {f"custom_{n}": f for n, f in enumerate(self.functions)})

    def is_native(self, name: str) -> bool:
        """True for a function of the native library."""
        return self.program is not None and name in self.program.names

    def constants_of(self, plan: Plan) -> Iterator[tuple[int, np.ndarray]]:
        """(value number, array) for each constant of this plan or one of its sub-plans."""
        numbers: list[tuple[int, int]] = self._constant_numbers[id(plan)]  # type: ignore[attr-defined]
        return ((number, self.constants[index]) for number, index in numbers)

    def session(self) -> AnySession:
        """A session with buffers of its own, on the device if the target has one."""
        if self.device is None:
            return Session(self)
        from fusible.runtime.devices.session import DeviceSession  # noqa: PLC0415 - other targets do not need it

        return DeviceSession(self)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Compute all outputs by name. Thread-safe: each concurrent run uses a session of its own.

        inputs: arrays by input name (lists for sequences, None for empty optionals). The results belong to the caller.
        Raises SignatureError, BoundsError, LimitExceeded, ExecutionError.
        """
        idle: deque[AnySession] = self._idle  # type: ignore[attr-defined]
        try:
            session = idle.pop()
        except IndexError:
            session = self.session()
        try:
            return session.run(inputs)
        finally:
            idle.append(session)

    def __call__(self, *arrays: Any) -> tuple[Any, ...]:
        """Positional call in graph order; always a tuple."""
        if len(arrays) != len(self.inputs):
            names = ", ".join(s.name for s in self.inputs)
            raise UsageError(f"the model takes {len(self.inputs)} inputs ({names}), got {len(arrays)}")
        results = self.run({spec.name: array for spec, array in zip(self.inputs, arrays, strict=True)})
        return tuple(results[spec.name] for spec in self.outputs)

    def profile(self, inputs: Mapping[str, Any], repeat: int = 3) -> list[dict[str, Any]]:
        """Time each step in a fresh session (see `Session.profile`)."""
        return self.session().profile(inputs, repeat)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the artifact: one file that `fusible.load` reads with nothing but numpy and ml_dtypes installed.

        Raises ArtifactError if a custom kernel cannot be found again by its module and name.
        """
        from fusible.runtime.artifact import save_artifact  # noqa: PLC0415 - it imports this module

        save_artifact(self, path)

    def save_c(self, folder: str | PathLike[str], name: str = "model") -> None:
        """Write the model as a C library that needs no Python: NAME.h, fusible.h, libNAME.so, NAME.weights, src/.

        Raises LoweringError naming the steps that call NumPy, DeviceError (no C compiler), KernelBuildError and
        UsageError.
        """
        from fusible.runtime.native.export_c import save_c  # noqa: PLC0415 - running needs none of it

        save_c(self, Path(folder), name)

    def __repr__(self) -> str:
        ins, outs = ", ".join(map(str, self.inputs)), ", ".join(map(str, self.outputs))
        return f"<Executable for {self.target}: ({ins}) -> ({outs})>"


def _load_module(source: str, names: Mapping[str, Any]) -> dict[str, Any]:
    """Execute the generated module; its lines are registered so that tracebacks and debuggers show them."""
    name = f"<fusible kernels {hash(source) & 0xFFFFFFFFFFFF:012x}>"
    module = types.ModuleType("fusible_generated")
    module.__dict__.update(names)
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    try:
        # The source is ours, or comes from an artifact, which is code that its user trusts.
        exec(compile(source, name, "exec"), module.__dict__)  # noqa: S102
    except ImportError as error:
        raise ArtifactError(f"a kernel cannot be imported: {error}; install what provides it") from error
    return module.__dict__


def _constant_numbers(plan: Plan) -> dict[int, list[tuple[int, int]]]:
    found = {id(plan): [(n, v.index) for n, v in enumerate(plan.values) if v.kind == "constant"]}
    for step in plan.steps:
        for inner in _sub_plans(step):
            found.update(_constant_numbers(inner))
    return found


def _sub_plans(step: object) -> Sequence[Plan]:
    match step:
        case If(then=then, otherwise=otherwise):
            return (then, otherwise)
        case Loop(body=body):
            return (body,)
    return ()
