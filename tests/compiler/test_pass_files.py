"""Passes from files and from entry points of packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from fusible.compiler.ir.graph import Graph
from fusible.compiler.pass_files import load_entry_points, load_pass_file
from fusible.errors import UsageError
from fusible.passes.base import Pass, PassContext, Phase
from fusible.passes.manager import Pipeline

GOOD = '''
"""A pass that does nothing."""

from fusible.passes.base import Pass


class Nothing(Pass):
    name = "nothing"

    def run(self, graph, context):
        return 0


def register(pipeline):
    return pipeline.insert(Nothing(), after="canonical")
'''


class First(Pass):
    """A pass that is there already."""

    name = "first"

    def run(self, graph: Graph, context: PassContext) -> int:
        """Change nothing."""
        return 0


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    """Return a pipeline with one pass; forget the modules that a test loads."""
    before = set(sys.modules)
    yield Pipeline.of({Phase.CANONICAL: [First()]})
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, text: str, name: str = "planted_passes.py") -> Path:
    """Write a pass file."""
    path = folder / name
    path.write_text(text)
    return path


def register_second(pipeline: Pipeline) -> Pipeline:
    """Add another pass: what an entry point names."""
    second = First()
    second.name = "second"
    return pipeline.insert(second, after="first")


def test_a_file_extends_the_pipeline(tmp_path: Path, pipeline: Pipeline) -> None:
    path = write(tmp_path, GOOD)
    assert load_pass_file(path, pipeline).names == ("first", "nothing")
    assert pipeline.names == ("first",)
    assert load_pass_file(path, pipeline).names == ("first", "nothing"), "a second time"
    assert "planted_passes" in sys.modules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "defines no function register"),
        ("def register(pipeline: int) -> None:\n    pass\n", "returns nothing"),
        ("def register(pipeline):\n    return 1\n", "returns int, not a Pipeline"),
        ("def register(pipeline):\n    return 1 / 0\n", "ZeroDivisionError"),
        ("import no_such_module\n", "no_such_module"),
        ("def register(:\n", "SyntaxError"),
        ("def register(pipeline):\n    return pipeline.without('missing')\n", "no pass 'missing'"),
    ],
)
def test_a_bad_file_is_a_usage_error(tmp_path: Path, pipeline: Pipeline, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        load_pass_file(write(tmp_path, text), pipeline)
    assert "planted_passes.py" in str(raised.value)


def test_a_failed_file_may_be_mended(tmp_path: Path, pipeline: Pipeline) -> None:
    path = write(tmp_path, "import no_such_module\n")
    with pytest.raises(UsageError):
        load_pass_file(path, pipeline)
    write(tmp_path, GOOD)
    assert load_pass_file(path, pipeline).names == ("first", "nothing")


def test_a_missing_file(tmp_path: Path, pipeline: Pipeline) -> None:
    with pytest.raises(UsageError, match="no Python file"):
        load_pass_file(tmp_path / "gone.py", pipeline)


def test_a_file_must_not_shadow_a_module(tmp_path: Path, pipeline: Pipeline) -> None:
    with pytest.raises(UsageError, match="loaded already"):
        load_pass_file(write(tmp_path, GOOD, "json.py"), pipeline)


def test_entry_points_apply_in_order_of_their_names(pipeline: Pipeline) -> None:
    point = EntryPoint("b", f"{__name__}:register_second", "fusible.passes")
    assert load_entry_points(pipeline, [point]).names == ("first", "second")
    assert load_entry_points(pipeline, []).names == ("first",)


@pytest.mark.parametrize("value", ["no_such_module:register", f"{__name__}:missing", f"{__name__}:GOOD"])
def test_a_bad_entry_point_is_a_usage_error(pipeline: Pipeline, value: str) -> None:
    with pytest.raises(UsageError, match="entry point x = "):
        load_entry_points(pipeline, [EntryPoint("x", value, "fusible.passes")])
