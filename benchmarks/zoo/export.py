"""Export one architecture from torch to ONNX, in a process of its own: those who measure need not import torch.

    python -m fusible.benchmarks.zoo.export NAME --exporter dynamo --dynamic --batch 4 --out FOLDER

writes `model.onnx` (weights inside) and `inputs.npz` into FOLDER. The same versions write the same bytes.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fusible.benchmarks.zoo.architectures.table import ARCHITECTURES, EXPORTERS, architecture, example_inputs
from fusible.errors import FusibleError, UsageError

__all__ = ["INPUTS_FILE", "MODEL_FILE", "export_to", "main"]

MODEL_FILE, INPUTS_FILE = "model.onnx", "inputs.npz"


def export_to(folder: Path, name: str, exporter: str, *, dynamic: bool = False, batch: int = 1) -> None:
    """Write the model of an architecture, and inputs of that batch, into a folder. Arguments as for `to_onnx.export`.

    Raises UsageError, ExportError, or FusibleError if torch or transformers is not installed.
    """
    try:
        from fusible.benchmarks.zoo.to_onnx import export  # noqa: PLC0415 - so that their absence can be told

        model = export(name, exporter, dynamic=dynamic, batch=batch)
    except ModuleNotFoundError as error:
        raise FusibleError(f"{error.name} is not installed: pip install 'fusible[bench]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(model.SerializeToString(deterministic=True))
    with zipfile.ZipFile(folder / INPUTS_FILE, "w") as archive:  # np.savez would note the time
        for key, array in example_inputs(name, batch).items():
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Export what the command line names. Returns the exit code: 0, 1 if it cannot be exported, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m fusible.benchmarks.zoo.export", description=main.__doc__)
    parser.add_argument("name", metavar="NAME", help=", ".join(ARCHITECTURES))
    parser.add_argument("--exporter", choices=EXPORTERS, help="of torch; by default the one in the table")
    parser.add_argument("--dynamic", action="store_true", help="make the batch a symbol")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    chosen = parser.parse_args(arguments)
    try:
        exporter = chosen.exporter or architecture(chosen.name).exporter
        export_to(chosen.out, chosen.name, exporter, dynamic=chosen.dynamic, batch=chosen.batch)
    except FusibleError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
