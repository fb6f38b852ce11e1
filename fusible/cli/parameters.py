"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = [
    "InputsOption",
    "JsonOption",
    "ModelArgument",
    "Precision",
    "PrecisionOption",
    "ProgramArgument",
    "SeedOption",
    "ShapeOption",
    "TargetOption",
]


class Precision(StrEnum):
    """Of what is multiplied: the model's own, or rounded to bf16 with sums in fp32."""

    FP32 = "fp32"
    BF16 = "bf16"


ProgramArgument: TypeAlias = Annotated[
    Path, typer.Argument(metavar="MODEL|ARTIFACT", help="An ONNX file or a compiled artifact.", show_default=False)
]
ModelArgument: TypeAlias = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.", show_default=False)]
TargetOption: TypeAlias = Annotated[
    str,
    typer.Option("--target", metavar="T", help="cpu, numpy, or auto: cpu where there is a C compiler, else numpy."),
]
ShapeOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=VALUE",
        help="batch=4 fixes a dimension, batch=1:64 bounds it, x=1,3,224,224 gives an input its shape. Repeatable.",
        show_default=False,
    ),
]
PrecisionOption: TypeAlias = Annotated[
    Precision, typer.Option("--precision", help="Of convolutions and matrix products; bf16 needs the target cpu.")
]
InputsOption: TypeAlias = Annotated[
    Path | None, typer.Option("--inputs", metavar="X.npz", help="Arrays by input name. Default: random ones.")
]
SeedOption: TypeAlias = Annotated[int, typer.Option("--seed", min=0, help="Of random inputs.")]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
