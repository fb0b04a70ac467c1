"""The page in a real browser: charts drawn, selectors working, nothing requested, nothing on the console."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reasoning_embedding.reports import build
from tests.synthetic_experiment import write_experiment

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Chooses every option of every selector in turn, then notes on the page how many choices were drawn.
EXERCISE = """<script>
addEventListener("load", () => {
  let choices = 0;
  for (const box of document.querySelectorAll("select")) {
    for (let index = 0; index < box.options.length; index++) {
      box.selectedIndex = index;
      box.dispatchEvent(new Event("change"));
      choices++;
    }
  }
  document.body.dataset.choices = choices;
});
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report under a title that tries to be a picture."""
    folder = tmp_path_factory.mktemp("browser") / "synthetic"
    return build(write_experiment(folder, title='<img src=x onerror="document.title=1"> </script>'))


def with_script(page: Path, name: str, script: str) -> Path:
    """A copy of the page with something more at its end."""
    copy = page.with_name(f"{name}.html")
    copy.write_text(
        f"{script}</body>".join(page.read_text(encoding="utf-8").rsplit("</body>", 1)), encoding="utf-8"
    )
    return copy


def render(browser: str, page: Path, profile: Path, *options: str) -> tuple[str, list[str]]:
    """DOM after the scripts ran, and what they wrote to the console."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
        "--v=0",
        "--virtual-time-budget=5000",
    ]
    command += [*options, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def charts(dom: str) -> dict[str, int]:
    """Number of drawn plots of each chart of the page."""
    parts = re.split(r'data-chart="', dom)[1:]
    return {part.split('"', 1)[0]: part.count('class="main-svg"') for part in parts}


def test_every_chart_is_drawn_without_a_console_message(browser: str, page: Path, tmp_path: Path) -> None:
    dom, console = render(browser, with_script(page, "exercised", EXERCISE), tmp_path / "profile")
    assert console == []
    assert re.search(r'<div id="problems"[^>]* hidden=""></div>', dom)
    drawn = charts(dom)
    assert drawn.keys() == {"explorer", "heatmaps"}
    assert all(drawn.values()), drawn
    assert dom.count('class="panel"') > 20  # still charts, which need no script
    assert "<img" not in dom
    choices = re.search(r'data-choices="(\d+)"', dom)
    assert choices is not None
    assert int(choices[1]) > 25
    assert "synthetic: 3 grown backbones, 4 training runs" in dom


def test_the_explorer_says_the_number_it_points_at(browser: str, page: Path, tmp_path: Path) -> None:
    choose = """<script>
addEventListener("load", () => {
  const [source, metric, layer, step] = document.querySelectorAll('[data-chart="explorer"] select');
  const pick = (box, text) => {
    box.value = [...box.options].find((option) => option.text === text).value;
    box.dispatchEvent(new Event("change"));
  };
  const note = () => document.querySelector('[data-chart="explorer"] .note').textContent;
  const read = [];
  pick(source, "SFT v base, seed 0 (embedders)");
  pick(metric, "Linear CKA");
  read.push(note());
  pick(source, "rlvr");
  pick(metric, "Linear CKA");
  pick(layer, "2");
  pick(step, "32");
  read.push(note());
  document.body.dataset.read = JSON.stringify(read);
});
</script>"""
    dom, console = render(browser, with_script(page, "explorer", choose), tmp_path / "profile")
    assert console == []
    read = re.search(r'data-read="([^"]*)"', dom)
    assert read is not None
    pair, track = json.loads(html.unescape(read[1]))
    assert "layer norm: 0.4790 [0.4670, 0.4880], row shuffle 0.3100." in pair
    assert "Against the seed band [0.9550, 0.9760]: less alike than the seeds." in pair
    assert "Definition: Linear CKA of centred rows." in pair
    folder = page.parents[1]
    record = json.loads((folder / "hrsa" / "realignment" / "rlvr.json").read_text())
    value = record["series_layers"]["cka"][record["steps"].index(32)][record["layers"].index("layer 2")]
    assert f"Linear CKA, step 32, layer 2: {value:.4f}, row shuffle" in track


def test_an_error_would_be_seen(browser: str, page: Path, tmp_path: Path) -> None:
    """The control of the test above: a broken script and a request both show on page and console."""
    broken = '<script>undefinedFunction()</script><img src="https://example.invalid/x.png">'
    dom, console = render(browser, with_script(page, "broken", broken), tmp_path / "profile")
    assert any("undefinedFunction" in line for line in console)
    assert "This page hit an error: Uncaught ReferenceError" in dom
    assert "blocked img-src" in dom


def test_a_page_without_the_file_beside_it_says_so(browser: str, page: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.html"
    shutil.copy(page, alone)
    dom, _ = render(browser, alone, tmp_path / "profile")
    assert "plotly.min.js is not beside this page" in dom
    assert dom.count('class="panel"') > 20


def test_dark_and_narrow(browser: str, page: Path, tmp_path: Path) -> None:
    wide = "<script>document.body.dataset.wide = document.documentElement.scrollWidth - innerWidth;</script>"
    options = ("--force-dark-mode", "--window-size=500,900")
    dom, console = render(browser, with_script(page, "wide", wide), tmp_path / "profile", *options)
    assert console == []
    assert int(re.findall(r'data-wide="(-?\d+)"', dom)[0]) <= 0  # nothing sticks out sideways
    background = re.findall(r'class="main-svg"[^>]*background: rgb\((\d+), (\d+), (\d+)\)', dom)
    assert background
    assert all(int(channel) < 64 for channel in background[0])
