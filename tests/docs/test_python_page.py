"""The code of docs/python.md runs as it stands, and says what the page says."""

from pathlib import Path

import numpy as np
import pytest

from tests.docs.pages import ROOT, blocks
from tests.factories import write_tiny_backbone

CODE = blocks(ROOT / "docs" / "python.md", "python")


def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_backbone(Path("base"))
    names: dict = {}
    exec(compile(CODE[0], "first", "exec"), names)
    assert names["run"].finished
    assert names["scores"].shape == (1, 2)
    assert names["scores"][0, 0] > names["scores"][0, 1]
    first = (names["run"].checkpoint(3 - 1) / "model.safetensors").read_bytes()
    exec(compile(CODE[1], "second", "exec"), names)
    assert names["run"].steps[-1] == len(names["seen"]) < 6
    assert not names["run"].finished
    assert "runs/watched/checkpoints/step-000001" in capsys.readouterr().out
    assert (names["run"].checkpoint(2) / "model.safetensors").read_bytes() == first  # looking changes nothing
    exec(compile(CODE[2], "third", "exec"), names)
    told = names["run"].metrics()
    assert np.allclose(told["infonce"] + 0.1 * told["terms.lean"], told["loss"])
