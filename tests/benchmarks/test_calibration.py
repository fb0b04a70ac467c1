"""Type-I error, coverage and verdict errors of HRSA's inference, by simulation: the main cells of docs/calibration.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import calibration
from benchmarks.calibration import (
    COVERAGE_DESIGNS,
    ESTIMATES,
    NULL_DESIGNS,
    NULL_METRICS,
    Design,
    coverage,
    rejections,
)


def test_the_page_has_the_tables_of_the_command() -> None:
    text = calibration.DOCUMENT.read_text(encoding="utf-8")
    for design in (*NULL_DESIGNS, *COVERAGE_DESIGNS):
        assert f"| {design} |" in text
    for name in (*NULL_METRICS, *ESTIMATES):
        assert f" {name} |" in text


def test_the_command_writes_between_the_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{calibration._START}\nstale\n{calibration._END}\n\nafter\n", encoding="utf-8")
    monkeypatch.setattr(calibration, "DOCUMENT", page)
    monkeypatch.setattr(calibration, "NULL_DESIGNS", (Design(12, 4, "4", 0.5),))
    monkeypatch.setattr(calibration, "COVERAGE_DESIGNS", (Design(24, 4, "1", 0.5),))
    for _ in range(2):
        calibration.main(["--simulations", "3", "--write"])
        text = page.read_text(encoding="utf-8")
        assert text.startswith("before\n\n<!--")
        assert text.endswith("-->\n\nafter\n")
        assert "stale" not in text
        assert text.count("### Coverage") == text.count("| 24 | 4 | 1 | 0.5 | ") - 1 == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", NULL_METRICS)
@pytest.mark.parametrize("design", [NULL_DESIGNS[1], NULL_DESIGNS[4]], ids=str)
def test_the_null_keeps_its_size(name: str, design: Design) -> None:
    """At unequal and at skewed lengths; documents shuffled as they stand are the control that must fail."""
    assert 0.03 <= rejections(NULL_METRICS[name], design, 800) <= 0.07
    assert rejections(NULL_METRICS[name], design, 40, aligned=False) > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("design", COVERAGE_DESIGNS, ids=str)
def test_intervals_cover(design: Design) -> None:
    for name in ("debiased CKA", "CKA of unit rows"):
        found = coverage(name, design, 400)
        assert 0.88 <= found.coverage <= 0.98, name
        assert 0.85 < found.width < 1.2, name
        assert found.equivalent < 0.1, name
    neighbours = coverage("k-NN@10", design, 240)
    assert 0.93 <= neighbours.coverage <= 0.995
    assert 0.95 < neighbours.width < 1.35
    assert neighbours.equivalent < 0.07
    # What these took the place of.
    assert coverage("k-NN@10, neighbours held fixed", design, 240).coverage < neighbours.coverage


@pytest.mark.slow
def test_biased_cka_misses_the_population() -> None:
    found = coverage("biased CKA", COVERAGE_DESIGNS[0], 100)
    assert found.coverage < 0.1
    assert found.bias > 0.1
