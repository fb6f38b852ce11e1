"""How many kernels and library calls torch's compiler makes of an architecture on the CPU."""

from __future__ import annotations

import re

import torch
import torch._inductor.config as inductor
from torch._inductor.utils import run_and_get_code

from fusible.benchmarks.zoo.torch_modules import torch_module

__all__ = ["inductor_calls"]


def inductor_calls(name: str) -> tuple[int, int]:
    """(calls of generated kernels, calls of libraries) in one inference, counted in the code that inductor writes."""
    inductor.freezing = True
    module, arguments = torch_module(name)
    torch._dynamo.reset()
    with torch.inference_mode(False), torch.no_grad():
        _, codes = run_and_get_code(torch.compile(module.eval(), backend="inductor"), *arguments)
    lines = [line for code in codes for line in code.split("def call(")[-1].splitlines()]
    generated = sum(bool(re.search(r"\bcpp_fused\w*\(", line)) for line in lines)
    return generated, sum(bool(re.search(r"\bextern_kernels\.|\btorch\.ops\.", line)) for line in lines)
