"""python -m tests.compiler.triton.templates [--builds | --runs] [NAME...]: every kernel around a template, everywhere.

Each is run in checking mode and compared with float64, and built for GPUs of five architectures: nothing may spill.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator

from fusible.compiler.backends.triton.aot import build
from fusible.compiler.backends.triton.gpu_targets import GpuTarget, gpu_target
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.errors import FusibleError
from tests.compiler.triton.attention_forms import NAMES, check_attention, in_parts, made
from tests.compiler.triton.node_cases import NODES, node_case
from tests.compiler.triton.recurrent_layers import LAYERS, Layer

H100 = gpu_target("h100")
TARGETS = ("cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "cuda:sm_120", "hip:gfx942")

Template = tuple[Callable[..., PrintedKernel], Callable[[PrintedKernel], None]]
"""What prints a kernel for a GPU (an H100 if none is given), and what runs and compares it."""


def templates() -> Iterator[tuple[str, Template]]:
    """All, by name."""
    for name in NAMES:
        one = made(name)
        yield (
            f"attention/{name}",
            (
                lambda gpu=H100, one=one: print_kernel(one.region, gpu),  # type: ignore[misc]
                lambda kernel, one=one: check_attention(one, kernel),  # type: ignore[misc]
            ),
        )
        for split in (2, 5):
            yield (
                f"attention/{name} in {split} parts",
                (
                    lambda gpu=H100, one=one, split=split: in_parts(one.region, gpu, split),  # type: ignore[misc]
                    lambda kernel, one=one: check_attention(one, kernel),  # type: ignore[misc]
                ),
            )
    for name, given in LAYERS.items():
        layer = Layer(**given)
        yield f"recurrent/{name}", (lambda gpu=H100, layer=layer: layer.printed(gpu), layer.check)  # type: ignore[misc]
    for name in NODES:
        case = node_case(name)
        yield f"node/{name}", (lambda gpu=H100, case=case: case.printed(gpu), case.check)  # type: ignore[misc]


def built(kernel: PrintedKernel, target: GpuTarget) -> str:
    """What is wrong with a kernel's code, or nothing."""
    try:
        report = build(kernel, target).report
    except FusibleError as error:
        return f"{target.target}: {error}"
    return f"{target.target}: spills {report.spilled}, with {report.registers} registers" if report.spilled else ""


def told(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Print a line for each; exit 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; by default all")
    parser.add_argument("--builds", action="store_true", help="only build")
    parser.add_argument("--runs", action="store_true", help="only run")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    wrong = 0
    for name, (printed, check) in templates():
        if options.names and not any(part in name for part in options.names):
            continue
        start, found = time.monotonic(), []
        if not options.builds:
            try:
                check(printed(gpu_target("h100")))
            except (AssertionError, FusibleError) as error:
                found.append(str(error))
        if not options.runs:
            found += [built(printed(gpu_target(target)), gpu_target(target)) for target in TARGETS]
        found = [text for text in found if text]
        wrong += bool(found)
        told("\n    ".join([f"{name}: {'wrong' if found else 'right'}, {time.monotonic() - start:.1f} s", *found]))
    told(f"{wrong} kernels are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
