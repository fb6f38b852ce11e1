"""The plots as SVG: one mark a row, deterministic, own ids, colours of the style sheet, names that are only text."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fusible.benchmarks.report
from fusible.benchmarks.records import Interval, Results
from fusible.benchmarks.report.history import ModelHistory, append_history, read_model_history
from fusible.benchmarks.report.plots import RUNS, Plot, history_plot, ratio_plot, ratio_ticks, roofline_plot
from fusible.benchmarks.report.svg import SERIES, series_style
from tests.benchmarks.report.made_up import (
    HOSTILE,
    MODELS,
    PEERS,
    interval,
    kernel_row,
    large,
    model_row,
    results,
    small,
)


def history(made: Results, folder: Path, days: int = 3) -> tuple[ModelHistory, ...]:
    """The history after so many runs of the same results."""
    for day in range(days):
        append_history(replace(made, created=f"2026-{1 + day // 28:02d}-{1 + day % 28:02d}T12:00:00+00:00"), folder, "")
    return read_model_history(folder)


def drawn(plot: Plot | None) -> Plot:
    """The plot, which must be there."""
    assert plot is not None
    return plot


def marks(plot: Plot) -> list[ET.Element]:
    """Its point marks."""
    groups = [g for g in ET.fromstring(plot.svg).iter("g") if g.get("class") in ("point", "points")]
    return [use for group in groups for use in group.iter("use")]


def test_ratios_have_a_mark_for_each_row() -> None:
    made = large()
    peers = [row for row in made.models if row.role != "subject"]
    plot = drawn(ratio_plot(made))
    ok = [row for row in peers if row.status == "ok"]
    assert plot.marks == len(marks(plot)) == len(ok)
    assert plot.left_out == len(peers) - len(ok) > 0
    for said in (*MODELS, *PEERS, "1 thread", "2 threads", "time of the peer / time of fusible"):
        assert f">{said}" in plot.svg or f"{said} fp32" in plot.svg, said


def test_models_on_which_the_subject_does_worst_come_first() -> None:
    ratios = {"middling": 1.0, "best": 2.0, "worst": 0.5}
    plot = drawn(ratio_plot(results([model_row(name, "torch", ratio=interval(r)) for name, r in ratios.items()])))
    heights = {t.text: float(t.get("y", "")) for t in ET.fromstring(plot.svg).iter("text") if "fp32" in (t.text or "")}
    assert sorted(heights, key=lambda name: heights[name or ""]) == ["worst fp32", "middling fp32", "best fp32"]


def test_a_batch_is_part_of_the_name() -> None:
    rows = [model_row(peer="torch"), model_row(peer="torch", batch=8)]
    assert "mobilenet_v2 fp32 ×8" in drawn(ratio_plot(results(rows))).svg


def test_ratios_without_a_place_are_left_out() -> None:
    broken = [model_row(f"m{i}", "torch", ratio=r) for i, r in enumerate((None, Interval(0, 1, 2)))]
    plot = drawn(ratio_plot(results([*broken, model_row(peer="torch")])))
    assert (plot.marks, plot.left_out) == (1, 2)
    assert ratio_plot(results(broken)) is None
    assert ratio_plot(results([model_row(status="wrong"), model_row(peer="torch")])) is None
    assert ratio_plot(results([model_row()])) is None


def test_the_roofline_has_models_kernels_and_roofs() -> None:
    made = large()
    placed = sum(row.status == "ok" for row in (*made.models, *made.kernels))
    plot = drawn(roofline_plot(made))
    assert plot.marks == len(marks(plot)) == placed
    for said in ("1 thread: at most 92.4 GFLOP/s, 11.8 GB/s", "2 threads: at most 181 GFLOP/s, 17.1 GB/s", "a kernel"):
        assert said in plot.svg, said


def test_the_roofline_leaves_out_rows_without_counts() -> None:
    rows = [model_row(), model_row("b", flops=None), model_row("c", latency=None), model_row("d", status="wrong")]
    plot = drawn(roofline_plot(results(rows, [kernel_row("gather", flops=0.0)])))
    assert (plot.marks, plot.left_out) == (1, 3)
    assert roofline_plot(results(rows[1:])) is None


def test_another_device_has_a_panel_without_a_roof() -> None:
    plot = drawn(roofline_plot(results([model_row()], [kernel_row(device="cuda:0")])))
    assert "cuda:0, 1 thread (no roof measured)" in plot.svg
    assert plot.marks == len(marks(plot)) == 2


def test_the_history_has_a_mark_for_each_ratio(tmp_path: Path) -> None:
    made = large(MODELS[:6])
    lines = history(made, tmp_path)
    plot = drawn(history_plot(made, lines))
    expected = sum(line.ratio is not None for line in lines)
    assert plot.marks == len(marks(plot)) == expected
    assert "2026-01-01" in plot.svg
    assert "2026-01-03" in plot.svg


def test_the_history_is_that_of_the_machine_and_of_the_latest_runs(tmp_path: Path) -> None:
    lines = history(small(), tmp_path, RUNS + 5)
    other = tuple(replace(line, processor="Xeon") for line in lines)
    plot = drawn(history_plot(small(), (*lines, *other)))
    assert plot.marks == RUNS
    assert plot.left_out == RUNS + 10
    assert history_plot(small(), other) is None
    assert history_plot(small(), ()) is None


def test_one_day_has_one_date(tmp_path: Path) -> None:
    plot = drawn(history_plot(small(), history(small(), tmp_path, 1)))
    assert plot.svg.count(">2026-01-01<") == 1


@given(st.floats(1e-3, 1.0), st.floats(1.0, 1e3), st.integers(2, 10))
def test_ticks_are_round_and_not_too_many(low: float, high: float, most: int) -> None:
    low, high = low / 1.01, high * 1.01
    ticks = ratio_ticks(low, high, most)
    assert 1.0 in ticks
    assert len(ticks) <= most
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= high and len(f"{tick:g}") <= 6 for tick in ticks)


@pytest.mark.parametrize(("low", "high"), [(0.95, 1.06), (0.5, 2.2), (0.2, 9.0), (0.01, 100.0), (20.0, 500.0)])
def test_there_are_ticks_enough_to_read_a_value(low: float, high: float) -> None:
    assert len(ratio_ticks(low, high, 8)) >= 3


def every_plot(made: Results, folder: Path) -> list[Plot]:
    """The three plots of a run."""
    return [drawn(p) for p in (ratio_plot(made), roofline_plot(made), history_plot(made, history(made, folder)))]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    made = large(MODELS[:3])
    assert every_plot(made, tmp_path / "a") == every_plot(made, tmp_path / "b")


def test_the_settings_of_the_user_do_not_reach_the_plots(tmp_path: Path) -> None:
    made = small()
    before = every_plot(made, tmp_path / "a")
    script = (
        "import matplotlib, sys, pathlib\n"
        "matplotlib.rcParams.update({'font.size': 30, 'axes.facecolor': 'red', 'svg.fonttype': 'path'})\n"
        "matplotlib.rcParams['axes.labelsize'] = 30\n"
        "from tests.benchmarks.report.test_plots import every_plot, small\n"
        "sys.stdout.write(''.join(p.svg for p in every_plot(small(), pathlib.Path(sys.argv[1]))))\n"
        "assert matplotlib.rcParams['font.size'] == 30\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "b")]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "".join(plot.svg for plot in before)


def test_ids_do_not_clash_and_links_lead_somewhere(tmp_path: Path) -> None:
    roots = [ET.fromstring(plot.svg) for plot in every_plot(large(MODELS[:5]), tmp_path)]
    ids = Counter(element.get("id") for root in roots for element in root.iter() if element.get("id"))
    assert max(ids.values()) == 1
    text = "".join(ET.tostring(root, encoding="unicode") for root in roots)
    targets = re.findall(r'href="#([^"]+)"', text) + re.findall(r"url\(#([^)]+)\)", text)
    labels = [label for root in roots for label in root.get("aria-labelledby", "").split()]
    assert {*targets, *labels} <= ids.keys()
    assert len(labels) == 6


def test_colours_come_from_the_style_sheet(tmp_path: Path) -> None:
    for plot in every_plot(large(MODELS[:3]), tmp_path):
        assert not re.findall(r"#[0-9a-f]{6}\b", plot.svg)
        assert "DejaVu" not in plot.svg
        assert "http" not in plot.svg
        assert "var(--ink)" in plot.svg
        texts = [element for element in ET.fromstring(plot.svg).iter("text") if element.text]
        assert texts
        assert all("font-size: 1" in text.get("style", "") for text in texts)


@pytest.mark.parametrize("name", [HOSTILE, "", "_hidden", "$x$", "模型", "]]>", "a" * 500, "&amp;"])
def test_any_name_is_only_text(name: str, tmp_path: Path) -> None:
    rows = [model_row(name), model_row(name, name + "x", role="peer", ratio=interval(1.1))]
    made = results(rows, [kernel_row(name, signature=name, kernel=name, device=name)])
    for plot in every_plot(made, tmp_path):
        root = ET.fromstring(plot.svg)
        assert not [element for element in root.iter() if element.tag in ("script", "a", "image", "foreignObject")]
        assert len(marks(plot)) == plot.marks


@pytest.mark.parametrize("name", ["$x_1$", "]]>", "&amp;", "<b>", "模型"])
def test_a_name_is_written_as_it_is(name: str) -> None:
    plot = drawn(ratio_plot(results([model_row(name, "torch"), model_row(name, name + "p", ratio=interval(1.1))])))
    texts = {element.text for element in ET.fromstring(plot.svg).iter("text")}
    assert {f"{name} fp32", f"{name}p"} <= texts


def test_each_mark_says_what_it_is() -> None:
    tips = [title.text for title in ET.fromstring(drawn(ratio_plot(small())).svg).iter("title")]
    assert tips[1:] == ["mobilenet_v2 fp32, onnxruntime, ratio 1.20 (1.19–1.21)"]


def test_contestants_differ_in_colour_and_mark() -> None:
    styles = [series_style(index) for index in range(42)]
    assert len(set(styles)) == 42
    assert len({marker for _, marker in styles[:7]}) == 7


# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009,
# severity 1.0: protanopia, deuteranopia, tritanopia.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    "deuteranopia": np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    "tritanopia": np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def schemes() -> list[dict[str, str]]:
    """The variables of the light and of the dark scheme."""
    css = (Path(fusible.benchmarks.report.__path__[0]) / "page.css").read_text()
    return [
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]


def linear(colour: str) -> np.ndarray:
    """Linear sRGB of a colour."""
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """The contrast of WCAG 2."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (a, b))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of linear sRGB."""
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("number", [0, 1])
def test_colours_keep_contrast(number: int) -> None:
    scheme = schemes()[number]
    assert len(schemes()) == 2
    for name in ("ink", "faint", "better", "worse", "warning"):
        assert contrast(scheme[name], scheme["paper"]) >= 4.5, name
        assert contrast(scheme[name], scheme["raised"]) >= 4.5, name
    for index in range(len(SERIES)):
        assert contrast(scheme[f"series-{index}"], scheme["paper"]) >= 4, index


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("number", [0, 1])
def test_colours_differ_for_every_eye(number: int, sight: str) -> None:
    seen = [lab(SIGHT[sight] @ linear(schemes()[number][f"series-{index}"])) for index in range(len(SERIES))]
    distances = [float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)]
    assert min(distances) > 10
