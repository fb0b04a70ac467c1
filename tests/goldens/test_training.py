"""Numbers of training as they were: losses, gradients and weights of a few steps, plans and whole runs.

``python -m tests.goldens.test_training`` prints the largest difference of each case; ``--write`` takes the numbers of
now for right; ``--exact FILE`` writes full precision to a file outside the tree or, where it exists, compares with it.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from reasoning_embedding import config
from reasoning_embedding.backbones import Readout, add_lora, fuse_layers, use_text_dropout
from reasoning_embedding.data import Plan, load_table, tokenize
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.distributed import World
from reasoning_embedding.distributed.harness import run_ranks
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training import Replicated, contrastive_step, train
from reasoning_embedding.training.optimizers import build_optimizer, learning_rate_at
from reasoning_embedding.training.recompute import recompute_activations
from tests.factories import build_tiny_tokenizer
from tests.goldens.golden import Goldens
from tests.models import exact_norms, tiny_embedder

GOLDENS = Goldens(Path(__file__).with_name("training.json"))
#: Relative. Measured over all cases: two threads against one move float64 by 1e-13 and float32 by 1.3e-5; a processor
#: without vector instructions against one with AVX-512 moves float64 by 6e-11 and float32 by 5e-5. Adapters move by
#: 1e-6, as torch draws them; what Muon makes by 1e-3, as it lets small singular values count as much as large ones.
TOLERANCE = {"float64": 1e-8, "float32": 3e-4, "exact": 1e-9}
WIDER = {
    "float64/lora": 1e-5,
    "float64/two-ranks/lora": 1e-5,
    "float64/optimizer/muon": 5e-3,
    "float32/run/muon": 5e-3,
}
TOKENS_KEPT = {"store": None, "hybrid": 30, "replay": 0}

Case = Callable[[], Any]
CASES: dict[str, Case] = {}


# ------------------------------------------------------------------ one step after another, on batches made here


def batch(step: int, queries: int = 7, negatives: int = 9) -> Batch:
    """Uneven texts, prompts before queries, a positive that is another row's too, hard negatives with scores."""
    rng = np.random.RandomState(100 + step)
    texts = 2 * queries + negatives - 1
    lengths = rng.randint(3, 14, texts)
    document = np.concatenate([np.arange(queries, texts), [queries]])
    return Batch.from_arrays(
        [rng.randint(3, 100, length).astype(np.int32) for length in lengths],
        np.where(np.arange(texts) < queries, 2, 0).astype(np.int32),
        np.arange(queries),
        document,
        np.concatenate([np.arange(queries), np.sort(rng.randint(0, queries, negatives))]),
        np.array([[0, queries + 1], [2, queries + 3]]),
        rng.normal(size=queries + negatives).astype(np.float32),
        seed=1000 + step,
    )


def projection(tensors: Sequence[torch.Tensor]) -> float:
    """What these have of one random direction, over their length: about 1 whatever their size, and of every entry."""
    vector = torch.cat([tensor.detach().reshape(-1).double() for tensor in tensors]).numpy()
    return float(vector @ np.random.RandomState(5).normal(size=len(vector)) / np.linalg.norm(vector))


def model(family: str = "qwen3", **settings: Any) -> Any:
    """A tiny embedder whose weights numpy draws: what torch draws depends on the processor's instructions."""
    embedder = tiny_embedder(family, **settings)
    draw = np.random.RandomState(0)
    for parameter in embedder.parameters():
        if parameter.ndim == 2:
            parameter.data.copy_(torch.from_numpy(draw.normal(scale=0.02, size=parameter.shape)))
    return embedder


#: As the default was when these numbers were taken, and as the paper's loss is.
UNMASKED = {"mask_same_text": False}


def steps(
    world: World,
    *,
    family: str = "qwen3",
    double: bool = True,
    loss: dict[str, Any] | None = None,
    pack_tokens: int = 40,
    memory: str = "store",
    recompute: Any = False,
    dropout: float = 0.0,
    lora: bool = False,
    fused: bool = False,
    include_prompt: bool = False,
    optimizer: str = "adamw",
    max_norm: float | None = 1.0,
    count: int = 3,
    **sizes: Any,
) -> dict[str, Any]:
    """Some steps of a tiny model of two layers; every rank returns the same."""
    settings = config.Training.model_validate(
        {
            "optimizer": {"kind": optimizer},
            "learning_rate": 2e-3,
            "steps": count,
            "warmup_ratio": 0.4,
            "final_learning_rate": 0.0,  # the default then
        }
    )
    embedder = model(family, double=double, attention_dropout=dropout, **sizes)
    embedder.readout = Readout(include_prompt=include_prompt)
    if recompute:
        recompute_activations(embedder.model, recompute)
    if lora:
        torch.manual_seed(0)
        add_lora(embedder, config.Lora(rank=4, dropout=0.3))
        embedder.double() if double else embedder.float()
    if fused:
        fuse_layers(embedder.model)
    use_text_dropout(embedder.model)
    embedder.train()
    trained = [parameter for parameter in embedder.parameters() if parameter.requires_grad]
    engine = Replicated(embedder, world, lambda module: build_optimizer(module, settings), max_norm=max_norm)
    objective = build_loss(
        config.InfoNCE.model_validate(UNMASKED | (loss or {"temperature": 0.05})), embedder.dimension
    )
    anchor = None
    if objective.needs_anchor:
        anchor = model(double=double, num_hidden_layers=1).eval().requires_grad_(False)
    found: list[dict[str, Any]] = []
    for step in range(1, count + 1):
        output = contrastive_step(
            embedder,
            batch(step),
            objective,
            world,
            pack_tokens=pack_tokens,
            store_tokens=TOKENS_KEPT[memory],
            engine=engine,
            anchor=anchor,
            dropout=(7, step),
        )
        record = {"loss": output.loss, "accuracy": output.accuracy, **dict(sorted(output.parts.items()))}
        record |= {"tokens": output.tokens, "slots": output.computed_tokens, "imbalance": output.imbalance}
        record["gradient"] = projection([p.grad for p in trained if p.grad is not None])
        rate = learning_rate_at(step, count, settings)
        record["grad_norm"] = engine.update(rate)
        objective.update(rate)
        record["weights"] = projection(trained)
        found.append(record)
    return {key: [record[key] for record in found] for key in found[0]}


def one_rank(**settings: Any) -> dict[str, Any]:
    if not settings.get("double", True):
        return steps(World(), **settings)
    with exact_norms():
        return steps(World(), **settings)


def _rank(world: World, settings: dict[str, Any]) -> dict[str, Any]:
    with exact_norms():
        return steps(world, **settings)


def two_ranks(**settings: Any) -> dict[str, Any]:
    first, second = run_ranks(2, _rank, settings)
    assert first == second
    return first


EVERYTHING: dict[str, Any] = {
    "temperature": 0.05,
    "learn_temperature": {},
    "directions": ["query_document", "query_query", "document_document"],
    "mask_same_text": True,
    "false_negatives": {"margin": 0.1},
    "matryoshka": [16],
    "distillation": {"weight": 0.5},
    "uniformity": {"weight": 0.5},
    "sigreg": {"weight": 0.2, "directions": 8},
    "anchor": {"weight": 2.0},
    "tile_rows": 2,
}
FOUR = ["query_document", "query_query", "document_query", "document_document"]
LOSSES: dict[str, dict[str, Any]] = {
    "plain": {},
    "default-temperature": {"temperature": 0.02},
    "tiles": {"tile_rows": 2},
    "same-text": {"mask_same_text": True},
    "margin": {"false_negatives": {"margin": 0.01}},
    "ratio": {"false_negatives": {"ratio": 0.98}},
    "ratio-exempt": {"false_negatives": {"ratio": 0.98, "exempt_hard_negatives": True}},
    "four-directions": {"directions": FOUR},
    "three-directions": {"directions": [FOUR[0], FOUR[1], FOUR[3]], "mask_same_text": True},
    "symmetric": {"directions": [FOUR[0], FOUR[2]], "softmax": "per_direction"},
    "joint": {"directions": [FOUR[0], FOUR[2]], "softmax": "joint"},
    "matryoshka": {"matryoshka": [8, 16]},
    "matryoshka-weights": {"matryoshka": [8, 32], "matryoshka_weights": [0.5, 2.0]},
    "distillation-kl": {"distillation": {"weight": 0.7, "teacher_temperature": 0.5}},
    "distillation-kl-temperature": {"distillation": {"temperature": 0.1}},
    "distillation-margin": {"distillation": {"method": "margin_mse", "weight": 0.3}},
    "uniformity": {"uniformity": {"weight": 0.5, "t": 3.0}},
    "sigreg": {"sigreg": {"weight": 0.4, "directions": 16}},
    "anchor": {"anchor": {"weight": 2.0}},
    "anchor-debiased": {"anchor": {"weight": 2.0, "debiased": True}},
    "learnt-temperature": {"learn_temperature": {"minimum": 0.01, "maximum": 0.2}},
    "learnt-temperature-directions": {"learn_temperature": {}, "directions": FOUR, "matryoshka": [16]},
    "everything": EVERYTHING,
}
for _name, _loss in LOSSES.items():
    CASES[f"float64/loss/{_name}"] = partial(one_rank, loss={"temperature": 0.05, **_loss})

STEPS: dict[str, dict[str, Any]] = {
    **{f"packs/{tokens}": {"pack_tokens": tokens} for tokens in (5, 24, 100, 4096)},
    **{f"memory/{memory}": {"memory": memory, "dropout": 0.2} for memory in TOKENS_KEPT},
    "recompute/layers": {"recompute": True, "dropout": 0.2},
    "recompute/selective": {"recompute": "selective", "dropout": 0.2},
    "recompute/selective-replay": {"recompute": "selective", "memory": "replay", "dropout": 0.2},
    "recompute/offload": {"recompute": "offload", "dropout": 0.2},
    "family/llama": {"family": "llama"},
    "family/qwen2": {"family": "qwen2"},
    "family/mistral": {"family": "mistral"},
    "family/causal": {"causal": True},
    "pooling/prompt": {"include_prompt": True},
    "optimizer/muon": {"optimizer": "muon", "memory": "hybrid"},
    "optimizer/unclipped": {"max_norm": None},
    "optimizer/clipped": {"max_norm": 0.01},
    "lora/store": {"lora": True, "dropout": 0.2},
    "lora/replay": {"lora": True, "memory": "replay", "pack_tokens": 5},
}
for _name, _settings in STEPS.items():
    CASES[f"float64/{_name}"] = partial(one_rank, **_settings)
for _name in ("packs/24", "memory/store", "memory/hybrid", "memory/replay", "recompute/layers", "lora/store"):
    CASES[f"float32/{_name}"] = partial(one_rank, double=False, **STEPS[_name])
CASES["float32/recompute/selective"] = partial(
    one_rank, double=False, dropout=0.2, recompute="selective", memory="hybrid"
)
CASES["float32/loss/everything"] = partial(one_rank, double=False, loss=EVERYTHING)
CASES["float32/fused/store"] = partial(one_rank, double=False, fused=True)
CASES["float32/fused/replay"] = partial(one_rank, double=False, fused=True, memory="replay", family="llama")
for _memory in TOKENS_KEPT:
    CASES[f"float64/two-ranks/{_memory}"] = partial(two_ranks, memory=_memory, dropout=0.2)
CASES["float64/two-ranks/everything"] = partial(two_ranks, loss=EVERYTHING)
CASES["float64/two-ranks/lora"] = partial(two_ranks, lora=True, memory="hybrid", dropout=0.2)


# ------------------------------------------------------------------ rows, their order, tokens, and whole runs

WORDS = "red green blue cat dog bird fish fox tree river stone city king queen moon sun star sea road house".split()


def write_rows(folder: Path) -> list[dict[str, Any]]:
    """Three files of rows with one or two positives, some hard negatives and a teacher's scores."""
    chance = random.Random(0)
    sources = []
    for name, count in (("large", 40), ("middle", 23), ("small", 11)):
        lines = []
        for _ in range(count):
            query = " ".join(chance.sample(WORDS, 3))
            extra = [
                " ".join(chance.sample(WORDS, chance.randint(1, 5))) for _ in range(chance.randint(1, 2))
            ]
            negatives = [" ".join(chance.sample(WORDS, 4)) for _ in range(chance.randint(1, 4))]
            row: dict[str, Any] = {
                "query": ["find the answer", query],
                "pos": [f"{query} {more}" for more in extra],
            }
            row |= {"neg": negatives, "pos_scores": [round(chance.random() + 1, 3) for _ in extra]}
            row["neg_scores"] = [round(chance.random(), 3) for _ in negatives]
            lines.append(json.dumps(row) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(lines))
        sources.append({"kind": "files", "path": str(folder / f"{name}.jsonl"), "name": name})
    return sources


def plan(*, seed: int = 3, size: int = 8, **settings: Any) -> dict[str, Any]:
    """Fingerprint of the rows, the first batches of a plan, and a digest of all its batches."""
    length = {key: settings.pop(key) for key in ("steps", "epochs") if key in settings}
    with tempfile.TemporaryDirectory() as folder:
        data = config.Data.model_validate({"sources": write_rows(Path(folder)), **settings})
        table = load_table(data)
    made = Plan(table, config.Training(batch_size=size, **length), data, seed)
    names = ("rows", "query", "positive", "negative", "negative_owner", "answer", "answer_owner", "score")
    digest, shown = hashlib.sha256(), []
    for step in range(1, made.steps + 1):
        found = made.at(step)
        fields = {name: getattr(found, name).tolist() for name in names}
        fields |= {"source": found.source, "seed": str(found.seed)}
        digest.update(json.dumps(fields, sort_keys=True).encode())
        if step <= 2:
            del fields["score"]
            shown.append(fields)
        elif step <= 6:
            shown.append({"rows": fields["rows"], "source": found.source})
    return {
        "fingerprint": table.fingerprint,
        "steps": made.steps,
        "steps_per_epoch": made.steps_per_epoch,
        "batches": shown,
        "digest": digest.hexdigest(),
    }


PLANS: dict[str, dict[str, Any]] = {
    "by-source": {"epochs": 3},
    "mixed": {"epochs": 2.5, "batching": "mixed"},
    "weights": {"steps": 20, "weights": {"large": 1, "middle": 3, "small": 4}},
    "temperature": {"steps": 20, "temperature": 3.0},
    "caps": {"epochs": 3, "caps": {"large": 16}},
    "no-negatives": {"steps": 12, "negatives": 0},
    "other-seed": {"epochs": 2, "seed": 2**61 + 1, "size": 5, "negatives": 2},
}
for _name, _settings in PLANS.items():
    CASES[f"exact/plan/{_name}"] = partial(plan, **_settings)


def tokens() -> dict[str, Any]:
    """Token ids of every text, as trained on."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = _save_tokenizer(Path(folder))
        table = load_table(config.Data.model_validate({"sources": write_rows(Path(folder))}))
        store = tokenize(table.texts, tokenizer, query_max_tokens=9, document_max_tokens=6)
    every = [[int(token) for token in store[index]] for index in range(len(table.texts))]
    prompts = [int(length) for length in store.prompt_lengths]
    digest = hashlib.sha256(json.dumps([every, prompts]).encode()).hexdigest()
    return {"first": every[:6], "prompts": prompts[:6], "digest": digest}


def _save_tokenizer(folder: Path) -> Any:
    build_tiny_tokenizer().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


CASES["exact/tokens"] = tokens


def rates(**settings: Any) -> list[float]:
    """Learning rates of 12 steps, in units of the highest."""
    training = config.Training.model_validate(
        {"learning_rate": 1.0, "warmup_ratio": 0.2, "final_learning_rate": 0.0, **settings}
    )
    return [learning_rate_at(step, 12, training) for step in range(1, 13)]


CASES["exact/rate/cosine"] = partial(rates, final_learning_rate=0.1)
CASES["exact/rate/linear"] = partial(rates, schedule="linear", final_learning_rate=0.1)
CASES["exact/rate/constant"] = partial(rates, schedule="constant")
CASES["exact/rate/no-warmup"] = partial(rates, warmup_ratio=0.0)


def run(
    loss: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **training: Any
) -> dict[str, Any]:
    """A run of four steps from a folder to a folder: its log, and every checkpoint's weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = _save_tokenizer(folder / "backbone")
        torch.manual_seed(0)
        shape = Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            intermediate_size=64,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
        Qwen3ForCausalLM(shape).save_pretrained(folder / "backbone")
        recipe = {"batch_size": 8, "steps": 4, "learning_rate": 1e-3, "precision": "fp32", "memory": "store"}
        recipe["final_learning_rate"] = 0.0  # the default then
        settings = config.RunConfig.model_validate(
            {
                "name": "run",
                "output_dir": str(folder / "runs"),
                "seed": 11,
                "backbone": {"kind": "pretrained", "path": str(folder / "backbone")},
                "data": {"sources": write_rows(folder), "negatives": 2, **(data or {})},
                "loss": UNMASKED | (loss or {}),
                "training": {**recipe, "fused_layers": False, "pack_tokens": 100, **training},
                "checkpoints": {"every": 2, "log_spaced": False},
                "logging": {"trackers": []},
            }
        )
        done = train(settings, report=lambda _: None)
        log = [json.loads(line) for line in done.metrics.read_text().splitlines()]
        weights = {}
        for step in done.steps():
            tensors = load_file(done.checkpoint(step) / "model.safetensors")
            weights[str(step)] = projection([tensors[key] for key in sorted(tensors)])
    times = {"seconds", "time", "tokens_per_second", "mfu", "memory", "step", "learning_rate", "crc32"}
    kept = [key for key in log[0] if key not in times and not _measures_the_machine(key)]
    return {key: [line[key] for line in log] for key in sorted(kept)} | {"weights": weights}


def _measures_the_machine(key: str) -> bool:
    return any(part in key for part in ("second", "flops", "memory", "gib", "bytes"))


RUNS: dict[str, dict[str, Any]] = {
    "default": {},
    "replay": {"memory": "replay"},
    "selective": {"activation_checkpointing": "selective", "memory": "hybrid", "store_tokens": 100},
    "fused": {"fused_layers": True},
    "lora": {"lora": {"rank": 2, "dropout": 0.2}},
    "muon": {"optimizer": {"kind": "muon"}, "schedule": "linear", "weight_decay": 0.3},
    "mixed": {"data": {"batching": "mixed", "query_max_tokens": 9, "document_max_tokens": 6}},
    "everything": {"loss": EVERYTHING},
}
for _name, _settings in RUNS.items():
    CASES[f"float32/run/{_name}"] = partial(run, **_settings)


# ------------------------------------------------------------------ comparing

for _name, _case in CASES.items():
    _rel = next((_wide for _part, _wide in WIDER.items() if _part in _name), TOLERANCE[_name.split("/")[0]])
    GOLDENS.case(_name, rel=_rel, abs=_rel / 100)(_case)


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return GOLDENS.stored()


def test_every_case_has_its_numbers_and_no_other(stored: dict[str, Any]) -> None:
    assert sorted(stored) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_training_gives_the_numbers_it_gave(name: str, stored: dict[str, Any]) -> None:
    GOLDENS.check(name, stored[name])


if __name__ == "__main__":
    GOLDENS.main()
