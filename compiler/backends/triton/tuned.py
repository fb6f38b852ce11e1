"""Which of a kernel's configurations is printed: what a lockfile has under its key, else the static model's choice.

The key of a kernel says all that decides how fast a configuration is, and nothing that differs between processes,
machines or models: what kind of kernel it is, the target, how products are multiplied, and the digest of the region's
text, in which sizes and element types stand, with its shape symbols renamed and their bounds. Where 8-bit floats occur
it says also if matrix units shall not multiply them, as other targets of the same kernels may lack such units.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.anonymous import anonymous
from fusible.compiler.backends.triton.dequantised import multiplies_floats8
from fusible.compiler.backends.triton.designs import AnyDesign
from fusible.compiler.backends.triton.f32_products import TF32X3
from fusible.compiler.backends.triton.printer import Chosen, PrintedKernel
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.symbols import bounds_of
from fusible.compiler.ir.types import DType
from fusible.compiler.region.region import Region
from fusible.compiler.region.text import region_text
from fusible.compiler.tuning import Config, Source, TuningLock
from fusible.errors import UsageError

__all__ = ["Tuning", "kernel_key"]

_DIGITS = 24
_FLOATS8 = frozenset({DType.F8E4M3FN, DType.F8E5M2})


def kernel_key(
    kind: str, region: Region, constants: Collection[int], precision: str, target: str, *, floats8: bool = True
) -> str:
    """The key of a kernel in lockfiles.

    constants: the inputs whose content is known. floats8: matrix units of what it is printed for multiply 8-bit floats.
    """
    renamed, symbols = anonymous(region)
    bounds = [(name, *bounds_of(dim)) for name, dim in symbols.items()]
    facts = [region_text(renamed), bounds, sorted(constants)]
    if not floats8 and any(buffer.dtype in _FLOATS8 for buffer in region.inputs):
        facts.append("8-bit floats are converted")
    text = json.dumps(facts)
    return f"{target} {kind} {precision} {hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}"


@dataclass(frozen=True, slots=True)
class Tuning:
    """What kernels of a target look up. path: of the lockfile, for errors; precision: of products of f32.

    A kernel that multiplies no f32, or few, has the same key whether or not products of f32 are split in three.
    """

    target: str
    precision: str
    lock: TuningLock
    path: str = ""

    def kernel(
        self, design: AnyDesign, region: Region, constants: Sequence[int], nodes: Sequence[Node]
    ) -> PrintedKernel:
        """The kernel of some nodes, whose region it is. Raises NotPrintable, UsageError for what cannot be built so."""
        floats8 = multiplies_floats8(design.target)
        precision = design.precision if self.precision == TF32X3 else self.precision
        key = kernel_key(design.kind, region, constants, precision, self.target, floats8=floats8)
        known = self.lock.entries.get(key)
        if known is None:
            config, source, printed = design.static_config(), Source.STATIC, design.by_static()
        else:
            config, source = known.config, known.source
            printed = self._configured(key, design, config, nodes)
        return replace(printed, chosen=Chosen(key, config, source, tuple(constants)))

    def has(self, key: str) -> bool:
        """True if the lockfile chooses the configuration of a kernel."""
        return key in self.lock.entries

    def refusal(self, key: str, where: str, why: str) -> UsageError:
        """The error for an entry that cannot be followed."""
        return UsageError(
            f"the tuning lockfile {self.path!r} has a configuration for {where} that cannot be: {why}; remove the "
            f"entry {key!r}, or tune the model anew"
        )

    def _configured(self, key: str, design: AnyDesign, config: Config, nodes: Sequence[Node]) -> PrintedKernel:
        try:
            return design.by_config(config)
        except (NotPrintable, ValueError) as error:
            raise self.refusal(key, ", ".join(node.where for node in nodes), str(error)) from error
