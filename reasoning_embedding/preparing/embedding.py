"""Vectors of the texts of a file, of any number: in windows, dealt to the ranks, each kept as soon as it is embedded."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reasoning_embedding.backbones.compression import Compression, ranges_of
from reasoning_embedding.backbones.embedder import choose_prompt
from reasoning_embedding.checkpoints import versions
from reasoning_embedding.checkpoints.models import LibraryEmbedder, open_embedder
from reasoning_embedding.checkpoints.references import resolve
from reasoning_embedding.data.named_texts import NamedText, TextSource
from reasoning_embedding.data.vector_files import SUFFIXES, VectorParts, fits_int64, save_vectors
from reasoning_embedding.distributed import World, broadcast_object, explain_lost_ranks, joined_world
from reasoning_embedding.distributed.world import DeviceName
from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.files import (
    atomic_file,
    make_folder,
    require_output_file,
    require_space,
    size_of,
    write_json,
)
from reasoning_embedding.progress import Countdown, Report

#: Texts that one rank embeds, longest first, and writes before the next: what a kill can cost.
WINDOW_TEXTS = 4096
#: Characters after which a window of long texts ends before that.
WINDOW_CHARACTERS = 4_000_000
#: How long a rank waits for the others at the end; the launcher notices one that fails at once.
_PATIENCE_MINUTES = 24 * 60.0


@dataclass(frozen=True)
class EmbedOptions:
    """How texts become vectors.

    Parameters
    ----------
    prompt, prompt_name : str, optional
        What is put before every text, or the name of one of the model's prompts. Neither: the model's default one.
    max_tokens : int, optional
        Longer texts are cut. Absent: at the model's own limit.
    compression : Compression
        What is kept of a vector.
    ranges : Path, optional
        With int8: the ranges that another call wrote. Absent: those of these texts.

    Raises
    ------
    InputError
        If two of them contradict each other.
    """

    prompt: str | None = None
    prompt_name: str | None = None
    max_tokens: int | None = None
    compression: Compression = field(default_factory=Compression)
    ranges: Path | None = None

    def __post_init__(self) -> None:
        if self.prompt is not None and self.prompt_name is not None:
            raise InputError(
                "--prompt and --prompt-name both say what stands before a text", todo="give one of them"
            )
        if self.ranges is not None and self.compression.quantize != "int8":
            raise InputError(
                "--ranges are those of int8 codes", todo="add --quantize int8, or leave --ranges out"
            )


def embed_file(
    model: str,
    texts: TextSource,
    output: Path,
    options: EmbedOptions | None = None,
    *,
    device: DeviceName = "auto",
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Write the vectors of the texts of a file, in their order, with their ids.

    Under ``torchrun`` or ``accelerate launch`` each rank embeds its share; the ranks must see one disk. A job that was
    stopped goes on where it was when it is called again, and writes the bytes that it would have written.

    Parameters
    ----------
    model : str
        Any embedder, as :func:`reasoning_embedding.checkpoints.references.resolve` takes it.
    texts : TextSource
        The texts.
    output : Path
        As :func:`reasoning_embedding.data.vector_files.save_vectors` has it; a file of that name is replaced.
    options : EmbedOptions, optional
        Prompt, limit, and what is kept of a vector.
    device : {"auto", "cpu", "cuda", "mps"}
        What each rank computes on.
    report : callable
        Takes lines of progress, on the main rank.

    Returns
    -------
    dict
        What ``<output>.json`` says: the model, how it was asked, the texts and their SHA-256, shape, versions.

    Raises
    ------
    InputError
        If texts, model or ranges cannot be used; before anything is embedded.
    SetupError
        If the output cannot be written, the disk has no room for it, or the Hub cannot be reached.

    Notes
    -----
    What is done lies in ``<output>.progress/`` until the end, so the disk holds the vectors twice. Each part is known
    by a digest of its texts, the model and how it is asked: one of another job, or a damaged one, is embedded again.
    """
    options = options or EmbedOptions()
    texts = TextSource(texts.path.absolute(), texts.columns, texts.id_column)
    output = output.absolute()
    if output.suffix not in SUFFIXES:
        raise InputError(
            f"vectors are not written as {output.suffix or 'a file without a suffix'}",
            where=str(output),
            todo=f"end it in {', '.join(SUFFIXES)}",
        )
    require_output_file(output)
    with (
        joined_world(timeout_minutes=_PATIENCE_MINUTES, device=device) as world,
        explain_lost_ranks(world, todo="look for the rank that failed first, and give the command again"),
    ):
        said: Report = report if world.is_main else lambda line: None
        task = _Task(model, options, world, said)
        parts = output.with_name(f"{output.name}.progress")
        survey = None
        if world.is_main:
            survey = _survey(texts, parts, task.key, said)
            task.check(survey.texts, output, parts, survey.id_bytes)
        survey = broadcast_object(survey, world)
        _embed(texts, survey, parts, task, world, said)
        world.barrier()
        record: dict[str, Any] = {}
        if world.is_main:
            record = task.how | {"texts": str(texts.path), "sha256_of_texts": survey.sha256}
            record |= _merge(survey, parts, task, output, said)
            # The last: with it, all of the files are of this job.
            write_json(_record_beside(output), record, summed=True)
            shutil.rmtree(parts)
        return broadcast_object(record, world)


def windows(texts: Iterable[NamedText]) -> Iterator[list[NamedText]]:
    """Yield texts in the same lists whoever reads them, of at most 4,096 texts and about four million characters."""
    window: list[NamedText] = []
    characters = 0
    for each in texts:
        window.append(each)
        characters += len(each.text)
        if len(window) == WINDOW_TEXTS or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


class _Task:
    """A model, opened, and how it makes vectors of texts.

    Attributes
    ----------
    how : dict
        What decides a vector, for the record.
    key : str
        Its SHA-256.
    """

    def __init__(self, model: str, options: EmbedOptions, world: World, report: Report) -> None:
        found = resolve(model)
        self.embedder = open_embedder(found, device=world.device, report=report)
        self.compression, self.max_tokens = options.compression, options.max_tokens
        self.dimension = self.compression.dimension(self.embedder.dimension)
        self.ranges = None if options.ranges is None else _read_ranges(options.ranges, self.dimension)
        embedder = self.embedder
        self.prompt = choose_prompt(
            embedder.prompts, embedder.default_prompt_name, options.prompt, options.prompt_name
        )
        readout: Any = embedder.readout
        self.how: dict[str, Any] = {
            "content": found.content or found.commit,
            "prompt": self.prompt,
            "max_tokens": self.max_tokens or embedder.max_tokens,
            "readout": readout if isinstance(readout, dict) else str(readout),
            "forward": "sentence-transformers" if isinstance(embedder, LibraryEmbedder) else "packed",
            "truncate": self.compression.truncate,
            "quantize": self.compression.quantize,
            "ranges": None if self.ranges is None else hashlib.sha256(self.ranges.tobytes()).hexdigest(),
            "dtype": str(next(embedder.parameters()).dtype).removeprefix("torch."),
            "device": world.device.type,
            "versions": versions(),
        }
        self.key = hashlib.sha256(json.dumps(self.how, sort_keys=True).encode()).hexdigest()
        self.how = {"model": model, **self.how}

    @property
    def waits(self) -> bool:
        """Whether codes can be made only when all vectors are there: int8 between the ranges of these texts."""
        return self.compression.quantize == "int8" and self.ranges is None

    def check(self, texts: int, output: Path, parts: Path, id_bytes: int) -> None:
        """Refuse what could not be finished, and make the folder of the parts."""
        if self.waits and texts < 2:
            ranges_of(np.zeros((texts, 1)))  # raises
        each = self.compression.bytes(self.embedder.dimension)
        kept = 4 * self.dimension if self.waits else each
        needed = texts * (each + kept) + 2 * id_bytes - (size_of(parts) if parts.is_dir() else 0)
        require_space(output, needed, f"{texts:,} vectors, twice until they are merged,")
        make_folder(parts)

    def vectors(self, texts: Sequence[str], progress: Callable[[int, int], None]) -> np.ndarray:
        """Return what is kept of the vectors of texts until all are there: codes, or vectors where they must wait."""
        found = self.compression.shorten(
            self.embedder.encode(texts, prompt=self.prompt, max_tokens=self.max_tokens, progress=progress)
        )
        if not np.isfinite(found).all():
            bad = texts[int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])]
            raise InputError(
                "the model's vector is not finite", where=f"text {bad[:60]!r}", todo="check the model"
            )
        return found if self.waits else self.compression.codes(found, self.ranges)


@dataclass
class _Survey:
    """What a first reading of all texts found, window by window."""

    sizes: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    id_bytes: int = 0
    whole_numbers: bool = True
    row_numbers: bool = True
    sha256: str = ""

    @property
    def texts(self) -> int:
        return sum(self.sizes)


def _survey(texts: TextSource, folder: Path, key: str, report: Report) -> _Survey:
    """Read all texts once: what is wrong with one is said before the work, and what is done is found."""
    if (columns := texts.chosen()) is not None:
        *before, text = columns.texts
        after = f", after {' and '.join(before)} where a record has it" if before else ""
        report(f"texts: column {text}{after}; ids: {columns.id or 'numbers of the rows'}")
    survey, found, content = (
        _Survey(),
        dict.fromkeys(("done", "damaged", "other", "absent"), 0),
        hashlib.sha256(),
    )
    for number, window in enumerate(windows(texts)):
        digest = _digest(key, window)
        state = _Part(folder, number).state(digest)
        found[state] += len(window)
        if state != "done":
            survey.missing.append(number)
        survey.row_numbers &= [each.id for each in window] == list(
            range(survey.texts, survey.texts + len(window))
        )
        survey.whole_numbers &= all(fits_int64(each.id) for each in window)
        survey.id_bytes += sum(8 + len(str(each.id)) for each in window)
        survey.sizes.append(len(window))
        survey.digests.append(digest)
        for each in window:
            content.update(each.text.encode() + b"\0")  # no text holds NUL
    if not survey.sizes:
        raise InputError("there is no text", where=str(texts.path), todo="give at least one")
    survey.sha256 = content.hexdigest()
    report(f"{survey.texts:,} texts" + (f", {found['done']:,} embedded before" if found["done"] else ""))
    if found["damaged"]:
        report(f"damaged parts in {folder}: {found['damaged']:,} texts are embedded again")
    if found["other"]:
        report(f"{folder} has parts of other texts or another model, which are replaced")
    return survey


def _embed(
    texts: TextSource, survey: _Survey, folder: Path, task: _Task, world: World, report: Report
) -> None:
    """Embed this rank's share of what is missing."""
    mine = set(survey.missing[world.rank :: world.size])
    if not mine:
        return
    total, done = sum(survey.sizes[number] for number in mine), 0
    countdown = Countdown(report, "texts embedded" + ("" if world.size == 1 else " by the first rank"))
    for number, window in enumerate(windows(texts)):
        if number not in mine:
            continue
        if _digest(task.key, window) != survey.digests[number]:
            raise InputError(
                "the texts changed while they were embedded",
                where=window[0].where,
                todo="give the command again when nobody writes to the file",
            )

        def progress(embedded: int, _: int, before: int = done) -> None:
            if before + embedded < total:
                countdown(before + embedded, total)

        found = task.vectors([each.text for each in window], progress)
        _Part(folder, number).write(survey.digests[number], [each.id for each in window], found)
        done += len(window)
        countdown(done, total)


def _merge(survey: _Survey, folder: Path, task: _Task, output: Path, report: Report) -> dict[str, Any]:
    """Write the output from the parts; return what is said of it."""
    parts = [_Part(folder, number) for number in range(len(survey.sizes))]
    for part, digest in zip(parts, survey.digests, strict=True):
        if part.state(digest) != "done":
            raise SetupError(
                "this part is not there, or damaged",
                where=str(part.path),
                todo="give the command again; ranks on several machines must write to a disk that all of them see",
            )
    _record_beside(output).unlink(missing_ok=True)  # of what is replaced now
    ranges = task.ranges
    if task.waits:
        ranges = parts[0].ranges
        for part in parts[1:]:
            ranges = np.stack([np.minimum(ranges[0], part.ranges[0]), np.maximum(ranges[1], part.ranges[1])])
        beside = output.with_suffix(".ranges.npy")
        with atomic_file(beside) as temporary, temporary.open("wb") as file:
            np.save(file, ranges)
        report(f"ranges of these texts: {beside} (embed queries with --ranges {beside})")

    def codes() -> Iterator[np.ndarray]:
        for part in parts:
            yield task.compression.codes(part.vectors, ranges) if task.waits else part.vectors

    first = next(codes())
    written = VectorParts(
        survey.texts,
        first.shape[1],
        first.dtype,
        codes,
        lambda: (part.ids for part in parts),
        survey.whole_numbers,
        survey.row_numbers,
    )
    save_vectors(output, written)
    report(f"{written.rows:,} x {written.columns} {first.dtype}: {output}")
    return {"rows": written.rows, "columns": written.columns, "entries": str(first.dtype)}


class _Part:
    """The vectors and ids of one window on disk; the archive has a CRC-32 of each."""

    def __init__(self, folder: Path, number: int) -> None:
        self.path = folder / f"part-{number:08d}.npz"

    def write(self, digest: str, ids: Sequence[int | str], vectors: np.ndarray) -> None:
        names = np.frombuffer(json.dumps(ids).encode(), dtype=np.uint8)
        with atomic_file(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, digest=np.array(digest), ids=names, vectors=np.ascontiguousarray(vectors))

    def state(self, digest: str) -> Literal["done", "damaged", "other", "absent"]:
        """Whether it is there, whole, and of these texts."""
        try:
            if str(self._read("digest")) != digest:
                return "other"
            self._read("ids"), self._read("vectors")
        except FileNotFoundError:
            return "absent"
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return "damaged"
        return "done"

    @property
    def vectors(self) -> np.ndarray:
        return self._read("vectors")

    @property
    def ids(self) -> list[int | str]:
        return json.loads(self._read("ids").tobytes())

    @property
    def ranges(self) -> np.ndarray:
        rows = self.vectors
        return np.stack([rows.min(axis=0), rows.max(axis=0)])

    def _read(self, name: str) -> np.ndarray:
        with np.load(self.path, allow_pickle=False) as archive:
            return archive[name]


def _digest(key: str, window: Sequence[NamedText]) -> str:
    """SHA-256 of a window's ids and texts and of what decides their vectors."""
    digest = hashlib.sha256(key.encode())
    for each in window:
        digest.update(json.dumps([each.id, each.text]).encode() + b"\n")
    return digest.hexdigest()


def _record_beside(output: Path) -> Path:
    return output.with_name(f"{output.name}.json")


def _read_ranges(path: Path, dimension: int) -> np.ndarray:
    """Read what int8 steps lie between."""
    todo = "name the .ranges.npy that `rembed embed --quantize int8` wrote for this model"
    where = str(path.absolute())
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot be read as ranges: {error}", where=where, todo=todo) from error
    if found.shape != (2, dimension):
        raise InputError(
            f"ranges of shape {found.shape}, where (2, {dimension}) is needed", where=where, todo=todo
        )
    return found
