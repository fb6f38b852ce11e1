"""Strings."""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.ir.definition import Opaque, same
from fusible.compiler.ir.inference import broadcast_type
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.types import DType, TensorType
from fusible.kernels.numpy.regular_expression import Automaton

__all__ = ["RegexFullMatchAttrs", "StringNormalizerAttrs", "StringSplitAttrs", "TfIdfVectorizerAttrs"]


@dataclass(frozen=True, slots=True)
class StringSplitAttrs:
    """delimiter: "" for runs of white space; maxsplit: the most cuts, None for no limit."""

    delimiter: str = ""
    maxsplit: int | None = None


@dataclass(frozen=True, slots=True)
class StringNormalizerAttrs:
    """Attributes of ONNX StringNormalizer but for the locale."""

    case_change_action: str = "NONE"
    is_case_sensitive: bool = False
    stopwords: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegexFullMatchAttrs:
    """pattern: in RE2 syntax."""

    pattern: str


@dataclass(frozen=True, slots=True)
class TfIdfVectorizerAttrs:
    """Scalar attributes of ONNX TfIdfVectorizer; columns: of the result."""

    mode: str
    min_gram_length: int
    max_gram_length: int
    max_skip_count: int
    ngram_counts: tuple[int, ...]
    columns: int


def _strings(ctx: Infer, index: int = 0) -> TensorType:
    type_ = ctx.type(index)
    if type_.dtype is not DType.STRING:
        ctx.fail(f"input {index} must hold strings, got {type_}")
    return type_


def _string_concat(ctx: Infer) -> TensorType:
    _strings(ctx, 0)
    _strings(ctx, 1)
    return broadcast_type(ctx)


def _string_split(ctx: Infer) -> list[TensorType]:
    x = _strings(ctx)
    if ctx.attrs.maxsplit is not None and ctx.attrs.maxsplit < 0:
        ctx.fail(f"maxsplit must not be negative, got {ctx.attrs.maxsplit}")
    pieces = None if x.shape is None else (*x.shape, ctx.fresh("pieces"))
    return [TensorType(DType.STRING, pieces), TensorType(DType.I64, x.shape)]


def _string_normalizer(ctx: Infer) -> TensorType:
    x = _strings(ctx)
    if ctx.attrs.case_change_action not in ("NONE", "LOWER", "UPPER"):
        ctx.fail(f"case_change_action must be NONE, LOWER or UPPER, got {ctx.attrs.case_change_action!r}")
    if x.shape is None:
        return x
    if len(x.shape) not in (1, 2) or (len(x.shape) == 2 and isinstance(x.shape[0], int) and x.shape[0] != 1):
        ctx.fail(f"takes strings of shape [C] or [1, C], got {x}")
    kept = ctx.fresh("kept", lower=1)
    return TensorType(DType.STRING, (kept,) if len(x.shape) == 1 else (1, kept))


def _regex_full_match(ctx: Infer) -> TensorType:
    Automaton(ctx.attrs.pattern)  # ValueError for a bad pattern
    return TensorType(DType.BOOL, _strings(ctx).shape)


def _tf_idf_vectorizer(ctx: Infer) -> TensorType:
    x, attrs = ctx.type(0), ctx.attrs
    if x.dtype is not ctx.dtype(1):
        ctx.fail(f"the items are {x.dtype.value}, those of the pool {ctx.dtype(1).value}")
    if attrs.mode not in ("TF", "IDF", "TFIDF"):
        ctx.fail(f"mode must be TF, IDF or TFIDF, got {attrs.mode!r}")
    if x.shape is None:
        return TensorType(DType.F32, None)
    if len(x.shape) not in (1, 2):
        ctx.fail(f"takes items of shape [C] or [N, C], got {x}")
    return TensorType(DType.F32, (*x.shape[:-1], attrs.columns))


_TEXT = same(Opaque("strings have no scalar expressions"))
OPS.register(Op("string_concat", _string_concat, _TEXT, "text:string_concat", inputs=(2, 2)))
OPS.register(Op("string_split", _string_split, _TEXT, "text:string_split", StringSplitAttrs, outputs=2, dynamic=True))
OPS.register(
    Op("string_normalizer", _string_normalizer, _TEXT, "text:string_normalizer", StringNormalizerAttrs, dynamic=True)
)
OPS.register(Op("regex_full_match", _regex_full_match, _TEXT, "text:regex_full_match", RegexFullMatchAttrs))
OPS.register(
    Op(
        "tf_idf_vectorizer",
        _tf_idf_vectorizer,
        same(Opaque("it counts the matches of a table")),
        "text:tf_idf_vectorizer",
        TfIdfVectorizerAttrs,
        inputs=(3, 4),
    )
)
