"""The page in a real browser: every mark is drawn, nothing is fetched, nothing complains, columns sort.

Run by `pytest --browser`; needs Chromium.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fusible.benchmarks.records import Results
from fusible.benchmarks.report.derived import flop_rate, intensity
from fusible.benchmarks.report.history import append_history, read_model_history
from fusible.benchmarks.report.page import write_page
from tests.benchmarks.report.chromium import Chromium, Page
from tests.benchmarks.report.made_up import HOSTILE, interval, kernel_row, large, model_row, results, small

pytestmark = pytest.mark.browser

WIDE, NARROW = 1400, 375
PLOTS = ("ratios", "roofline", "history")

# Of each mark: its box, and whether its colour is that of the page below it.
MARKS = """
[...document.querySelectorAll("#%s .point use, #%s .points use")].map(use => {
  const box = use.getBoundingClientRect();
  const plot = use.ownerSVGElement.getBoundingClientRect();
  const style = getComputedStyle(use);
  return {
    left: box.left, right: box.right, width: box.width, height: box.height,
    inside: box.left >= plot.left && box.right <= plot.right && box.top >= plot.top && box.bottom <= plot.bottom,
    seen: style.stroke !== getComputedStyle(document.body).backgroundColor && style.stroke !== "none",
  };
})
"""

# Texts of a plot that lie over each other, or stick out of it.
COLLISIONS = """
(name => {
  const plot = document.getElementById(name);
  const outer = plot.getBoundingClientRect();
  const texts = [...plot.querySelectorAll("text")].filter(text => text.textContent.trim());
  const boxes = texts.map(text => [text.textContent, text.getBoundingClientRect()]);
  const found = boxes.filter(([, b]) =>
    b.left < outer.left - 1 || b.right > outer.right + 1 || b.top < outer.top - 1 || b.bottom > outer.bottom + 1
  ).map(([text]) => ["sticks out", text]);
  boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
    const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (wide > 1 && high > 3) found.push(["overlap", a, b]);
  }));
  return found;
})(%s)
"""


@dataclass(frozen=True)
class Case:
    """A page with the number of marks that each plot must have."""

    path: Path
    marks: dict[str, int]


def expected_marks(made: Results, runs: int) -> dict[str, int]:
    """Counted from the records, not from what the plots say."""
    ratios = sum(row.status == "ok" and row.ratio is not None for row in made.models)
    placed = [row for row in (*made.models, *made.kernels) if row.status == "ok"]
    return {
        "ratios": ratios,
        "roofline": sum(bool(intensity(row) and flop_rate(row)) for row in placed),
        "history": runs * ratios,
    }


def case(name: str, folder: Path) -> Case:
    """Write a page of this kind."""
    hostile = results(
        [model_row(HOSTILE), model_row(HOSTILE, HOSTILE, ratio=interval(1.1)), model_row("m", HOSTILE, status="wrong")],
        [kernel_row(HOSTILE, signature=HOSTILE, kernel=HOSTILE)],
        notes=(HOSTILE,),
        command=HOSTILE,
    )
    made, runs = {"large": (large(), 5), "small": (small(), 1), "hostile": (hostile, 2)}[name]
    for day in range(1, runs + 1):
        append_history(replace(made, created=f"2026-11-{day:02d}T12:00:00+00:00"), folder / name, commit="")
    path = folder / f"{name}.html"
    write_page(made, path, read_model_history(folder / name))
    return Case(path, expected_marks(made, runs))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One Chromium for all tests."""
    with Chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module", params=["large", "small", "hostile"])
def page_case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Each kind of page."""
    return case(request.param, tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def large_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A page with many rows."""
    return case("large", tmp_path_factory.mktemp("large"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_mark_of_every_plot_is_drawn(browser: Chromium, page_case: Case, scheme: str) -> None:
    with browser.page(page_case.path, WIDE, scheme=scheme) as page:
        assert page.evaluate("[...document.querySelectorAll('svg')].map(plot => plot.id)") == list(PLOTS)
        for plot in PLOTS:
            marks = page.evaluate(MARKS % (plot, plot))
            assert len(marks) == page_case.marks[plot] > 0, plot
            for mark in marks:
                assert mark["width"] > 2 and mark["height"] > 2, (plot, mark)
                assert mark["left"] >= 0 and mark["right"] <= WIDE, (plot, mark)
                assert mark["inside"] and mark["seen"], (plot, mark)


def test_no_text_of_a_plot_collides_or_is_cut_off(browser: Chromium, page_case: Case) -> None:
    with browser.page(page_case.path, WIDE) as page:
        for plot in PLOTS:
            assert page.evaluate(COLLISIONS % json.dumps(plot)) == [], plot


def test_texts_that_collide_are_found(browser: Chromium, large_case: Case) -> None:
    with browser.page(large_case.path, WIDE) as page:
        page.evaluate("document.querySelectorAll('#ratios text').forEach(text => { text.style.fontSize = '60px' })")
        found = page.evaluate(COLLISIONS % '"ratios"')
        assert {kind for kind, *_ in found} == {"sticks out", "overlap"}


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_is_fetched_and_nothing_complains(browser: Chromium, page_case: Case, width: int) -> None:
    with browser.page(page_case.path, width) as page:
        page.evaluate("new Promise(done => setTimeout(() => done(null), 300))")
        assert page.evaluate("performance.getEntriesByType('resource').length") == 0
        assert page.complaints() == []
        assert page.requests() == [page_case.path.as_uri()]


@pytest.mark.parametrize("width", [NARROW, 800, WIDE])
def test_the_body_does_not_overflow(browser: Chromium, page_case: Case, width: int) -> None:
    with browser.page(page_case.path, width) as page:
        assert page.evaluate("innerWidth") == width
        assert page.evaluate("document.documentElement.scrollWidth") == width
        wider = "[...document.querySelectorAll('.scroll')].some(part => part.scrollWidth > part.clientWidth)"
        assert page.evaluate(wider) or width > NARROW


def column(page: Page, name: str) -> list[str]:
    """The sort values of a column of the first sortable table, from top to bottom."""
    found = page.evaluate(f"""(() => {{
      const table = document.querySelector("table.sortable");
      const index = [...table.tHead.rows[0].cells].findIndex(head => head.textContent === {json.dumps(name)});
      return [...table.tBodies[0].rows].map(row => row.cells[index].dataset.value);
    }})()""")
    assert isinstance(found, list)
    return found


def click(page: Page, name: str) -> Any:
    """Click the head of a column of the first sortable table; return how it says that it is sorted."""
    heads = page.evaluate("[...document.querySelector('table.sortable').tHead.rows[0].cells].map(h => h.textContent)")
    page.click("table.sortable th button", heads.index(name))
    return page.evaluate("[...document.querySelectorAll('th[aria-sort]')].map(h => [h.textContent, h.ariaSort])")


@pytest.mark.parametrize("name", ["latency", "ratio", "items/s", "memory"])
def test_a_click_sorts_by_numbers_with_empty_cells_last(browser: Chromium, large_case: Case, name: str) -> None:
    with browser.page(large_case.path, WIDE) as page:
        before = column(page, name)
        numbers = sorted(float(value) for value in before if value)
        assert click(page, name) == [[name, "ascending"]]
        assert [float(value) for value in column(page, name) if value] == numbers
        assert click(page, name) == [[name, "descending"]]
        after = column(page, name)
        assert [float(value) for value in after if value] == numbers[::-1]
        assert after[len(numbers) :] == [""] * (len(before) - len(numbers))
        assert page.complaints() == []


def test_a_click_sorts_by_text_and_another_column_takes_over(browser: Chromium, large_case: Case) -> None:
    with browser.page(large_case.path, WIDE) as page:
        rows = sorted(zip(column(page, "model"), column(page, "contestant"), column(page, "latency"), strict=True))
        click(page, "latency")
        assert click(page, "model") == [["model", "ascending"]]
        assert column(page, "model") == sorted(column(page, "model"))
        moved = zip(column(page, "model"), column(page, "contestant"), column(page, "latency"), strict=True)
        assert sorted(moved) == rows  # rows stay whole


def test_columns_sort_by_keyboard(browser: Chromium, large_case: Case) -> None:
    with browser.page(large_case.path, WIDE) as page:
        page.evaluate("document.querySelector('table.sortable th button').focus()")
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", {"type": kind, **key})
        assert column(page, "model") == sorted(column(page, "model"))


def test_the_scheme_follows_the_system(browser: Chromium, large_case: Case) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        with browser.page(large_case.path, WIDE, scheme=scheme) as page:
            script = "[document.body, ...document.querySelectorAll('#ratios text')].slice(0, 2).map(e => {%s})"
            look = "const s = getComputedStyle(e); return [s.backgroundColor, s.fill]"
            colours[scheme] = page.evaluate(script % look)
    assert colours["light"] != colours["dark"]


def test_the_driver_sees_what_goes_wrong(browser: Chromium, tmp_path: Path) -> None:
    """A page that logs, throws and fetches is reported: the tests above can fail."""
    path = tmp_path / "bad.html"
    path.write_text("<img src='missing.png'><script>console.error('logged'); throw new Error('thrown')</script>")
    with browser.page(path, WIDE) as page:
        complaints = "".join(page.complaints())
        assert "logged" in complaints
        assert "thrown" in complaints
        assert len(page.requests()) == 2
