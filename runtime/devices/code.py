"""Code for a device, as plain data: kernels with their Triton source, and what was built of them.

A step `Launch(kernel, inputs, outputs, dims)` of a plan runs one of these kernels: `dims[0]` is the number of programs
(nothing runs for 0), the others are the kernel's numbers. Arguments are the addresses of inputs and outputs, of the
workspace if the kernel has one, then the numbers, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from fusible.runtime.devices.convolution import TorchCall, torch_call_from_json
from fusible.runtime.devices.facts import Facts, damaged
from fusible.runtime.native.program import NativeCode

__all__ = ["SIZES", "DeviceCode", "DeviceImage", "DeviceKernel", "TensorBlock", "TensorMap"]

SIZES = ("sizes", "*i64")
"""The argument of a kernel that reads its numbers from memory."""

_LEAST_CONSTANT = -(1 << 63)


@dataclass(frozen=True, slots=True)
class TensorBlock:
    """A tensor in memory of which a kernel fetches blocks by a descriptor (`tl.make_tensor_descriptor`).

    name: of the descriptor in the kernel's text. argument: the pointer that it is made of; offset: elements from there
    to its first. shape, strides: in elements, the last stride is 1; the first size is 0 where it is known in a run
    only: as many as the memory holds. block: the shape of what is fetched at once.
    """

    name: str
    argument: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    block: tuple[int, ...]

    def sizes(self, nbytes: int, itemsize: int) -> tuple[int, ...]:
        """The shape in memory of `nbytes` from the pointer on, in which the last row need not be whole."""
        first, *others = self.shape
        return (first or -(-(nbytes // itemsize - self.offset) // self.strides[0]), *others)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> TensorBlock:
        """What `asdict` and JSON made of one. Raises ArtifactError."""
        facts = Facts.of("a descriptor", data)
        facts.only([f.name for f in fields(TensorBlock)])
        rank = len(facts.items("shape"))
        shape, strides = facts.numbers("shape", rank), facts.numbers("strides", rank, 1)
        if rank == 0 or 0 in shape[1:] or strides[-1] != 1:
            raise damaged("a descriptor", f"its shape is {shape} and its strides are {strides}")
        block = facts.numbers("block", rank, 1)
        return TensorBlock(facts.text("name"), facts.text("argument"), facts.number("offset"), shape, strides, block)


@dataclass(frozen=True, slots=True)
class TensorMap:
    """A descriptor that the host makes for each launch: the kernel takes it as a parameter, in place of making it.

    box: what the tensor memory accelerator copies at once. kind, swizzle: numbers of the driver's CUtensorMapDataType
    and CUtensorMapSwizzle. itemsize: bytes of an element.
    """

    tensor: TensorBlock
    box: tuple[int, ...]
    kind: int
    swizzle: int
    itemsize: int

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> TensorMap:
        """What `asdict` and JSON made of one. Raises ArtifactError."""
        facts = Facts.of("a descriptor of an image", data)
        facts.only([f.name for f in fields(TensorMap)])
        tensor = TensorBlock.from_json(facts.get("tensor"))
        box = facts.numbers("box", len(tensor.shape), 1)
        return TensorMap(tensor, box, facts.number("kind"), facts.number("swizzle"), facts.number("itemsize", 1))


@dataclass(frozen=True, slots=True)
class DeviceKernel:
    """One Triton kernel as it can be built anywhere.

    name: what plans call it. entry: the function in `source`, which is the text of a file. arguments: the names and
    types, in Triton's spelling, of pointers and then numbers. constants: what is fixed when it is built.
    divisibility: of an argument's address or value, where more than 1 is known. workspace: bytes of a program in memory
    that its stream has for it. Where there are any, two more pointers follow those of buffers: this memory, not
    initialised, and an int32 of each program, which the kernel finds at 0 and leaves at 0. alone: so many programs come
    first that have neither. fixed: bytes of arguments that are constants of the model, so that they can be fetched
    before the kernel's turn has come. serial: it begins when its predecessor has ended. tensors: of which the text
    makes descriptors, each on a line of its own at the head of the function.

    product: a product of matrices or a convolution that torch computes first; `source` is then what is launched behind
    it, perhaps nothing (""), and `arguments` are its arguments, the product's own result among them.

    Of the kernel lowered to C: scratch_bytes: what each thread needs for tiles. sites: in checking mode, the operations
    that findings name by number, as people should read them.
    """

    name: str
    entry: str
    source: str
    arguments: tuple[tuple[str, str], ...]
    constants: Mapping[str, int] = field(default_factory=dict)
    divisibility: Mapping[str, int] = field(default_factory=dict)
    warps: int = 4
    stages: int = 1
    workspace: int = 0
    alone: int = 0
    fixed: Mapping[str, int] = field(default_factory=dict)
    serial: bool = False
    tensors: tuple[TensorBlock, ...] = ()
    scratch_bytes: int = 0
    sites: tuple[str, ...] = ()
    product: TorchCall | None = None
    sizes: tuple[tuple[str, str], ...] | None = None

    @property
    def own_pointers(self) -> int:
        """How many arguments are pointers to memory that the stream has for the kernel."""
        return 2 if self.workspace else 0

    @property
    def numbers(self) -> tuple[tuple[str, str], ...]:
        """The names and types of what `dims[1:]` of a launch are."""
        if self.sizes is not None:
            return self.sizes
        return tuple(each for each in self.arguments if not each[1].startswith("*"))

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> DeviceKernel:
        """What `asdict` and JSON made of one. Raises ArtifactError."""
        facts = Facts.of("a kernel", data)
        facts = Facts(f"the kernel {facts.text('name')!r}", data)
        facts.only([f.name for f in fields(DeviceKernel)])
        arguments = tuple(_argument(facts, each) for each in facts.items("arguments"))
        names = [name for name, _ in arguments]
        workspace = facts.number("workspace")
        sizes = None if facts.get("sizes") is None else tuple(_argument(facts, each) for each in facts.items("sizes"))
        buffers = sum(type_.startswith("*") for _, type_ in arguments) - (2 if workspace else 0) - (sizes is not None)
        if sizes is not None and arguments[max(buffers, 0) :][:1] != (SIZES,):
            raise damaged(facts.what, "it reads its sizes from memory, and no argument points there")
        tensors = tuple(map(TensorBlock.from_json, facts.items("tensors")))
        if unknown := [t.argument for t in tensors if t.argument not in names[: max(buffers, 0)]]:
            raise damaged(facts.what, f"a descriptor is of {unknown[0]!r}, which is no buffer of it")
        product = facts.get("product")
        constants = Facts.of(f"constants of {facts.what}", facts.get("constants"))
        return DeviceKernel(
            name=facts.text("name"),
            entry=facts.text("entry"),
            source=facts.text("source"),
            arguments=arguments,
            constants={name: constants.number(name, _LEAST_CONSTANT) for name in constants.fields},
            divisibility=facts.numbers_of("divisibility", names, 1),
            warps=facts.number("warps", 1),
            stages=facts.number("stages"),
            workspace=workspace,
            alone=facts.number("alone"),
            fixed=facts.numbers_of("fixed", names),
            serial=facts.flag("serial"),
            tensors=tensors,
            scratch_bytes=facts.number("scratch_bytes"),
            sites=facts.texts("sites"),
            product=None if product is None else torch_call_from_json(product, buffers),
            sizes=sizes,
        )


def _argument(facts: Facts, data: Any) -> tuple[str, str]:
    if not isinstance(data, (list, tuple)) or len(data) != 2 or not all(isinstance(each, str) for each in data):
        raise damaged(facts.what, "an argument is no name with a type")
    return data[0], data[1]


@dataclass(frozen=True, slots=True)
class DeviceImage:
    """A kernel built for one architecture. data: cubin or hsaco; symbol: the function in it.

    threads: of a program. shared: bytes of dynamic shared memory of a program. scratch: bytes of the two trailing
    scratch arguments that Triton's calling convention has, per program; 0 for none. overlaps: the kernel waits
    itself for the launch before it, so it may be launched before that has ended. maps: parameters behind the numbers.
    """

    symbol: str
    data: bytes
    threads: int
    shared: int
    scratch: tuple[int, int] = (0, 0)
    overlaps: bool = False
    maps: tuple[TensorMap, ...] = ()

    @staticmethod
    def from_json(data: Mapping[str, Any], code: bytes, kernel: DeviceKernel) -> DeviceImage:
        """What `asdict` and JSON made of one, but for its data. kernel: what it was built of. Raises ArtifactError."""
        facts = Facts.of(f"an image of the kernel {kernel.name!r}", data)
        facts.only([f.name for f in fields(DeviceImage)])
        device, profile = facts.numbers("scratch", 2)
        maps = tuple(map(TensorMap.from_json, facts.items("maps")))
        names = [name for name, type_ in kernel.arguments if type_.startswith("*")]
        if unknown := [m.tensor.argument for m in maps if m.tensor.argument not in names]:
            raise damaged(facts.what, f"a descriptor is of {unknown[0]!r}, which is no buffer of the kernel")
        threads, shared = facts.number("threads", 1), facts.number("shared")
        return DeviceImage(facts.text("symbol"), code, threads, shared, (device, profile), facts.flag("overlaps"), maps)


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """The kernels of an executable. images: by target (`cuda:sm_90`), then by kernel.

    host: the kernels lowered to C, for the target triton-cpu: function name = kernel name; its sources include tile.h.
    checked: that C checks each access (slow). builder: `module:function` of what builds the kernels for another target,
    as function(code, target, cache_dir) -> DeviceCode with images for it; empty if nothing does.
    """

    kernels: tuple[DeviceKernel, ...]
    images: Mapping[str, Mapping[str, DeviceImage]] = field(default_factory=dict)
    host: NativeCode | None = None
    checked: bool = False
    builder: str = ""

    @property
    def sources(self) -> dict[str, str]:
        """The text of every kernel by file name: in Triton, and in C where it was lowered."""
        lowered = {} if self.host is None else dict(self.host.sources)
        return {f"{kernel.name}.triton.py": kernel.source for kernel in self.built} | lowered

    @property
    def built(self) -> tuple[DeviceKernel, ...]:
        """The kernels that there is something to build of: not those that are a call of torch alone."""
        return tuple(kernel for kernel in self.kernels if kernel.source)
