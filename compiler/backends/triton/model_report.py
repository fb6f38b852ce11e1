"""The report of a model on a GPU: each launch of its plan, with what the built kernel's code shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fusible.compiler.backends.triton.backend import TritonBackend
from fusible.compiler.backends.triton.kernel_report import gpu_section
from fusible.compiler.backends.triton.launches import launch_work, report_launch, weights_stay
from fusible.compiler.backends.triton.static_report import StaticReport
from fusible.compiler.costs import Costs
from fusible.compiler.ir.graph import Node
from fusible.runtime.plan import Launch, Step

__all__ = ["model_report"]


def model_report(
    steps: Iterable[tuple[Step, Node]],
    backend: TritonBackend,
    reports: Mapping[str, StaticReport],
    costs: Costs,
    host: Sequence[str],
) -> dict[str, Any]:
    """What `gpu_section` makes of a plan. steps: with their nodes, branches and loop bodies left out.

    What torch multiplies is left out: nothing is known of its kernels. reports: by the plan's names of kernels. host:
    what runs on the host.
    """
    works = []
    for step, node in steps:
        printed = backend.kernel_of(node)
        if isinstance(step, Launch) and not isinstance(printed, str) and printed[1].product is None:
            works.append(launch_work(step.kernel, node, *printed, costs.node(node)))
    warm = weights_stay(works, backend.gpu)
    launches = [report_launch(work, backend.gpu, reports[work.kernel], warm=warm) for work in works]
    return gpu_section(backend.gpu, launches, host)
