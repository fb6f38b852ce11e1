"""Two regions as one kernel: what a 1x1 convolution reads is computed a band of pixels at a time, in scratch memory.

The first region fills the band: a depthwise convolution, or element-wise stages (a folded-out normalisation, the scale
of a squeeze-and-excitation). The second is the 1x1 convolution with what follows it. See kernels/cpu/band.h.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from fusible.compiler.backends.cpu.c_body import Body, names_of, shape_symbols
from fusible.compiler.backends.cpu.c_call import call_fields, call_members, check_elements, own_call
from fusible.compiler.backends.cpu.c_convolution import (
    Convolution,
    ConvolutionPrinter,
    convolution_of,
    row_axes,
)
from fusible.compiler.backends.cpu.c_dims import Names, c_dim, mentions
from fusible.compiler.backends.cpu.c_kinds import promoted
from fusible.compiler.backends.cpu.nest import Nest, NotPrintable, nest_of
from fusible.compiler.backends.cpu.windows import Geometry
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.region.overwrite import overwritable
from fusible.compiler.region.region import Group, Load, Region, Step, Store

__all__ = ["Band", "axes_of_store", "band_of", "band_sizes", "over_all", "overwritable_after", "print_band"]


@dataclass(frozen=True)
class Band:
    """first: what fills the band; last: the 1x1 convolution. Both regions have the group's buffers as inputs."""

    group: Group
    first: Convolution | Nest
    last: Convolution
    column: int  # the axis of the channels in `first`

    @property
    def anchors(self) -> tuple[Convolution, ...]:
        """What has weights to be packed."""
        return (self.first, self.last) if isinstance(self.first, Convolution) else (self.last,)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions of both parts."""
        first = self.first.nest if isinstance(self.first, Convolution) else self.first
        return first.region, self.last.nest.region

    @property
    def overwritable(self) -> tuple[int, ...]:
        """The inputs whose place the result may take."""
        nest = self.first.nest if isinstance(self.first, Convolution) else self.first
        return overwritable_after([nest.region], self.last.nest.region, self.group.inputs)


def band_of(group: Group, constants: Collection[int], *, exact: bool = False, bf16: bool = False) -> Band:
    """The parts of a group of two regions with one local image, stored channels last. Raises NotPrintable."""
    if len(group.steps) != 2 or len(group.buffers) != group.inputs + group.outputs + 1:
        raise NotPrintable("it is no band: two regions with one image between them")
    first, last = (over_all(group, step) for step in group.steps)
    convolution = convolution_of(last, constants, exact=exact, bf16=bf16)
    if convolution.bytes:
        raise NotPrintable("its convolution is one of bytes, which a band does not hold")
    g = convolution.geometry
    left = last.stages[convolution.left]
    assert isinstance(left, Load)
    if left.buffer != len(group.buffers) - 1 or not g.pointwise or g.first or g.pixel != g.channels:
        raise NotPrintable("it is no 1x1 convolution that reads what was computed")
    rows, column = axes_of_store(first)
    if first.contractions:
        filled = convolution_of(first, constants, exact=exact, bf16=bf16)
        if not filled.geometry.depthwise or filled.geometry.column != column:
            raise NotPrintable("what its 1x1 convolution reads is a convolution that is not depthwise")
        return Band(group, filled, convolution, column)
    nest = nest_of(first, vector=column, rows=rows)
    if nest.folded:
        raise NotPrintable("what its 1x1 convolution reads is a reduction")
    if any(mentions(d, f"i{column}") for access in nest.accesses() for d in access.conditions()):
        raise NotPrintable("the channels that its 1x1 convolution reads are joined from several images")
    return Band(group, nest, convolution, column)


def overwritable_after(before: Sequence[Region], last: Region, inputs: int) -> tuple[int, ...]:
    """The inputs that only the last region of a chain reads, each element where it stores its result."""
    read = {s.buffer for region in before for s in region.stages if isinstance(s, Load)}
    return tuple(n for n in overwritable(last) if n < inputs and n not in read)


def over_all(group: Group, step: Step) -> Region:
    """The region of a step with all the group's buffers as inputs, so that their numbers are the kernel's."""
    stages = [replace(s, buffer=step.inputs[s.buffer]) if isinstance(s, Load) else s for s in step.region.stages]
    return replace(step.region, inputs=group.buffers, stages=tuple(stages))


def axes_of_store(region: Region) -> tuple[tuple[int, ...], int]:
    """The axes of image, row and column of a pixel, as far as there are some, and that of its channels."""
    if len(region.stores) != 1 or len(region.outputs[0].shape) != 4 or region.stores[0].map.bounds:
        raise NotPrintable("what its 1x1 convolution reads is no image")
    axes = [_axis(component) for component in region.stores[0].map.components]
    if axes[3] is None or -1 in axes:
        raise NotPrintable("what its 1x1 convolution reads is not computed in its place")
    return tuple(a for a in axes[:3] if a is not None), axes[3]


def _axis(component: Dim) -> int | None:
    """The axis that a component is; None for the constant 0, -1 for anything else."""
    if component == 0:
        return None
    text = component.text if isinstance(component, SymInt) else ""
    return int(text[1:]) if text[:1] == "i" and text[1:].isdigit() else -1


def print_band(band: Band, name: str) -> tuple[str, tuple[str | Dim, ...]]:
    """The C text up to the exported function `name`, and what it takes as `dims`. Raises NotPrintable."""
    return _Printer(band, name).print()


class _Printer:
    def __init__(self, band: Band, name: str) -> None:
        self.band, self.name = band, name
        group = band.group
        outputs = group.buffers[group.inputs : group.inputs + group.outputs]
        self.operands = Region((), group.buffers[: group.inputs], outputs, (), ())
        check_elements(self.operands)
        self.numbers: list[Dim] = []
        self.last = ConvolutionPrinter(band.last, f"{name}_last", self.numbers)
        nest = band.first.nest if isinstance(band.first, Convolution) else band.first
        self.symbols = list(dict.fromkeys([*shape_symbols(nest), *shape_symbols(band.last.nest)]))
        self.first: ConvolutionPrinter | None = None
        if isinstance(band.first, Convolution):
            self.first = ConvolutionPrinter(band.first, f"{name}_first", self.numbers)

    def print(self) -> tuple[str, tuple[str | Dim, ...]]:
        """The text and the dims."""
        fill = self._element_wise() if self.first is None else self._depthwise(self.first)
        place = [f"const struct {self.name}_place *place = context;", f"const struct {self.name}_call *c = place->c;"]
        hooks = [self.last.start_hook(place)]
        hooks.append(self.last.finish_hook([*place, "const long row = place->base + local;"], "local"))
        parts = [*fill, *hooks, self._task(), self._export()]
        text = "\n\n".join([self._structure(), *filter(None, parts)]) + "\n"
        return text, (*self.symbols, *self.numbers)

    def _structure(self) -> str:
        lines = call_members(self.operands, self.symbols, len(self.numbers))
        lines += ["    struct convolution last;", "    struct depthwise first;" if self.first else ""]
        lines += ["    struct band band;", "    char *scratch;", "    long scratch_size;"]
        lines += ["    struct pool *pool;", "    int *error;"]
        place = f"struct {self.name}_place {{ const struct {self.name}_call *c; float *band; long base; }};"
        return "\n".join([f"struct {self.name}_call {{", *filter(None, lines), "};", place])

    def _depthwise(self, first: ConvolutionPrinter) -> list[str]:
        """The hooks of the depthwise convolution, whose results go to the band."""
        place = [f"const struct {self.name}_place *place = context;", f"const struct {self.name}_call *c = place->c;"]
        body = first.body()
        value = promoted(body.values[self._stored(first.nest)])
        store = f"vf_store_first(place->band + (row - place->base) * c->band.stride + column, {value.text}, lanes);"
        axes = row_axes(first.nest, first.geometry.column, first.names)
        return [first.start_hook(place), first.hook([*place, *axes], [*body.lines, store])]

    def _element_wise(self) -> list[str]:
        """A function for the channels of a pixel, one vector of them, and one for the pixels of a band."""
        nest, column = self.band.first, self.band.column
        assert isinstance(nest, Nest)
        names = names_of(nest, "c->", self.numbers)
        body = Body(nest, {}, names)
        body.stages(range(len(nest.region.stages)))
        value = promoted(body.values[self._stored(nest)])
        axes = [a for a in nest.outer if a != column and nest.extents[a] is not None]
        parameters = "".join(f", long i{a}" for a in axes)
        unused = " ".join(f"(void)i{a};" for a in axes)
        context = f"const struct {self.name}_call *c, float *to"
        vector = [
            f"INLINE void {self.name}_vector({context}{parameters}, long i{column}, long lanes) {{",
            *(f"    {line}" for line in [f"(void)c; {unused}", *body.lines]),
            f"    vf_store_first(to + i{column}, {value.text}, lanes);",
            "}",
        ]
        extent = nest.extents[column]
        assert extent is not None
        call = f"{self.name}_vector(c, to{''.join(f', i{a}' for a in axes)}, i, "
        fill = [
            f"static void {self.name}_fill(const struct {self.name}_call *c, float *band, long base, long pixels) {{",
            f"    const long end = {c_dim(extent, names)};",
            "    for (long pixel = 0; pixel < pixels; pixel++) {",
            "        const long row = base + pixel;",
            *(f"        {line}" for line in row_axes(nest, column, names)),
            "        float *to = band + pixel * c->band.stride;",
            "        long i = 0;",
            f"        for (; i + VL <= end; i += VL) {call}VL);",
            f"        if (i < end) {call}end - i);",
            "        (void)row;",
            "    }",
            "}",
        ]
        return ["\n".join(vector), "\n".join(fill)]

    def _stored(self, nest: Nest) -> int:
        store = nest.region.stores[0]
        assert isinstance(store, Store)
        return store.value

    def _task(self) -> str:
        name = self.name
        lines = [
            f"const struct {name}_call *c = context;",
            "char *scratch = c->scratch + pool_thread(c->pool) * c->scratch_size;",
            "const struct band_rows rows = band_rows_of(&c->band, item);",
            own_call(name),
            f"const struct {name}_place place = {{&hooks, (float *)scratch, rows.base}};",
        ]
        if self.first is None:
            lines.append(f"{name}_fill(c, place.band, rows.base, rows.pixels);")
        else:
            lines += self.first.specialised("c->first")
            lines.append(f"band_depthwise(&kernel, &rows, {self.first.start_name}, {name}_first_finish, &place);")
        rest = "scratch + band_floats(&c->band) * (long)sizeof(float)"
        hooks = f"{self.last.start_name}, {name}_last_finish, &place"
        operands = f"{int(self.band.last.bf16)}, &c->last, &c->band, &rows, place.band"
        lines.append(f"band_convolution({operands}, {rest}, {hooks});")
        head = f"static void {name}_task(void *context, long item) {{"
        return "\n".join([head, *(f"    {line}" for line in lines), "}"])

    def _export(self) -> str:
        g, name = self.band.last.geometry, self.name
        names = names_of(self.band.last.nest, "call.", self.numbers)
        extents = [c_dim(d, names) for d in (g.images, g.out_height, g.out_width, g.channels)]
        band = f"band_of({', '.join(extents)}, pool_threads(pool))"
        last = self.last.kernel(names | {"most_": "most"}, "NULL", band_sizes(g))
        first = None if self.first is None else self.first.kernel(self._first_names(self.first))
        fields = call_fields(self.operands, self.symbols, len(self.numbers))
        lines = [
            f"struct {name}_call call = {{{', '.join([*fields, '.pool = pool', '.error = error'])}}};",
            "(void)dims;",
            f"call.band = {band};",
            "const long most = call.band.rows * call.band.width;",
            f"call.last = {last};",
            *([f"call.first = {first};", self.first.cut("call.first")] if self.first else []),
            "const long bytes = band_floats(&call.band) * (long)sizeof(float) + convolution_scratch_bytes(&call.last);",
            "call.scratch_size = (bytes + 63) / 64 * 64;",
            "float *scratch;",
            "if (!scratch_get(&scratch, call.scratch_size / 4 * pool_threads(pool), error)) return;",
            "call.scratch = (char *)scratch;",
            f"pool_run(pool, {name}_task, &call, band_items(&call.band));",
            "scratch_give(scratch);",
        ]
        head = f"EXPORT void {name}(struct pool *pool, void *const *buffers, const int64_t *dims, int *error) {{"
        return "\n".join([head, *(f"    {line}" for line in lines if line), "}"])

    def _first_names(self, first: ConvolutionPrinter) -> Names:
        return names_of(first.nest, "call.", self.numbers)


def band_sizes(g: Geometry) -> dict[str, Dim]:
    """The members of the struct of a 1x1 convolution of a band of at most `most` pixels."""
    most = SymInt.of(Symbol("most_"))  # no name of a model ends so
    sizes: dict[str, Dim] = {"channels": g.channels, "outputs": g.outputs, "groups": 1, "images": 1}
    sizes |= dict.fromkeys(("kernel_height", "kernel_width", "out_height", "planes"), 1)
    return sizes | {"band": most, "out_width": most, "panels_per_item": 2**30}
