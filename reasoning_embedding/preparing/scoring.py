"""A teacher's scores of the rows of a file: of any embedder, any cross-encoder or BM25; resumable at any moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.checkpoints import versions
from reasoning_embedding.checkpoints.references import ResolvedModel, resolve
from reasoning_embedding.data.mining.neighbours import ExactSearch
from reasoning_embedding.data.mining.vectors import embed_texts
from reasoning_embedding.data.teacher_vectors import write_vectors
from reasoning_embedding.data.views import View
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json, require_folder
from reasoning_embedding.progress import Countdown, Report

from .files import RowOutput, is_whole_part, part_file, plain_table, row_lines
from .search import BM25, Searcher, scored

if TYPE_CHECKING:
    from reasoning_embedding.data import Table

#: Pairs scored between two moments at which a stopped job can go on.
PAIRS = 2048
_TEMPLATE = config.Data.model_fields["query_template"].default


@dataclass(frozen=True)
class Teacher:
    """Who scores rows, and how it is asked.

    Parameters
    ----------
    model : str
        A checkpoint (``RUN@200``, a folder), any SentenceTransformer or CrossEncoder (folder or Hub id), or ``bm25``.
    max_tokens : int, optional
        Longer texts (of a cross-encoder: pairs) are cut. Absent: at the model's own limit.
    query_template : str, optional
        Prompt of a query that has an instruction; holds ``{instruction}``. Absent: the model's own query prompt, and
        for an embedder that has none the default template.
    query_prompt, document_prompt : str, optional
        Put before every query or document. Absent: the model's own.
    """

    model: str
    max_tokens: int | None = None
    query_template: str | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None

    def __post_init__(self) -> None:
        if self.query_template is not None and "{instruction}" not in self.query_template:
            raise InputError("it must contain {instruction}", where="--query-template")
        if self.query_template is not None and self.query_prompt is not None:
            raise InputError(
                "a query gets one prompt",
                where="--query-prompt, --query-template",
                todo="give one of the two",
            )

    def query(self, instruction: str, own: str, otherwise: str = "") -> str:
        """Return the prompt of a query: what the user says, else the model's own, else its instruction in a template."""
        if self.query_prompt is not None:
            return self.query_prompt
        template = self.query_template if self.query_template is not None else "" if own else otherwise
        return template.replace("{instruction}", instruction) if instruction and template else own


def score_file(
    data: config.Data,
    output: Path,
    teacher: Teacher,
    *,
    vectors: Path | None = None,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Write the rows of `data` with a teacher's ``pos_scores`` and ``neg_scores``.

    Parameters
    ----------
    data : config.Data
        The rows; scores they have already are replaced.
    output : Path
        ``.jsonl`` or ``.jsonl.gz``; ``<output>.report.json`` beside it says who scored and how.
    teacher : Teacher
        The model and its prompts.
    vectors : Path, optional
        Folder that also gets an embedder's unit vectors of the texts, for ``loss.teacher_vectors``.
    report : callable
        Takes lines of progress.

    Returns
    -------
    dict
        The report: ``rows``, ``pairs``, mean scores, ``teacher`` (what it is, its content, prompts, limit, precision,
        versions) and ``settings``.

    Raises
    ------
    InputError
        If `output` exists and was not made by this very command, rows or model cannot be used, or a score is not finite.
    SetupError
        If the disk is full or the Hub cannot be reached.

    Notes
    -----
    An embedder's score is the cosine; a cross-encoder's is its logit, before any sigmoid, which would round the best
    pairs to one and the same number. Vectors, or scores of finished pairs, lie in ``<output>.progress/`` until the end.
    """
    target = RowOutput(output)
    if vectors is not None:
        _check_vectors(vectors, teacher)
    model = None if teacher.model == BM25 else resolve(teacher.model)
    crossed = model is not None and is_cross_encoder(model)
    if crossed and vectors is not None:
        raise InputError(
            "a cross-encoder has no vectors of single texts",
            where="--vectors",
            todo="leave it out, or name an embedder",
        )
    report("reading rows")
    table = plain_table(data, target.progress)
    report(f"{len(table):,} rows, {len(table.texts):,} distinct texts")
    settings = {
        "teacher": {**vars(teacher), "content": None if model is None else model.content or model.commit},
        "rows": table.fingerprint,
    }
    if (before := target.made_before(settings)) is not None and (vectors is None or vectors.is_dir()):
        report("done before")
        return before
    target.claim(settings)
    folder = target.progress
    if model is None:
        said: dict[str, Any] = {"kind": BM25, "score": "BM25"}
        table = scored(Searcher(BM25), table, folder, report)
    elif crossed:
        table, said = _cross_encoded(model, teacher, table, folder, report)
    else:
        table, said = _embedded(model, teacher, table, folder, vectors, report)
    with target.open() as file:
        for line in row_lines(table.row(row) for row in range(len(table))):
            file.write(line)
    result = {
        "rows": len(table),
        "pairs": len(table.positives.values) + len(table.negatives.values),
        "mean_positive_score": _mean(table.positive_scores),
        "mean_negative_score": _mean(table.negative_scores),
        "skipped": table.skipped,
        "teacher": {"model": teacher.model, **said, "versions": versions()},
        "settings": settings,
    }
    target.finish(result)
    return result


def is_cross_encoder(model: ResolvedModel) -> bool:
    """Whether a model scores pairs of texts: by what sentence-transformers wrote, else by its classification head."""
    said = read_json(model.files / "config_sentence_transformers.json", default={}).get("model_type")
    if said is not None:
        return said == "CrossEncoder"
    kinds = read_json(model.files / "config.json", default={}).get("architectures") or []
    return not (model.files / "modules.json").is_file() and any(
        str(kind).endswith("ForSequenceClassification") for kind in kinds
    )


def _check_vectors(vectors: Path, teacher: Teacher) -> None:
    if teacher.model == BM25:
        raise InputError("BM25 has no vectors", where="--vectors", todo="leave it out, or name an embedder")
    if vectors.exists() and not (vectors / "teacher.json").is_file():
        raise InputError("this is there already", where=str(vectors), todo="name a new folder")
    require_folder(vectors.absolute().parent)


def _embedded(
    model: ResolvedModel, teacher: Teacher, table: Table, folder: Path, vectors: Path | None, report: Report
) -> tuple[Table, dict[str, Any]]:
    """Score by the cosine of an embedder's vectors."""
    import torch

    from reasoning_embedding.checkpoints.models import open_embedder

    embedder = open_embedder(model, device="cuda" if torch.cuda.is_available() else "cpu", report=report)
    named = next((n for n in ("document", "passage") if embedder.prompts.get(n)), None)
    default = embedder.prompts.get(embedder.default_prompt_name or "", "")
    own_query = embedder.prompts.get("query") or default
    of_documents = embedder.prompts[named] if named else default
    document_prompt = of_documents if teacher.document_prompt is None else teacher.document_prompt

    def prompted(query: tuple[str, str]) -> tuple[str, str]:
        return teacher.query(query[0], own_query, _TEMPLATE), query[1]

    def encode(texts: Sequence[str], prompt: str) -> np.ndarray:
        return embedder.encode(texts, prompt=prompt, max_tokens=teacher.max_tokens)

    asked, query = np.unique(table.query, return_inverse=True)
    lists = (table.positives, table.negatives)
    own = np.unique(np.concatenate([each.values for each in lists]))
    questions = View(table.texts, asked, prompted)
    queries = embed_texts(folder, "queries", questions, encode, report)
    answers = View(table.texts, own, lambda pair: (document_prompt, pair[1]))
    documents = embed_texts(folder, "documents", answers, encode, report)
    search = ExactSearch(queries, documents)
    scores = [
        search.scores(np.repeat(query, each.lengths), np.searchsorted(own, each.values)) for each in lists
    ]
    parameter = next(embedder.parameters())
    readout: Any = embedder.readout
    said = {
        "kind": "embedder",
        "score": "cosine",
        "query_prompts": list(dict.fromkeys(prompt for prompt, _ in questions))[:20],
        "document_prompt": document_prompt,
        "max_tokens": teacher.max_tokens or embedder.max_tokens,
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "readout": readout if isinstance(readout, dict) else str(readout),
    }
    if vectors is not None:
        record = {
            "model": teacher.model,
            "content": model.content or model.commit,
            **said,
            "versions": versions(),
        }
        texts = [View(table.texts, ids, lambda pair: pair[1]) for ids in (asked, own)]
        write_vectors(vectors, (texts[0], queries), (texts[1], documents), record)
        report(f"vectors of {len(asked) + len(own):,} texts: {vectors}")
    return replace(table, positive_scores=scores[0], negative_scores=scores[1]), said


def _cross_encoded(
    model: ResolvedModel, teacher: Teacher, table: Table, folder: Path, report: Report
) -> tuple[Table, dict[str, Any]]:
    """Score by a cross-encoder's logit of each pair."""
    import torch

    library = _load_cross_encoder(model, teacher.max_tokens)
    template, before = teacher.query_template or "", teacher.document_prompt or ""
    # What the library puts before a pair is the model's own, unless the user says otherwise.
    asked = {} if teacher.query_prompt is None else {"prompt": teacher.query_prompt}
    lists = (table.positives, table.negatives)
    query = np.concatenate([np.repeat(table.query, each.lengths) for each in lists])
    document = np.concatenate([each.values for each in lists])
    pairs, place = np.unique(np.stack([query, document], axis=1), axis=0, return_inverse=True)

    def question(instruction: str, text: str) -> str:
        return template.replace("{instruction}", instruction) + text if instruction else text

    def score(chosen: np.ndarray) -> np.ndarray:
        texts = [(question(*table.texts[q]), before + table.texts[d][1]) for q, d in chosen.tolist()]
        found = library.predict(
            texts, activation_fn=torch.nn.Identity(), show_progress_bar=False, convert_to_numpy=True, **asked
        )
        return np.asarray(found, dtype=np.float32).reshape(len(texts))

    scores = _in_parts(folder, pairs, score, report)[place.reshape(-1)]
    if not np.isfinite(scores).all():
        bad = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise InputError(
            "the model's score is not finite",
            where=f"query {table.texts[int(query[bad])][1][:60]!r}",
            todo="check the model",
        )
    cut = len(table.positives.values)
    said = {
        "kind": "cross-encoder",
        "score": "logit",
        "query_template": template,
        "prompt": teacher.query_prompt or (library.prompts or {}).get(library.default_prompt_name or "", ""),
        "document_prompt": before,
        "max_tokens": getattr(library, "max_seq_length", None),
        "dtype": str(next(library.parameters()).dtype).removeprefix("torch."),
    }
    return replace(table, positive_scores=scores[:cut], negative_scores=scores[cut:]), said


def _load_cross_encoder(model: ResolvedModel, max_tokens: int | None) -> Any:
    import torch
    from sentence_transformers import CrossEncoder

    try:
        library = CrossEncoder(
            str(model.files),
            device="cuda" if torch.cuda.is_available() else "cpu",
            trust_remote_code=False,
            max_length=max_tokens,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError, RuntimeError) as error:  # weights of another shape are a RuntimeError
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(
            f"cannot load the cross-encoder ({reason})",
            where=model.reference,
            todo="save or download it again",
        ) from error
    if library.num_labels != 1:
        raise InputError(
            f"it gives {library.num_labels} numbers a pair, not one score",
            where=model.reference,
            todo="name a cross-encoder that ranks",
        )
    return library


def _in_parts(
    folder: Path, pairs: np.ndarray, score: Callable[[np.ndarray], np.ndarray], report: Report
) -> np.ndarray:
    """Scores of (n, 2) pairs of texts, written to disk as they are made."""
    starts = range(0, len(pairs), PAIRS)
    files = [folder / f"pairs-{start:012d}.npy" for start in starts]
    done = sum(
        min(PAIRS, len(pairs) - start) for start, file in zip(starts, files, strict=True) if file.exists()
    )
    countdown = Countdown(report, "pairs scored", done=done)
    for start, file in zip(starts, files, strict=True):
        if not is_whole_part(file, report):
            found = score(pairs[start : start + PAIRS])
            with part_file(file) as temporary, temporary.open("wb") as stream:
                np.save(stream, found)
            countdown(min(start + PAIRS, len(pairs)), len(pairs))
    return np.concatenate([np.load(file) for file in files])


def _mean(scores: np.ndarray | None) -> float | None:
    return float(np.mean(scores, dtype=np.float64)) if scores is not None and len(scores) else None
