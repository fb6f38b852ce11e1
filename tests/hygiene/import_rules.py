"""Bounds on imports: no bare top-level names, no pickle, and a list of outside packages for each part of the tree.

Layers among our own modules are contracts in pyproject.toml; here stands what a contract cannot express, that
*nothing but* the listed packages is imported, wherever in a file the import stands.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.hygiene.sources import CODE_FOLDERS, PACKAGE_FOLDERS, parse, python_files, where

BARE = set(PACKAGE_FOLDERS) - {"fusible"}
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}

# The longest prefix of a file's path that stands here decides. The standard library and `fusible` are always allowed.
ALLOWED: dict[str, set[str]] = {
    "fusible": set(),
    "fusible/cli": {"ml_dtypes", "numpy", "onnx", "onnxruntime", "rich", "typer"},
    "fusible/gpu_selftest": {"numpy", "onnx"},
    "fusible/gpu_selftest/kernels": {"numpy", "onnx", "torch"},
    "fusible/gpu_selftest/peers": {"numpy", "onnx", "onnxruntime", "torch"},
    "fusible/onnx_backend": {"numpy", "onnx"},
    "kernels": {"ml_dtypes", "numpy"},
    "kernels/triton": {"triton"},
    "runtime": {"ml_dtypes", "numpy"},
    "runtime/devices/cuda": {"ml_dtypes", "numpy", "torch"},
    "runtime/devices/torch_calls": {"torch"},
    "compiler": {"ml_dtypes", "numpy"},
    "compiler/api": {"onnx"},
    "compiler/backends/triton": {"ml_dtypes", "numpy", "triton"},
    "compiler/frontend": {"google", "ml_dtypes", "numpy", "onnx"},
    "passes": {"ml_dtypes", "numpy"},
    "benchmarks": {"ml_dtypes", "numpy", "onnx", "onnxruntime", "rich"},
    "benchmarks/kernels": {"ml_dtypes", "numpy", "onnx", "onnxruntime", "torch"},
    "benchmarks/zoo/architectures": {"numpy", "torch", "transformers"},
    "benchmarks/zoo/to_onnx": {"google", "onnx", "torch"},
    "benchmarks/zoo/torch_modules": {"torch"},
    "benchmarks/peers": {"numpy", "onnx", "onnxruntime", "openvino", "torch"},
    "benchmarks/inductor_counts": {"torch"},
    "benchmarks/node_counts": {"onnx", "onnxslim"},
    "benchmarks/report": {"rich"},
    "benchmarks/report/plots": {"matplotlib", "numpy"},
    "benchmarks/report/svg": {"matplotlib"},
}


def bare_imports(root: Path) -> list[str]:
    """Name the imports of `compiler`, `kernels`... without `fusible.` before them, and relative ones."""
    found = []
    for path in python_files(root, CODE_FOLDERS):
        for line, module in imported_modules(parse(path)):
            first = module.split(".")[0]
            if first in BARE:
                found.append(f"{where(root, path, line)}: import it as fusible.{module}")
            elif first == "":
                found.append(f"{where(root, path, line)}: write the full name fusible....")
    return found


def imports_of_the_root(root: Path) -> list[str]:
    """Name the inner modules that import from `fusible`: it imports the runtime, its lazy names hide layers."""
    return [
        f"{where(root, path, line)}: import from the module that defines it"
        for path in python_files(root, ("compiler", "kernels", "passes", "runtime"))
        for line, module in imported_modules(parse(path))
        if module == "fusible"
    ]


def pickle_imports(root: Path) -> list[str]:
    """Name the imports of pickle and its like: artifacts and caches are data."""
    return [
        f"{where(root, path, line)}: no {module}"
        for path in python_files(root, CODE_FOLDERS)
        for line, module in imported_modules(parse(path))
        if module.split(".")[0] in PICKLES
    ]


def foreign_imports(root: Path) -> list[str]:
    """Name the imports of outside packages that a part of the tree may not use."""
    found = []
    for path in python_files(root, PACKAGE_FOLDERS):
        allowed = _allowed(path.relative_to(root).as_posix())
        for line, module in imported_modules(parse(path)):
            first = module.split(".")[0]
            if first and first not in allowed | BARE | {"fusible"} | sys.stdlib_module_names:
                listed = ", ".join(sorted(allowed)) or "none"
                found.append(f"{where(root, path, line)}: {first} is not among the packages allowed here ({listed})")
    return found


@cache
def imported_modules(tree: ast.Module) -> tuple[tuple[int, str], ...]:
    """Return line and full module name of every import; a relative one has an empty first part."""
    return tuple(_imported_modules(tree))


def _imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, level=level):
                yield node.lineno, "." * level + (module or "")
            case ast.Call(func=ast.Name(id="__import__") | ast.Attribute(attr="import_module"), args=[first, *_]):
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield node.lineno, first.value


def _allowed(name: str) -> set[str]:
    prefixes = [prefix for prefix in ALLOWED if name == f"{prefix}.py" or name.startswith(f"{prefix}/")]
    return ALLOWED[max(prefixes, key=len)]
