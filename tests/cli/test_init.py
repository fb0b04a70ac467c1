"""The first day: a file of pairs and a model become a run file that is checked, planned, trained and looked at."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from reasoning_embedding.cli import _terminal
from reasoning_embedding.cli.main import VERBS, app
from reasoning_embedding.config import load_config
from reasoning_embedding.planning import processor


def rembed(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def folder(tmp_path: Path, tiny_backbone: Path):
    rows = ["question;answer", *(f'red cat {i}?;"a dog,\nthe moon {i}"' for i in range(40))]
    (tmp_path / "faq.csv").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "model").symlink_to(tiny_backbone)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def test_from_a_csv_to_a_finished_run(folder: Path) -> None:
    made = rembed("init", "faq.csv", "model").output
    assert "data: 40 rows, by the model's tokenizer" in made
    assert "query from question; positives from answer" in made
    settings = load_config("run.yaml").config
    assert (settings.name, settings.training.batch_size, settings.data.negatives) == ("faq", 8, 0)
    assert rembed("config", "check", "run.yaml").output == "run.yaml: ok (run)\n"

    looked = rembed("config", "check", "--data", "run.yaml").output
    for line in (
        "data: 40 rows of faq; 80 distinct texts",
        "5 steps of 8 queries; 5 an epoch",
        "0.0% are cut at 32",
    ):
        assert line in looked
    assert "M parameters, 2 layers of 32 dimensions" in looked

    rembed("train", "run.yaml", "training.steps=3", "training.precision=fp32")
    shown = rembed("runs", "show", "runs/faq").output
    assert "run, finished" in shown
    assert any(line.split()[0] == "loss" and "best" in line for line in shown.splitlines() if line.strip())


def test_lengths_negatives_and_thresholds_are_the_datas(folder: Path) -> None:
    long = " ".join(["word"] * 90)
    lines = [{"anchor": f"q{i}", "positive": long, "negative_1": "n", "negative_2": "m"} for i in range(30)]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    rembed("init", "rows.jsonl", "model", "-o", "long.yaml", "--name", "mine")
    settings = load_config("long.yaml").config
    assert (settings.name, settings.data.negatives) == ("mine", 2)
    assert settings.data.query_max_tokens == 32
    assert settings.data.document_max_tokens > 90
    assert settings.data.document_max_tokens % 16 == 0

    graded = "".join(f"a {i}\tb {i}\t{i % 6}\n" for i in range(30))
    Path("sts.tsv").write_text(f"sentence1\tsentence2\tscore\n{graded}", encoding="utf-8")
    rembed("init", "sts.tsv", "model", "-o", "sts.yaml")
    assert load_config("sts.yaml").config.data.sources[0].min_score == 3.33
    assert "10 of 30 pairs are learnt" in Path("sts.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("missing.csv", "model"), "missing.csv: no such data"),
        (("folder/missing.csv", "model"), "folder/missing.csv: no such data"),
        (("faq.csv", "nowhere"), "nowhere: no such model"),
        (("faq.csv", "."), "no model lies here (no config.json)"),
        (("faq.csv", "model", "-o", "there.yaml"), "there.yaml: this file is there already"),
        (("odd.csv", "model"), "no query: its fields: what, why"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_absolute_path(folder: Path, words: tuple, message: str) -> None:
    Path("there.yaml").write_text("mine", encoding="utf-8")
    Path("odd.csv").write_text("what,why\na,b\n", encoding="utf-8")
    output = rembed("init", *words, code=2).output
    assert message in output
    if "no such" in message:
        assert str(folder) in output
    assert Path("there.yaml").read_text(encoding="utf-8") == "mine"
    assert not Path("run.yaml").exists()


def test_the_data_check_finds_what_the_yaml_cannot_say(folder: Path) -> None:
    rembed("init", "faq.csv", "model")
    output = rembed("config", "check", "--data", "run.yaml", "training.batch_size=64", code=2).output
    assert "run.yaml: ok (run)" in output
    assert "64" in output
    missing = rembed("config", "check", "--data", "run.yaml", "data.sources.0.path=gone.csv", code=2).output
    assert f"{folder / 'gone.csv'}: no such file or folder" in missing
    rembed("config", "check", "run.yaml", "data.sources.0.path=gone.csv")


def test_a_plan_for_this_processor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rembed("init", "faq.csv", "model")
    monkeypatch.setattr(processor, "products_rate", lambda shape, training: (2e9, "float32"))
    slow = json.loads(rembed("plan", "run.yaml", "--here", "training.device=cpu", "--json").output)
    monkeypatch.setattr(processor, "products_rate", lambda shape, training: (4e9, "float32"))
    fast = json.loads(rembed("plan", "run.yaml", "--here", "training.device=cpu", "--json").output)
    assert slow["step_seconds"] == pytest.approx(2 * fast["step_seconds"])
    assert slow["hours"] == pytest.approx(slow["steps"] * slow["step_seconds"] / 3600)
    assert slow["fits"]
    assert sum(slow["memory_bytes"].values()) > 12 * slow["parameters"]
    small = rembed("plan", "run.yaml", "--here", "training.device=cpu", "training.memory_gib=0.0001").output
    assert "it does not fit" in small
    assert "measured just now; a step is taken to reach 50% of it" in small
    rembed("plan", "run.yaml", "--here", "--gpus", 2, code=2)


def test_the_rate_of_products_is_measured(folder: Path) -> None:
    from reasoning_embedding.planning.shapes import backbone_shape

    rembed("init", "faq.csv", "model")
    settings = load_config("run.yaml", ["training.precision=fp32", "training.threads=1"]).config
    rate, dtype = processor.products_rate(backbone_shape(settings.backbone), settings.training)
    assert dtype == "float32"
    assert 1e6 < rate < 1e15


def test_the_next_command_is_for_terminals_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "next:" not in rembed("init", "faq.csv", "model").output
    said: list[str] = []
    monkeypatch.setattr(_terminal.typer, "echo", lambda text, err=False: said.append(text))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _terminal.next_command("plan", config="run.yaml")
    assert said == ["next: rembed train run.yaml"]
    monkeypatch.setattr(_terminal, "_quiet", False)
    _terminal.be_quiet()
    _terminal.next_command("plan", config="run.yaml")
    assert len(said) == 1


def test_every_verb_has_a_next_command_and_every_one_of_them_is_said() -> None:
    folder = Path(_terminal.__file__).parent
    source = "".join(file.read_text(encoding="utf-8") for file in folder.glob("*.py"))
    said = set(re.findall(r'next_command\(\s*"([^"]+)"', source))
    said |= {name for name in _terminal.NEXT if f'"{name}" if ' in source or f'else "{name}"' in source}
    assert said == set(_terminal.NEXT)
    # The quickstart is an experiment.
    assert {name.split()[0] for name in _terminal.NEXT} | {"quickstart"} == set(VERBS)
    for line in _terminal.NEXT.values():
        verbs = re.findall(r"rembed ([a-z]+)", line)
        assert set(verbs) <= set(VERBS), line


def test_the_shell_can_complete_verbs() -> None:
    shown = CliRunner().invoke(
        app,
        [],
        env={"_REMBED_COMPLETE": "complete_bash", "COMP_WORDS": "rembed ini", "COMP_CWORD": "1"},
        prog_name="rembed",
    )
    assert shown.output.split() == ["init"]
