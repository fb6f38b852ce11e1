"""Several small regions as one kernel: the calling thread does them one after the other, the last one on all threads.

What a classifier or a squeeze-and-excitation does to a vector of channels (a mean over the image, a product, another)
takes a microsecond or two, about as long as to call the other threads; so it is done before they are called. The
results between stay in scratch memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.symbols import Dim, ceildiv, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region.region import Buffer, Group, Region

__all__ = ["Serial", "check_serial", "print_serial", "step_name"]

_MOST_TERMS = 2**16  # of the products of a step: weights of 256 KiB, which come from the cache in some microseconds
_MOST_POINTS = 2**17  # of other steps
_ALIGNMENT = 64


@dataclass(frozen=True)
class Serial:
    """A group whose regions run one after the other. overwritable: no input's place may be taken by the result."""

    group: Group

    @property
    def overwritable(self) -> tuple[int, ...]:
        """Every step reads its operands after others have written."""
        return ()


def check_serial(group: Group) -> Serial:
    """The group, if every step but the last is small as far as sizes are known. Raises NotPrintable."""
    for step in group.steps[:-1]:
        _check_small(step.region)
    if any(buffer.dtype is DType.STRING for buffer in _between(group)):
        raise NotPrintable("strings lie between its regions")
    if not any(_is_vector(buffer) for buffer in _between(group)):
        raise NotPrintable("it has images between its regions, not vectors")
    return Serial(group)


def _between(group: Group) -> Sequence[Buffer]:
    return group.buffers[group.inputs + group.outputs :]


def _is_vector(buffer: Buffer) -> bool:
    """True if at most one dimension is above 1, not counting a number of images or rows that is known at the call."""
    first = buffer.shape[:1] if len(buffer.shape) > 1 and isinstance(buffer.shape[0], int) else ()
    return sum(extent != 1 for extent in (*first, *buffer.shape[1:])) <= 1


def _most(region: Region) -> int:
    return _MOST_TERMS if region.contractions else _MOST_POINTS


def _check_small(region: Region) -> None:
    most = _most(region)
    if prod(extent for extent in region.extents if isinstance(extent, int)) > most:
        raise NotPrintable(f"a region before its last one has more than {most} points, too many for one thread")


def _bytes(buffer: Buffer) -> Dim:
    return ceildiv(product(buffer.shape) * buffer.dtype.numpy.itemsize, _ALIGNMENT) * _ALIGNMENT


def print_serial(
    serial: Serial, steps: Sequence[tuple[str | Dim, ...]], name: str
) -> tuple[str, tuple[str | Dim, ...]]:
    """The C text up to the exported function `name`, and what it takes as `dims`.

    It calls the kernels of its steps, which are functions of their own, as `step_name(n)`. steps: what each takes as
    `dims`.
    """
    group, calls = serial.group, []
    offsets = _offsets(group)
    points = [_unknown_points(step.region) for step in group.steps[:-1]]
    first = len(offsets) + len(points)
    places = [f"buffers[{n}]" for n in range(group.inputs + group.outputs)]
    places += [f"(char *)scratch + dims[{n}]" for n in range(len(offsets) - 1)]
    for number, (dims, step) in enumerate(zip(steps, group.steps, strict=True)):
        buffers = ", ".join(places[n] for n in (*step.inputs, *step.outputs))
        many = f"dims[{len(offsets) + number}] > {_most(step.region)}"
        pool = "pool" if number == len(points) else f"{many} ? pool : NULL"
        calls.append(f"{step_name(number)}({pool}, (void *const[]){{{buffers}}}, dims + {first}, error);")
        first += len(dims)
    lines = [
        "float *scratch;",
        f"if (!scratch_get(&scratch, dims[{len(offsets) - 1}] / 4, error)) return;",
        *calls,
        "scratch_give(scratch);",
    ]
    known = [f"EXPORT void {step_name(n)}({_PARAMETERS});" for n in range(len(steps))]
    text = [*known, f"EXPORT void {name}({_PARAMETERS}) {{", *(f"    {line}" for line in lines), "}", ""]
    return "\n".join(text), (*offsets, *points, *(d for dims in steps for d in dims))


_PARAMETERS = "struct pool *pool, void *const *buffers, const int64_t *dims, int *error"


def step_name(number: int) -> str:
    """The name that a step's kernel has in the text, to be replaced by its own."""
    return f"fusible_step{number}_kernel"


def _unknown_points(region: Region) -> Dim:
    """The points of a step whose sizes are known at the call only, 0 of others: many are for all threads."""
    points = product(region.extents)
    return 0 if isinstance(points, int) else points


def _offsets(group: Group) -> list[Dim]:
    """Where each buffer between the steps begins in the scratch memory, and the size of it all, in bytes."""
    found: list[Dim] = [0]
    for buffer in _between(group):
        found.append(found[-1] + _bytes(buffer))
    return found
