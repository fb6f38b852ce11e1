"""Suites that need what the extra `dev` lacks are deselected, not skipped, unless their option is given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ON_DEMAND

ROOT = Path(__file__).resolve().parents[2]

PLANTED = "import pytest\n\ndef test_plain():\n    pass\n" + "".join(
    f"\n@pytest.mark.{marker}\ndef test_{marker}():\n    pass\n" for marker in ON_DEMAND.values()
)


def run(folder: Path, *options: str) -> str:
    """Run the planted tests under the settings of this repository."""
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder)]
    command += ["-p", "tests.conftest", "-p", "no:cacheprovider", *options, str(folder / "test_planted.py")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], *([option] for option in ON_DEMAND), list(ON_DEMAND)], ids=" ".join)
def test_a_suite_runs_when_asked_for(tmp_path, options):
    (tmp_path / "test_planted.py").write_text(PLANTED)
    passed, deselected = 1 + len(options), len(ON_DEMAND) - len(options)
    outcome = f"{passed} passed, {deselected} deselected in" if deselected else f"{passed} passed in"
    assert run(tmp_path, *options).startswith(outcome)
