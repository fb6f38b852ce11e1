"""C sources become a shared library, compiled in parallel, cached by content."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import fusible.kernels.cpu
from fusible.errors import KernelBuildError, UsageError
from fusible.runtime.native.cache import CACHE_BYTES, FileCache
from fusible.runtime.native.compiler import Compiler, run_command
from fusible.runtime.native.machine import instruction_sets, usable_threads

__all__ = ["KERNEL_HEADERS", "Progress", "build_library"]

KERNEL_HEADERS = Path(fusible.kernels.cpu.__file__).parent
"""The folder of our own headers."""

Progress = Callable[[int, int, str], None]
"""Called from the thread that builds, with steps done, steps in all, and what was done last."""

_FORMAT = "1"  # counts up when the same key would stand for something else
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.[ch]")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"\n]+)[>"]', re.MULTILINE)
_BREAKS_NAN = {"-ffast-math", "-Ofast", "-ffinite-math-only", "-funsafe-math-optimizations"}


@dataclass(frozen=True, slots=True)
class _Build:
    """What is built, by whom, for what; `texts` has the sources and all that they could include of ours."""

    compiler: Compiler
    flags: tuple[str, ...]
    target: tuple[str, ...]
    include: Path
    sources: Mapping[str, str]
    texts: Mapping[str, str]


def build_library(
    sources: Mapping[str, str],
    compiler: Compiler,
    *,
    cache_dir: Path,
    include: Path = KERNEL_HEADERS,
    flags: Sequence[str] = (),
    progress: Progress | None = None,
    workers: int | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> Path:
    """Return the path of the shared library of some C sources, built unless the cache has it.

    sources: file name -> text; each `.c` is a translation unit, a `.h` may be included by them. include: the folder of
    the headers that they share (a flat one). flags: for the compiler, besides those that it always gets. workers: how
    many compilers run at once, by default `usable_threads()`. Objects are cached one by one, so what did not change is
    not compiled again; the cache in `cache_dir` keeps about `cache_bytes`.

    Raises KernelBuildError if the compiler refuses a source or the objects, UsageError for a flag or name that cannot
    be used and for a folder that others can write into. Warns (RuntimeWarning) of a damaged entry, which is replaced.
    """
    build = _checked(sources, compiler, include, flags)
    cache = FileCache(cache_dir, cache_bytes)
    objects = {name: _object_key(build, name) + ".o" for name in sorted(sources) if name.endswith(".c")}
    library = _digest(["library", *objects.values(), *compiler.link_flags]) + ".so"
    report = progress or (lambda done, total, what: None)
    with cache.explained():
        found = cache.get(library)
        if found is not None:
            return found
        with cache.lock(library):
            found = cache.get(library)  # perhaps the process that had the lock built it
            if found is None:
                found = _build(build, cache, objects, library, report, workers or usable_threads())
                cache.grow(2 * found.stat().st_size, {library})  # objects are as large as what is linked of them
    return found


def _checked(sources: Mapping[str, str], compiler: Compiler, include: Path, flags: Sequence[str]) -> _Build:
    if broken := _BREAKS_NAN.intersection(flags):
        raise UsageError(f"{' '.join(sorted(broken))}: kernels are never built with flags that break NaN and infinity")
    if not any(name.endswith(".c") for name in sources):
        raise UsageError("a library needs at least one source whose name ends in .c")
    for name in sources:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot name a C source: use letters, digits, _ . - and the ending .c or .h")
    shared = {path.name: path.read_text(encoding="utf-8") for path in sorted(include.glob("*.[ch]"))}
    target = (instruction_sets(), *platform.libc_ver())
    return _Build(compiler, tuple(flags), target, include.resolve(), dict(sources), {**shared, **sources})


def _object_key(build: _Build, name: str) -> str:
    """The hash of all that decides what a source compiles to."""
    compiler = build.compiler
    parts = [*compiler.command, compiler.version, *compiler.compile_flags, *build.flags, *build.target]
    for included in _closure(name, build.texts):
        parts += [included, build.texts[included]]
    return _digest(["object", *parts])


def _closure(name: str, texts: Mapping[str, str]) -> list[str]:
    """A source and what it includes of ours, directly or not, as if every #if held."""
    reached = {name: None}
    waiting = [name]
    while waiting:
        for included in _INCLUDE.findall(texts[waiting.pop()]):
            if included in texts and included not in reached:
                reached[included] = None
                waiting.append(included)
    return list(reached)


def _digest(parts: Sequence[str]) -> str:
    """A hash of texts in which no two lists run together."""
    digest = hashlib.sha256()
    for part in (_FORMAT, *parts):
        data = part.encode("utf-8", "surrogateescape")
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()[:40]


def _build(
    build: _Build, cache: FileCache, objects: Mapping[str, str], library: str, report: Progress, workers: int
) -> Path:
    steps = len(objects) + 1
    with cache.scratch() as folder:
        for name, text in build.sources.items():
            (folder / name).write_text(text, encoding="utf-8")
        inputs = []
        for name, path in _compile_all(build, cache, objects, folder, workers):
            inputs.append(str(path.resolve()))
            report(len(inputs), steps, name)
        command = (*build.compiler.command, *build.compiler.link_flags, "-o", library, *inputs, "-lm")
        problem = run_command(command, folder)
        if problem is not None:
            raise KernelBuildError(", ".join(objects), command, problem)
        path = cache.put(library, folder / library)
    report(steps, steps, library)
    return path


def _compile_all(
    build: _Build, cache: FileCache, objects: Mapping[str, str], folder: Path, workers: int
) -> Iterator[tuple[str, Path]]:
    """Compile what the cache lacks; yields sources' names and objects' paths, in their order, as they are ready."""
    with ThreadPoolExecutor(max_workers=workers) as executor:
        running: dict[str, Future[Path]] = {}
        for name, key in objects.items():
            running[name] = executor.submit(_compile, build, cache, name, key, folder)
        try:
            for name, future in running.items():
                yield name, future.result()
        finally:
            executor.shutdown(cancel_futures=True)


def _compile(build: _Build, cache: FileCache, name: str, key: str, folder: Path) -> Path:
    found = cache.get(key)
    if found is not None:
        return found
    compiler = build.compiler
    where = (f"-I{build.include}", "-c", name, "-o", key)
    command = (*compiler.command, *compiler.compile_flags, *build.flags, *where)
    problem = run_command(command, folder)
    if problem is not None:
        raise KernelBuildError(name, command, problem)
    return cache.put(key, folder / key)
