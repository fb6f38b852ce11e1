"""python -m tests.compiler.triton.regions [--seed N] [--count N] [--fusions]: regions as kernels, in checking mode.

Every kernel is Triton's own intermediate form run as C, every access is checked, and results are compared with those
of the region in float64.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.gpu_targets import GpuTarget, gpu_target
from fusible.compiler.backends.triton.passes import partial_type
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.backends.triton.printer import PrintedKernel, print_region
from fusible.compiler.backends.triton.schedule import Form
from fusible.compiler.backends.triton.tile import tile_of
from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.text import region_text
from fusible.errors import FusibleError
from fusible.runtime.native.machine import usable_threads
from tests.compiler.triton.checked import run_checked
from tests.compiler.triton.generated import LARGER, SIZES, Sample, sample
from tests.compiler.triton.generated_products import product_sample
from tests.compiler.triton.in_float64 import run_in_float64
from tests.region.fusion_cases import CASES
from tests.region.test_fusions import arrays_of, built
from tests.tolerance import assert_close

__all__ = ["check_sample", "made_sample", "printed_sample"]

H100 = gpu_target("h100")
TERMS = 64  # terms of a sum in the fusions
_TOLD = 20  # regions after which a line says how far it is


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a seed. wrong: the text of a failure; refused: why there is no kernel."""

    seed: int | str
    kind: str
    wrong: str = ""
    refused: str = ""


def made_sample(seed: int) -> Sample:
    """The region of a seed: in every fifth a product; of every other one with larger axes.

    Folds that programs can share are, by 2 or 4; every third region with halves has brain floats in their place.
    """
    if seed % 5 == 2:
        return product_sample(seed)
    made = in_brain_floats(sample(seed, LARGER if seed % 2 else SIZES), seed)
    if made.schedule is None or made.schedule.form is not Form.LOOPED or partial_type(tile_of(made.region)) is None:
        return made
    return replace(made, schedule=replace(made.schedule, split=2 << seed // 4 % 2))


def in_brain_floats(made: Sample, seed: int) -> Sample:
    """A region in bf16 where it was in f16, for every third seed."""
    if seed % 3 or not (text := region_text(made.region)).count("f16"):
        return made
    symbols = {s.name: s for b in (*made.region.inputs, *made.region.outputs) for d in b.shape for s in symbols_of(d)}
    region = parse_region(re.sub(r"\bf16\b", "bf16", text), symbols)
    arrays = [x.astype(b.dtype.numpy) for x, b in zip(made.inputs, region.inputs, strict=True)]
    return replace(made, region=region, inputs=arrays)


def printed_sample(made: Sample, gpu: GpuTarget = H100) -> PrintedKernel:
    """Its kernel. Raises NotPrintable."""
    if made.schedule is None:
        return print_kernel(made.region, gpu)
    return print_region(made.region, made.schedule)


def check_sample(made: Sample, kernel: PrintedKernel) -> None:
    """Fail unless a kernel computes the region, and touches nothing else."""
    got = run_checked(kernel, made.region.outputs, made.inputs, made.env)
    wanted = run_in_float64(made.region, made.inputs, made.env)
    for array, reference in zip(got, wanted, strict=True):
        assert_close(array, reference, accumulation=4 * made.terms)


def fusion_samples() -> Iterator[tuple[str, Sample]]:
    """The regions of the known fusions, on what the regions before them compute."""
    for name, make in CASES.items():
        case = make()
        group = built(case)
        arrays = arrays_of(group, case)
        arrays += [np.zeros(b.shape, b.dtype.numpy) for b in group.group.buffers[group.group.inputs :]]
        for number, step in enumerate(group.group.steps):
            inputs = [arrays[n].copy() for n in step.inputs]
            yield f"{name}_{number}", Sample(step.region, inputs, {}, None, TERMS)
            run_region(step.region, inputs, into=[arrays[n] for n in step.outputs])


def outcome(seed: int | str) -> Outcome:
    """Make, print, run and compare the region of a seed, or of a fusion."""
    warnings.simplefilter("ignore")
    made = made_sample(seed) if isinstance(seed, int) else dict(fusion_samples())[seed]
    words = region_text(made.region).split()
    kind = next((w for w in ("contract", "scan", "reduce") if w in words), "points")
    try:
        check_sample(made, printed_sample(made))
    except NotPrintable as reason:
        return Outcome(seed, kind, refused=str(reason))
    except (AssertionError, FusibleError) as error:
        return Outcome(seed, kind, f"{error}\n{region_text(made.region)}")
    return Outcome(seed, kind)


def main() -> int:
    """Print what is wrong and a summary; exit 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first region; the others count up")
    parser.add_argument("--count", type=int, default=200, help="of regions")
    parser.add_argument("--fusions", action="store_true", help="instead: the regions of the known fusions")
    parser.add_argument("--workers", type=int, default=usable_threads(), help="processes")
    options = parser.parse_args()
    kinds: Counter[str] = Counter()
    wrong = 0
    seeds: list[int | str] = list(range(options.seed, options.seed + options.count))
    if options.fusions:
        seeds = [name for name, _ in fusion_samples()]
    with ProcessPoolExecutor(options.workers) as pool:
        for found in pool.map(outcome, seeds):
            kinds[f"{found.kind}, refused" if found.refused else found.kind] += 1
            if found.wrong:
                wrong += 1
                sys.stdout.write(f"seed {found.seed}: {found.wrong}\n")
            if found.refused:
                sys.stdout.write(f"seed {found.seed} is refused: {found.refused}\n")
            if sum(kinds.values()) % _TOLD == 0:
                sys.stdout.write(f"{sum(kinds.values())} regions, {wrong} are wrong\n")
            sys.stdout.flush()
    listed = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    sys.stdout.write(f"{len(seeds)} regions ({listed}): {wrong} are wrong\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
