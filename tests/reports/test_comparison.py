"""The table of base and variants: its numbers against numpy and scipy, its gaps, its forms, its refusals."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from reasoning_embedding.checkpoints.scores import mean_scores
from reasoning_embedding.cli.main import main
from reasoning_embedding.errors import InputError
from reasoning_embedding.reports import build
from reasoning_embedding.reports.comparison import compare_backbones, published_pairs
from reasoning_embedding.reports.comparison_tables import grids, render, to_terminal, write_score_table
from reasoning_embedding.reports.grid import Cell, Grid, TableColumn, escape, named_columns, to_latex
from tests.synthetic_experiment import write_experiment, write_scored_runs

TASKS = {"alpha": "Retrieval", "beta": "Retrieval", "gamma": "STS"}
MEANS = ("mean by task", "mean by type")
SEEDS = {"base": (0, 1, 2), "sft": (0, 1, 2), "rlvr": (0, 1, 2)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_scored_runs(tmp_path / "pairs", SEEDS, TASKS, gains={"sft": -0.12, "rlvr": 0.001})


def scores_file(folder: Path, run: str) -> Path:
    return folder / "runs" / run / "evaluation" / "step-000100" / "scores.json"


def change(path: Path, edit: Callable[[dict], object]) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    edit(record)
    path.write_text(json.dumps(record), encoding="utf-8")


def points(folder: Path, backbone: str, task: str) -> np.ndarray:
    values = []
    for seed in SEEDS[backbone]:
        record = json.loads(scores_file(folder, f"{backbone}-{seed}").read_text())
        values += [100 * entry["main_score"] for entry in record["tasks"] if entry["task"] == task]
    return np.array(values)


def test_numbers_over_seeds_are_numpys_and_scipys(folder: Path) -> None:
    table = compare_backbones(folder, margin=0.5)
    assert [(pair.base, pair.variant, pair.seeds) for pair in table.pairs] == [
        ("base", "sft", (3, 3)),
        ("base", "rlvr", (3, 3)),
    ]
    for pair in table.pairs:
        for task in TASKS:
            entry = pair.entry(task)
            a, b = points(folder, "base", task), points(folder, pair.variant, task)
            assert entry.base == pytest.approx((a.mean(), a.std(ddof=1)))
            assert entry.variant == pytest.approx((b.mean(), b.std(ddof=1)))
            assert entry.delta == pytest.approx(((b - a).mean(), (b - a).std(ddof=1)))
            lower = stats.ttest_rel(b + 0.5, a, alternative="greater").pvalue
            upper = stats.ttest_rel(b - 0.5, a, alternative="less").pvalue
            assert entry.seeds.p_value == pytest.approx(max(lower, upper))
            assert entry.seeds.method == "paired t"
    sft, rlvr = table.pairs
    assert {entry.verdict for entry in sft.entries} == {"beyond"}
    assert rlvr.entry("mean by task").verdict == "within"
    assert rlvr.entry("alpha").queries.n == 40


def test_means_by_task_and_by_type_and_their_intervals(folder: Path) -> None:
    table = compare_backbones(folder, margin=0.5)
    assert table.headline == ("alpha", "beta", "gamma", "mean by task", "mean by type")
    sft = table.pairs[0]
    by_task = np.mean([points(folder, "sft", task) for task in TASKS], axis=0)
    by_type = (points(folder, "sft", "alpha") + points(folder, "sft", "beta")) / 4 + points(
        folder, "sft", "gamma"
    ) / 2
    assert sft.entry("mean by task").variant == pytest.approx((by_task.mean(), by_task.std(ddof=1)))
    assert sft.entry("mean by type").variant == pytest.approx((by_type.mean(), by_type.std(ddof=1)))
    # alpha and beta have the same query ids and share draws; gamma, no retrieval task, does not.
    per_query = {}
    for task in TASKS:
        sides = []
        for backbone in ("base", "sft"):
            paths = [
                scores_file(folder, f"{backbone}-{s}").parent / "per_query" / f"{task}.json"
                for s in (0, 1, 2)
            ]
            sides.append(np.mean([list(json.loads(p.read_text())["scores"].values()) for p in paths], axis=0))
        per_query[task] = 100 * (sides[1] - sides[0])
    joint = (per_query["alpha"] + per_query["beta"]) / 3
    error = math.sqrt((joint.var() + (per_query["gamma"] / 3).var()) / 40)
    found = sft.entry("mean by task").queries
    assert (found.confidence[1] - found.confidence[0]) / (2 * 1.96) == pytest.approx(error, rel=0.06)
    assert found.estimate == pytest.approx(sft.entry("mean by task").delta[0])
    assert found.n == 120


def test_means_are_those_of_an_evaluation(folder: Path) -> None:
    for run in folder.glob("runs/*"):
        silhouette = {
            "task": "numbers",
            "type": "Clustering",
            "main_metric": "silhouette_true",
            "main_score": -0.2,
        }
        change(scores_file(folder, run.name), lambda record, new=silhouette: record["tasks"].append(new))
    table = compare_backbones(folder)
    means = mean_scores(json.loads(scores_file(folder, "base-0").read_text())["tasks"])
    one = compare_backbones(only(folder, "base-0", "sft-0"))
    for found, key in (("mean by task", "by_task"), ("mean by type", "by_type")):
        assert one.pairs[0].entry(found).base[0] == pytest.approx(100 * means[key])
    assert "numbers" in table.headline
    assert any("'numbers' is in no mean" in note for note in table.notes)


def only(folder: Path, *names: str) -> Path:
    change(
        folder / "config.resolved.json",
        lambda c: c.update(runs=[run for run in c["runs"] if run["name"] in names]),
    )
    for path in list(folder.glob("runs/*")):
        if path.name not in names:
            shutil.rmtree(path)
    return folder


def test_runs_with_other_seeds_are_independent(tmp_path: Path) -> None:
    folder = write_scored_runs(tmp_path / "x", {"base": (0, 1, 2), "sft": (3, 4)}, TASKS)
    entry = compare_backbones(folder).pairs[0].entry("alpha")
    a, b = [
        [
            100 * json.loads(scores_file(folder, f"{name}-{s}").read_text())["tasks"][0]["main_score"]
            for s in seeds
        ]
        for name, seeds in (("base", (0, 1, 2)), ("sft", (3, 4)))
    ]
    assert entry.seeds.method == "Welch t"
    assert entry.delta[1] == pytest.approx(math.hypot(np.std(a, ddof=1), np.std(b, ddof=1)))
    interval = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert entry.seeds.confidence == pytest.approx((interval.low, interval.high))


def test_one_seed_has_an_interval_over_queries_only(tmp_path: Path) -> None:
    folder = write_scored_runs(tmp_path / "x", {"base": (0,), "sft": (0,)}, TASKS)
    entry = compare_backbones(folder).pairs[0].entry("alpha")
    assert (entry.seeds, entry.delta[1]) == (None, None)
    assert entry.queries is not None
    assert entry.verdict == entry.queries.place


def test_a_failed_task_shows_and_makes_its_means_missing(folder: Path) -> None:
    def fail(record: dict) -> None:
        record["failed"].append({"task": "beta", "error": "OSError: no qrels"})
        record["tasks"] = [entry for entry in record["tasks"] if entry["task"] != "beta"]

    change(scores_file(folder, "sft-1"), fail)
    table = compare_backbones(folder)
    sft, rlvr = table.pairs
    assert [entry.problem for entry in sft.entries] == ["", "failed", "", "missing", "missing"]
    assert {entry.problem for entry in rlvr.entries} == {""}
    assert any("'sft-1'" in note and "'beta' failed: OSError: no qrels" in note for note in table.notes)
    row = next(row for row in grids(table)[0].rows if row[0].text == "sft v base")
    assert [cell.text for cell in row[2:3] + row[4:]] == ["failed", "missing", "missing"]
    text = render(table, "markdown")
    assert "failed: OSError: no qrels" in text
    assert re.search(r"\bnull\b", text) is None


def test_what_was_not_scored_is_missing_and_said(folder: Path) -> None:
    change(scores_file(folder, "rlvr-2"), lambda record: record["tasks"].pop(0))
    shutil.rmtree(folder / "runs" / "sft-0")
    table = compare_backbones(folder)
    sft, rlvr = table.pairs
    assert {entry.problem for entry in sft.entries} == {"missing"}
    assert [entry.problem for entry in rlvr.entries] == ["missing", "", "", "missing", "missing"]
    assert any("'rlvr-2': task 'alpha' was not scored" in note for note in table.notes)
    assert any("'sft-0': no checkpoint after step 0" in note for note in table.notes)


def test_no_scores_of_single_queries_is_said(folder: Path) -> None:
    (scores_file(folder, "base-0").parent / "per_query" / "alpha.json").unlink()
    # Scores that do not average to the task's are of something else, and no interval is made of them.
    change(
        scores_file(folder, "sft-0").parent / "per_query" / "beta.json",
        lambda record: record["scores"].update(q0=0.99),
    )
    table = compare_backbones(folder)
    sft = table.pairs[0]
    assert [bool(sft.entry(name).queries) for name in (*TASKS, "mean by task")] == [False, False, True, False]
    assert sft.entry("alpha").seeds is not None
    assert any("'alpha': no scores of single queries (base-0)" in note for note in table.notes)
    assert any("'beta': scores of single queries do not average" in note for note in table.notes)


def test_subsets_of_a_task_count_alike_whatever_their_size(folder: Path) -> None:
    for run in folder.glob("runs/*"):
        offset = 0.02 if run.name.startswith("sft") else 0.0
        english = {f"test/en/{i}": 0.5 + offset + 0.01 * (i % 3) for i in range(30)}
        german = {f"test/de/{i}": 0.3 + 2 * offset for i in range(10)}
        path = scores_file(folder, run.name)
        scores = english | german
        (path.parent / "per_query" / "alpha.json").write_text(json.dumps({"scores": scores}))
        mean = (sum(english.values()) / 30 + sum(german.values()) / 10) / 2
        change(path, lambda record, mean=mean: record["tasks"][0].update(main_score=mean))
    entry = compare_backbones(folder).pairs[0].entry("alpha")
    assert entry.delta[0] == pytest.approx(3.0)  # the mean over queries would be 2.5
    assert entry.queries.confidence == pytest.approx((3.0, 3.0))
    assert entry.queries.n == 40


def test_tasks_that_ask_the_same_queries_share_their_draws(tmp_path: Path) -> None:
    def mean_interval(kind: str) -> tuple[list[float], list[float]]:
        tasks = {"short": kind, "long": kind}
        folder = write_scored_runs(tmp_path / kind, {"base": (0,), "sft": (0,)}, tasks)
        for run in folder.glob("runs/*"):
            path = scores_file(folder, run.name)
            shutil.copy(path.parent / "per_query" / "short.json", path.parent / "per_query" / "long.json")
            change(path, lambda r: r["tasks"][1].update(main_score=r["tasks"][0]["main_score"]))
        pair = compare_backbones(folder).pairs[0]
        found = [pair.entry(name).queries for name in ("short", "mean by task")]
        return tuple(list(test.confidence) for test in found)

    # The same differences twice are no more evidence than once ...
    one, mean = mean_interval("Retrieval")
    assert mean == pytest.approx(one)
    # ... unless equal ids only number a task's own experiments.
    one, mean = mean_interval("Classification")
    assert mean[1] - mean[0] == pytest.approx((one[1] - one[0]) / math.sqrt(2), rel=0.1)


def test_suites_stand_beside_the_published_ones(folder: Path) -> None:
    suites = {"MTEB(Code, v1)": ["alpha", "beta"]}
    for run in folder.glob("runs/*"):
        change(scores_file(folder, run.name), lambda record: record.update(suites=suites))
    table = compare_backbones(folder)
    assert table.headline == ("gamma", "MTEB(Code, v1)", "mean by task", "mean by type")
    main, *others = grids(table)
    assert [column.label for column in main.columns][-2:] == ["MTEB(Multilingual, v2)", "BRIGHT"]
    assert len(main.rows) == 2 + 5
    assert main.reference_rows == {2, 3, 4, 5, 6}
    assert all("published" in row[0].note for row in main.rows[2:])
    assert "2601.21192" in main.caption
    assert [grid.key for grid in others] == ["score-tests"]
    own = (points(folder, "sft", "alpha") + points(folder, "sft", "beta")).mean() / 2
    assert table.pairs[0].entry("MTEB(Code, v1)").variant[0] == pytest.approx(own)


def test_published_numbers_are_whole() -> None:
    source, pairs = published_pairs()
    assert "2601.21192" in source
    assert [pair.kind for pair in pairs] == ["SFT", "RLVR", "RLVR", "RLVR", "RLVR"]
    entries = [entry for pair in pairs for entry in pair.entries]
    assert len(entries) == 15
    for entry in entries:
        assert entry.delta[0] == pytest.approx(entry.variant[0] - entry.base[0], abs=1e-9)
    first = pairs[0].entries[0]
    assert (first.base[0], first.variant[0], first.delta, first.seeds.n) == (53.5, 41.47, (-12.03, 0.14), 3)
    assert first.verdict == "beyond"
    # 0.06 +- 0.06 over 3 seeds: within half a point, by scipy's t distribution.
    prorl = pairs[3].entries[0]
    assert prorl.seeds.p_value == pytest.approx(stats.t.cdf((0.06 - 0.5) / (0.06 / math.sqrt(3)), 2))
    assert prorl.verdict == "within"


def test_a_synthetic_experiment_without_seeds_or_queries_still_has_its_table(tmp_path: Path) -> None:
    table = compare_backbones(write_experiment(tmp_path / "s"))
    assert [pair.label for pair in table.pairs] == ["sft v base", "rlvr v base"]
    assert [pair.kind for pair in table.pairs] == ["sft", "rlvr"]
    assert table.pairs[0].entry("cosqa_dev").delta == (pytest.approx(-1.0), None)
    assert table.pairs[0].entry("cosqa_dev").verdict == ""
    assert "not tested" in to_terminal(table, 100)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda folder: change(
                scores_file(folder, "sft-2").parent / "per_query" / "beta.json",
                lambda r: r["scores"].update(other=r["scores"].pop("q3")),
            ),
            ("'base-0'", "'sft-2'", "'beta'", '"other", "q3"'),
        ),
        (
            lambda folder: [
                change(scores_file(folder, name), lambda r, n=name: r["tasks"][0].update(fingerprint=n))
                for name in ("base-1", "rlvr-0")
            ],
            ("'base-1'", "'rlvr-0'", "the data of task 'alpha' differs"),
        ),
        (
            lambda folder: change(
                scores_file(folder, "rlvr-1"), lambda r: r["settings"].update(max_tokens=8)
            ),
            ("'base-0'", "'rlvr-1'", "'max_tokens' differs"),
        ),
        (
            lambda folder: (scores_file(folder, "base-0").parent / "per_query" / "beta.json").write_text(
                "[]"
            ),
            ("beta.json", "object was expected"),
        ),
        (
            lambda folder: (scores_file(folder, "base-0").parent / "per_query" / "beta.json").write_text(
                "{}"
            ),
            ("beta.json", "not scores of single queries"),
        ),
        (
            lambda folder: change(scores_file(folder, "sft-0"), lambda r: r.update(suites=["MTEB"])),
            ("scores.json", "'suites' is not"),
        ),
        (lambda folder: scores_file(folder, "base-0").write_text("{"), ("scores.json:1", "not JSON")),
        (lambda folder: shutil.rmtree(folder / "runs"), ("no run has scores",)),
        (lambda folder: shutil.rmtree(folder), ("no such folder",)),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_by_name(folder: Path, spoil, said: tuple[str, ...]) -> None:
    spoil(folder)
    with pytest.raises(InputError) as caught:
        compare_backbones(folder)
    assert all(part in str(caught.value) for part in said), caught.value


@pytest.mark.parametrize("margin", [0.0, -0.5, float("nan"), float("inf")])
def test_a_margin_must_be_above_zero(folder: Path, margin: float) -> None:
    with pytest.raises(InputError, match="margin"):
        compare_backbones(folder, margin=margin)


def test_one_backbone_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    folder = write_scored_runs(tmp_path / "x", {"base": (0, 1)}, TASKS)
    with pytest.raises(InputError, match="one backbone, 'base'"):
        compare_backbones(folder)
    with pytest.raises(InputError, match="no runs lie here"):
        compare_backbones(folder / "runs" / "base-0")


def test_the_base_is_chosen_by_name(folder: Path) -> None:
    table = compare_backbones(folder, base="sft")
    assert [pair.label for pair in table.pairs] == ["base v sft", "rlvr v sft"]
    with pytest.raises(InputError, match="did you mean 'rlvr'"):
        compare_backbones(folder, base="rvlr")


HOSTILE = r"a|b\|c *x* [y](http://e.x) <b> & 50% #1 $z$ {q} ~^_ \input{f} --"


def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    folder = write_scored_runs(tmp_path / "x", {"base": (0, 1), "sft": (0, 1)}, {"alpha": "STS"})
    for path in folder.glob("runs/*/evaluation/*/scores.json"):
        change(path, lambda record: record["failed"].append({"task": HOSTILE, "error": "bad\nnews & $"}))
    change(folder / "config.resolved.json", lambda c: [run.update(backbone=HOSTILE) for run in c["runs"][2:]])
    table = compare_backbones(folder)

    markdown = render(table, "markdown")
    assert "<b>" not in markdown
    assert "[y](" not in markdown.replace(r"\[y](", "")
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block

    latex = render(table, "latex")
    assert r"\input{" not in latex
    bare = re.sub(r"\\[{}$&#%_]|\$(?:-|\\pm|\\Delta|\\cdot)\$", "", latex)
    body = [line for line in bare.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert body
    assert not any(set("$#%_^~<>|") & set(line) for line in body)
    assert len({line.count("&") for line in body if "alpha" in line or "v base" in line}) <= 2
    assert "bad news" in latex

    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert rows[0]["variant"] == HOSTILE
    assert {row["quantity"] for row in rows if row["source"] == "run"} == {"alpha", HOSTILE, *MEANS}


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("50% & $1_000 #2 {x}", r"50\% \& \$1\_000 \#2 \{x\}"),
        ("a\\b^c~d", r"a\textbackslash{}b\textasciicircum{}c\textasciitilde{}d"),
        ("−1.5 ± 0.2", r"$-$1.5 $\pm$ 0.2"),
        ("a--b ''c'' ?`", r"a-{}-b '{}'c'{}' ?{}`"),
        ("two\nlines\x00\x07", "two lines"),
    ],
)
def test_latex_escapes(text: str, latex: str) -> None:
    assert escape(text) == latex


def test_a_latex_row_never_begins_with_what_reads_as_an_option() -> None:
    grid = Grid(
        "k",
        "t",
        "c",
        (TableColumn("[x]"), TableColumn("b", "g")),
        ((Cell("[0]"), Cell("1")), (Cell("*"), Cell(""))),
    )
    lines = to_latex(grid, "tab:k").splitlines()
    assert "{}[x] & b \\\\" in lines
    assert "{}[0] & 1 \\\\" in lines
    assert "{}* &  \\\\" in lines
    assert r"\cmidrule(lr){2-2}" in lines


def test_latex_fits_the_line_and_aligns_text_left() -> None:
    rows = (
        (Cell("a"), Cell("words"), Cell("0.5", "[0.4, 0.6]", "row shuffle 0.1", "closer")),
        (Cell("b"), Cell("more"), Cell("–")),
    )
    text = to_latex(Grid("k", "t", "c", named_columns("name", "what", "value"), rows), "tab:k")
    assert r"\begin{tabular}{@{}llr@{}}" in text
    assert r"\shortstack[r]{0.5 closer \\ \scriptsize [0.4, 0.6] \\ \scriptsize row shuffle 0.1} \\" in text
    assert r"\resizebox{\ifdim\width>\linewidth" in text
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_csv_has_a_line_a_pair_and_quantity(folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(render(compare_backbones(folder), "csv"))))
    assert len(rows) == 2 * 5 + 15
    row = next(row for row in rows if (row["variant"], row["quantity"]) == ("sft", "beta"))
    delta = points(folder, "sft", "beta") - points(folder, "base", "beta")
    assert float(row["delta"]) == pytest.approx(delta.mean())
    assert float(row["delta_std"]) == pytest.approx(delta.std(ddof=1))
    assert (row["seeds_method"], row["queries"], row["margin"], row["verdict"]) == (
        "paired t",
        "40",
        "0.5",
        "beyond",
    )
    assert rows[-1]["source"].startswith("arXiv")


def test_the_verb_prints_and_writes(folder: Path, capsys) -> None:
    def rembed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["report", str(folder), *words])
        said = capsys.readouterr()
        return caught.value.code or 0, said.out, said.err

    code, out, _ = rembed("--table", "--base", "base", "--margin", "1")
    assert code == 0
    assert "margin of 1 points" in out
    assert "sft v base" in out
    for form, suffix in (("markdown", "md"), ("latex", "tex"), ("csv", "csv")):
        code, out, err = rembed("--table", "--format", form)
        assert code == 0
        path = folder / "report" / f"scores.{suffix}"
        assert out.rstrip("\n") == path.read_text(encoding="utf-8").rstrip("\n")
        assert str(path) in err
        assert re.search(r"\bnull\b", out, re.IGNORECASE) is None
    for words, hint in (
        (("--table", "--format", "latx"), "did you mean 'latex'"),
        (("--table", "--base", "bse"), "did you mean 'base'"),
        (("--table", "--margin", "0"), "margin"),
        (("--margin", "1"), "--table"),
    ):
        code, _, err = rembed(*words)
        assert code == 2
        assert hint in err
        assert "Traceback" not in err


def test_writing_leaves_the_page_beside_it(folder: Path) -> None:
    page = folder / "report" / "index.html"
    page.parent.mkdir()
    page.write_text("page")
    names = [path.name for path in write_score_table(page.parent, compare_backbones(folder))]
    assert names == ["scores.md", "scores.tex", "scores.csv"]
    assert sorted(path.name for path in page.parent.iterdir()) == sorted([*names, "index.html"])


@pytest.mark.usefixtures("no_drawing")
def test_the_page_has_the_table_or_says_why_not(folder: Path) -> None:
    page = build(folder).read_text(encoding="utf-8")
    assert 'id="table-score-pairs"' in page
    assert (folder / "report" / "scores.tex").exists()
    assert "scores.md" in (folder / "report" / "index.html").read_text(encoding="utf-8")
    change(scores_file(folder, "rlvr-1"), lambda record: record["settings"].update(max_tokens=8))
    page = build(folder).read_text(encoding="utf-8")
    assert 'id="table-score-pairs"' not in page
    assert (
        "table of base and variants: runs &#x27;base-0&#x27; and &#x27;rlvr-1&#x27; cannot be compared"
        in page
    )
    assert not (folder / "report" / "scores.tex").exists()


def test_readouts_are_compared_within_backbones_and_backbones_within_readouts(tmp_path: Path) -> None:
    """Two sides differ in one axis; a table of means has an interval over seeds and one over queries."""
    folder = write_scored_runs(
        tmp_path / "ablation",
        {"base": (0, 1, 2), "rlvr": (0, 1, 2)},
        {"alpha": "Retrieval"},
        gains={"rlvr": 0.01},
        readouts={"mean": 0.0, "last": -0.1, "first": -0.2},
    )
    table = compare_backbones(folder)
    assert [pair.label for pair in table.pairs] == [
        "rlvr v base, mean", "rlvr v base, last", "rlvr v base, first",
        "last v mean, base", "first v mean, base", "last v mean, rlvr", "first v mean, rlvr",
    ]  # fmt: skip

    def points(backbone: str, readout: str) -> np.ndarray:
        files = [scores_file(folder, f"{backbone}-{readout}-{seed}") for seed in (0, 1, 2)]
        return np.array([100 * json.loads(file.read_text())["tasks"][0]["main_score"] for file in files])

    for pair in table.pairs:
        sides = (pair.base, pair.within), (pair.variant, pair.within)
        if pair.base in ("mean", "last", "first"):
            sides = (pair.within, pair.base), (pair.within, pair.variant)
        a, b = (points(*side) for side in sides)
        assert pair.entry("alpha").delta == pytest.approx(((b - a).mean(), (b - a).std(ddof=1)))
        assert pair.entry("alpha").seeds.method == "paired t"
        assert pair.entry("alpha").queries.n == 40
    assert [(group.backbone, group.readout) for group in table.groups] == [
        (backbone, readout) for backbone in ("base", "rlvr") for readout in ("mean", "last", "first")
    ]
    for group in table.groups:
        score, values = group.scores["alpha"], points(group.backbone, group.readout)
        low, high = stats.t.interval(0.95, 2, values.mean(), values.std(ddof=1) / math.sqrt(3))
        assert score.mean == pytest.approx(values.mean())
        assert score.seeds == pytest.approx((high - low) / 2)
        per_query = np.mean(
            [
                list(json.loads((scores_file(folder, f"{group.backbone}-{group.readout}-{seed}").parent
                / "per_query" / "alpha.json").read_text())["scores"].values())
                for seed in (0, 1, 2)
            ],
            axis=0,
        )  # fmt: skip
        spread = 100 * per_query.std() / math.sqrt(40)
        assert score.queries == pytest.approx(
            (score.mean - 1.96 * spread, score.mean + 1.96 * spread), abs=spread / 3
        )

    # Another reference, by the name of either axis.
    assert [pair.label for pair in compare_backbones(folder, base="rlvr").pairs[:2]] == [
        "base v rlvr, mean", "base v rlvr, last"
    ]  # fmt: skip
    assert [pair.label for pair in compare_backbones(folder, base="last").pairs[3:5]] == [
        "mean v last, base", "first v last, base"
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"no runs of a backbone or readout 'lst'; did you mean 'last'"):
        compare_backbones(folder, base="lst")

    first = grids(table)[0]
    assert (first.key, [row[0].text for row in first.rows]) == ("score-readouts", ["mean", "last", "first"])
    assert [column.label for column in first.columns] == ["readout", "base", "rlvr"]
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert [row["within"] for row in rows if row["source"] == "run" and row["quantity"] == "alpha"] == [
        "mean", "last", "first", "base", "base", "rlvr", "rlvr"
    ]  # fmt: skip
    # A failed task of one run leaves its group without a number, and says so.
    change(
        scores_file(folder, "base-last-1"), lambda record: record.update(tasks=[], failed=[{"task": "alpha"}])
    )
    again = compare_backbones(folder)
    assert "alpha" not in again.groups[1].scores
    assert grids(again)[0].rows[1][1].text == "missing"


def test_an_experiment_of_one_readout_is_written_as_before(folder: Path) -> None:
    table = compare_backbones(folder)
    assert table.groups == ()
    assert "within" not in render(table, "csv").splitlines()[0]
    assert grids(table)[0].key == "score-pairs"
