"""Inputs of the architectures: seeded, of the asked batch, and no zeros or plain noise."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.benchmarks.zoo.architectures.table import ARCHITECTURES, example_inputs
from fusible.errors import UsageError


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_inputs_are_seeded_and_not_constant(name):
    one, again = example_inputs(name, 2), example_inputs(name, 2)
    assert all(array.shape[0] == 2 for array in one.values())
    for key, array in one.items():
        assert np.array_equal(array, again[key])
        assert array.dtype == (np.int64 if key.endswith(("_ids", "_mask")) else np.float32)
        if key == "attention_mask":
            assert (array == 1).all()
        elif key == "token_type_ids":
            assert set(array.flatten()) == {0, 1}
        else:
            assert array.std() > 0.1
            assert not np.array_equal(array[0], array[1]), "rows differ"


@pytest.mark.parametrize("name", ["resnet-50", "unet"])
def test_pictures_are_normalised_and_neighbours_are_alike(name):
    picture = example_inputs(name)["pixel_values"]
    assert abs(picture.mean()) < 0.5 and 0.3 < picture.std() < 1.5
    for axis in (2, 3):
        assert np.abs(np.diff(picture, axis=axis)).mean() < 0.8 * np.abs(picture - np.roll(picture, 100, axis)).mean()


def test_tokens_cover_the_vocabulary():
    ids = example_inputs("bert-base", 8)["input_ids"]
    assert ids.min() < 30522 / 16 and 30522 * 15 / 16 < ids.max() < 30522


def test_spectrograms_keep_to_the_range_of_whisper():
    sound = example_inputs("whisper-tiny-encoder")["input_features"]
    assert sound.shape == (1, 80, 3000)
    assert -1.5 < sound.min() < sound.max() < 2.5 and np.isclose(sound.max() - sound.min(), 2)


def test_the_cache_holds_64_tokens():
    inputs = example_inputs("gpt2-decode")
    assert list(inputs)[:4] == ["input_ids", "attention_mask", "past.0.key", "past.0.value"]
    assert len(inputs) == 26
    assert inputs["past.11.value"].shape == (1, 12, 64, 64)
    assert inputs["attention_mask"].shape == (1, 65)


def test_an_unknown_architecture_is_told_the_names():
    with pytest.raises(UsageError, match=r"^no architecture is named 'magika'; there are mobilenet-v2, .*unet$"):
        example_inputs("magika")
