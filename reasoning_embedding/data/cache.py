"""Texts, rows and tokens on disk, made once: for data larger than memory, and for a second start."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from reasoning_embedding import __version__, config
from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.files import atomic_folder, crc32, read_json, write_json
from reasoning_embedding.progress import Report

from .readers import data_files
from .table import Table, build_table, open_table
from .tokens import TokenStore, open_tokens, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LOG = logging.getLogger(__name__)
#: Bytes of source files from which data is kept on disk unasked; compressed ones count fourfold.
LARGE = 64 * 2**20
#: Part of every key; raised when what is written changes, so that an older cache is not read.
_FORMAT = 3
#: Name -> size and CRC-32 of every other file of a folder.
_SUMS = "sums.json"


def on_disk(data: config.Data, folder: Path) -> config.Data:
    """Return a data section that keeps its texts and tokens in `folder` where they are large.

    Parameters
    ----------
    data : config.Data
        Unchanged where it names a ``cache_dir`` itself, where its files are smaller than 64 MiB, and where a cache could
        not tell what it holds (a Hub source without a revision, rows of a function).
    folder : Path
        Need not exist yet.
    """
    floating = any(
        isinstance(source, config.FunctionSource)
        or (isinstance(source, config.HubSource) and source.revision is None)
        for source in data.sources
    )
    if data.cache_dir is not None or floating:
        return data
    size = sum(file.stat().st_size * (4 if file.suffix == ".gz" else 1) for file in _files(data))
    return data if size < LARGE else data.model_copy(update={"cache_dir": str(folder)})


def load_table(
    data: config.Data, report: Report = _LOG.warning, *, prompts: config.Prompts | None = None
) -> Table:
    """Read every source of a configuration, or find in the cache what was read before.

    Parameters
    ----------
    data : config.Data
        Sources, the query template, what to do with bad rows, and the folder of a cache, where texts and rows
        are read from disk as they are asked for.
    report : callable
        Told of a cache that was damaged and is made again.
    prompts : config.Prompts, optional
        What is put before texts beside the instructions of the rows; part of what a cache is known by.

    Raises
    ------
    InputError
        If a source cannot be read, has no usable rows, or holds a bad row where ``bad_rows`` is
        ``stop``.
    SetupError
        If the Hub cannot be reached, or the cache cannot be written.

    Notes
    -----
    A cache is known by the sources, template and rule for bad rows, and by the size and time of change of every
    file, and held to the CRC-32 of each of its files whenever it is opened: one that is damaged is made again. Ranks
    of one machine wait for the one that makes it.
    """
    if data.cache_dir is None:
        return build_table(data, None, prompts)
    settings = data.model_dump(mode="json", include={"sources", "query_template", "bad_rows"})
    files = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in _files(data)]

    def make(folder: Path) -> None:
        build_table(data, folder, prompts)

    # A key without prompts is what it was before there were any.
    asked = [] if prompts is None or prompts == config.Prompts() else [prompts.model_dump(mode="json")]
    return open_table(_made(_place(data.cache_dir, "rows", settings, files, *asked), make, report))


def table_tokens(
    table: Table,
    tokenizer: PreTrainedTokenizerBase,
    data: config.Data,
    progress: Callable[[int, int], None] | None = None,
    report: Report = _LOG.warning,
    *,
    document_prompts: Collection[str] = ("",),
) -> TokenStore:
    """Return the tokens of a table's texts: from the cache, where the configuration has one.

    Parameters
    ----------
    table : Table
        Its texts.
    tokenizer : PreTrainedTokenizerBase
        What the cache is known by, with the table's fingerprint and the limits.
    data : config.Data
        ``query_max_tokens``, ``document_max_tokens``, ``cache_dir``.
    progress : callable, optional
        Called with (texts done, texts in all).
    report : callable
        As of :func:`load_table`.
    document_prompts : collection of str
        Prompts of documents; a text with another one is a query.

    Raises
    ------
    InputError
        As in :func:`.tokens.tokenize`.
    SetupError
        If the cache cannot be written.
    """

    def make(folder: Path | None) -> TokenStore:
        return tokenize(
            table.texts,
            tokenizer,
            query_max_tokens=data.query_max_tokens,
            document_max_tokens=data.document_max_tokens,
            document_prompts=document_prompts,
            progress=progress,
            folder=folder,
        )

    if data.cache_dir is None:
        return make(None)
    limits: list[Any] = [data.query_max_tokens, data.document_max_tokens]
    if set(document_prompts) != {""}:
        limits.append(sorted(document_prompts))
    place = _place(data.cache_dir, "tokens", table.fingerprint, _tokenizer_hash(tokenizer), limits)
    return open_tokens(_made(place, make, report))


def _files(data: config.Data) -> Iterator[Path]:
    for source in data.sources:
        if isinstance(source, config.FilesSource):
            yield from data_files(source.path)
        elif isinstance(source, config.MixSource):
            yield from data_files(source.rows)
            yield from data_files(source.corpus)


def _place(cache: str, kind: str, *key: Any) -> Path:
    digest = hashlib.sha256(json.dumps([__version__, _FORMAT, *key], ensure_ascii=False).encode()).hexdigest()
    return Path(cache).expanduser() / f"{kind}-{digest[:24]}"


def _made(folder: Path, make: Callable[[Path], object], report: Report) -> Path:
    """Return a whole folder: one process makes it, or makes a damaged one again, while others wait."""
    if folder.exists() and _damage(folder) is None:
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            # Another process may have made it meanwhile.
            damage = _damage(folder) if folder.exists() else "it is not there"
            if damage is not None:
                if folder.exists():
                    report(f"{folder}: {damage}; it is made again")
                with atomic_folder(folder) as temporary:
                    make(temporary)
                    sums = {file.name: [file.stat().st_size, crc32(file)] for file in temporary.iterdir()}
                    write_json(temporary / _SUMS, {"files": sums}, exact=True, summed=True)
    except OSError as error:
        todo = "free some space, or choose another data.cache_dir"
        raise SetupError(f"cannot write the cache ({error})", where=str(folder), todo=todo) from error
    return folder


def _damage(folder: Path) -> str | None:
    """Say what is wrong with a folder; None where every byte is the one that was written."""
    try:
        sums = read_json(folder / _SUMS)["files"]
        for name, (size, wanted) in sums.items():
            # The size first: what was cut short need not be read.
            if (folder / name).stat().st_size != size or crc32(folder / name) != wanted:
                return f"{name} was changed after it was written"
    except InputError as error:
        return error.what
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        return f"it is not whole ({error})"
    return None


def _tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of what a tokenizer does to a text, hexadecimal; how it was last cut or padded plays no part."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        known: Any = [sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map, repr(tokenizer)]
    else:
        known = {**json.loads(backend.to_str()), "truncation": None, "padding": None}
    content = json.dumps([type(tokenizer).__name__, tokenizer.truncation_side, known], default=str)
    return hashlib.sha256(content.encode()).hexdigest()
