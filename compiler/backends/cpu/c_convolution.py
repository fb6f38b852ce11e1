"""A region around one convolution: convolution.h, planar.h, winograd.h, depthwise.h; the rest of it in their hook.

What kind of convolution it is, and its geometry, is read off the index map of the left operand, which must be stored
channels last, or have few channels; the weights are constant and packed when the model is compiled.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusible.compiler.backends.cpu.c_body import Body, names_of, shape_symbols
from fusible.compiler.backends.cpu.c_call import call_fields, call_members, check_elements, own_call
from fusible.compiler.backends.cpu.c_dims import Names, c_dim
from fusible.compiler.backends.cpu.c_kinds import Code, Kind
from fusible.compiler.backends.cpu.c_literals import Literals
from fusible.compiler.backends.cpu.c_start import print_start, start_of
from fusible.compiler.backends.cpu.lines import line_fields, line_taps
from fusible.compiler.backends.cpu.nest import Nest, NotPrintable, check_packed, check_products, nest_of
from fusible.compiler.backends.cpu.precision import Products, winograd_beats_bf16
from fusible.compiler.backends.cpu.windows import Geometry, geometry_of
from fusible.compiler.ir.assumed import assumed_size
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Arg, Convert
from fusible.compiler.region.region import Contract, Load, Map, Region, operands_of
from fusible.kernels.cpu.convolution_weights import (
    pack_convolution,
    pack_convolution_bf16,
    pack_convolution_bytes,
    pack_depthwise,
    pack_planar_bf16,
)
from fusible.kernels.cpu.winograd import pack_winograd, pack_winograd_line

__all__ = [
    "Convolution",
    "ConvolutionPrinter",
    "convolution_of",
    "packed_weights",
    "print_convolution",
    "row_axes",
]


_WINOGRAD_FIELDS = frozenset(
    {"images", "height", "width", "channels", "outputs", "pad_top", "pad_left", "out_height", "out_width",
     "image_stride", "row_stride", "pixel_stride"}
)  # fmt: skip
_NOT_PLANAR = frozenset({"groups", "channels", "dilation_y", "dilation_x", "pixel_stride"})
# Items of these leave a block of tiles or a band to the next one.
_KEPT = ("winograd", "winograd_line", "convolution_bf16", "convolution_bytes")
_LEAST_CHANNELS = 16  # below, the transforms cost more than the products that they save
_LARGE_IMAGE, _SMALL_IMAGE = 100, 36  # output pixels from which tiles of 4 x 4, and of 2 x 2, pay


@dataclass(frozen=True)
class Convolution:
    """A convolution in a nest.

    left, right: the stages that load its operands; buffer: the input with the weights; winograd: the size of the tiles
    of outputs, 2 or 4, if it is computed by Winograd's algorithm, else 0; line: the taps, 3 or 5, if it is computed so
    along lines; bf16: it was asked to multiply so; bytes: it adds up products of bytes in int32; fill: its padding;
    widened: the stages that make int32 of its operands.
    """

    nest: Nest
    contract: int
    left: int
    right: int
    geometry: Geometry
    buffer: int
    winograd: int
    line: int = 0
    bf16: bool = False
    bytes: bool = False
    fill: int = 0
    widened: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """The kernel, as its functions are called."""
        if self.geometry.depthwise:
            return "depthwise"
        if self.winograd or self.line:
            return "winograd" if self.winograd else "winograd_line"
        planar = self.geometry.planes > 1
        if self.bytes:
            return "convolution_bytes"
        if planar and self.geometry.dilations != (1, 1):
            return "convolution"
        return ("planar" if planar else "convolution") + ("_bf16" if self.bf16 else "")

    @property
    def products(self) -> Products:
        """Whether it multiplies in bf16, if that was asked for."""
        reasons = {
            "depthwise": "depthwise convolutions: each weight meets one channel",
            "winograd": "convolutions that are faster by Winograd's algorithm in fp32",
            "convolution": "dilated convolutions of an image stored channels first",
        }
        if not self.bf16 or self.bytes:
            return Products()
        return Products(1) if self.kind.endswith("_bf16") else Products(0, (reasons[self.kind],))


def convolution_of(
    region: Region, constants: Collection[int], *, exact: bool = False, bf16: bool = False
) -> Convolution:
    """The convolution that a region is built around. Raises NotPrintable.

    constants: the inputs that are known at compile time. exact: no algorithm that rounds otherwise than the sum does.
    bf16: multiply so, unless another algorithm is faster in fp32.
    """
    if len(region.contractions) != 1:
        raise NotPrintable("it has several contractions")
    position = region.contractions[0]
    contract = region.stages[position]
    assert isinstance(contract, Contract)
    if contract.dtype is DType.I32:
        return _convolution_of_bytes(region, position, contract, constants)
    check_products(region)
    loads = [region.first_values.index(value) for value in contract.args]
    if len(loads) != 2 or not all(isinstance(region.stages[n], Load) for n in loads):
        raise NotPrintable("an operand of its convolution is computed in the region")
    left, right = loads
    weights = region.stages[right]
    assert isinstance(weights, Load)
    if weights.buffer not in constants or weights.map.bounds:
        raise NotPrintable("the weights of its convolution are no constant")
    check_packed(region, right)
    geometry = geometry_of(region, left, right, contract)
    hidden = (left, right)
    nest = nest_of(region, contraction=position, aside=hidden, vector=geometry.column, rows=geometry.rows)
    _check_axes(nest, geometry)
    winograd, line = (0, 0) if exact else (_winograd(geometry), line_taps(geometry))
    if bf16:  # along a line there are half the products, which pairs make up for
        winograd, line = winograd if winograd and winograd_beats_bf16(geometry, winograd) else 0, 0
    return Convolution(nest, position, left, right, geometry, weights.buffer, winograd, line, bf16)


def _convolution_of_bytes(
    region: Region, position: int, contract: Contract, constants: Collection[int]
) -> Convolution:
    """A convolution of an image of uint8 and filters of int8, both widened to int32. Raises NotPrintable."""
    widened = tuple(region.first_values.index(value) for value in contract.args)
    loads = [_widened(region, n) for n in widened]
    if len(loads) != 2 or None in loads:
        raise NotPrintable("an operand of its convolution is computed in the region")
    left, right = (n for n in loads if n is not None)
    image, weights = region.stages[left], region.stages[right]
    assert isinstance(image, Load) and isinstance(weights, Load)
    types = [region.inputs[stage.buffer].dtype for stage in (image, weights)]
    if types != [DType.U8, DType.I8] or weights.buffer not in constants or weights.map.bounds:
        raise NotPrintable("its contraction is no convolution of bytes with constant weights")
    check_packed(region, right)
    geometry = geometry_of(region, left, right, contract)
    if geometry.planes > 1 or geometry.depthwise:
        raise NotPrintable("it reads one channel at a time, where bytes are multiplied in fours")
    hidden = (left, right, *widened)
    nest = nest_of(region, contraction=position, aside=hidden, vector=geometry.column, rows=geometry.rows)
    _check_axes(nest, geometry)
    fill = int(image.map.fill or 0) if image.map.bounds else 0
    return Convolution(
        nest, position, left, right, geometry, weights.buffer, 0, bytes=True, fill=fill, widened=widened
    )  # fmt: skip


def _widened(region: Region, position: int) -> int | None:
    """The load that a stage makes int32 of."""
    match region.stages[position]:
        case Map(Convert(Arg(value), DType.I32), DType.I32):
            load = region.first_values.index(value)
            return load if isinstance(region.stages[load], Load) else None
    return None


def _check_axes(nest: Nest, geometry: Geometry) -> None:
    known = {geometry.column, *geometry.rows}
    if any(a not in known and nest.extents[a] not in (None, 1) for a in nest.outer):
        raise NotPrintable("its result is broadcast along an axis that is none of the image's")


def _winograd(g: Geometry) -> int:
    """The size of Winograd's tiles: 4 where an image has many, 2 where there are few and 4 would waste most of them."""
    plain = g.kernel == (3, 3) and g.strides == (1, 1) and g.dilations == (1, 1) and g.groups == 1
    if not plain or min(g.channels, g.outputs) < _LEAST_CHANNELS:
        return 0
    pixels = assumed_size(g.out_height) * assumed_size(g.out_width)
    return 4 if pixels >= _LARGE_IMAGE else 2 if pixels >= _SMALL_IMAGE else 0


def packed_weights(convolution: Convolution, array: np.ndarray) -> np.ndarray:
    """The weights as the kernel reads them, 1-D float32 or bfloat16. array: [O, C / groups, KH, KW]."""
    if convolution.bytes:
        return pack_convolution_bytes(array, convolution.geometry.groups)
    if convolution.geometry.depthwise:
        return pack_depthwise(array).reshape(-1)
    if convolution.winograd:
        return pack_winograd(array, convolution.winograd)
    if convolution.line:
        return pack_winograd_line(array.reshape(*array.shape[:2], convolution.line))
    if convolution.kind == "planar_bf16":
        return pack_planar_bf16(array)
    if convolution.geometry.planes > 1:
        return pack_convolution(array.reshape(array.shape[0], 1, -1, array.shape[3]))
    pack = pack_convolution_bf16 if convolution.kind == "convolution_bf16" else pack_convolution
    return pack(array, convolution.geometry.groups)


def print_convolution(region: Region, convolution: Convolution, name: str) -> tuple[str, tuple[str | Dim, ...]]:
    """The C text of a region around a convolution, up to the exported function `name`, and what it takes as `dims`.

    Raises NotPrintable.
    """
    check_elements(region)
    symbols, numbers = shape_symbols(convolution.nest), list[Dim]()
    printer = ConvolutionPrinter(convolution, name, numbers)
    context = [f"const struct {name}_call *c = context;"]
    literals = Literals()
    hooks = [printer.start_hook(context), literals.taken_from(printer.finish_hook(context))]
    export = _export(printer, symbols, literals)
    members = [*call_members(region, symbols, len(numbers)), *literals.members]
    kernel = [f"    struct {printer.struct} kernel;", "    char *scratch;", "    long scratch_size;"]
    lines = [*members, *kernel, "    struct pool *pool;", "    int *error;"]
    structure = "\n".join([f"struct {name}_call {{", *lines, "};"])
    text = "\n\n".join([structure, *filter(None, hooks), _task(printer), export]) + "\n"
    return text, (*symbols, *numbers, *literals.words)


def _task(printer: ConvolutionPrinter) -> str:
    name, kind = printer.name, printer.kind
    scratch = "" if kind == "depthwise" else ", c->scratch + pool_thread(c->pool) * c->scratch_size"
    lines = [f"const struct {name}_call *c = context;", own_call(name)]
    operand = "&c->kernel"
    if printer.struct in ("depthwise", "planar"):
        lines += printer.specialised("c->kernel")
        operand = "&kernel"
    lines.append(f"{kind}_item({printer.tile}{operand}, item{scratch}, {printer.start_name}, {name}_finish, &hooks);")
    head = f"static void {name}_task(void *context, long item) {{"
    return "\n".join([head, *(f"    {line}" for line in lines), "}"])


def _export(printer: ConvolutionPrinter, symbols: Sequence[str], literals: Literals) -> str:
    name, kind, tile, region = printer.name, printer.kind, printer.tile, printer.nest.region
    names = names_of(printer.nest, "call.", printer.numbers)
    kernel = printer.kernel(names)
    fields = call_fields(region, symbols, len(printer.numbers))
    fields += literals.fields(len(symbols) + len(printer.numbers))
    lines = [f"struct {name}_call call = {{{', '.join([*fields, '.pool = pool', '.error = error'])}}};"]
    lines += ["(void)dims;", f"call.kernel = {kernel};", printer.cut("call.kernel")]
    if kind == "depthwise":
        lines.append(f"pool_run(pool, {name}_task, &call, depthwise_items(&call.kernel));")
    else:
        lines += [
            f"call.scratch_size = ({kind}_scratch_bytes({tile}&call.kernel) + 63) / 64 * 64;",
            "float *scratch;",
            "if (!scratch_get(&scratch, call.scratch_size / 4 * pool_threads(pool), error)) return;",
            "call.scratch = (char *)scratch;",
            "scratch_begin(scratch, call.scratch_size, pool_threads(pool));" if kind in _KEPT else "",
            f"pool_run(pool, {name}_task, &call, {kind}_items({tile}&call.kernel));",
            "scratch_give(scratch);",
        ]
    head = f"EXPORT void {name}(struct pool *pool, void *const *buffers, const int64_t *dims, int *error) {{"
    return "\n".join([head, *(f"    {line}" for line in lines if line), "}"])


class ConvolutionPrinter:
    """The parts of a kernel around one convolution: its hooks and its struct. Numbers are parameters in `numbers`."""

    def __init__(self, convolution: Convolution, name: str, numbers: list[Dim]) -> None:
        self.convolution, self.name, self.numbers = convolution, name, numbers
        self.nest, self.geometry, self.kind = convolution.nest, convolution.geometry, convolution.kind
        self.names = names_of(self.nest, "c->", self.numbers)
        self.start = start_of(self.nest, convolution.contract, self.geometry.column)
        self.start_name = "start_zero" if self.start is None else f"{name}_start"
        constant = convolution.winograd or convolution.line
        self.tile = f"{constant}, " if constant else ""

    @property
    def struct(self) -> str:
        """The name of the kernel's struct."""
        return self.kind.removesuffix("_bf16").removesuffix("_bytes")

    def start_hook(self, context: Sequence[str]) -> str:
        """The start hook, if there is one. context: statements that define `c`."""
        if self.start is None:
            return ""
        return print_start(self.nest, self.start, self.name, self.geometry.column, context, self.names)

    def body(self) -> Body:
        """Every stage but the product and its operands, for one vector of channels of a pixel; without the stores."""
        c, region = self.convolution, self.nest.region
        value = region.first_values[c.contract] if self.start is None else self.start.value
        summed = Code("((vi)value)", Kind.INT, True) if c.bytes else Code("value", Kind.FLOAT, True)
        body = Body(self.nest, {value: summed}, self.names)
        hidden = {c.contract, c.left, c.right, *c.widened}
        hidden |= set() if self.start is None else {self.start.total, self.start.bias}
        operands = {region.first_values[c.left], region.first_values[c.right]}
        for position, stage in enumerate(region.stages):
            if position not in hidden and operands & set(operands_of(stage)):
                raise NotPrintable("an operand of its convolution is used elsewhere in the region")
        body.stages(n for n in range(len(region.stages)) if n not in hidden)
        return body

    def finish_hook(self, context: Sequence[str], row: str = "row") -> str:
        """The finish hook with the region's stores. row: the parameter, from which `context` may make `row`."""
        body = self.body()
        for number in range(len(self.nest.region.stores)):
            body.store(number)
        return self.hook([*context, *self._rows()], body.lines, row)

    def hook(self, context: Sequence[str], lines: Sequence[str], row: str = "row") -> str:
        """A finish hook of these statements."""
        column = self.geometry.column
        first = [*context, f"const long i{column} = column;", f"(void)c, (void){row}, (void)i{column};"]
        head = f"INLINE void {self.name}_finish(const void *context, vf value, long {row}, long column, long lanes) {{"
        return "\n".join([head, *(f"    {line}" for line in [*first, *lines]), "}"])

    def _rows(self) -> list[str]:
        """The axes of a pixel, taken out of its number."""
        return row_axes(self.nest, self.geometry.column, self.names)

    def specialised(self, source: str, to: str = "kernel") -> list[str]:
        """Statements for a local copy, `to`, of a struct whose kernel the compiler knows."""
        g = self.geometry
        sizes = {"kernel_width": g.kernel[1], "stride_x": g.strides[1]}
        planar = {"planes": g.planes, "outputs": g.outputs}
        sizes |= planar if self.struct == "planar" else {"dilation_x": g.dilations[1]}
        known = [f"{to}.{member} = {value};" for member, value in sizes.items()]
        return [f"struct {self.struct} {to} = {source};", *known]

    def kernel(self, names: Names, image: str | None = None, sizes: Mapping[str, Dim] | None = None) -> str:
        """The struct as a C literal. image: what it reads, by default the left operand; sizes: instead of its own."""
        g = self.geometry
        values = {n: c_dim(v, names) for n, v in (self.sizes() if sizes is None else sizes).items()}
        listed = ", ".join(f".{n} = {v}" for n, v in values.items())
        if image is None:
            left = self.nest.region.stages[self.convolution.left]
            assert isinstance(left, Load)
            image = f"call.x{left.buffer}" + (f" + {c_dim(g.first, names)}" if g.first else "")
        weights = "panels" if self.struct in ("convolution", "planar") else "weights"
        if self.convolution.bytes:
            operands = f".x = (const float *)({image}), .panels = (const float *)call.x{self.convolution.buffer}"
            fill = c_dim(self.convolution.fill, names)
            return f"(struct convolution){{{operands}, {listed}, .fill = (int){fill}}}"
        return f"(struct {self.struct}){{.x = {image}, .{weights} = call.x{self.convolution.buffer}, {listed}}}"

    def cut(self, kernel: str) -> str:
        """The statement that cuts the work of a struct, `kernel`, into items (plan.h)."""
        return f"{self.struct}_cut({self.tile}&{kernel}, pool_threads(pool));"

    def sizes(self) -> dict[str, Dim]:
        """The members of the struct that are sizes; those that say how the work is cut are set by `cut`."""
        if self.convolution.line:
            return line_fields(self.geometry)
        sizes = self.geometry.fields()
        if self.struct == "planar":
            return {n: v for n, v in sizes.items() if n not in _NOT_PLANAR}
        return {n: v for n, v in sizes.items() if not self.convolution.winograd or n in _WINOGRAD_FIELDS}


def row_axes(nest: Nest, column: int, names: Names) -> list[str]:
    """Statements that take the axes of a pixel out of its number `row`."""
    axes = [a for a in nest.outer if a != column and nest.extents[a] is not None]
    lines = ["long rest = row;"] if axes else []
    for number, axis in enumerate(reversed(axes)):
        extent = nest.extents[axis]
        assert extent is not None
        whole = number == len(axes) - 1
        lines.append(f"const long i{axis} = rest{'' if whole else f' % {c_dim(extent, names)}'};")
        lines += [] if whole else [f"rest /= {c_dim(extent, names)};"]
        lines.append(f"(void)i{axis};")
    return lines
