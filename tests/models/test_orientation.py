"""The example: the page is text, and a trained model tells which side of it is up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples import orientation

ROOT = Path(__file__).resolve().parents[2]


def test_glyphs_are_letters_of_five_by_seven_dots():
    font = orientation.glyphs()
    assert all(glyph.shape == (7, 5) and set(np.unique(glyph)) == {0, 1} for glyph in font.values())
    assert len({glyph.tobytes() for glyph in font.values()}) == len(font)
    assert set("".join(orientation.TEXT.split())) <= set(font)


def test_a_page_is_ink_on_paper_with_margins():
    page = orientation.render_page(64, 90, margin=8)
    assert page.shape == (64, 90) and page.dtype == np.float32
    assert set(np.unique(page)) == {0, 1}
    assert 0.05 < 1 - page[8:-8, 8:-8].mean() < 0.5
    inner = page.copy()
    inner[8:-8, 8:-8] = 1
    assert (inner == 1).all(), "the margins are white"


def test_a_page_without_room_is_white():
    assert (orientation.render_page(10, 10) == 1).all()
    assert (orientation.render_page(50, 50, text="lower case") == 1).all()


@pytest.mark.network
@pytest.mark.parametrize("target", ["auto", "numpy"])
def test_the_example_answers_rightly(target):
    command = [sys.executable, str(ROOT / "examples" / "orientation.py"), "--target", target]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for line, degrees in zip(done.stdout.splitlines(), (0, 90, 180, 270), strict=True):
        assert f"rotated by {degrees:3d} degrees: the model says {degrees:3d}" in line
