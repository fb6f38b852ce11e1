"""C sources become a library: once, in parallel, alone where one changed, whole whoever else builds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fusible.errors import DeviceError, KernelBuildError, UsageError
from fusible.runtime.native.compiler import Compiler, find_compiler
from fusible.runtime.native.library import build_library
from fusible.runtime.native.loading import load_library
from tests.runtime.native.conftest import wrapped

EXPORT = '__attribute__((visibility("default"))) '
SOURCES = {
    "one.c": f'#include "number.h"\n{EXPORT}int one(void) {{ return NUMBER; }}\n',
    "two.c": f"#include <math.h>\n#include <shared.h>\n{EXPORT}float two(float x) {{ return SHARED * expf(x); }}\n",
    "number.h": "#define NUMBER 1\n",
}


class Logged:
    """A compiler that writes down what it was asked to compile and to link, and headers of its own."""

    def __init__(self, folder: Path, compiler: Compiler) -> None:
        self.folder, self.log = folder, folder / "log"
        self.cache = folder / "cache"
        self.include = folder / "include"
        self.include.mkdir()
        (self.include / "shared.h").write_text('#include "deeper.h"\n#define SHARED DEEPER\n')
        (self.include / "deeper.h").write_text("#define DEEPER 2.0f\n")
        (self.include / "unused.h").write_text("#define UNUSED\n")
        note = f'for word; do case "$word" in *.c) file=$word;; esac; done; echo "${{file:-link}}" >> {self.log}'
        wrapped(folder / "cc", compiler, before=note)
        self.compiler = find_compiler({"PATH": str(folder)})

    def build(self, sources: dict[str, str] = SOURCES, **settings: object) -> Path:
        """Build with it."""
        places = {"cache_dir": self.cache, "include": self.include}
        return build_library(sources, self.compiler, **places, **settings)  # type: ignore[arg-type]

    def calls(self) -> list[str]:
        """Return what was compiled since the last time, sorted; trials of the compiler do not count."""
        lines = self.log.read_text().split() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return sorted(line for line in lines if line != "trial.c")


@pytest.fixture
def logged(tmp_path: Path, compiler: Compiler) -> Logged:
    """Return a compiler that notes its calls, with an empty cache."""
    made = Logged(tmp_path, compiler)
    made.calls()
    return made


def test_it_is_built_once_and_runs(logged: Logged) -> None:
    path = logged.build()
    assert logged.calls() == ["link", "one.c", "two.c"]
    assert load_library(path).one() == 1
    assert logged.build() == path
    assert logged.build(dict(reversed(SOURCES.items()))) == path
    assert logged.calls() == []


def test_only_what_is_asked_for_is_visible(logged: Logged) -> None:
    library = load_library(logged.build({"a.c": f"int hidden(void) {{ return 1; }}\n{EXPORT}int seen = 3;\n"}))
    assert hasattr(library, "seen")
    assert not hasattr(library, "hidden")


def test_a_changed_source_is_compiled_alone(logged: Logged) -> None:
    first = logged.build()
    logged.calls()
    second = logged.build({**SOURCES, "one.c": SOURCES["one.c"] + "\n"})
    assert first != second
    assert logged.calls() == ["link", "one.c"]


@pytest.mark.parametrize(
    ("header", "recompiled"),
    [("shared.h", ["link", "two.c"]), ("deeper.h", ["link", "two.c"]), ("unused.h", [])],
)
def test_a_changed_header_recompiles_those_that_include_it(
    logged: Logged, header: str, recompiled: list[str]
) -> None:
    logged.build()
    logged.calls()
    with (logged.include / header).open("a") as file:
        file.write("\n")
    logged.build()
    assert logged.calls() == recompiled


def test_a_changed_header_among_the_sources(logged: Logged) -> None:
    logged.build()
    logged.calls()
    assert load_library(logged.build({**SOURCES, "number.h": "#define NUMBER 5\n"})).one() == 5
    assert logged.calls() == ["link", "one.c"]


def test_the_key_covers_flags_compiler_and_processor(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [logged.build(), logged.build(flags=["-DOTHER"])]
    text = (logged.folder / "cc").read_text()
    (logged.folder / "cc").write_text(text.replace("wrapped 1", "wrapped 2"))
    os.utime(logged.folder / "cc", ns=(1, 1))
    logged.compiler = find_compiler({"PATH": str(logged.folder)})
    paths.append(logged.build())
    monkeypatch.setattr("fusible.runtime.native.library.instruction_sets", lambda: "another processor")
    paths.append(logged.build())
    assert len(set(paths)) == 4


def test_texts_do_not_run_together(logged: Logged) -> None:
    one = logged.build({"a.c": f"{EXPORT}int a;", "b.c": f"{EXPORT}int b;"})
    other = logged.build({"a.c": f"{EXPORT}int a;{EXPORT}int b;", "b.c": ""})
    assert one != other


def test_a_refused_source_is_named_with_what_the_compiler_said(logged: Logged) -> None:
    with pytest.raises(KernelBuildError, match=r"bad\.c:2:\d+: error: .*nonsense") as caught:
        logged.build({**SOURCES, "bad.c": "int x;\nnonsense y;\n"}, workers=3)
    assert caught.value.source == "bad.c"
    assert caught.value.command[0] == str(logged.folder / "cc")
    assert "nonsense" in caught.value.output
    assert not list(logged.cache.glob("build-*"))
    logged.calls()
    logged.build()
    assert logged.calls() == ["link"]  # the others had been compiled and were kept


def test_objects_that_do_not_fit_together(logged: Logged) -> None:
    with pytest.raises(KernelBuildError, match=r"(multiple definition|duplicate symbol).*twice") as caught:
        logged.build({"a.c": "int twice = 1;", "b.c": "int twice = 2;"})
    assert caught.value.source == "a.c, b.c"


@pytest.mark.parametrize("name", ["../x.c", "a/x.c", "-x.c", "x.cpp", ".c", "x.c\n", ""])
def test_names_that_are_no_plain_files_are_refused(logged: Logged, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a C source"):
        logged.build({**SOURCES, name: ""})


def test_no_source_is_refused(logged: Logged) -> None:
    with pytest.raises(UsageError, match="at least one source"):
        logged.build({"x.h": ""})


@pytest.mark.parametrize("flag", ["-ffast-math", "-Ofast"])
def test_flags_that_break_nan_are_refused(logged: Logged, flag: str) -> None:
    with pytest.raises(UsageError, match=f"{flag}: kernels are never"):
        logged.build(flags=["-O2", flag])


@pytest.mark.parametrize("size", [0, 100, None])
def test_a_damaged_library_is_linked_again_and_said(logged: Logged, size: int | None) -> None:
    path = logged.build()
    logged.calls()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data if size is None else data[:size])
    with pytest.raises(DeviceError, match="is not the library that was built"):
        load_library(path)
    with pytest.warns(RuntimeWarning, match="was damaged"):
        assert logged.build() == path
    assert logged.calls() == ["link"]
    assert load_library(path).one() == 1


def test_a_damaged_object_is_compiled_again_and_said(logged: Logged) -> None:
    path = logged.build()
    next(logged.cache.glob("*/*.o")).write_bytes(b"\x7fELF")
    shutil.rmtree(path.parent)
    logged.calls()
    with pytest.warns(RuntimeWarning, match="was damaged"):
        logged.build()
    assert len(logged.calls()) == 2


def test_a_folder_that_others_can_write_is_refused(logged: Logged) -> None:
    logged.cache.mkdir()
    logged.cache.chmod(0o777)
    with pytest.raises(UsageError, match="others can write"):
        logged.build()
    assert logged.calls() == []


def test_what_no_system_can_load(tmp_path: Path, logged: Logged) -> None:
    path = logged.build({"a.c": f"extern int nowhere; {EXPORT}int *a(void) {{ return &nowhere; }}"})
    with pytest.raises(DeviceError, match=r"cannot be loaded: .*nowhere"):
        load_library(path)


def test_progress_counts_to_the_end(logged: Logged) -> None:
    seen: list[tuple[int, int, str]] = []
    path = logged.build(progress=lambda done, total, what: seen.append((done, total, what)))
    assert seen == [(1, 3, "one.c"), (2, 3, "two.c"), (3, 3, path.name)]


def test_several_sources_are_compiled_at_once(tmp_path: Path, compiler: Compiler) -> None:
    """Each compilation waits until the other one has begun, and gives up after five seconds."""
    (tmp_path / "met").mkdir()
    count = f'[ "$(ls {tmp_path}/met | wc -l)" -lt 2 ]'
    meet = f'touch "{tmp_path}/met/$$"; n=0; while {count}; do sleep 0.01; n=$((n+1)); [ $n -lt 500 ] || exit 1; done'
    wrapped(tmp_path / "cc", compiler, before=f'case " $* " in *" -c "*) {meet};; esac')
    waiting = find_compiler({"CC": str(tmp_path / "cc")})
    build_library({"a.c": "int a;", "b.c": "int b;"}, waiting, cache_dir=tmp_path / "cache", workers=2)


def test_the_oldest_libraries_make_room(logged: Logged) -> None:
    first = logged.build({"a.c": "int a;"})
    os.utime(first.parent, (1, 1))
    second = logged.build({"b.c": "int b;"}, cache_bytes=first.stat().st_size + 5000)
    assert not first.exists()
    assert load_library(second)


def test_threads_that_build_the_same_share_one_build(logged: Logged) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(logged.build())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4 and len(set(paths)) == 1
    assert logged.calls() == ["link", "one.c", "two.c"]


PROCESS = """
import errno, fcntl, sys
from pathlib import Path
from fusible.runtime.native.compiler import find_compiler
from fusible.runtime.native.library import build_library
from fusible.runtime.native.loading import load_library

def refuse(*_):
    raise OSError(errno.ENOLCK, "no locks")

folder, locks = Path(sys.argv[1]), sys.argv[2] == "locks"
if not locks:
    fcntl.flock = refuse
sources = {f"f{n}.c": f'__attribute__((visibility("default"))) int f{n}(void) {{ return {n}; }}' for n in range(5)}
compiler = find_compiler({"PATH": str(folder)})
sys.stdin.read()
for last in range(3):
    sources["f0.c"] += "\\n"
    library = load_library(build_library(sources, compiler, cache_dir=folder / "cache"))
    assert [getattr(library, f"f{n}")() for n in range(5)] == [0, 1, 2, 3, 4]
"""


@pytest.mark.parametrize("locks", ["locks", "no locks"])
def test_several_processes_build_the_same_at_once(logged: Logged, locks: str) -> None:
    """With locks each file is compiled once; without, perhaps more often, and nobody sees a part of one."""
    command = [sys.executable, "-W", "error", "-c", PROCESS, str(logged.folder), locks]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
    for process in running:
        assert process.stderr is not None
        told = process.stderr.read()
        process.stderr.close()
        assert process.wait() == 0, told
    calls = logged.calls()
    once = sorted(["link"] * 3 + ["f0.c"] * 3 + [f"f{n}.c" for n in range(1, 5)])
    assert calls == once if locks == "locks" else set(calls) == set(once)
