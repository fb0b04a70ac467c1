"""The code of docs/extending.md runs, is short, and does what the page says."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from reasoning_embedding import config
from reasoning_embedding.config.functions import load_function
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.data.table import build_table
from reasoning_embedding.errors import ConfigError
from reasoning_embedding.hrsa.metrics.own import check_own_metrics, measure_own
from reasoning_embedding.lineages.rewards import Judge
from reasoning_embedding.losses import build_loss
from tests.docs.pages import ROOT, blocks, found, text_of
from tests.factories import run_settings

PAGE = ROOT / "docs" / "extending.md"
CODE, SETTINGS = blocks(PAGE, "python"), blocks(PAGE, "yml")
TERMS, METRIC, INFERENCE, SOURCE, REWARD = CODE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the page in a folder, whose modules are forgotten afterwards."""
    import sys

    names = []
    for code in (TERMS, METRIC, SOURCE, REWARD):
        name = code.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(code)
        names.append(name.removesuffix(".py"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in names:
        sys.modules.pop(name, None)


def loaded(folder: Path, sections: str) -> config.RunConfig:
    (folder / "run.yaml").write_text(yaml.safe_dump({**run_settings(), **yaml.safe_load(sections)}))
    return config.load_config(folder / "run.yaml").config


@pytest.mark.parametrize("code", [METRIC, SOURCE, REWARD], ids=["metric", "source", "reward"])
def test_an_extension_takes_less_than_twenty_lines(code):
    assert len([line for line in code.splitlines() if line.strip()]) < 20


def test_terms_are_added_with_their_gradients(folder):
    settings = loaded(folder, SETTINGS[0]).loss
    assert [Path(term.function.split(":")[0]) for term in settings.terms] == [
        folder.resolve() / "terms.py"
    ] * 2
    torch.manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(8, 6, dtype=torch.float64), dim=1)
    batch = Batch.from_arrays([], np.zeros(0), np.arange(4), np.arange(4) + 4)
    plain, plain_sums = build_loss(config.InfoNCE()).compute(embeddings, batch)
    given, sums = build_loss(settings).compute(embeddings, batch)
    leaf = embeddings.clone().requires_grad_()
    cosines = leaf[:4] @ leaf[:4].T - 2 * torch.eye(4)
    expected = 0.1 * leaf.mean(dim=0).square().sum() + 0.05 * (cosines - 0.3).clamp(min=0).mean()
    expected.backward()
    assert leaf.grad is not None
    assert torch.allclose(given - plain, leaf.grad, atol=1e-14)
    assert (sums["loss"] - plain_sums["loss"]).item() == pytest.approx(expected.item(), rel=1e-12)
    assert {"terms.lean", "terms.far_queries"} <= set(sums)
    # Of two ranks one computes a term, and their parts add up to the same.
    parts = [build_loss(settings).compute(embeddings, batch, rank=rank, ranks=2) for rank in (0, 1)]
    assert torch.allclose(sum(part[0] for part in parts), given, atol=1e-14)


def test_the_metric_is_measured_and_has_an_interval_and_a_null(folder):
    hrsa = loaded(folder, SETTINGS[1]).hrsa
    assert hrsa is not None
    check_own_metrics(hrsa)
    rows = np.random.RandomState(0).randn(50, 4)
    assert float(measure_own(hrsa.metrics[0], rows, 2 * rows)) == pytest.approx(1)
    assert float(measure_own(hrsa.metrics[0], rows, rows[::-1])) < 0.9
    names: dict = {}
    exec(compile(METRIC + INFERENCE, str(PAGE), "exec"), names)
    assert names["found"].value == pytest.approx(1)
    assert names["found"].interval.low == pytest.approx(1)
    assert names["found"].null.p == pytest.approx(0.01)


def test_the_source_yields_rows_and_bad_ones_are_counted(folder):
    data = loaded(folder, SETTINGS[2]).data
    (folder / "faq.tsv").write_text("why?\tbecause\nhow?\t\n")
    table = build_table(data.model_copy(update={"bad_rows": "skip"}))
    assert [table.row(index).query for index in range(len(table))] == ["why?"]
    assert sum(table.skipped.values()) == 1
    assert table.row(0).source == "tabbed"
    with pytest.raises(Exception, match=r"faq\.py:tabbed row 2"):
        build_table(data)


def test_the_reward_judges(folder):
    judge = Judge(f"{folder}/rewards.py:brief")
    assert judge(["7", "", "five or 7"], ["7"] * 3) == pytest.approx([1 / 1.1, 0, 1 / 1.3])
    assert yaml.safe_load(SETTINGS[3]) == {"reward": "rewards:brief"}
    assert load_function(f"{folder}/rewards.py:brief", where="test").__name__ == "brief"


def test_a_changed_function_is_another_function(folder):
    before = loaded(folder, SETTINGS[0])
    (folder / "terms.py").write_text(TERMS.replace("square().sum()", "abs().sum()"))
    after = loaded(folder, SETTINGS[0])
    changed = config.changed_since(config.resolved_json(before), after)
    assert changed == ["loss.terms.0.sha256", "loss.terms.1.sha256"]
    # What was read before runs no other text.
    with pytest.raises(Exception, match="has changed since the configuration was read"):
        build_loss(before.loss)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("terms:lean", "term:lean", "no module 'term' in"),
        ("terms:lean", "terms:leen", "no function 'leen'; did you mean 'lean'?"),
        (
            "closest: 0.3",
            "closets: 0.3",
            "no argument 'closets', which options names; did you mean 'closest'?",
        ),
        ("terms:lean", "rewards:brief, options: {x: 1}", "no argument 'x'"),
    ],
)
def test_what_is_wrong_with_a_function_is_said_with_its_place(folder, old, new, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        loaded(folder, SETTINGS[0].replace(old, new))
    assert re.search(r"run\.yaml:\d+:\d+: ", str(caught.value))


def test_what_is_to_be_changed_stands_in_the_file_that_the_page_names():
    named = found(r"`(\w+)` of\s`([\w/]+\.py)`", text_of(PAGE), least=1)
    for name, path in named:
        module = importlib.import_module(f"reasoning_embedding.{path.removesuffix('.py').replace('/', '.')}")
        assert hasattr(module, name), f"{name} is not in {path}"
        defined = re.compile(rf"^(def |class )?{name}\b[(:]", re.MULTILINE)
        assert defined.search(text_of(ROOT / "reasoning_embedding" / path)), f"{path} only imports {name}"
