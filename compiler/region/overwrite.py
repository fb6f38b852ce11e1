"""Which operands of a region its result may take the place of in memory."""

from __future__ import annotations

from fusible.compiler.region.region import Contract, Load, Region

__all__ = ["overwritable"]


def overwritable(region: Region) -> tuple[int, ...]:
    """The inputs whose buffer may also be that of the only output, whatever order the loops take.

    Each element of such an input is read only at the index at which the result is stored, so by the iterations that
    make that very element, and before they store it. A sum of products reads its operands when its kernel likes: they
    stay apart, and so does everything in regions of several of them.
    """
    if len(region.outputs) != 1 or len(region.stores) != 1 or len(region.contractions) > 1:
        return ()
    place = region.stores[0].map.components
    kernel_reads = {v for n in region.contractions if isinstance(s := region.stages[n], Contract) for v in s.args}
    found = {n: True for n, buffer in enumerate(region.inputs) if buffer == region.outputs[0]}
    read: set[int] = set()
    for position, stage in enumerate(region.stages):
        if isinstance(stage, Load) and stage.buffer in found:
            read.add(stage.buffer)
            if stage.map.components != place or region.first_values[position] in kernel_reads:
                found[stage.buffer] = False
    return tuple(n for n, fits in found.items() if fits and n in read)
