"""A region around one convolution: convolution.h, winograd.h or depthwise.h, the rest of the region in their hook.

What kind of convolution it is, and its geometry, is read off the index map of the left operand, which must be stored
channels last; the weights are constant and packed when the model is compiled.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from fusible.compiler.backends.cpu.c_body import Body, axis_names, shape_symbols
from fusible.compiler.backends.cpu.c_call import call_fields, call_members, check_elements
from fusible.compiler.backends.cpu.c_dims import Names, c_dim
from fusible.compiler.backends.cpu.c_expr import Code, Kind
from fusible.compiler.backends.cpu.c_start import print_start, start_of
from fusible.compiler.backends.cpu.nest import Nest, NotPrintable, nest_of
from fusible.compiler.backends.cpu.windows import Geometry, geometry_of
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.region.region import Contract, Load, Region, operands_of
from fusible.kernels.cpu.convolution_plan import plan_convolution, plan_depthwise, plan_winograd
from fusible.kernels.cpu.convolution_weights import pack_convolution, pack_depthwise
from fusible.kernels.cpu.winograd import pack_winograd

__all__ = ["Convolution", "convolution_of", "packed_weights", "print_convolution"]


_WINOGRAD_FIELDS = frozenset(
    {"images", "height", "width", "channels", "outputs", "pad_top", "pad_left", "out_height", "out_width",
     "image_stride", "row_stride", "pixel_stride"}
)  # fmt: skip
_LEAST_CHANNELS = 16  # below, the transforms cost more than the products that they save
_LARGE_IMAGE, _SMALL_IMAGE = 100, 36  # output pixels from which tiles of 4 x 4, and of 2 x 2, pay


@dataclass(frozen=True)
class Convolution:
    """A convolution in a nest.

    left, right: the stages that load its operands; buffer: the input with the weights; winograd: the size of the tiles
    of outputs, 2 or 4, if it is computed by Winograd's algorithm, else 0.
    """

    nest: Nest
    contract: int
    left: int
    right: int
    geometry: Geometry
    buffer: int
    winograd: int

    @property
    def kind(self) -> str:
        """The kernel, as its struct is called."""
        return "depthwise" if self.geometry.depthwise else "winograd" if self.winograd else "convolution"


def convolution_of(region: Region, constants: Collection[int], *, exact: bool = False) -> Convolution:
    """The convolution that a region is built around. Raises NotPrintable.

    constants: the inputs that are known at compile time. exact: no algorithm that rounds otherwise than the sum does.
    """
    if len(region.contractions) != 1:
        raise NotPrintable("it has several contractions")
    position = region.contractions[0]
    contract = region.stages[position]
    assert isinstance(contract, Contract)
    loads = [region.first_values.index(value) for value in contract.args]
    if len(loads) != 2 or not all(isinstance(region.stages[n], Load) for n in loads):
        raise NotPrintable("an operand of its convolution is computed in the region")
    left, right = loads
    weights = region.stages[right]
    assert isinstance(weights, Load)
    if weights.buffer not in constants or weights.map.bounds:
        raise NotPrintable("the weights of its convolution are no constant")
    geometry = geometry_of(region, left, right, contract)
    hidden = (left, right)
    nest = nest_of(region, contraction=position, aside=hidden, vector=geometry.column, rows=geometry.rows)
    return Convolution(nest, position, left, right, geometry, weights.buffer, 0 if exact else _winograd(geometry))


def _winograd(g: Geometry) -> int:
    """The size of Winograd's tiles: 4 where an image has many, 2 where there are few and 4 would waste most of them."""
    plain = g.kernel == (3, 3) and g.strides == (1, 1) and g.dilations == (1, 1) and g.groups == 1
    if not plain or min(g.channels, g.outputs) < _LEAST_CHANNELS:
        return 0
    if not isinstance(g.out_height, int) or not isinstance(g.out_width, int):
        return 0
    pixels = g.out_height * g.out_width
    return 4 if pixels >= _LARGE_IMAGE else 2 if pixels >= _SMALL_IMAGE else 0


def packed_weights(convolution: Convolution, array: np.ndarray) -> np.ndarray:
    """The weights as the kernel reads them, 1-D float32. array: [O, C / groups, KH, KW]."""
    if convolution.geometry.depthwise:
        return pack_depthwise(array).reshape(-1)
    if convolution.winograd:
        return pack_winograd(array, convolution.winograd)
    return pack_convolution(array, convolution.geometry.groups)


def print_convolution(
    region: Region, convolution: Convolution, name: str, threads: int, lanes: int
) -> tuple[str, tuple[str | int, ...]]:
    """The C text of a region around a convolution, up to the exported function `name`, and what it takes as `dims`.

    Raises NotPrintable.
    """
    printer = _Printer(region, convolution, name, threads, lanes)
    text = printer.text()
    return text, (*printer.symbols, *printer.numbers)


class _Printer:
    def __init__(self, region: Region, convolution: Convolution, name: str, threads: int, lanes: int) -> None:
        self.region, self.convolution, self.name = region, convolution, name
        self.nest, self.geometry = convolution.nest, convolution.geometry
        self.threads, self.lanes = threads, lanes
        check_elements(region)
        self.symbols = shape_symbols(self.nest)
        self.numbers: list[int] = []
        self.names = Names(axis_names(self.nest), "c->n", self.numbers)
        self.start = start_of(self.nest, convolution.contract, self.geometry.column)

    def text(self) -> str:
        """Everything."""
        functions = [self._start(), self._finish(), self._task()]
        export = self._export()
        return "\n\n".join([self._structure(), *filter(None, functions), export]) + "\n"

    def _start(self) -> str:
        if self.start is None:
            return ""
        head = [f"const struct {self.name}_call *c = context;"]
        return print_start(self.nest, self.start, self.name, self.geometry.column, head, self.names)

    def _structure(self) -> str:
        members = call_members(self.region, self.symbols, len(self.numbers))
        kernel = [f"    struct {self.convolution.kind} kernel;", "    char *scratch;", "    long scratch_size;"]
        lines = [*members, *kernel]
        return "\n".join([f"struct {self.name}_call {{", *lines, "    struct pool *pool;", "    int *error;", "};"])

    def _finish(self) -> str:
        """The hook: every stage but the product and its operands, for one vector of channels of a pixel."""
        c = self.convolution
        value = self.region.first_values[c.contract] if self.start is None else self.start.value
        body = Body(self.nest, {value: Code("value", Kind.FLOAT, True)}, self.names)
        hidden = {c.contract, c.left, c.right}
        hidden |= set() if self.start is None else {self.start.total, self.start.bias}
        operands = {self.region.first_values[c.left], self.region.first_values[c.right]}
        for position, stage in enumerate(self.region.stages):
            if position not in hidden and operands & set(operands_of(stage)):
                raise NotPrintable("an operand of its convolution is used elsewhere in the region")
        body.stages(n for n in range(len(self.region.stages)) if n not in hidden)
        for number in range(len(self.region.stores)):
            body.store(number)
        column = self.geometry.column
        lines = [
            f"const struct {self.name}_call *c = context;",
            f"const long i{column} = column;",
            f"(void)c, (void)row, (void)i{column};",
            *self._rows(),
            *body.lines,
        ]
        head = f"INLINE void {self.name}_finish(const void *context, vf value, long row, long column, long lanes) {{"
        return "\n".join([head, *(f"    {line}" for line in lines), "}"])

    def _rows(self) -> list[str]:
        """The axes of a pixel, taken out of its number."""
        axes = [a for a in self.nest.outer if a != self.geometry.column and self.nest.extents[a] is not None]
        lines = ["long rest = row;"] if axes else []
        for number, axis in enumerate(reversed(axes)):
            extent = self.nest.extents[axis]
            assert extent is not None
            whole = number == len(axes) - 1
            lines.append(f"const long i{axis} = rest{'' if whole else f' % {c_dim(extent, self.names)}'};")
            lines += [] if whole else [f"rest /= {c_dim(extent, self.names)};"]
            lines.append(f"(void)i{axis};")
        return lines

    def _task(self) -> str:
        kind, tile = self.convolution.kind, self._tile()
        scratch = "" if self.geometry.depthwise else ", c->scratch + pool_thread(c->pool) * c->scratch_size"
        start = "start_zero" if self.start is None else f"{self.name}_start"
        call = f"{kind}_item({tile}&c->kernel, item{scratch}, {start}, {self.name}_finish, c);"
        head = f"static void {self.name}_task(void *context, long item) {{"
        return "\n".join([head, f"    const struct {self.name}_call *c = context;", f"    {call}", "}"])

    def _tile(self) -> str:
        return f"{self.convolution.winograd}, " if self.convolution.winograd else ""

    def _export(self) -> str:
        g, names = self.geometry, Names(axis_names(self.nest, "call."), "call.n", self.numbers)
        kind, tile = self.convolution.kind, self._tile()
        # depthwise.h has code of its own for each kernel and stride, so these stay numbers.
        literal = Names(names)
        kept = {n for n in g.fields() if n.startswith(("kernel", "stride", "dilation"))} if g.depthwise else set()
        sizes = {n: v for n, v in g.fields().items() if not self.convolution.winograd or n in _WINOGRAD_FIELDS}
        sizes |= self._plan()
        values = {n: c_dim(v, literal if n in kept else names) for n, v in sizes.items()}
        listed = ", ".join(f".{n} = {v}" for n, v in values.items())
        left = self.region.stages[self.convolution.left]
        assert isinstance(left, Load)
        weights = "panels" if kind == "convolution" else "weights"
        first = f" + {c_dim(g.first, names)}" if g.first else ""
        operands = f".x = call.x{left.buffer}{first}, .{weights} = call.x{self.convolution.buffer}"
        fields = call_fields(self.region, self.symbols, len(self.numbers))
        lines = [f"struct {self.name}_call call = {{{', '.join([*fields, '.pool = pool', '.error = error'])}}};"]
        lines += ["(void)dims;", f"call.kernel = (struct {kind}){{{operands}, {listed}}};"]
        if g.depthwise:
            lines.append(f"pool_run(pool, {self.name}_task, &call, depthwise_items(&call.kernel));")
        else:
            lines += [
                f"call.scratch_size = ({kind}_scratch_bytes({tile}&call.kernel) + 63) / 64 * 64;",
                "float *scratch;",
                "if (!scratch_get(&scratch, call.scratch_size / 4 * pool_threads(pool), error)) return;",
                "call.scratch = (char *)scratch;",
                f"pool_run(pool, {self.name}_task, &call, {kind}_items({tile}&call.kernel));",
                "scratch_give(scratch);",
            ]
        head = f"EXPORT void {self.name}(struct pool *pool, void *const *buffers, const int64_t *dims, int *error) {{"
        return "\n".join([head, *(f"    {line}" for line in lines), "}"])

    def _plan(self) -> dict[str, Dim]:
        """How the work is cut, from sizes that are literal; a symbolic one counts as 1."""
        g = self.geometry
        images, oh, ow, width = (d if isinstance(d, int) else 1 for d in (g.images, g.out_height, g.out_width, g.width))
        if g.depthwise:
            cut = plan_depthwise(oh, width, g.groups, g.kernel[0], images=images, threads=self.threads)
            return {"rows_per_item": cut.rows, "channels_per_item": cut.channels}
        if m := self.convolution.winograd:
            tiles = -(-oh // m) * -(-ow // m)
            plan = plan_winograd(
                m, tiles, g.channels, g.outputs, images=images, threads=self.threads, lanes=self.lanes
            )
            return {"tiles_per_item": plan.band, "panels_per_item": plan.panels}
        plan = plan_convolution(
            oh * ow, g.kernel[0] * g.kernel[1] * g.channels, g.outputs, images=images * g.groups, threads=self.threads,
            lanes=self.lanes,
        )  # fmt: skip
        return {"band": plan.band, "panels_per_item": plan.panels}
