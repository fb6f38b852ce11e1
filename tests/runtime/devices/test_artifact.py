"""Device code in artifacts: the way there and back, damage, several targets, other machines."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fusible
from fusible.runtime.devices import program as device_programs
from fusible.runtime.devices.architectures import chosen_image
from fusible.runtime.devices.code import DeviceCode, DeviceImage
from fusible.runtime.devices.program import DeviceProgram, images_for, open_device_program
from tests.runtime.devices import plans
from tests.runtime.devices.build import device_code

_FRESH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("onnx", "triton", "torch", "typer", "rich", "google"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
import numpy as np, fusible
exe = fusible.load(sys.argv[1])
x = np.load(sys.argv[2])
np.save(sys.argv[3], exe(x)[0])
for heavy in ("fusible.compiler", "subprocess", "tempfile"):
    assert heavy not in sys.modules, heavy
"""


def test_round_trip_in_a_bare_process(tmp_path: Path) -> None:
    exe, x = plans.with_weights(), np.random.default_rng(0).standard_normal((33, 20)).astype(np.float32)
    exe.save(tmp_path / "m.fusible")
    np.save(tmp_path / "x.npy", x)
    fusible.load(tmp_path / "m.fusible")  # now the cache has the library
    command = [sys.executable, "-c", _FRESH, *(str(tmp_path / f) for f in ("m.fusible", "x.npy", "y.npy"))]
    subprocess.run(command, check=True, capture_output=True)
    assert np.array_equal(np.load(tmp_path / "y.npy"), exe(x)[0])


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    exe = plans.chain()
    exe.save(tmp_path / "1")
    again = fusible.load(tmp_path / "1", check=True)
    assert exe.device is not None and again.device is not None
    assert again.device.code == exe.device.code and again.target == "triton-cpu"
    assert again.sources == exe.sources
    assert {"twice.triton.py", "twice.c", "tile.h", "kernels.py"} <= set(exe.sources)
    again.save(tmp_path / "2")
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_library_for_another_processor_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, x = tmp_path / "m.fusible", np.ones(40, np.float32)
    plans.chain().save(path)
    monkeypatch.setattr("fusible.runtime.devices.storage.processor_key", lambda: "another")
    assert np.array_equal(fusible.load(path)(x)[0], 3 * x)


def test_a_damaged_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exe, path = plans.chain(), tmp_path / "m.fusible"
    exe.save(path)
    assert exe.device is not None and exe.device.library is not None
    data, library = path.read_bytes(), exe.device.library.read_bytes()
    path.write_bytes(data.replace(library, library[:-1] + bytes([library[-1] ^ 1])))
    monkeypatch.setenv("FUSIBLE_CACHE_DIR", str(tmp_path / "empty"))
    with pytest.raises(fusible.ArtifactError, match="native library in the artifact is damaged"):
        fusible.load(path)


def _for_gpus(*targets: str) -> DeviceCode:
    code = replace(device_code(), host=None, checked=False)
    shared = b"the same cubin"
    images = {
        target: {
            kernel.name: DeviceImage(kernel.entry, shared if n % 2 else f"{target} {n}".encode(), 128, n, (0, 0))
            for n, kernel in enumerate(code.kernels)
        }
        for target in targets
    }
    return replace(code, images=images)


def _program(code: DeviceCode, tmp_path: Path) -> DeviceProgram:
    return open_device_program(code, "cuda:sm_90", cache_dir=tmp_path)


def test_several_targets_in_one_artifact(tmp_path: Path) -> None:
    code = _for_gpus("cuda:sm_80", "cuda:sm_90")
    exe = plans.chain(_program(code, tmp_path))  # made and saved with no GPU
    exe.save(tmp_path / "1")
    again = fusible.load(tmp_path / "1")
    assert again.device is not None and again.device.code == code and again.target == "cuda:sm_90"
    assert (tmp_path / "1").read_bytes().count(b"the same cubin") == 1
    again.save(tmp_path / "2")
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize(
    ("capability", "chosen"),
    [
        (80, "cuda:sm_80"),
        (86, "cuda:sm_86"),
        (89, "cuda:sm_86"),
        (90, "cuda:sm_90"),
        (100, None),
        (103, None),
        (120, None),
    ],
)
def test_which_image_runs_where(capability: int, chosen: str | None) -> None:
    assert chosen_image(["cuda:sm_80", "cuda:sm_90", "cuda:sm_86"], capability) == chosen


def test_a_gpu_that_is_too_old(tmp_path: Path) -> None:
    with pytest.raises(
        fusible.DeviceError, match=r"Tesla T4 has compute capability 7.5, and kernels need 8.0 or later"
    ):
        images_for(_for_gpus("cuda:sm_80"), "Tesla T4", 75, tmp_path)


def test_images_for_another_architecture(tmp_path: Path) -> None:
    code = _for_gpus("cuda:sm_80")
    with pytest.raises(
        fusible.DeviceError, match=r"built for cuda:sm_80, and H100 needs cuda:sm_90: compile the model"
    ):
        images_for(code, "H100", 90, tmp_path)
    assert images_for(code, "RTX 4090", 89, tmp_path) == code.images["cuda:sm_80"]
    known = replace(code, builder=f"{__name__}:rebuilt")
    assert images_for(known, "H100", 90, tmp_path)["twice"].data == b"built here"
    with pytest.raises(
        fusible.DeviceError, match=r"needs cuda:sm_100; they are built of their sources where Triton is"
    ):
        images_for(known, "B200", 100, tmp_path)
    nowhere = replace(code, builder="no_such_module:rebuilt")
    with pytest.raises(fusible.DeviceError, match="building them here failed: No module named 'no_such_module'"):
        images_for(nowhere, "H100", 90, tmp_path)


def rebuilt(code: DeviceCode, target: str, cache_dir: Path) -> DeviceCode:
    """What an artifact names as the builder of its kernels."""
    if target != "cuda:sm_90":
        raise fusible.DeviceError("Triton is not installed")
    images = {kernel.name: DeviceImage(kernel.entry, b"built here", 128, 0) for kernel in code.kernels}
    return replace(code, images={target: images})


def test_no_gpu_is_an_error_when_it_is_wanted(tmp_path: Path) -> None:
    exe = plans.chain(_program(_for_gpus("cuda:sm_90"), tmp_path))
    with pytest.raises(fusible.DeviceError):
        exe(np.ones(3, np.float32))
    with pytest.raises(fusible.DeviceError, match="this release runs triton-cpu and cuda"):
        _ = open_device_program(_for_gpus("cuda:sm_90"), "hip:gfx942", cache_dir=tmp_path).device
    with pytest.raises(fusible.DeviceError, match="were not lowered to C"):
        open_device_program(_for_gpus("cuda:sm_90"), "triton-cpu", cache_dir=tmp_path)


def test_the_c_of_a_kernel_that_does_not_compile(tmp_path: Path) -> None:
    code = device_code()
    assert code.host is not None
    broken = code.host._replace(sources={**code.host.sources, "twice.c": "int broken("})
    with pytest.raises(fusible.KernelBuildError, match=r"twice\.c"):
        device_programs.open_device_program(replace(code, host=broken), "triton-cpu", cache_dir=tmp_path / "cache")
