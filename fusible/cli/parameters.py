"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = [
    "AllowHostOption",
    "AlsoOption",
    "InputsOption",
    "JsonOption",
    "ModelArgument",
    "PrecisionOption",
    "ProgramArgument",
    "SeedOption",
    "ShapeOption",
    "TargetOption",
    "TuningOption",
]


ProgramArgument: TypeAlias = Annotated[
    Path, typer.Argument(metavar="MODEL|ARTIFACT", help="An ONNX file or a compiled artifact.", show_default=False)
]
ModelArgument: TypeAlias = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.", show_default=False)]
TargetOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--target",
        metavar="T",
        help="cpu, numpy, or auto: a GPU that can be used, else cpu where there is a C compiler, else numpy. Triton "
        "kernels: triton-cpu, which runs them as C, or what they are built for: cuda:sm_90, hip:gfx942, ... "
        "(`fusible doctor` has all).",
    ),
]
AllowHostOption: TypeAlias = Annotated[
    bool, typer.Option("--allow-host", help="On a GPU, let NumPy run the steps that have no kernel there.")
]
AlsoOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="T", help="Put kernels for this target into the artifact as well. Repeatable.", show_default=False
    ),
]
PrecisionOption: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="P",
        help="fp32, tf32, fp16 or bf16: how Triton kernels compute what the model has in fp32; bf16 also of the "
        "products with constants on the target cpu. Sums stay fp32.",
    ),
]
TuningOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--tuning", metavar="LOCK.json", help="A lockfile of `fusible tune`: the configurations of Triton kernels."
    ),
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
InputsOption: TypeAlias = Annotated[
    Path | None, typer.Option("--inputs", metavar="X.npz", help="Arrays by input name. Default: random ones.")
]
SeedOption: TypeAlias = Annotated[int, typer.Option("--seed", min=0, help="Of random inputs.")]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
