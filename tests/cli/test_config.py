"""``rembed config``: check, show, diff, schema."""

import json

import pytest
import yaml

from reasoning_embedding.cli.main import main
from tests.config.config_files import EXPERIMENT, RUN
from tests.fresh_python import run_python


def run(*words) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "experiment.yaml").write_text(EXPERIMENT)
    return tmp_path


def test_check_goes_through_folders(files, capsys):
    assert run("config", "check", files) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{files / 'run.yaml'}: ok (run)",
        f"{files / 'sub' / 'experiment.yaml'}: ok (experiment)",
    ]


def test_check_shows_the_problems_of_all_files(files, capsys):
    (files / "run.yaml").write_text(RUN.replace("steps", "stpes"))
    (files / "sub" / "experiment.yaml").write_text(EXPERIMENT.replace("tasks", "taskz"))
    (files / "fine.yaml").write_text(RUN)
    assert run("config", "check", files) == 2
    out, err = capsys.readouterr()
    assert out == f"{files / 'fine.yaml'}: ok (run)\n"
    assert err.startswith("error: 2 problems in the configuration\n")
    assert f"{files / 'run.yaml'}:11:3: unknown key 'stpes'" in err
    assert f"{files / 'sub' / 'experiment.yaml'}:30:3: unknown key 'taskz'" in err


def test_check_takes_overrides(files, capsys):
    assert run("config", "check", files / "run.yaml", "training.steps=0") == 2
    assert "override 'training.steps=0'" in capsys.readouterr().err
    assert run("config", "check", "training.steps=1") == 2
    assert "name at least one file" in capsys.readouterr().err


def test_check_refuses_what_is_not_there(tmp_path, capsys):
    assert run("config", "check", tmp_path / "nope.yaml") == 2
    assert "no such file" in capsys.readouterr().err
    assert run("config", "check", tmp_path) == 2
    assert "no .yaml file in this folder" in capsys.readouterr().err


def test_check_imports_no_torch(files):
    code = (
        "import atexit, sys\n"
        "heavy = ('torch', 'numpy', 'transformers', 'datasets', 'rich')\n"
        "atexit.register(lambda: print([m for m in heavy if m in sys.modules]))\n"
        "from reasoning_embedding.cli.main import main\n"
        "main(['config', 'check', sys.argv[1]])\n"
    )
    assert run_python(code, str(files)).stdout.splitlines()[-1] == "[]"


def test_show_fills_in_everything(files, capsys):
    assert run("config", "show", files / "run.yaml", "training.batch_size=8") == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["training"]["batch_size"], shown["loss"]["kind"]) == (8, "infonce")
    assert run("config", "show", "--json", files / "run.yaml") == 0
    assert json.loads(capsys.readouterr().out)["training"]["batch_size"] == 64


def test_diff(files, capsys):
    other = files / "other.yaml"
    other.write_text(RUN.replace("steps: 10", "steps: 12\n  lora: {rank: 4}"))
    assert run("config", "diff", files / "run.yaml", other) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "training.steps: 10 -> 12" in lines
    assert "training.lora.rank: (absent) -> 4" in lines
    assert run("config", "diff", other, other) == 0
    assert capsys.readouterr().out == "no difference\n"


@pytest.mark.parametrize("kind", ["run", "lineage", "experiment"])
def test_schema_is_json_with_descriptions(kind, capsys):
    assert run("config", "schema", kind) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["additionalProperties"] is False
    assert "kind" in schema["properties"]
    if kind == "run":
        batch = schema["$defs"]["Training"]["properties"]["batch_size"]
        assert (batch["description"], batch["exclusiveMinimum"]) == ("Queries a step over all ranks.", 0)


def test_schema_of_an_unknown_kind(capsys):
    assert run("config", "schema", "rnu") == 2
    assert "did you mean 'run'?" in capsys.readouterr().err


@pytest.mark.parametrize(("verb", "text"), [("train", RUN), ("experiment", EXPERIMENT), ("grow", EXPERIMENT)])
@pytest.mark.parametrize("mistake", ["misspelt", "missing", "kind"])
def test_verbs_refuse_a_bad_file_before_they_import_torch(verb, text, mistake, tmp_path):
    path = tmp_path / "file.yaml"
    if mistake != "missing":
        path.write_text(
            text.replace("name:", "nmae:", 1)
            if mistake == "misspelt"
            else f"kind: lineag\n{text[text.index('name') :]}"
        )
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('torch' in sys.modules))\n"
        "from reasoning_embedding.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    done = run_python(code, verb, str(path))
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert str(path) in done.stderr
