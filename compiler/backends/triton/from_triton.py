"""A `@triton.jit` function becomes TTIR: by Triton's own front end and passes, with no GPU and no driver.

The only module that imports triton, and only when it is asked for a kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fusible.errors import DeviceError, KernelBuildError, UsageError

__all__ = ["SignatureType", "told", "ttir_of"]

SignatureType = str | tuple[str, ...]
"""A parameter's type in Triton's spelling, such as `*fp16`, `i32`, `fp32`; a tuple for a tuple of parameters."""

_ALIGNED = 16


def ttir_of(
    function: object,
    signature: Mapping[str, SignatureType],
    constants: Mapping[str, object],
    *,
    divisible: Collection[str] = (),
    capability: int = 90,
    assertions: bool = False,
) -> str:
    """Return the TTIR of a `@triton.jit` function after Triton's TTIR passes, with source locations.

    signature: the type of each parameter that is no constant; constants: the values of the others, functions for
    epilogues included. divisible: the parameters whose value or address is a multiple of 16. capability: the GPU whose
    features the front end may use, as in sm_90. assertions: keep `tl.device_assert`, which is dropped otherwise.

    Raises DeviceError if Triton is not installed, UsageError for names that are not the kernel's parameters,
    KernelBuildError with what Triton says if it refuses the kernel.
    """
    try:
        from triton._C.libtriton import ir  # type: ignore[attr-defined]  # noqa: PLC0415 - optional, and slow to import
        from triton.backends.compiler import GPUTarget  # noqa: PLC0415
        from triton.compiler import ASTSource, make_backend  # noqa: PLC0415
        from triton.compiler.errors import CompilationError  # noqa: PLC0415
        from triton.runtime.jit import JITFunction  # noqa: PLC0415
    except ImportError as error:
        raise DeviceError("Triton kernels need Triton: pip install 'fusible[gpu]'") from error
    if not isinstance(function, JITFunction):
        raise UsageError(
            f"{function!r} is not a compiled Triton kernel: decorate it with @triton.jit, without TRITON_INTERPRET"
        )
    names: list[str] = list(function.arg_names)
    _check_names(function.__name__, names, signature, constants, divisible)
    kinds = {name: "constexpr" if name in constants else signature[name] for name in names}
    aligned = {(names.index(name),): [["tt.divisibility", _ALIGNED]] for name in divisible}
    source = ASTSource(function, kinds, constexprs={(names.index(k),): v for k, v in constants.items()}, attrs=aligned)
    backend: Any = make_backend(GPUTarget("cuda", capability, 32))
    options = backend.parse_options({"debug": assertions, "sanitize_overflow": False})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    generators, modules = backend.get_codegen_implementation(options), backend.get_module_map()
    try:
        module = source.make_ir(GPUTarget("cuda", capability, 32), options, generators, modules, context)
        return str(backend.make_ttir(module, {}, options, capability))
    except (CompilationError, RuntimeError) as error:
        raise KernelBuildError(function.__name__, ("triton", function.__name__), told(error)) from error


def told(error: BaseException) -> str:
    """What Triton says: of a function that the kernel calls, the innermost error has the reason."""
    told = [str(error)]
    while error.__cause__ is not None:
        error = error.__cause__
        told.append(str(error))
    return "\n".join(told)


def _check_names(
    kernel: str,
    names: list[str],
    signature: Mapping[str, SignatureType],
    constants: Mapping[str, object],
    divisible: Collection[str],
) -> None:
    if both := sorted(set(signature) & set(constants)):
        raise UsageError(f"Triton kernel {kernel!r}: {', '.join(both)} cannot be typed and constant at once")
    stated = {*signature, *constants}
    if stated != set(names):
        missing = ", ".join(name for name in names if name not in stated) or "none"
        unknown = ", ".join(sorted(stated - set(names))) or "none"
        raise UsageError(f"Triton kernel {kernel!r}: parameters without type or value: {missing}; unknown: {unknown}")
    if wrong := sorted(set(divisible) - set(signature)):
        raise UsageError(
            f"Triton kernel {kernel!r}: {', '.join(wrong)} cannot be divisible, being no parameters of a run"
        )
