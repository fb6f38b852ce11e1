"""Printed kernels against the region interpreter, run by Triton's own interpreter, and compiled as far as its first IR.

The interpreter takes kernels that the compiler refuses, so every kernel goes through both.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fusible.compiler.backends.triton.aot import ttir_text
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.printer import PrintedKernel, print_region
from fusible.compiler.backends.triton.schedule import Form, Schedule, schedule
from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.parse import parse_region
from tests.compiler.triton.generated import sample
from tests.compiler.triton.runs import Job, job, run_jobs
from tests.region.fusion_cases import CASES
from tests.region.test_fusions import arrays_of, built
from tests.tolerance import assert_close, poisoned

SAMPLES = [f"generated_{seed}" for seed in range(80)]
H100 = gpu_target("h100")
TERMS = 64  # terms of a sum in the fusions


@cache
def fusion_jobs() -> dict[str, Job]:
    """A job for each region of the fusions that has no contraction, on what the regions before it compute."""
    found: dict[str, Job] = {}
    for name, make in CASES.items():
        case = make()
        group = built(case)
        arrays = arrays_of(group, case)
        arrays += [np.zeros(b.shape, b.dtype.numpy) for b in group.group.buffers[group.group.inputs :]]
        for number, step in enumerate(group.group.steps):
            inputs = [arrays[n].copy() for n in step.inputs]
            if not step.region.contractions:
                found[f"{name}_{number}"] = job(f"{name}_{number}", step.region, inputs)
            run_region(step.region, inputs, into=[arrays[n] for n in step.outputs])
    return found


@cache
def sample_job(name: str) -> tuple[Job, int]:
    """The job of a generated region, and the terms that it adds up."""
    made = sample(int(name.rpartition("_")[2]))
    return job(name, made.region, made.inputs, made.env, made.schedule), made.terms


FUSIONS = list(fusion_jobs())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[np.ndarray] | str]:
    """What all kernels give: one process runs them."""
    jobs = [*fusion_jobs().values(), *(sample_job(name)[0] for name in SAMPLES)]
    return run_jobs(jobs, tmp_path_factory.mktemp("interpreted"))


def expected(one: Job) -> list[np.ndarray]:
    """By the region interpreter; what a region does not store stays poisoned."""
    into = [poisoned(tuple(int(evaluate(d, one.env)) for d in b.shape), b.dtype.numpy) for b in one.region.outputs]
    return run_region(one.region, [x.copy() for x in one.inputs], one.env, into)


def check(one: Job, got: list[np.ndarray] | str, terms: int) -> None:
    assert not isinstance(got, str), f"{got}\n{one.kernel.source}"
    for array, wanted in zip(got, expected(one), strict=True):
        assert_close(array, wanted, accumulation=4 * terms)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_fusion_computes_what_its_region_does(name: str, results: dict[str, list[np.ndarray] | str]) -> None:
    check(fusion_jobs()[name], results[name], TERMS)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_generated_region_computes_what_it_says(name: str, results: dict[str, list[np.ndarray] | str]) -> None:
    one, terms = sample_job(name)
    check(one, results[name], terms)


@pytest.mark.parametrize("name", [*FUSIONS, *SAMPLES])
def test_the_compiler_takes_the_kernel(name: str) -> None:
    one = fusion_jobs()[name] if name in fusion_jobs() else sample_job(name)[0]
    assert "tt.func public @kernel" in ttir_text(one.kernel, H100)


def test_the_samples_cover_forms_types_and_stages() -> None:
    jobs = [sample_job(name)[0] for name in SAMPLES]
    text = "\n".join(one.kernel.source for one in jobs)
    assert {one.schedule.form for one in jobs} == set(Form)
    assert {b.dtype.value for one in jobs for b in one.region.inputs} >= {"f32", "f16", "i64", "i32", "bool"}
    for word in ("tl.gather", "tl.cumsum", "tl.associative_scan", "combine_welford", "combine_arg", "in_rows",
                 "in_columns", "reverse=True", "w1_0", " // ", "s0", "static_range", "a5, a6 = "):  # fmt: skip
        assert word in text, word
    assert any(0 in x.shape for one in jobs for x in one.inputs)


def test_wrong_kernels_are_noticed(tmp_path: Path) -> None:
    """The comparisons above can fail."""
    one = fusion_jobs()["residual_layer_norm_0"]
    wrong_mask = ("in_columns = c < 12", "in_columns = c < 11")
    planted = (wrong_mask, ("tl.div_rn(v3", "tl.div_rn(v2"), ("x2 + c,", "x2 + c - c,"))
    jobs = []
    for number, (old, new) in enumerate(planted):
        source = one.kernel.source.replace(old, new)
        assert source != one.kernel.source
        jobs.append(replace(one, name=f"wrong{number}", kernel=PrintedKernel(source, one.kernel.rule)))
    for wrong, got in zip(jobs, run_jobs(jobs, tmp_path).values(), strict=True):
        with pytest.raises(AssertionError, match=r"exceeds|NaN out of place"):
            check(wrong, got, TERMS)


NAMED = """
region [i0=batch, i1=channels]
  in x0: f16[batch, channels]
  out y0: f16[batch, channels]
  v0: f16 = load x0[i0, i1]
  v1: f16 = max(v0, 0.0)
  store y0[i0, i1] = v1
"""


def test_names_of_a_model_never_appear_and_texts_are_deterministic() -> None:
    region = parse_region(NAMED, {n: Symbol(n, 1, 4096) for n in ("batch", "channels")})
    first, again = (print_region(region, schedule(region, H100)) for _ in range(2))
    assert first == again
    assert "batch" not in first.source and "channels" not in first.source
    renamed = parse_region(NAMED.replace("batch", "n"), {n: Symbol(n, 1, 4096) for n in ("n", "channels")})
    assert print_region(renamed, schedule(renamed, H100)).source == first.source
    assert first.rule.numbers({"batch": 3, "channels": 5}) == {"s0": 3, "s1": 5}
    assert first.rule.programs({"batch": 3, "channels": 5}) == 1


def test_positions_have_64_bits_where_they_may_need_them() -> None:
    bounded = parse_region(NAMED, {n: Symbol(n, 1, 4096) for n in ("batch", "channels")})
    unknown = parse_region(NAMED, {n: Symbol(n) for n in ("batch", "channels")})
    types = [
        {a.type for a in print_region(r, schedule(r, H100)).rule.arguments if a.dim is not None}
        for r in (bounded, unknown)
    ]
    assert types == [{"i32"}, {"i64"}]
    large = parse_region(NAMED.replace("batch", "65536").replace("channels", "65536"))
    assert "tl.program_id(0).to(tl.int64)" in print_region(large, schedule(large, H100)).source


def test_masks_stand_only_where_they_are_needed() -> None:
    def source(rows: int) -> str:
        region = parse_region(NAMED.replace("batch", str(rows)).replace("channels", "512"))
        return print_region(region, Schedule(Form.POINTS, 1024, 1, 4, 1, 8)).source

    assert "mask" not in source(64)
    assert "mask=in_rows" in source(63)


def test_the_kernel_is_the_last_function_and_none_is_nested() -> None:
    for name in [*FUSIONS, *SAMPLES[:20]]:
        one = fusion_jobs()[name] if name in fusion_jobs() else sample_job(name)[0]
        module = ast.parse(one.kernel.source)
        functions = [n for n in ast.walk(module) if isinstance(n, ast.FunctionDef)]
        assert all(f in module.body for f in functions)
        assert isinstance(module.body[-1], ast.FunctionDef) and module.body[-1].name == "kernel"


def test_facts_of_accesses_are_in_the_rule() -> None:
    one = fusion_jobs()["embedding_norm_0"]
    facts = {(f.argument, f.stores): f for f in one.kernel.rule.accesses}
    assert facts["x2", False].step == 1 and facts["y0", True].step == 1
    assert facts["x1", False].step is None  # what data give
    assert all(a.divisibility == 16 for a in one.kernel.rule.arguments)
