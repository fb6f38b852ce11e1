"""Run an artifact with nothing but the standard library, NumPy, ml_dtypes and Fusible's runtime.

    python -I bare_process.py REPOSITORY ARTIFACT INPUTS.npz OUTPUTS.npz INPUT_NAME...

Every import of anything else fails, as it would where it is not installed: the compiler, onnx, rich, typer...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

ALLOWED = {*sys.stdlib_module_names, "numpy", "ml_dtypes"}
RUNTIME = {"runtime", "kernels", "errors", "version"}


class Bare(MetaPathFinder):
    """Refuses what a bare installation does not have."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        top, _, rest = name.partition(".")
        allowed = top in ALLOWED or (top == "fusible" and (not rest or rest.partition(".")[0] in RUNTIME))
        if not allowed:
            raise ModuleNotFoundError(f"{name} is not part of a bare installation", name=name)


def main(root: str, artifact: str, given: str, returned: str, *names: str) -> None:
    sys.meta_path.insert(0, Bare())
    sys.path.insert(0, root)
    import numpy as np

    import fusible

    with np.load(given) as arrays:
        inputs = {name: arrays[f"arr_{number}"] for number, name in enumerate(names)}
    outputs = fusible.load(artifact).run(inputs)
    np.savez(returned, *outputs.values())
    for banned in ("onnx", "typer", "rich", "fusible.compiler", "fusible.passes"):
        assert banned not in sys.modules, f"{banned} was imported"


if __name__ == "__main__":
    main(*sys.argv[1:])
