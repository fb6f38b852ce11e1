"""Pages of text drawn with NumPy alone, for models that read: a bitmap font of 5 x 7 dots, words that wrap."""

from __future__ import annotations

import numpy as np

__all__ = ["DEVIATION", "MEAN", "SIDE", "TEXT", "glyphs", "normalise", "render_page"]

# One letter a line: seven rows of five dots, each row a number whose binary digits are the dots.
FONT = """
A 14 17 17 31 17 17 17
B 30 17 17 30 17 17 30
C 14 17 16 16 16 17 14
D 30 17 17 17 17 17 30
E 31 16 16 30 16 16 31
F 31 16 16 30 16 16 16
G 14 17 16 23 17 17 14
H 17 17 17 31 17 17 17
I 14 4 4 4 4 4 14
K 17 18 20 24 20 18 17
L 16 16 16 16 16 16 31
M 17 27 21 21 17 17 17
N 17 25 21 19 17 17 17
O 14 17 17 17 17 17 14
P 30 17 17 30 16 16 16
R 30 17 17 30 20 18 17
S 15 16 16 14 1 1 30
T 31 4 4 4 4 4 4
U 17 17 17 17 17 17 14
W 17 17 17 21 21 27 17
X 17 17 10 4 10 17 17
Y 17 17 10 4 4 4 4
"""
TEXT = """
THE ORIENTATION OF A PAGE IS GUESSED FROM THE SHAPES OF ITS LETTERS AND LINES SO THIS PAGE IS FULL OF WORDS THAT
MEAN LITTLE BUT LOOK LIKE TEXT A MODEL READS THEM AND TELLS WHICH SIDE IS UP
"""

SIDE = 224  # of the picture that the orientation model takes
MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of the colours of ImageNet
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def glyphs(font: str = FONT) -> dict[str, np.ndarray]:
    """Each letter as a [7, 5] array of 1 (ink) and 0 (paper)."""
    letters = (line.split() for line in font.strip().splitlines())
    return {
        letter: np.array([[int(row) >> (4 - column) & 1 for column in range(5)] for row in rows], np.float32)
        for letter, *rows in letters
    }


def render_page(height: int, width: int, *, dot: int = 2, margin: int = 10, text: str = TEXT) -> np.ndarray:
    """A page of text, float32 [height, width] of 0 (ink) to 1 (paper); words wrap and repeat until it is full."""
    page = np.ones((height, width), np.float32)
    font = {letter: np.kron(glyph, np.ones((dot, dot), np.float32)) for letter, glyph in glyphs().items()}
    words = [word for word in text.split() if set(word) <= set(font)]
    top, left, place = margin, margin, 0
    while words:
        word = words[place % len(words)]
        length = 6 * dot * len(word)
        if left > margin and left + length > width - margin:
            top, left = top + 11 * dot, margin
        if top + 7 * dot > height - margin or margin + length > width - margin:
            break
        for letter in word:
            page[top : top + 7 * dot, left : left + 5 * dot] -= font[letter]
            left += 6 * dot
        left, place = left + 3 * dot, place + 1
    return page


def normalise(pages: np.ndarray) -> np.ndarray:
    """Grey pages [n, height, width] of 0 to 1 -> what the model was trained on, float32 [n, 3, height, width]."""
    colour = (pages[..., np.newaxis] - MEAN) / DEVIATION
    return np.ascontiguousarray(colour.transpose(0, 3, 1, 2), dtype=np.float32)
