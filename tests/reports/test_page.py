"""The whole report: one page that loads nothing, every number in it, PNGs that are pictures."""

from __future__ import annotations

import html
import json
import re
import shutil
import struct
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reasoning_embedding.errors import SetupError
from reasoning_embedding.reports import build
from reasoning_embedding.reports.comparison import compare_backbones
from reasoning_embedding.reports.headline import headline
from reasoning_embedding.reports.pages import experiment as experiment_page
from reasoning_embedding.reports.reading import read_experiment
from reasoning_embedding.reports.shell import PLOTLY
from tests.synthetic_experiment import write_experiment

HOSTILE = '</script><script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_experiment(tmp_path_factory.mktemp("page") / "synthetic")
    said: list[str] = []
    assert build(folder, said.append) == folder / "report" / "index.html"
    assert said
    return folder


class Loads(HTMLParser):
    """Everything a page would fetch, and how many elements of each kind it has."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.tags: dict[str, int] = {}
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attrs:
            if name in {"src", "href", "srcset", "action", "data", "poster"}:
                self.urls.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def parsed(page: Path) -> Loads:
    loads = Loads()
    loads.feed(page.read_text(encoding="utf-8"))
    return loads


def test_the_page_asks_for_nothing_but_the_file_beside_it(folder: Path) -> None:
    page = folder / "report" / "index.html"
    assert parsed(page).urls == ["data:,", PLOTLY]
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    assert "default-src 'none'" in text
    assert page.stat().st_size < 1_000_000
    assert (page.parent / PLOTLY).stat().st_size > 1_000_000


@pytest.mark.usefixtures("no_drawing")
def test_a_page_with_nothing_to_explore_has_no_script(folder: Path) -> None:
    page = build(folder / "runs" / "base")
    found = parsed(page)
    assert found.urls == ["data:,"]
    assert "script" not in found.tags
    assert "script-src" not in page.read_text(encoding="utf-8")
    assert {path.name for path in page.parent.iterdir()} == {"index.html", "table.md", "figures"}


def test_every_number_of_the_tables_is_in_the_page_and_the_markdown(folder: Path) -> None:
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    markdown = (folder / "report" / "table.md").read_text(encoding="utf-8")
    tables = experiment_page.build_tables(read_experiment(folder))
    assert [table.key for table in tables] == [
        "scores",
        "score-details",
        "gates",
        "hrsa",
        "hrsa-details",
        "transfer",
        "spectrum",
    ]
    for table in tables:
        start = page.index(f'id="table-{table.key}"')
        block = page[start : page.index("</table>", start)]
        assert block.count("<tr") == len(table.rows) + (
            2 if any(column.group for column in table.columns) else 1
        )
        for row in table.rows:
            for cell in row:
                for part in filter(None, (cell.text, cell.note, cell.extra)):
                    assert html.escape(part) in block
                    assert html.escape(part, quote=False) in markdown


def test_what_is_explored_is_the_data_of_the_files(folder: Path) -> None:
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    data = json.loads(re.findall(r'id="report-data">(.*?)</script>', page, flags=re.DOTALL)[0])
    pair = json.loads((folder / "hrsa" / "pairs" / "emb-base-sft.json").read_text())
    shown = {(heat_map["pair"], heat_map["metric"]): heat_map for heat_map in data["heatmaps"]}
    assert len(shown) == 15
    assert shown["emb-base-sft", "cka"]["z"] == pair["heatmaps"]["cka"]


def test_still_charts_are_the_data_of_the_files(folder: Path) -> None:
    charts = experiment_page.still_charts(read_experiment(folder))
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'id="chart-([\w-]+)"', page) == [
        "answer",
        "scores",
        "layers",
        "realignment",
        "training",
        "lineage",
    ]
    first = headline(read_experiment(folder), compare_backbones(folder)).chart
    assert first is not None
    panels = sum(len(chart.panels) for name, chart in charts.items() if name != "scores")
    assert page.count("<svg ") - page.count('aria-hidden="true"') == 1 + len(first.panels) + panels
    track = json.loads((folder / "hrsa" / "realignment" / "rlvr.json").read_text())
    panels = {panel.key: panel for panel in charts["realignment"].panels}
    line = next(line for line in panels["series/cka"].lines if line.name == "rlvr")
    assert (line.x, line.y) == (track["steps"], track["series"]["cka"])
    assert panels["series/cka"].band == (0.955, 0.976)
    assert panels["series/cka"].chance == 0.31
    assert panels["series_mean/cka"].band is None  # the band is of the last layer
    assert f"<title>rlvr, step 32: {track['series']['cka'][6]:.4g}</title>" in page
    log = [json.loads(line) for line in (folder / "runs" / "sft" / "metrics.jsonl").read_text().splitlines()]
    panels = {panel.key: panel for panel in charts["losses"].panels}
    assert panels["loss"].lines[1].y == [row["loss"] for row in log]
    assert "peak_memory_gib" not in panels  # null throughout
    grown = {panel.key: panel for panel in charts["lineage"].panels}
    assert [line.name for line in grown["loss"].lines] == ["base", "sft"]  # not RLVR's policy loss
    assert [line.name for line in grown["reward"].lines] == ["rlvr"]


def test_figures_are_pictures_of_a_readable_size(folder: Path) -> None:
    figures = {path.name: path for path in (folder / "report" / "figures").iterdir()}
    assert {"scores.png", "losses.png", "realignment.png", "layers.png", "lineage.png"} <= figures.keys()
    assert sum(name.startswith("heatmap-") for name in figures) == 5
    for path in figures.values():
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", data[16:24])
        assert 600 <= width <= 4000
        assert 400 <= height <= 4000


@pytest.mark.usefixtures("no_drawing")
def test_hostile_names_stay_text(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "synthetic", title=HOSTILE)
    config = json.loads((folder / "config.resolved.json").read_text())
    for part in ("pairs", "realignment"):
        for path in list((folder / "hrsa" / part).glob("*.json"))[1:]:
            path.unlink()
        path = next((folder / "hrsa" / part).glob("*.json"))
        record = json.loads(path.read_text())
        record["name"] = record["warnings"] = HOSTILE
        record["warnings"] = [HOSTILE]
        record["probe"]["kind"] = HOSTILE
        for side in ("a", "b"):
            if side in record:
                record[side]["reference"] = HOSTILE
        path.write_text(json.dumps(record))
    scores = folder / "evaluation" / "bm25" / "scores.json"
    record = json.loads(scores.read_text())
    record["tasks"][0]["task"] = HOSTILE
    scores.write_text(json.dumps(record))
    for name in ("sft", "rlvr", "base-seed1"):
        shutil.rmtree(folder / "runs" / name)
    (folder / "config.resolved.json").write_text(json.dumps(config | {"name": HOSTILE}))
    page = build(folder)
    loads = parsed(page)
    assert loads.urls == ["data:,", PLOTLY]
    assert loads.handlers == []
    assert loads.tags["script"] == 4
    assert "img" not in loads.tags
    assert html.escape(HOSTILE) in page.read_text(encoding="utf-8")
    assert (page.parent / "table.md").read_text(encoding="utf-8").count("<script") == 0


@pytest.mark.usefixtures("no_drawing")
def test_a_sparse_folder_says_what_it_lacks(tmp_path: Path) -> None:
    run = write_experiment(tmp_path / "synthetic") / "runs" / "base"
    shutil.rmtree(run / "evaluation")
    page = build(run).read_text(encoding="utf-8")
    assert 'id="not-in-this-report"' in page
    assert "no checkpoint was evaluated" in page
    assert "HRSA pairs: no analysis" in page
    assert '<figure class="chart" id="chart-training"' in page
    assert '<figure class="chart" data-chart="heatmaps"' not in page


def test_a_report_is_replaced_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "report" / "index.html").read_bytes()

    def fail(*_: object) -> list[str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(experiment_page, "draw_figures", fail)
    with pytest.raises(SetupError, match="disk is full"):
        build(folder)
    assert (folder / "report" / "index.html").read_bytes() == before
    assert not list(folder.glob(".report*"))


def test_missing_libraries_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "plotly" else name)
    with pytest.raises(SetupError, match="plotly"):
        build(folder)
