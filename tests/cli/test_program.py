"""How the program ends: exit codes, messages, no tracebacks."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from fusible.version import __version__
from tests.cli.conftest import Command

COMMANDS = ("compile", "run", "export-c", "explain", "check", "verify", "ops", "doctor")


def process(*words: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own."""
    line = [sys.executable, "-m", "fusible", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_version(command: Command) -> None:
    assert command("--version").out == f"{__version__}\n"


def test_help_names_every_command(command: Command) -> None:
    result = command("--help")
    assert result.code == 0
    assert all(name in result.out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command: Command, name: str) -> None:
    result = command(name, "--help")
    assert result.code == 0
    assert "--json" in result.out


@pytest.mark.parametrize(
    "words",
    [
        ("explode",),
        ("run",),
        ("run", "--no-such-option"),
        ("compile", "model.onnx"),
        ("check", "no/such/file.onnx"),
        ("run", "no/such/file.onnx"),
        ("verify", "no/such/file.onnx", "--against", "guesswork"),
    ],
)
def test_wrong_usage_is_2(command: Command, words: tuple[str, ...]) -> None:
    result = command(*words)
    assert result.code == 2
    assert result.out == ""
    assert "Traceback" not in result.err


@pytest.mark.parametrize("name", ["compile", "run", "check", "verify"])
@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"FUSIBLE\n", b"FUSIBLE\n\x01\x00\x00\x00\xff\xff"])
def test_a_broken_file_is_1(command: Command, tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "broken"
    path.write_bytes(content)
    result = command(name, path, *(("-o", tmp_path / "out") if name == "compile" else ()))
    assert result.code == 1
    assert result.err.startswith("fusible: ")
    assert "Traceback" not in result.err
    assert not (tmp_path / "out").exists()


def test_errors_are_json_if_asked(command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    result = command("check", tmp_path / "empty.onnx", "--json")
    assert result.code == 1
    assert result.json["error"]["kind"] == "InvalidModel"
    assert result.json["error"]["message"] in result.err


def test_names_of_a_model_do_not_steer_the_terminal(command: Command, strange: Path) -> None:
    for words in (("check", strange), ("run", strange)):
        result = command(*words)
        assert result.code == 1
        assert "first" in result.out + result.err
        assert "\x1b" not in result.out + result.err


def test_the_module_is_the_command(model: Path) -> None:
    done = process("run", model)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[0] == "name"


def test_a_reader_that_leaves_is_no_traceback() -> None:
    line = [sys.executable, "-m", "fusible", "ops"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert b"Traceback" not in running.stderr.read()


def test_starting_is_light() -> None:
    heavy = "[name for name in ('onnx', 'onnxruntime', 'torch') if name in sys.modules]"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, fusible.cli; print({heavy})"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_progress_shows_on_a_terminal_only(model: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "fusible", "run", str(model)]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True, env=environment)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "compiling small.onnx" in shown
    assert "compiling" not in done.stdout
    assert process("run", model).stderr == ""
