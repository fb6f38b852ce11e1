"""`python -m fusible.gpu_selftest`: the CUDA layer, sessions and speed on this machine's GPU, as one table.

Each check is told on the standard error when it is done.

Exit status: 0 if every check passed, 1 if one failed or there is no GPU, 2 for wrong usage. `--device triton-cpu` runs
the same checks on the CPU, but for what is compared with other systems on a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import onnx

import fusible
from fusible.cli.console import print_json, print_line, print_table
from fusible.compiler.targets import GPU_TARGETS
from fusible.errors import DeviceError
from fusible.gpu_selftest.kernels import kernel_rows
from fusible.gpu_selftest.layer import layer_rows
from fusible.gpu_selftest.peers import MODELS, model_rows
from fusible.gpu_selftest.rows import Result, Row, check
from fusible.gpu_selftest.sessions import session_rows
from fusible.runtime.devices.architectures import chosen_image
from fusible.runtime.devices.cuda import find_gpu
from fusible.runtime.executable import Executable

__all__ = ["main"]

_CUDA, _CPU = "cuda", "triton-cpu"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the self-test; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        target, name = (_CPU, "the CPU, as triton-cpu") if options.device == _CPU else _gpu_target()
    except DeviceError as error:
        print_line(str(error))
        print_line(f"the same checks run on the CPU with --device {_CPU}")
        return 1
    rows = list(_told(_rows(target, options.quick, tuple(options.model) or MODELS)))
    failed = sum(row.result is Result.FAILED for row in rows)
    if options.json:
        print_json({"target": target, "device": name, "failed": failed, "rows": [row.to_json() for row in rows]})
    else:
        print_line(f"{target} on {name}: {len(rows)} checks, {failed} failed")
        print_table(("section", "check", "result", "detail"), [(r.section, r.what, r.result, r.detail) for r in rows])
    return 1 if failed else 0


def _told(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows, each written to the standard error as soon as it is there: all of them take minutes."""
    for row in rows:
        sys.stderr.write(f"{row.section}, {row.what}: {row.result} {row.detail}\n")
        yield row


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fusible.gpu_selftest", description=__doc__)
    parser.add_argument("--device", choices=(_CUDA, _CPU), default=_CUDA)
    parser.add_argument("--quick", action="store_true", help="leave out what is compared with other systems")
    parser.add_argument("--model", action="append", default=[], help=f"of the zoo; by default {', '.join(MODELS)}")
    parser.add_argument("--json", action="store_true")
    return parser


def _gpu_target() -> tuple[str, str]:
    """What to compile for, and the GPU's name. Raises DeviceError if there is none that kernels run on."""
    gpu = find_gpu()
    target = chosen_image([t for t in GPU_TARGETS if t.startswith("cuda:")], gpu.capability)
    if target is None:
        raise DeviceError(
            f"{gpu.name} has compute capability {gpu.capability / 10}, for which no kernels are built; known are "
            f"{', '.join(GPU_TARGETS)}"
        )
    return target, gpu.name


def _rows(target: str, quick: bool, models: tuple[str, ...]) -> Iterator[Row]:
    compile_model = partial(_compiled, target)
    yield from _guarded("layer", lambda: layer_rows(compile_model))
    yield from session_rows(compile_model, partial(_compiled, "numpy"))
    if target == _CPU:
        yield Row("kernel", "beside torch", Result.SKIPPED, "needs a GPU")
        yield Row("model", "beside torch.compile and onnxruntime", Result.SKIPPED, "needs a GPU")
    elif not quick:
        yield from kernel_rows(compile_model)
        yield from model_rows(compile_model, models)


def _guarded(section: str, rows: object) -> Iterator[Row]:
    """Rows of a section, or one that says why it could not begin."""
    found: list[Row] = []

    def collect() -> str:
        assert callable(rows)
        found.extend(rows())
        return ""

    (outcome,) = check(section, "everything", collect)
    yield from found
    if outcome.result is Result.FAILED:
        yield outcome


def _compiled(
    target: str,
    model: onnx.ModelProto | Path,
    precision: str = "fp32",
    shapes: Mapping[str, tuple[int, int]] | None = None,
) -> Executable:
    verify = "kernels" if target == _CPU else "off"
    allow = None if target in ("numpy", _CPU) else True
    options = fusible.Options(precision=precision, verify=verify, allow_host=allow)  # type: ignore[arg-type]
    return fusible.compile(model, target=target, options=options, shapes=shapes)


if __name__ == "__main__":
    sys.exit(main())
