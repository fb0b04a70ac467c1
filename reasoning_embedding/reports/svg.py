"""Still charts as SVG within a page: lines, bars, points, histograms and parallel coordinates.

Colours are classes that the page's style fills in for light and dark (:func:`palette_css`); legends are text beside
the drawing, so that they wrap on a narrow screen. A mark, bar or line says its value where the pointer rests.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .charts import (
    Bars,
    Coordinates,
    Effect,
    EffectChart,
    EffectPanel,
    Line,
    LineChart,
    Panel,
    PointPlot,
    thin,
)
from .labels import BASELINE_GREYS, COLOURS, DARK_COLOURS, DARK_GREYS, brackets, compact, number, signed

#: Size of a panel; the page scales it to its column.
_WIDTH, _HEIGHT = 420, 236
#: Room for the labels of the axes.
_LEFT, _RIGHT, _ABOVE, _BELOW = 54, 12, 10, 40
#: Points of a curve, and of all curves of a panel, up to which they are marked; longer curves are averaged.
_MARKED, _MARKS, _DRAWN = 60, 150, 200
_DASHES = ("", "7 4", "8 3 2 3", "2 3")
#: How full a bar is of its colour: runs of one backbone share the colour.
_FILLS = (1.0, 0.5, 0.25, 0.1)
_CHARACTER = 5.9  # width of a digit or letter of a tick, about


def palette_css() -> str:
    """Return the rules that give the classes ``c0``, ``c1``, ... (and ``g0``, ... of baselines) their colours."""

    def rules(colours: Sequence[str], greys: Sequence[str]) -> str:
        named = [(f"c{index}", colour) for index, colour in enumerate(colours)]
        named += [(f"g{index}", grey) for index, grey in enumerate(greys)]
        return " ".join(f".{name} {{ --ink: {colour}; }}" for name, colour in named)

    return (
        f"{rules(COLOURS, BASELINE_GREYS)}\n"
        f"@media (prefers-color-scheme: dark) {{ {rules(DARK_COLOURS, DARK_GREYS)} }}"
    )


@dataclass(frozen=True)
class _Scale:
    """Values of an axis and their places: linear, or by ``log(1 + value)``, which keeps step 0."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log1p(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * ((at - low) / (high - low) if high > low else 0.5)


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round values within a range, about `count` of them: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def line_chart(chart: LineChart) -> str:
    """A figure of all panels, the less asked for ones folded away, under one legend."""
    shown = chart.shown
    others = [panel for panel in chart.panels if panel not in shown]
    parts = [f'<div class="panels">{"".join(_line_panel(chart, panel) for panel in shown)}</div>']
    if others:
        parts.append(
            f"<details><summary>{len(others)} more</summary>"
            f'<div class="panels">{"".join(_line_panel(chart, panel) for panel in others)}</div></details>'
        )
    return _figure(chart.key, chart.title, _line_legend(chart), "".join(parts), chart.note)


def bar_chart(bars: Bars) -> str:
    """A figure of grouped bars, a group a task; a line across a bar is its score at step 0."""
    count = len(bars.models)
    slot = max(64, 14 * count + 18)
    width = max(_WIDTH, _LEFT + _RIGHT + slot * len(bars.tasks))
    known = [value for values in (*bars.last, *bars.first) for value in values if value is not None]
    y = _Scale(min([*known, 0.0]), max([*known, 1e-9]) * 1.05, _HEIGHT - _BELOW, _ABOVE)
    group = (width - _LEFT - _RIGHT) / len(bars.tasks)
    bar = min(34.0, group * 0.86 / count)
    parts = [_y_axis(y, width)]
    for task, name in enumerate(bars.tasks):
        middle = _LEFT + group * (task + 0.5)
        parts.append(_text(middle, _HEIGHT - _BELOW + 15, name, "middle", room=group))
        for index, model in enumerate(bars.models):
            left = middle + (index - count / 2) * bar
            colour, style = bars.looks[index]
            last, first = bars.last[index][task], bars.first[index][task]
            if last is not None:
                top, foot = sorted((y(last), y(0.0)))
                title = _title(f"{name}, {model}: {_short(last)}" + _at_start(first))
                parts.append(
                    f'<rect class="bar {_ink(colour)}" x="{left + 1:.1f}" y="{top:.1f}" width="{bar - 2:.1f}" '
                    f'height="{max(foot - top, 0.5):.1f}" fill-opacity="{_FILLS[style % len(_FILLS)]}">{title}</rect>'
                )
            if first is not None:
                parts.append(_segment("start", left, y(first), left + bar, y(first)))
    legend = [
        (_swatch_bar(colour, style), model)
        for model, (colour, style) in zip(bars.models, bars.looks, strict=True)
    ]
    if any(value is not None for values in bars.first for value in values):
        legend.append(('<line class="start" x1="1" y1="6" x2="27" y2="6"/>', "step 0"))
    drawing = _svg(width, _HEIGHT, f"{bars.label} at the last step, by task", "".join(parts))
    wide = _scrolled(drawing, 0.62 * width, 1.35 * width)
    panel = (
        f'<figure class="panel"><figcaption>{html.escape(bars.label)} (fraction)</figcaption>{wide}</figure>'
    )
    return _figure("scores", "Scores at the last step", _legend(legend), panel, bars.note)


def point_chart(key: str, plots: Sequence[PointPlot]) -> str:
    """A figure of projections to the plane side by side; a colour and a mark a family."""
    panels = []
    for plot in plots:
        points = [point for family in plot.points for point in family]
        x = _Scale(*_padded([x for x, _ in points]), 8, 232)
        y = _Scale(*_padded([y for _, y in points]), 192, 8)
        marks = "".join(
            f'<g class="{_ink(index)}">'
            + "".join(_mark(index, x(a), y(b), plot.families[index], size=4) for a, b in family)
            + "</g>"
            for index, family in enumerate(plot.points)
        )
        box = '<rect class="box" x="0.5" y="0.5" width="239" height="199"/>'
        name = f"{html.escape(plot.title)}<small>{html.escape(plot.note)}</small>"
        panels.append(
            f'<figure class="panel"><figcaption>{name}</figcaption>'
            f"{_svg(240, 200, f'{plot.heading}: {plot.title}', box + marks)}</figure>"
        )
    legend = [
        (f'<g class="{_ink(index)}">{_mark(index, 14, 6, "")}</g>', family)
        for index, family in enumerate(plots[0].families)
    ]
    body = f'<div class="panels small">{"".join(panels)}</div>'
    return _figure(key, plots[0].heading, _legend(legend), body, "The axes of a t-SNE have no unit.")


def effect_chart(chart: EffectChart) -> str:
    """A figure of points with intervals: a panel a quantity, a row an effect, its name and numbers above its line."""
    panels = "".join(_effect_panel(panel, index, chart) for index, panel in enumerate(chart.panels))
    legend = [
        (
            '<g class="c0"><path class="curve" d="M1 6L27 6"/><circle class="mark" cx="14" cy="6" r="4"/></g>',
            "value, 95 % interval",
        )
    ]
    zeros = dict.fromkeys(panel.zero for panel in chart.panels if panel.zero)
    legend += [('<line class="zero" x1="14" y1="0" x2="14" y2="12"/>', zero) for zero in zeros]
    for label in dict.fromkeys(panel.band_label for panel in chart.panels if panel.band):
        legend.append(('<rect class="band" x="4" y="0" width="20" height="12"/>', label))
    for place, name in enumerate(level_names(chart)):
        legend.append((_level_mark(place, 14, 6), name))
    return _figure(
        "answer", chart.title, _legend(legend), f'<div class="panels wide">{panels}</div>', chart.note
    )


def level_names(chart: EffectChart) -> list[str]:
    """Names of all levels in a chart, each once."""
    return list(dict.fromkeys(name for panel in chart.panels for row in panel.rows for name in row.levels))


def _effect_panel(panel: EffectPanel, index: int, chart: EffectChart) -> str:
    step, above, names = 38, 4, level_names(chart)
    height = above + step * len(panel.rows) + 26
    values = [
        value for row in panel.rows for value in (row.value, *(row.interval or ()), *row.levels.values())
    ]
    values += [*(panel.band or ()), *([0.0] if panel.zero else [])]
    x = _Scale(*_padded(values), 8, _WIDTH - 8)
    base = height - 24
    parts = []
    for value in ticks(x.low, x.high, 5):
        text = _tick(value)
        place = min(max(x(value), _CHARACTER * len(text) / 2), _WIDTH - _CHARACTER * len(text) / 2)
        parts.append(_segment("grid", x(value), above, x(value), base))
        parts.append(_text(place, base + 16, text, "middle"))
    if panel.band:
        low, high = x(panel.band[0]), x(panel.band[1])
        parts.append(
            f'<rect class="band" x="{low:.1f}" y="{above}" width="{max(high - low, 1):.1f}" height="{base - above}">'
            f"{_title(panel.band_label)}</rect>"
        )
    if panel.zero:
        parts.append(_segment("zero", x(0), above, x(0), base))
    parts.append(_segment("axis", 0, base, _WIDTH, base))
    for place, row in enumerate(panel.rows):
        top = above + step * place
        told = effect_text(row, panel)
        room = _WIDTH - 12 - _CHARACTER * len(told) - 8
        parts.append(_text(4, top + 13, row.name, "start", "halo", room=room))
        parts.append(_text(_WIDTH - 4, top + 13, told, "end", "halo"))
        line = top + 26
        for number_, name in enumerate(names):
            if name in row.levels:
                parts.append(
                    _level_mark(number_, x(row.levels[name]), line, f"{name}: {_short(row.levels[name])}")
                )
        bar = ""
        if row.interval:
            bar = (
                f'<path class="curve" d="M{x(row.interval[0]):.1f} {line}L{x(row.interval[1]):.1f} {line}"/>'
            )
        parts.append(
            f'<g class="{_ink(row.look)}">{bar}{_mark(0, x(row.value), line, f"{row.name}: {told}", size=4.2)}</g>'
        )
    spoken = "; ".join(f"{row.name}: {effect_text(row, panel)}" for row in panel.rows)
    drawing = _svg(_WIDTH, height, f"{panel.label}. {spoken}", "".join(parts))
    letter = f'<b class="letter">{chr(ord("A") + index)}</b> ' if len(chart.panels) > 1 else ""
    return (
        f'<figure class="panel"><figcaption>{letter}{html.escape(panel.label)}</figcaption>{drawing}</figure>'
    )


def effect_text(row: Effect, panel: EffectPanel) -> str:
    """An effect and its interval as a reader sees them."""
    digits = 2 if max(abs(row.value), *map(abs, row.interval or (0.0,))) >= 1 and panel.signed else 3
    write = signed if panel.signed else number
    return f"{write(row.value, digits)} {brackets(row.interval, digits, write=write)}".rstrip()


def _level_mark(index: int, x: float, y: float, title: str = "") -> str:
    """A short line a level, told apart by dashes."""
    dash = ("", "2 2", "5 2", "1 3")[index % 4]
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    told = _title(title) if title else ""
    return f'<line class="level" x1="{x:.1f}" y1="{y - 6:.1f}" x2="{x:.1f}" y2="{y + 6:.1f}"{dashes}>{told}</line>'


def histogram(values: Mapping[str, Any], label: str) -> str:
    """A figure of counts; each bar says its range and count.

    Parameters
    ----------
    values : mapping
        ``histogram`` with ``edges`` (b + 1) and ``counts`` (b), and ``mean``, ``median``, ``n``.
    label : str
        What is counted.
    """
    edges, counts = values["histogram"]["edges"], values["histogram"]["counts"]
    top = max(counts) or 1
    width, height, left, below, above = _WIDTH, 150, 46, 20, 8
    x = _Scale(edges[0], edges[-1] if edges[-1] > edges[0] else edges[0] + 1, left, width)
    y = _Scale(0, top, height - below, above)
    bars = []
    for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True):
        size = max(x(end) - x(start) - 0.6, 0.6)
        title = _title(f"{compact(start)} to {compact(end)}: {count:,}")
        bars.append(
            f'<rect class="bar c0" x="{x(start):.1f}" y="{y(count):.1f}" width="{size:.1f}" '
            f'height="{y(0) - y(count):.1f}">{title}</rect>'
        )
    texts = (
        _text(left, height - 5, compact(edges[0]), "start"),
        _text(width, height - 5, compact(edges[-1]), "end"),
        _text(left - 5, above + 9, f"{top:,}", "end"),
    )
    axis = _segment("axis", left, y(0), width, y(0))
    caption = (
        f"{label}: mean {compact(values['mean'])}, median {compact(values['median'])}, n {values['n']:,}"
    )
    drawing = _svg(width, height, caption, "".join(bars) + axis + "".join(texts))
    return f'<figure class="panel"><figcaption>{html.escape(caption)}</figcaption>{drawing}</figure>'


def parallel_coordinates(chart: Coordinates) -> str:
    """A figure with an axis a key and a line a run, the best drawn last and darkest."""
    gap, height, above, below = 170, 300, 14, 38
    width = gap * (len(chart.axes) - 1) + 190
    y = _Scale(0, 1, height - below, above)
    lines, axes = [], []
    for index, line in enumerate(chart.lines):
        best = index == len(chart.lines) - 1
        strength = 0.15 + 0.85 * (index / max(1, len(chart.lines) - 1)) ** 3 if not best else 1.0
        points = " ".join(f"{24 + gap * axis},{y(place):.1f}" for axis, place in enumerate(line.places))
        words = ", ".join(f"{axis.label} {text}" for axis, text in zip(chart.axes, line.texts, strict=True))
        lines.append(
            f'<polyline class="run{" best" if best else ""}" points="{points}" stroke-opacity="{strength:.2f}">'
            f"{_title(f'{line.name}: {words}')}</polyline>"
        )
    for index, axis in enumerate(chart.axes):
        at = 24 + gap * index
        axes.append(_segment("axis", at, above - 6, at, height - below + 6))
        axes += [
            _text(at + 7, y(place) + 4, text, "start", "halo", room=gap - 14) for place, text in axis.ticks
        ]
        anchor = "start" if index == 0 else "middle"
        axes.append(_text(4 if index == 0 else at, height - 10, axis.label, anchor, "name", room=gap + 6))
    title = "Parallel coordinates"
    note = "A line a run, from the value of each key to what it measured; the darker, the better."
    drawing = _svg(width, height, title, f'<g class="c0">{"".join(lines)}</g>{"".join(axes)}')
    body = _scrolled(drawing, 0.8 * width, 1.5 * width)
    return _figure("coordinates", title, "", body, note)


# --- lines -----------------------------------------------------------------------------------------


def _line_panel(chart: LineChart, panel: Panel) -> str:
    xs = [x for line in panel.lines for x in line.x]
    known = [y for line in panel.lines for y in line.y if y is not None]
    known += [*(panel.band or ()), *([] if panel.chance is None else [panel.chance])]
    y = _Scale(*_padded(known, panel.limits), _HEIGHT - _BELOW, _ABOVE)
    x = _Scale(min(xs), max(xs), _LEFT + 8, _WIDTH - _RIGHT - 4, log=chart.log)
    parts = [_y_axis(y, _WIDTH), _x_axis(chart, x, xs)]
    if panel.band:
        top, foot = y(panel.band[1]), y(panel.band[0])
        parts.append(
            f'<rect class="band" x="{_LEFT}" y="{top:.1f}" width="{_WIDTH - _RIGHT - _LEFT}" '
            f'height="{max(foot - top, 0.5):.1f}">{_title(panel.band_label)}</rect>'
        )
    if panel.chance is not None:
        parts.append(_segment("chance", _LEFT, y(panel.chance), _WIDTH - _RIGHT, y(panel.chance)))
    parts += [_curve(chart, line, x, y, marked=_is_marked(panel, line)) for line in panel.lines]
    drawing = _svg(_WIDTH, _HEIGHT, f"{panel.label} by {chart.x_label}. {_ends(panel.lines)}", "".join(parts))
    return f'<figure class="panel"><figcaption>{html.escape(panel.label)}</figcaption>{drawing}</figure>'


def _is_marked(panel: Panel, line: Line) -> bool:
    """Whether the points of a curve are marked: so that they can be told apart, and the page stays small."""
    short = [len(one.x) for one in panel.lines if len(one.x) <= _MARKED]
    return len(line.x) <= _MARKED and sum(short) <= _MARKS


def _curve(chart: LineChart, line: Line, x: _Scale, y: _Scale, *, marked: bool) -> str:
    xs, ys = thin(line.x, line.y, _DRAWN)
    places = [None if b is None else (x(a), y(b)) for a, b in zip(xs, ys, strict=True)]
    path, pen = [], "M"
    for place in places:
        if place is None:
            pen = "M"
            continue
        path.append(f"{pen}{place[0]:.1f} {place[1]:.1f}")
        pen = "L"
    marks = ""
    if marked:
        marks = "".join(
            _mark(line.colour + line.style, *place, f"{line.name}, {_where(chart, a)}: {_short(b)}")
            for a, b, place in zip(xs, ys, places, strict=True)
            if place is not None and b is not None
        )
    kind = "curve" if len(line.x) <= _MARKED else "curve thin"
    return (
        f'<g class="{_ink(line.colour)}"><path class="{kind}" d="{"".join(path)}"{_dashed(line)}>'
        f"{_title(line.name)}</path>{marks}</g>"
    )


def _where(chart: LineChart, x: float) -> str:
    if chart.ticks:
        return f"{chart.x_label} {chart.ticks[round(x)]}"
    return f"{'step' if 'step' in chart.x_label else chart.x_label} {x:g}"


def _line_legend(chart: LineChart) -> str:
    entries: dict[tuple[str, int, int], tuple[str, str]] = {}
    for panel in chart.panels:
        for line in panel.lines:
            entry = (_swatch_line(line, marked=_is_marked(panel, line)), line.name)
            entries.setdefault((line.name, line.colour, line.style), entry)
    found = list(entries.values())
    if any(panel.chance is not None for panel in chart.panels):
        found.append(('<line class="chance" x1="1" y1="6" x2="27" y2="6"/>', "row shuffle"))
    for label in dict.fromkeys(panel.band_label for panel in chart.panels if panel.band):
        found.append(('<rect class="band" x="4" y="0" width="20" height="12"/>', label))
    return _legend(found)


def _ends(lines: Sequence[Line]) -> str:
    """What a reader hears of a panel: each line's first and last value."""
    ends = []
    for line in lines:
        known = [y for y in line.y if y is not None]
        if known:
            ends.append(f"{line.name}: {_short(known[0])} to {_short(known[-1])}")
    return "; ".join(ends)


# --- axes ------------------------------------------------------------------------------------------


def _padded(values: Sequence[float], limits: tuple[float, float] | None = None) -> tuple[float, float]:
    """Range of an axis: that of the values with some air, within what the quantity can be."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    air = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    floor, ceiling = limits or (-math.inf, math.inf)
    return min(low, max(low - air, floor)), max(high, min(high + air, ceiling))


def _y_axis(y: _Scale, width: float) -> str:
    parts = []
    found = ticks(y.low, y.high)
    for value in found:
        place = y(value)
        parts.append(_segment("grid", _LEFT, place, width - _RIGHT, place))
        parts.append(_text(_LEFT - 6, place + 4, _tick(value), "end"))
    return "".join(parts)


def _x_axis(chart: LineChart, x: _Scale, xs: Sequence[float]) -> str:
    base = _HEIGHT - _BELOW
    parts = [_segment("axis", _LEFT, base, _WIDTH - _RIGHT, base)]
    last = -math.inf
    for value, text in _x_ticks(chart, x, xs):
        place, half = x(value), _CHARACTER * len(text) / 2
        if place - half < last + 5:
            continue  # would touch its neighbour
        parts.append(_segment("axis", place, base, place, base + 4))
        parts.append(_text(min(place, _WIDTH - half), base + 16, text, "middle"))
        last = place + half
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 5, chart.x_label, "middle", "name"))
    return "".join(parts)


def _x_ticks(chart: LineChart, x: _Scale, xs: Sequence[float]) -> list[tuple[float, str]]:
    if chart.ticks:
        return [(float(index), text) for index, text in enumerate(chart.ticks)]
    if not chart.log:
        return [(value, _tick(value)) for value in ticks(x.low, x.high, 6)]
    steps = [0.0] if x.low <= 0 else []
    steps += [2.0**power for power in range(40) if x.low <= 2.0**power <= x.high]
    return [(step, _tick(step)) for step in steps]


def _tick(value: float) -> str:
    return f"{value:.10g}".replace("-", "\N{MINUS SIGN}") if abs(value) < 1e6 else f"{value:.3g}"


def _short(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _at_start(value: float | None) -> str:
    return "" if value is None else f" (step 0: {_short(value)})"


# --- elements --------------------------------------------------------------------------------------


def _figure(key: str, title: str, legend: str, body: str, note: str) -> str:
    below = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return (
        f'<figure class="chart" id="chart-{html.escape(key)}"><figcaption><h3>{html.escape(title)}</h3></figcaption>'
        f"{legend}{body}{below}</figure>"
    )


def _svg(width: float, height: float, label: str, body: str) -> str:
    return f'<svg class="still" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(label)}">{body}</svg>'


def _scrolled(drawing: str, least: float, most: float) -> str:
    """A drawing that is never narrower than it can be read; a narrow screen scrolls it sideways."""
    size = f"min-width: {least:.0f}px; max-width: {most:.0f}px"
    return f'<div class="scroll bare"><div style="{size}">{drawing}</div></div>'


def _legend(entries: Iterable[tuple[str, str]]) -> str:
    items = "".join(
        f'<li><svg class="still" viewBox="0 0 28 12" aria-hidden="true">{swatch}</svg>{html.escape(name)}</li>'
        for swatch, name in entries
    )
    return f'<ul class="legend">{items}</ul>' if items else ""


def _swatch_line(line: Line, *, marked: bool) -> str:
    mark = _mark(line.colour + line.style, 14, 6, "") if marked else ""
    return f'<g class="{_ink(line.colour)}"><path class="curve" d="M1 6L27 6"{_dashed(line)}/>{mark}</g>'


def _dashed(line: Line) -> str:
    dash = _DASHES[line.style % len(_DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""


def _swatch_bar(colour: int, style: int) -> str:
    fill = _FILLS[style % len(_FILLS)]
    return f'<rect class="bar {_ink(colour)}" x="8" y="0.5" width="12" height="11" fill-opacity="{fill}"/>'


def _ink(colour: int) -> str:
    """Class of a colour; negative ones are the greys of baselines."""
    return f"c{colour % len(COLOURS)}" if colour >= 0 else f"g{(-1 - colour) % len(BASELINE_GREYS)}"


def _mark(index: int, x: float, y: float, title: str, size: float = 3.2) -> str:
    """A mark of one of five shapes, so that colour is not the only difference."""
    tooltip = _title(title) if title else ""
    kind = index % 5
    if kind == 0:
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{size}">{tooltip}</circle>'
    if kind == 1:
        half = size * 0.9
        return (
            f'<rect class="mark" x="{x - half:.1f}" y="{y - half:.1f}" width="{2 * half:.1f}" height="{2 * half:.1f}">'
            f"{tooltip}</rect>"
        )
    reach = size * 1.25
    corners = {
        2: ((0, -reach), (reach, 0), (0, reach), (-reach, 0)),
        3: ((-reach, -size), (reach, -size), (0, reach)),
        4: ((-reach, size), (reach, size), (0, -reach)),
    }[kind]
    points = " ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in corners)
    return f'<polygon class="mark" points="{points}">{tooltip}</polygon>'


def _segment(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "", room: float = math.inf) -> str:
    """Text of one line; what does not fit its room is cut, and said in full where the pointer rests."""
    cut = max(3, int(room / _CHARACTER)) if math.isfinite(room) else len(text)
    title = _title(text) if len(text) > cut else ""
    shown = html.escape(text if len(text) <= cut else text[: cut - 1] + "…")
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{shown}{title}</text>'


def _title(text: str) -> str:
    return f"<title>{html.escape(text)}</title>"
