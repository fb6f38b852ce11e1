"""ONNX Runtime's operators of transformers, imported and compared with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx import helper

from fusible.errors import InvalidModel, UnsupportedOp
from tests.frontend.imported import evaluated, expected, imported, model_of

CONTRIB = {"com.microsoft": 1}


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model(op: str, inputs: Mapping[str, np.ndarray], names: list[str], results: list[str], **attributes: Any) -> Any:
    domain = attributes.pop("domain", "com.microsoft")
    constants = attributes.pop("constants", {})
    node = helper.make_node(op, names, results, domain=domain, **attributes)
    return model_of([node], inputs, [r for r in results if r], constants, domains=CONTRIB)


def compare(op: str, inputs: Mapping[str, np.ndarray], names: list[str], results: list[str], **attributes: Any) -> None:
    """Both answers agree."""
    made = model(op, inputs, names, results, **attributes)
    for got, reference in zip(evaluated(made, inputs), expected(made, inputs), strict=True):
        assert (got.dtype, got.shape) == (reference.dtype, reference.shape)
        np.testing.assert_allclose(got, reference, rtol=2e-4, atol=2e-5)


X, SKIP, BIAS, SCALE = random(0, 2, 3, 8), random(1, 2, 3, 8), random(2, 8), random(3, 8)


@pytest.mark.parametrize("bias", ["", "b"])
@pytest.mark.parametrize("op", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
def test_norms_of_sums(op: str, bias: str) -> None:
    names = ["x", "s", "g", *(["beta"] if op == "SkipLayerNormalization" else []), bias]
    inputs = {k: v for k, v in {"x": X, "s": SKIP, "g": SCALE, "beta": -BIAS, "b": BIAS}.items() if k in names}
    compare(op, inputs, names, ["y", "", "", "sum"], epsilon=1e-3)


@pytest.mark.parametrize("domain", [""])
def test_simplified_norm(domain: str) -> None:
    compare("SimplifiedLayerNormalization", {"x": X, "g": SCALE}, ["x", "g"], ["y"], domain=domain, epsilon=1e-2)


def test_statistics_are_for_training() -> None:
    made = model("SkipLayerNormalization", {"x": X, "s": SKIP, "g": SCALE}, ["x", "s", "g"], ["y", "mean"])
    with pytest.raises(UnsupportedOp, match="its result mean, which training alone needs"):
        imported(made)


@pytest.mark.parametrize("segments", [True, False])
@pytest.mark.parametrize("places", ["", "places"])
def test_embeddings(segments: bool, places: str) -> None:
    ids = np.array([[1, 4, 2], [0, 3, 3]], np.int32)
    inputs = {
        "ids": ids, "seg": ids % 2, "words": random(4, 5, 8), "table": random(5, 6, 8), "segs": random(6, 2, 8),
        "g": SCALE, "b": BIAS, "mask": np.array([[1, 1, 0], [1, 1, 1]], np.int32), "places": ids + 1,
    }  # fmt: skip
    names = ["ids", "seg" if segments else "", "words", "table", "segs" if segments else "", "g", "b", "mask", places]
    used = {k: v for k, v in inputs.items() if k in names}
    compare("EmbedLayerNormalization", used, names, ["y", "count", "sum"])


def test_elements_of_a_mask_that_are_neither_0_nor_1_do_not_count() -> None:
    mask = np.array([[2, 1, 0], [3, -1, 3], [1, 1, 1]], np.int32)
    inputs = {"ids": mask % 3, "words": random(4, 5, 8), "table": random(5, 6, 8), "g": SCALE, "b": BIAS, "mask": mask}
    compare("EmbedLayerNormalization", inputs, ["ids", "", "words", "table", "", "g", "b", "mask"], ["y", "count"])


def test_activations() -> None:
    for op in ("FastGelu", "Gelu", "QuickGelu"):
        compare(op, {"x": X}, ["x"], ["y"])
    for op in ("FastGelu", "BiasGelu"):
        compare(op, {"x": X, "b": BIAS}, ["x", "b"], ["y"])


@pytest.mark.parametrize("flags", [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 1), (1, 1, 1, 1)])
def test_products(flags: tuple[int, ...]) -> None:
    attributes = dict(zip(("transA", "transB", "transBatchA", "transBatchB"), flags, strict=True))
    a, b = random(7, 2, 3, 4, 5), random(8, 2, 3, 5, 6)
    for name, array in (("A", a), ("B", b)):
        axes = [0, 1, 3, 2] if attributes[f"trans{name}"] else [0, 1, 2, 3]
        array = array.transpose(axes)
        if attributes[f"transBatch{name}"]:
            array = np.moveaxis(array, -2, 0)
        a, b = (array, b) if name == "A" else (a, array)
    compare("FusedMatMul", {"a": np.ascontiguousarray(a), "b": np.ascontiguousarray(b)}, ["a", "b"], ["y"], alpha=0.5,
            **attributes)  # fmt: skip


CACHE = {"cos": np.cos(random(9, 32, 4)), "sin": np.sin(random(9, 32, 4))}


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("shape", [(2, 3, 16), (2, 2, 3, 8)])
@pytest.mark.parametrize("first", [True, False])
def test_rotary(interleaved: int, shape: tuple[int, ...], first: bool) -> None:
    places = np.array([5], np.int64) if first else np.array([[3, 4, 5], [0, 1, 2]], np.int64)
    inputs = {"x": random(10, *shape), "p": places, **CACHE}
    compare("RotaryEmbedding", inputs, ["x", "p", "cos", "sin"], ["y"], interleaved=interleaved)


def test_partial_rotary() -> None:
    inputs = {"x": random(10, 1, 3, 32), "p": np.array([[3, 4, 5]], np.int64), **CACHE}
    names = ["x", "p", "cos", "sin"]
    compare("RotaryEmbedding", inputs, names, ["y"], num_heads=2, rotary_embedding_dim=8)
    with pytest.raises(InvalidModel, match="rotary_embedding_dim needs num_heads"):
        imported(model("RotaryEmbedding", inputs, names, ["y"], rotary_embedding_dim=8))


def mha(**more: np.ndarray) -> tuple[dict[str, np.ndarray], list[str]]:
    """Two heads of 4, 3 queries, 3 keys of this run."""
    inputs = {"q": random(11, 2, 3, 8), "k": random(12, 2, 3, 8), "v": random(13, 2, 3, 8), **more}
    order = ["q", "k", "v", "bias", "pad", "add", "pk", "pv"]
    return inputs, [name if name in inputs else "" for name in order]


PAST = {"pk": random(14, 2, 2, 5, 4), "pv": random(15, 2, 2, 5, 4)}
FORMS: dict[str, dict[str, np.ndarray]] = {
    "plain": {},
    "bias": {"bias": random(16, 24)},
    "padded": {"pad": np.array([[1, 1, 0], [1, 1, 1]], np.int32)},
    "added": {"add": random(17, 1, 2, 3, 3)},
    "padded_and_added": {"add": random(17, 2, 2, 3, 3), "pad": np.array([[1, 1, 0], [1, 1, 1]], np.int32)},
    "past": PAST,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("causal", [0, 1])
def test_multi_head_attention(form: str, causal: int) -> None:
    inputs, names = mha(**FORMS[form])
    results = ["y", "nk", "nv"] if form == "past" else ["y"]
    compare("MultiHeadAttention", inputs, names, results, num_heads=2, unidirectional=causal)


def test_packed_multi_head_attention() -> None:
    """ONNX Runtime's CPU kernel does not take queries, keys and values in one tensor: they are compared with three."""
    packed = random(18, 2, 3, 2, 3, 4)
    apart = {name: np.ascontiguousarray(packed[:, :, :, n]).reshape(2, 3, 8) for n, name in enumerate("qkv")}
    (one,) = evaluated(model("MultiHeadAttention", {"q": packed}, ["q"], ["y"], num_heads=2), {"q": packed})
    (three,) = evaluated(model("MultiHeadAttention", apart, list("qkv"), ["y"], num_heads=2), apart)
    np.testing.assert_array_equal(one, three)
    pair = {"q": apart["q"], "k": np.ascontiguousarray(packed[:, :, :, 1:])}
    (two,) = evaluated(model("MultiHeadAttention", pair, ["q", "k"], ["y"], num_heads=2), pair)
    np.testing.assert_array_equal(two, three)


def test_what_multi_head_attention_cannot() -> None:
    inputs, names = mha(pad=np.array([3, 2], np.int32))
    with pytest.raises(UnsupportedOp, match="key_padding_mask is of rank 1"):
        imported(model("MultiHeadAttention", inputs, names, ["y"], num_heads=2))


def gqa(
    batch: int, new: int, past: int, total: int, ends: list[int], *, packed: bool = False, rotary: bool = False,
    results: int = 3, add: bool = False, **attributes: Any,
) -> tuple[Any, dict[str, np.ndarray]]:  # fmt: skip
    """Four query heads and two key heads of 16; sequences end at `ends`, in caches of `past` keys."""
    inputs = {"q": random(20, batch, new, 128 if packed else 64)}
    if not packed:
        inputs |= {"k": random(21, batch, new, 32), "v": random(22, batch, new, 32)}
    inputs |= {"pk": random(23, batch, 2, past, 16), "pv": random(24, batch, 2, past, 16)}
    inputs["ends"] = np.array(ends, np.int32) - 1
    if rotary:
        inputs |= {"cos": np.cos(random(9, 32, 8)), "sin": np.sin(random(9, 32, 8))}
    if add:
        inputs["add"] = random(25, 1, 1, new, total)
    order = ["q", "k", "v", "pk", "pv", "ends", "total", "cos", "sin", "", "add"]
    names = [n if n in inputs or n == "total" else "" for n in order]
    attributes = {"num_heads": 4, "kv_num_heads": 2, "do_rotary": int(rotary), **attributes}
    constants = {"total": np.array(total, np.int32)}
    made = model("GroupQueryAttention", inputs, names, ["y", "nk", "nv"][:results], constants=constants, **attributes)
    return made, inputs


GROUPS: dict[str, dict[str, Any]] = {
    "prompt": {"batch": 2, "new": 5, "past": 0, "total": 5, "ends": [5, 5]},
    "packed": {"batch": 1, "new": 5, "past": 0, "total": 5, "ends": [5], "packed": True, "rotary": True},
    "decode": {"batch": 1, "new": 1, "past": 6, "total": 7, "ends": [7], "rotary": True},
    "soft": {"batch": 1, "new": 1, "past": 6, "total": 7, "ends": [7], "softcap": 2.0, "scale": 0.2},
    "interleaved": {"batch": 1, "new": 1, "past": 6, "total": 7, "ends": [7], "rotary": True, "rotary_interleaved": 1},
    "window": {"batch": 1, "new": 1, "past": 6, "total": 7, "ends": [7], "local_window_size": 3},
    "window_of_a_prompt": {"batch": 1, "new": 6, "past": 0, "total": 6, "ends": [6], "local_window_size": 3},
    "biased": {"batch": 1, "new": 1, "past": 6, "total": 7, "ends": [7], "add": True},
    "buffers": {"batch": 2, "new": 1, "past": 12, "total": 7, "ends": [7, 5], "rotary": True},
    "window_of_buffers": {"batch": 2, "new": 1, "past": 12, "total": 7, "ends": [7, 5], "local_window_size": 3},
    "ends_that_differ": {"batch": 2, "new": 1, "past": 6, "total": 7, "ends": [7, 5], "rotary": True},
    "prompt_in_buffers": {"batch": 2, "new": 4, "past": 12, "total": 4, "ends": [4, 2], "rotary": True},
    "prompt_as_long_as_buffers": {"batch": 2, "new": 4, "past": 4, "total": 4, "ends": [2, 4]},
    "more_in_buffers": {"batch": 1, "new": 3, "past": 12, "total": 6, "ends": [6], "rotary": True},
    "ends_early": {"batch": 1, "new": 1, "past": 6, "total": 7, "ends": [5], "rotary": True},
    "more_that_end_early": {"batch": 1, "new": 3, "past": 6, "total": 9, "ends": [7], "rotary": True},
    "window_that_ends_early": {"batch": 1, "new": 2, "past": 6, "total": 8, "ends": [7], "local_window_size": 3},
    "biased_that_ends_early": {"batch": 1, "new": 1, "past": 6, "total": 7, "ends": [5], "add": True},
    "biased_buffers": {"batch": 1, "new": 1, "past": 12, "total": 7, "ends": [7], "add": True},
}


@pytest.mark.parametrize("form", GROUPS)
def test_group_query_attention(form: str) -> None:
    made, inputs = gqa(**GROUPS[form])
    got, reference = evaluated(made, inputs), expected(made, inputs)
    ends, (new, total) = GROUPS[form]["ends"], (GROUPS[form][name] for name in ("new", "total"))
    for row, end in enumerate(ends):  # of a prompt that is padded behind its end, anything
        valid = end if new == total else new
        np.testing.assert_allclose(got[0][row, :valid], reference[0][row, :valid], rtol=2e-4, atol=2e-5)
    for mine, theirs in zip(got[1:], reference[1:], strict=True):
        assert mine.shape == theirs.shape
        for row, end in enumerate(ends):  # what lies behind the end is whatever was there
            np.testing.assert_allclose(mine[row, :, :end], theirs[row, :, :end], rtol=2e-4, atol=2e-5)


def test_what_group_query_attention_cannot() -> None:
    made, _ = gqa(**{**GROUPS["decode"], "smooth_softmax": 1})
    with pytest.raises(UnsupportedOp, match="smooth_softmax"):
        imported(made)
    made, _ = gqa(2, 3, 12, 6, [6, 5])
    with pytest.raises(UnsupportedOp, match=r"'y'.*3 new keys of each of 2 sequences come behind others"):
        imported(made)
    made, _ = gqa(**{**GROUPS["packed"], "kv_num_heads": 3})
    with pytest.raises(InvalidModel, match="128 columns are not those of 4 queries, 3 keys and 3 values"):
        imported(made)
