"""A built library that comes as bytes: it is put into the cache, from where the system loads it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fusible.errors import ArtifactError
from fusible.runtime.native.cache import CACHE_BYTES, FileCache

__all__ = ["cached_library"]


def cached_library(library: memoryview, digest: str, cache_dir: Path) -> tuple[Path, bool]:
    """The file in the cache, and whether it was there (and sound: hashed now, or unchanged since it was).

    digest: the library's SHA-256, under which the cache keeps it; the bytes are read only if the cache lacks it. Raises
    ArtifactError if they are damaged, UsageError if the cache cannot be used.
    """
    cache = FileCache(cache_dir, CACHE_BYTES)
    name = f"{digest[:40]}.so"
    with cache.explained():
        path = cache.get(name)
        if path is not None:
            return path, True
        if hashlib.sha256(library).hexdigest() != digest:
            raise ArtifactError("the native library in the artifact is damaged: its hash differs")
        with cache.scratch() as folder:
            (folder / name).write_bytes(library)
            return cache.put(name, folder / name), False
