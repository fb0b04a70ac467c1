"""Loading: extends, variables, overrides, which kinds are taken, and files that cannot be read."""

import subprocess
import sys
from pathlib import Path

import pytest

from reasoning_embedding.config import ExperimentConfig, LineageConfig, RunConfig, load_config
from reasoning_embedding.config.reading.sections import sections
from reasoning_embedding.config.reading.suggestions import closest
from reasoning_embedding.errors import ConfigError
from tests.config.config_files import EXPERIMENT, RUN


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


def problems_of(path, overrides=(), expect=None):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides, expect)
    assert caught.value.exit_code == 2
    return caught.value.problems


def test_a_loaded_file_knows_its_values_text_and_places(tmp_path):
    path = write(tmp_path, a=RUN)
    loaded = load_config(path)
    assert isinstance(loaded.config, RunConfig)
    assert loaded.config.training.steps == 10
    assert loaded.config.training.learning_rate == 2e-5
    assert (loaded.path, loaded.text, loaded.sources) == (path, RUN, (path,))
    assert loaded.where("data", "sources", 0, "path") == f"{path}:9:13"
    assert loaded.where("training", "seed") == f"{path}:10:1"


# --- extends ---------------------------------------------------------------------------------------


def test_extends_merges_sections_and_replaces_lists(tmp_path):
    (tmp_path / "sub").mkdir()
    path = write(
        tmp_path / "sub",
        a="extends: ../base.yaml\ntraining: {batch_size: 8}\ndata:\n  sources: [{kind: world}]\n",
    )
    write(tmp_path, base=RUN)
    loaded = load_config(path)
    assert (loaded.config.training.steps, loaded.config.training.batch_size) == (10, 8)
    assert [source.kind for source in loaded.config.data.sources] == ["world"]
    assert loaded.sources == (path, tmp_path / "base.yaml")
    assert loaded.where("training", "steps") == f"{tmp_path / 'base.yaml'}:11:10"


def test_a_list_of_bases_lets_the_later_win_and_the_file_over_both(tmp_path):
    path = write(
        tmp_path,
        a="extends: [b.yaml, c.yaml]\nseed: 3\n",
        b=RUN.replace("steps: 10", "steps: 1\n  batch_size: 5") + "seed: 1\n",
        c="training: {steps: 2}\nseed: 2\n",
    )
    config = load_config(path).config
    assert (config.training.steps, config.training.batch_size, config.seed) == (2, 5, 3)


def test_a_section_whose_kind_changes_is_replaced_whole(tmp_path):
    path = write(tmp_path, a="extends: b.yaml\nbackbone: {kind: pretrained, path: x}\n", b=RUN)
    assert load_config(path).config.backbone.path == "x"
    path = write(tmp_path, a="extends: b.yaml\nbackbone: {path: x}\n", b=RUN)
    assert f"{path}:2:12: unknown key 'path' in backbone" in problems_of(path)[0]


def test_a_problem_in_a_base_points_into_the_base(tmp_path):
    path = write(tmp_path, a="extends: b.yaml\nsed: 2\n", b=RUN.replace("steps: 10", "stpes: 10"))
    found = problems_of(path)
    assert found[0].startswith(f"{path}:2:1: unknown key 'sed'") or found[1].startswith(
        f"{path}:2:1: unknown key 'sed'"
    )
    assert any(item.startswith(f"{tmp_path / 'b.yaml'}:11:3: unknown key 'stpes'") for item in found)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"a": "kind: run\nextends: b.yaml", "b": "extends: a.yaml"},
            "b.yaml:1:10: extends goes round in a circle",
        ),
        ({"a": "extends: a.yaml"}, "a.yaml:1:10: extends goes round in a circle"),
        ({"a": "name: x\nextends: [bse.yaml]", "base": RUN}, "did you mean 'base.yaml'?"),
        ({"a": "extends: ''"}, "a.yaml:1:10: extends must be the path of a YAML file, or a list of them"),
        ({"a": "extends: 3"}, "a.yaml:1:10: extends must be"),
        ({"a": "extends: b.yaml", "b": ""}, "b.yaml:1: the file is empty"),
        ({"a": "extends: b.yaml", "b": "- 1"}, "b.yaml:1:1: a configuration is a mapping"),
        ({"a": "extends: b.yaml", "b": "a: ["}, "b.yaml:2:1: not valid YAML"),
    ],
)
def test_extends_that_cannot_be_followed(tmp_path, files, expected):
    assert any(expected in problem for problem in problems_of(write(tmp_path, **files)))


def test_a_base_reached_twice_is_no_circle(tmp_path):
    path = write(tmp_path, a="extends: [b.yaml, c.yaml]", b="extends: d.yaml", c="extends: d.yaml", d=RUN)
    assert len(load_config(path).sources) == 4


# --- environment -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${HERE}/x", "/data/x"),
        ("${GONE:-../data}/x", "../data/x"),
        ("${EMPTY:-fallback}", "fallback"),
        ("${EMPTY}x", "x"),
        ("${HERE:-no}${HERE}", "/data/data"),
        ("$${HERE}", "${HERE}"),
        ("$HERE", "$HERE"),
        ("${GONE:-}x", "x"),
    ],
)
def test_environment_variables(tmp_path, monkeypatch, written, value):
    monkeypatch.setenv("HERE", "/data")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("GONE", raising=False)
    path = write(tmp_path, a=RUN.replace("rows.jsonl", f'"{written}"'))
    assert load_config(path).config.data.sources[0].path == value


@pytest.mark.parametrize(
    ("written", "expected"),
    [("${GONE}", "GONE is not set"), ("${a b}", "write ${NAME}"), ("${x", "write ${NAME}")],
)
def test_variables_that_cannot_be_filled_in(tmp_path, monkeypatch, written, expected):
    monkeypatch.delenv("GONE", raising=False)
    path = write(tmp_path, a=RUN.replace("rows.jsonl", f'"{written}"'))
    found = problems_of(path)
    assert len(found) == 1
    assert found[0].startswith(f"{path}:9:13: ")
    assert expected in found[0]


# --- overrides -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("runs.1.seed=7", lambda c: c.runs[1].seed, 7),
        ("recipe.training.learning_rate=1e-3", lambda c: c.recipe.training.learning_rate, 1e-3),
        ("evaluation.steps=[1, 2]", lambda c: c.evaluation.steps, [1, 2]),
        ("evaluation.steps=all", lambda c: c.evaluation.steps, "all"),
        ("evaluation.baselines=[bm25]", lambda c: c.evaluation.baselines, ["bm25"]),
        ("recipe.training.lora.rank=4", lambda c: c.recipe.training.lora.rank, 4),
        ("recipe.training.lora=", lambda c: c.recipe.training.lora, None),
        ("recipe.pooling={include_prompt: true}", lambda c: c.recipe.readout.include_prompt, True),
        ("recipe.data.weights.a-b=0.5", lambda c: c.recipe.data.weights, {"a-b": 0.5}),
        ("title=a=b", lambda c: c.title, "a=b"),
        ("runs.0.backbone={kind: pretrained, path: x}", lambda c: c.runs[0].backbone.path, "x"),
    ],
)
def test_overrides_set_values(tmp_path, override, read, value):
    assert read(load_config(write(tmp_path, a=EXPERIMENT), [override]).config) == value


def test_an_override_that_belongs_elsewhere_is_refused(tmp_path):
    found = problems_of(write(tmp_path, a=EXPERIMENT), ["seed=3"])
    assert found[0].startswith("override 'seed=3': unknown key 'seed' at the top level")


def test_the_last_override_wins(tmp_path):
    path = write(tmp_path, a=RUN)
    loaded = load_config(path, ["training.steps=3", "training.steps=4"])
    assert loaded.config.training.steps == 4
    assert loaded.where("training", "steps") == "override 'training.steps=4'"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.lerning_rate=1", "unknown key 'lerning_rate' in training; did you mean 'learning_rate'?"),
        ("trainin.steps=1", "unknown key 'trainin' at the top level; did you mean 'training'?"),
        ("training.steps=1e2", "training.steps is 100.0; it must be a whole number"),
        ("training.batch_size=", "training.batch_size is null; it must be"),
        ("data.sources.1.path=x", "data.sources is a list of 1; write an index from 0 to 0, not '1'"),
        ("data.sources.x=1", "data.sources is a list of 1; write an index"),
        ("training.steps.a=1", "training.steps is 10, not a section; it has no 'a'"),
        ("training.0=1", "training is not a list here; it has no item 0"),
        ("training.betas=[1", "not valid YAML"),
        ("training.betas={a: 1, a: 2}", "duplicate key 'a'"),
        ("steps", "write key.path=value"),
        ("=3", "write key.path=value"),
        ("name=${GONE_FOR_SURE}", "GONE_FOR_SURE is not set"),
    ],
)
def test_bad_overrides_are_named(tmp_path, override, expected):
    found = problems_of(write(tmp_path, a=RUN), [override])
    assert any(item.startswith(f"override {override!r}: ") and expected in item for item in found), found


# --- kinds and unreadable files --------------------------------------------------------------------


def test_expect_refuses_other_kinds(tmp_path):
    path = write(tmp_path, a=RUN)
    assert load_config(path, expect=(RunConfig, ExperimentConfig)).config.kind == "run"
    assert problems_of(path, expect=LineageConfig) == [
        f"{path}:1:7: kind is run; this command takes a file of kind lineage"
    ]
    assert "experiment or" not in problems_of(path, expect=(LineageConfig, ExperimentConfig))[0]
    assert "lineage or experiment" in problems_of(path, expect=(LineageConfig, ExperimentConfig))[0]


def test_files_that_cannot_be_read(tmp_path):
    write(tmp_path, quickstart=RUN)
    missing = tmp_path / "quikstart.yaml"
    assert problems_of(missing) == [f"{missing}: no such file; did you mean 'quickstart.yaml'?"]
    assert "this is a folder" in problems_of(tmp_path)[0]
    nowhere = tmp_path / "no" / "a.yaml"
    assert "nor a folder" in problems_of(nowhere)[0]
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"kind: run\nname: caf\xe9\n")
    assert problems_of(bad) == [f"{bad}:2: byte 0xe9 is not UTF-8; save the file as UTF-8 text"]
    empty = write(tmp_path, empty="# nothing\n")
    assert problems_of(empty) == [f"{empty}:1: the file is empty"]
    bom = tmp_path / "bom.yaml"
    bom.write_bytes(b"\xef\xbb\xbf" + RUN.encode())
    assert load_config(bom).config.name == "demo"


def test_the_index_of_sections_reaches_members_of_unions():
    names = dict(sections(ExperimentConfig))
    assert {
        "recipe.training.lora",
        "recipe.data.sources (kind: mix)",
        "lineage.stages.architecture",
    } <= names.keys()


def test_suggestions():
    assert closest("Batch_Size", ["batch_size", "steps"]) == "batch_size"
    assert closest("zzz", ["batch_size", "steps"]) is None


def test_describing_a_run_imports_no_heavy_library(tmp_path):
    path = write(tmp_path, a=EXPERIMENT)
    code = (
        "import sys; from reasoning_embedding.config import load_config; load_config(sys.argv[1]);"
        "print([m for m in ('torch', 'numpy', 'transformers', 'datasets', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
