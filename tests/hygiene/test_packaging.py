"""Wheels, source archives, `pip install .` and `pip install -e .`: links in fusible/ become real files, all of them."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import fusible
from tests.hygiene.sources import PACKAGE_FOLDERS, ROOT, code_files, copy_tree

pytestmark = pytest.mark.slow

REPORT = """
import fusible, fusible.cli, fusible.kernels, fusible.runtime
print(fusible.__version__, fusible.__file__, fusible.kernels.__file__)
"""


def expected_files(root: Path) -> set[str]:
    """Return the names, as installed, of every file of code in the packages."""
    names = (path.relative_to(root).as_posix() for path in code_files(root, PACKAGE_FOLDERS))
    return {name if name.startswith("fusible/") else f"fusible/{name}" for name in names} | {"fusible/py.typed"}


def clean_environment(**added: str) -> dict[str, str]:
    """Return the environment without what tells Python and pip where to look or what to do."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    return kept | added


def run(*command: Path | str, folder: Path, **added: str) -> str:
    """Run a command in a folder, in the clean environment; return what it prints."""
    environment = clean_environment(**added)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment point at this checkout: nothing here may depend on it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "1")


def pip(*arguments: str, folder: Path, python: Path | str = sys.executable, path: str = "") -> None:
    """Call pip without the network; `path` lends packages (setuptools) to an environment that has none."""
    command = [sys.executable, "-m", "pip", "--python", str(python), *arguments, "--no-deps", "--no-build-isolation"]
    run(*command, folder=folder, **({"PYTHONPATH": path} if path else {}))


def fresh_environment(folder: Path) -> Path:
    """Make a virtual environment that sees the installed dependencies but not the checkout; return its Python."""
    venv.create(folder, with_pip=False)
    inside = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    Path(inside, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def imported_from(python: Path, folder: Path) -> list[str]:
    """Import the package elsewhere than in a checkout; return its version and the files it came from."""
    return run(python, "-c", REPORT, folder=folder).split()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources to build in: a build writes next to them."""
    return copy_tree(tmp_path_factory.mktemp("packaging") / "checkout")


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    """Return a wheel built from the copy."""
    folder = checkout.parent / "wheels"
    pip("wheel", str(checkout), "--wheel-dir", str(folder), folder=checkout.parent)
    return next(folder.glob("fusible-*.whl"))


def test_a_wheel_holds_every_file_as_a_real_file(checkout: Path, wheel: Path) -> None:
    expected = expected_files(checkout)
    with zipfile.ZipFile(wheel) as archive:
        held = {entry.filename for entry in archive.infolist()}
        links = [entry.filename for entry in archive.infolist() if entry.external_attr >> 28 == 0xA]
        for name in sorted(expected - {"fusible/py.typed"}):
            assert archive.read(name) == (checkout / name).read_bytes(), name
    assert expected <= held
    assert links == []
    assert {name.split("/")[0] for name in held} == {"fusible", wheel.name.split("-py3")[0] + ".dist-info"}


def test_an_installed_wheel_is_imported_from_its_own_files(wheel: Path, tmp_path: Path) -> None:
    python = fresh_environment(tmp_path / "env")
    pip("install", str(wheel), folder=tmp_path, python=python)
    number, package, kernels = imported_from(python, tmp_path)
    assert number == version("fusible")
    assert Path(kernels).parent == Path(package).parent / "kernels"
    assert Path(package).is_relative_to(tmp_path / "env")


def test_pip_install_of_a_folder(checkout: Path, tmp_path: Path) -> None:
    python = fresh_environment(tmp_path / "env")
    pip("install", str(checkout), folder=tmp_path, python=python, path=sysconfig.get_path("purelib"))
    assert Path(imported_from(python, tmp_path)[1]).is_relative_to(tmp_path / "env")


def test_pip_install_editable_follows_the_sources(tmp_path: Path) -> None:
    python, checkout = fresh_environment(tmp_path / "env"), copy_tree(tmp_path / "checkout")
    pip("install", "-e", str(checkout), folder=tmp_path, python=python, path=sysconfig.get_path("purelib"))
    _, package, kernels = imported_from(python, tmp_path)
    assert Path(package) == checkout / "fusible" / "__init__.py"
    assert Path(kernels).resolve() == (checkout / "kernels" / "__init__.py").resolve()
    (checkout / "kernels" / "added_later.py").write_text("")
    run(python, "-c", "import fusible.kernels.added_later", folder=tmp_path)


def test_a_wheel_built_from_the_source_archive_is_the_same(wheel: Path, tmp_path: Path) -> None:
    checkout = copy_tree(tmp_path / "checkout")
    build = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    run(sys.executable, "-c", build, str(tmp_path), folder=checkout)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    pip("wheel", str(next(tmp_path.glob("fusible-*/"))), "--wheel-dir", str(tmp_path), folder=tmp_path)
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as second:
        assert set(first.namelist()) == set(second.namelist())
        assert all(first.read(name) == second.read(name) for name in first.namelist() if name.startswith("fusible/"))


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert version("fusible") == project["version"] == fusible.__version__
