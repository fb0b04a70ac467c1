"""What tests of reports share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are files with nothing in them: drawing takes most of a report's time."""

    def write(figure: object, target: Any, *words: object, **options: object) -> None:
        Path(target).write_bytes(b"\x89PNG\r\n\x1a\n")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", write)
