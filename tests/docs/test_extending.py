"""The code of docs/extending.md runs, is short, and does what the page says."""

import importlib
import re

import numpy as np
import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.data.rows import BadRows
from reasoning_embedding.errors import InputError
from reasoning_embedding.losses import ContrastiveLoss
from tests.docs.pages import ROOT, blocks, found, text_of

PAGE = ROOT / "docs" / "extending.md"
LOSS, METRIC, SOURCE = blocks(PAGE, "python")


def run(code: str) -> dict:
    names: dict = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names


@pytest.mark.parametrize("code", [LOSS, METRIC, SOURCE], ids=["loss", "metric", "source"])
def test_an_extension_takes_less_than_twenty_lines(code):
    assert len([line for line in code.splitlines() if line.strip()]) < 20


def test_the_term_is_added_with_its_gradient():
    torch.manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(8, 6, dtype=torch.float64), dim=1)
    batch = Batch.from_arrays([], np.zeros(0), np.arange(4), np.arange(4) + 4)
    plain, plain_sums = ContrastiveLoss(config.InfoNCE()).compute(embeddings, batch)
    found, sums = run(LOSS)["loss"].compute(embeddings, batch)
    leaf = embeddings.clone().requires_grad_()
    expected = 0.1 * leaf.mean(dim=0).square().sum()
    expected.backward()
    assert torch.allclose(found - plain, leaf.grad, atol=1e-14)
    assert (sums["loss"] - plain_sums["loss"]).item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_metric_has_an_interval_and_a_null():
    found = run(METRIC)["found"]
    assert found.value == pytest.approx(1)
    assert found.interval.low == pytest.approx(1)
    assert found.null.p == pytest.approx(0.01)


def test_the_source_yields_rows_and_places_of_bad_ones(tmp_path):
    path = tmp_path / "faq.tsv"
    path.write_text("why?\tbecause\nhow?\t\n")
    skipping = BadRows("skip")
    rows = list(run(SOURCE)["tabbed"](path, skipping))
    assert [(row.query, row.positives, row.source) for row in rows] == [("why?", ("because",), "faq")]
    assert sum(skipping.counts.values()) == 1
    with pytest.raises(InputError) as caught:
        list(run(SOURCE)["tabbed"](path, BadRows("stop")))
    assert caught.value.where == f"{path}:2"


def test_what_is_to_be_changed_stands_in_the_file_that_the_page_names():
    named = found(r"`(\w+)` of\s`([\w/]+\.py)`", text_of(PAGE), least=3)
    for name, path in named:
        module = importlib.import_module(f"reasoning_embedding.{path.removesuffix('.py').replace('/', '.')}")
        assert hasattr(module, name), f"{name} is not in {path}"
        defined = re.compile(rf"^(def |class )?{name}\b[(:]", re.MULTILINE)
        assert defined.search(text_of(ROOT / "reasoning_embedding" / path)), f"{path} only imports {name}"
