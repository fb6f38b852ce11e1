"""The public interface is what the documents promise: other people's scripts depend on it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import fusible
from tests.hygiene.sources import ROOT

ERRORS = {
    "ArtifactError",
    "BoundsError",
    "DeviceError",
    "ExecutionError",
    "FusibleError",
    "InvalidModel",
    "KernelBuildError",
    "LimitExceeded",
    "LoweringError",
    "PassError",
    "SignatureError",
    "UnsupportedOp",
    "UsageError",
    "VerifyError",
}
NAMES = ERRORS | {
    "Exactness",
    "Executable",
    "Limits",
    "Options",
    "Session",
    "TensorSpec",
    "__version__",
    "compile",
    "import_graph",
    "load",
    "pipeline",
    "register_kernel",
    "register_op",
}


def parameters(function: object) -> list[str]:
    """Return the parameters of a callable as `name` or `name=default`, with `*` before keyword-only ones."""
    assert callable(function)
    found: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in found:
            found.append("*")
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        found.append(parameter.name + default)
    return found


def undeclared_names(text: str) -> set[str]:
    """Return the difference between `__all__` in the text of a module and the promised names."""
    for node in ast.parse(text).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return set(ast.literal_eval(value)) ^ NAMES
    return NAMES


def test_the_names_are_the_promised_ones() -> None:
    assert undeclared_names((ROOT / "fusible" / "__init__.py").read_text()) == set()
    assert set(fusible.__all__) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_there(name: str) -> None:
    assert getattr(fusible, name) is not None


def test_a_planted_name_is_found(tree: Path) -> None:
    text = (tree / "fusible" / "__init__.py").read_text()
    assert undeclared_names(text) == set()
    assert undeclared_names(text.replace('"compile"', '"compile_"', 1)) == {"compile", "compile_"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = fusible.no_such_name  # type: ignore[attr-defined]


def test_errors_share_one_root() -> None:
    assert all(issubclass(getattr(fusible, name), fusible.FusibleError) for name in ERRORS)


def test_signatures() -> None:
    assert parameters(fusible.compile) == ["model", "target='auto'", "*", "shapes=None", "passes=None", "options=None"]
    assert parameters(fusible.load)[0] == "path"
    assert parameters(fusible.pipeline)[0].partition("=")[0] == "target"


def test_members() -> None:
    fields = {field.name for field in dataclasses.fields(fusible.Executable)}
    assert fields >= {"inputs", "outputs"}
    for name in ("report", "run", "__call__", "session", "save", "profile"):
        assert hasattr(fusible.Executable, name), name
    for name in ("run", "bind", "profile"):
        assert hasattr(fusible.Session, name), name
    assert [field.name for field in dataclasses.fields(fusible.TensorSpec)][:3] == ["name", "dtype", "shape"]


def test_options() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(fusible.Options)}
    del defaults["fold_bytes"], defaults["limits"]
    assert defaults == {
        "threads": None,
        "precision": "fp32",
        "exactness": fusible.Exactness.REASSOCIATING,
        "verify": "off",
        "standalone": False,
        "allow_host": None,
        "also": (),
        "tuning": None,
        "cache_dir": None,
    }


def test_importing_the_package_is_light() -> None:
    heavy = "[name for name in ('onnx', 'google.protobuf', 'rich', 'typer', 'onnxruntime') if name in sys.modules]"
    code = f"import sys, fusible, fusible.runtime, fusible.errors; print({heavy})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
