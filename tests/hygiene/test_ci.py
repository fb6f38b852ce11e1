"""`.ci/run` runs the README's own commands, and fails when any of them, the tests in a browser or a linter fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.hygiene.sources import ROOT

LINTERS = ("ruff", "mypy", "lint-imports")
TOOLS = ("pytest", "pip", *LINTERS)
RUNS = ("pytest", "pip", "pytest", *LINTERS)  # in a browser, then with PyTorch
MAIN_JOB = "mkdir -p .venv/bin && echo main >> log"


def run_ci(
    folder: Path, readme: str, failing: str = "", *, chromium: bool = True, root: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the script in a folder that has only a README and stand-ins for the tools, of which one may fail.

    Its PATH has stand-ins for the package manager and for `id`, and for Chromium if it is there; else what `.ci/run`
    needs of the real ones.
    """
    (folder / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci" / "run", folder / ".ci" / "run")
    (folder / "README.md").write_text(readme)
    for name in TOOLS:
        stand_in(folder / name, f"echo {name} >> log\nexit {int(name == failing)}")
    system = folder / "system"
    system.mkdir()
    for name in ("bash", "sh", "dirname", "awk", "sed", "rm", "mkdir", "cp", "cat"):
        (system / name).symlink_to(shutil.which(name) or name)
    stand_in(system / "id", f"echo {0 if root else 1000}")
    stand_in(system / "apt-get", f"echo apt-get-$1 >> log\nexit {int(failing == 'apt-get')}")
    if chromium:
        stand_in(system / "chromium", "exit 1")
    environment = {"PATH": str(system)}
    command = [str(system / "bash"), ".ci/run"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def stand_in(path: Path, script: str) -> None:
    """Write a program of the shell."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def readme(main_job: str = MAIN_JOB, tests: str = f"cp {' '.join(TOOLS)} .venv/bin && echo tests >> log") -> str:
    """Return a README with the two marked blocks, and one that is not marked."""
    other = "```sh\necho other >> log\n```\n"
    marked = [f"<!-- ci: {name} -->\n```sh\n{text}\n```\n" for name, text in (("main job", main_job), ("tests", tests))]
    return other.join(["", *marked, ""])


def test_the_script_is_executable() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_it_runs_the_marked_blocks_then_the_browser_and_the_linters(tmp_path: Path) -> None:
    result = run_ci(tmp_path, readme())
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "log").read_text().split() == ["main", "tests", *RUNS]
    assert not (tmp_path / ".venv").exists()


def test_the_own_readme_has_both_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "<!-- ci: main job -->\n```sh\npython3 -m venv .venv && " in text
    assert "<!-- ci: tests -->\n```sh\npython3 -m venv .venv && " in text


@pytest.mark.parametrize("name", TOOLS)
def test_a_failing_tool_fails_the_run(tmp_path: Path, name: str) -> None:
    assert run_ci(tmp_path, readme(), failing=name).returncode == 1


def test_failing_tests_fail_the_run_after_the_linters(tmp_path: Path) -> None:
    result = run_ci(tmp_path, readme(tests=f"cp {' '.join(TOOLS)} .venv/bin && echo '1 failed in 1.00s' && exit 1"))
    assert result.returncode == 1
    assert "failed: tests\n" in result.stdout
    assert (tmp_path / "log").read_text().split() == ["main", *RUNS]


def test_chromium_is_installed_where_it_is_missing(tmp_path: Path) -> None:
    result = run_ci(tmp_path, readme(), chromium=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "log").read_text().split() == ["main", "tests", "apt-get-update", "apt-get-install", *RUNS]


def test_nothing_is_installed_without_the_right_to(tmp_path: Path) -> None:
    run_ci(tmp_path, readme(), chromium=False, root=False)
    assert (tmp_path / "log").read_text().split() == ["main", "tests", *RUNS]


def test_an_installation_that_fails_fails_the_run(tmp_path: Path) -> None:
    result = run_ci(tmp_path, readme(), failing="apt-get", chromium=False)
    assert result.returncode == 1
    assert "failed: browser\n" in result.stdout
    assert (tmp_path / "log").read_text().split() == ["main", "tests", "apt-get-update", *RUNS[1:]]


def test_a_failing_main_job_fails_the_run(tmp_path: Path) -> None:
    assert run_ci(tmp_path, readme(main_job=f"{MAIN_JOB}; false")).returncode == 1


@pytest.mark.parametrize("text", ["", "<!-- ci: tests -->\n```sh\ntrue\n```\n"])
def test_a_readme_without_the_commands_fails_the_run(tmp_path: Path, text: str) -> None:
    assert run_ci(tmp_path, text).returncode == 1
