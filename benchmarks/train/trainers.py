"""The two trainers that ``python -m benchmarks train`` compares, each running given batches of the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol
from unittest import mock

import numpy as np
import torch

from benchmarks.measure import now
from benchmarks.train.texts import MAX_TOKENS, Triple
from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder, compile_layers, compute_dtype, fuse_layers, stock_model
from reasoning_embedding.backbones.attention import register
from reasoning_embedding.backbones.layers import PACKED
from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.data.plan import PlannedRows
from reasoning_embedding.data.tokens import TokenStore, tokenize
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import SetupError
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training.engines import Replicated
from reasoning_embedding.training.optimizers import build_optimizer
from reasoning_embedding.training.step import contrastive_step

#: What a trainer can be told, such as ``{"pack_tokens": 4096}`` or ``{"loss": "cached", "chunk": 8}``.
Setting = dict[str, Any]
TEMPERATURE = 0.05
_RECIPE = config.Training(learning_rate=1e-5, weight_decay=0.0)


@dataclass(frozen=True)
class Workload:
    """What both sides train: one checkpoint, one set of rows, one compute dtype.

    Attributes
    ----------
    checkpoint : Path
        A SentenceTransformer folder.
    rows : list of Triple
        Query, positive and hard negative texts.
    dtype : str
        ``fp32``, or ``bf16`` for autocast over float32 weights.
    """

    checkpoint: Path
    rows: list[Triple]
    dtype: Literal["fp32", "bf16"]


class Trainer(Protocol):
    """What can be timed."""

    def run(self, setting: Setting, batches: Sequence[Sequence[int]]) -> tuple[list[np.ndarray], list[float]]:
        """Train the initial weights on `batches` (row numbers), a step each; return times and losses."""
        ...


MakeTrainer = Callable[[Workload], Trainer]


class Ours:
    """The step and the optimizer of :func:`reasoning_embedding.training.train`.

    Settings: ``pack_tokens``; ``store_tokens`` (None: all, 0: none, else tokens kept); ``compile`` layers.
    """

    def __init__(self, work: Workload) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._work = work
        self.embedder = load_embedder(work.checkpoint).to(device).train()
        self.compute = compute_dtype(work.dtype, device)
        self.fused = fuse_layers(stock_model(self.embedder), self.compute or torch.float32) > 0
        self._initial = _copy(self.embedder)
        self._world = World(device=device)
        self.store = tokenize_rows(self.embedder, work.rows)

    def run(self, setting: Setting, batches: Sequence[Sequence[int]]) -> tuple[list[np.ndarray], list[float]]:
        """Train on `batches`; see :class:`Trainer`."""
        options = dict(setting)
        embedder = self._compiled if options.pop("compile", False) else self.embedder
        embedder.load_state_dict(self._initial)
        loss = build_loss(config.InfoNCE(temperature=TEMPERATURE))
        engine = Replicated(
            embedder, self._world, lambda model: build_optimizer(model, _RECIPE), max_norm=1.0
        )
        times, losses = [], []
        for rows in batches:
            with _Timer(times):
                batch = batch_of(self.store, rows)
                output = contrastive_step(
                    embedder, batch, loss, self._world, autocast=self.compute, engine=engine, **options
                )
                engine.update(_RECIPE.learning_rate)
            losses.append(output.loss)
        return times, losses

    @cached_property
    def _compiled(self) -> Embedder:
        embedder = load_embedder(self._work.checkpoint).to(self._world.device).train()
        compile_layers(stock_model(embedder))
        return embedder


def tokenize_rows(embedder: Embedder, rows: Sequence[Triple]) -> TokenStore:
    """Tokens of all texts; those of row i are 3 i to 3 i + 2."""
    return tokenize(
        [("", text) for row in rows for text in row],
        embedder.tokenizer,
        query_max_tokens=MAX_TOKENS,
        document_max_tokens=MAX_TOKENS,
    )


def batch_of(store: TokenStore, rows: Sequence[int]) -> Batch:
    """The batch of these rows, as a data plan would give it."""
    query = 3 * np.asarray(rows, np.int32)
    owner = np.arange(len(rows), dtype=np.int32)
    return Batch.from_plan(
        PlannedRows(query, query + 1, query + 2, owner, query.astype(np.int64), "bench"), store
    )


class SentenceTransformers:
    """``SentenceTransformerTrainer`` with fused AdamW.

    Settings: ``loss`` (``mnrl`` or ``cached``); for ``cached``, ``chunk`` texts or ``chunk_tokens`` tokens a
    mini-batch; ``unpadded`` for its own unpadding path; ``compile`` the model.
    """

    def __init__(self, work: Workload) -> None:
        from datasets import Dataset
        from sentence_transformers import SentenceTransformer

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._work, self._device = work, device
        self.model = SentenceTransformer(str(work.checkpoint), device=device)
        self._initial = _copy(self.model)
        names = ("anchor", "positive", "negative")
        self._rows = Dataset.from_dict(dict(zip(names, map(list, zip(*work.rows, strict=True)), strict=True)))

    def run(self, setting: Setting, batches: Sequence[Sequence[int]]) -> tuple[list[np.ndarray], list[float]]:
        """Train on `batches`; see :class:`Trainer`."""
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
        from transformers import TrainerCallback
        from transformers.trainer_callback import PrinterCallback

        self.model.load_state_dict(self._initial)
        times: list[np.ndarray] = []
        timer = _Timer(times)

        class Clock(TrainerCallback):
            def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
                timer.__enter__()

            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                timer.__exit__()

        def given(*args: object, **kwargs: object) -> Any:
            return _Given(batches)

        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(self._work.checkpoint.parent / "sentence-transformers"),
            per_device_train_batch_size=max(map(len, batches)),
            max_steps=len(batches),
            optim="adamw_torch_fused",
            learning_rate=_RECIPE.learning_rate,
            weight_decay=_RECIPE.weight_decay,
            lr_scheduler_type="constant",
            bf16=self._work.dtype == "bf16",
            use_cpu=self._device == "cpu",
            torch_compile=bool(setting.get("compile")),
            batch_sampler=given,
            logging_strategy="steps",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        _set_padding(self.model, unpadded=bool(setting.get("unpadded")))
        trainer = SentenceTransformerTrainer(
            model=self.model,
            args=arguments,
            train_dataset=self._rows,
            loss=self._loss(setting),
            callbacks=[Clock()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return times, losses

    def _loss(self, setting: Setting) -> torch.nn.Module:
        from sentence_transformers.sentence_transformer.losses import (
            CachedMultipleNegativesRankingLoss,
            MultipleNegativesRankingLoss,
        )

        if setting["loss"] == "mnrl":
            return MultipleNegativesRankingLoss(self.model, scale=1 / TEMPERATURE)
        return CachedMultipleNegativesRankingLoss(
            self.model,
            scale=1 / TEMPERATURE,
            mini_batch_size=setting.get("chunk", 32),
            mini_batch_num_tokens=setting.get("chunk_tokens"),
        )


class _Given:
    """A batch sampler that yields the batches it was given."""

    def __init__(self, batches: Sequence[Sequence[int]]) -> None:
        self._batches = [list(rows) for rows in batches]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def _set_padding(model: Any, *, unpadded: bool) -> None:
    """Let sentence-transformers pad, or flatten its batches and attend by our variable-length attention.

    The library asks for flash-attn by name before it flattens; only that question is answered for it. Its
    collator, its flattening, its mini-batches and its pooling are its own.
    """
    module = model[0]
    module.model.set_attn_implementation(register() if unpadded else "sdpa")
    found = ((None, PACKED, None, None), None)
    with (
        mock.patch.object(module, "_is_flash_attention_requested", return_value=True),
        mock.patch(
            "transformers.modeling_flash_attention_utils.lazy_import_flash_attention", return_value=found
        ),
    ):
        module.unpad_inputs = unpadded
    if module.can_flatten_inputs != unpadded:
        raise SetupError(
            "this sentence-transformers does not flatten its batches here", todo="compare with release 6.2"
        )


class _Timer:
    """Append the seconds between entering and leaving to a list."""

    def __init__(self, times: list[np.ndarray]) -> None:
        self._times, self._start = times, np.zeros(2)

    def __enter__(self) -> None:
        self._start = now()

    def __exit__(self, *error: object) -> None:
        self._times.append(now() - self._start)


def _copy(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
