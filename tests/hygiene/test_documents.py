"""The code in README.md and docs/ runs, and its commands exist."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

from tests.hygiene.documents import blocks, commands, documents, program, stale_inclusions
from tests.hygiene.sources import ROOT

EXAMPLES = sorted((ROOT / "docs" / "examples").rglob("*.py"))


def execute(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder of its own, in a process of its own: examples register ops."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(path)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def unknown_words(command: Sequence[str], app: typer.Typer) -> list[str]:
    """Return the subcommand or options of a command line that the program does not have."""
    group = typer.main.get_command(app)
    known = getattr(group, "commands", {})
    if not command or command[0].startswith("-"):
        return []
    if command[0] not in known:
        return [command[0]]
    options = {name for parameter in known[command[0]].params for name in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in command[1:] if word.startswith("-") and word.split("=")[0] not in options | {"--help"}]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(path: Path, tmp_path: Path) -> None:
    result = execute(path, tmp_path)
    assert result.returncode == 0, result.stderr


def test_blocks_of_documents_run(tmp_path: Path) -> None:
    for document in documents(ROOT):
        text = program(document.read_text())
        if text.strip():
            folder = tmp_path / document.stem
            folder.mkdir()
            (folder / "example.py").write_text(text)
            result = execute(folder / "example.py", folder)
            assert result.returncode == 0, f"{document.relative_to(ROOT)}: {result.stderr}"


def test_blocks_show_the_files_they_name() -> None:
    assert stale_inclusions(ROOT) == []


def test_commands_of_documents_exist() -> None:
    from fusible.cli import app

    unknown = {
        f"{path.relative_to(ROOT)}: fusible {' '.join(command)}": unknown_words(command, app)
        for path in documents(ROOT)
        for command in commands(path.read_text())
    }
    assert {line: words for line, words in unknown.items() if words} == {}


def test_a_planted_wrong_block_is_found(tmp_path: Path) -> None:
    text = "# Title\n\n```python\nx = 1\n```\n\ntext\n\n```python\nassert x == 2\n```\n"
    (tmp_path / "example.py").write_text(program(text))
    result = execute(tmp_path / "example.py", tmp_path)
    assert result.returncode == 1
    assert 'example.py", line 10' in result.stderr


def test_a_planted_stale_inclusion_is_found(tree: Path) -> None:
    path = tree / "docs" / "planted.md"
    (tree / "docs" / "examples" / "planted.py").write_text("x = 1\ny = 2\nz = 3\n")
    path.write_text("<!-- file: docs/examples/planted.py -->\n```python\ny = 2\nz = 3\n```\n")
    fresh = stale_inclusions(tree)
    path.write_text("<!-- file: docs/examples/planted.py -->\n```python\ny = 3\n```\n")
    stale = stale_inclusions(tree)
    (tree / "docs" / "examples" / "planted.py").unlink()
    gone = stale_inclusions(tree)
    path.unlink()
    assert (fresh, len(stale), len(gone)) == ([], 1, 1)


def test_a_planted_unknown_command_is_found() -> None:
    app = typer.Typer()

    @app.command()
    def work(deep: bool = False) -> None:
        del deep

    @app.command()
    def rest() -> None:
        pass

    text = "```sh\nfusible work --deep   # comment\nfusible work \\\n    --shallow\npython -m fusible play\nls\n```\n"
    assert [unknown_words(command, app) for command in commands(text)] == [[], ["--shallow"], ["play"]]


def test_blocks_know_their_place() -> None:
    found = list(blocks("a\n```sh\nls\n```\n\n<!-- file: x.py -->\n\n  ```python\n  y\n  ```\n"))
    assert [(block.language, block.text, block.line, block.file) for block in found] == [
        ("sh", "ls\n", 3, None),
        ("python", "y\n", 9, "x.py"),
    ]
