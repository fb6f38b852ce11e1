"""SymInt against plain integers: arithmetic, normal form, bounds, division, text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fusible.compiler.ir.broadcast import bcast
from fusible.compiler.ir.dimension_text import parse_dim
from fusible.compiler.ir.intervals import interval_product
from fusible.compiler.ir.symbol_values import evaluate, solved_call, substitute, substitute_calls, symbols_of
from fusible.compiler.ir.symbols import (
    Call,
    Dim,
    Symbol,
    SymInt,
    bounds_of,
    ceildiv,
    dim_text,
    exact_div,
    floordiv,
    maximum,
    minimum,
    modulo,
    product,
)

SYMBOLS = {"N": Symbol("N", 0, 9), "M": Symbol("M", 1, None), "K": Symbol("K", -5, 4)}
LEAVES = st.one_of(st.integers(-6, 6), st.sampled_from([SymInt.of(s) for s in SYMBOLS.values()]))
ENVIRONMENTS = st.fixed_dictionaries(
    {"N": st.integers(0, 9), "M": st.integers(1, 30), "K": st.integers(-5, 4)}
)


def _combine(children: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
    pairs = st.tuples(children, children)
    return st.one_of(
        pairs.map(lambda p: p[0] + p[1]),
        pairs.map(lambda p: p[0] - p[1]),
        pairs.map(lambda p: p[0] * p[1]),
        pairs.map(lambda p: maximum(*p)),
        pairs.map(lambda p: minimum(*p)),
        st.tuples(children, st.integers(1, 7)).map(lambda p: floordiv(*p)),
        st.tuples(children, st.integers(-7, -1)).map(lambda p: floordiv(*p)),
        st.tuples(children, st.integers(1, 7)).map(lambda p: modulo(*p)),
    )


POLYNOMIALS = st.recursive(
    LEAVES,
    lambda c: st.one_of(
        st.tuples(c, c).map(lambda p: p[0] + p[1]),
        st.tuples(c, c).map(lambda p: p[0] - p[1]),
        st.tuples(c, c).map(lambda p: p[0] * p[1]),
    ),
    max_leaves=6,
)
EXPRESSIONS = st.recursive(LEAVES, _combine, max_leaves=6)


@given(EXPRESSIONS, EXPRESSIONS, ENVIRONMENTS, st.integers(1, 7))
def test_arithmetic_is_that_of_integers(a: Dim, b: Dim, env: dict[str, int], divisor: int) -> None:
    x, y = evaluate(a, env), evaluate(b, env)
    assert evaluate(a + b, env) == x + y
    assert evaluate(a - b, env) == x - y
    assert evaluate(a * b, env) == x * y
    assert evaluate(maximum(a, b), env) == max(x, y)
    assert evaluate(minimum(a, b), env) == min(x, y)
    assert evaluate(floordiv(a, divisor), env) == x // divisor
    assert evaluate(ceildiv(a, divisor), env) == -(-x // divisor)
    assert evaluate(modulo(a, divisor), env) == x % divisor


@given(EXPRESSIONS, EXPRESSIONS, ENVIRONMENTS)
def test_calls_give_way_to_their_values(a: Dim, b: Dim, env: dict[str, int]) -> None:
    calls = [atom for m, _ in a.terms for atom in m if isinstance(atom, Call)] if isinstance(a, SymInt) else []
    known = {c.text: SymInt.of(Symbol(f"c{n}", -(10**9))) for n, c in enumerate(calls)}
    values = {f"c{n}": evaluate(SymInt((((c,), 1),)), env) for n, c in enumerate(calls)}
    for value in (a, a * b + 1):
        assert evaluate(substitute_calls(value, known), env | values) == evaluate(value, env)
    assert not set(known) & set(_calls_of(substitute_calls(a, known)))


def _calls_of(value: Dim) -> list[str]:
    return [] if isinstance(value, int) else [a.text for m, _ in value.terms for a in m if isinstance(a, Call)]


@given(EXPRESSIONS, EXPRESSIONS, ENVIRONMENTS)
def test_an_equality_says_what_a_call_is(a: Dim, b: Dim, env: dict[str, int]) -> None:
    solved = solved_call(a, b)
    if solved is not None:
        text, value = solved
        ((call,),) = ([x for m, _ in a.terms for x in m] for a in [a] if isinstance(a, SymInt))
        assert call.text == text
        difference = evaluate(a, env) - evaluate(b, env)
        assert abs(evaluate(SymInt((((call,), 1),)), env) - evaluate(value, env)) == abs(difference)


ENDS = st.one_of(st.none(), st.integers(-4, 4))


@given(ENDS, ENDS, ENDS, ENDS)
def test_products_of_intervals(a: int | None, b: int | None, c: int | None, d: int | None) -> None:
    """The narrowest interval: of numbers between the ends, and far out where there is no end."""
    far = 1000

    def numbers(low: int | None, high: int | None) -> list[int]:
        lowest, highest = -far if low is None else low, far if high is None else high
        return sorted({lowest, highest, *(n for n in range(-5, 6) if lowest <= n <= highest)})

    first, second = numbers(a, b), numbers(c, d)
    if (None not in (a, b) and a > b) or (None not in (c, d) and c > d):  # type: ignore[operator]
        return
    products = [x * y for x in first for y in second]
    low, high = interval_product((a, b), (c, d))
    assert low == (min(products) if min(products) > -far / 2 else None)
    assert high == (max(products) if max(products) < far / 2 else None)


@example(maximum(modulo(SymInt.of(SYMBOLS["N"]), 2), minimum(0, floordiv(SymInt.of(SYMBOLS["N"]), -2))))
@given(EXPRESSIONS)
def test_text_parses_back(a: Dim) -> None:
    assert parse_dim(dim_text(a), SYMBOLS) == a
    assert dim_text(parse_dim(dim_text(a), SYMBOLS)) == dim_text(a)


@given(EXPRESSIONS, ENVIRONMENTS)
def test_bounds_contain_every_value(a: Dim, env: dict[str, int]) -> None:
    low, high = bounds_of(a)
    assert low is None or low <= evaluate(a, env)
    assert high is None or evaluate(a, env) <= high


@given(
    st.lists(st.tuples(st.integers(-12, 12), st.integers(-3, 9), st.sampled_from([2, 3, 4, 8, 16])), max_size=3),
    st.integers(-3, 3),
    st.integers(0, 200),
)
def test_bounds_of_quotients_contain_every_value(
    quotients: list[tuple[int, int, int]], times: int, value: int
) -> None:
    n = SymInt.of(Symbol("N"))
    whole: Dim = n * times
    for coefficient, more, divisor in quotients:
        whole = whole + floordiv(n + more, divisor) * coefficient
    low, high = bounds_of(whole)
    found = evaluate(whole, {"N": value})
    assert (low is None or low <= found) and (high is None or found <= high)


def test_bounds_of_what_rounding_leaves() -> None:
    n = SymInt.of(Symbol("N", 3))
    assert bounds_of(n - floordiv(n, 8) * 8) == (0, 7)
    assert bounds_of(floordiv(n + 7, 8) * 8 - n) == (0, 7)
    assert minimum(floordiv(n - 1, 16) * 8 + 8, floordiv(n - 1, 2) + 1) == floordiv(n - 1, 2) + 1
    assert bounds_of(floordiv(n, 2)) == (1, None)


@given(EXPRESSIONS, EXPRESSIONS, ENVIRONMENTS)
def test_exact_division_is_exact(a: Dim, b: Dim, env: dict[str, int]) -> None:
    quotient = exact_div(a, b)
    if quotient is not None:
        assert evaluate(quotient, env) * evaluate(b, env) == evaluate(a, env)


@given(POLYNOMIALS, POLYNOMIALS)
def test_exact_division_undoes_multiplication(a: Dim, b: Dim) -> None:
    assert b == 0 or exact_div(a * b, b) == a


@given(EXPRESSIONS, EXPRESSIONS, ENVIRONMENTS)
def test_substitution_is_evaluation_in_steps(a: Dim, b: Dim, env: dict[str, int]) -> None:
    assert evaluate(substitute(a, {"K": b}), env) == evaluate(a, {**env, "K": evaluate(b, env)})


NAMES = st.lists(st.sampled_from(["N", "M", "K"]), min_size=1, max_size=6)


@given(NAMES, st.integers(2, 9), st.sets(st.sampled_from("NMK")))
def test_broadcast_is_flat_and_right(names: list[str], size: int, ones: set[str]) -> None:
    dims = [SymInt.of(SYMBOLS[n]) for n in names]
    env = {n: 1 if n in ones else size for n in "NMK"}
    result: Dim = dims[0]
    for dim in dims[1:]:
        result = bcast(result, dim)
    assert evaluate(result, env) == max(env[n] for n in names)
    assert set(symbols_of(result)) == {SYMBOLS[n] for n in names}
    again: Dim = dims[-1]
    for dim in reversed(dims):
        again = bcast(dim, again)
    assert again == result


def test_the_length_that_masks_compute_is_the_length() -> None:
    n = SymInt.of(Symbol("N"))
    assert n * minimum(1, n) == n
    assert maximum(0, n - maximum(0, n * minimum(1, n) - n)) == n


def test_digits_come_together_in_any_order() -> None:
    n = SymInt.of(Symbol("N"))
    low, high = modulo(n, 4), modulo(floordiv(n, 4), 3) * 4
    assert low + high == high + low == modulo(n, 12)
    assert high - modulo(n, 12) + low == 0
    assert low + high + floordiv(n, 12) * 12 == floordiv(n, 12) * 12 + high + low == n


def test_bounds_of_one_name_in_two_models_do_not_mix() -> None:
    small, wide = SymInt.of(Symbol("B", 1, 4)), SymInt.of(Symbol("B"))
    assert maximum(small, 5) == 5
    assert maximum(wide, 5) != 5


def test_literal_broadcasts() -> None:
    n = SymInt.of(SYMBOLS["N"])
    assert bcast(n, 7) == 7 and bcast(1, n) == n and bcast(n, 1) == n
    with pytest.raises(ValueError, match="dimensions 2 and 3 do not broadcast"):
        bcast(2, 3)


@pytest.mark.parametrize("name", ["", "1a", "a b", "lambda", "None", "max", "x\n"])
def test_names_that_are_no_symbols(name: str) -> None:
    with pytest.raises(ValueError, match="is not an identifier"):
        Symbol(name)


LONG = ["(" * 500, "-" * 15_000, "1" * 30_000]


@pytest.mark.parametrize("text", ["", "N +", "Q", "N / 2", "max(N)", "N.real", "floordiv(N, 0)", *LONG])
def test_texts_that_are_no_dimension(text: str) -> None:
    with pytest.raises(ValueError):
        parse_dim(text, SYMBOLS)


def test_huge_products_are_refused() -> None:
    big = product([sum((SymInt.of(Symbol(f"s{i}")) for i in range(20)), start=SymInt.of(Symbol("t")))])
    with pytest.raises(OverflowError, match="too many terms"):
        product([big] * 4)
