"""Code in the documents: extracted from README.md and docs/ so that it can be run as it stands.

A fenced `python` block is executed; the blocks of one document run in order and share their names. A block that follows
a line `<!-- file: docs/examples/x.py -->` must be that file, or a run of its lines; the file itself is executed.
In fenced `sh` blocks each `fusible ...` command must exist with the options it is given.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
INCLUDED = re.compile(r"<!-- file: (?P<name>\S+) -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its first line in the document, and the file it shows, if any."""

    language: str
    text: str
    line: int
    file: str | None


def documents(root: Path) -> list[Path]:
    """Return the documents whose code is checked."""
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a document."""
    for match in FENCE.finditer(text):
        included = INCLUDED.search(text[: match.start()])
        line = text[: match.start("text")].count("\n") + 1
        yield Block(
            match["language"], textwrap.dedent(match["text"]), line, None if included is None else included["name"]
        )


def program(text: str) -> str:
    """Join the Python blocks of a document into one program; line numbers stay those of the document."""
    lines: list[str] = []
    for block in blocks(text):
        if block.language == "python" and block.file is None:
            lines += [""] * (block.line - 1 - len(lines))
            lines += block.text.splitlines()
    return "\n".join(lines) + "\n"


def stale_inclusions(root: Path) -> list[str]:
    """Name the blocks that do not show the file they claim to show."""
    found = []
    for document in documents(root):
        for block in blocks(document.read_text(encoding="utf-8")):
            if block.file is None:
                continue
            source = root / block.file
            if not source.is_file() or block.text.strip() not in source.read_text(encoding="utf-8"):
                found.append(f"{document.relative_to(root)}:{block.line}: not a part of {block.file}")
    return found


def commands(text: str) -> list[list[str]]:
    """Return the `fusible` commands in the shell blocks of a document, as lists of words, continued lines joined."""
    found = []
    for block in blocks(text):
        if block.language in ("sh", "bash", "console"):
            for line in block.text.replace("\\\n", " ").splitlines():
                words = line.split("#")[0].removeprefix("$ ").split()
                if words[:1] == ["fusible"] or words[1:3] == ["-m", "fusible"]:
                    found.append(words[words.index("fusible") + 1 :])
    return found
