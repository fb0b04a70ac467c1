"""Everything a run needs before its first step, made and checked in order."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reasoning_embedding import config
from reasoning_embedding.backbones import (
    SOFTWARE_BFLOAT16,
    Embedder,
    InputContract,
    RunReadout,
    add_lora,
    build_embedder,
    check_attention,
    compile_layers,
    compute_dtype,
    fuse_layers,
    input_contract,
    run_readout,
    stock_model,
    use_text_dropout,
)
from reasoning_embedding.checkpoints import RunFolder, read_provenance
from reasoning_embedding.checkpoints.embedder import save_checkpoint
from reasoning_embedding.checkpoints.provenance import verify_recorded
from reasoning_embedding.checkpoints.retention import prune_states
from reasoning_embedding.checkpoints.state import (
    check_groups,
    explain_damage,
    put_parameters,
    read_state,
    trainable,
    write_state,
)
from reasoning_embedding.data import Plan, Table, TokenStore, load_table, require_scores, table_tokens
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.data.cache import on_disk
from reasoning_embedding.data.holdout import hold_out, write_tasks
from reasoning_embedding.data.quality.evaluation_sources import (
    refuse_evaluation_rows,
    refuse_evaluation_sources,
)
from reasoning_embedding.data.rows import BELOW_SCORE
from reasoning_embedding.data.teacher_vectors import TeacherVectors
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import require_space
from reasoning_embedding.losses import ContrastiveLoss, build_loss, check_anchor_texts, load_terms
from reasoning_embedding.progress import Report
from reasoning_embedding.secrets import masked

from .engines import Engine, build_engine
from .optimizers import build_optimizer
from .recompute import recompute_activations
from .run_folder import StartingPoint, parent_record, schedule_record


@dataclass
class PreparedRun:
    """A run in memory, ready for its next step.

    Attributes
    ----------
    settings : config.RunConfig
        The run.
    run : RunFolder
        Where it writes.
    world : World
        The job's ranks.
    embedder : Embedder
        The model.
    engine : Engine
        How the ranks hold the model and its optimizer.
    loss : ContrastiveLoss
        What it is trained for.
    anchor : Embedder or None
        The frozen backbone that the loss compares with.
    table : Table
        Rows and distinct texts.
    plan : Plan
        Which rows each step draws.
    store : TokenStore
        Tokens of the texts.
    inputs : InputContract
        What the tokenizer makes of a text.
    readout : dict
        How the embedder reads out, and what of that its backbone does otherwise.
    parent : dict
        What the run starts from, for the provenance of its checkpoints.
    compute : torch.dtype or None
        What layers compute in; None: the dtype of the weights.
    teacher : TeacherVectors or None
        Vectors that the loss learns from.
    """

    settings: config.RunConfig
    run: RunFolder
    world: World
    embedder: Embedder
    engine: Engine
    loss: ContrastiveLoss
    anchor: Embedder | None
    table: Table
    plan: Plan
    store: TokenStore
    inputs: InputContract
    readout: dict[str, Any]
    parent: dict[str, Any]
    compute: torch.dtype | None
    teacher: TeacherVectors | None = None

    def batch(self, step: int) -> Batch:
        """What a step trains on."""
        return Batch.from_plan(self.plan.at(step), self.store, self.teacher)

    @property
    def data_fingerprint(self) -> str:
        """Of the rows, and of a teacher's vectors of them."""
        return self.table.fingerprint + ("" if self.teacher is None else f"+{self.teacher.sum}")

    def require_space(self, steps: Sequence[int]) -> None:
        """Refuse a run whose checkpoints of `steps`, and the states kept beside them, find no room on the disk.

        Raises
        ------
        SetupError
            Saying how much is needed; an engine that shards the parameters away (ZeRO-3) counts less than there is.
        """
        kept = self.settings.checkpoints.keep_states + 1  # the oldest goes when the newest is whole
        moments = 2 * sum(4 * value.numel() for value in trainable(self.embedder).values())
        model = sum(value.numel() * value.element_size() for value in self.embedder.parameters())
        what = f"saving {len(steps)} checkpoints and {min(kept, len(steps))} states"
        require_space(self.run.path, len(steps) * model + min(kept, len(steps)) * moments, what)

    def save(self, step: int) -> None:
        """Write checkpoint, then state: a process killed in between resumes from the state before."""
        weights, optimizer = self.engine.weights(), self.engine.optimizer_state()  # all ranks gather
        if self.world.is_main:
            save_checkpoint(
                self.run.checkpoint(step),
                self.embedder,
                parent=self.parent,
                weights=weights,
                run=self.settings.name,
                step=step,
                **self.readout,
            )
            adapters = trainable(self.embedder) if self.settings.training.lora is not None else {}
            kept = {name: weights[name] for name in adapters}
            settings = masked(config.resolved_json(self.settings))
            record = {
                "step": step,
                "loss": self.loss.state(),
                "checkpoint": (read_provenance(self.run.checkpoint(step)) or {})["content_hash"],
                "settings": config.digests(settings),
                "scoring": config.scoring_digest(settings),
                "data": self.data_fingerprint,
                "schedule": schedule_record(self.settings.training, self.plan.steps),
            }
            write_state(self.run.state(step), optimizer, kept, **record)
            prune_states(self.run, self.settings.checkpoints.keep_states, newest=step)
        self.world.barrier()


def prepare(
    start: StartingPoint,
    run: RunFolder,
    world: World,
    *,
    report: Report,
    given_terms: Mapping[str, Callable[..., Any]] | None = None,
) -> PreparedRun:
    """Load data and backbone, check the attention contract, build the optimizer, and restore the step to go on from.

    Parameters
    ----------
    start : StartingPoint
        The run, and the step whose saved state it goes on from.
    run : RunFolder
        Its folder.
    world : World
        The job's ranks.
    report : callable
        Takes lines of progress.
    given_terms : mapping of str to callable, optional
        Terms of the loss that a Python program gave.

    Raises
    ------
    InputError
        For a launch that contradicts the run, a token budget below the longest text, or batches too small for the
        loss's anchor; for data, a backbone or a saved state that cannot be used, and for data that models are scored
        with.
    """
    settings = start.settings
    training = settings.training

    # The launch fits the recipe, and the data are none that models are scored with.
    launched = config.EngineSettings.from_environment()
    config.check_engine(launched, training, ranks=world.size)
    tasks = settings.evaluation.public_tasks if settings.evaluation else []
    refuse_evaluation_sources(settings.data, tasks)
    given = load_terms(settings.loss, given_terms or {})

    # The data. A folder a machine: a lock need not hold between two of them.
    data = on_disk(settings.data, run.path.parent / ".data" / platform.node())
    chosen = run_readout(settings.readout, settings.backbone)
    table = load_table(data, report, prompts=chosen.prompts)
    refuse_evaluation_rows(settings.data, table.sources, tasks)
    if settings.data.holdout is not None:
        table, held = hold_out(table, settings.data.holdout, report)
        if world.is_main:
            write_tasks(run.holdout, held, table.fingerprint, settings.data.query_template)
        world.barrier()  # every rank reads them when they are scored
    if settings.loss.distillation is not None:
        require_scores(table)
    learnt = settings.loss.teacher_vectors
    teacher = None if learnt is None else TeacherVectors(Path(learnt.folder), table)
    plan = Plan(table, training, settings.data, settings.seed)
    start.check_data(table.fingerprint, None if teacher is None else teacher.sum)
    start.check_schedule(plan.steps)
    _check_anchor(settings.loss.anchor, plan, training.batch_size)
    for note in table.notes:
        report(note)
    bad = sum(count for reason, count in table.skipped.items() if reason != BELOW_SCORE)
    skipped = f", {bad} bad rows skipped" if bad else ""
    report(f"data: {len(table):,} rows, {len(table.texts):,} distinct texts{skipped}; {plan.steps} steps")
    if teacher is not None:
        report(f"learning from vectors of {teacher.record['model']}, {teacher.dimension} dimensions")

    # The backbone, its tokens and its loss.
    embedder = _embedder(settings, chosen, run, table, start.step)
    templated = embedder.tokenizer.chat_template is not None
    for line in chosen.lines(_name(settings.backbone), chat_template=templated):
        report(line)
    loss = build_loss(settings.loss, embedder.dimension, given)
    inputs = input_contract(embedder.tokenizer)
    documents = chosen.prompts.of_documents
    store = table_tokens(table, embedder.tokenizer, data, report=report, document_prompts=documents)
    embedder.require_known(int(store.values.max(initial=0)))
    report(f"tokens: {len(store.values):,}, {store.lengths.mean():.0f} a text")
    check_budget(store.lengths, training.pack_tokens)
    embedder.to(world.device)
    check_attention(stock_model(embedder), where=_name(settings.backbone), causal=embedder.readout.causal)

    # How its layers compute.
    embedder.train()
    compute = compute_dtype(training.precision, world.device)
    if training.precision == "bf16" and compute is None:
        report(SOFTWARE_BFLOAT16)
    if training.compile:
        compile_layers(stock_model(embedder), selective=training.activation_checkpointing == "selective")
    elif training.fused_layers and launched.name == "replicated":
        fused = fuse_layers(stock_model(embedder), compute or torch.float32)
        if fused:
            report(f"{fused} layers run as one function each on this CPU")

    # The engine and its optimizer, new or as a saved state left them.
    def new_engine() -> Engine:
        return build_engine(
            launched,
            embedder,
            world,
            lambda module: build_optimizer(module, training),
            max_norm=training.max_grad_norm,
            compute=compute,
        )

    if start.step:
        engine = _resumed(run.state(start.step), embedder, new_engine, loss)
        report(f"resumed after step {start.step}")
    else:
        engine = new_engine()
    anchor = _untrained(settings, chosen).to(world.device) if loss.needs_anchor else None
    return PreparedRun(
        settings=settings,
        run=run,
        world=world,
        embedder=embedder,
        engine=engine,
        loss=loss,
        anchor=anchor,
        table=table,
        plan=plan,
        store=store,
        inputs=inputs,
        readout=chosen.record(embedder),
        parent=parent_record(settings.backbone),
        compute=compute,
        teacher=teacher,
    )


def _resumed(folder: Path, embedder: Embedder, build: Callable[[], Engine], loss: ContrastiveLoss) -> Engine:
    """Put a saved state back; parameters go in before the engine cuts the module, moments afterwards."""
    with explain_damage(folder):
        optimizer, parameters, record = read_state(folder)
        put_parameters(embedder, parameters)
    engine = build()
    now = engine.optimizer_state()  # all ranks gather; nothing is in it yet
    with explain_damage(folder):
        check_groups(optimizer["param_groups"], now["param_groups"])
        engine.load_optimizer_state(optimizer)
    loss.restore(record.get("loss", {}))
    return engine


def _embedder(
    settings: config.RunConfig, chosen: RunReadout, run: RunFolder, table: Table, start: int
) -> Embedder:
    lora = settings.training.lora
    backbone, weights = settings.backbone, chosen
    if start:
        weights = run_readout(
            config.ReadoutSettings(), config.PretrainedBackbone(path=str(run.checkpoint(start)))
        )
        _check_same_readout(weights, chosen, run.checkpoint(start))
        if lora is None:
            backbone = config.PretrainedBackbone(path=str(run.checkpoint(start)))
        else:
            weights = chosen
    own = settings.backbone  # the run's checkpoint was looked at when it was chosen
    if backbone is own and isinstance(own, config.PretrainedBackbone) and Path(own.path).is_dir():
        verify_recorded(Path(own.path))
    embedder = build_embedder(
        backbone,
        weights,
        seed=settings.seed,
        prompts=chosen.saved_prompts(_prompts(table)),
        max_tokens=max(settings.data.query_max_tokens, settings.data.document_max_tokens),
    )
    recompute = settings.training.activation_checkpointing
    if recompute and not (recompute == "selective" and settings.training.compile):  # the compiler does that
        recompute_activations(stock_model(embedder), recompute)
    if lora is not None:
        # Adapters start from the run's seed, whatever was drawn before.
        torch.manual_seed(settings.seed)
        add_lora(embedder, lora)
    use_text_dropout(stock_model(embedder))
    return embedder


def _check_same_readout(saved: RunReadout, chosen: RunReadout, folder: Path) -> None:
    """Refuse to go on from a checkpoint that reads out otherwise than the run, as when its backbone was changed."""
    old, new = (replace(one.readout, end_token=False) for one in (saved, chosen))
    if old != new:
        raise InputError(
            f"the run reads out by {new}, its checkpoint by {old}",
            where=str(folder),
            todo="say in readout what the checkpoint has, or start a run of another name",
        )


def _untrained(settings: config.RunConfig, chosen: RunReadout) -> Embedder:
    """Return the run's embedder before its first step, frozen."""
    return build_embedder(settings.backbone, chosen, seed=settings.seed).eval().requires_grad_(False)


def _prompts(table: Table) -> dict[str, str]:
    """Return the query prompt of each source, under ``query`` too where all agree."""
    prompts: dict[str, str] = {}
    for index, source in enumerate(table.sources):
        rows = (table.source == index).nonzero()[0]
        if len(rows):
            prompts[source] = table.texts[table.query[rows[0]]][0]
    distinct = set(prompts.values())
    return prompts | ({"query": distinct.pop()} if len(distinct) == 1 else {})


def _name(backbone: config.Backbone) -> str:
    return (
        backbone.path if isinstance(backbone, config.PretrainedBackbone) else backbone.architecture.model_type
    )


def check_budget(lengths: np.ndarray, pack_tokens: int) -> None:
    """Refuse a token budget below the longest text, which could not be kept; a step by itself would exceed it.

    Parameters
    ----------
    lengths : np.ndarray
        (n,) tokens of the training texts, cut to the run's limits.
    pack_tokens : int
        The budget.

    Raises
    ------
    InputError
        With the number of such texts and the smallest budget that holds them.
    """
    longer, longest = int((lengths > pack_tokens).sum()), int(lengths.max(initial=0))
    if longer:
        raise InputError(
            f"{longer:,} of {len(lengths):,} texts are longer than training.pack_tokens = {pack_tokens:,}",
            where="training.pack_tokens",
            todo=f"raise it to at least {longest:,}, or lower data.query_max_tokens and data.document_max_tokens",
        )


def _check_anchor(anchor: config.Anchor | None, plan: Plan, batch_size: int) -> None:
    """Refuse batches of too few distinct texts for the CKA of ``loss.anchor``."""
    # Four queries are four texts, unless rows repeat each other; the loss itself refuses those.
    if anchor is None or batch_size >= 4:
        return
    for step in range(1, plan.steps + 1):
        rows = plan.at(step)
        texts = np.unique(np.concatenate([rows.query, rows.positive, rows.negative]))
        check_anchor_texts(len(texts), debiased=anchor.debiased, batch=f"the batch of step {step}")
