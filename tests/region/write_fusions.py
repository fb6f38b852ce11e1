"""Write the texts of the fusions anew, after a change that was meant: python -m tests.region.write_fusions."""

from __future__ import annotations

from fusible.compiler.region.text import group_text
from tests.region.fusion_cases import CASES
from tests.region.test_fusions import TEXTS, built

if __name__ == "__main__":
    for name, make in CASES.items():
        (TEXTS / f"{name}.txt").write_text(group_text(built(make()).group) + "\n")
