"""The page: the same bytes each time, nothing to load, well formed, hostile names shown as text."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fusible.benchmarks.records import Results
from fusible.benchmarks.report.history import append_history, read_model_history
from fusible.benchmarks.report.page import render_page, write_page
from fusible.errors import UsageError
from tests.benchmarks.report.made_up import HOSTILE, MODELS, interval, kernel_row, large, model_row, results, small


class Reader(HTMLParser):
    """Checks that elements are closed in order, and collects what a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), attrs
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def count(self, name: str) -> int:
        """How many elements of a name there are."""
        return sum(tag == name for tag, _ in self.tags)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with all plots."""
    folder = tmp_path_factory.mktemp("history")
    made = large(MODELS[:4])
    append_history(made, folder, commit="")
    return render_page(made, read_model_history(folder))


def hostile() -> Results:
    """A run in which every text is hostile."""
    rows = [model_row(HOSTILE, HOSTILE, variant=HOSTILE), model_row(HOSTILE, "x" + HOSTILE, ratio=interval(1.1))]
    rows.append(model_row("m", HOSTILE, status=HOSTILE, reason=HOSTILE))
    kernel = kernel_row(HOSTILE, kernel=HOSTILE, signature=HOSTILE, attributes=HOSTILE, baseline=HOSTILE)
    return results(
        rows,
        [kernel, kernel_row(HOSTILE, status="failed", reason=HOSTILE, origin=(HOSTILE,))],
        command=HOSTILE,
        created=HOSTILE,
        notes=(HOSTILE,),
        versions={HOSTILE: HOSTILE},
        settings={HOSTILE: [HOSTILE]},
    )


def test_it_is_the_same_each_time(full: str, tmp_path: Path) -> None:
    made = large(MODELS[:4])
    append_history(made, tmp_path, commit="")
    assert render_page(made, read_model_history(tmp_path)) == full


def test_it_has_each_plot_once_and_all_rows(full: str) -> None:
    page = Reader(full)
    ids = [found["id"] for tag, found in page.tags if tag == "svg"]
    assert ids == ["ratios", "roofline", "history"]
    made = large(MODELS[:4])
    assert page.count("tr") == (1 + len(made.models)) + (1 + len(made.kernels)) + (1 + 6)
    text = " ".join(page.text)
    for said in ("AMD EPYC 7B13", "torch 2.11.0", "rounds 12", "turbo is on", "92.4 GFLOP/s", "1.02 times its best"):
        assert said in text, said
    assert [t for t, _ in page.tags].count("h1") == 1
    assert "interrupted" not in full


def test_every_id_is_there_once(full: str) -> None:
    ids = [found["id"] for _, found in Reader(full).tags if "id" in found]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("made", [results(), small(), hostile()], ids=["empty", "small", "hostile"])
def test_every_run_gives_a_well_formed_page(made: Results) -> None:
    page = Reader(render_page(made))
    assert page.count("main") == 1


def loads(page: str) -> list[str]:
    """Everything in a page that could make a browser fetch something."""
    found = []
    for tag, attributes in Reader(page).tags:
        if tag in (
            "link",
            "iframe",
            "img",
            "image",
            "object",
            "embed",
            "base",
            "form",
            "a",
            "audio",
            "video",
            "source",
        ):
            found.append(tag)
        for name, value in attributes.items():
            if name in ("src", "srcset", "data", "action", "background", "ping", "poster"):
                found.append(f"{name}={value}")
            if name in ("href", "xlink:href") and not (value or "").startswith("#"):
                found.append(f"{name}={value}")
            found += [url for url in re.findall(r"url\(([^)]*)\)", value or "") if not url.startswith("#")]
    for style in re.findall(r"<style>(.*?)</style>", page, re.DOTALL):
        found += re.findall(r"@import|url\(", style)
    for script in re.findall(r"<script>(.*?)</script>", page, re.DOTALL):
        found += re.findall(r"fetch|XMLHttpRequest|import|WebSocket|sendBeacon|\.src\b", script)
    return found


def test_it_loads_nothing(full: str) -> None:
    assert loads(full) == []
    assert "http://" not in full
    assert "https://" not in full


@pytest.mark.parametrize(
    "planted",
    [
        '<img src="x">',
        '<link rel="icon">',
        '<p style="background: url(x)"></p>',
        "<style>@import 'x'</style>",
        "<script>fetch('x')</script>",
        '<svg><use href="other.svg#a"></use></svg>',
    ],
)
def test_a_planted_load_is_found(planted: str) -> None:
    assert loads(planted.replace('src="x">', 'src="x"></img>').replace('"icon">', '"icon"></link>'))


def test_hostile_names_are_shown_as_text() -> None:
    text = render_page(hostile())
    page = Reader(text)
    assert page.count("script") == 1
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(" in text
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "\x1b" not in text
    assert loads(text) == []
    assert any(said.startswith("<script>alert('\"&x')</script>") for said in page.text)


def test_only_its_own_script_may_run(full: str) -> None:
    script = re.findall(r"<script>(.*?)</script>", full, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    (policy,) = [a["content"] for t, a in Reader(full).tags if t == "meta" and "http-equiv" in a]
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_plots_and_tables_have_names(full: str) -> None:
    tags = Reader(full).tags
    assert all(a["role"] == "img" and a["aria-labelledby"] for t, a in tags if t == "svg")
    assert all(a.get("aria-label") for _, a in tags if a.get("role") in ("region", "group"))
    assert all(a.get("scope") for t, a in tags if t == "th")


def test_what_is_missing_is_said() -> None:
    text = render_page(results(complete=False))
    for said in (
        "interrupted",
        "No row has a ratio",
        "No row has counts",
        "no history of this machine",
        "not measured",
    ):
        assert said in text, said
    assert "Overview" not in text
    assert "<table" not in text


def test_rows_that_failed_say_why() -> None:
    failed = model_row(peer="torch", status="failed", reason="no kernel for GridSample", latency=None, ratio=None)
    text = render_page(results([model_row(), failed]))
    assert '<td class="text long status failed" data-value="failed: no kernel for GridSample">' in text


def test_numbers_sort_by_their_value() -> None:
    assert 'data-value="0.0124">12.4 ms <span class="detail">(12.0–12.8)</span>' in render_page(small())


def test_it_is_written_in_one_step(tmp_path: Path) -> None:
    write_page(small(), tmp_path / "new" / "page.html")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
    assert (tmp_path / "new" / "page.html").read_text() == render_page(small())
    for path in (tmp_path / "new", tmp_path / "new" / "page.html" / "x"):
        with pytest.raises(UsageError, match="the page cannot be written"):
            write_page(small(), path)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_without_matplotlib_the_error_says_what_to_install() -> None:
    script = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "from fusible.benchmarks.report.page import render_page\n"
        "from fusible.benchmarks.report.terminal import results_text\n"
        "from fusible.errors import FusibleError\n"
        "from tests.benchmarks.report.made_up import small\n"
        "results_text(small(), 100)\n"
        "try:\n"
        "    render_page(small())\n"
        "except FusibleError as error:\n"
        "    print(error)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "plots need matplotlib: pip install 'fusible[bench]'\n"
