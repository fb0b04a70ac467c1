"""Nothing from a file or a configuration runs code, leaves its folder, or carries a secret out."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from reasoning_embedding import config
from reasoning_embedding.backbones import build_backbone
from reasoning_embedding.backbones.load import load_tokenizer
from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.checkpoints.state import explain_damage, read_state
from reasoning_embedding.config import load_config
from reasoning_embedding.config.reading.loading import KINDS
from reasoning_embedding.config.reading.sections import field_annotation, sections
from reasoning_embedding.errors import ConfigError, InputError
from reasoning_embedding.experiments.processes import ProcessPool
from reasoning_embedding.files import atomic_write, write_json
from reasoning_embedding.secrets import (
    holds_secret,
    is_secret_name,
    known_secrets,
    mask,
    masked,
    sealed,
    unsealed,
    written,
)

ESCAPES = ["../x", "..", ".", "/abs", "a/b", "a\\b", "a\0b", "", "-rf", "~", "a b", "x" * 121, "ä"]
TOKEN = "hf_" + "aB3" * 11
EXPERIMENT = """
runs: [{name: a, backbone: {kind: pretrained, path: p}}]
recipe: {data: {sources: [{kind: world}]}}
"""


class Poison:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.marker,)


@pytest.fixture
def poisoned(tmp_path: Path, tiny_backbone: Path) -> tuple[Path, Path]:
    """A model folder whose weights are pickles in every usual name, and the file they would make."""
    marker = tmp_path / "marker"
    folder = tmp_path / "model"
    shutil.copytree(tiny_backbone, folder)
    (folder / "model.safetensors").unlink()
    assert not list(folder.glob("*.safetensors*"))
    for name in (
        "pytorch_model.bin",
        "model.pt",
        "training_args.bin",
        "optimizer.pt",
        "model.safetensors.pt",
    ):
        (folder / name).write_bytes(pickle.dumps(Poison(marker)))
    torch.save({"weight": Poison(marker)}, folder / "adapter_model.bin")
    pickle.loads((folder / "model.pt").read_bytes())  # the trap is set
    assert marker.exists()
    marker.unlink()
    return folder, marker


def test_a_pickle_is_never_loaded(poisoned: tuple[Path, Path]) -> None:
    folder, marker = poisoned
    for load in (
        lambda: build_backbone(config.PretrainedBackbone(path=str(folder))),
        lambda: load_embedder(folder),
    ):
        with pytest.raises(InputError):
            load()
    assert not marker.exists()


def test_no_call_of_the_package_loads_a_pickle() -> None:
    """Models are asked for as safetensors wherever they are loaded, and nothing unpickles by itself."""
    package = Path(config.__file__).resolve().parents[1]
    loads = 0
    harness = package / "distributed" / "harness.py"  # reads what its own forked ranks have just written
    assert harness.is_file()
    for file in set(package.rglob("*.py")) - {harness}:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            call = f"{owner}.{node.func.attr}"
            assert call not in ("torch.load", "pickle.load", "pickle.loads", "joblib.load"), (
                f"{file}:{node.lineno}"
            )
            if owner.startswith("AutoModel") and node.func.attr == "from_pretrained":
                loads += 1
                assert "use_safetensors" in {keyword.arg for keyword in node.keywords}, (
                    f"{file}:{node.lineno}"
                )
    assert loads >= 3


def test_a_pickled_state_is_never_loaded(poisoned: tuple[Path, Path]) -> None:
    folder, marker = poisoned
    (folder / "optimizer.pt").rename(folder / "state.safetensors")
    with pytest.raises(InputError, match="cannot be used"), explain_damage(folder):
        read_state(folder)
    assert not marker.exists()


def test_code_of_a_checkpoint_is_not_run(tmp_path: Path, tiny_backbone: Path) -> None:
    folder, marker = tmp_path / "model", tmp_path / "marker"
    shutil.copytree(tiny_backbone, folder)
    (folder / "modeling_evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text())
        targets = {
            "AutoConfig": "modeling_evil.Evil",
            "AutoModel": "modeling_evil.Evil",
            "AutoTokenizer": ["modeling_evil.Evil", None],
        }
        (folder / name).write_text(json.dumps(values | {"auto_map": targets}))
    load_tokenizer(str(folder))
    model, _ = build_backbone(config.PretrainedBackbone(path=str(folder)))
    assert type(model).__module__.startswith("transformers.")
    assert not marker.exists()


#: Sections whose names become folders; a suite's is looked up among mteb's own.
FOLDERS = [
    (kind, where, section)
    for kind, model in KINDS.items()
    for where, section in sections(model)
    if "name" in section.model_fields and section is not config.SuiteTask
]
assert FOLDERS


@pytest.mark.parametrize(("kind", "where", "section"), FOLDERS, ids=lambda value: str(value)[:60])
def test_names_cannot_leave_their_folder(kind: str, where: str, section: type) -> None:
    adapter = TypeAdapter(_name_type(section))
    assert adapter.validate_python("fine-1.2_x") == "fine-1.2_x"
    for bad in ESCAPES:
        with pytest.raises(ValidationError):
            adapter.validate_python(bad)


def _name_type(section: type) -> object:
    field = section.model_fields["name"]
    return Annotated[field_annotation(field), *field.metadata] if field.metadata else field_annotation(field)


def test_an_escape_on_the_command_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "kind: run\nname: x\nbackbone: {kind: pretrained, path: p}\ndata: {sources: [{kind: world}]}\n"
    )
    for bad in ("../../etc", "/etc/x", '"a\\0b"'):
        with pytest.raises(ConfigError):
            load_config(path, [f"name={bad}"])


def test_secrets_stay_out_of_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    path = tmp_path / "run.yaml"
    path.write_text(
        'kind: run\nname: x\nbackbone:\n  kind: pretrained\n  path: "${HF_TOKEN}"\ndata: {sources: [{kind: world}]}\n'
    )
    with pytest.raises(ConfigError, match="HF_TOKEN is a secret") as caught:
        load_config(path)
    assert TOKEN not in str(caught.value)
    assert f"{path}:5:9" in str(caught.value)


SECRET_NAMES = """
HF_TOKEN WANDB_API_KEY AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID MY_PASSWORD APIKEY OPENAI_KEY PGPASSWORD GITHUB_PAT
SENTRY_DSN MYSQL_PWD AZURE_CREDENTIALS DB_PASS DATABASE_URL SSH_PASSPHRASE GITHUB_TOKEN_2 STRIPE_SECRET CI_JOB_JWT
STORAGE_CONNECTION_STRING NPM_AUTH SLACK_WEBHOOK_URL openai_api_key HUGGINGFACEHUB_API_TOKEN KEY PRIVATE_KEY_BASE64
""".split()
NO_SECRET_NAMES = """
HOME PWD OLDPWD TOKENIZERS_PARALLELISM DATA_KEYS REASONING_EMBEDDING_DATA MONKEY KEYBOARD MAX_TOKENS PATH COMPAT AUTHOR
BYPASS_CACHE DSNAME PATTERN
""".split()
#: Made up, each in the form its issuer gives.
TOKENS = [
    "hf_" + "aB3" * 11,
    "sk-" + "aB3d" * 12,
    "sk-proj-" + "aB3d-" * 8,
    "sk-ant-api03-" + "aB3d" * 8,
    "ghp_" + "aB3d" * 9,
    "github_pat_11" + "A2b3_" * 10,
    "glpat-" + "aB3d" * 5,
    "xoxb-123456789012-" + "aB3d" * 6,
    "AKIA" + "AB12" * 4,
    "AIza" + "aB3d5" * 7,
    "npm_" + "aB3d" * 9,
    "SG." + "aB3d" * 5 + "." + "aB3d" * 5,
    "eyJ" + "aB3d" * 5 + ".eyJ" + "aB3d" * 5 + "." + "aB3d" * 5,
]
#: What looks a little like one and is none.
INNOCENT = """
hf_datasets hf_transfer sk-learn-pipeline-of-a-name task-0123456789abcdef0123 ghp_short step-000200 owner/name@0123abcd
model.embed_tokens.weight https://host/a@b?x=1 s3://bucket/key the_token: here password 42503420 run:NAME@STEP
""".split()


def test_what_counts_as_a_secret() -> None:
    assert [name for name in SECRET_NAMES if not is_secret_name(name)] == []
    assert [name for name in NO_SECRET_NAMES if is_secret_name(name)] == []
    assert [token for token in TOKENS if not holds_secret(f"x={token} y", ())] == []
    assert [text for text in INNOCENT if holds_secret(text, ())] == []


@pytest.mark.parametrize(
    "piece", ["sk-", "hf_", "-eyJ", "-eyJa.", "://", "?token", "&a", "-----BEGIN PRIVATE KEY-----", " SG."]
)
def test_looking_for_secrets_takes_time_in_proportion(piece: str) -> None:
    for repeat in (piece, piece + "a" * 50):
        started = time.process_time()
        written(repeat * (100_000 // len(repeat)))
        mask(repeat * (100_000 // len(repeat)))
        assert time.process_time() - started < 2


def test_values_of_secret_variables_are_known_where_they_cannot_be_ordinary_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in {
        "PGPASSWORD": "correct-horse",
        "A_KEY": "pretrained",  # a word of every configuration
        "B_KEY": "short",
        "C_CREDENTIALS": str(tmp_path),
        "D_TOKEN": 'with "quotes" & <marks>',
        "HOME": "somewhere-else",
    }.items():
        monkeypatch.setenv(name, value)
    assert known_secrets() == ['with "quotes" & <marks>', "correct-horse"]
    page = "<p>with &quot;quotes&quot; &amp; &lt;marks&gt;</p>" + json.dumps('with "quotes" & <marks>')
    assert written(page) == '<p>***</p>"***"'


def test_a_sealed_value_is_told_from_another_one_only_with_the_key(tmp_path: Path) -> None:
    now = {"a": TOKENS[0], "b": [f"https://u:{TOKENS[1]}@host", 3], "c": "plain"}
    saved = sealed(now, tmp_path)
    assert not any(secret in json.dumps(saved) for secret in TOKENS[:2])
    assert saved["c"] == "plain"
    assert sealed(now, tmp_path) == saved
    assert unsealed(saved, now, tmp_path) == now
    assert unsealed(saved, now | {"a": TOKENS[2]}, tmp_path) == now | {"a": saved["a"]}
    assert sealed(now, tmp_path / "other") != saved, "the same secret looks otherwise in another folder"
    (tmp_path / ".secret-key").unlink()
    assert unsealed(saved, now, tmp_path) == saved
    assert not (tmp_path / ".secret-key").exists()


def test_a_folder_without_secrets_gets_no_key(tmp_path: Path) -> None:
    assert sealed({"a": ["b", 1, None]}, tmp_path) == {"a": ["b", 1, None]}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("kind: run\nname: x\nbackbone: {kind: pretrained, path: p}\ndata:\n  sources: [{kind: world}]\n"
         f"  query_template: '{{instruction}} {TOKEN}'\n", ":6:"),
        (f"kind: experiment\nname: x\noutput_dir: 'https://a:{TOKEN}@host'\n", ":3:"),
    ],
)  # fmt: skip
def test_a_token_that_could_not_be_masked_is_refused_without_showing_it(
    tmp_path: Path, text: str, place: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text + EXPERIMENT if "experiment" in text else text)
    with pytest.raises(ConfigError, match="holds an access token") as caught:
        load_config(path)
    assert TOKEN not in str(caught.value)
    assert f"{path}{place}" in str(caught.value)


def test_secrets_are_masked_in_records_and_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "correct-horse")
    said = f"got {TOKEN} and correct-horse from https://me:pass@host/x"
    assert masked({"a": [said, 1, None]}) == {"a": ["got *** and *** from https://***@host/x", 1, None]}
    lines: list[str] = []
    with ProcessPool(1, lines.append) as pool:
        pool.start("job", [sys.executable, "-c", f"print({said!r})"], tmp_path / "job.log")
        assert pool.wait().code == 0
    shown = "got *** and *** from https://***@host/x"
    assert lines == [f"[job] {shown}"]
    assert (tmp_path / "job.log").read_text() == shown + "\n"
    assert mask("nothing here") == "nothing here"


def test_every_record_and_text_is_masked_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_PAT", "opaque-value-1")
    path = tmp_path / "a"
    write_json(path, {"sources": [f"https://u:{TOKEN}@host/data"], "opaque-value-1": 1})
    assert json.loads(path.read_text()) == {"sources": ["https://***@host/data"], "***": 1}
    atomic_write(path, f"say {TOKEN} and opaque-value-1")
    assert path.read_text() == "say *** and ***"
    write_json(path, {"prompt": TOKEN}, exact=True)
    assert json.loads(path.read_text()) == {"prompt": TOKEN}, "what a model reads stays what it was"
