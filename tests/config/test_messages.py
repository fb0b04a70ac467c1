"""Each mistake in a configuration becomes one sentence at its line."""

import pytest

from reasoning_embedding.config import load_config
from reasoning_embedding.errors import ConfigError
from tests.config.config_files import EXPERIMENT, RUN


def problems_of(tmp_path, text, overrides=()):
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  steps: 10", "  stpes: 10", "11:3: unknown key 'stpes' in training; did you mean 'steps'?"),
        (
            "  steps: 10",
            "  log_spaced: true",
            "11:3: unknown key 'log_spaced' in training; 'log_spaced' is a key of checkpoints",
        ),
        (
            "name: demo",
            "name: demo\nlerning_rate: 1",
            "3:1: unknown key 'lerning_rate' at the top level; did you mean 'learning_rate' of training?",
        ),
        (
            "name: demo",
            "name: demo\nextend: x",
            "3:1: unknown key 'extend' at the top level; did you mean 'extends'?",
        ),
        ("  steps: 10", "  steps: 0", "11:10: training.steps is 0; it must be greater than 0"),
        ("  steps: 10", "  steps: 1e2", "11:10: training.steps is 100.0; it must be a whole number"),
        (
            "  steps: 10",
            "  steps: '10'",
            '11:10: training.steps is "10"; it must be a whole number; remove the quotes',
        ),
        ("  steps: 10", "  steps: true", "11:10: training.steps is true; it must be a whole number"),
        (
            "  steps: 10",
            "  learning_rate: .nan",
            "11:18: training.learning_rate is NaN; it must be a finite number",
        ),
        (
            "  steps: 10",
            "  compile: no",
            '11:12: training.compile is "no"; it must be true or false (in YAML 1.2 this word is text)',
        ),
        (
            "  steps: 10",
            "  activation_checkpointing: no",
            '11:29: training.activation_checkpointing is "no"; it must be one of false, true, "selective", "offload" '
            "(in YAML 1.2 this word is text)",
        ),
        (
            "  steps: 10",
            "  schedule: cosin",
            '11:13: training.schedule is "cosin"; it must be one of "cosine", "linear", "constant"; '
            "did you mean 'cosine'?",
        ),
        ("  steps: 10", "  betas: [0.1]", "11:3: the required key 'training.betas.1' is missing"),
        ("  steps: 10", "  betas: [0.1, 1]", "11:16: training.betas.1 is 1; it must be less than 1"),
        ("  steps: 10", "  steps: 10\n  epochs: 1", "11:10: training.steps: give epochs or steps, not both"),
        ("name: demo", "name: 12", "2:7: name is 12; it must be text; put it in quotes"),
        (
            "name: demo",
            "name: ../x",
            "2:7: name is \"../x\"; it must be a name of letters, digits, '.', '_' and '-' that starts with a letter "
            "or digit (it becomes a folder)",
        ),
        (
            "training:\n  steps: 10",
            "training: 3",
            "10:11: training is 3; it must be a section (keys and values)",
        ),
        (
            "      path: rows.jsonl",
            "      pth: rows.jsonl",
            "9:7: unknown key 'pth' in data.sources.0; did you mean 'path'?",
        ),
        (
            "      path: rows.jsonl",
            "      path: ''",
            '9:13: data.sources.0.path is ""; it must be text that is not empty',
        ),
        (
            "    - kind: files",
            "    - kind: file",
            '8:13: data.sources.0.kind is "file"; it must be one of files, mix, hub, world, function; '
            "did you mean 'files'?",
        ),
        (
            "  kind: random\n",
            "",
            "3:1: the required key 'backbone.kind' is missing; it is one of pretrained, random",
        ),
        (
            "  kind: random\n",
            "  knd: random\n",
            "4:3: unknown key 'knd'; did you mean 'kind'? It is one of pretrained, random",
        ),
        (
            "kind: run",
            "kind: runn",
            "1:7: kind is \"runn\"; it must be one of run, lineage, experiment, merge, sweep; did you mean 'run'?",
        ),
        (
            "kind: run\n",
            "",
            "1:1: the required key 'kind' is missing; it is one of run, lineage, experiment, merge, sweep",
        ),
        (
            "  tokenizer: some/folder",
            "  tokenizer: x\n  extra: 1",
            "6:3: unknown key 'extra' in backbone; 'extra' is a key of backbone.architecture",
        ),
        (
            "  sources:\n    - kind: files\n      path: rows.jsonl",
            "  sources: []",
            "7:12: data.sources is a list of 0; it must be a list of at least 1",
        ),
        ("name: demo\n", "", "1:1: the required key 'name' is missing"),
    ],
)
def test_run_file(tmp_path, old, new, expected):
    assert old in RUN
    assert problems_of(tmp_path, RUN.replace(old, new, 1)) == [expected]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: sft\n", "name: base\n", "14:13: lineage.stages.1.name: two stages are named 'base'"),
        (
            "parent: base",
            "parent: bse",
            "15:15: lineage.stages.1.parent: stage 'sft' names parent 'bse'; the stages before it are ['base']",
        ),
        ("name: two", "name: one", "28:12: runs.1.name: two runs are named 'one'"),
        (
            "{name: one, backbone: base}",
            "{name: one, backbone: 3}",
            "27:27: runs.0.backbone is 3; it must be text (or a section); put it in quotes",
        ),
        (
            "{name: one, backbone: base}",
            "{name: one, backbone: {kind: pretrained}}",
            "27:17: the required key 'runs.0.backbone.path' is missing",
        ),
        (
            "backbone: sft",
            "backbone: sftt",
            "28:27: runs.1.backbone: run 'two' names stage 'sftt'; the lineage has ['base', 'sft']",
        ),
        ("steps: [0, 5]", "steps: [0, x]", '31:14: evaluation.steps.1 is "x"; it must be a whole number'),
        (
            "steps: [0, 5]",
            "steps: alll",
            '31:10: evaluation.steps is "alll"; it must be one of "ends", "all", "best" (or a list); did you mean \'all\'?',
        ),
        (
            "[q_proj]",
            "[1]",
            "25:29: recipe.training.lora.target_modules.0 is 1; it must be text; put it in quotes",
        ),
        (
            "run:two@last",
            "run:tow@last",
            "35:39: analysis.pairs.0.b: 'run:tow@last' is not known here; known: ['one', 'two']",
        ),
        (
            "run: one",
            "run: uno",
            "37:22: analysis.realignment.0.run: there is no run 'uno'; known: ['one', 'two']",
        ),
        ("seed_band: p", "seed_band: q", "38:14: analysis.seed_band: 'q' is not one of the pairs"),
        (
            "seed_band: p",
            "seed_band: [p, P]",
            "38:18: analysis.seed_band.1: 'P' is not one of the pairs; did you mean 'p'?",
        ),
        ("seed_band: p", "seed_band: [p, p]", "38:18: analysis.seed_band.1: 'p' is named twice"),
        (
            "seed_band: p",
            "seed_band: []",
            "38:14: analysis.seed_band is a list of 0; it must be a list of at least 1 (or a scalar)",
        ),
        (
            "probe: {kind: world}",
            "probe: {kind: text, path: 1, text: 2}",
            "33:29: analysis.probe.path is 1; it must be text; put it in quotes",
        ),
    ],
)
def test_experiment_file(tmp_path, old, new, expected):
    assert old in EXPERIMENT
    assert problems_of(tmp_path, EXPERIMENT.replace(old, new, 1))[0] == expected


def test_the_controls_are_valid(tmp_path):
    for text in (RUN, EXPERIMENT):
        (tmp_path / "f.yaml").write_text(text)
        assert load_config(tmp_path / "f.yaml").config.name == "demo"


def test_all_problems_at_once_in_file_order(tmp_path):
    text = RUN.replace("name: demo", "name: a/b\nname: c").replace(
        "steps: 10", "stesp: 10\n  schedule: x\nfoo: 1"
    )
    found = problems_of(tmp_path, text, ["training.batch_size=x", "a.b.c.d"])
    assert [item.split(":")[0] for item in found[:5]] == ["2", "3", "12", "13", "14"]
    assert found[5] == "override 'a.b.c.d': write key.path=value, such as training.steps=100"
    assert found[6].startswith("override 'training.batch_size=x': training.batch_size is \"x\"")
