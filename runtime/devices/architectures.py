"""Which of the images that were built runs on which GPU."""

from __future__ import annotations

import re
from collections.abc import Collection

from fusible.errors import UsageError

__all__ = ["OLDEST", "chosen_image", "cuda_target"]

OLDEST = 80
"""The oldest architecture that kernels are built for, as in sm_80 (compute capability 8.0)."""

_TARGET = re.compile(r"cuda:sm_(\d+)\Z")


def cuda_target(capability: int) -> str:
    """The target of a GPU's compute capability: 90 (for 9.0) gives `cuda:sm_90`."""
    return f"cuda:sm_{capability}"


def chosen_image(targets: Collection[str], capability: int) -> str | None:
    """The best of the targets that images are for on a GPU of a compute capability (80 for 8.0); None if none runs.

    A cubin runs on its own architecture, and on later minor versions of the same major one. From 9.0 on Triton builds
    for architecture-specific features (sm_90a, ...), which run nowhere else. Source: CUDA C++ Programming Guide,
    "Binary Compatibility" and "Feature Availability". Raises UsageError for a target that is none of CUDA.
    """
    found = []
    for target in targets:
        match = _TARGET.match(target)
        if match is None:
            raise UsageError(f"{target!r} is no CUDA target: expected cuda:sm_NUMBER")
        built = int(match[1])
        same_major = built // 10 == capability // 10 and built <= capability
        if built == capability or (same_major and built < 90):
            found.append(built)
    return cuda_target(max(found)) if found else None
