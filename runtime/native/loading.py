"""Shared libraries out of the cache, checked when they are loaded.

Apart from `library.py`, because a process that loads an artifact should not import what only a build needs.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from fusible.errors import DeviceError
from fusible.runtime.native.cache import matches_hash

__all__ = ["load_library"]


def load_library(path: Path, *, checked: bool = False) -> ctypes.CDLL:
    """Load a library that `build_library` returned; calls release the GIL and keep errno (`ctypes.get_errno`).

    checked: its hash was compared, and it did not change since. Raises DeviceError if it is not the file that was
    built, or if the system refuses it.
    """
    if not checked and not matches_hash(path):
        raise DeviceError(f"{path} is not the library that was built (another SHA-256, or none): build it again")
    try:
        return ctypes.CDLL(str(path), use_errno=True)
    except OSError as error:
        raise DeviceError(
            f"the native library cannot be loaded: {error}; it must lie where the system lets code run (not on a file "
            "system mounted noexec), and CC must name a compiler for this machine"
        ) from error
