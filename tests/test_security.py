"""Nothing from a file or a configuration runs code, leaves its folder, or carries a secret out."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Annotated

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from reasoning_embedding import config
from reasoning_embedding.backbones import build_backbone
from reasoning_embedding.backbones.load import load_tokenizer
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.checkpoints.state import explain_damage, read_state
from reasoning_embedding.config import load_config
from reasoning_embedding.config.reading.loading import KINDS
from reasoning_embedding.config.reading.sections import field_annotation, sections
from reasoning_embedding.errors import ConfigError, InputError
from reasoning_embedding.experiments.processes import ProcessPool
from reasoning_embedding.secrets import is_secret_name, mask, masked

ESCAPES = ["../x", "..", ".", "/abs", "a/b", "a\\b", "a\0b", "", "-rf", "~", "a b", "x" * 121, "ä"]
TOKEN = "hf_" + "aB3" * 11


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


def test_what_counts_as_a_secret() -> None:
    assert all(
        map(is_secret_name, ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD", "APIKEY"])
    )
    assert not any(
        map(is_secret_name, ["HOME", "TOKENIZERS_PARALLELISM", "DATA_KEYS", "REASONING_EMBEDDING_DATA"])
    )


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


def test_a_manifest_carries_no_secret(tmp_path: Path) -> None:
    from reasoning_embedding.files import write_json

    run = RunFolder(tmp_path)
    write_json(run.manifest, masked({"sources": [f"https://u:{TOKEN}@host/data"]}))
    assert TOKEN not in run.manifest.read_text()
