"""Planning and tokenizing a large file of rows against ``datasets``: ``map``, ``shuffle`` and batches."""

from __future__ import annotations

import json
import os
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import MIB, in_new_process
from reasoning_embedding import config
from reasoning_embedding.data.cache import load_table, table_tokens
from reasoning_embedding.data.plan import Plan
from reasoning_embedding.host import process_memory
from reasoning_embedding.progress import Report

#: Side -> (folder with rows and tokenizer, folder for its cache, knob) -> seconds and peak MiB.
Side = Callable[[Path, Path, int], tuple[float, float]]

MAX_TOKENS = 128
BATCH, BATCHES = 256, 100
_WORDS, _CHUNK = 20_000, 4096
#: Rows on which the knob of the other side is chosen, at most; or a quarter of all.
_SWEEP = 20_000


def bench_data(*, quick: bool = False, report: Report = lambda line: None) -> Iterator[dict[str, Any]]:
    """Compare the way from a file of rows to batches of tokens, in a first and in a second start.

    Parameters
    ----------
    quick : bool
        20,000 rows twice in the place of 1,000,000 rows once.
    report : callable
        Takes a line of progress.

    Yields
    ------
    dict
        ``name``, ``ours`` and ``other`` in rows a second, their ``ratio``, ``memory_ratio`` of the peaks of
        resident memory, all timings and settings; last our peak of anonymous memory beside that of a tenth of the rows.

    Notes
    -----
    Both sides read the same JSON Lines (query, positive, negative; 40 words a row in the mean), cut at 128
    tokens, shuffle and fetch 100 batches of 256 rows, in a process of their own whose imports do not count.
    Ours keeps texts and tokens in ``data.cache_dir``; ``datasets`` maps with a tokenizer in batches, in one process
    or in one a core, whichever is faster on some of the rows. Its negatives are tokenized as often as they occur, ours
    once. The peak counts file pages that a process has mapped, and the processes of a pool.
    """
    rows, repeats = (20_000, 2) if quick else (1_000_000, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", rows)
        write_rows(folder / "few" / "rows.jsonl", min(_SWEEP, rows // 4))
        for part in (folder, folder / "few"):
            _write_tokenizer(part / "tokenizer.json", folder / "rows.jsonl")
        report(f"{rows:,} rows, {(folder / 'rows.jsonl').stat().st_size / MIB:.0f} MiB")
        sweep = {
            processes: _run(other_side, folder / "few", folder / f"sweep-{processes}", processes)[0]
            for processes in sorted({1, os.cpu_count() or 1})
        }
        best = min(sweep, key=lambda processes: sweep[processes])
        report(f"datasets.map is fastest with {best} processes")
        measured: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for repeat in range(repeats):
            for start in ("tokenise", "tokenise-again"):
                for side, function in (("ours", our_side), ("other", other_side)):
                    found = _run(function, folder, folder / f"{side}-{repeat}", best)
                    measured.setdefault(start, {}).setdefault(side, []).append(found)
                    report(f"{start}, {side}: {found[0]:.1f} s, {found[1]:.0f} MiB")
        for start, sides in measured.items():
            yield _result(f"data/{start}/{rows}", rows, sides, {"processes": best, "sweep": sweep})
        write_rows(folder / "tenth" / "rows.jsonl", rows // 10)
        _write_tokenizer(folder / "tenth" / "tokenizer.json", folder / "rows.jsonl")
        few, many = (_run(our_memory, part, part / "memory", 1)[1] for part in (folder / "tenth", folder))
        report(f"anonymous memory: {few:.0f} MiB of {rows // 10:,} rows, {many:.0f} of {rows:,}")
        yield {
            "name": f"data/memory/{rows}",
            "ours": round(many, 1),
            "other": round(few, 1),
            "ratio": round(few / many, 4),
            "unit": f"MiB anonymous, theirs being {rows // 10:,} rows",
            "memory_ratio": None,
            "settings": {"max_tokens": MAX_TOKENS, "batch": BATCH, "batches": BATCHES},
        }


def _result(
    name: str, rows: int, sides: dict[str, list[tuple[float, float]]], settings: dict[str, Any]
) -> dict[str, Any]:
    speed = {side: rows / statistics.median(seconds for seconds, _ in found) for side, found in sides.items()}
    memory = {side: statistics.median(peak for _, peak in found) for side, found in sides.items()}
    return {
        "name": name,
        "ours": round(speed["ours"], 1),
        "other": round(speed["other"], 1),
        "ratio": round(speed["ours"] / speed["other"], 4),
        "unit": "rows/s",
        "memory_ratio": round(memory["other"] / memory["ours"], 4),
        "peak_mib": {side: round(value, 1) for side, value in memory.items()},
        "seconds": {side: [round(seconds, 3) for seconds, _ in found] for side, found in sides.items()},
        "settings": {**settings, "max_tokens": MAX_TOKENS, "batch": BATCH, "batches": BATCHES},
    }


def write_rows(file: Path, count: int) -> None:
    """Write generated rows: a query and a positive of their own, and an earlier row's positive as negative."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, rng.integers(2, 11))) for _ in range(_WORDS)], object)
    # Zipf's law, as words of a language have it.
    bounds = np.cumsum(1 / np.arange(1, _WORDS + 1))
    positives = [" ".join(words[:16])]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as output:
        for start in range(0, count, _CHUNK):
            rows = min(_CHUNK, count - start)
            lengths = rng.integers([4, 8], [13, 25], (rows, 2)).ravel()
            drawn = words[np.searchsorted(bounds, rng.random(lengths.sum()) * bounds[-1])]
            texts = [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]
            negatives = rng.integers(len(positives), size=rows).tolist()
            for row, negative in enumerate(negatives):
                record = {"query": texts[2 * row], "pos": [texts[2 * row + 1]], "neg": [positives[negative]]}
                output.write(json.dumps(record) + "\n")
            positives = texts[1::2]


def _write_tokenizer(file: Path, rows: Path) -> None:
    from tokenizers.implementations import ByteLevelBPETokenizer

    with rows.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["pos"][0] for line, _ in zip(lines, range(5000), strict=False)]
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(iter(texts), vocab_size=8000, show_progress=False)
    tokenizer.save(str(file))


def _run(side: Side, folder: Path, cache: Path, processes: int) -> tuple[float, float]:
    # In a pool of processes the threads of each tokenizer would get in the way of the others.
    threads = "true" if side is our_side or processes == 1 else "false"
    environment = {"TOKENIZERS_PARALLELISM": threads}
    return in_new_process(side, folder, cache, processes, environment=environment)


def _tokenizer(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


def our_side(folder: Path, cache: Path, processes: int) -> tuple[float, float]:
    """Return seconds and peak MiB of the table, the tokens, the plan and its first batches."""
    tokenizer = _tokenizer(folder)
    source = config.FilesSource(kind="files", path=str(folder / "rows.jsonl"))
    data = config.Data(
        sources=[source], query_max_tokens=MAX_TOKENS, document_max_tokens=MAX_TOKENS, cache_dir=str(cache)
    )
    started = time.perf_counter()
    table = load_table(data)
    store = table_tokens(table, tokenizer, data)
    plan = Plan(table, config.Training(batch_size=BATCH), data, seed=0)
    tokens = 0
    for step in range(1, min(BATCHES, plan.steps) + 1):
        batch = plan.at(step)
        for text in np.concatenate([batch.query, batch.positive, batch.negative]).tolist():
            tokens += len(store[text].tolist())
    return time.perf_counter() - started, _peak_mib(0)


def our_memory(folder: Path, cache: Path, processes: int) -> tuple[float, float]:
    """Return seconds and peak MiB of anonymous memory of :func:`our_side`, looked at a hundred times a second (Linux).

    File pages do not count: the system takes them back when it needs memory.
    """
    peak, ended = 0.0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not ended.wait(0.01):
            peak = max(peak, (process_memory("RssAnon") or 0) / MIB)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        seconds, _ = our_side(folder, cache, processes)
    finally:
        ended.set()
        watcher.join()
    return seconds, peak


def other_side(folder: Path, cache: Path, processes: int) -> tuple[float, float]:
    """Return seconds and peak MiB of ``load_dataset``, ``map``, ``shuffle`` and the first batches."""
    import datasets

    datasets.disable_progress_bars()
    tokenizer = _tokenizer(folder)
    started = time.perf_counter()
    rows = datasets.load_dataset(
        "json", data_files=str(folder / "rows.jsonl"), split="train", cache_dir=str(cache)
    )

    def encode(batch: dict[str, list]) -> dict[str, list]:
        cut = {"truncation": True, "max_length": MAX_TOKENS, "return_attention_mask": False}
        first = {name: [texts[0] for texts in batch[name]] for name in ("pos", "neg")}
        return {
            name: tokenizer(texts, **cut)["input_ids"]
            for name, texts in {"query": batch["query"], **first}.items()
        }

    columns = ["query", "pos", "neg"]
    pool = processes if processes > 1 else None
    encoded = rows.map(encode, batched=True, batch_size=2048, remove_columns=columns, num_proc=pool)
    encoded = encoded.shuffle(seed=0)
    tokens = 0
    for step in range(min(BATCHES, len(encoded) // BATCH)):
        batch = encoded[step * BATCH : (step + 1) * BATCH]
        tokens += sum(len(ids) for name in columns for ids in batch[name])
    return time.perf_counter() - started, _peak_mib(processes if pool else 0)


def _peak_mib(processes: int) -> float:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + processes * largest) / 1024
