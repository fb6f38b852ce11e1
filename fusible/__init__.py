"""Fusible: compile ONNX models to fused executables, and see, check and change what the compiler does.

Importing this package imports what loads and runs artifacts, which needs numpy and ml_dtypes only: `fusible.load` finds
it there. The compiler, and with it onnx, is imported when it is first used.
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
from fusible.runtime.artifact import load_artifact as load
from fusible.runtime.executable import Executable
from fusible.runtime.session import Session
from fusible.runtime.signature import TensorSpec
from fusible.version import __version__

if TYPE_CHECKING:
    from fusible.compiler.api import compile, import_graph
    from fusible.compiler.extend import register_kernel, register_op
    from fusible.compiler.options import Limits, Options
    from fusible.compiler.pipeline import pipeline
    from fusible.passes.exactness import Exactness

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
    "Limits": ("fusible.compiler.options", "Limits"),
    "Options": ("fusible.compiler.options", "Options"),
    "compile": ("fusible.compiler.api", "compile"),
    "import_graph": ("fusible.compiler.api", "import_graph"),
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
