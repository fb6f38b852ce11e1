"""Regions as one kernel, a few rows at a time: a convolution, the depthwise one that reads it, and perhaps a 1x1 one.

The wide image of an inverted residual block never exists as a whole. See kernels/cpu/ring.h. Where that image fits in
the cache the regions are better apart: nothing is saved, and rows between the items of threads are computed twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fusible.compiler.backends.cpu.c_band import axes_of_store, band_sizes, over_all, overwritable_after
from fusible.compiler.backends.cpu.c_body import names_of, shape_symbols
from fusible.compiler.backends.cpu.c_call import call_fields, call_members, check_elements, own_call
from fusible.compiler.backends.cpu.c_convolution import (
    Convolution,
    ConvolutionPrinter,
    convolution_of,
    row_axes,
)
from fusible.compiler.backends.cpu.c_dims import Names, c_dim
from fusible.compiler.backends.cpu.c_kinds import promoted
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.cpu.windows import Geometry
from fusible.compiler.ir.assumed import assumed_size
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.region.region import Group, Load, Region

__all__ = ["Ring", "print_ring", "ring_of"]

_LEAST_IMAGE = 2**20  # bytes: twice a usual L2
_TAPS = 16  # RING_TAPS


@dataclass(frozen=True)
class Ring:
    """wide: the convolution whose image is the ring; deep: the depthwise one; last: the 1x1 one, if there is one."""

    group: Group
    wide: Convolution
    deep: Convolution
    last: Convolution | None

    @property
    def anchors(self) -> tuple[Convolution, ...]:
        """What has weights to be packed."""
        return (self.wide, self.deep) if self.last is None else (self.wide, self.deep, self.last)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions of all parts."""
        return tuple(anchor.nest.region for anchor in self.anchors)

    @property
    def overwritable(self) -> tuple[int, ...]:
        """The inputs whose place the result may take."""
        *before, last = (anchor.nest.region for anchor in self.anchors)
        return overwritable_after(before, last, self.group.inputs)


def ring_of(group: Group, constants: Collection[int], *, bf16: bool = False) -> Ring:
    """The parts of a group of two or three regions with images between them, channels last. Raises NotPrintable."""
    if len(group.steps) not in (2, 3) or len(group.buffers) != group.inputs + group.outputs + len(group.steps) - 1:
        raise NotPrintable("it is no chain of two or three convolutions")
    regions = [over_all(group, step) for step in group.steps]
    found = [convolution_of(region, constants, exact=True, bf16=bf16) for region in regions]
    if any(convolution.bytes for convolution in found):
        raise NotPrintable("one of its convolutions is one of bytes")
    first = group.inputs + group.outputs
    for number, (region, convolution) in enumerate(zip(regions, found, strict=True)):
        left = region.stages[convolution.left]
        assert isinstance(left, Load)
        whole = convolution.geometry.first == 0 or number == 0
        if (number > 0 and left.buffer != first + number - 1) or not whole:
            raise NotPrintable("its convolutions do not read one another")
        if number < len(regions) - 1:
            axes_of_store(region)
    wide, deep, last = (*found, None)[:3]
    assert wide is not None and deep is not None
    _check(wide.geometry, deep.geometry, None if last is None else last.geometry)
    return Ring(group, wide, deep, last)


def _check(wide: Geometry, deep: Geometry, last: Geometry | None) -> None:
    if wide.depthwise or wide.groups != 1 or not deep.depthwise or deep.kernel[0] > _TAPS:
        raise NotPrintable("it is no convolution with a depthwise one after it")
    if wide.planes > 1 and wide.dilations != (1, 1):
        raise NotPrintable("its first convolution is dilated, and reads the planes of an image")
    size = assumed_size(deep.height) * assumed_size(deep.width) * deep.groups * 4
    if size < _LEAST_IMAGE:
        raise NotPrintable(f"the image between its convolutions, {size} bytes, stays in the cache anyway")
    if last is not None and not last.pointwise:
        raise NotPrintable("the convolution after its depthwise one is not 1x1, or pads")


def print_ring(ring: Ring, name: str) -> tuple[str, tuple[str | Dim, ...]]:
    """The C text up to the exported function `name`, and what it takes as `dims`. Raises NotPrintable."""
    return _Printer(ring, name).print()


class _Printer:
    def __init__(self, ring: Ring, name: str) -> None:
        self.ring, self.name = ring, name
        group = ring.group
        outputs = group.buffers[group.inputs : group.inputs + group.outputs]
        self.operands = Region((), group.buffers[: group.inputs], outputs, (), ())
        check_elements(self.operands)
        self.numbers: list[Dim] = []
        self.wide, self.deep = (
            ConvolutionPrinter(c, f"{name}_{word}", self.numbers)
            for c, word in ((ring.wide, "wide"), (ring.deep, "deep"))
        )
        self.planar = self.wide.struct == "planar"
        self.last = None if ring.last is None else ConvolutionPrinter(ring.last, f"{name}_last", self.numbers)
        self.symbols = list(dict.fromkeys(s for a in ring.anchors for s in shape_symbols(a.nest)))
        self.place = [f"const struct {name}_place *place = context;", f"const struct {name}_call *c = place->c;"]

    def print(self) -> tuple[str, tuple[str | Dim, ...]]:
        """The text and the dims."""
        hooks = [self.wide.start_hook(self.place), self._filling(self.wide, "place->wide + local", _INTO_RING)]
        hooks.append(self.deep.start_hook(self.place))
        if self.last is None:
            hooks.append(self.deep.finish_hook(self.place))
        else:
            hooks.append(self._filling(self.deep, None, _INTO_BAND))
            hooks.append(self.last.start_hook(self.place))
            hooks.append(self.last.finish_hook([*self.place, "const long row = place->base + local;"], "local"))
        parts = [*hooks, self._task(), self._export()]
        text = "\n\n".join([self._structure(), *filter(None, parts)]) + "\n"
        return text, (*self.symbols, *self.numbers)

    def _filling(self, printer: ConvolutionPrinter, row: str | None, place: str) -> str:
        """The finish hook of a convolution whose results stay in scratch memory. row: the number of a local pixel."""
        body = printer.body()
        store = printer.nest.region.stores[0]
        text = f"vf_store_first({place} + column, {promoted(body.values[store.value]).text}, lanes);"
        axes = row_axes(printer.nest, printer.geometry.column, printer.names)
        head = self.place if row is None else [*self.place, f"const long row = {row};", "(void)row;"]
        return printer.hook([*head, *axes], [*body.lines, text], "row" if row is None else "local")

    def _structure(self) -> str:
        lines = call_members(self.operands, self.symbols, len(self.numbers))
        lines += [f"    struct {self.wide.struct} wide;", "    struct depthwise deep;", "    struct convolution last;"]
        lines += ["    struct ring ring;", "    struct band band;", "    char *scratch;"]
        lines += ["    long ring_floats, wide_bytes, scratch_size;"]
        lines += ["    struct pool *pool;", "    int *error;"]
        # Numbers of pixels among those of all images: of a run of the ring's rows, and of the band's rows.
        members = "float *ring, *band; long slot, wide, base;"
        place = f"struct {self.name}_place {{ const struct {self.name}_call *c; {members} }};"
        return "\n".join([f"struct {self.name}_call {{", *lines, "};", place])

    def _task(self) -> str:
        name = self.name
        wide, deep = (f"{p.start_name}, {p.name}_finish, &place" for p in (self.wide, self.deep))
        kernel, known = "&c->wide", list[str]()
        if self.planar:
            kernel, known = "&first", self.wide.specialised("c->wide", "first")
        operands = f"{int(self.ring.wide.bf16)}, {kernel}, rows.image, row, run"
        lines = [
            f"const struct {name}_call *c = context;",
            "const struct ring *ring = &c->ring;",
            "char *scratch = c->scratch + pool_thread(c->pool) * c->scratch_size;",
            "struct ring_state *state = (struct ring_state *)scratch;",
            own_call(name),
            f"struct {name}_place place = {{.c = &hooks, .ring = (float *)(scratch + SCRATCH_HEAD)}};",
            "place.band = place.ring + c->ring_floats;",
            "char *wide_scratch = (char *)(place.band + band_floats(&c->band));",
            *known,
            *self.deep.specialised("c->deep"),
            "kernel.x = place.ring;",
            "const struct band_rows rows = ring_rows_of(ring, item);",
            "long row = ring_begin_row(ring, state, item, rows.first);",
            "for (long oy = rows.first, end; oy < rows.last; oy = end) {",
            "    end = long_min(oy + ring->step, rows.last);",
            "    for (const long needed = ring_end(ring, end - 1); row < needed;) {",
            "        const long run = ring_run(ring, row, needed);",
            "        place.slot = row % ring->rows * ring->in_width;",
            "        place.wide = (rows.image * ring->in_height + row) * ring->in_width;",
            f"        ring_{self.wide.struct}({operands}, wide_scratch, {wide});",
            "        row += run;",
            "    }",
            "    place.base = (rows.image * ring->height + oy) * c->band.width;",
            f"    ring_depthwise(&kernel, ring, rows.image, oy, end, {deep});",
            *self._last_step(),
            "}",
            "*state = (struct ring_state){item + 1, row};",
        ]
        head = f"static void {name}_task(void *context, long item) {{"
        return "\n".join([head, *(f"    {line}" for line in lines), "}"])

    def _last_step(self) -> Sequence[str]:
        if self.last is None:
            return ()
        hooks = f"{self.last.start_name}, {self.name}_last_finish, &place"
        operands = f"{int(self.last.convolution.bf16)}, &c->last, &c->band, &band, place.band"
        return (
            "    const struct band_rows band = {.base = place.base, .pixels = (end - oy) * c->band.width};",
            f"    band_convolution({operands}, wide_scratch + c->wide_bytes, {hooks});",
        )

    def _export(self) -> str:
        name, step = self.name, "call.ring.step" if self.last else "0"
        sizes = self._sizes()  # first: it makes parameters
        fields = [*call_fields(self.operands, self.symbols, len(self.numbers)), ".pool = pool", ".error = error"]
        lines = [
            f"struct {name}_call call = {{{', '.join(fields)}}};",
            "(void)dims;",
            *sizes[:2],
            self.deep.cut("call.deep"),
            "call.ring = ring_of(&call.deep, stride, pool_threads(pool));",
            "const long ring_pixels = call.ring.rows * call.ring.in_width;",
            "const long band_pixels = call.ring.step * call.deep.out_width;",
            "const long width = call.deep.out_width;",
            f"call.band = (struct band){{call.deep.images, call.deep.out_height, width, stride, {step}}};",
            *sizes[2:],
            "call.ring_floats = (ring_pixels * stride + 15) / 16 * 16;",
            f"call.wide_bytes = ({self._wide_bytes()} + 63) / 64 * 64;",
            "call.scratch_size = SCRATCH_HEAD + call.ring_floats * 4 + band_floats(&call.band) * 4 + call.wide_bytes;",
            "call.scratch_size += (convolution_scratch_bytes(&call.last) + 63) / 64 * 64;" if self.last else "",
            "(void)band_pixels;",
            "float *scratch;",
            "if (!scratch_get(&scratch, call.scratch_size / 4 * pool_threads(pool), error)) return;",
            "call.scratch = (char *)scratch;",
            "scratch_begin(scratch, call.scratch_size, pool_threads(pool));",
            f"pool_run(pool, {name}_task, &call, ring_items(&call.ring));",
            "scratch_give(scratch);",
        ]
        head = f"EXPORT void {name}(struct pool *pool, void *const *buffers, const int64_t *dims, int *error) {{"
        return "\n".join([head, *(f"    {line}" for line in lines if line), "}"])

    def _wide_bytes(self) -> str:
        if self.planar:
            return f"ring_planar_bytes({int(self.ring.wide.bf16)}, &call.wide, call.ring.rows)"
        return f"{self.wide.kind}_scratch_bytes(&call.wide)"

    def _sizes(self) -> list[str]:
        """Statements that set the stride and the structs of the three convolutions."""
        wide, deep, last = self.wide, self.deep, self.last
        channels = c_dim(deep.geometry.groups, self._names(deep))
        lines = [
            f"const long stride = band_stride({channels});",
            f"call.deep = {deep.kernel(self._names(deep, stride_='stride'), 'NULL', self._deep_sizes(deep))};",
            f"call.wide = {wide.kernel(self._names(wide, most_='ring_pixels'), None, self._wide_sizes(wide))};",
        ]
        if last is not None:
            names = self._names(last, most_="band_pixels")
            lines.append(f"call.last = {last.kernel(names, 'NULL', band_sizes(last.geometry))};")
        return lines

    def _names(self, printer: ConvolutionPrinter, **known: str) -> Names:
        return names_of(printer.nest, "call.", self.numbers) | known

    @staticmethod
    def _deep_sizes(deep: ConvolutionPrinter) -> dict[str, Dim]:
        """The ring holds rows of pixels of `stride` floats."""
        stride = SymInt.of(Symbol("stride_"))  # no name of a model ends so
        return {**deep.sizes(), "image_stride": 0, "row_stride": deep.geometry.width * stride, "pixel_stride": stride}

    @staticmethod
    def _wide_sizes(wide: ConvolutionPrinter) -> dict[str, Dim]:
        if wide.struct == "planar":
            return wide.sizes()
        return {**wide.sizes(), "band": SymInt.of(Symbol("most_")), "panels_per_item": 2**30}


_INTO_RING = "place->ring + (place->slot + local) * c->deep.pixel_stride"
_INTO_BAND = "place->band + (row - place->base) * c->band.stride"
