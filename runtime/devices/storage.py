"""Device code in an artifact: facts for its header, texts and binaries for its sections, and the way back.

Texts that several kernels share are stored once, and so are images. Equal code gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from fusible.runtime.devices.code import DeviceCode, DeviceImage, DeviceKernel
from fusible.runtime.devices.facts import Facts, damaged
from fusible.runtime.devices.program import DeviceProgram, open_device_program, open_host_library
from fusible.runtime.devices.torch_checks import check_call
from fusible.runtime.devices.triton_cpu import TritonCpu
from fusible.runtime.native.library_bytes import cached_library
from fusible.runtime.native.program import NativeCode, processor_key

__all__ = ["device_facts", "device_sections", "open_stored"]

IMAGES, LIBRARY, SOURCES = "device images", "device library", "device sources"


def device_facts(program: DeviceProgram) -> dict[str, Any]:
    """What the header says of device code."""
    code = program.code
    texts, blobs = _texts(code), _blobs(code)
    kernels = []
    for kernel in code.kernels:
        facts = {f.name: getattr(kernel, f.name) for f in fields(kernel)}
        facts |= {"source": texts[kernel.source], "tensors": [asdict(t) for t in kernel.tensors]}
        kernels.append({**facts, "product": None if kernel.product is None else asdict(kernel.product)})
    return {
        "target": program.target,
        "threads": program.threads,
        "kernels": kernels,
        "images": {
            target: {n: _image_facts(i, blobs) for n, i in found.items()} for target, found in code.images.items()
        },
        "host": None if code.host is None else list(code.host.functions),
        "checked": code.checked,
        "builder": code.builder,
        "processor": processor_key() if program.library is not None else None,
    }


def _texts(code: DeviceCode) -> dict[str, int]:
    """The number of each different source."""
    return {text: n for n, text in enumerate(dict.fromkeys(kernel.source for kernel in code.kernels))}


def _blobs(code: DeviceCode) -> dict[bytes, int]:
    """Where each different image begins in its section."""
    found: dict[bytes, int] = {}
    offset = 0
    for _, images in sorted(code.images.items()):
        for _, image in sorted(images.items()):
            if image.data not in found:
                found[image.data] = offset
                offset += len(image.data)
    return found


def _image_facts(image: DeviceImage, blobs: Mapping[bytes, int]) -> dict[str, Any]:
    facts = {key: value for key, value in asdict(image).items() if key != "data"}
    return {**facts, "offset": blobs[image.data], "nbytes": len(image.data)}


def device_sections(program: DeviceProgram) -> dict[str, Any]:
    """The sections by name: texts as JSON data, binaries as bytes."""
    code = program.code
    host = {} if code.host is None else dict(code.host.sources)
    found: dict[str, Any] = {SOURCES: {"triton": list(_texts(code)), "host": host}}
    if code.images:
        found[IMAGES] = b"".join(_blobs(code))
    if program.library is not None:
        found[LIBRARY] = program.library.read_bytes()
    return found


def open_stored(
    facts: Mapping[str, Any],
    sources: Mapping[str, Any],
    binaries: Mapping[str, memoryview],
    digest: str,
    cache_dir: Path,
) -> DeviceProgram:
    """The program of an artifact. sources, binaries: of its sections; digest: of the library's.

    A library for another processor is compiled anew of its sources; images for another GPU are, when the device is
    first wanted. Raises DeviceError, KernelBuildError, UsageError, ArtifactError.
    """
    code = _code(facts, sources, binaries.get(IMAGES, memoryview(b"")))
    target, threads = str(facts["target"]), facts["threads"]
    if threads is not None:
        threads = Facts.of("device code", facts).number("threads", 1)
    if target == TritonCpu.target and LIBRARY in binaries and facts["processor"] == processor_key():
        library, checked = cached_library(binaries[LIBRARY], digest, cache_dir)
        return open_host_library(code, library, threads=threads, checked=checked)
    return open_device_program(code, target, threads=threads, cache_dir=cache_dir)


def _code(data: Mapping[str, Any], sources: Mapping[str, Any], images: memoryview) -> DeviceCode:
    facts, texts = Facts.of("device code", data), Facts.of("sources of kernels", sources)
    kernels = tuple(_kernel(each, texts.texts("triton")) for each in facts.items("kernels"))
    host = None if facts.get("host") is None else NativeCode(sources["host"], facts.texts("host"))
    named = {kernel.name: kernel for kernel in kernels}
    made = {}
    for target, found in Facts.of("images", facts.get("images")).fields.items():
        of_target = Facts.of(f"code for {target}", found)
        of_target.only(list(named))
        made[target] = {name: _image(of_target.get(name), images, named[name]) for name in of_target.fields}
    return DeviceCode(kernels, made, host, facts.flag("checked"), facts.text("builder"))


def _kernel(data: Any, texts: Sequence[str]) -> DeviceKernel:
    facts = Facts.of("a kernel", data)
    kernel = DeviceKernel.from_json({**facts.fields, "source": texts[facts.position("source", len(texts))]})
    check_call(kernel)
    return kernel


def _image(data: Any, images: memoryview, kernel: DeviceKernel) -> DeviceImage:
    facts = Facts.of(f"an image of the kernel {kernel.name!r}", data)
    start, nbytes = facts.number("offset"), facts.number("nbytes")
    if start + nbytes > len(images):
        raise damaged(facts.what, "it lies outside its section")
    known = {key: value for key, value in facts.fields.items() if key not in ("offset", "nbytes")}
    return DeviceImage.from_json(known, bytes(images[start : start + nbytes]), kernel)
