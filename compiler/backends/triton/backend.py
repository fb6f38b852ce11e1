"""The Triton backend: nodes become Triton kernels by their region, or by a template for their op; others call NumPy.

One backend serves every target whose kernels are Triton: a GPU, and `triton-cpu`, which runs the kernels of a GPU as C.
Nodes whose kernels are equal but for the numbers that a launch hands over share one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from fusible.compiler.backends.base import Block, Emitted, Pending, word_of
from fusible.compiler.backends.cpu.c_dims import flat_offset
from fusible.compiler.backends.cpu.memo import Known
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.joining import JoiningBackend
from fusible.compiler.backends.numpy import writes_buffers
from fusible.compiler.backends.triton.device_code import device_kernel
from fusible.compiler.backends.triton.extents import EXTENTS, sizes_in, sizes_of_inputs
from fusible.compiler.backends.triton.f32_products import IEEE
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.launch import LaunchRule
from fusible.compiler.backends.triton.overlap import can_overlap
from fusible.compiler.backends.triton.print_kernel import print_node
from fusible.compiler.backends.triton.printer import Chosen, PrintedKernel
from fusible.compiler.backends.triton.regions import kernel_of
from fusible.compiler.backends.triton.sized import sized_for
from fusible.compiler.backends.triton.storing import pending
from fusible.compiler.backends.triton.tuned import Tuning
from fusible.compiler.ir.facts import replacement_kernel
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.types import TensorType
from fusible.compiler.region.build import Built
from fusible.compiler.region.overwrite import overwritable
from fusible.compiler.region.region import Region
from fusible.compiler.region.reorder import Order
from fusible.compiler.region.tensors import buffer_of
from fusible.compiler.tuning import TuningLock
from fusible.errors import KernelBuildError
from fusible.passes.ledger import Entry, Kind
from fusible.runtime.devices.code import DeviceKernel
from fusible.runtime.devices.convolution import TorchCall, TorchConvolution
from fusible.runtime.devices.residence import SAME_MEMORY
from fusible.runtime.dims import symbols_of
from fusible.runtime.plan import Plan

__all__ = ["TritonBackend"]

_WORTH_FETCHING = 16 << 10  # bytes of a constant
_ALIGNMENT = 16  # bytes at whose multiples every buffer begins, at least


class TritonBackend(JoiningBackend[PrintedKernel]):
    """Emits Triton kernels where it can; collects them, and why other nodes became calls of NumPy."""

    def __init__(
        self,
        target: str,
        gpu: GpuTarget,
        precision: str = IEEE,
        tuning: Tuning | None = None,
        known: dict[tuple[str, str], Known[PrintedKernel] | str] | None = None,
    ) -> None:
        """Emit for a target. gpu: what kernels are scheduled for. precision: of products, as `print_kernel` has it.

        tuning: what configurations are looked up in; by default the static model chooses all of them. known: kernels
        that were printed before so, which is added to.
        """
        self.tuning = tuning or Tuning(target, precision, TuningLock())
        super().__init__(partial(kernel_of, target=gpu, precision=precision, tuning=self.tuning), known)
        self.target = target
        self.gpu = gpu
        self.kernels: dict[str, DeviceKernel] = {}
        self.chosen: dict[str, Chosen] = {}
        self._names: dict[str, str] = {}
        self._notes: list[str] = []
        self._packed: dict[tuple[int, Order | None, int | None], Pending] = {}

    def emit(self, node: Node, name: str) -> Emitted:
        """A launch of a Triton kernel, by the node's region or a template for its op, or else a NumPy call."""
        printed = self.kernel_of(node)
        if not isinstance(printed, str):
            return self._launch(node, *printed)
        self.host[name] = printed
        return super().emit(node, name)

    def kernel_of(self, node: Node) -> tuple[Built, PrintedKernel] | str:
        """The region and the kernel of a node, or why it is a call of NumPy. The kernel of a template has no stages."""
        reason = self._host_reason(node)
        if reason is not None:
            return reason
        printed = self._printed(node)
        if not isinstance(printed, Exception):
            return printed
        try:
            return self._by_template(node) or str(printed)
        except NotPrintable as refusal:
            return str(refusal)

    def _host_reason(self, node: Node) -> str | None:
        """As for other backends; but a view that devices have no words for is a copy, if a kernel makes or reads it."""
        reason = super()._host_reason(node)
        if reason is None or node.op.name in SAME_MEMORY or not node.op.view or not writes_buffers(node, views=True):
            return reason
        if replacement_kernel(node, self.target) is not None or self._is_between_host_steps(node):
            return reason
        return None

    def _is_between_host_steps(self, view: Node) -> bool:
        """True if the host computes what a view, of views perhaps, looks at, or if nothing but the host reads it."""
        maker = view
        while maker.op.view and maker.inputs[0] is not None and maker.inputs[0].producer is not None:
            maker = maker.inputs[0].producer
        if not maker.op.view and self._is_host_step(maker):
            return True
        return not any(map(self._is_wanted, view.outputs))

    def _is_wanted(self, value: Value) -> bool:
        """True if a value, or a view of it, is an output of its graph or read by a kernel."""
        assert value.producer is not None and value.producer.graph is not None
        if value in value.producer.graph.outputs:
            return True
        return any(
            any(map(self._is_wanted, u.outputs)) if u.op.view else not self._is_host_step(u) for u in value.users
        )

    def _is_for_host(self, value: Value) -> bool:
        """True if a step of the host reads a value or a view of it; branches and loops ask there whether to go on."""
        return any(
            any(map(self._is_for_host, user.outputs))
            if user.op.view
            else user.op.name in ("if", "loop") or self._is_host_step(user)
            for user in value.users
        )

    def _is_host_step(self, node: Node) -> bool:
        """True for a node that is a call of NumPy; branches and loops are none."""
        return node.op.name not in ("if", "loop") and isinstance(self.kernel_of(node), str)

    def _by_template(self, node: Node) -> tuple[Built, PrintedKernel] | None:
        """A region that says no more than which buffers there are, and the kernel of the node; None if there is none.

        Raises NotPrintable.
        """
        assert node.graph is not None
        if node.op.name == EXTENTS and (self._is_for_host(node.output) or not self._is_wanted(node.output)):
            raise NotPrintable("the host reads it")
        if node.op.name == EXTENTS and not sizes_in(node) <= sizes_of_inputs(node.graph):
            raise NotPrintable("it has sizes that a run defines")
        kernel = print_node(node, self.gpu, self._of_graph(node.graph))
        if kernel is None:
            return None
        inputs, outputs = tuple(v for v in node.inputs if v is not None), tuple(node.outputs)
        buffers = tuple(buffer_of(v) for v in inputs), tuple(buffer_of(v) for v in outputs)
        return Built(Region((), *buffers, (), ()), inputs, outputs), kernel

    def language(self, kernel: str) -> str:
        """Triton, NumPy, or torch, which multiplies in the place of a kernel or before one."""
        if kernel not in self.kernels:
            return "numpy"
        return "triton" if self.kernels[kernel].product is None else "torch"

    def kernel_facts(self, kernel: str) -> dict[str, object]:
        """The language; of kernels with configurations also which it is, and how it was chosen."""
        found, chosen = super().kernel_facts(kernel), self.chosen.get(kernel)
        if chosen is None:
            return found
        return {**found, "configuration": dict(chosen.config), "chosen": str(chosen.source), "key": chosen.key}

    def by_buckets(self, plan: Plan, display: Mapping[str, str]) -> list[str]:
        """Let kernels read their sizes from memory where a plan can run by buckets; notes on how graphs are captured.

        Once all kernels are emitted, before they are built. display: how the model spells symbols.
        """
        self.kernels, reason = sized_for(plan, self.kernels)
        symbols = {s for n in plan.inputs for d in plan.values[n].shape or () for s in symbols_of(d)}
        if not symbols:
            return []
        if reason:
            for symbol in symbols & display.keys():
                reason = reason.replace(repr(symbol), repr(display[symbol]))
            return [f"graphs are captured for exact sizes: {reason}"]
        ranges = ", ".join(f"{display.get(s, s)} {plan.bounds[s][0]} to {plan.bounds[s][1]}" for s in sorted(symbols))
        return [f"graphs are captured for buckets of sizes, which end at powers of two: {ranges}"]

    def notes(self) -> list[str]:
        """What the report should say of the kernels that were built."""
        return list(self._notes)

    def by_model(self) -> set[str]:
        """The kernels of which no lockfile chooses the configuration."""
        tuned = {name for name, chosen in self.chosen.items() if self.tuning.has(chosen.key)}
        return self.kernels.keys() - tuned

    def fitted(self, kernels: Sequence[DeviceKernel]) -> None:
        """Take the kernels as they were built, with a note on each that had to have fewer stages than it was given."""
        for kernel in kernels:
            given, self.kernels[kernel.name] = self.kernels[kernel.name].stages, kernel
            if kernel.stages != given:
                room = f"{self.gpu.shared_per_block} bytes of shared memory that a block of {self.gpu.name} has"
                self._notes.append(f"{kernel.name} has {kernel.stages} stages for {given}, to fit into the {room}")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """While kernels are built: where one of the lockfile's is refused, the error is a UsageError that says so."""
        try:
            yield
        except KernelBuildError as error:
            for name, kernel in self.kernels.items():
                chosen = self.chosen.get(name)
                if kernel.source == error.source and chosen is not None and self.tuning.has(chosen.key):
                    raise self.tuning.refusal(chosen.key, f"the kernel {name}", str(error)) from error
            raise

    def _launch(self, node: Node, built: Built, kernel: PrintedKernel) -> Emitted:
        formal = dict(zip(node.subgraphs[0].inputs, node.inputs, strict=True)) if node.op.name == "fused" else {}
        inputs = tuple(formal.get(v, v) for v in built.inputs)
        rule = kernel.rule
        dims = (rule.grid, *(a.dim for a in rule.arguments if a.dim is not None))
        constants = {n: self._stored(inputs[n], kernel, n) for n in sorted({*kernel.repacked, *kernel.packed})}
        results = dict(zip(node.subgraphs[0].outputs, node.outputs, strict=True)) if node.op.name == "fused" else {}
        stored = {f"x{n}": v for n, v in enumerate(inputs)}
        stored |= {f"y{n}": results.get(v, v) for n, v in enumerate(built.outputs)}
        if self._fetches_ahead(built, kernel):
            anew = {f"x{n}": made.nbytes for n, made in constants.items()}
            kernel = replace(kernel, fixed=_fixed(rule, stored, anew))
        name = self._named(self._aligned(kernel, stored), word_of(node))
        if kernel.product is not None and kernel.chosen is not None:
            self.entries.append(_by_torch(node, self.tuning, kernel.chosen, kernel.product))
        inplace = overwritable(built.region)
        return Emitted(name, "", True, dims, inplace, native=True, inputs=inputs, constants=constants)

    def _fetches_ahead(self, built: Built, kernel: PrintedKernel) -> bool:
        """True for products, which read all of their constants; of tables others may want a few rows."""
        overlaps = self.target.startswith("cuda:") and can_overlap(self.gpu)
        return overlaps and bool(built.region.contractions) and kernel.product is None and not kernel.serial

    def _wants_whole(self, node: Node) -> str | None:
        """Views by another shape are the operand's own memory; templates of ops know of no gaps."""
        if node.op.view and not self._may_be_native(node):
            return f"{node.op.name} looks at its memory in another way"
        if self._may_be_native(node) and not self._is_native(node) and not isinstance(self.kernel_of(node), str):
            return f"{node.op.name} reads and writes whole buffers"
        return None

    def _misplaced(
        self, node: Node, built: Built, kernel: PrintedKernel, blocks: Mapping[Value, Block]
    ) -> Mapping[Value, str]:
        """The tensor memory accelerator takes matrices whose memory begins at multiples of 16 bytes."""
        assert node.graph is not None
        formal = dict(zip(node.subgraphs[0].inputs, node.inputs, strict=True)) if node.op.name == "fused" else {}
        orders, found = self._of_graph(node.graph), {}
        for tensor in kernel.rule.tensors:
            value = formal.get(own := built.inputs[int(tensor.argument[1:])], own)
            block = None if value is None else blocks.get(value)
            if value is not None and block is not None:
                if _alignment(block, orders.get(block.root), value) < _ALIGNMENT:
                    found[value] = f"{word_of(node)} fetches it by a descriptor, which takes multiples of 16 bytes"
        return found

    def _aligned(self, kernel: PrintedKernel, stored: Mapping[str, Value | None]) -> PrintedKernel:
        """The kernel with what is known of the addresses of blocks, which begin anywhere in their buffers."""
        arguments = list(kernel.rule.arguments)
        for number, argument in enumerate(arguments):
            value = stored.get(argument.name)
            block = None if value is None else self.block(value)
            if value is not None and block is not None:
                known = min(argument.divisibility, _alignment(block, self.order(block.root), value))
                arguments[number] = replace(argument, divisibility=known)
        return replace(kernel, rule=replace(kernel.rule, arguments=tuple(arguments)))

    def _stored(self, operand: Value | None, kernel: PrintedKernel, number: int) -> Pending:
        """A constant as a kernel reads it, in another order of dimensions or packed; made once for each such form."""
        assert operand is not None and operand.constant is not None
        key = id(operand.constant), kernel.repacked.get(number), kernel.packed.get(number)
        if key not in self._packed:
            self._keep.append(operand.constant)
            self._packed[key] = pending(operand.constant, key[1], key[2])
        return self._packed[key]

    def _named(self, kernel: PrintedKernel, word: str) -> str:
        """The plan's name of a kernel: those that differ only in the numbers of a launch are one."""
        key = repr(device_kernel("", kernel))
        if key not in self._names:
            made = f"k{len(self._names):03d}_{word}"
            self._names[key] = made
            self.kernels[made] = device_kernel(made, kernel)
            if kernel.chosen is not None:
                self.chosen[made] = kernel.chosen
        return self._names[key]


def _fixed(rule: LaunchRule, stored: Mapping[str, Value | None], anew: Mapping[str, int]) -> dict[str, int]:
    """The bytes of a launch's constants by the names of the kernel's arguments, the small ones left out.

    anew: the bytes of those that are stored for the kernel.
    """
    values = {argument.name: stored.get(argument.name) for argument in rule.arguments}
    known = {n: v.constant.nbytes for n, v in values.items() if v is not None and v.constant is not None}
    found = {name: anew.get(name, nbytes) for name, nbytes in known.items()}
    return {name: nbytes for name, nbytes in found.items() if nbytes >= _WORTH_FETCHING}


def _alignment(block: Block, order: Order | None, value: Value) -> int:
    """The largest power of two, of those up to 16, that certainly divides the bytes in front of a block."""
    assert isinstance(value.type, TensorType)
    stored = range(len(block.whole)) if order is None else order
    corner, whole = ([dims[d] for d in stored] for dims in (block.corner, block.whole))
    offset = flat_offset(corner, whole) * value.type.dtype.numpy.itemsize
    numbers = [offset] if isinstance(offset, int) else [number for _, number in offset.terms]
    return math.gcd(_ALIGNMENT, *numbers)


def _by_torch(node: Node, tuning: Tuning, chosen: Chosen, call: TorchCall) -> Entry:
    """The ledger's line for a product or a convolution that torch computes."""
    measured = tuning.lock.entries[chosen.key]
    took = "" if measured.seconds is None else f", {measured.seconds * 1e6:.2f} us with all that follows"
    reason = f"the fastest of {measured.tried} that were measured on {measured.device or 'a device'} is torch's{took}"
    rule = "library-convolution" if isinstance(call, TorchConvolution) else "library-product"
    if isinstance(call, TorchConvolution) and call.scratch and call.dtype != "float32":
        reason += f"; its sums are rounded to {call.dtype} before what follows"
    return Entry(Kind.FIRED, "tuning", rule, tuple(node.origin), reason)
