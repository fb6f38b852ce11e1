"""print(parse(t)) == t, the exact text of a small graph, and errors that name the line."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusible.compiler.ir.analysis import constants
from fusible.compiler.ir.clone import clone_graph
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.literals import Cursor, parse_elements, print_attribute, print_elements, quote
from fusible.compiler.ir.refine import rebuild_types
from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.compiler.ir.text import parse_graph, print_graph
from fusible.compiler.ir.types import DType, SequenceType, TensorType
from fusible.compiler.ir.verify import verify
from fusible.errors import InvalidModel, UsageError
from tests.ir.graphs import graphs

SYMBOLS = {name: Symbol(name) for name in ("N", "f32", "nan", "i8")}


@settings(max_examples=30)
@given(graphs())
def test_round_trip(graph: Graph) -> None:
    verify(graph)
    text = print_graph(graph)
    assert text.isascii()
    parsed = parse_graph(text)
    verify(parsed)
    assert print_graph(parsed) == text
    full = parse_graph(text, {v.constant.digest: v.constant for v in constants(graph) if v.constant is not None})
    assert print_graph(full) == text
    assert [v.constant.digest for v in constants(full) if v.constant] == [
        v.constant.digest for v in constants(graph) if v.constant
    ]


@settings(max_examples=20)
@given(graphs())
def test_clones_and_rebuilt_types_print_the_same(graph: Graph) -> None:
    text = print_graph(graph)
    copy = clone_graph(graph)
    verify(copy)
    assert print_graph(copy) == text
    assert rebuild_types(copy) == {}
    verify(copy)
    verify(graph)
    assert print_graph(copy) == text == print_graph(graph)


def _small() -> Graph:
    graph = Graph("main graph")
    n = graph.symbols.add(Symbol("N", 1, 64))
    graph.symbols.display["N"] = "batch size"
    graph.defines = (Symbol("N", 1, 64),)
    x = graph.input(TensorType(DType.F32, (n, 2)), "input:0")
    with graph.inserting_before(None, ("Relu_0", "a, b")):
        y = graph.add("add", x, graph.constant(np.asarray([0.5, np.nan], np.float32), "bias"), name="x")
    big = graph.constant(np.zeros((9, 2), np.float32), "x")
    z = graph.add_node("non_zero", [y], names=["z"]).output
    graph.set_outputs([graph.add("cast", z, dtype=DType.F16), big], ["out", "big one"])
    return graph


SMALL = """\
graph "main graph" {
  symbol N in [1, 64] named "batch size"
  symbol nonzero_0 in [0, inf]
  constant %bias: f32[2] = [0.5, nan]
  constant %x: f32[9, 2] = sha256:DIGEST
  input %"input:0": f32[N, 2]
  defines N
  %x#2: f32[N, 2] = add(%"input:0", %bias)  # Relu_0, "a, b"
  %z: i64[2, nonzero_0] = non_zero(%x#2) defines nonzero_0
  %_1: f16[2, nonzero_0] = cast(%z) {dtype=f16, saturate=True, round_mode="up"}
  output %_1 as out
  output %x as "big one"
}
"""


def test_exact_text() -> None:
    graph = _small()
    symbol = next(s for s in graph.symbols if s.name != "N")
    digest = graph.outputs[1].constant.digest  # type: ignore[union-attr]
    upper = "" if symbol.upper is None and symbol.lower == 0 else f" in [{symbol.lower}, {symbol.upper or 'inf'}]"
    expected = SMALL.replace(" in [0, inf]", upper).replace("nonzero_0", symbol.name).replace("DIGEST", digest)
    assert print_graph(graph) == expected


def test_placeholders_have_no_elements() -> None:
    parsed = parse_graph(print_graph(_small()))
    constant = parsed.outputs[1].constant
    assert constant is not None and constant.shape == (9, 2) and constant.nbytes == 72
    assert parsed.outputs[1].content is None
    with pytest.raises(UsageError, match="holds no elements of constant sha256"):
        _ = constant.array


def test_a_constant_of_the_wrong_type_is_refused() -> None:
    graph = _small()
    digest = graph.outputs[1].constant.digest  # type: ignore[union-attr]
    other = graph.constant(np.zeros((9, 2), np.float64)).constant
    with pytest.raises(InvalidModel, match=r"line 5, .*the constant given for this digest is Constant\(float64"):
        parse_graph(print_graph(graph), {digest: other})  # type: ignore[dict-item]


ATTRIBUTES = st.recursive(
    st.one_of(
        st.integers(-(2**63), 2**63),
        st.floats(allow_nan=False),
        st.booleans(),
        st.none(),
        st.text(),
        st.text(alphabet="\"\\\n\t\r\x00\ud800\udfffé\u2028#,()={}"),
        st.sampled_from(list(DType)),
        st.sampled_from([SymInt.of(s) for s in SYMBOLS.values()]),
        st.sampled_from([SymInt.of(s) * 2 - 1 for s in SYMBOLS.values()]),
        st.sampled_from([TensorType(DType.F32, (SymInt.of(SYMBOLS["f32"]), 2)), SequenceType(None)]),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=8,
)


@given(ATTRIBUTES)
def test_attributes_come_back(value: object) -> None:
    text = print_attribute(value)
    cursor = Cursor(text + "}", 1)
    found = cursor.attribute(SYMBOLS)
    cursor.expect("}")
    assert found == value and type(found) is type(value)
    assert print_attribute(found) == text
    assert text.isascii() and "\n" not in text


def test_not_a_number_comes_back() -> None:
    assert str(Cursor("nan}", 1).attribute({})) == "nan"
    assert Cursor("dim(nan)}", 1).attribute(SYMBOLS) == SymInt.of(SYMBOLS["nan"])


@pytest.mark.parametrize("dtype", [d for d in DType if d is not DType.STRING])
def test_elements_come_back_to_the_bit(dtype: DType) -> None:
    generator = np.random.default_rng(0)
    if dtype is DType.BOOL:
        array = generator.integers(0, 2, 64).astype(bool)
    elif dtype.numpy.itemsize == 1 and dtype in (DType.I4, DType.U4, DType.I2, DType.U2, DType.F4E2M1):
        array = np.asarray([0, 1, 1, 0, 1]).astype(dtype.numpy)
    else:
        array = np.frombuffer(generator.bytes(64 * dtype.numpy.itemsize), dtype.numpy)
    text = print_elements(array)
    back = parse_elements(Cursor(text, 1).elements(), dtype, array.shape)
    assert back.dtype == array.dtype and back.tobytes() == array.tobytes()


@given(st.lists(st.text(), max_size=4))
def test_strings_come_back(texts: list[str]) -> None:
    array = np.empty(len(texts), object)
    array[:] = texts
    assert list(parse_elements(Cursor(print_elements(array), 1).elements(), DType.STRING, (len(texts),))) == texts


@given(st.text())
def test_quoted(text: str) -> None:
    assert Cursor(quote(text), 1).string() == text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("graph ", "grph ", "line 1, column 1: 'graph ' was expected"),
        ("add(", "no_such_op(", "line 8: no op 'no_such_op'"),
        ("%bias)", "%bia)", "line 8, column 41: %bia is not defined before in this graph"),
        ("i64[2", "i64[3", "line 9, .*types are i64.3, .*inference gives i64.2"),
        ("dtype=f16", "kind=f16", "line 10: attributes of cast"),
        ("dtype=f16", "dtype=7", "line 10: cast: attribute dtype is 7"),
        ("[0.5, nan]", "[0.5]", "needs 2 elements, got 1"),
        ("[0.5, nan]", "[0.5, True]", "'True' is no element of type f32"),
        ("  output %_1 as out\n", "", None),
        ("\n}\n", "\n", "the text ends within a graph"),
        ("  defines N", "  defines Q", "symbol Q is not declared"),
        ('named "batch', 'named "\\q', "is no string"),
        ("%z: i64", "%x#2: i64", "%x#2 is defined twice"),
    ],
)
def test_errors_name_the_line(old: str, new: str, message: str | None) -> None:
    text = print_graph(_small())
    assert old in text
    changed = text.replace(old, new, 1)
    if message is None:
        parse_graph(changed)
        return
    with pytest.raises((InvalidModel, UsageError), match=message):
        parse_graph(changed)


@settings(max_examples=80)
@given(st.data())
def test_damaged_text_never_crashes(data: st.DataObject) -> None:
    text = print_graph(_small())
    at = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 12))
    with_junk = text[:at] + data.draw(st.text(alphabet='%"(){}[]#,=N0-.af \n', max_size=6)) + text[at + length :]
    with contextlib.suppress(InvalidModel, UsageError):
        parse_graph(with_junk)


@pytest.mark.parametrize("text", ["", "\n", "graph g {\n" * 5, "graph g {\n}\n}", "graph g {\n  x\n}\n"])
def test_malformed(text: str) -> None:
    with pytest.raises(InvalidModel, match="graph text, line"):
        parse_graph(text)


def test_deep_nesting_is_refused() -> None:
    deep = "(" * 100_000
    text = f"graph g {{\n  %y: f32[] = dims() {{values={deep}}}\n}}\n"
    with pytest.raises(InvalidModel, match="nested too deeply"):
        parse_graph(text)
