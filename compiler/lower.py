"""The last step: an optimised graph becomes an executable, with its report."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from fusible.compiler.backends.numpy import NumpyBackend
from fusible.compiler.costs import Cost, Costs, total_cost
from fusible.compiler.ir.analysis import values
from fusible.compiler.ir.assumed import growing_sizes
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import Dim, dim_text
from fusible.compiler.ir.types import OptionalType, SequenceType, TensorType
from fusible.compiler.options import Limits, Options
from fusible.compiler.outcome import Outcome
from fusible.compiler.placement import check_placement
from fusible.compiler.planner import Planned, make_plan
from fusible.compiler.schedule import schedule
from fusible.compiler.targets import TRITON_CPU, triton_gpu
from fusible.errors import ExecutionError, LimitExceeded, LoweringError
from fusible.passes.fusion import graphs_outside_groups
from fusible.passes.ledger import Kind
from fusible.runtime.devices.residence import is_same_memory
from fusible.runtime.dims import evaluate_dim
from fusible.runtime.executable import CustomKernel, Executable
from fusible.runtime.memory import least_peak
from fusible.runtime.native.c_model import host_steps
from fusible.runtime.native.cache import default_cache_dir
from fusible.runtime.native.compiler import find_compiler
from fusible.runtime.native.program import Program, build_program
from fusible.runtime.plan import Alloc, Call, Copy, If, Launch, Loop, Plan, Step
from fusible.runtime.report import Report
from fusible.runtime.session import RunLimits, Session
from fusible.runtime.signature import TensorSpec
from fusible.version import __version__

if TYPE_CHECKING:
    from fusible.compiler.backends.triton.backend import TritonBackend
    from fusible.runtime.devices.program import DeviceProgram

__all__ = ["cache_folder", "lower", "plan_graph", "steps_of_nodes", "sub_plans"]


_DONE = frozenset({str(Kind.FUSED), str(Kind.FIRED)})


def lower(
    graph: Graph, backend: NumpyBackend, options: Options, outcome: Outcome, notes: Sequence[str] = ()
) -> Executable:
    """Plan the graph, emit its kernels and wrap both. Raises LoweringError, LimitExceeded."""
    planned = plan_graph(graph, backend, options)
    if _is_triton(backend):
        check_placement(planned.plan, backend.kernels, backend.host, backend.target, options)
        notes = [*notes, *backend.by_buckets(planned.plan, graph.symbols.display)]
    limits = options.limits
    executable = Executable(
        inputs=tuple(_spec(graph, v, v.name) for v in graph.inputs),
        outputs=tuple(_spec(graph, v, n) for v, n in zip(graph.outputs, graph.output_names, strict=True)),
        plan=planned.plan,
        constants=planned.constants,
        source=backend.module(list(planned.kernels)),
        target=backend.target,
        limits=RunLimits(limits.tensor_bytes, limits.memory_bytes, limits.loop_iterations, limits.unbounded_iterations),
        provenance=_provenance(graph, backend, options),
        custom=tuple(CustomKernel(c.path, c.version) for c in backend.custom),
        functions=tuple(c.function for c in backend.custom),
        program=_program(backend, options),
        device=_device(backend, options) if _is_triton(backend) else None,
    )
    notes = [*notes, *_failing_branches(graph), *_needs_torch(executable)]
    report = _report(executable, graph, planned, outcome, notes, backend)
    if _is_triton(backend) and backend.target != TRITON_CPU:
        report = replace(report, gpu=_gpu_report(graph, planned, backend, options, report))
    object.__setattr__(executable, "made_report", report)
    if options.standalone and backend.target == "cpu" and (steps := host_steps(executable)):
        raise LoweringError("a standalone model", {backend.target: "; ".join(steps)})
    return executable


def plan_graph(graph: Graph, backend: NumpyBackend, options: Options) -> Planned:
    """Order an optimised graph and plan it with the backend's kernels. Raises LoweringError, LimitExceeded."""
    check_sizes(graph, options.limits)
    backend.prepare(graph)
    for inner in graphs_outside_groups(graph):
        schedule(inner, lambda value: _home(value, backend))
    return make_plan(graph, backend)


def _provenance(graph: Graph, backend: NumpyBackend, options: Options) -> dict[str, str]:
    """Where the executable comes from; its precision, unless that is the model's own."""
    facts = {"fusible": __version__, "graph": graph.name, "target": backend.target}
    return facts if options.precision == "fp32" else facts | {"precision": options.precision}


def _home(value: Value, backend: NumpyBackend) -> Value:
    """The value in whose memory another one lives."""
    block = backend.block(value)
    if block is not None:
        return block.root
    node = value.producer
    of = node.inputs[0] if node is not None and node.op.view else None
    return value if of is None else _home(of, backend)


def _program(backend: NumpyBackend, options: Options) -> Program | None:
    """The native code of a plan, built; None if every step is a host call. Raises DeviceError, KernelBuildError."""
    code = backend.native_code()
    if code is None:
        return None
    return build_program(code, find_compiler(os.environ), cache_dir=cache_folder(options), threads=options.threads)


def _is_triton(backend: NumpyBackend) -> TypeGuard[TritonBackend]:
    """True for the backend of Triton kernels, whose modules take long to import: other targets do without them."""
    return triton_gpu(backend.target) is not None


def _device(backend: TritonBackend, options: Options) -> DeviceProgram | None:
    """The Triton kernels of a plan, built and opened; None if every step is a host call.

    Raises DeviceError, KernelBuildError, LoweringError, UsageError.
    """
    from fusible.compiler.backends.triton.device_code import gpu_code, host_code, with_targets  # noqa: PLC0415
    from fusible.runtime.devices.program import open_device_program  # noqa: PLC0415 - see `_is_triton`

    kernels, cache_dir = list(backend.kernels.values()), cache_folder(options)
    if not kernels:
        return None
    with backend.explained():
        if backend.target == TRITON_CPU:
            code = host_code(kernels, backend.gpu, cache_dir, checked=options.verify == "kernels")
        else:
            code = gpu_code(kernels, backend.gpu, cache_dir, fit=backend.by_model())
            backend.fitted(code.kernels)
    code = with_targets(code, options.also, cache_dir)
    return open_device_program(code, backend.target, threads=options.threads, cache_dir=cache_dir)


def _gpu_report(
    graph: Graph, planned: Planned, backend: TritonBackend, options: Options, report: Report
) -> dict[str, Any]:
    """What the kernels of a GPU show, and their predicted times. Branches and loop bodies are left out."""
    from fusible.compiler.backends.triton.device_code import static_reports  # noqa: PLC0415 - see `_is_triton`
    from fusible.compiler.backends.triton.model_report import model_report  # noqa: PLC0415

    reports = static_reports(list(backend.kernels.values()), backend.gpu, cache_folder(options))
    steps = steps_of_nodes(planned.plan, graph, planned.done)
    host = [f"{', '.join(row['nodes']) or row['op']}: {row['reason']}" for row in report.host]
    return model_report(steps, backend, reports, Costs(), host)


def cache_folder(options: Options) -> Path:
    """The folder of the cache of native code."""
    return default_cache_dir(os.environ) if options.cache_dir is None else Path(options.cache_dir)


def check_sizes(graph: Graph, limits: Limits) -> None:
    """Refuse tensors whose literal size is beyond the limit. Raises LimitExceeded naming the node."""
    for inner in graph.all_graphs():
        for value in values(inner):
            type_ = value.type
            if not isinstance(type_, TensorType) or type_.static_shape is None:
                continue
            nbytes = int(np.prod(type_.static_shape, dtype=object)) * type_.dtype.numpy.itemsize
            if nbytes > limits.tensor_bytes:
                where = value.producer.where if value.producer is not None else f"input {value.name!r}"
                raise LimitExceeded("tensor_bytes", nbytes, limits.tensor_bytes, where)


def _failing_branches(graph: Graph) -> list[str]:
    """What the user must know: branches that will fail if a run takes them."""
    return [
        f"a branch at {node.where} cannot run with these shapes and fails if it is taken: {node.attrs.message}"
        for inner in graph.all_graphs()
        for node in inner
        if node.op.name in ("fail", "require")
    ]


def _needs_torch(executable: Executable) -> list[str]:
    """What whoever runs the executable must know of libraries."""
    code = None if executable.device is None else executable.device.code
    count = 0 if code is None else sum(kernel.product is not None for kernel in code.kernels)
    what = f"{count} of its kernels are products or convolutions by torch"
    return [f"torch must be installed where it runs: {what}"] if count else []


def _spec(graph: Graph, value: Value, name: str) -> TensorSpec:
    type_ = value.type
    match type_:
        case TensorType():
            shape = None if type_.shape is None else tuple(_shown(graph, d) for d in type_.shape)
            return TensorSpec(name, type_.dtype.numpy, shape)
        case SequenceType():
            return TensorSpec(name, np.dtype(object), None, "sequence")
        case OptionalType():
            return TensorSpec(name, np.dtype(object), None, "optional")


def _shown(graph: Graph, dim: Dim) -> int | str:
    """A dimension as the signature shows it: the model's own spelling of a lone symbol."""
    if isinstance(dim, int):
        return dim
    text = dim_text(dim)
    return graph.symbols.display.get(text, text)


def _report(
    executable: Executable,
    graph: Graph,
    planned: Planned,
    outcome: Outcome,
    notes: Sequence[str],
    backend: NumpyBackend,
) -> Report:
    costs = Costs()
    done = planned.done
    kernels = tuple(_kernel_rows(planned.plan, graph, costs, done, backend.kernel_facts))
    total = total_cost([_step_cost(step, node, costs) for step, node in steps_of_nodes(planned.plan, graph, done)])
    constants = sum(int(c.nbytes) for c in planned.constants if c.dtype != object)
    joins = [e.to_json() for e in backend.entries]
    return Report(
        fusions=(*outcome.fusions, *(e for e in joins if e["kind"] in _DONE)),
        refusals=(*outcome.refusals, *(e for e in joins if e["kind"] not in _DONE)),
        kernels=kernels,
        memory=_memory(executable, constants),
        cost={"kernels": len(kernels), "constants": len(planned.constants), **_cost_facts(total)},
        passes=outcome.passes,
        notes=(*notes, *outcome.notes, *backend.notes()),
        host=tuple(_host_rows(planned.plan, graph, backend, done)),
    )


def _host_rows(plan: Plan, graph: Graph, backend: NumpyBackend, done: Set[Node]) -> Iterator[dict[str, Any]]:
    """The steps of a native target that call NumPy, and why; those of branches and loop bodies too."""
    for step, node in steps_of_nodes(plan, graph, done):
        reason = backend.host.get(getattr(step, "kernel", ""))
        renamed = _is_triton(backend) and is_same_memory(step)  # the device's array in another shape
        if reason is not None and not renamed:
            yield {"op": node.op.name, "nodes": list(node.origin), "reason": reason}
        for inner, subgraph in zip(sub_plans(step), node.subgraphs, strict=False):
            yield from _host_rows(inner, subgraph, backend, done)


def sub_plans(step: Step) -> tuple[Plan, ...]:
    """The plans of a branch or a loop."""
    match step:
        case If(then=then, otherwise=otherwise):
            return (then, otherwise)
        case Loop(body=body):
            return (body,)
    return ()


def _kernel_rows(
    plan: Plan, graph: Graph, costs: Costs, done: Set[Node], facts: Callable[[str], Mapping[str, object]]
) -> list[Mapping[str, Any]]:
    """A row for each step; those that stand for a node have its static cost.

    facts: what more there is to say of a kernel, its language first.
    """
    rows: list[Mapping[str, Any]] = []
    nodes = {id(step): node for step, node in steps_of_nodes(plan, graph, done)}
    for step in plan.steps:
        kernel = getattr(step, "kernel", type(step).__name__.lower())
        op = getattr(step, "op", type(step).__name__.lower())
        row: dict[str, Any] = {"kernel": kernel, "op": op, "nodes": list(step.origin)}
        row["step"] = type(step).__name__.lower()
        if isinstance(step, Launch | Call) and not is_same_memory(step):
            row.update(facts(step.kernel))
        node = nodes.get(id(step))
        rows.append(row if node is None else row | _cost_facts(_step_cost(step, node, costs)))
        if node is not None and isinstance(step, If):
            then, otherwise = node.subgraphs
            for inner, branch in ((step.then, then), (step.otherwise, otherwise)):
                rows += _kernel_rows(inner, branch, costs, done, facts)
        elif node is not None and isinstance(step, Loop):
            rows += _kernel_rows(step.body, node.subgraphs[0], costs, done, facts)
    return rows


def steps_of_nodes(plan: Plan, graph: Graph, done: Set[Node]) -> Iterator[tuple[Step, Node]]:
    """Each step that does a node's work, and the node: allocations and copies aside, they stand in the same order.

    done: the nodes that need no step.
    """
    steps = (s for s in plan.steps if not isinstance(s, (Alloc, Copy)))
    return zip(steps, (n for n in graph if n not in done), strict=True)


def _step_cost(step: Step, node: Node, costs: Costs) -> Cost:
    cost = costs.node(node)
    return replace(cost, bytes_read=0, bytes_written=0) if isinstance(step, Call) and step.view else cost


def _cost_facts(cost: Cost) -> dict[str, Any]:
    """Operations and bytes moved: numbers, or the text of an expression over symbols; None for what is not known."""
    flops = None if cost.flops is None else _plain(cost.flops)
    return {"flops": flops, "bytes": _plain(cost.bytes)}


def _plain(dim: Dim) -> int | str:
    return dim if isinstance(dim, int) else dim_text(dim)


def _memory(executable: Executable, constants: int) -> dict[str, Any]:
    """Constant bytes, the arena's size and the most of it that is live at once.

    Where sizes are symbolic every symbol counts as its lower bound or, where the sizes do not agree then, as a power of
    two for which they do; None if there is none.
    """
    plan = executable.plan
    buffers = plan.buffers
    env, sizes = _least_sizes(plan)
    peak = None if sizes is None else Session(executable).placement(plan, env).peak
    live = None if sizes is None else least_peak(sizes, [(b.first, b.last) for b in buffers])
    facts: dict[str, Any] = {"constant_bytes": constants, "arena_bytes": peak, "live_bytes": live}
    facts["buffers"] = len(buffers)
    if env:
        facts["arena_bytes_at"] = env
    late = sum(1 for v in plan.values if v.kind in ("late", "returned"))
    facts["values_outside_arena"] = late
    return facts


def _least_sizes(plan: Plan) -> tuple[dict[str, int], list[int] | None]:
    """The least sizes that were found for the symbols of a plan's buffers, and what each buffer takes then."""
    symbols = sorted({n for b in plan.buffers if isinstance(b.nbytes, str) for n in _names(b.nbytes)})
    bounds = {n: plan.bounds.get(n, (0, None)) for n in symbols}
    env: dict[str, int] = {}
    for env in growing_sizes(bounds):
        with suppress(ExecutionError):  # lengths behind windows that are longer than their image, say
            sizes = [evaluate_dim(b.nbytes, env) for b in plan.buffers]
            if all(size >= 0 for size in sizes):
                return env, sizes
    return env, None


def _names(text: str) -> set[str]:

    return set(re.findall(r"[A-Za-z_]\w*", text)) - {"floordiv", "mod", "max", "min", "bcast"}
