"""Which compiler is used, and which is refused with what words."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from pathlib import Path

import pytest

from fusible.errors import DeviceError
from fusible.runtime.native.compiler import Compiler, CompilerKind, find_compiler, run_command
from fusible.runtime.native.library import build_library
from fusible.runtime.native.loading import load_library
from tests.runtime.native.conftest import script, wrapped

SOURCE = {"seven.c": '__attribute__((visibility("default"))) int seven(void) { return 7; }\n'}


def without_ziglang(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the wheel seem not installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ziglang" else found(name))


@pytest.mark.parametrize(
    ("there", "expected"),
    [(["clang", "gcc", "cc"], "cc"), (["clang", "gcc"], "gcc"), (["clang"], "clang")],
)
def test_the_order_on_the_path(tmp_path: Path, compiler: Compiler, there: list[str], expected: str) -> None:
    for name in there:
        wrapped(tmp_path / name, compiler, version=f"{name} 1.2\nmore")
    found = find_compiler({"PATH": str(tmp_path)})
    assert found.command == (str(tmp_path / expected),)
    assert (found.version, found.origin) == (f"{expected} 1.2", "PATH")
    assert found.kind is (CompilerKind.CLANG if expected == "clang" else CompilerKind.GCC)


def test_cc_wins_and_may_have_arguments(tmp_path: Path, compiler: Compiler) -> None:
    wrapped(tmp_path / "cc", compiler)
    mine = wrapped(tmp_path / "my cc", compiler, version="mine 3")
    found = find_compiler({"PATH": str(tmp_path), "CC": f"'{mine}' -DA='b c'"})
    assert found.command == (str(mine), "-DA=b c")
    assert (found.version, found.origin) == ("mine 3", "CC")


@pytest.mark.parametrize(
    ("stated", "why"),
    [
        ("no-such-cc", "'no-such-cc', does not work: not found"),
        ("silent", "it does not tell its version"),
        ("refusing", "it cannot build a library: trial.c:1: error: no room"),
        ("lazy", "it cannot build a library: it wrote none"),
        ("'half", "No closing quotation"),
    ],
)
def test_a_cc_that_does_not_work_is_an_error_that_names_it(
    tmp_path: Path, compiler: Compiler, stated: str, why: str
) -> None:
    wrapped(tmp_path / "cc", compiler)
    script(tmp_path / "silent", "exit 1")
    script(tmp_path / "refusing", "[ $1 = --version ] && echo 1 && exit\necho 'trial.c:1: error: no room'; exit 1")
    script(tmp_path / "lazy", "echo lazy 1")
    with pytest.raises(DeviceError, match="unset CC") as caught:
        find_compiler({"PATH": str(tmp_path), "CC": stated})
    assert f"{stated!r}, does not work" in str(caught.value)
    assert why in str(caught.value)


def test_a_compiler_set_to_fast_math_is_refused(compiler: Compiler) -> None:
    stated = " ".join([*compiler.command, "-ffast-math"])
    with pytest.raises(DeviceError, match="breaks NaN and infinity"):
        find_compiler({**os.environ, "CC": stated})


def test_a_broken_one_on_the_path_is_passed_over(tmp_path: Path, compiler: Compiler) -> None:
    script(tmp_path / "cc", "echo cc 1; exit 1")
    wrapped(tmp_path / "clang", compiler)
    assert find_compiler({"PATH": str(tmp_path)}).command == (str(tmp_path / "clang"),)


def test_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ziglang(monkeypatch)
    script(tmp_path / "gcc", "echo gcc 1\n[ $1 = --version ] || { echo 'fatal error: math.h: not there'; exit 1; }")
    with pytest.raises(DeviceError) as caught:
        find_compiler({"PATH": str(tmp_path), "CC": " "})
    assert str(caught.value) == (
        "no C compiler: looked for CC (not set), cc (not found), gcc (it cannot build a library: fatal error: math.h: "
        "not there), clang (not found) and the ziglang wheel (not installed); install a C compiler (Debian: apt-get "
        "install gcc libc6-dev) or `pip install 'fusible[cc]'`"
    )


def test_what_was_missing_may_be_installed(tmp_path: Path, compiler: Compiler) -> None:
    headers = tmp_path / "headers"
    wrapped(tmp_path / "cc", compiler, before=f"[ -e {headers} ] || exit 1")
    environment = {"PATH": str(tmp_path), "CC": "cc"}
    with pytest.raises(DeviceError, match="status 1 and said nothing"):
        find_compiler(environment)
    headers.touch()
    assert find_compiler(environment).command == (str(tmp_path / "cc"),)


def test_a_program_that_changed_is_examined_again(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ziglang(monkeypatch)
    environment = {"PATH": str(tmp_path)}
    wrapped(tmp_path / "cc", compiler, version="first")
    assert find_compiler(environment).version == "first"
    wrapped(tmp_path / "cc", compiler, version="second")
    os.utime(tmp_path / "cc", ns=(1, 1))
    assert find_compiler(environment).version == "second"
    (tmp_path / "cc").unlink()
    with pytest.raises(DeviceError):
        find_compiler(environment)


def fake_ziglang(folder: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package that compiles as the wheel does, by `python -m ziglang cc`, and takes clang's flags."""
    package = folder / "ziglang"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "import os, sys\n"
        "assert sys.argv[1] == 'cc'\n"
        "if sys.argv[2:] == ['--version']:\n"
        "    print('clang version 99'); sys.exit()\n"
        "words = ['-march=native' if w == '-mcpu=native' else w for w in sys.argv[2:] if w != '-fno-sanitize=all']\n"
        f"os.execv({compiler.command[0]!r}, [*{compiler.command!r}, *words])\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_the_ziglang_wheel_is_the_last_resort(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("ziglang") is None:
        fake_ziglang(tmp_path, compiler, monkeypatch)
    found = find_compiler({"PATH": str(tmp_path / "empty")})
    assert found.kind is CompilerKind.ZIG
    assert found.command[1:] == ("-m", "ziglang", "cc")
    assert found.origin == "the ziglang wheel"
    assert "-mcpu=native" in found.compile_flags and "-fno-sanitize=all" in found.compile_flags
    assert load_library(build_library(SOURCE, found, cache_dir=tmp_path / "cache")).seven() == 7


def test_zig_by_its_own_name_is_known(tmp_path: Path, compiler: Compiler) -> None:
    command = " ".join(compiler.command)
    script(
        tmp_path / "zig",
        f'shift\nif [ "$1" = --version ]; then echo clang version 99; exit; fi\n'
        f'for w; do shift; case "$w" in -mcpu=native|-fno-sanitize=all) ;; *) set -- "$@" "$w";; esac; done\n'
        f'exec {command} "$@"',
    )
    assert find_compiler({"PATH": str(tmp_path), "CC": "zig cc"}).kind is CompilerKind.ZIG


def test_flags_never_break_nan(compiler: Compiler) -> None:
    for kind in CompilerKind:
        one = dataclasses.replace(compiler, kind=kind)
        flags = {*one.compile_flags, *one.link_flags}
        assert flags >= {"-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-std=gnu11"}
        assert flags >= {"-fPIC", "-shared", "-fvisibility=hidden"}
        assert not [flag for flag in flags if "fast-math" in flag or flag == "-Ofast"]


def test_what_a_command_says(tmp_path: Path) -> None:
    assert run_command(("true",), tmp_path) is None
    assert run_command(("false",), tmp_path) == "it ended with status 1 and said nothing"
    assert "no-such" in (run_command(("/no-such-program",), tmp_path) or "")
    told = script(tmp_path / "told", "echo out; echo err >&2; exit 3")
    assert (run_command((str(told),), tmp_path) or "").splitlines() == ["err", "out"]
