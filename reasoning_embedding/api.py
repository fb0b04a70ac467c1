"""What ``import reasoning_embedding as rembed`` offers: verbs of the command line as functions.

The functions check, compute and write the same as the commands. They print nothing: they return
objects, say how far they are by a bar and by the logger ``reasoning_embedding``, and raise the errors of
:mod:`reasoning_embedding.errors`, whose texts are those of the command line. A configuration is a YAML file or a
mapping that says the same; relative paths count from the current folder.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import logging
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import InputError
from .isolation import quiet_deepspeed, quiet_libraries
from .progress import Report

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from .backbones import Embedder
    from .checkpoints import RunFolder
    from .checkpoints.models import LibraryEmbedder
    from .config import FilesSource, LoadedConfig, RunConfig
    from .sweeps.sweep import SweepResult
    from .training.callbacks import OnCheckpoint, OnStep, StepInfo

#: A YAML file, or what it would say.
Config = str | os.PathLike[str] | Mapping[str, Any]
#: What computes: auto is a CUDA GPU where one answers, else the CPU.
Device = Literal["auto", "cpu", "cuda", "mps"]
#: A term of the loss: a function of (embeddings, batch), alone or with its weight.
Term = Callable[..., Any] | tuple[Callable[..., Any], float]

_LOG = logging.getLogger("reasoning_embedding")
quiet_deepspeed()  # before whichever function imports it first


@dataclass(frozen=True)
class Rows:
    """Training rows in memory, and how they are read.

    Parameters
    ----------
    rows : iterable
        A list of mappings, a ``datasets.Dataset`` or a pandas DataFrame; columns are named as in files.
    name : str
        What rows without a ``source`` are called.
    settings : mapping
        What a source of a configuration may say beside its path: ``columns``, ``instruction``, ``min_score``,
        ``limit``, ``license``.

    Examples
    --------
    >>> german = [{"frage": "was ist rot?", "antwort": "eine Farbe"}]
    >>> Rows(german, settings={"columns": {"query": "frage", "pos": "antwort"}}).name
    'rows'
    """

    rows: Iterable[Any]
    name: str = "rows"
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedRun:
    """A run folder after training.

    Attributes
    ----------
    path : Path
        The folder.
    """

    path: Path

    @property
    def steps(self) -> list[int]:
        """Steps whose model is on disk, in order."""
        return self._folder.steps()

    @property
    def finished(self) -> bool:
        """Whether its last planned step was taken; a run that a callback ended may be resumed."""
        from .checkpoints.run_records import read_manifest

        return bool(self.steps) and self.steps[-1] >= read_manifest(self._folder)["steps"]

    @property
    def best(self) -> int | None:
        """The step that scored best while training; None where nothing was scored."""
        from .checkpoints.scores import read_best

        found = read_best(self._folder)
        return None if found is None else found["step"]

    def checkpoint(self, step: int | Literal["last", "best"] = "last") -> Path:
        """Folder of a step's model.

        Raises
        ------
        InputError
            If there is no such step.
        """
        from .checkpoints.references import pick_step

        name = f"{self.path}@{step}"
        return self._folder.checkpoint(pick_step(self._folder, str(step), name))

    def metrics(self) -> pd.DataFrame:
        """What each logged step measured, a row a step; scores are columns ``evaluation.TASK``, times ``time.PHASE``."""
        import pandas as pd

        from .files import read_json_lines

        return pd.json_normalize(list(read_json_lines(self._folder.metrics)))

    def load(
        self, step: int | Literal["last", "best"] = "last", *, device: Device = "auto"
    ) -> EmbeddingModel:
        """Load a step's model; see :func:`load`."""
        return load(f"{self.path}@{step}", device=device)

    @property
    def _folder(self) -> RunFolder:
        from .checkpoints import RunFolder

        return RunFolder(self.path)


@dataclass(frozen=True)
class EmbeddingModel:
    """Any embedder, with the readout it was made with.

    Attributes
    ----------
    reference : str
        As it was asked for.
    embedder : Embedder or LibraryEmbedder
        What embeds: the packed forward where it gives the model's own vectors, else sentence-transformers.
    """

    reference: str
    embedder: Embedder | LibraryEmbedder

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self.embedder.dimension

    @property
    def prompts(self) -> dict[str, str]:
        """The model's own prompts by name, such as ``query`` and ``document``."""
        return dict(self.embedder.prompts)

    @property
    def readout(self) -> Any:
        """How token states become a vector: attention, pooling, prompt in the pool or not, heads."""
        return self.embedder.readout

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        max_tokens: int | None = None,
        truncate: int | None = None,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Embed texts.

        Parameters
        ----------
        texts : str or sequence of str
            n texts, or one.
        prompt : str, optional
            Put before every text; empty: nothing is. Absent: the prompt of that name, else the model's default one.
        prompt_name : str, optional
            One of the model's prompts.
        max_tokens : int, optional
            Longer texts are cut. Absent: at the model's own limit.
        truncate : int, optional
            Keep the first entries of each vector, at unit length again.
        progress : bool, optional
            Show a bar; absent: where someone watches, and there are many texts.

        Returns
        -------
        ndarray
            (n, D) float32 of unit length; (D,) for one text.

        Raises
        ------
        InputError
            If there is no prompt of that name, or a text is none.
        """
        from .backbones.compression import Compression

        one = isinstance(texts, str)
        listed: list[str] = [texts] if isinstance(texts, str) else list(texts)
        for index, text in enumerate(listed):
            if not isinstance(text, str):
                raise InputError(f"it is a {type(text).__name__}", where=f"texts[{index}]", todo="give texts")
        with _bar(progress if len(listed) < 256 else _shown(progress), "texts", len(listed)) as bar:
            vectors = self.embedder.encode(
                listed, prompt=prompt, prompt_name=prompt_name, max_tokens=max_tokens, progress=bar
            )
        found = Compression(truncate, None).shorten(vectors)
        return found[0] if one else found

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Cosines of embeddings, (n, D) and (m, D): (n, m)."""
        import numpy as np

        return np.atleast_2d(a) @ np.atleast_2d(b).T


def load(
    reference: str | os.PathLike[str], *, device: Device = "auto", report: Report | None = None
) -> EmbeddingModel:
    """Load any embedder so that its vectors are the ones it was published with.

    Parameters
    ----------
    reference : str or path
        A checkpoint folder, ``RUN`` (its last step), ``RUN@200``, ``RUN@best``, or ``OWNER/NAME@REVISION`` of the Hub.
    device : {"auto", "cpu", "cuda", "mps"}
        Where it computes.
    report : callable, optional
        Takes lines; absent: they are logged.

    Raises
    ------
    InputError
        If there is no such model.
    SetupError
        If there is no such device, or the Hub cannot be reached.

    Examples
    --------
    >>> model = load("runs/faq@best")  # doctest: +SKIP
    >>> questions = model.encode(["where is the river?"], prompt_name="query")  # doctest: +SKIP
    >>> model.similarity(questions, model.encode(["in the city", "under the sea"]))  # doctest: +SKIP
    """
    from .checkpoints.models import open_embedder
    from .checkpoints.references import resolve, series_of_steps, step_of
    from .distributed import chosen_device

    name = os.fspath(reference)
    run = series_of_steps(name)
    model = resolve(name) if run is None else step_of(run, "last", f"{name}@last")
    with quiet_libraries():
        return EmbeddingModel(name, open_embedder(model, device=chosen_device(device), report=report or _log))


def train(
    config: Config,
    *,
    rows: Any = None,
    terms: Sequence[Term] = (),
    overrides: Sequence[str] = (),
    run: str | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    progress: bool | None = None,
    report: Report | None = None,
) -> TrainedRun:
    """Train one run: what ``rembed train`` does, with the same checks, scores and weights.

    Parameters
    ----------
    config : str, path or mapping
        A YAML file of kind run, or what it would say (``kind`` may be left out); with `run`, of kind experiment.
    rows : list of mappings, datasets.Dataset, pandas.DataFrame, Rows or list of Rows, optional
        Take the place of ``data.sources``. They are written once into ``<output_dir>/.data``, so that the run goes on
        from there whoever resumes it, and train to the weights that a file of the same rows does.
    terms : sequence of callable or (callable, weight), optional
        Terms added to the loss: each takes (embeddings, batch) and returns a tensor without dimensions; see
        ``docs/extending.md``. A digest of their source goes into the run's settings; a run is resumed with the same
        terms or refused.
    overrides : sequence of str
        As on the command line: ``training.steps=100``.
    run : str, optional
        Which run of an experiment, whose backbone is grown.
    resume : bool
        Go on from the newest saved state.
    on_step : callable, optional
        Takes a :class:`~reasoning_embedding.training.callbacks.StepInfo` after each step, on the main rank; returning
        ``"stop"``, or raising :class:`~reasoning_embedding.training.callbacks.StopTraining`, saves the step and ends
        the run there.
    on_checkpoint : callable, optional
        Takes a :class:`~reasoning_embedding.training.callbacks.CheckpointInfo` after each saved checkpoint, likewise.
    progress : bool, optional
        Show a bar; absent: in a notebook and on a terminal.
    report : callable, optional
        Takes lines of progress, such as ``print``; absent: they are logged.

    Returns
    -------
    TrainedRun
        The run's folder.

    Raises
    ------
    InputError, SetupError, ContractError, TrainingError
        As the command, with the same texts.
    StoppedError
        After Ctrl-C, or the notebook's stop button, when the state is saved; go on with ``resume=True``.

    Examples
    --------
    >>> rows = [{"query": "what is red?", "pos": "a colour"}, {"query": "what barks?", "pos": "a dog"}]
    >>> settings = {"name": "faq", "backbone": {"kind": "pretrained", "path": "models/base"}, "data": {}}
    >>> run = train(settings, rows=rows, on_step=lambda step: "stop" if step.loss < 0.1 else None)  # doctest: +SKIP
    >>> run.load().encode(["what barks?"], prompt_name="query").shape  # doctest: +SKIP
    (1, 576)
    """
    from .config import ExperimentConfig, RunConfig, to_yaml

    if rows is not None and run is not None:
        raise InputError(
            "the runs of an experiment share its data", where="rows", todo="leave rows or run out"
        )
    if isinstance(config, Mapping) and rows is not None:
        config = {
            **config,
            "data": {"sources": [{"kind": "files", "path": "rows"}], **config.get("data", {})},
        }
    expect = RunConfig if run is None else ExperimentConfig
    loaded = _read(config, overrides, expect, kind="run" if run is None else "experiment")
    from .experiments import run_config, start_training
    from .training.callbacks import Callbacks

    settings, experiment, text = loaded.config, None, loaded.text
    if run is not None:
        settings, experiment, text = run_config(loaded.config, run), loaded.config, None
    given = _given_terms(terms)
    if rows is not None or given:
        settings = _with_rows(_with_terms(settings, terms, given), rows)
        text = to_yaml(settings)
    with quiet_libraries(), _steps_bar(progress, on_step) as shown:
        folder = start_training(
            settings,
            experiment=experiment,
            text=text,
            resume=resume,
            callbacks=Callbacks(shown, on_checkpoint, given),
            report=report or _log,
        )
    return TrainedRun(folder.path)


def evaluate(
    reference: str | os.PathLike[str],
    tasks: Sequence[Mapping[str, Any]],
    *,
    output: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    device: Device = "auto",
    report: Report | None = None,
) -> dict[str, Any]:
    """Score a model on tasks, as ``rembed evaluate`` does one; what is scored already is not scored again.

    Parameters
    ----------
    reference : str or path
        As for :func:`load`.
    tasks : sequence of mapping
        As the ``tasks`` of a configuration: ``{"kind": "beir", "path": ...}``, ``{"kind": "mteb", "name": ...}``.
    output : str or path, optional
        Folder of the scores. Absent: that of the run; a model that was not made here needs one.
    settings : mapping, optional
        Other keys of an ``evaluation`` section: ``prompts``, ``max_tokens``, ``truncate``, ``quantize``.
    device, report
        As for :func:`load`.

    Returns
    -------
    dict
        ``tasks``: a mapping each, with ``task``, ``main_score`` and its other metrics; ``model``, ``revision``.

    Raises
    ------
    InputError
        If a task or the model cannot be read.
    ReasoningEmbeddingError
        If a task failed; the others are scored.
    """
    from .checkpoints import RunFolder, step_name
    from .checkpoints.references import resolve, series_of_steps, step_of
    from .config import Evaluation, section_from_mapping
    from .distributed import joined_world
    from .experiments.scoring import failures, query_template, score_model, tasks_failed
    from .files import require_folder

    content = {**(settings or {}), "tasks": list(tasks)}
    evaluation = section_from_mapping(Evaluation, content, where="evaluate")
    name = os.fspath(reference)
    series = series_of_steps(name)
    model = resolve(name) if series is None else step_of(series, "last", f"{name}@last")
    if output is None and model.run is None:
        raise InputError("its scores need a folder", where=name, todo="give output, or name it as RUN@STEP")
    run = model.run or RunFolder(Path(model.path).resolve().parent.parent)
    folder = run.evaluation / step_name(model.step or 0) if output is None else Path(output)
    require_folder(folder)
    with quiet_libraries(), joined_world(device=device) as world:
        scores = score_model(
            model,
            evaluation,
            folder,
            name=model.provenance.get("run") or Path(model.path).resolve().name,
            step=model.provenance.get("step"),
            template=query_template(run),
            report=report or _log,
            world=world,
        )
    if failed := failures(scores, name):
        raise tasks_failed(failed)
    return scores


def analyze(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    probe: Mapping[str, Any] | None = None,
    sibling: str | None = None,
    levels: bool = True,
    settings: Mapping[str, Any] | None = None,
    device: Device = "auto",
    report: Report | None = None,
) -> dict[str, Any]:
    """Compare two models at the levels of representation, geometry and function, as ``rembed analyze`` does.

    Parameters
    ----------
    a, b : str or path
        Backbones or embedders: a folder, ``RUN@STEP``, ``OWNER/NAME@REVISION``.
    probe : mapping, optional
        The texts, as the ``probe`` of a configuration; absent: the miniature world.
    sibling : str, optional
        A model grown like `a` from other seeds.
    levels : bool
        Also measure fresh weights and other texts.
    settings : mapping, optional
        Other keys of an ``analysis`` section: ``tokens``, ``max_tokens``, ``k``, ``metrics``.
    device, report
        As for :func:`load`.

    Returns
    -------
    dict
        As :func:`reasoning_embedding.hrsa.pair.compare`.

    Raises
    ------
    InputError
        If a model or the probe cannot be used.
    """
    from .checkpoints.references import resolve
    from .config import Analysis, section_from_mapping
    from .distributed import joined_world
    from .experiments.comparisons import checkpoint, make_instrument
    from .hrsa.pair import compare

    content = {**(settings or {}), "probe": probe or {"kind": "world"}}
    section = section_from_mapping(Analysis, content, where="analyze")
    sides = [checkpoint(resolve(os.fspath(reference))) for reference in (a, b)]
    twin = None if sibling is None else checkpoint(resolve(sibling))
    with quiet_libraries(), joined_world(device=device) as world:
        instrument = make_instrument(section, None, report or _log, world)
        return compare("pair", *sides, instrument, levels=levels, sibling=twin)


def track(
    run: str | os.PathLike[str],
    *,
    settings: Mapping[str, Any] | None = None,
    device: Device = "auto",
    report: Report | None = None,
) -> pd.DataFrame:
    """Measure the checkpoints of a run against its first, or what `settings` names, as ``rembed track`` does.

    Parameters
    ----------
    run : str or path
        Its folder; steps measured before are kept.
    settings : mapping, optional
        As the ``hrsa`` section of a run: ``probe``, ``against``, ``steps``, ``metrics``; they win over the run's own.
    device, report
        As for :func:`load`.

    Returns
    -------
    DataFrame
        A row a step, reference, layer and metric; it also lies in ``hrsa/track.parquet``.

    Raises
    ------
    InputError
        If the run, a reference or the probe cannot be used.
    """
    import pandas as pd

    from .checkpoints.run_records import read_settings
    from .config import Tracking, section_from_mapping
    from .distributed import joined_world
    from .experiments.comparisons import series_of, track_series

    [series] = series_of([os.fspath(run)])
    own = (read_settings(series.run).get("hrsa") if series.run else None) or {}
    content = {"probe": {"kind": "world"}, **own, **(settings or {})}
    section = section_from_mapping(Tracking, content, where="track")
    with quiet_libraries(), joined_world(device=device) as world:
        path = track_series(series, section, report or _log, output=None, world=world)
    return pd.read_parquet(path)


@dataclass(frozen=True)
class MinedRows:
    """A file of rows with mined negatives.

    Attributes
    ----------
    path : Path
        The rows; ``<path>.report.json`` beside it holds what stands here, and the settings.
    rows, negatives, rows_without_negatives : int
        How many there are.
    mean_positive_score, mean_negative_score : float
        By the model that mined.
    """

    path: Path
    rows: int
    negatives: int
    rows_without_negatives: int
    mean_positive_score: float
    mean_negative_score: float


def mine(
    rows: Any,
    output: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    corpus: str | os.PathLike[str] | None = None,
    negatives: int = 7,
    ranks: tuple[int, int] = (1, 100),
    positive_share: float | None = 0.95,
    margin: float | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    sample: bool = False,
    seed: int = 0,
    faiss: str | None = None,
    max_tokens: int | None = None,
    query_template: str | None = None,
    document_prompt: str = "",
    report: Report | None = None,
) -> MinedRows:
    """Give every row hard negatives that a model ranks high, as ``rembed data mine`` does.

    A call that was stopped goes on when it is made again.

    Parameters
    ----------
    rows : str, path, list of mappings, datasets.Dataset, pandas.DataFrame, Rows or list of Rows
        A file or folder of rows, the YAML file of a run, or rows in memory, which are written into ``.data`` beside
        `output`.
    output : str or path
        ``.jsonl`` or ``.jsonl.gz``.
    model : str or path
        As for :func:`load`, or ``bm25``.
    revision : str, optional
        Of a Hub id.
    corpus : str or path, optional
        What is mined from, ``{"_id": id, "text": text}`` a line; absent: the documents of the rows.
    negatives : int
        Most negatives a row.
    ranks : (int, int)
        Window of ranks, both inside, positives left out.
    positive_share : float or None
        A negative scores at most this share of the lowest positive; None or 0: no such rule.
    margin, max_score, min_score : float, optional
        A negative scores at least `margin` less than the lowest positive, and between the bounds.
    sample : bool
        Take a sample of those that pass, drawn by `seed`, not the best.
    seed : int
        Of the sample.
    faiss : str, optional
        FAISS's description of an index; absent: exact search.
    max_tokens : int, optional
        Longer texts are cut; absent: at the model's own limit.
    query_template : str, optional
        Prompt of a query that has an instruction; holds ``{instruction}``.
    document_prompt : str
        Put before every document.
    report : callable, optional
        Takes lines; absent: they are logged.

    Raises
    ------
    InputError
        If rows, corpus, model or rules cannot be used, or `output` exists and this call did not make it.
    SetupError
        If a library is missing or the output cannot be written.

    Examples
    --------
    >>> rows = [{"query": "what is red?", "pos": "a colour"}, {"query": "what barks?", "pos": "a dog"}]
    >>> mine(rows, "mined.jsonl", "runs/faq@best", negatives=3).negatives  # doctest: +SKIP
    6
    """
    from .files import require_output_file

    target = Path(output)
    require_output_file(target)
    from .config import Data
    from .data.given_rows import FOLDER
    from .data.mining.hard_negatives import MiningRule
    from .preparing.files import data_section
    from .preparing.mining import mine_file
    from .preparing.search import named_searcher

    draw: Literal["top", "random"] = "random" if sample else "top"
    first, last = ranks
    rule = MiningRule(
        negatives, first, last, positive_share or None, margin, max_score, min_score, draw, seed
    )
    searcher = named_searcher(
        os.fspath(model),
        revision=revision,
        faiss=faiss,
        max_tokens=max_tokens,
        query_template=query_template,
        document_prompt=document_prompt,
    )
    if isinstance(rows, str | os.PathLike):
        data = data_section(Path(rows))
    else:
        data = Data(sources=_given_sources(rows, target.parent / FOLDER))
    with quiet_libraries():
        found = mine_file(
            data,
            target,
            searcher,
            rule,
            corpus=None if corpus is None else Path(corpus),
            report=report or _log,
        )
    counts = {each.name: found[each.name] for each in fields(MinedRows) if each.name != "path"}
    return MinedRows(target, **counts)


@dataclass(frozen=True)
class PublishedModel:
    """What was exported and verified, and where it went.

    Attributes
    ----------
    repo : str
        ``ORG/NAME``.
    folder : Path
        Where it is exported: a folder a revision.
    steps : tuple of str
        Revisions beside ``main``.
    url : str or None
        Of the repository; None where nothing was uploaded.
    """

    repo: str
    folder: Path
    steps: tuple[str, ...]
    url: str | None

    @property
    def main(self) -> Path:
        """Folder of what who names no revision gets."""
        from .publishing.release import MAIN

        return self.folder / MAIN

    @property
    def card(self) -> Path:
        """The model card."""
        from .publishing.card import CARD

        return self.main / CARD

    def files(self) -> dict[str, int]:
        """Bytes of the files of ``main`` by the names they get on the Hub."""
        from .publishing.release import files_in

        return {name: file.stat().st_size for name, file in files_in(self.main).items()}


def publish(
    reference: str | os.PathLike[str],
    repo: str,
    *,
    step: int | str | None = None,
    allow_untrained: bool = False,
    all_steps: bool = False,
    tags: bool = False,
    push: bool = False,
    private: bool = False,
    overwrite: bool = False,
    token_env: str | None = None,
    license: str | None = None,
    languages: Sequence[str] = (),
    base_model: str | None = None,
    output: str | os.PathLike[str] | None = None,
    report: Report | None = None,
) -> PublishedModel:
    """Export with a model card, verify in a fresh process, and upload what is verified, as ``rembed publish`` does.

    Parameters
    ----------
    reference : str or path
        A checkpoint, a run folder, ``RUN@STEP``, or ``OWNER/NAME@REVISION`` that was published from here.
    repo : str
        ``ORG/NAME``.
    step : int or str, optional
        Of a run: a number, ``best`` or ``last``. Absent: the best where the run chose one, else the last.
    allow_untrained : bool
        Take step 0 where it is the best one.
    all_steps : bool
        Give every checkpoint a revision ``step-NNNNNN`` of its own.
    tags : bool
        Steps become tags, which never move, rather than branches.
    push : bool
        Upload; absent: only export and verify.
    private : bool
        A new repository is private.
    overwrite : bool
        Replace what the repository holds from elsewhere.
    token_env : str, optional
        Variable with the token; absent: ``HF_TOKEN``, or what ``hf auth login`` keeps.
    license, languages, base_model
        What only the author knows: licence as the Hub spells it, codes of languages, Hub id of a backbone that was
        loaded from a folder.
    output : str or path, optional
        Export folder; absent: ``RUN/publish/ORG/NAME``.
    report : callable, optional
        Takes lines; absent: they are logged.

    Raises
    ------
    InputError
        If there is no such checkpoint, it fails the verification, or the repository holds something else.
    SetupError
        If the Hub cannot be reached, fails, or does not accept the token.

    Examples
    --------
    >>> publish("runs/faq", "me/faq", license="apache-2.0").card  # doctest: +SKIP
    PosixPath('runs/faq/publish/me/faq/main/README.md')
    """
    from .config.references import is_hub_id, parse
    from .files import require_folder
    from .publishing.export import export
    from .publishing.facts import About
    from .publishing.release import FOLDER, ReleaseRecord, choose_checkpoint, plan_release
    from .publishing.verify import verify

    say, name = report or _log, os.fspath(reference)
    about = About(license, tuple(languages), base_model)
    folder, chosen = choose_checkpoint(
        name, None if step is None else str(step), allow_untrained=allow_untrained
    )
    target = None if output is None else Path(output)
    if target is None and is_hub_id(parse(name).name) and not Path(name).exists():
        target = Path(FOLDER) / repo  # beside nothing: a download lies in a cache
    release = plan_release(folder, repo, step=chosen, all_steps=all_steps, tags=tags, output=target)
    require_folder(release.folder)
    hub = None
    if push:  # before the work: a token that is no good costs no minutes
        from .publishing.hub import Hub, find_token

        hub = Hub(repo, find_token(token_env), report=say)
        hub.check_access()
    with quiet_libraries():
        export(release, about, say)
        record = ReleaseRecord(release.folder)
        verify(release, record, say)
        if hub is not None:
            from .publishing.push import push as upload

            upload(release, hub, record, private=private, overwrite=overwrite, report=say)
    url = None if hub is None else f"{hub.endpoint}/{repo}"
    return PublishedModel(repo, release.folder, tuple(item.name for item in release.steps), url)


def grow(config: Config, *, overrides: Sequence[str] = (), report: Report | None = None) -> dict[str, Path]:
    """Grow the stages of a lineage that are not there yet, as ``rembed grow`` does; return their folders by name.

    Parameters
    ----------
    config : str, path or mapping
        Of kind lineage, or of kind experiment with a lineage. Its stages are tracked where it has an ``hrsa`` section.
    overrides, report
        As for :func:`train`.

    Raises
    ------
    ReasoningEmbeddingError
        For a config that cannot be used, or a stage that misses its quality gate or learns nothing.
    """
    from .config import ExperimentConfig, LineageConfig

    settings = _read(config, overrides, (LineageConfig, ExperimentConfig), kind="lineage").config
    if isinstance(settings, ExperimentConfig):
        if settings.lineage is None:
            where = "config" if isinstance(config, Mapping) else os.fspath(config)
            raise InputError(
                "this experiment grows no lineage", where=where, todo="give it a lineage section"
            )
        place = {"kind": "lineage", "name": settings.name, "output_dir": settings.output_dir}
        settings = LineageConfig.model_validate(settings.lineage.model_dump() | place)
    from .distributed import explain_lost_ranks, joined_world
    from .experiments.comparisons import series_of, track_series
    from .lineages import grow as grow_stages

    with quiet_libraries(), joined_world(timeout_minutes=120) as world:
        say = (report or _log) if world.is_main else lambda line: None
        with explain_lost_ranks(world):
            folders = grow_stages(settings, say, world)
        for name, folder in folders.items():
            say(f"{name}: {folder}")
        if settings.hrsa is not None:
            kept = [
                str(folders[stage.name]) for stage in settings.stages if getattr(stage, "checkpoints", None)
            ]
            for series in series_of(kept):
                say(f"track: {track_series(series, settings.hrsa, say, world=world)}")
    return folders


def merge(config: Config, *, overrides: Sequence[str] = (), report: Report | None = None) -> dict[str, Any]:
    """Merge embedders, score and analyse what comes out, as ``rembed merge`` does; return the record of ``merge.json``.

    Parameters
    ----------
    config : str, path or mapping
        Of kind merge.
    overrides, report
        As for :func:`train`.

    Raises
    ------
    InputError
        If a model is missing, damaged or does not fit the others.
    SetupError
        If mergekit is not installed.
    """
    from .config import MergeConfig

    loaded = _read(config, overrides, MergeConfig, kind="merge")
    from .experiments.merges import run_merge
    from .experiments.scoring import tasks_failed
    from .reports.pages.merge import build_merge

    with quiet_libraries():
        record = run_merge(loaded.config, text=loaded.text, report=report or _log)
    page = build_merge(Path(loaded.config.output_dir) / loaded.config.name)
    (report or _log)(f"report: {page.resolve()}")
    if record["failed"]:
        raise tasks_failed(record["failed"])
    return record


def experiment(config: Config, *, overrides: Sequence[str] = (), report: Report | None = None) -> Path:
    """Run every stage of an experiment that is not done yet, as ``rembed experiment`` does; return its page.

    Parameters
    ----------
    config : str, path or mapping
        Of kind experiment.
    overrides, report
        As for :func:`train`.

    Raises
    ------
    ReasoningEmbeddingError
        When the config cannot be used or a stage fails; finished stages are kept.
    """
    from .config import ExperimentConfig

    loaded = _read(config, overrides, ExperimentConfig, kind="experiment")
    from .experiments import run_experiment
    from .reports import build

    folder = run_experiment(loaded.config, text=loaded.text, report=report or _log)
    return build(folder, report or _log)


def sweep(
    config: Config,
    *,
    overrides: Sequence[str] = (),
    jobs: int | None = None,
    shard: str | None = None,
    retry: bool = False,
    start: bool = True,
    report: Report | None = None,
) -> SweepResult:
    """Train the runs of a sweep that are not finished, then make its page, as ``rembed sweep`` does.

    Parameters
    ----------
    config : str, path or mapping
        Of kind sweep.
    overrides, report
        As for :func:`train`.
    jobs : int, optional
        Runs side by side; absent: the sweep's own.
    shard : str, optional
        ``"2/4"``: only every fourth run, from the second; then no page is made.
    retry : bool
        Start failed runs again.
    start : bool
        False: only say how far the runs are.

    Returns
    -------
    SweepResult
        How far each run is, and what it measured.

    Raises
    ------
    InputError
        If the config cannot be used, or another process runs the sweep.
    SweepError
        If runs failed or are not finished; its ``result`` says which, and the page is made.

    Examples
    --------
    >>> found = sweep("sweep.yaml")  # doctest: +SKIP
    >>> {outcome.run.name: outcome.value for outcome in found.outcomes}  # doctest: +SKIP
    """
    from .config import SweepConfig, sweep_runs

    loaded = _read(config, overrides, SweepConfig, kind="sweep")
    from .checkpoints import SweepFolder
    from .sweeps.ledger import SweepLedger
    from .sweeps.sweep import ALL_RUNS, SweepError, SweepResult, parse_shard, run_sweep

    asked, runs, say = loaded.config, sweep_runs(loaded), report or _log
    part = parse_shard(shard) if shard is not None else ALL_RUNS
    ledger, failure, page = SweepLedger(SweepFolder.of(asked).path), None, None
    if start:
        say(f"sweep {asked.name}: {len(runs)} runs")
        try:
            run_sweep(asked, runs, text=loaded.text, jobs=jobs, shard=part, retry=retry, report=say)
        except SweepError as error:
            failure = error  # the page shows what the others measured
    outcomes = tuple(ledger.outcome(asked, run) for run in part.of(runs))
    if start and part == ALL_RUNS:
        from .reports import build

        page = build(ledger.folder.path, say)
    found = SweepResult(ledger.folder.path, outcomes, page)
    if failure is not None:
        failure.result = found
        raise failure
    return found


# ------------------------------------------------------------------ what the functions share


def _log(line: str) -> None:
    _LOG.info(line)


def _read(config: Config, overrides: Sequence[str], expect: Any, *, kind: str) -> LoadedConfig:
    """Read and check a configuration, a file or a mapping."""
    from .config import config_from_mapping, load_config

    if isinstance(config, Mapping):
        return config_from_mapping(config, overrides, expect, kind=kind)
    return load_config(Path(config), overrides, expect=expect)


def _with_rows(settings: RunConfig, rows: Any) -> RunConfig:
    """Put rows of this program in the place of a run's sources."""
    if rows is None:
        return settings
    from .data.given_rows import FOLDER

    sources = _given_sources(rows, Path(settings.output_dir) / FOLDER)
    return settings.model_copy(update={"data": settings.data.model_copy(update={"sources": sources})})


def _given_sources(rows: Any, folder: Path) -> list[FilesSource]:
    """Write rows of this program below a folder; return the sources that read them."""
    from .config import FilesSource, section_from_mapping
    from .data.given_rows import write_given_rows

    one = isinstance(rows, Rows)
    several = not one and isinstance(rows, list | tuple) and bool(rows) and isinstance(rows[0], Rows)
    sources = []
    for number, part in enumerate(rows if several else [rows if one else Rows(rows)]):
        file = write_given_rows(part.rows, folder, name=part.name)
        content = {**part.settings, "kind": "files", "path": str(file)}
        sources.append(section_from_mapping(FilesSource, content, where=f"rows[{number}].settings"))
    return sources


def _given_terms(terms: Sequence[Term]) -> dict[str, Callable[..., Any]]:
    """Functions of terms by the addresses that the settings give them."""
    from .config.functions import FROM_PYTHON

    found: dict[str, Callable[..., Any]] = {}
    for number, term in enumerate(terms):
        function = term[0] if isinstance(term, tuple) else term
        if not callable(function):
            raise InputError(
                f"it is a {type(function).__name__}",
                where=f"terms[{number}]",
                todo="give a function, or (function, weight)",
            )
        name = getattr(_plain_function(function), "__name__", type(function).__name__)
        address = f"{FROM_PYTHON}{name if name.isidentifier() else f'term{number + 1}'}"
        if address in found:
            raise InputError(f"two terms are called {name!r}", where=f"terms[{number}]", todo="rename one")
        found[address] = function
    return found


def _with_terms(
    settings: RunConfig, terms: Sequence[Term], given: Mapping[str, Callable[..., Any]]
) -> RunConfig:
    from .config import OwnTerm, section_from_mapping

    sections = [
        section_from_mapping(
            OwnTerm,
            {
                "function": address,
                "weight": float(term[1]) if isinstance(term, tuple) else 1.0,
                "sha256": _source_digest(given[address]),
            },
            where=f"terms[{number}]",
        )
        for number, (address, term) in enumerate(zip(given, terms, strict=True))
    ]
    loss = settings.loss.model_copy(update={"terms": [*settings.loss.terms, *sections]})
    return settings.model_copy(update={"loss": loss})


def _plain_function(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _source_digest(function: Callable[..., Any]) -> str:
    """SHA-256 of a function's source text and what ``functools.partial`` fixed, hexadecimal.

    Of a function whose source cannot be had, as of one typed into an interpreter, its byte code and constants count.
    """
    plain, fixed = _plain_function(function), ""
    if isinstance(function, functools.partial):
        fixed = repr((function.args, sorted(function.keywords.items())))
    target = plain if inspect.isroutine(plain) or inspect.isclass(plain) else type(plain)
    try:
        source = inspect.getsource(target)
    except (OSError, TypeError):
        code = getattr(target, "__code__", None)
        source = repr(target) if code is None else repr((code.co_code, code.co_consts, code.co_names))
    return hashlib.sha256(f"{source}\n{fixed}".encode()).hexdigest()


def _shown(progress: bool | None) -> bool:
    """Whether someone watches: in a notebook, or on a terminal."""
    if progress is not None:
        return progress
    import sys

    return "ipykernel" in sys.modules or sys.stderr.isatty()


@contextlib.contextmanager
def _bar(shown: bool | None, what: str, total: int | None) -> Generator[Callable[[int, int], None] | None]:
    """A bar that is told (done, total), or None where none is shown."""
    if not shown or os.environ.get("RANK", "0") != "0":
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, unit=f" {what}") as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell


@contextlib.contextmanager
def _steps_bar(progress: bool | None, on_step: OnStep | None) -> Generator[OnStep | None]:
    """A bar over steps around `on_step`, or `on_step` alone where none is shown."""
    with _bar(_shown(progress), "steps", None) as bar:
        if bar is None:
            yield on_step
            return

        def step(info: StepInfo) -> str | None:
            bar(info.step, info.steps)
            return None if on_step is None else on_step(info)

        yield step
