"""Speed and memory of a training step against sentence-transformers, at the best setting of both."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import REPEATS, cpu_ratio, cpu_seconds, take_turns, wall_seconds
from benchmarks.random_model import byte_pair_tokenizer, save_random_model
from benchmarks.train.cases import ARCHITECTURES, PACK_TOKENS, Case, cases, our_settings, their_settings
from benchmarks.train.exact import RANKS, exact_record, worst_difference
from benchmarks.train.memory import predicted_mib, step_mib
from benchmarks.train.texts import MAX_TOKENS, Triple, make_triples, standard_library_functions
from benchmarks.train.trainers import MakeTrainer, Ours, SentenceTransformers, Setting, Trainer, Workload
from reasoning_embedding.backbones import SOFTWARE_BFLOAT16, compute_dtype
from reasoning_embedding.planning.devices import find_device
from reasoning_embedding.planning.shapes import decoder_shape, training_flops
from reasoning_embedding.progress import Report

#: A measured peak over a predicted one, at most: what allocator and libraries hold is not predicted.
_MARGIN = 1.25
#: Of a sweep's settings those this close to the fastest are timed once more.
_CLOSE = 1.5


def bench_train(
    *, quick: bool = False, report: Report = lambda line: None, model: str | None = None
) -> Iterator[dict[str, Any]]:
    """Compare both trainers on the same weights, batches, dtype, threads and fused AdamW.

    Parameters
    ----------
    quick : bool
        The small shape with 16 queries a step and fewer settings; the other side's defaults are timed once.
    report : callable
        Takes a line of progress.
    model : str, optional
        Compare this shape alone: S, M, or on a GPU Qwen3-0.6B or Qwen3-1.7B.

    Yields
    ------
    dict
        First ``train/exact``: the bound over the largest relative difference of the step's loss and gradient
        to a padded float64 oracle, on 1 to 4 ranks (`quick`: 2; where there is a GPU: 1); only where its ratio
        exceeds 1 do the others count. Then for each case ``st-best``, ``st-unpadded``, ``st-default`` and
        ``st-best-replay``: ``ours`` and ``other`` in real tokens a second, ``ratio``, ``memory_ratio``,
        ``padding`` (slots a real token of the padded batch), both sides' settings, sweeps and times.

    Notes
    -----
    The opponent is ``SentenceTransformerTrainer``; its loss (MNRL, or CachedMNRL with 1 to 64 texts a chunk,
    or 1024 to 16384 tokens) is swept in the same run as widely as our packs and memory modes, and its fastest
    setting is what ``st-best`` divides by; on a GPU the fastest of either side is tried compiled too.
    ``st-default`` is MNRL as it comes. ``st-best-replay`` keeps nothing, in packs as large as the memory of
    sentence-transformers' fastest setting allows. For ``st-unpadded`` its own unpadding path is swept too, over the same
    variable-length attention as ours. A step is forward, loss, backward, clipping and optimizer: tokenization,
    which sentence-transformers does in its collator, is left out on both sides. The sides take turns, each
    after an untimed small step; medians count. Every turn starts from the same weights, so the losses must
    agree, and their difference is recorded. On a CPU without bf16 products a `note` in the records of bf16 says
    that ours computes in fp32 there, as training does, and sentence-transformers in software: the records of fp32
    tell what the step itself gains.
    """
    functions = standard_library_functions(400)
    tokenizer = byte_pair_tokenizer(item.source[item.start :][: 6 * MAX_TOKENS] for item in functions)
    gpu = torch.cuda.is_available()
    half = compute_dtype("bf16", torch.device("cuda" if gpu else "cpu")) is not None
    chosen = cases(quick=quick, gpu=gpu, bf16=half, model=model)
    with tempfile.TemporaryDirectory() as folder:

        def checkpoint_of(shape: str) -> Path:
            place = Path(folder) / shape
            if not place.exists():
                save_random_model(place, ARCHITECTURES[shape], tokenizer, max_tokens=MAX_TOKENS)
            return place

        # In float64, so at the smallest shape, whatever is timed.
        ranks = (1,) if gpu else (1, 2) if quick else RANKS
        exact = worst_difference(
            checkpoint_of("S"), make_triples(functions, "wide", 4, tokenizer), ranks=ranks
        )
        yield exact_record(exact, ranks)
        for case in chosen:
            checkpoint = checkpoint_of(case.model)
            rows = make_triples(functions, case.mix, case.queries, tokenizer)
            try:
                for record in _Comparison(case, checkpoint, rows, quick=quick, report=report).records():
                    yield record if half or case.dtype != "bf16" else {**record, "note": SOFTWARE_BFLOAT16}
            except Exception as error:  # noqa: BLE001  (it is reported, and the other cases still run)
                yield {"name": case.name("st-best"), "error": f"{type(error).__name__}: {error}"}


@dataclass(frozen=True)
class _Contender:
    trainer: MakeTrainer
    setting: Setting


class _Comparison:
    """One case: sweep both sides, let the best take turns, measure their memory."""

    def __init__(
        self, case: Case, checkpoint: Path, rows: list[Triple], *, quick: bool, report: Report
    ) -> None:
        self._case, self._quick, self._report = case, quick, report
        self._work = Workload(checkpoint, rows, case.dtype)
        self._ours = ours = Ours(self._work)
        self._trainers: dict[MakeTrainer, Trainer] = {
            Ours: ours,
            SentenceTransformers: SentenceTransformers(self._work),
        }
        # Only the last batch is timed: before it trainers load and allocate what they need, and compile.
        full = range(len(rows))
        self._batches = [range(2), full, full] if torch.cuda.is_available() else [range(2), full]
        self._shape = decoder_shape(ours.embedder.model.config)
        store = ours.store
        self._tokens = int(store.lengths.sum())
        self._squares = int((store.lengths**2).sum())
        self._padding = int(store.lengths.max()) * len(store.lengths) / self._tokens

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield one record an opponent."""
        sweeps = {
            "ours": self._sweep("ours", Ours, our_settings(self._tokens, quick=self._quick)),
            "st": self._sweep(
                "st", SentenceTransformers, their_settings(self._case.queries, quick=self._quick)
            ),
            "unpadded": self._sweep(
                "st-unpadded",
                SentenceTransformers,
                [
                    {**each, "unpadded": True}
                    for each in their_settings(self._case.queries, quick=self._quick)
                ],
            ),
        }
        swept_best = _Contender(SentenceTransformers, fastest(sweeps["st"]))
        memory = {"st-best": self._peak(swept_best)}
        contenders = {
            "ours": _Contender(Ours, fastest(sweeps["ours"])),
            "st-best": swept_best,
            "replay": _Contender(Ours, self._replay(memory["st-best"])),
            "st-unpadded": _Contender(SentenceTransformers, fastest(sweeps["unpadded"])),
            "st-default": _Contender(SentenceTransformers, {"loss": "mnrl"}),
        }
        if sweeps["st"][0][1] == math.inf:  # its default, the first setting, does not fit this GPU
            del contenders["st-default"]
        turns = take_turns(
            {name: self._turn(contender) for name, contender in contenders.items()},
            repeats=REPEATS,
            once=("st-default",) if self._quick else (),
        )
        memory |= {name: self._peak(each) for name, each in contenders.items() if name not in memory}
        # What the sweep took for the fastest may lose to the default over three rounds.
        plain = [name for name in ("st-best", "st-default") if name in turns]
        best = min(plain, key=lambda name: _median_seconds(turns[name]))
        for opponent, us, them in (
            ("st-best", "ours", best),
            ("st-unpadded", "ours", "st-unpadded"),
            ("st-default", "ours", "st-default"),
            ("st-best-replay", "replay", best),
        ):
            if them in turns:
                yield self._record(opponent, us, them, contenders, turns, memory, sweeps)

    def _replay(self, mib: float) -> Setting:
        """Nothing kept, and the largest packs with which that should take no more than `mib`, or the smallest."""
        settings: list[Setting] = [{"pack_tokens": size, "store_tokens": 0} for size in PACK_TOKENS]
        fitting = [each for each in settings if _MARGIN * self._predicted(each) <= mib]
        return fitting[-1] if fitting else settings[0]

    def _peak(self, contender: _Contender) -> float:
        return step_mib(contender.trainer, self._work, contender.setting, self._batches)

    def _turn(self, contender: _Contender) -> Callable[[], tuple[np.ndarray, float]]:
        def run() -> tuple[np.ndarray, float]:
            times, losses = self._trainers[contender.trainer].run(contender.setting, self._batches)
            return times[-1], losses[-1]

        return run

    def _sweep(
        self, name: str, trainer: MakeTrainer, settings: Sequence[Setting]
    ) -> list[tuple[Setting, float]]:
        def seconds_at(setting: Setting) -> float:
            try:
                return float(self._turn(_Contender(trainer, setting))()[0][0])
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                return math.inf

        tried = [(setting, seconds_at(setting)) for setting in settings]
        if torch.cuda.is_available():  # on a CPU torch.compile was slower on both sides
            compiled = {**fastest(tried), "compile": True}
            tried.append((compiled, seconds_at(compiled)))
        if not self._quick:
            limit = _CLOSE * min(seconds for _, seconds in tried)
            tried = [
                (setting, min(seconds, seconds_at(setting)) if seconds < limit else seconds)
                for setting, seconds in tried
            ]
        best, seconds = min(tried, key=lambda item: item[1])
        self._report(f"{self._case.name(name)}: {seconds:.2f} s a step at {best}")
        return tried

    def _record(
        self,
        opponent: str,
        us: str,
        them: str,
        contenders: dict[str, _Contender],
        turns: dict[str, list[tuple[np.ndarray, float]]],
        memory: dict[str, float],
        sweeps: dict[str, list[tuple[Setting, float]]],
    ) -> dict[str, Any]:
        times = {side: [seconds for seconds, _ in turns[side]] for side in (us, them)}
        speed = {side: self._tokens / _median_seconds(turns[side]) for side in (us, them)}
        loss = {side: turns[side][0][1] for side in (us, them)}
        theirs = "unpadded" if opponent == "st-unpadded" else "st"
        record = {
            "name": self._case.name(opponent),
            "ours": round(speed[us], 1),
            "other": round(speed[them], 1),
            "ratio": round(speed[us] / speed[them], 4),
            "unit": "real tokens/s",
            "memory_ratio": round(memory[them] / memory[us], 4),
            "peak_mib": {
                "ours": memory[us],
                "other": memory[them],
                "predicted": self._predicted(contenders[us].setting),
            },
            "padding": round(self._padding, 3),
            "tokens": self._tokens,
            "queries": self._case.queries,
            "settings": {"ours": contenders[us].setting, "other": contenders[them].setting},
            "seconds": {"ours": wall_seconds(times[us]), "other": wall_seconds(times[them])},
            "cpu_seconds": {"ours": cpu_seconds(times[us]), "other": cpu_seconds(times[them])},
            "cpu_ratio": cpu_ratio(times[us], times[them]),
            "loss_difference": abs(loss[us] - loss[them]) / loss[them],
            "sweeps": {
                side: [
                    {**setting, "seconds": round(seconds, 4) if math.isfinite(seconds) else None}
                    for setting, seconds in sweeps[key]
                ]
                for side, key in (("ours", "ours"), ("other", theirs))
            },
            **self._utilisation(speed[us], speed[them]),
        }
        self._report(f"{record['name']}: ratio {record['ratio']:.2f}, padding {self._padding:.1f}")
        return record

    def _predicted(self, setting: Setting) -> float:
        ours = self._ours
        return predicted_mib(self._shape, ours.store.lengths, setting, compute=ours.compute, fused=ours.fused)

    def _utilisation(self, ours: float, other: float) -> dict[str, Any]:
        """Model FLOP utilisation of both, where the GPU's peak is known."""
        device = find_device(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
        if device is None:
            return {}
        flops = training_flops(self._shape, self._tokens, self._squares)
        peak = device.tflops * 1e12
        return {
            "mfu": {"ours": ours / self._tokens * flops / peak, "other": other / self._tokens * flops / peak}
        }


def _median_seconds(turns: list[tuple[np.ndarray, float]]) -> float:
    return statistics.median(float(seconds[0]) for seconds, _ in turns)


def fastest(sweep: list[tuple[Setting, float]]) -> Setting:
    """Return the setting of the fewest seconds."""
    return min(sweep, key=lambda item: item[1])[0]
