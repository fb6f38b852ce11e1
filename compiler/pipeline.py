"""THE list of phases and passes for each target. Reading this file tells what the compiler does."""

from __future__ import annotations

from fusible.compiler.pass_files import load_entry_points
from fusible.compiler.targets import resolve_target
from fusible.passes.base import Pass, Phase
from fusible.passes.cancel_movements import cancel_casts, cancel_transposes, merge_reshapes
from fusible.passes.canonicalise import canonicalise
from fusible.passes.centre_zero_points import centre_zero_points
from fusible.passes.common_subexpressions import CommonSubexpressions
from fusible.passes.convert_precision import ConvertPrecision
from fusible.passes.convolve_bytes import convolve_bytes
from fusible.passes.copy_images import CopyImages
from fusible.passes.copy_results import CopyResults
from fusible.passes.dead_code import DeadCode
from fusible.passes.expand_results import ExpandResults
from fusible.passes.fold_batch_norm import fold_batch_norm
from fusible.passes.fold_channel_constants import fold_channel_constants
from fusible.passes.fold_constants import FoldConstants
from fusible.passes.fuse_elementwise import FuseElementwise
from fusible.passes.fuse_regions import FuseRegions
from fusible.passes.fuse_siblings import FuseSiblings
from fusible.passes.gather_tables import gather_tables
from fusible.passes.inline_constant_if import InlineConstantIf
from fusible.passes.inline_contradicted_if import InlineContradictedIf
from fusible.passes.inline_guarded_if import InlineGuardedIf
from fusible.passes.manager import Pipeline
from fusible.passes.merge_siblings import MergeSiblings
from fusible.passes.multiply_bytes import MultiplyBytes
from fusible.passes.note_requirements import NoteRequirements
from fusible.passes.range_by_rows import RangeByRows
from fusible.passes.recompose import recompose
from fusible.passes.shape_convolutions import shape_convolutions
from fusible.passes.simplify_shapes import SimplifyShapes
from fusible.passes.split_slices import SplitSlices
from fusible.passes.split_suppression import SplitSuppression
from fusible.passes.spread_group_norms import spread_group_norms
from fusible.passes.widen_pixels import widen_pixels

__all__ = ["pipeline"]


def pipeline(target: str = "auto", *, plugins: bool = True) -> Pipeline:
    """The default pipeline of a target, and what installed packages add to it (entry points `fusible.passes`).

    Raises UsageError for an unknown target or a plugin that fails.
    """
    target, _ = resolve_target(target)
    made = Pipeline.of(
        {
            Phase.IMPORT: [
                DeadCode(),
                NoteRequirements(),
                *([convolve_bytes, MultiplyBytes()] if target == "cpu" else []),
            ],
            Phase.CANONICAL: [  # a cycle: until nothing changes
                SimplifyShapes(),
                FoldConstants(),
                InlineConstantIf(),
                InlineGuardedIf(),
                InlineContradictedIf(),
                canonicalise,
                CommonSubexpressions(),
                cancel_casts,
                cancel_transposes,
                merge_reshapes,
                DeadCode(),
                NoteRequirements(),  # of ranks that are known by now
            ],
            Phase.OPTIMISE: [
                recompose(),
                fold_batch_norm,
                fold_channel_constants,
                gather_tables(),
                FoldConstants(),
                CommonSubexpressions(),
                DeadCode(),
            ],
            Phase.FUSE: _fusing(target),
            Phase.LOWER: _lowering(target),
        },
        cycles=[Phase.CANONICAL],
    )
    return load_entry_points(made) if plugins else made


def _fusing(target: str) -> list[Pass]:
    """What makes groups, and before it what brings nodes into the form in which the target's kernels take them."""
    if target == "numpy":
        return [FuseElementwise()]
    groups: list[Pass] = [FuseRegions(), FuseSiblings()]
    forms: list[Pass]
    if target == "cpu":
        forms = [SplitSuppression(), ExpandResults(), centre_zero_points, FoldConstants(), spread_group_norms]
        return [*forms, shape_convolutions(), MergeSiblings(), SplitSlices(), *groups]
    # Triton kernels. What is transposed or has one output channel becomes a product for them too: others would be sums
    # that read each element over and over. Steps for bands of rows, blocks and short lines are for CPUs alone.
    # Precision comes behind what makes new weights, before what groups nodes.
    forms = [spread_group_norms, RangeByRows(), ExpandResults(), centre_zero_points, FoldConstants()]
    forms += [shape_convolutions(short_lines=False), MergeSiblings(), SplitSlices()]
    # Weights stayed packed for kernels that unpack them; what found no such kernel is folded then.
    return [*forms, ConvertPrecision(), widen_pixels, DeadCode(), *groups, FoldConstants(grouped=True), DeadCode()]


def _lowering(target: str) -> list[Pass]:
    """What copies values for the sake of where they lie; devices have views of their own for outputs."""
    if target == "numpy":
        return []
    return [CopyImages(), CopyResults()] if target == "cpu" else [CopyImages()]
