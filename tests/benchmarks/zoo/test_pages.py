"""Pages of text: letters of dots, ink on paper, margins, and what happens without room."""

from __future__ import annotations

import numpy as np

from fusible.benchmarks.zoo import pages


def test_glyphs_are_letters_of_five_by_seven_dots():
    font = pages.glyphs()
    assert all(glyph.shape == (7, 5) and set(np.unique(glyph)) == {0, 1} for glyph in font.values())
    assert len({glyph.tobytes() for glyph in font.values()}) == len(font)
    assert set("".join(pages.TEXT.split())) <= set(font)


def test_a_page_is_ink_on_paper_with_margins():
    page = pages.render_page(64, 90, margin=8)
    assert page.shape == (64, 90) and page.dtype == np.float32
    assert set(np.unique(page)) == {0, 1}
    assert 0.05 < 1 - page[8:-8, 8:-8].mean() < 0.5
    inner = page.copy()
    inner[8:-8, 8:-8] = 1
    assert (inner == 1).all(), "the margins are white"


def test_a_page_without_room_is_white():
    assert (pages.render_page(10, 10) == 1).all()
    assert (pages.render_page(50, 50, text="lower case") == 1).all()
