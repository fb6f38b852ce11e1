"""Operators on strings, TfIdfVectorizer, and ImageDecoder, which is not supported."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.types import DType
from fusible.kernels.numpy.regular_expression import Automaton


@onnx_op("StringConcat")
def string_concat(c: NodeContext) -> Value:
    """StringConcat."""
    return c.add("string_concat", c.required(0), c.required(1))


@onnx_op("StringSplit")
def string_split(c: NodeContext) -> Sequence[Value]:
    """StringSplit."""
    maxsplit = c.attr_int("maxsplit") if c.has_attr("maxsplit") else None
    node = c.add_node(
        "string_split", c.required(0), outputs=2, delimiter=c.attr_string("delimiter", ""), maxsplit=maxsplit
    )
    return node.outputs


@onnx_op("StringNormalizer")
def string_normalizer(c: NodeContext) -> Value:
    """StringNormalizer. The locale is ignored: case is Unicode's."""
    return c.add(
        "string_normalizer",
        c.required(0),
        case_change_action=c.attr_string("case_change_action", "NONE"),
        is_case_sensitive=c.attr_int("is_case_sensitive", 0) != 0,
        stopwords=c.attr_strings("stopwords") or (),
    )


@onnx_op("RegexFullMatch")
def regex_full_match(c: NodeContext) -> Value:
    """RegexFullMatch."""
    pattern = c.attr_string("pattern")
    try:
        Automaton(pattern)
    except ValueError as error:
        c.unsupported(str(error))
    return c.add("regex_full_match", c.required(0), pattern=pattern)


@onnx_op("TfIdfVectorizer")
def tf_idf_vectorizer(c: NodeContext) -> Value:
    """TfIdfVectorizer: its tables become constants, integers int64."""
    x, pool = c.required(0), _pool(c)
    if pool.dtype == np.int64 and c.tensor_type(0).dtype is not DType.I64:
        x = c.add("cast", x, dtype=DType.I64)
    indexes = c.attr_ints("ngram_indexes") or ()
    if min(indexes, default=0) < 0:
        c.invalid("ngram_indexes must not be negative")
    weights = c.attr_floats("weights")
    if weights and len(weights) != len(indexes):
        c.invalid(f"{len(weights)} weights for {len(indexes)} n-grams")
    return c.add(
        "tf_idf_vectorizer",
        x,
        c.constant(pool),
        c.ints_constant(indexes),
        c.constant(np.asarray(weights, np.float32)) if weights else None,
        mode=c.attr_string("mode"),
        min_gram_length=c.attr_int("min_gram_length"),
        max_gram_length=c.attr_int("max_gram_length"),
        max_skip_count=c.attr_int("max_skip_count"),
        ngram_counts=c.attr_ints("ngram_counts") or (),
        columns=max(indexes, default=-1) + 1,
    )


def _pool(c: NodeContext) -> np.ndarray:
    strings, integers = c.attr_strings("pool_strings"), c.attr_ints("pool_int64s")
    if (strings is None) == (integers is None):
        c.invalid("needs either pool_strings or pool_int64s")
    if (strings is not None) != (c.tensor_type(0).dtype is DType.STRING):
        c.invalid("the items of the input and of the pool differ in type")
    return np.array(strings, object) if strings is not None else np.array(integers, np.int64)


@onnx_op("ImageDecoder")
def image_decoder(c: NodeContext) -> Value:
    """ImageDecoder needs an image codec, and none is among the dependencies."""
    c.unsupported("no image codec is among the dependencies; decode the image before the model and feed its pixels")
