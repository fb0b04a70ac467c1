"""Suites of mteb by name, and what is said when one cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import mteb
import pytest

from reasoning_embedding import config
from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.evaluation.instructions import Instructions
from reasoning_embedding.evaluation.run import evaluate
from reasoning_embedding.evaluation.tasks import suites
from reasoning_embedding.evaluation.tasks.loading import load_tasks
from reasoning_embedding.evaluation.tasks.suites import check_available, load_suite
from reasoning_embedding.reports.comparison import compare_backbones
from tests.encoders import HashingEncoder
from tests.factories import write_beir


def suite(name: str, **filters: Any) -> config.SuiteTask:
    return config.SuiteTask(kind="mteb", name=name, **filters)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize(
    ("name", "tasks", "one"),
    [
        ("MTEB(eng, v2)", 41, "Banking77Classification"),
        ("MTEB(eng)", 41, "ArguAna"),
        ("MTEB(Multilingual, v2)", 131, "STS22.v2"),
        ("MTEB(Code, v1)", 12, "AppsRetrieval"),
        ("BRIGHT(v1.1)", 20, "BrightBiologyLongRetrieval"),
        ("RAR-b", 17, "ARCChallenge"),
        ("STSBenchmark", 1, "STSBenchmark"),
    ],
)
def test_benchmarks_and_tasks_by_name(name: str, tasks: int, one: str) -> None:
    loaded = load_suite(suite(name))
    assert len(loaded) == tasks
    assert one in {task.metadata.name for task in loaded}


def test_filters_leave_what_was_asked_for_and_mteb_as_it_was() -> None:
    whole = {task.metadata.name: len(task.hf_subsets) for task in load_suite(suite("MTEB(Multilingual, v2)"))}
    german = load_suite(suite("MTEB(Multilingual, v2)", languages=["deu"]))
    assert 0 < len(german) < len(whole)
    for task in german:
        for subset in task.hf_subsets:
            assert "deu-Latn" in task.metadata.hf_subsets_to_langscripts[subset]
    again = {task.metadata.name: len(task.hf_subsets) for task in load_suite(suite("MTEB(Multilingual, v2)"))}
    assert again == whole
    english = {task.metadata.name: task.hf_subsets for task in load_suite(suite("MTEB(eng, v2)"))}
    same = {
        task.metadata.name: task.hf_subsets for task in load_suite(suite("MTEB(eng, v2)", languages=["eng"]))
    }
    assert same == english, "a language adds no subset that the benchmark leaves out"
    [task] = load_suite(suite("STS22.v2", subsets=["de", "de-en"]))
    assert sorted(task.hf_subsets) == ["de", "de-en"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (suite("BRIGTH(v1.1)"), r"no benchmark and no task 'BRIGTH\(v1.1\)'; did you mean 'BRIGHT\(v1.1\)'"),
        (suite("Bankin77Classification"), "did you mean 'Banking77Classification'"),
        (suite("mteb(eng, v2)"), r"did you mean 'MTEB\(eng, v2\)'"),
        (suite("STS22.v2", subsets=["de-ne"]), "no subset 'de-ne'; did you mean 'de-en'"),
        (suite("STS22.v2", languages=["dan"]), "no task is left"),
        (suite("STS22.v2", languages=["german"]), "STS22.v2: .*german"),
        (suite("RAR-b", subsets=["x"]), "a benchmark has no subsets"),
        (suite("MIEB(eng)"), "more than text"),
    ],
)
def test_what_mteb_does_not_have_is_said(wanted: config.SuiteTask, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_suite(wanted)


def test_offline_the_missing_data_sets_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    with pytest.raises(SetupError) as caught:
        load_tasks([suite("RAR-b")])
    arc, nli = mteb.get_task("ARCChallenge").metadata, mteb.get_task("AlphaNLI").metadata
    for metadata in (arc, nli):
        line = f"{metadata.name}: data set {metadata.dataset['path']}, revision {metadata.revision}"
        assert line in str(caught.value)
    assert str(tmp_path / "hub") in str(caught.value)
    assert "kinds beir" in str(caught.value)

    (tmp_path / "hub" / "datasets--mteb--ARCChallenge" / "snapshots" / arc.revision).mkdir(parents=True)
    (tmp_path / "datasets" / "mteb___alpha_nli" / "default" / "0.0.0" / nli.revision).mkdir(parents=True)
    check_available([mteb.get_task("ARCChallenge"), mteb.get_task("AlphaNLI")])
    with pytest.raises(SetupError) as caught:
        load_tasks([suite("RAR-b")])
    assert "PIQA" in str(caught.value)
    assert "AlphaNLI" not in str(caught.value)


@pytest.mark.usefixtures("online")
def test_suites_take_their_place_and_share_tasks() -> None:
    tasks = load_tasks(
        [
            config.WorldTask(kind="world"),
            suite("RAR-b"),
            suite("ARCChallenge"),
            suite("STS22.v2", subsets=["de"]),
        ],
        Instructions({"ARCChallenge": "Answer", "STS22.v2:de": "Vergleiche"}),
    )
    names = [task.metadata.name for task in tasks]
    assert names[:2] == ["world-heldout", "ARCChallenge"]
    assert names[-1] == "STS22.v2"
    assert len(names) == 1 + 17 + 1
    with pytest.raises(InputError, match=r"two tasks are named 'STS22\.v2'"):
        load_tasks([suite("STS22.v2", subsets=["de"]), suite("STS22.v2", subsets=["en"])])
    with pytest.raises(InputError, match="did you mean 'world-heldout'"):
        load_tasks([config.WorldTask(kind="world")], Instructions({"world-held": "x"}))


class _FakeSuite:
    """A benchmark over local data: two tasks of retrieval, one of similarity."""

    def __init__(self, folder: Path) -> None:
        (folder / "pairs.csv").write_text("a cat,the cat,5\na cat,rain,0\nred,blue,2\n", encoding="utf-8")
        paths = [write_beir(folder / name, CORPUS, ASKED, JUDGED) for name in ("one", "two")]
        tasks = [config.BeirTask(kind="beir", path=str(path)) for path in paths]
        self.tasks = load_tasks([*tasks, config.StsTask(kind="sts", path=str(folder / "pairs.csv"))])


CORPUS = {f"d{index}": f"text {index}" for index in range(12)}
ASKED = {"q0": "text 3", "q1": "number 5"}
JUDGED = {"q0": {"d3": 1}, "q1": {"d5": 1}}


@pytest.fixture
def fake_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: None) -> config.SuiteTask:
    fake = _FakeSuite(tmp_path)
    monkeypatch.setattr(suites, "benchmark_names", lambda: frozenset(["Fake(v1)"]))
    monkeypatch.setattr(suites, "get_benchmark", lambda name: fake)
    return suite("Fake(v1)")


def _scored(task: config.SuiteTask, folder: Path, model: HashingEncoder) -> dict[str, Any]:
    settings = config.Evaluation(tasks=[task])
    return evaluate(model, settings, folder, model_name="test", revision="a", step=4)


def test_a_suite_is_a_column_of_the_table(fake_suite: config.SuiteTask, tmp_path: Path) -> None:
    runs = tmp_path / "experiment" / "runs"
    for name, model in (("base", HashingEncoder()), ("variant", HashingEncoder(seed=1))):
        scores = _scored(fake_suite, runs / name / "evaluation" / "step-000004", model)
        assert scores["suites"] == {"Fake(v1)": ["one", "two", "pairs"]}
        one, two, pairs = (entry["main_score"] for entry in scores["tasks"])
        assert scores["means"]["suites"]["Fake(v1)"]["by_task"] == pytest.approx((one + two + pairs) / 3)
        by_type = 100 * ((one + two) / 2 + pairs) / 2
    table = compare_backbones(tmp_path / "experiment")
    assert table.headline == ("Fake(v1)", "Fake(v1) by type", "mean by task", "mean by type")
    assert table.pairs[0].entry("Fake(v1) by type").variant[0] == pytest.approx(by_type)


def test_a_failed_task_leaves_its_suite_without_a_mean(fake_suite: config.SuiteTask, tmp_path: Path) -> None:
    class Fails(HashingEncoder):
        def encode(self, texts: Any, **kwargs: Any) -> Any:
            if "the cat" in texts:
                raise RuntimeError("no memory")
            return super().encode(texts, **kwargs)

    runs = tmp_path / "experiment" / "runs"
    _scored(fake_suite, runs / "base" / "evaluation" / "step-000004", HashingEncoder())
    scores = _scored(fake_suite, runs / "variant" / "evaluation" / "step-000004", Fails())
    assert scores["means"]["suites"]["Fake(v1)"]["by_task"] is None
    pair = compare_backbones(tmp_path / "experiment").pairs[0]
    assert pair.entry("pairs").problem == "failed"
    assert pair.entry("Fake(v1)").problem == "missing"
    assert pair.entry("one").variant is not None
