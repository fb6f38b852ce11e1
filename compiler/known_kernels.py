"""What earlier compilations found out about a model's kernels, kept in the cache of native code.

Most of a compilation whose kernels Triton has built before would go into printing: whether nodes are one kernel is
answered by printing it, and what a plan launches is printed again as its values are stored. One entry holds all answers
for one model, under the hash of whatever decides them: the imported graphs, the options, the passes, the text of the
whole package. Only a float tensor's content is left out, on which no kernel's text depends but by what the answers' own
keys say (`ir/structure.py`). Nothing is kept where code from outside takes part (registered ops, pipelines of the
caller's, plugins), nor for a lockfile's choices.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from fusible.compiler.backends.cpu.memo import Known
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.structure import structure
from fusible.compiler.options import Options
from fusible.compiler.stored_objects import Writer, read_objects
from fusible.passes.manager import Pipeline
from fusible.runtime.native.cache import CACHE_BYTES, FileCache

__all__ = ["KnownKernels"]

_PACKAGE = Path(__file__).parent.parent
_PARTS = ("compiler", "kernels", "passes", "runtime")
_SUFFIXES = frozenset({".py", ".h", ".c"})
_FEWEST = 16  # answers that take longer to compute than an entry takes to write and read


@dataclass(frozen=True)
class KnownKernels:
    """The answers of one compilation, which it adds to.

    refusals: as `Refusals` keeps them, by structure. kernels: as `Kernels` does, by structure and storage. name: of the
    entry, "" for a compilation that keeps nothing.
    """

    refusals: dict[str, str | None] = field(default_factory=dict)
    kernels: dict[tuple[str, str], Known[Any] | str] = field(default_factory=dict)
    name: str = ""
    cache_dir: Path = Path()
    found: bool = False

    @staticmethod
    def of(graph: Graph, options: Options, pipeline: Pipeline, target: str, cache_dir: Path) -> KnownKernels:
        """What is known for an imported graph: nothing, the first time. Raises UsageError for an unusable cache."""
        if options.tuning is not None or any(node.op.domain for inner in graph.all_graphs() for node in inner):
            return KnownKernels()
        name = f"{_key(graph, options, pipeline, target)}.kernels.json"
        files = FileCache(cache_dir, CACHE_BYTES)
        with files.explained():
            path = files.get(name)  # None if it is damaged
            if path is None:
                return KnownKernels(name=name, cache_dir=cache_dir)
            refusals, kernels = _read(path.read_text(encoding="utf-8"))
        return KnownKernels(refusals, kernels, name, cache_dir, found=True)

    def keep(self) -> None:
        """Put the answers into the cache, if they are new and worth it. Raises UsageError for an unusable cache."""
        if not self.name or self.found or len(self.refusals) + len(self.kernels) < _FEWEST:
            return
        kernels = {key: known for key, known in self.kernels.items() if isinstance(known, str) or known.portable}
        files = FileCache(self.cache_dir, CACHE_BYTES)
        with files.explained(), files.scratch() as folder:
            file = folder / self.name
            file.write_text(_text(self.refusals, kernels), encoding="utf-8")
            written = files.put(self.name, file)
            files.grow(written.stat().st_size, {self.name})


def _text(refusals: Mapping[str, str | None], kernels: Mapping[tuple[str, str], Known[Any] | str]) -> str:
    """The answers as JSON; kernels by the numbers of their objects."""
    writer = Writer()
    stored = [(*key, known if isinstance(known, str) else writer.number(known)) for key, known in kernels.items()]
    return json.dumps({"refusals": refusals, "kernels": stored, "classes": writer.classes, "rows": writer.rows})


def _read(text: str) -> tuple[dict[str, str | None], dict[tuple[str, str], Known[Any] | str]]:
    """What `_text` wrote."""
    found = json.loads(text)
    objects = read_objects(found["classes"], found["rows"])
    kernels = {(a, b): known if isinstance(known, str) else objects[known] for a, b, known in found["kernels"]}
    return found["refusals"], kernels


def _key(graph: Graph, options: Options, pipeline: Pipeline, target: str) -> str:
    """A hash of all that decides the answers; where the cache lies is none of it."""
    total = hashlib.sha256()
    for part in (*_versions(), target, repr(replace(options, cache_dir=None)), str(pipeline), *_graph_texts(graph)):
        total.update(part.encode())
        total.update(b"\0")
    return total.hexdigest()[:40]


def _graph_texts(graph: Graph) -> Iterator[str]:
    """The graphs of a model, and the symbols that their types mention."""
    for inner in graph.all_graphs():
        yield structure(list(inner), inner.outputs, inner.inputs)[0]
    yield repr(list(graph.symbols))


def _versions() -> Iterator[str]:
    """Versions of what computes and of what is stored, and the text of the package: with other text all is new."""
    yield sys.version
    yield metadata.version("numpy")
    files = (path for part in _PARTS for path in (_PACKAGE / part).rglob("*"))
    for path in sorted(path for path in files if path.suffix in _SUFFIXES):
        yield f"{path.relative_to(_PACKAGE)} {hashlib.sha256(path.read_bytes()).hexdigest()}"
