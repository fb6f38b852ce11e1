"""The artifact: an executable as one versioned file.

Layout: the 8 bytes `FUSIBLE\\n`, a little-endian u32 version, a u64 length, the SHA-256 of the header, that many bytes
of JSON (the header), then sections, each aligned to 64 bytes. The header lists the sections, each a row of its name,
dtype, shape, offset, size in bytes and SHA-256; constants are raw little-endian data and are memory-mapped. Writing is
deterministic: the same executable gives the same bytes. A header that is not what its hash says is refused by every
load; sections only where it is asked for.

Models are untrusted, artifacts are code: load only artifacts whose origin you trust.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import mmap
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusible.errors import ArtifactError, UsageError
from fusible.runtime.collection import collection_put_off
from fusible.runtime.executable import CustomKernel, Executable
from fusible.runtime.native.cache import default_cache_dir
from fusible.runtime.native.program import NativeCode, Program, processor_key, unpack_program
from fusible.runtime.plan import Plan
from fusible.runtime.plan_checks import check_plan
from fusible.runtime.report import Report
from fusible.runtime.session import RunLimits
from fusible.runtime.signature import DTYPES, TensorSpec

if TYPE_CHECKING:
    from fusible.runtime.devices.program import DeviceProgram

__all__ = ["VERSION", "load_artifact", "save_artifact"]

MAGIC = b"FUSIBLE\n"
VERSION = 9
ALIGNMENT = 64
_PREFIX = struct.Struct("<8sIQ32s")
_LEAST_PREFIX = 12  # bytes that say which version it is
_NO_HASH = "0" * 64


def save_artifact(executable: Executable, path: str | PathLike[str]) -> None:
    """Write an executable, atomically. Raises ArtifactError if it cannot be loaded again."""
    for kernel in executable.custom:
        module, _, qualname = kernel.path.partition(":")
        if module == "__main__" or "<" in qualname:
            raise ArtifactError(
                f"the custom kernel {kernel.path!r} cannot be saved: move it to the top level of a module that can be "
                "imported where the artifact is loaded"
            )
    sections: list[list[Any]] = []
    blobs: list[bytes | memoryview] = []
    for number, array in enumerate(executable.constants):
        blob = _constant_bytes(array)
        sections.append([f"constant {number}", DTYPES.name_of(array.dtype), list(array.shape)])
        blobs.append(blob)
    for name, data in _byte_sections(executable).items():
        sections.append([name, "u8", [len(data)]])
        blobs.append(data)
    header = {
        "native": _native_json(executable.program),
        "device": _device_json(executable.device),
        "inputs": [_spec_json(s) for s in executable.inputs],
        "outputs": [_spec_json(s) for s in executable.outputs],
        "plan": executable.plan.to_json(),
        "source": executable.source,
        "target": executable.target,
        "limits": executable.limits._asdict(),
        "provenance": dict(executable.provenance),
        "custom": [k._asdict() for k in executable.custom],
        "sections": sections,
    }
    _write(Path(path), header, sections, blobs)


def _byte_sections(executable: Executable) -> dict[str, bytes]:
    """What stands beside the constants: the report and native sources as JSON, which most loads never look at; code."""
    found = {"report": _json_bytes(_report_json(executable.report))}
    if executable.program is not None:
        found["sources"] = _json_bytes(dict(executable.program.code.sources))
        found["library"] = executable.program.path.read_bytes()
    if executable.device is not None:
        from fusible.runtime.devices.storage import device_sections  # noqa: PLC0415 - only some targets have it

        sections = device_sections(executable.device)
        found |= {name: data if isinstance(data, bytes) else _json_bytes(data) for name, data in sections.items()}
    return found


def _json_bytes(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def _native_json(program: Program | None) -> dict[str, Any] | None:
    """The kernels of native code, and for which processor the library in the file was built."""
    if program is None:
        return None
    functions = list(program.code.functions)
    return {"functions": functions, "threads": program.threads, "processor": processor_key()}


class _Sources(Mapping[str, str]):
    """Sources of native code, out of their JSON when they are first wanted."""

    def __init__(self, data: np.ndarray) -> None:
        self._data = data
        self._texts: dict[str, str] | None = None

    @property
    def texts(self) -> Mapping[str, str]:
        if self._texts is None:
            self._texts = _from_json(self._data, "sources")
        return self._texts

    def __getitem__(self, name: str) -> str:
        return self.texts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)


def _from_json(data: np.ndarray, what: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(data.tobytes())
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"the {what} in the artifact cannot be read: {error}; compile the model again") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"the {what} in the artifact cannot be read: no JSON object; compile the model again")
    return found


def _program(data: Mapping[str, Any], parts: Mapping[str, np.ndarray], digest: str) -> Program:
    code = NativeCode(_Sources(parts["sources"]), tuple(data["functions"]))
    cache, processor, library = default_cache_dir(os.environ), data["processor"], parts["library"].data
    return unpack_program(code, library, digest, processor, cache_dir=cache, threads=data["threads"])


def _device_json(program: DeviceProgram | None) -> dict[str, Any] | None:
    if program is None:
        return None
    from fusible.runtime.devices.storage import device_facts  # noqa: PLC0415 - only some targets have it

    return device_facts(program)


def _device(data: Mapping[str, Any], parts: Mapping[str, np.ndarray], digests: Mapping[str, str]) -> DeviceProgram:
    from fusible.runtime.devices.storage import IMAGES, LIBRARY, SOURCES, open_stored  # noqa: PLC0415 - see above

    sources = _from_json(parts[SOURCES], "sources of kernels")
    binaries = {name: parts[name].data for name in (IMAGES, LIBRARY) if name in parts}
    return open_stored(data, sources, binaries, digests.get(LIBRARY, ""), default_cache_dir(os.environ))


def _report_json(report: Report) -> dict[str, Any]:
    """The report without times, which would make two compilations of one model differ."""
    data = report.to_data()
    data["passes"] = [{k: v for k, v in row.items() if k != "seconds"} for row in data["passes"]]
    return data


def _write(path: Path, header: dict[str, Any], sections: list[list[Any]], blobs: list[bytes | memoryview]) -> None:
    """Write the file; sections are hashed meanwhile, and the header, whose length is known before, comes last."""
    import tempfile  # noqa: PLC0415 - loading does not need it
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - as above

    from fusible.runtime.aligned_writer import AlignedWriter  # noqa: PLC0415 - as above

    written, numbers = _once(blobs)
    offsets = [0, *accumulate(-(-len(blob) // ALIGNMENT) * ALIGNMENT for blob in written)]
    for section, number in zip(sections, numbers, strict=True):
        section += offsets[number], len(written[number]), _NO_HASH
    length = len(_json_bytes(header))
    start = -(-(_PREFIX.size + length) // ALIGNMENT) * ALIGNMENT
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file, ThreadPoolExecutor(1) as hasher:
                waiting = hasher.map(_digest, written)
                writer = AlignedWriter(file)
                writer.write(b"\0" * start)
                for blob in written:
                    writer.write(blob)
                    writer.write(b"\0" * (-len(blob) % ALIGNMENT))
                writer.flush()
                digests = list(waiting)
                for section, number in zip(sections, numbers, strict=True):
                    section[-1] = digests[number]
                file.seek(0)
                writer.write(with_prefix(_json_bytes(header)))
                writer.flush()
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ArtifactError(f"the artifact {str(path)!r} cannot be written: {error.strerror or error}") from error


def with_prefix(header: bytes) -> bytes:
    """A header as the file begins with it."""
    return _PREFIX.pack(MAGIC, VERSION, len(header), hashlib.sha256(header).digest()) + header


def _once(blobs: Sequence[bytes | memoryview]) -> tuple[list[bytes | memoryview], list[int]]:
    """The parts without those that are the same memory as one before, and for each of all the number of its own."""
    written: list[bytes | memoryview] = []
    known: dict[tuple[int, int], int] = {}
    numbers = []
    for blob in blobs:
        is_array = isinstance(blob, memoryview) and len(blob)
        key = (np.frombuffer(blob, np.uint8).ctypes.data, len(blob)) if is_array else (0, len(written))
        if key not in known:
            known[key] = len(written)
            written.append(blob)
        numbers.append(known[key])
    return written, numbers


def _digest(blob: bytes | memoryview) -> str:
    return hashlib.sha256(blob).hexdigest()


def _constant_bytes(array: np.ndarray) -> bytes | memoryview:
    if array.dtype == object:
        return json.dumps([str(v) for v in array.ravel()]).encode()
    flat = np.ascontiguousarray(array).reshape(-1)
    return memoryview(flat.view(np.uint8).data)


def _spec_json(spec: TensorSpec) -> dict[str, Any]:
    shape = None if spec.shape is None else list(spec.shape)
    return {"name": spec.name, "dtype": DTYPES.name_of(spec.dtype), "shape": shape, "kind": spec.kind}


def _spec(data: Mapping[str, Any]) -> TensorSpec:
    shape = None if data["shape"] is None else tuple(data["shape"])
    return TensorSpec(data["name"], DTYPES[data["dtype"]], shape, data["kind"])


def load_artifact(path: str | PathLike[str], *, check: bool = False, target: str | None = None) -> Executable:
    """Read an artifact; constants are mapped, not read. The header, with the plan, is compared with its hash.

    check=True verifies every section's hash too, and that the plan is one that a compiler makes; of targets with device
    kernels that is done always.

    target: of those that the artifact has kernels for, the one to run on; by default that of its model. Raises
    ArtifactError if the file is missing, damaged, of another version, or needs a kernel that is not there, UsageError
    for a target that it is not for; opening the target may raise DeviceError and KernelBuildError.
    """
    with collection_put_off():
        return _loaded(Path(path), check, target)


def _loaded(file: Path, check: bool, target: str | None) -> Executable:
    try:
        with file.open("rb", buffering=0) as stream:
            has_bytes = os.fstat(stream.fileno()).st_size > 0  # nothing cannot be mapped
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if has_bytes else b""
    except OSError as error:
        raise ArtifactError(f"the artifact {str(file)!r} cannot be read: {error.strerror or error}") from error
    header, start = _header(mapped, file)
    size = len(mapped)
    try:
        if target is not None:
            header = _for_target(header, target)
        parts = {section[0]: _constant(section, mapped, start, size, check) for section in header["sections"]}
        return _executable(header, parts, check)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ArtifactError(f"the artifact {str(file)!r} is damaged: {error!r}; compile the model again") from error


def _header(mapped: mmap.mmap | bytes, file: Path) -> tuple[dict[str, Any], int]:
    prefix = mapped[: _PREFIX.size]
    if not prefix.startswith(MAGIC) or len(prefix) < _LEAST_PREFIX:
        raise ArtifactError(f"{str(file)!r} is no Fusible artifact")
    _, version, length, digest = _PREFIX.unpack(prefix.ljust(_PREFIX.size, b"\0"))
    if version != VERSION:
        raise ArtifactError(
            f"{str(file)!r} has format {version}, this release reads {VERSION}: compile the model again"
        )
    body = mapped[_PREFIX.size : _PREFIX.size + length]
    if len(body) != length or len(prefix) < _PREFIX.size:
        raise ArtifactError(f"{str(file)!r} is truncated")
    if hashlib.sha256(body).digest() != digest:
        raise ArtifactError(f"{str(file)!r} is damaged: the hash of its header differs; compile the model again")
    try:
        header = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{str(file)!r} is damaged: {error}") from error
    return header, -(-(_PREFIX.size + length) // ALIGNMENT) * ALIGNMENT


def _constant(section: Sequence[Any], mapped: Any, start: int, size: int, check: bool) -> np.ndarray:
    name, dtype_name, shape, offset, nbytes, digest = section
    if offset < 0 or nbytes < 0 or start + offset + nbytes > size:
        raise ArtifactError(f"section {name!r} lies outside the file: it is truncated")
    dtype = DTYPES[dtype_name]
    if check or dtype == object:
        raw = memoryview(mapped)[start + offset : start + offset + nbytes]
        if check and hashlib.sha256(raw).hexdigest() != digest:
            raise ArtifactError(f"section {name!r} is damaged: its hash differs")
        if dtype == object:
            texts = np.empty(int(np.prod(shape, dtype=object)) if shape else 1, dtype=object)
            texts[:] = json.loads(bytes(raw))
            return texts.reshape(shape)
    found: np.ndarray = np.ndarray(shape, dtype, mapped, start + offset)
    if found.nbytes != nbytes:
        raise ArtifactError(f"section {name!r} has {nbytes} bytes, {found.nbytes} were expected: it is damaged")
    return found


def _for_target(header: dict[str, Any], target: str) -> dict[str, Any]:
    """The header of an artifact that is to run on another of its targets. Raises UsageError if it is none of them."""
    device = header["device"]
    known = [header["target"]]
    if device is not None:
        known += [*device["images"], *(["triton-cpu"] if device["host"] is not None else [])]
    if target not in known:
        raise UsageError(f"the artifact was compiled for {', '.join(dict.fromkeys(known))}, not for {target}")
    return header | {"target": target, "device": None if device is None else device | {"target": target}}


def _executable(header: Mapping[str, Any], parts: Mapping[str, np.ndarray], check: bool) -> Executable:
    custom = tuple(CustomKernel(**k) for k in header["custom"])
    program = None
    if header["native"] is not None:
        (digest,) = (section[-1] for section in header["sections"] if section[0] == "library")
        program = _program(header["native"], parts, digest)
    device = None
    if header["device"] is not None:
        device = _device(header["device"], parts, {section[0]: section[-1] for section in header["sections"]})
    plan, limits = Plan.from_json(header["plan"]), RunLimits(**header["limits"])
    if not all(isinstance(limit, int) and limit > 0 for limit in header["limits"].values()):
        raise ArtifactError(f"the limits in the artifact are damaged: {limits!r:.200}; compile the model again")
    constants = tuple(array for name, array in parts.items() if name.startswith("constant "))
    inputs, outputs = (tuple(_spec(s) for s in header[name]) for name in ("inputs", "outputs"))
    if check or device is not None:  # by its hash a header is what was written; the check takes as long as the load
        check_plan(plan, constants, inputs, outputs, frozenset() if device is None else device.names)
    if device is not None:
        from fusible.runtime.devices.torch_checks import check_steps  # noqa: PLC0415 - only some targets have it

        check_steps(plan, device.kernels, constants, limits.tensor_bytes)
    return Executable(
        inputs,
        outputs,
        plan,
        constants,
        header["source"],
        header["target"],
        limits,
        header["provenance"],
        custom,
        partial(_report, parts["report"]),
        tuple(_custom_function(k.path, k.version) for k in custom),
        program,
        device,
    )


def _report(data: np.ndarray) -> Report:
    """Raises ArtifactError if the data are damaged: they are not looked at before the report is wanted."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in _from_json(data, "report").items()}
    try:
        return Report(**fields)
    except TypeError as error:
        raise ArtifactError(f"the report in the artifact is damaged: {error}; compile the model again") from error


def _custom_function(path: str, version: int) -> Any:
    """A kernel outside Fusible, by `module:qualname`, of the version the artifact was compiled against."""
    module, _, qualname = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ArtifactError(
            f"the artifact needs the custom kernel {path!r}, which cannot be imported here: {error}"
        ) from error
    installed = getattr(found, "__fusible_version__", 1)
    if installed != version:
        raise ArtifactError(
            f"kernel {path!r} has version {installed} here, the artifact was compiled against {version}"
        )
    return found
