"""Pairs and trajectories of checkpoints, end to end on tiny models."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch

from reasoning_embedding import config, hrsa
from reasoning_embedding.checkpoints import content_hash, write_provenance
from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.instrument import Checkpoint, Instrument
from reasoning_embedding.hrsa.measure import metric_names
from reasoning_embedding.hrsa.pair import compare
from reasoning_embedding.hrsa.probes import load_probe
from reasoning_embedding.hrsa.trajectory import Against, TrackTable, read_trajectories, track
from tests.hrsa.hrsa_models import qwen3, save


def analysis(**changes) -> config.Analysis:
    settings = {"probe": {"kind": "world"}, "max_rows": 600, "streaming": "never", "bootstrap": 10, **changes}
    return config.Analysis.model_validate(settings)


def instrument(report=lambda line: None, **changes) -> Instrument:
    settings = analysis(**changes)
    return Instrument(load_probe(settings.probe), settings, report=report)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints: a, b (other weights), near (a with noise), wide, deep, embedder, foreign (other ids), broken."""
    root = tmp_path_factory.mktemp("checkpoints")
    for name, model in {
        "a": qwen3(0),
        "b": qwen3(1),
        "wide": qwen3(0, hidden=96),
        "deep": qwen3(0, layers=5),
        "embedder": qwen3(0, causal=False),
    }.items():
        save(model, root / name)
    near = qwen3(0)
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in near.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    save(near, root / "near")
    save(qwen3(0), root / "foreign", reverse=True)
    broken = qwen3(0)
    with torch.no_grad():
        broken.model.layers[2].mlp.up_proj.weight[0, 0] = float("inf")
    save(broken, root / "broken")
    write_provenance(root / "a", kind="test", parent=None)
    return root


def pair(folder, a: str, b: str, **changes) -> dict:
    lines = []
    sides = (Checkpoint(folder / name, f"lineage:{name}") for name in (a, b))
    found = compare(f"{a}-{b}", *sides, instrument(lines.append, **changes))
    assert len(lines) == 3
    json.dumps(found, allow_nan=False)
    return found


@pytest.fixture(scope="module")
def near(folder) -> dict:
    return pair(folder, "a", "near")


def test_record_has_what_reports_read(folder, near):
    labels = ["embedding", "layer 1", "layer 2", "layer 3 (pre-norm)", "final norm"]
    assert near["layers_a"] == near["layers_b"] == labels
    assert near["a"] | {"path": ""} == {
        "reference": "lineage:a",
        "path": "",
        "revision": None,
        "content_hash": content_hash(folder / "a"),
        "attention": "causal",
        "dimension": 64,
        "layers": 3,
    }
    assert near["b"]["content_hash"] is None
    assert near["probe"]["kind"] == "world"
    assert (near["probe"]["rows"], near["probe"]["tokens"], near["probe"]["labels"]) == (600, "all", 5)
    assert set(near["heatmaps"]) == {"dimension_correlation", "cka", "cka_unit", "knn_jaccard@10"}
    assert all(np.shape(heat) == (5, 5) for heat in near["heatmaps"].values())
    assert list(near["diagonal"]) == metric_names([5, 10, 50])
    assert all(len(values) == 5 for values in near["diagonal"].values())
    assert list(near["intervals"]) == metric_names([5, 10, 50])  # every cell of a table
    for metric, (low, high) in near["intervals"].items():
        assert low < near["last"][metric] < high
    assert set(near["chance"]) == set(near["definitions"]) == set(metric_names([5, 10, 50]))
    assert near["spectrum"]["a"]["features"] == "last"
    assert near["spectrum_mean"]["b"]["features"] == "mean"
    assert 1 < near["spectrum"]["a"]["rankme_lambda"] < near["spectrum"]["a"]["rankme_sigma"] <= 64.1


def test_record_agrees_with_the_library(folder, near):
    measured = instrument()
    first = measured.open(Checkpoint(folder / "a", "a"))
    states = measured.states(first, measured.open(Checkpoint(folder / "near", "near"), like=first))
    a, b = states.a, states.b
    assert b.sample is a.sample
    for i in range(5):
        for j in range(5):
            x, y = a.activations.states[i], b.activations.states[j]
            assert near["heatmaps"]["cka"][i][j] == pytest.approx(float(hrsa.linear_cka(x, y)), abs=2e-5)
            correlation = float(hrsa.dimension_wise_correlation(x, y))
            assert near["heatmaps"]["dimension_correlation"][i][j] == pytest.approx(correlation, abs=2e-5)
    x, y = a.activations.states[-1], b.activations.states[-1]
    fit = hrsa.orthogonal_procrustes(x, y, documents=a.sample.documents)
    assert near["last"]["h_inv"] == pytest.approx(float(fit), abs=1e-3)
    assert near["last"]["procrustes_residual"] == pytest.approx(fit.residual, abs=1e-4)
    assert near["last"]["cka_debiased"] == pytest.approx(float(hrsa.debiased_linear_cka(x, y)), abs=1e-4)
    assert near["diagonal"]["cka"][-1] == near["last"]["cka"]


def test_a_model_against_itself_is_one_and_against_another_is_not(folder, near):
    same, other = pair(folder, "a", "a"), pair(folder, "a", "b")
    for metric in (
        "dimension_correlation",
        "h_inv",
        "cka",
        "cka_debiased",
        "knn_jaccard@10",
        "procrustes_cosine",
    ):
        assert same["last"][metric] == pytest.approx(1, abs=1e-4)
        assert other["last"][metric] < near["last"][metric] < 1
    assert abs(other["last"]["dimension_correlation"]) < 0.1
    assert abs(other["last"]["h_inv_rescaled"]) < 0.05
    transfer = same["probe_transfer"]
    assert transfer["gap_ab"] == transfer["gap_ba"] == 0
    assert transfer["own_a"] > 0.6 > transfer["permuted_control"]
    assert other["probe_transfer"]["gap_ab"] > 0.2


def test_repeated_tokens_of_the_embedding_output_are_no_neighbours(near):
    # 126 words in 600 rows: only one row a word takes part, and 50 of 104 neighbours are mostly shared.
    assert near["probe"]["knn_rows_embedding"] < 126 < near["probe"]["knn_rows"] <= 600
    heat = np.diagonal(near["heatmaps"]["knn_jaccard@10"])
    assert heat == pytest.approx(near["diagonal"]["knn_jaccard@10"], abs=1e-5)


def test_different_widths_keep_the_metrics_that_allow_it(folder):
    found = pair(folder, "a", "wide")
    assert found["heatmaps"]["dimension_correlation"] is None
    assert found["last"]["h_inv"] is None
    assert found["probe_transfer"] is None
    assert 0 < found["last"]["cka"] < 1
    assert found["last"]["knn_jaccard@10"] > 0
    assert any("64 against 96 dimensions" in text for text in found["warnings"])


def test_different_depths_are_matched_by_relative_depth(folder):
    found = pair(folder, "a", "deep")
    assert np.shape(found["heatmaps"]["cka"]) == (5, 7)
    assert found["diagonal_layers"][1:] == [
        ["layer 1", "layer 2"],
        ["layer 2", "layer 3"],
        ["layer 3 (pre-norm)", "layer 5 (pre-norm)"],
        ["final norm", "final norm"],
    ]
    assert any("relative depth" in text for text in found["warnings"])


def test_an_embedder_is_measured_bidirectional_as_saved(folder):
    found = pair(folder, "a", "embedder")
    assert (found["a"]["attention"], found["b"]["attention"]) == ("causal", "bidirectional")
    assert found["diagonal"]["cka"][0] == pytest.approx(1, abs=1e-5)
    assert found["last"]["cka"] < 0.999
    assert any("attends causally" in text for text in found["warnings"])


@pytest.mark.parametrize("tokens", ["all", "last"])
def test_different_tokenizers_are_refused_for_tokens(folder, tokens):
    with pytest.raises(InputError, match="different tokens") as caught:
        pair(folder, "a", "foreign", tokens=tokens)
    assert "tokens: mean" in caught.value.todo


def test_different_tokenizers_can_be_compared_by_means(folder):
    found = pair(folder, "a", "foreign", tokens="mean")
    assert found["probe"]["rows"] == found["probe"]["texts"] == 320
    assert any("tokenizers differ" in text for text in found["warnings"])


def test_a_diverged_checkpoint_is_refused_by_layer(folder):
    with pytest.raises(InputError, match="NaN or infinite") as caught:
        pair(folder, "a", "broken")
    assert "layer 3" in caught.value.where


def test_a_trajectory_follows_a_run(folder, tmp_path):
    lines = []
    steps = {step: Checkpoint(folder / name, name) for step, name in ((200, "b"), (0, "a"), (100, "near"))}
    against = Against("lineage:a", {None: Checkpoint(folder / "a", "lineage:a")})
    table = TrackTable(tmp_path / "track.parquet")
    assert track("cl", steps, [against], instrument(lines.append), table, name="drift") == 3
    [found] = read_trajectories(table.path)
    assert (found.name, found.run, found.against) == ("drift", "cl", "lineage:a")
    assert found.steps == (0, 100, 200)
    assert len(lines) == 4  # what it needs, then a line a step
    assert list(found.series) == list(found.series_mean) == metric_names([5, 10, 50])
    for metric in ("cka", "dimension_correlation", "knn_jaccard@10", "procrustes_cosine"):
        for series in (found.series[metric], found.series_mean[metric]):
            assert series[0] == pytest.approx(1, abs=1e-4)
            assert series[0] > series[1] > series[2]
    assert found.layers == ("embedding", "layer 1", "layer 2", "layer 3 (pre-norm)", "final norm")
    assert [row[-1] for row in found.series_layers["cka"]] == found.series["cka"]
    assert np.mean(found.series_layers["cka"][2]) == pytest.approx(found.series_mean["cka"][2], abs=1e-6)
    near = pair(folder, "a", "near")
    assert found.series["cka"][1] == pytest.approx(near["last"]["cka"], abs=1e-5)
    assert found.intervals["cka"][1] == pytest.approx(near["intervals"]["cka"], abs=1e-5)
    assert (
        str(found.probe)
        == f"{near['probe']['kind']}, {near['probe']['texts']} texts, {near['probe']['rows']} rows, all tokens"
    )
    assert all(len(found.spectrum[key]) == 3 for key in ("rankme_sigma", "alpha"))
    with pytest.raises(InputError, match="no checkpoints"):
        track("cl", {}, [against], instrument(), table)


def test_probe_sets(tmp_path):
    path = tmp_path / "texts.jsonl.gz"
    records = [{"body": f"text {i % 40}", "topic": i % 3} for i in range(60)]
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    probe = analysis(
        probe={"kind": "text", "path": str(path), "text": "body", "label": "topic", "texts": 30}
    ).probe
    found = load_probe(probe)
    assert (len(found.texts), found.classes) == (30, 3)
    assert len(set(found.texts)) == 30
    assert found.hash == load_probe(probe).hash
    assert found.hash != load_probe(probe.model_copy(update={"seed": 1})).hash
    for changes, message in [
        ({"text": "title"}, "no field 'title'"),
        ({"path": str(tmp_path / "none.jsonl")}, "no such file"),
    ]:
        with pytest.raises(InputError, match=message):
            load_probe(probe.model_copy(update=changes))
    mix = tmp_path / "rows.jsonl"
    rows = [{"query": ["find", f"q{i}"], "source": "ab"[i % 2], "pos": ["d"]} for i in range(12)]
    mix.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load_probe(analysis(probe={"kind": "mix", "rows": str(mix)}).probe)
    assert found.texts[:2] == ["q0", "q1"]
    assert found.labels[:2] == ["a", "b"]
    mix.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(InputError, match="1 distinct texts"):
        load_probe(analysis(probe={"kind": "mix", "rows": str(mix)}).probe)


def probe_of(kind: str, path, **changes):
    return load_probe(analysis(probe={"kind": kind, "path": str(path), **changes}).probe)


def test_probes_of_lines_tables_and_traces(tmp_path):
    (tmp_path / "lines.txt").write_text("".join(f"line {i}\n\n" for i in range(12)))
    found = probe_of("text", tmp_path / "lines.txt")
    assert found.texts == [f"line {i}" for i in range(12)]
    assert found.labels is None
    with pytest.raises(InputError, match="no label"):
        probe_of("text", tmp_path / "lines.txt", label="topic")
    table = "".join(f'{i % 4 + 1},"Title {i}","A body, {i}"\n' for i in range(20))
    (tmp_path / "news.csv").write_text(table)
    columns = {"columns": ["label", "title", "text"], "label": "label"}
    found = probe_of("text", tmp_path / "news.csv", **columns)
    assert (found.texts[1], found.labels[1], found.classes) == ("A body, 1", "2", 4)
    with gzip.open(tmp_path / "named.csv.gz", "wt") as file:
        file.write("label,title,text\n" + table)
    assert probe_of("text", tmp_path / "named.csv.gz", label="label") == found
    (tmp_path / "news.csv").write_text(table + "1,short\n")
    with pytest.raises(InputError, match="3 columns") as caught:
        probe_of("text", tmp_path / "news.csv", **columns)
    assert caught.value.where.endswith("news.csv:21")
    with pytest.raises(InputError, match="no field 'body'"):
        probe_of("text", tmp_path / "named.csv.gz", text="body")
    traces = [{"question": f"q{i}", "answer": f"a{i}", "solution": f"so {i}"} for i in range(15)]
    (tmp_path / "traces.jsonl").write_text("".join(json.dumps(record) + "\n" for record in traces))
    found = probe_of("traces", tmp_path / "traces.jsonl", texts=11)
    assert len(found.texts) == 11
    assert all(text.startswith("so ") for text in found.texts)
    assert probe_of("traces", tmp_path / "traces.jsonl", field="answer").texts[0] == "a0"
    (tmp_path / "traces.jsonl").write_text('{"question": "q"}\n')
    with pytest.raises(InputError, match="none of trace, solution"):
        probe_of("traces", tmp_path / "traces.jsonl")


def test_a_data_source_is_a_probe(tmp_path):
    rows = [{"query": ["find", f"q{i}"], "pos": [f"d{i}"], "source": "ab"[i % 2]} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"kind": "files", "path": str(tmp_path / "rows.jsonl")}
    queries, documents = (
        load_probe(analysis(probe={"kind": "data", "source": source, "side": side}).probe)
        for side in ("query", "document")
    )
    assert queries.texts == [f"q{i}" for i in range(12)]
    assert documents.texts == [f"d{i}" for i in range(12)]
    assert queries.labels == documents.labels == ["a", "b"] * 6


def test_traces_of_real_solutions(real_data):
    files = sorted((real_data / "gsm8k").glob("*.jsonl.gz"))
    if not files:
        pytest.skip("no grade-school solutions among the real data")
    found = probe_of("traces", files[0], texts=100)
    assert len(found.texts) == 100
    assert all("####" in text for text in found.texts)
