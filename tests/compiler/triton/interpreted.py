"""Run printed kernels by Triton's interpreter. A program of its own, since the interpreter is chosen before an import:

    TRITON_INTERPRET=1 python -m tests.compiler.triton.interpreted FOLDER

FOLDER holds jobs `NAME.py` (a printed file), `NAME.json` (kernel, programs, arguments) and `NAME.npz` (arrays);
results go to `NAME.out.npz`. Arrays of bf16 do not occur: the interpreter's bf16 is wrong.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


class _Memory:
    """An array as the interpreter takes tensors: by address. It copies storages to the host and back: there is one."""

    def __init__(self, array: np.ndarray, dtype: str) -> None:
        self.array, self.dtype = array, dtype

    def data_ptr(self) -> int:
        return int(self.array.ctypes.data)

    def untyped_storage(self) -> _Memory:
        return self

    def cpu(self) -> _Memory:
        return self

    def new_empty(self, *_: Any, **__: Any) -> _Memory:
        return self

    def set_(self, *_: Any) -> None:
        pass

    def copy_(self, _: _Memory) -> None:
        pass

    def storage_offset(self) -> int:
        return 0

    def size(self) -> tuple[int, ...]:
        return self.array.shape

    def stride(self) -> tuple[int, ...]:
        return self.array.strides


def run_job(folder: Path, name: str) -> None:
    """Launch one kernel and keep what it wrote."""
    job = json.loads((folder / f"{name}.json").read_text())
    arrays = {n: np.array(a, order="C") for n, a in np.load(folder / f"{name}.npz").items()}
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = {n: _Memory(a, str(a.dtype)) for n, a in arrays.items()}
    if job["programs"]:
        with np.errstate(all="ignore"):
            getattr(module, job["kernel"])[(job["programs"],)](**arguments, **job["numbers"], **job["constants"])
    np.savez(folder / f"{name}.out.npz", **{n: a for n, a in arrays.items() if n[0] == "y"})


def main(folder: Path) -> None:
    """Run every job of a folder; a failure is written down as text in the place of results."""
    for path in sorted(folder.glob("*.json")):
        try:
            run_job(folder, path.stem)
        except Exception as error:  # noqa: BLE001  # any failure is this job's result, and the parent shows it
            (folder / f"{path.stem}.failed").write_text(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
