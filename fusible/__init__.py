"""Fusible: compile ONNX models to fused executables, and see, check and change what the compiler does.

Importing this package imports nothing else; the compiler (and with it onnx) is loaded when it is first used, so that
`fusible.load` and running an artifact need numpy and ml_dtypes only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fusible.errors import (
    ArtifactError,
    BoundsError,
    DeviceError,
    ExecutionError,
    FusibleError,
    InvalidModel,
    KernelBuildError,
    LimitExceeded,
    LoweringError,
    PassError,
    SignatureError,
    UnsupportedOp,
    UsageError,
    VerifyError,
)
from fusible.version import __version__

if TYPE_CHECKING:
    from fusible.compiler.api import compile, import_graph
    from fusible.compiler.extend import register_kernel, register_op
    from fusible.compiler.options import Limits, Options
    from fusible.compiler.pipeline import pipeline
    from fusible.passes.exactness import Exactness
    from fusible.runtime.artifact import load_artifact as load
    from fusible.runtime.executable import Executable
    from fusible.runtime.session import Session
    from fusible.runtime.signature import TensorSpec

__all__ = [
    "ArtifactError",
    "BoundsError",
    "DeviceError",
    "Exactness",
    "Executable",
    "ExecutionError",
    "FusibleError",
    "InvalidModel",
    "KernelBuildError",
    "LimitExceeded",
    "Limits",
    "LoweringError",
    "Options",
    "PassError",
    "Session",
    "SignatureError",
    "TensorSpec",
    "UnsupportedOp",
    "UsageError",
    "VerifyError",
    "__version__",
    "compile",
    "import_graph",
    "load",
    "pipeline",
    "register_kernel",
    "register_op",
]

_LAZY = {
    "Exactness": ("fusible.passes.exactness", "Exactness"),
    "Executable": ("fusible.runtime.executable", "Executable"),
    "Limits": ("fusible.compiler.options", "Limits"),
    "Options": ("fusible.compiler.options", "Options"),
    "Session": ("fusible.runtime.session", "Session"),
    "TensorSpec": ("fusible.runtime.signature", "TensorSpec"),
    "compile": ("fusible.compiler.api", "compile"),
    "import_graph": ("fusible.compiler.api", "import_graph"),
    "load": ("fusible.runtime.artifact", "load_artifact"),
    "pipeline": ("fusible.compiler.pipeline", "pipeline"),
    "register_kernel": ("fusible.compiler.extend", "register_kernel"),
    "register_op": ("fusible.compiler.extend", "register_op"),
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'fusible' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    found = getattr(importlib.import_module(module), attribute)
    globals()[name] = found
    return found
