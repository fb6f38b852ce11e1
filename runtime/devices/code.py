"""Code for a device, as plain data: kernels with their Triton source, and what was built of them.

A step `Launch(kernel, inputs, outputs, dims)` of a plan runs one of these kernels: `dims[0]` is the number of programs
(nothing runs for 0), the others are the kernel's numbers. Arguments are the addresses of inputs and outputs, of the
workspace if the kernel has one, then the numbers, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fusible.runtime.native.program import NativeCode

__all__ = ["DeviceCode", "DeviceImage", "DeviceKernel"]


@dataclass(frozen=True, slots=True)
class DeviceKernel:
    """One Triton kernel as it can be built anywhere.

    name: what plans call it. entry: the function in `source`, which is the text of a file. arguments: the names and
    types, in Triton's spelling, of pointers and then numbers. constants: what is fixed when it is built.
    divisibility: of an argument's address or value, where more than 1 is known. workspace: bytes of a program in memory
    that its stream has for it. Where there are any, two more pointers follow those of buffers: this memory, not
    initialised, and an int32 of each program, which the kernel finds at 0 and leaves at 0. alone: so many programs come
    first that have neither.

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
    scratch_bytes: int = 0
    sites: tuple[str, ...] = ()

    @property
    def own_pointers(self) -> int:
        """How many arguments are pointers to memory that the stream has for the kernel."""
        return 2 if self.workspace else 0


@dataclass(frozen=True, slots=True)
class DeviceImage:
    """A kernel built for one architecture. data: cubin or hsaco; symbol: the function in it.

    threads: of a program. shared: bytes of dynamic shared memory of a program. scratch: bytes of the two trailing
    scratch arguments that Triton's calling convention has, per program; 0 for none. overlaps: the kernel waits
    itself for the launch before it, so it may be launched before that has ended.
    """

    symbol: str
    data: bytes
    threads: int
    shared: int
    scratch: tuple[int, int] = (0, 0)
    overlaps: bool = False


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
        return {f"{kernel.name}.triton.py": kernel.source for kernel in self.kernels} | lowered
