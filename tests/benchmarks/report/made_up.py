"""Made-up results: every number follows from the names and a seed, so that two calls give equal records."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from fusible.benchmarks.records import (
    ColdStart,
    Interval,
    KernelRow,
    Latency,
    Machine,
    ModelRow,
    Results,
    Roof,
    Sentinel,
)

SUBJECT = "fusible"
PEERS = ("onnxruntime", "openvino", "torch")
MODELS = (
    "mobilenet_v2", "resnet50", "efficientnet_b0", "bert_base_uncased", "minilm_l6_sentence_embedding", "yolo_nano",
    "squeezenet", "densenet121", "page_orientation_classifier", "text_detection_db", "text_recognition_crnn",
    "silero_vad", "whisper_tiny_encoder", "clip_vit_b32_visual", "unet_small", "shufflenet_v2", "gpt2_small_prefill",
    "wav2vec2_base", "face_landmarks", "super_resolution_x2",
)  # fmt: skip
ROOFS = (
    Roof(1, 92.4e9, 11.8e9, "generated C, AVX2"),
    Roof(2, 181.0e9, 17.1e9, "generated C, AVX2"),
)
MACHINE = Machine("AMD EPYC 7B13", 2, ("avx2", "fma"), 8 << 30, "Linux 6.1", "3.11.7")
VERSIONS = {"fusible": "0.1.0", "numpy": "2.4.6", "onnxruntime": "1.32.0", "openvino": "2026.1.0", "torch": "2.11.0"}
SENTINEL = Sentinel(1.2e-4, 1.02, 1.08, 1.9, 20)
HOSTILE = "<script>alert('\"&x')</script>$\\frac{$]]>\x1b[31m\n模型"


def latency(p50: float, spread: float = 0.03) -> Latency:
    """Quantiles around a median."""
    return Latency(p50 * (1 - spread), p50, p50 * (1 + spread), p50 * (1 - 2 * spread), 12, 240)


def interval(middle: float, half: float = 0.01) -> Interval:
    """An interval with half the width `half` in the log domain."""
    return Interval(middle * math.exp(-half), middle, middle * math.exp(half))


def model_row(model: str = "mobilenet_v2", peer: str = SUBJECT, **changes: object) -> ModelRow:
    """A row of a contestant that ran; changes: fields that differ."""
    role = "subject" if peer == SUBJECT else "peer"
    row = ModelRow(
        model,
        "fp32",
        peer,
        role,
        threads=1,
        status="ok",
        latency=latency(0.0124),
        ratio=None if role == "subject" else interval(1.2),
        throughput=80.6,
        flops=0.6e9,
        bytes=30e6,
        flops_share=0.52,
        bandwidth_share=0.21,
        compile_seconds=0.84,
        cold=ColdStart(0.21, 0.84, 0.03, 1.31),
        peak_memory=143 << 20,
        kernels=54,
        max_error=2.4e-6,
        rms_error=3.1e-7,
        sentinel=SENTINEL,
        version=VERSIONS.get(peer, ""),
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def kernel_row(op: str = "conv", **changes: object) -> KernelRow:
    """A row of a kernel that ran; changes: fields that differ."""
    row = KernelRow(
        op,
        f"{op}_blocked",
        "cpu",
        "f32[1, 64, 56, 56], f32[64, 64, 3, 3]",
        "strides=(1, 1)",
        "onnxruntime",
        threads=1,
        status="ok",
        latency=latency(3.1e-3),
        baseline_latency=latency(3.8e-3),
        ratio=interval(1.22),
        flops=231e6,
        bytes=1.75e6,
        roof_share=0.81,
        max_error=1.1e-6,
        origin=("resnet50",),
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def results(models: Sequence[ModelRow] = (), kernels: Sequence[KernelRow] = (), **changes: object) -> Results:
    """A run with these rows."""
    made = Results(
        "2026-11-25T13:00:00+00:00",
        "fusible bench --threads 1,2",
        MACHINE,
        VERSIONS,
        {"rounds": 12, "block_seconds": 0.25},
        ROOFS,
        tuple(models),
        tuple(kernels),
        ("turbo is on",),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def small() -> Results:
    """One model, one thread, one peer."""
    return results([model_row(), model_row(peer="onnxruntime", latency=latency(0.0149))])


def large(models: Sequence[str] = MODELS, threads: Sequence[int] = (1, 2), seed: int = 0) -> Results:
    """Many models, threads and peers, kernels too; a few rows failed, are absent or wrong."""
    chance = random.Random(seed)
    rows = [row for name in models for count in threads for row in _measured(name, count, chance)]
    return results(rows, [_kernel(index, count, chance) for count in threads for index in range(12)])


def _measured(model: str, threads: int, chance: random.Random) -> list[ModelRow]:
    seconds = 10 ** chance.uniform(-3.5, -0.3) / threads**0.8
    intensity = 10 ** chance.uniform(-0.3, 2.3)
    roof = ROOFS[threads - 1]
    flops = seconds * chance.uniform(0.3, 0.8) * min(roof.flops, intensity * roof.bandwidth)
    rows = []
    for peer in (SUBJECT, *PEERS):
        ratio = 1.0 if peer == SUBJECT else 10 ** chance.gauss(0.08, 0.14)
        row = model_row(
            model,
            peer,
            threads=threads,
            latency=latency(seconds * ratio, chance.uniform(0.005, 0.05)),
            ratio=None if peer == SUBJECT else interval(ratio, 10 ** chance.uniform(-2.3, -0.9)),
            throughput=1 / (seconds * ratio),
            plain=interval(1.03) if peer == "onnxruntime" else None,
            flops=flops,
            bytes=flops / intensity,
            flops_share=flops / (seconds * ratio) / roof.flops,
            bandwidth_share=flops / intensity / (seconds * ratio) / roof.bandwidth,
        )
        rows.append(_spoilt(row, chance.random()))
    return rows


def _spoilt(row: ModelRow, luck: float) -> ModelRow:
    if row.role == "subject" or luck > 0.05:
        return row
    if luck > 0.03:
        return replace(row, status="wrong", reason="output 0 differs by 3.1e-1", ratio=None, max_error=0.31)
    status, reason = (
        ("absent", "not installed") if luck > 0.015 else ("failed", "RuntimeError: no kernel for GridSample")
    )
    return ModelRow(row.model, row.variant, row.peer, row.role, row.threads, status, reason)


def _kernel(index: int, threads: int, chance: random.Random) -> KernelRow:
    op = ("conv", "matmul", "softmax", "layer_norm")[index % 4]
    seconds, intensity, roof = 10 ** chance.uniform(-5, -2), 10 ** chance.uniform(-1, 2.2), ROOFS[threads - 1]
    flops = seconds * chance.uniform(0.2, 0.9) * min(roof.flops, intensity * roof.bandwidth)
    ratio = 10 ** chance.gauss(0.05, 0.1)
    return kernel_row(
        op,
        signature=f"f32[1, {8 << index % 5}, {7 * (index + 1)}, {7 * (index + 1)}], f32[{8 << index % 5}, 64, 3, 3]",
        threads=threads,
        latency=latency(seconds),
        baseline_latency=latency(seconds * ratio),
        ratio=interval(ratio, 0.02),
        flops=flops,
        bytes=flops / intensity,
        roof_share=chance.uniform(0.2, 0.9),
    )
