"""``rembed merge``: a path is scored, analysed and plotted; a call that is given again does nothing twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reasoning_embedding import api
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.checkpoints.run_records import read_settings
from reasoning_embedding.checkpoints.scores import load_scores
from reasoning_embedding.cli.main import app
from reasoning_embedding.hrsa.trajectory import find_trajectories
from reasoning_embedding.reports.reading import read_merge, read_merge_tensors
from tests.damage import damaged_files, is_refused, reading, same_or_refused
from tests.factories import flip
from tests.merging.merge_models import save_embedder

PATH = """\
kind: merge
name: path
output_dir: {root}/merges
models: ["{root}/runs/a@last", "{root}/runs/b@last"]
method: {{kind: slerp}}
path:
  t: [0.0, 0.5, 1.0]
  beside: [{{kind: linear}}]
evaluation:
  tasks:
    - {{kind: number-sequences, families: [even, odd], terms: 12, chunks: 3, null_draws: 3}}
  threads: 1
analysis:
  probe: {{kind: text, path: "{root}/probe.txt"}}
  k: [5, 10]
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_backbone) -> Path:
    folder = tmp_path_factory.mktemp("merge")
    for seed, name in enumerate("ab"):
        for step in (0, 1, 2, 3):
            place = folder / "runs" / name / "checkpoints" / f"step-{step:06d}"
            save_embedder(tiny_backbone, place, seed=seed, change=0.2 * step)
    words = "red green blue cat dog bird fish fox tree river stone city king queen moon sun".split()
    lines = [
        f"the {a} sees a {b} and {i % 9}"
        for i, (a, b) in enumerate(zip(words * 3, words[5:] * 4, strict=False))
    ]
    (folder / "probe.txt").write_text("\n".join(dict.fromkeys(lines)))
    return folder


def write(root: Path, text: str, name: str = "merge") -> Path:
    path = root / f"{name}.yaml"
    path.write_text(text)
    return path


def _damage(config: Path, folder: Path, rembed: Callable[..., Any]) -> None:
    """A byte of any file of a merge: its readers give the same or refuse, and the same command never gives others."""
    points = read_merge(folder)["points"]

    def numbers() -> dict[str, Any]:
        found = {
            "settings": reading(lambda: read_settings(RunFolder(folder))),
            "merge": reading(lambda: read_merge(folder)),
            "track": reading(lambda: repr(find_trajectories(folder))),
        }
        for point in points:
            name = point["name"]
            found[f"tensors of {name}"] = reading(lambda point=point: read_merge_tensors(folder, point))
            found[f"scores of {name}"] = reading(lambda name=name: load_scores(folder / "evaluation" / name))
        for model in sorted(folder.rglob("modules.json")):
            found[f"vectors of {model.parent.name}"] = reading(
                lambda model=model: load_embedder(model.parent).encode(["red cat"]).tolist()
            )
        return found

    wanted, unread = numbers(), set()
    assert len(wanted) > 10
    assert not any(map(is_refused, wanted.values()))
    for file in damaged_files(folder):
        found = numbers()
        assert same_or_refused(found, wanted), file
        if found == wanted:
            unread.add(file.name)
    assert not unread & {
        "model.safetensors",
        "track.parquet",
        "merge.json",
    }  # activations of a cache have sums too

    [model] = [file for file in folder.rglob("model.safetensors") if file.parent.name == "slerp-0.5"]
    for file in (model, folder / "evaluation" / "slerp-0.5" / "scores.json"):
        flip(file, file.stat().st_size // 2)
        result = CliRunner().invoke(app, ["merge", str(config)])
        if result.exit_code:
            assert result.exit_code == 2, result.output
            assert "-> " in result.output
            flip(file, file.stat().st_size // 2)
        assert numbers() == wanted, file


def test_a_path_is_merged_scored_analysed_and_shown_once(root, rembed):
    config = write(root, PATH.format(root=root), "path")
    folder = root / "merges" / "path"
    output = rembed("merge", config).output
    assert "slerp-0.5: merged, LERP in" in output
    assert "embed_tokens.weight" in output
    record = json.loads((folder / "merge.json").read_text())
    points = {point["name"]: point for point in record["points"]}
    assert list(points) == [f"{kind}-{t}" for kind in ("slerp", "linear") for t in ("0", "0.5", "1")]
    for name, point in points.items():
        scores = json.loads((folder / "evaluation" / name / "scores.json").read_text())
        assert point["scores"]["number-sequences"]["main_score"] == scores["tasks"][0]["main_score"]
    a, b = (f"{root}/runs/{name}@last" for name in "ab")
    cka = {name: [point["similarity"][end]["cka"][0] for end in (a, b)] for name, point in points.items()}
    for kind in ("slerp", "linear"):  # the ends of both ways are the models themselves
        assert cka[f"{kind}-0"][0] == pytest.approx(1, abs=1e-5)
        assert cka[f"{kind}-1"][1] == pytest.approx(1, abs=1e-5)
        assert cka[f"{kind}-0"] == pytest.approx(cka["linear-0"])
        assert cka[f"{kind}-0"][1] < cka[f"{kind}-0.5"][1] < 1
    assert cka["slerp-0.5"] != cka["linear-0.5"]
    page = (folder / "report" / "index.html").read_text()
    assert "Distance from slerp along the path" in page
    assert "a@last" in page
    assert "<svg" in page
    assert (folder / "report" / "path.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "hrsa" / "track.parquet").is_file()
    _damage(config, folder, rembed)

    files = {path: path.stat().st_mtime_ns for path in (folder / "models").rglob("*") if path.is_file()}
    shutil.rmtree(folder / "models" / "linear-0.5")
    again = rembed("merge", config).output
    assert again.count("there already") == 5
    assert "linear-0.5: merged" in again
    assert "comparisons" not in again
    assert again.count("scored before") == 6
    assert all(
        path.stat().st_mtime_ns == old for path, old in files.items() if "linear-0.5" not in path.parts
    )
    assert json.loads((folder / "merge.json").read_text()) == record
    (folder / "report" / "index.html").unlink()
    assert api.merge(config)["points"] == record["points"]
    assert (folder / "report" / "index.html").read_text() == page


def test_a_trajectory_becomes_a_soup_that_the_other_verbs_know(root, rembed):
    text = f"""\
kind: merge
name: soup
output_dir: {root}/merges
models: {{run: {root}/runs/a, last: 3}}
method: {{kind: linear, weights: ema, decay: 0.5}}
"""
    output = rembed("merge", write(root, text, "soup")).output
    model = root / "merges" / "soup" / "models" / "linear"
    assert f"model: {model}" in output
    assert "cosine" in output
    record = json.loads((model / "provenance.json").read_text())
    assert [Path(parent["path"]).name for parent in record["parents"]] == [
        "step-000001",
        "step-000002",
        "step-000003",
    ]
    assert record["parameters"] == {"rule": "ema 0.5", "weights": [0.25, 0.25, 0.5]}
    listed = rembed("runs", "ls", root / "merges").output
    assert "soup" in listed
    assert "finished" in listed
    rembed("embed", model, write(root, "red cat\n", "lines"), "-o", root / "vectors.npy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": "[{root}/runs/a@last]"}, "5:9: models: slerp takes exactly two models; given: 1"),
        ({"models": "[x, y, z]"}, "5:9: models: slerp takes exactly two models; given: 3"),
        ({"method": "{{kind: slerp, t: 1.5}}"}, "6:26: method.t is 1.5; it must be at most 1"),
        ({"method": "{{kind: slerp, tt: 0.5}}"}, "6:23: unknown key 'tt' in method; did you mean 't'?"),
        ({"method": "{{kind: sleep}}"}, "did you mean 'slerp'?"),
        ({"models": "[{root}/runs/a@last, {root}/runs/z@last]"}, "names no run"),
        ({"models": "[{root}/runs/a@last, {root}/runs/b]"}, "is a run, not a model"),
        ({"models": "[{root}/runs/a@last, {root}/runs/b@7]"}, "names no checkpoint"),
        ({"models": "[{root}/runs/a@last, {root}/nowhere]"}, "names no model"),
        ({"models": "[{root}/runs/a@last, {backbone}]"}, "is no embedder"),
    ],
)
def test_a_users_mistake_is_a_message(root, tiny_backbone, rembed, changes, message):
    settings = {"models": "[{root}/runs/a@last, {root}/runs/b@last]", "method": "{{kind: slerp}}"} | changes
    lines = ["kind: merge", "# a comment", "name: wrong", f"output_dir: {root}/wrong"]
    lines += [f"{key}: {value.format(root=root, backbone=tiny_backbone)}" for key, value in settings.items()]
    output = rembed("merge", write(root, "\n".join(lines) + "\n", "wrong"), code=2).output
    assert message in " ".join(output.split())
    assert "Traceback" not in output
    assert not (root / "wrong").exists()


def test_a_folder_of_something_else_or_in_use_is_refused(root, rembed):
    from reasoning_embedding.checkpoints.locks import hold

    text = f"kind: merge\nname: a\noutput_dir: {root}/held\n"
    text += f"models: [{root}/runs/a@last, {root}/runs/b@last]\nmethod: {{kind: slerp}}\n"
    config = write(root, text, "held")
    (root / "held" / "a").mkdir(parents=True)
    (root / "held" / "a" / "config.resolved.json").write_text('{"kind": "run"}')
    assert "holds the run of that name" in rembed("merge", config, code=2).output
    assert [path.name for path in (root / "held" / "a").iterdir()] == ["config.resolved.json"]
    with hold(root / "held" / "b" / ".lock", refusal="test", todo="test"):
        assert "another process merges into" in rembed("merge", config, "name=b", code=2).output
