"""Progress of long work is said now and then, with the time left."""

from __future__ import annotations

import pytest

from reasoning_embedding.progress import Countdown


def test_progress_says_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    lines: list[str] = []
    countdown = Countdown(lines.append, "rows", done=100)
    for seconds, done in ((5.0, 150), (20.0, 200), (40.0, 300), (41.0, 1000)):
        clock[0] = seconds
        countdown(done, 1000)
    assert lines == [
        "rows: 200 of 1,000, 3 min left",
        "rows: 300 of 1,000, 2 min left",
        "rows: 1,000 of 1,000",
    ]
