"""What docs/sweeps.md says is so: its files load, its commands exist."""

import re
import shutil
from pathlib import Path

import pytest

from reasoning_embedding.cli.main import main
from reasoning_embedding.config import load_config, sweep_runs

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("text", "count"), list(zip(blocks("yaml"), (24, 6), strict=True)))
def test_sweeps_load(text: str, count: int, tmp_path: Path) -> None:
    shutil.copy(ROOT / "configs" / "sweeps" / "run.yaml", tmp_path)
    (tmp_path / "sweep.yaml").write_text(text)
    assert len(sweep_runs(load_config(tmp_path / "sweep.yaml"))) == count


def test_commands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for line in "".join(blocks("bash")).splitlines():
        words = line.split("#")[0].split()
        assert words[0] == "rembed"
        with pytest.raises(SystemExit):
            main([words[1], "--help"])
        text = capsys.readouterr().out
        assert all(word in text for word in words if word.startswith("--"))
        assert not words[2].startswith("configs") or (ROOT / words[2]).exists()
