"""Classical machine learning (ai.onnx.ml). Tables are constant operands, so that attributes stay small."""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.ir.definition import Elementwise, Opaque, same
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.expr import Arg, Convert, apply

__all__ = [
    "BinarizerAttrs",
    "FeatureVectorizerAttrs",
    "LinearRegressorAttrs",
    "NormalizerAttrs",
    "OneHotEncoderAttrs",
    "TreeEnsembleAttrs",
]

_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")


@dataclass(frozen=True, slots=True)
class BinarizerAttrs:
    """threshold: greater values become 1, others 0."""

    threshold: float = 0.0


@dataclass(frozen=True, slots=True)
class FeatureVectorizerAttrs:
    """inputdimensions: how many columns of the result each input gets."""

    inputdimensions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LinearRegressorAttrs:
    """post_transform: NONE, SOFTMAX, LOGISTIC or SOFTMAX_ZERO."""

    post_transform: str = "NONE"


@dataclass(frozen=True, slots=True)
class NormalizerAttrs:
    """norm: MAX, L1 or L2."""

    norm: str = "MAX"


@dataclass(frozen=True, slots=True)
class OneHotEncoderAttrs:
    """zeros: whether an element of no category becomes zeros rather than an error."""

    zeros: bool = True


@dataclass(frozen=True, slots=True)
class TreeEnsembleAttrs:
    """Scalar attributes of ONNX TreeEnsemble, numbered as there."""

    n_targets: int
    aggregate_function: int = 1
    post_transform: int = 0


def _array_feature_extractor(ctx: Infer) -> TensorType:
    x, columns = ctx.type(0), ctx.type(1)
    if columns.dtype is not DType.I64:
        ctx.fail(f"the columns must be int64, got {columns}")
    if x.shape is None or columns.elements is None:
        return TensorType(x.dtype, None)
    if not x.shape:
        ctx.fail("takes a tensor of at least rank 1")
    lead = x.shape[:-1] if len(x.shape) > 1 else (1,)
    return TensorType(x.dtype, (*lead, columns.elements))


def _binarizer(ctx: Infer) -> TensorType:
    return _numbers(ctx)


def _binarizer_definition(node: Node) -> Elementwise:
    type_ = node.outputs[0].type
    assert isinstance(type_, TensorType)
    # The threshold is a float even where the elements are integers.
    wide = Arg(0) if type_.dtype is DType.F32 else Convert(Arg(0), DType.F64)
    return Elementwise(Convert(apply("gt", wide, node.attrs.threshold), type_.dtype))


def _feature_vectorizer(ctx: Infer) -> TensorType:
    widths = ctx.attrs.inputdimensions
    if len(widths) != len(ctx.inputs) or min(widths, default=0) < 0:
        ctx.fail(f"needs one non-negative dimension for each of {len(ctx.inputs)} inputs, got {list(widths)}")
    types = [_numbers(ctx, index) for index in range(len(ctx.inputs))]
    shape = types[0].shape
    if shape is None:
        return TensorType(DType.F32, None)
    if not shape:
        ctx.fail("takes tensors of at least rank 1")
    return TensorType(DType.F32, (shape[0] if len(shape) > 1 else 1, sum(widths)))


def _imputer(ctx: Infer) -> TensorType:
    x, imputed = _numbers(ctx), ctx.type(1)
    if ctx.dtype(1) is not x.dtype or ctx.dtype(2) is not x.dtype:
        ctx.fail(f"the values must have the type of the input, {x.dtype.value}")
    _per_feature(ctx, x, imputed)
    return x


def _label_encoder(ctx: Infer) -> TensorType:
    x, keys, values = ctx.type(0), ctx.type(1), ctx.type(2)
    if keys.dtype is not x.dtype:
        ctx.fail(f"the keys are {keys.dtype.value}, the input {x.dtype.value}")
    if keys.rank != 1 or keys.static_shape != values.static_shape or ctx.dtype(3) is not values.dtype:
        ctx.fail(f"needs as many values as keys and a default like the values, got {keys}, {values}, {ctx.type(3)}")
    return TensorType(values.dtype, x.shape)


def _linear_regressor(ctx: Infer) -> TensorType:
    x, weights = _numbers(ctx), ctx.type(1).static_shape
    _check_transform(ctx)
    if weights is None or len(weights) != 2:
        ctx.fail(f"needs a matrix of coefficients, got {ctx.type(1)}")
    targets, features = weights
    if ctx.has(2) and ctx.type(2).static_shape != (targets,):
        ctx.fail(f"needs {targets} intercepts, got {ctx.type(2)}")
    if x.shape is None:
        return TensorType(DType.F32, None)
    if len(x.shape) not in (1, 2) or (isinstance(x.shape[-1], int) and x.shape[-1] != features):
        ctx.fail(f"takes rows of {features} features, got {x}")
    return TensorType(DType.F32, (x.shape[0] if len(x.shape) == 2 else 1, targets))


def _check_transform(ctx: Infer) -> None:
    if ctx.attrs.post_transform not in _TRANSFORMS:
        ctx.fail(f"post_transform must be one of {', '.join(_TRANSFORMS)}, got {ctx.attrs.post_transform!r}")


def _normalizer(ctx: Infer) -> TensorType:
    if ctx.attrs.norm not in ("MAX", "L1", "L2"):
        ctx.fail(f"norm must be MAX, L1 or L2, got {ctx.attrs.norm!r}")
    x = _numbers(ctx)
    if x.rank == 0:
        ctx.fail("takes a tensor of at least rank 1")
    return TensorType(DType.F32, x.shape)


def _one_hot_encoder(ctx: Infer) -> TensorType:
    x, categories = ctx.type(0), ctx.type(1)
    if (x.dtype is DType.STRING) != (categories.dtype is DType.STRING) or categories.rank != 1:
        ctx.fail(f"the categories {categories} do not fit the input {x}")
    assert categories.shape is not None
    return TensorType(DType.F32, None if x.shape is None else (*x.shape, categories.shape[0]))


def _scaler(ctx: Infer) -> TensorType:
    x = _numbers(ctx)
    for index in (1, 2):
        _per_feature(ctx, x, ctx.type(index))
    return TensorType(DType.F32, x.shape)


def _tree_ensemble(ctx: Infer) -> TensorType:
    x = _numbers(ctx)
    if x.shape is not None and len(x.shape) != 2:
        ctx.fail(f"takes a matrix of rows and features, got {x}")
    for index in range(1, len(ctx.inputs)):
        if ctx.has(index) and ctx.rank(index) != 1:
            ctx.fail(f"its tables must be vectors, input {index} is {ctx.type(index)}")
    if ctx.attrs.n_targets < 1:
        ctx.fail(f"n_targets must be positive, got {ctx.attrs.n_targets}")
    return TensorType(x.dtype, None if x.shape is None else (x.shape[0], ctx.attrs.n_targets))


def _numbers(ctx: Infer, index: int = 0) -> TensorType:
    type_ = ctx.type(index)
    if not (type_.dtype.is_float or type_.dtype.is_integer):
        ctx.fail(f"input {index} must hold real numbers, got {type_}")
    return type_


def _per_feature(ctx: Infer, x: TensorType, values: TensorType) -> None:
    """One value, or one for each element of the last axis."""
    last = x.shape[-1] if x.shape else 1
    if values.rank != 1 or (values.elements != 1 and isinstance(last, int) and values.elements != last):
        ctx.fail(f"needs one value or one for each of {last} features, got {values}")


_SCALED = apply("mul", apply("sub", Convert(Arg(0), DType.F32), Arg(1)), Arg(2))
_TABLE = same(Opaque("it looks values up in a table"))
_ROWS = same(Opaque("every element of a row depends on the whole row"))
OPS.register(
    Op(
        "array_feature_extractor", _array_feature_extractor, _TABLE, "ml:array_feature_extractor", inputs=(2, 2)
    )
)
OPS.register(Op("binarizer", _binarizer, _binarizer_definition, "ml:binarizer", BinarizerAttrs))
OPS.register(
    Op("feature_vectorizer", _feature_vectorizer, _ROWS, "ml:feature_vectorizer", FeatureVectorizerAttrs, (1, None))
)
OPS.register(Op("imputer", _imputer, _TABLE, "ml:imputer", inputs=(3, 3)))
OPS.register(Op("label_encoder", _label_encoder, _TABLE, "ml:label_encoder", inputs=(4, 4)))
OPS.register(Op("linear_regressor", _linear_regressor, _ROWS, "ml:linear_regressor", LinearRegressorAttrs, (2, 3)))
OPS.register(Op("normalizer", _normalizer, _ROWS, "ml:normalizer", NormalizerAttrs))
OPS.register(Op("one_hot_encoder", _one_hot_encoder, _TABLE, "ml:one_hot_encoder", OneHotEncoderAttrs, (2, 2)))
OPS.register(Op("scaler", _scaler, same(Elementwise(_SCALED)), "ml:scaler", inputs=(3, 3)))
OPS.register(
    Op("tree_ensemble", _tree_ensemble, _TABLE, "tree_ensemble:tree_ensemble", TreeEnsembleAttrs, inputs=(11, 13))
)
