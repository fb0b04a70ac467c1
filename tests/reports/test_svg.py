"""Still charts: marks stand where the values are, axes are labelled in round numbers, and every text stays text."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from reasoning_embedding.reports.charts import (
    Bars,
    CoordinateAxis,
    CoordinateLine,
    Coordinates,
    Line,
    LineChart,
    Panel,
    PointPlot,
)
from reasoning_embedding.reports.labels import COLOURS
from reasoning_embedding.reports.shell import page
from reasoning_embedding.reports.svg import (
    bar_chart,
    histogram,
    line_chart,
    palette_css,
    parallel_coordinates,
    point_chart,
    ticks,
)

HOSTILE = '</svg><script>alert("x")</script>&'


def parsed(figure: str) -> ElementTree.Element:
    """The figure as XML: what is not well formed, or not escaped, does not parse."""
    return ElementTree.fromstring(figure)


def drawings(figure: str) -> list[ElementTree.Element]:
    return [svg for svg in parsed(figure).iter("svg") if svg.get("role") == "img"]


def of_class(drawing: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in drawing.iter() if (element.get("class") or "").split()[:1] == [name]]


def placed(found: list[tuple[float, float]]) -> tuple[float, float]:
    """Scale and offset of an axis, from values and their places; fails where they lie on no line."""
    values, places = np.array(found, dtype=float).T
    scale, offset = np.polyfit(values, places, 1)
    assert np.allclose(scale * values + offset, places, atol=0.08)  # places are written to 0.1
    return float(scale), float(offset)


def y_axis(drawing: ElementTree.Element) -> list[tuple[float, float]]:
    """Values and places of the labels of the vertical axis."""
    lines = [float(line.get("y1") or 0) for line in of_class(drawing, "grid")]
    texts = [text.text or "" for text in drawing.iter("text") if text.get("text-anchor") == "end"]
    return [(float(text.replace("−", "-")), y) for text, y in zip(texts, lines, strict=True)]


def curve(drawing: ElementTree.Element, index: int = 0) -> list[list[float]]:
    path = of_class(drawing, "curve")[index].get("d") or ""
    return [[float(number) for number in part.split()] for part in re.split("[ML]", path)[1:]]


@pytest.mark.parametrize("log", [False, True])
def test_a_curve_and_its_axes_agree(log: bool) -> None:
    steps, values = [0.0, 1.0, 4.0, 16.0, 100.0], [0.93, 0.9, -0.2, 0.5, 0.75]
    chart = LineChart(
        "k", "t", "training step", [Panel("p", "CKA", [Line("a", steps, values, 0, 0)])], log=log
    )
    (drawing,) = drawings(line_chart(chart))
    points = curve(drawing)
    assert len(points) == 5
    scale, offset = placed(y_axis(drawing))
    assert scale < 0  # up is more
    assert [scale * value + offset for value in values] == pytest.approx([y for _, y in points], abs=0.1)
    placed([(np.log1p(step) if log else step, x) for step, (x, _) in zip(steps, points, strict=True)])
    titles = [title.text for mark in of_class(drawing, "mark") for title in mark.iter("title")]
    assert titles[2] == "a, step 4: −0.2"
    assert "a: 0.93 to 0.75" in (drawing.get("aria-label") or "")


def test_a_gap_is_a_gap_and_a_long_curve_has_no_marks() -> None:
    x = [float(step) for step in range(1000)]
    lines = [Line("gap", [0.0, 1.0, 2.0], [1.0, None, 2.0], 0, 0), Line("long", x, [0.5] * 1000, 1, 1)]
    (drawing,) = drawings(line_chart(LineChart("k", "t", "step", [Panel("p", "l", lines)])))
    paths = [path.get("d") or "" for path in of_class(drawing, "curve")]
    assert paths[0].count("M") == 2
    assert paths[1].count("L") == 199
    assert len(of_class(drawing, "mark")) == 2
    assert of_class(drawing, "curve")[1].get("stroke-dasharray")


def test_many_points_are_not_marked_one_by_one() -> None:
    def marks(curves: int) -> int:
        lines = [Line(str(i), [float(x) for x in range(30)], [0.5] * 30, i, 0) for i in range(curves)]
        figure = line_chart(LineChart("k", "t", "layer", [Panel("p", "l", lines)]))
        assert len(of_class(drawings(figure)[0], "curve")) == curves
        return len(of_class(drawings(figure)[0], "mark"))

    assert marks(5) == 150
    assert marks(6) == 0


def test_band_and_chance_are_within_the_drawing_and_the_limits_are_kept() -> None:
    line = Line("a", [0.0, 1.0], [0.9, 0.99], 0, 0)
    panel = Panel("p", "CKA", [line], limits=(0, 1), band=(0.95, 0.97), band_label="seed band", chance=0.31)
    figure = line_chart(LineChart("k", "t", "step", [panel]))
    (drawing,) = drawings(figure)
    axis = y_axis(drawing)
    assert max(value for value, _ in axis) <= 1
    scale, offset = placed(axis)
    (band,), (chance,) = of_class(drawing, "band"), of_class(drawing, "chance")
    top = float(band.get("y") or 0)
    assert (top - offset) / scale == pytest.approx(0.97, abs=0.002)
    assert (top + float(band.get("height") or 0) - offset) / scale == pytest.approx(0.95, abs=0.002)
    assert (float(chance.get("y1") or 0) - offset) / scale == pytest.approx(0.31, abs=0.002)
    assert {"a", "row shuffle", "seed band"} == {
        "".join(item.itertext()).strip() for item in parsed(figure).iter("li")
    }


def test_panels_asked_for_less_are_folded_away() -> None:
    panels = [Panel(key, f"label {key}", [Line("a", [0.0, 1.0], [0.0, 1.0], 0, 0)]) for key in "abc"]
    figure = line_chart(LineChart("k", "t", "step", panels, first=("b",)))
    shown, folded = figure.split("<details>")
    assert ("label b" in shown, "label a" in shown) == (True, False)
    assert folded.count("<svg") == 2
    assert len(drawings(line_chart(LineChart("k", "t", "step", panels)))) == 3


def test_names_on_an_axis_never_touch() -> None:
    names = [f"layer {index} of many" for index in range(40)]
    line = Line("a", [float(index) for index in range(40)], [0.5] * 40, 0, 0)
    (drawing,) = drawings(line_chart(LineChart("k", "t", "layer", [Panel("p", "l", [line])], ticks=names)))
    shown = [
        (float(t.get("x") or 0), len(t.text or "")) for t in drawing.iter("text") if (t.text or "") in names
    ]
    assert len(shown) > 2
    for (left, size), (right, other) in pairwise(shown):
        assert right - left >= 5.5 * (size + other) / 2


def test_bars_are_as_high_as_their_values() -> None:
    last, first = [[0.8, None], [0.4, 0.2]], [[0.1, None], [None, None]]
    bars = Bars("nDCG@10", ["one", "two"], ["a", "b"], last, first, [(0, 0), (-1, 0)])
    figure = bar_chart(bars)
    (drawing,) = drawings(figure)
    found = of_class(drawing, "bar")
    assert [next(bar.iter("title")).text for bar in found] == [
        "one, a: 0.8 (step 0: 0.1)",
        "one, b: 0.4",
        "two, b: 0.2",
    ]
    heights = [float(bar.get("height") or 0) for bar in found]
    assert heights[0] / heights[1] == pytest.approx(2, rel=0.01)
    assert heights[1] / heights[2] == pytest.approx(2, rel=0.01)
    assert len(of_class(drawing, "start")) == 1
    assert found[1].get("class") == "bar g0"
    assert [name for name in ("a", "b", "step 0") if f"</svg>{name}</li>" in figure] == ["a", "b", "step 0"]


def test_many_tasks_make_a_wide_drawing_that_scrolls() -> None:
    models, tasks = [str(i) for i in range(10)], [f"a task with a rather long name {i}" for i in range(20)]
    values = [[0.5] * 20] * 10
    figure = bar_chart(Bars("x", tasks, models, values, [[None] * 20] * 10, [(i, 0) for i in range(10)]))
    (drawing,) = drawings(figure)
    widths = [float(bar.get("width") or 0) for bar in of_class(drawing, "bar")]
    assert min(widths) > 8
    assert "min-width" in figure
    cut = [text for text in drawing.iter("text") if (text.text or "").endswith("…")]
    assert len(cut) == 20
    assert next(cut[0].iter("title")).text == tasks[0]


def test_a_mark_a_point_and_a_colour_a_family() -> None:
    plot = PointPlot("heading", "title", "note", ("even", "odd"), (((0.0, 0.0), (2.0, 1.0)), ((1.0, 0.5),)))
    (drawing,) = drawings(point_chart("key", [plot]))
    low, high = [(float(dot.get("cx") or 0), float(dot.get("cy") or 0)) for dot in drawing.iter("circle")]
    (square,) = [rect for rect in of_class(drawing, "mark") if rect.tag == "rect"]
    x, y, width, height = (float(square.get(key) or 0) for key in ("x", "y", "width", "height"))
    middle = (x + width / 2, y + height / 2)
    assert middle == pytest.approx(((low[0] + high[0]) / 2, (low[1] + high[1]) / 2), abs=0.15)
    assert low[1] > high[1]
    assert [group.get("class") for group in drawing.iter("g")] == ["c0", "c1"]


def test_a_histogram_counts() -> None:
    values = {"histogram": {"edges": [0, 10, 20], "counts": [4, 2]}, "mean": 8.0, "median": 7.0, "n": 6}
    drawing = next(parsed(histogram(values, "words")).iter("svg"))
    heights = [float(bar.get("height") or 0) for bar in of_class(drawing, "bar")]
    assert heights[0] == pytest.approx(2 * heights[1])
    assert [next(bar.iter("title")).text for bar in of_class(drawing, "bar")] == ["0 to 10: 4", "10 to 20: 2"]


def test_the_best_run_is_the_last_and_the_strongest_line() -> None:
    axes = [
        CoordinateAxis("rate", [(0.0, "1"), (1.0, "2")]),
        CoordinateAxis("score", [(0.0, "0.1"), (1.0, "0.9")]),
    ]
    lines = [
        CoordinateLine("bad", [1.0, 0.0], ["2", "0.1"]),
        CoordinateLine("good", [0.0, 1.0], ["1", "0.9"]),
    ]
    (drawing,) = drawings(parallel_coordinates(Coordinates(axes, lines)))
    bad, good = of_class(drawing, "run")
    assert float(bad.get("stroke-opacity") or 1) < float(good.get("stroke-opacity") or 0)
    assert next(good.iter("title")).text == "good: rate 1, score 0.9"
    (_, top, _, foot), (_, start, _, end) = (
        re.split("[ ,]", line.get("points") or "") for line in (bad, good)
    )
    assert (top, foot) == (end, start)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.31, 0.99, [0.4, 0.6, 0.8]),
        (-1.0, 1.0, [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (0.0, 5e-4, [0.0, 1e-4, 2e-4, 3e-4, 4e-4, 5e-4]),
        (9000.0, 9400.0, [9000.0, 9100.0, 9200.0, 9300.0, 9400.0]),
        (3.0, 3.0, [3.0]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_every_text_stays_text() -> None:
    line = Line(HOSTILE, [0.0, 1.0], [0.0, 1.0], 0, 0)
    panel = Panel("p", HOSTILE, [line], band=(0.1, 0.2), band_label=HOSTILE)
    figures = [
        line_chart(LineChart(HOSTILE, HOSTILE, HOSTILE, [panel], note=HOSTILE, ticks=[HOSTILE, HOSTILE])),
        bar_chart(Bars(HOSTILE, [HOSTILE], [HOSTILE], [[0.5]], [[0.1]], [(0, 0)])),
        point_chart(HOSTILE, [PointPlot(HOSTILE, HOSTILE, HOSTILE, (HOSTILE,), (((0.0, 1.0),),))]),
        parallel_coordinates(
            Coordinates(
                [CoordinateAxis(HOSTILE, [(0.0, HOSTILE)])], [CoordinateLine(HOSTILE, [0.0], [HOSTILE])]
            )
        ),
    ]
    for figure in figures:
        assert not list(parsed(figure).iter("script"))
        assert "<script" not in figure


def test_every_colour_of_a_chart_is_defined_by_the_page() -> None:
    lines = [Line(str(index), [0.0, 1.0], [0.0, 1.0], index, 0) for index in range(2 * len(COLOURS))]
    text = page("t", "s", {"x": line_chart(LineChart("k", "t", "step", [Panel("p", "l", lines)]))})
    used = set(re.findall(r'<g class="(c\d+)"', text))
    assert used == {f"c{index}" for index in range(len(COLOURS))}
    for name in used:
        assert palette_css().count(f".{name} {{") == 2  # light and dark
        assert palette_css() in text
