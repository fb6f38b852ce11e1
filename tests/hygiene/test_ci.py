"""`.ci/run` runs the README's own commands and fails when any of them, or any linter, fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.hygiene.sources import ROOT

LINTERS = ("ruff", "mypy", "lint-imports")
MAIN_JOB = "mkdir -p .venv/bin && echo main >> log"


def run_ci(folder: Path, readme: str, failing: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script in a folder that has only a README and stand-ins for the linters, of which one may fail."""
    (folder / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci" / "run", folder / ".ci" / "run")
    (folder / "README.md").write_text(readme)
    for name in LINTERS:
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> log\nexit {int(name == failing)}\n")
        (folder / name).chmod(0o755)
    return subprocess.run(["bash", ".ci/run"], cwd=folder, capture_output=True, text=True, check=False)


def readme(main_job: str = MAIN_JOB, tests: str = "cp ruff mypy lint-imports .venv/bin && echo tests >> log") -> str:
    """Return a README with the two marked blocks, and one that is not marked."""
    other = "```sh\necho other >> log\n```\n"
    marked = [f"<!-- ci: {name} -->\n```sh\n{text}\n```\n" for name, text in (("main job", main_job), ("tests", tests))]
    return other.join(["", *marked, ""])


def test_the_script_is_executable() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_it_runs_the_marked_blocks_then_the_linters(tmp_path: Path) -> None:
    result = run_ci(tmp_path, readme())
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "log").read_text().split() == ["main", "tests", *LINTERS]
    assert not (tmp_path / ".venv").exists()


def test_the_own_readme_has_both_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "<!-- ci: main job -->\n```sh\npython3 -m venv .venv && " in text
    assert "<!-- ci: tests -->\n```sh\npython3 -m venv .venv && " in text


@pytest.mark.parametrize("name", LINTERS)
def test_a_failing_linter_fails_the_run(tmp_path: Path, name: str) -> None:
    assert run_ci(tmp_path, readme(), failing=name).returncode == 1


def test_failing_tests_fail_the_run_after_the_linters(tmp_path: Path) -> None:
    result = run_ci(tmp_path, readme(tests="cp ruff mypy lint-imports .venv/bin && echo '1 failed in 1.00s' && exit 1"))
    assert result.returncode == 1
    assert "failed: tests\n" in result.stdout
    assert (tmp_path / "log").read_text().split() == ["main", *LINTERS]


def test_a_failing_main_job_fails_the_run(tmp_path: Path) -> None:
    assert run_ci(tmp_path, readme(main_job=f"{MAIN_JOB}; false")).returncode == 1


@pytest.mark.parametrize("text", ["", "<!-- ci: tests -->\n```sh\ntrue\n```\n"])
def test_a_readme_without_the_commands_fails_the_run(tmp_path: Path, text: str) -> None:
    assert run_ci(tmp_path, text).returncode == 1
