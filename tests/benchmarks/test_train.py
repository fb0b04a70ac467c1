"""The training benchmark compares like with like, takes turns and divides by the opponent's best."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.random_model import byte_pair_tokenizer, save_random_model
from benchmarks.train import compare as bench
from benchmarks.train.cases import PACK_TOKENS
from benchmarks.train.exact import worst_difference
from benchmarks.train.texts import MIXES, Triple, make_triples, standard_library_functions, text_lengths
from benchmarks.train.trainers import Ours, SentenceTransformers, Workload
from reasoning_embedding import config
from reasoning_embedding.errors import InputError

TINY = config.Architecture(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, head_dim=16, intermediate_size=48
)


@pytest.fixture(scope="module")
def rows() -> list[Triple]:
    functions = standard_library_functions(12)
    tokenizer = byte_pair_tokenizer((item.source[item.start :][:500] for item in functions), 400)
    return [tuple(text[:90] for text in row) for row in make_triples(functions, "wide", 4, tokenizer)]


@pytest.fixture(scope="module")
def checkpoint(rows: list[Triple], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "model"
    save_random_model(folder, TINY, byte_pair_tokenizer((text for row in rows for text in row), 300))
    return folder


def test_the_step_equals_the_padded_oracle_on_several_ranks(checkpoint: Path, rows: list[Triple]) -> None:
    assert worst_difference(checkpoint, rows, ranks=(1, 2)) < 1e-12


@pytest.mark.parametrize("wrong", ["temperature", "dropout", "gather"])
def test_the_oracle_sees_a_wrong_step(
    checkpoint: Path, rows: list[Triple], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    from benchmarks.train import exact
    from reasoning_embedding.training import step

    if wrong == "temperature":
        loss = exact.build_loss(config.InfoNCE(temperature=exact.TEMPERATURE * 1.02))
        monkeypatch.setattr(exact, "build_loss", lambda settings: loss)
    elif wrong == "dropout":  # drawn from torch's generator instead, as usual
        real = exact.contrastive_step
        monkeypatch.setattr(exact, "contrastive_step", lambda *a, **k: real(*a, **{**k, "dropout": None}))
    else:  # own slice put back: what other ranks' losses say about this rank's rows is lost
        real_sum = step.sum_over_ranks
        monkeypatch.setattr(step, "sum_over_ranks", lambda x, world: x if x.ndim == 2 else real_sum(x, world))
    assert worst_difference(checkpoint, rows, ranks=(2,)) > 1e-3


def test_all_settings_of_both_sides_train_the_same(checkpoint: Path, rows: list[Triple]) -> None:
    work = Workload(checkpoint, rows, "fp32")
    batches = [range(2), range(4)]
    ours, theirs = Ours(work), SentenceTransformers(work)
    losses = [
        side.run(setting, batches)[1]
        for side, setting in (
            (ours, {"pack_tokens": 64}),
            (ours, {"pack_tokens": 64, "store_tokens": 0}),
            (ours, {"pack_tokens": 64}),
            (theirs, {"loss": "mnrl"}),
            (theirs, {"loss": "cached", "chunk": 2}),
            (theirs, {"loss": "mnrl", "unpadded": True}),
            (theirs, {"loss": "cached", "chunk_tokens": 64, "unpadded": True}),
        )
    ]
    assert len(losses[0]) == 2
    np.testing.assert_allclose(losses, [losses[0]] * len(losses), rtol=1e-4)
    assert losses[0] == losses[2], "every turn starts from the same weights"


def test_the_unpadded_opponent_computes_no_padding(checkpoint: Path, rows: list[Triple]) -> None:
    theirs = SentenceTransformers(Workload(checkpoint, rows, "fp32"))
    slots: list[int] = []
    embedding = theirs.model[0].model.embed_tokens  # the library calls the model's forward past its hooks
    embedding.register_forward_pre_hook(lambda module, args: slots.append(args[0].numel()))
    tokens = int(Ours(Workload(checkpoint, rows, "fp32")).store.lengths.sum())
    theirs.run({"loss": "mnrl", "unpadded": True}, [range(4)])
    assert sum(slots) == tokens
    slots.clear()
    theirs.run({"loss": "mnrl"}, [range(4)])
    assert sum(slots) > tokens


@pytest.mark.parametrize(("mix", "mean", "spread"), [("wide", 118, 4.0), ("narrow", 48, 1.6)])
def test_the_mixes_have_the_lengths_they_promise(mix: str, mean: float, spread: float) -> None:
    lengths = text_lengths(mix, 3 * 64)
    assert lengths.mean() == pytest.approx(mean, rel=0.08)
    assert lengths.max() / lengths.mean() == pytest.approx(spread, rel=0.2)
    assert (lengths == text_lengths(mix, 3 * 64)).all()
    assert set(MIXES) == {"wide", "narrow"}


def test_both_sides_are_swept_as_widely() -> None:
    ours, theirs = bench.our_settings(9000, quick=False), bench.their_settings(64, quick=False)
    assert {each["chunk"] for each in theirs if "chunk" in each} == {1, 2, 4, 8, 16, 32, 64}
    assert {each["chunk_tokens"] for each in theirs if "chunk_tokens" in each} == set(PACK_TOKENS)
    assert {each["pack_tokens"] for each in ours} == set(PACK_TOKENS)
    assert {each.get("store_tokens") for each in ours} == {None, 4500, 0}
    assert {"loss": "mnrl"} in theirs
    assert len(theirs) > len(ours)


def test_the_fastest_of_a_sweep_is_the_denominator() -> None:
    assert bench.fastest([({"chunk": 1}, 3.0), ({"chunk": 2}, 1.0), ({"chunk": 4}, 2.0)]) == {"chunk": 2}


@pytest.fixture
def scripted(rows: list[Triple], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sides whose steps take given seconds; returns the order they ran in."""
    order: list[str] = []

    class Scripted:
        seconds: dict[str, float]

        def __init__(self, work: object) -> None:
            self.store = types.SimpleNamespace(lengths=np.array([10, 30]))
            self.embedder = types.SimpleNamespace(model=types.SimpleNamespace(config=None))
            self.compute, self.fused = None, True

        def run(
            self, setting: dict[str, object], batches: object
        ) -> tuple[list[tuple[float, float]], list[float]]:
            order.append(str(setting))
            seconds = self.seconds[str(setting)]
            return [(9.0, 9.0), (seconds, seconds / 2)], [3.0, 2.0]

    ours = type("Ours", (Scripted,), {"seconds": OURS})
    theirs = type("Theirs", (Scripted,), {"seconds": THEIRS})
    monkeypatch.setattr(bench, "Ours", ours)
    monkeypatch.setattr(bench, "SentenceTransformers", theirs)
    monkeypatch.setattr(bench, "decoder_shape", lambda settings: None)
    monkeypatch.setattr(
        bench, "predicted_mib", lambda shape, lengths, setting, **options: 45.0 * setting["pack_tokens"]
    )
    monkeypatch.setattr(bench, "ARCHITECTURES", {"S": TINY})
    monkeypatch.setattr(bench, "standard_library_functions", lambda count: [])
    monkeypatch.setattr(bench, "make_triples", lambda *rest: rows)
    monkeypatch.setattr(bench, "save_random_model", lambda *rest, **options: None)
    monkeypatch.setattr(bench, "worst_difference", lambda *rest, **options: 1e-14)
    monkeypatch.setattr(bench, "PACK_TOKENS", (1, 2))
    monkeypatch.setattr(bench, "our_settings", lambda *rest, **options: [{"pack_tokens": n} for n in (1, 2)])
    monkeypatch.setattr(
        bench, "their_settings", lambda *rest, **options: [{"loss": "mnrl"}, {"loss": "cached", "chunk": 2}]
    )
    monkeypatch.setattr(bench, "step_mib", lambda side, *rest: {ours: 50.0, theirs: 100.0}[side])
    monkeypatch.setattr(bench, "cases", lambda **options: [bench.Case("S", "wide", "bf16", 4)])
    return order


MNRL, CACHED = "{'loss': 'mnrl'}", "{'loss': 'cached', 'chunk': 2}"
OURS = {"{'pack_tokens': 1}": 2.0, "{'pack_tokens': 2}": 1.0, "{'pack_tokens': 1, 'store_tokens': 0}": 1.25}
THEIRS = {
    MNRL: 8.0,
    CACHED: 4.0,
    MNRL[:-1] + ", 'unpadded': True}": 1.5,
    CACHED[:-1] + ", 'unpadded': True}": 3.0,
}


def test_records_divide_by_the_best_of_each_opponent(scripted: list[str]) -> None:
    exact, *records = bench.bench_train(quick=True)
    assert (exact["name"], exact["ratio"], exact["memory_ratio"]) == ("train/exact", 1e4, None)
    assert {record["name"]: record["ratio"] for record in records} == {
        "train/wide/st-best/bf16": 4.0,
        "train/wide/st-unpadded/bf16": 1.5,
        "train/wide/st-default/bf16": 8.0,
        "train/wide/st-best-replay/bf16": 3.2,
    }
    best = records[0]
    assert records[3]["settings"]["ours"] == {"pack_tokens": 1, "store_tokens": 0}, (
        "2 would take 90 of 100 MiB"
    )
    assert best["settings"] == {"ours": {"pack_tokens": 2}, "other": {"loss": "cached", "chunk": 2}}
    assert (best["tokens"], best["ours"], best["other"]) == (40, 40.0, 10.0)
    assert (best["padding"], best["memory_ratio"], best["cpu_ratio"]) == (1.5, 2.0, 4.0)
    assert best["seconds"] == {"ours": [1.0] * 3, "other": [4.0] * 3}
    assert best["loss_difference"] == 0.0
    assert best["peak_mib"] == {"ours": 50.0, "other": 100.0, "predicted": 90.0}
    assert [each["seconds"] for each in best["sweeps"]["other"]] == [8.0, 4.0]
    assert [each["seconds"] for each in records[1]["sweeps"]["other"]] == [1.5, 3.0]
    sweeps = 2 + 2 + 2
    turns = scripted[sweeps : sweeps + 5]
    again = [turn for turn in turns if turn != MNRL]
    assert scripted[sweeps:] == turns + 2 * again, "three rounds; a quick one times defaults in the first"
    assert (len(set(turns)), len(again)) == (5, 4)


@pytest.mark.parametrize(("mib", "pack"), [(200.0, 2), (112.0, 1), (10.0, 1)])
def test_replay_takes_what_the_other_side_takes(
    scripted: list[str], monkeypatch: pytest.MonkeyPatch, mib: float, pack: int
) -> None:
    monkeypatch.setattr(bench, "step_mib", lambda *rest: mib)
    monkeypatch.setitem(OURS, "{'pack_tokens': 2, 'store_tokens': 0}", 1.25)
    _, *records = bench.bench_train(quick=True)
    assert records[3]["settings"]["ours"] == {"pack_tokens": pack, "store_tokens": 0}


def test_a_default_that_beats_the_swept_best_is_the_denominator(
    scripted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "fastest", lambda sweep: sweep[-1][0])
    monkeypatch.setitem(THEIRS, MNRL, 3.0)
    _, best, *_, replay = bench.bench_train(quick=True)
    assert best["settings"]["other"] == replay["settings"]["other"] == {"loss": "mnrl"}
    assert best["ratio"] == 3.0


def test_a_cell_that_fails_leaves_the_others(scripted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "cases", lambda **options: [bench.Case("S", "wide", each, 4) for each in "ab"])
    monkeypatch.setattr(bench, "fastest", lambda sweep: {}["no such setting"])
    _, *failed = bench.bench_train(quick=True)
    assert [(each["name"], each["error"]) for each in failed] == [
        (f"train/wide/st-best/{each}", "KeyError: 'no such setting'") for each in "ab"
    ]


def test_names_of_other_shapes_carry_the_shape() -> None:
    names = {case.name("st-best") for case in bench.cases(quick=False, gpu=True)}
    assert {"train/narrow/st-best/fp32", "train/M/wide/st-best/bf16"} <= names
    assert "train/Qwen3-0.6B/wide/st-best/bf16" in names
    assert not any("Qwen3" in case.model for case in bench.cases(quick=False, gpu=False))


def test_one_shape_is_compared_alone() -> None:
    def names(**options: Any) -> list[str]:
        return [case.model for case in bench.cases(**options)]

    assert names(quick=False, gpu=True, model="Qwen3-1.7B") == ["Qwen3-1.7B"]
    assert names(quick=True, gpu=True, model="Qwen3-0.6B") == ["Qwen3-0.6B"]
    assert names(quick=True, gpu=False, model="S") == ["S"] * 3
    with pytest.raises(InputError, match="no shape 'Qwen3") as error:
        bench.cases(quick=False, gpu=False, model="Qwen3-0.6B")
    assert "S, M" in str(error.value)


def test_a_full_sweep_times_what_is_close_again_and_compiles_the_fastest(
    scripted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a GPU of the future")
    monkeypatch.setattr(bench, "compute_dtype", lambda *rest: torch.bfloat16)
    compiled = {setting[:-1] + ", 'compile': True}": 0.9 for setting in OURS | THEIRS}
    for seconds in (OURS, THEIRS):
        for setting, value in compiled.items():
            monkeypatch.setitem(seconds, setting, value)
    _, best, *_ = bench.bench_train(quick=False)
    assert best["settings"]["ours"] == {"pack_tokens": 2, "compile": True}
    swept = scripted[: scripted.index("{'loss': 'mnrl'}")]
    slow, fast, fast_compiled = (
        "{'pack_tokens': 1}",
        "{'pack_tokens': 2}",
        "{'pack_tokens': 2, 'compile': True}",
    )
    assert swept == [slow, fast, fast_compiled, fast, fast_compiled]


def test_bf16_in_software_is_told_by_few_queries_or_left_out() -> None:
    for quick, queries, in_bf16 in ((True, 16, set()), (False, 64, {2})):
        found = bench.cases(quick=quick, gpu=False, bf16=False)
        assert {case.queries for case in found if case.dtype == "bf16"} == in_bf16
        in_fp32 = {(case.mix, case.queries) for case in found if (case.model, case.dtype) == ("S", "fp32")}
        assert in_fp32 == {("wide", queries), ("narrow", queries)}
        larger = bench.cases(quick=quick, gpu=False, bf16=False, model="M")
        assert [(case.dtype, case.queries) for case in larger] == [("fp32", 16)]


def test_records_of_bf16_in_software_say_so(scripted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [bench.Case("S", "wide", "bf16", 4), bench.Case("S", "wide", "fp32", 4)]
    monkeypatch.setattr(bench, "cases", lambda **options: cases)
    for half in (torch.bfloat16, None):
        monkeypatch.setattr(bench, "compute_dtype", lambda *rest, half=half: half)
        noted = {record["name"] for record in bench.bench_train(quick=True) if "note" in record}
        assert len(noted) == (0 if half else 4)
        assert all(name.endswith("bf16") for name in noted)


def test_what_does_not_fit_a_gpu_is_no_setting_of_the_sweep(
    scripted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bench.SentenceTransformers.run  # ty: ignore[unresolved-attribute]

    def full(self: object, setting: dict[str, object], batches: object) -> object:
        if setting == {"loss": "mnrl"}:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, setting, batches)

    monkeypatch.setattr(bench.SentenceTransformers, "run", full)
    _, *records = bench.bench_train(quick=True)
    assert [record["name"].split("/")[2] for record in records] == [
        "st-best",
        "st-unpadded",
        "st-best-replay",
    ]
    assert [each["seconds"] for each in records[0]["sweeps"]["other"]] == [None, 4.0]
    assert records[0]["ratio"] == 4.0
