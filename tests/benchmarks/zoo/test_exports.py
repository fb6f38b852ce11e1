"""Every architecture, exported both ways: torch, ONNX Runtime and Fusible agree; a second export gives the same bytes.

Needs the extra `bench`. Without those marked `slow`, one variant of each of four small architectures; with them, every
variant of every architecture: an hour or two, and 12 GB in the cache.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest

import fusible
from fusible.benchmarks.zoo.architectures.table import ARCHITECTURES, EXPORTERS, example_inputs
from fusible.benchmarks.zoo.catalog import Obtained, Variant, obtain
from tests import oracle
from tests.tolerance import assert_outputs_close

pytestmark = pytest.mark.bench

QUICK = {
    "squeezenet-1.1": Variant("torchscript"),
    "shufflenet-v2": Variant("torchscript", dynamic=True),
    "mobilenet-v3-small": Variant("dynamo"),
    "bilstm-tagger": Variant("dynamo", dynamic=True),
}
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
CASES = [
    pytest.param(
        (name, variant), id=f"{name}-{variant.label}", marks=[] if QUICK.get(name) == variant else pytest.mark.slow
    )
    for name in ARCHITECTURES
    for variant in (Variant(exporter, dynamic) for exporter in EXPORTERS for dynamic in (False, True))
]


@pytest.fixture(scope="module", params=NAMES)
def built(request: pytest.FixtureRequest) -> tuple[str, Any, tuple[Any, ...]]:
    """Name, torch module and arguments of an architecture."""
    return request.param, *torch_module(request.param)


def torch_module(name: str, batch: int = 1) -> tuple[Any, tuple[Any, ...]]:
    """The module in this process; tests are collected without torch."""
    from fusible.benchmarks.zoo import torch_modules

    return torch_modules.torch_module(name, batch)


def torch_outputs(name: str, batch: int = 1) -> dict[str, np.ndarray]:
    """What torch computes, by output name."""
    import torch

    module, arguments = torch_module(name, batch)
    with torch.inference_mode():
        found = module(*arguments)
    values = [found] if isinstance(found, torch.Tensor) else found
    return dict(zip(ARCHITECTURES[name].outputs, (value.numpy() for value in values), strict=True))


def test_the_number_of_parameters_is_the_published_one(built):
    name, module, _ = built
    published = ARCHITECTURES[name].parameters
    if published is None:
        assert name in ("bilstm-tagger", "unet"), "sizes of our own"
        return
    assert sum(parameter.numel() for parameter in module.parameters()) == pytest.approx(published * 1e6, rel=0.01)


def test_weights_are_not_constant(built):
    _, module, _ = built
    for name, array in module.state_dict().items():
        if array.is_floating_point() and array.numel() > 1:
            assert array.std() > 1e-4, name
    for name, array in module.named_parameters():
        assert array.isfinite().all() and array.abs().max() < 10, name


def test_no_layer_dies_or_explodes(built):
    import torch

    _, module, arguments = built
    deviations: dict[str, float] = {}

    def watch(name: str) -> Any:
        def hook(_layer: Any, _arguments: Any, found: Any) -> None:
            value = found if isinstance(found, torch.Tensor) else found[0]
            deviations[name] = float(value.std())

        return hook

    leaves = [(name, layer) for name, layer in module.named_modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(watch(name)) for name, layer in leaves]
    with torch.inference_mode():
        module(*arguments)
    for handle in handles:
        handle.remove()
    assert len(deviations) > 2
    assert {name: size for name, size in deviations.items() if not 0.01 < size < 20} == {}


def test_modules_are_the_same_at_every_call(built):
    import torch

    name, module, arguments = built
    state = torch.random.get_rng_state()
    again, same_arguments = torch_module(name)
    assert torch.equal(torch.random.get_rng_state(), state), "the generator of the process is left alone"
    assert all(torch.equal(one, other) for one, other in zip(arguments, same_arguments, strict=True))
    ours, theirs = module.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not any(parameter.requires_grad for parameter in again.parameters()) and not again.training


@pytest.fixture(scope="module", params=CASES)
def exported(request: pytest.FixtureRequest) -> tuple[Obtained, Variant]:
    """A variant of an architecture, out of the cache if it is there."""
    name, variant = request.param
    return obtain(name, variant), variant


def test_names_are_those_of_the_table(exported):
    found, variant = exported
    model = onnx.load(found.path)
    row, given = ARCHITECTURES[found.name], example_inputs(found.name)
    assert [value.name for value in model.graph.input] == list(given) == list(found.inputs)
    assert [value.name for value in model.graph.output] == list(row.outputs)
    first = [value.type.tensor_type.shape.dim[0] for value in [*model.graph.input, *model.graph.output]]
    assert {dim.dim_param or dim.dim_value for dim in first} == {"batch" if variant.dynamic else 1}
    assert all(np.array_equal(found.inputs[key], given[key]) for key in given)


def test_nothing_of_the_machine_is_in_the_file(exported):
    found, _ = exported
    model = onnx.load(found.path)
    assert not model.doc_string and not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not any(tensor.external_data for tensor in model.graph.initializer), "weights inside"
    assert [path.name for path in sorted(found.path.parent.iterdir())] == ["inputs.npz", "model.onnx"]
    del model.graph.initializer[:]
    assert b"site-packages" not in model.SerializeToString()


def test_torch_and_onnx_runtime_and_fusible_agree(exported):
    """With a symbolic batch, also for three rows, a batch that no exporter saw."""
    found, variant = exported
    reference = oracle.session(found.path)
    executable = fusible.compile(found.path, target="numpy")
    for batch in (1, 3) if variant.dynamic else (1,):
        inputs = example_inputs(found.name, batch)
        outputs = oracle.run(reference, inputs)
        assert_outputs_close(outputs, torch_outputs(found.name, batch))
        assert_outputs_close(executable.run(inputs), outputs)


def test_outputs_are_no_constants(exported):
    found, _ = exported
    outputs = oracle.run(found.path, found.inputs)
    assert all(array.std() > 0.05 for array in outputs.values())


def test_a_second_export_gives_the_same_bytes(exported, tmp_path):
    found, variant = exported
    command = [sys.executable, "-m", "fusible.benchmarks.zoo.export", found.name, "--exporter", variant.exporter]
    command += ["--out", str(tmp_path), *(["--dynamic"] if variant.dynamic else [])]
    subprocess.run(command, check=True, capture_output=True)  # with a hash seed by chance
    try:
        for name in ("model.onnx", "inputs.npz"):
            assert (tmp_path / name).read_bytes() == found.path.with_name(name).read_bytes(), name
    finally:
        (tmp_path / "model.onnx").unlink()  # up to 650 MB


def test_another_weight_is_noticed():
    """The comparison above can fail."""
    found = obtain("squeezenet-1.1")
    model = onnx.load(found.path)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * np.float32(1.05)).tobytes()
    with pytest.raises(AssertionError, match="exceeds"):
        assert_outputs_close(oracle.run(model, found.inputs), torch_outputs("squeezenet-1.1"))


def test_a_larger_batch_is_exported_as_asked():
    found = obtain("bilstm-tagger", Variant(batch=3))
    outputs = oracle.run(found.path, found.inputs)
    assert outputs["scores"].shape == (3, 64, 17)
    assert_outputs_close(outputs, torch_outputs("bilstm-tagger", 3))


@pytest.mark.slow
def test_decoding_continues_a_prefill():
    """One token after the cache of 64 gives what reading 65 tokens gives."""
    import torch

    prefill, (ids, mask) = torch_module("gpt2-prefill")
    decode, (token, longer, *_) = torch_module("gpt2-decode")
    with torch.inference_mode():
        _, *cache = prefill(ids, mask)
        logits, *_ = decode(token, longer, *cache)
        expected, *_ = prefill(torch.cat([ids, token], 1), longer)
    assert_outputs_close({"logits": logits[:, -1].numpy()}, {"logits": expected[:, -1].numpy()})


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["resnet-19"], 2, "error: no architecture is named 'resnet-19'; there are mobilenet-v2,"),
        (["unet", "--exporter", "onnx"], 2, "invalid choice"),
        (["unet", "--batch", "0"], 2, "error: batch must be at least 1, got 0"),
    ],
)
def test_the_command_refuses_wrong_usage(tmp_path, arguments, code, said):
    command = [sys.executable, "-m", "fusible.benchmarks.zoo.export", *arguments, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code and said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refusal_of_torch_is_told(monkeypatch):
    import torch

    from fusible.benchmarks.zoo.to_onnx import ExportError, export

    def refuse(*_: object, **__: object) -> None:
        raise torch.onnx.OnnxExporterError("no such operator\nhow to debug")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    expected = r"^bilstm-tagger cannot be exported by dynamo: no such operator; take the other exporter$"
    with pytest.raises(ExportError, match=expected):
        export("bilstm-tagger", "dynamo")
