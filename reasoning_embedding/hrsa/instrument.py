"""Opening checkpoints on a probe set and reading them: alone, from the cache, or two in lockstep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from reasoning_embedding import config
from reasoning_embedding.distributed import World, sum_over_ranks
from reasoning_embedding.errors import InputError

from .cache import ActivationCache, activation_key
from .capture import Activations, Sample, check_finite, draw_sample, read
from .heat_maps import TILE
from .probes import ProbeSet
from .side import Checkpoint, Reader, Side
from .streaming import PairStream, heldout_texts, needed_mib

Report = Callable[[str], None]
#: Texts whose mean sums are taken about.
_PILOT = 8


@dataclass(frozen=True)
class Sides:
    """Two models measured on the same rows; `stream` is absent where every row is kept."""

    a: Side
    b: Side
    stream: PairStream | None


@dataclass(frozen=True)
class Instrument:
    """What every comparison of an analysis shares.

    Parameters
    ----------
    probe : ProbeSet
        Texts.
    settings : config.Measuring
        Token rule, bounds, seed.
    cache : ActivationCache, optional
        Where kept rows are looked up.
    world : World
        Ranks that share the texts.
    report : callable
        Takes a line at a time.
    """

    probe: ProbeSet
    settings: config.Measuring
    cache: ActivationCache | None = None
    world: World = field(default_factory=World)
    report: Report = print

    def open(self, checkpoint: Checkpoint, like: Reader | None = None) -> Reader:
        """Open a checkpoint, the other side of `like`.

        Raises
        ------
        InputError
            If the checkpoint cannot be read, or cuts texts into other tokens than `like` while rows are tokens.
        """
        reader = Reader(checkpoint, self.probe, self.settings.max_tokens)
        if like is not None and reader.tokens != like.tokens and self.settings.tokens != "mean":
            raise InputError(
                f"{like.checkpoint.reference} and {checkpoint.reference} cut the probe texts into different tokens, "
                "so tokens cannot be compared row by row",
                where=f"tokens: {self.settings.tokens}",
                todo="set tokens: mean (--tokens mean), which compares one mean vector a text",
            )
        return reader

    def sample(self, reader: Reader) -> Sample:
        """Return the rows kept of every model that is compared with `reader`."""
        settings = self.settings
        lengths = [len(text) for text in reader.ids]
        return draw_sample(lengths, settings.tokens, settings.max_rows, settings.seed)

    def sides(self, a: Reader, b: Reader, known: Side | None = None) -> Sides:
        """Measure two models; `known` is the first one, if it was measured before.

        Raises
        ------
        InputError
            If a state is NaN or infinite, naming the layer.
        """
        sample = known.sample if known else self.sample(a)
        pairs, matched = self._followed(a, b), matched_layers(a.shape[0], b.shape[0])
        if known is None:
            self.report(self._needs(a, b, len(sample), len(pairs)))
        if not self._streams(a):
            first = known or a.side(self._activations(a, sample))
            second = b.side(self._activations(b, sample))
            return Sides(first, second, None)
        stream = PairStream(pairs, matched)
        held = torch.from_numpy(heldout_texts(len(a.ids), self.settings.heldout, self.settings.seed))
        models, ids = [a.model, b.model], [a.ids, b.ids]
        if self.world.size > 1:
            stream.begin(self._pilot(models, ids))
        found = read(
            models, ids, sample, world=self.world, each=lambda rows, texts: stream.add(rows, held[texts])
        )
        stream.reduce(self.world)
        for model, activations, side in zip(models, found, stream.sides, strict=True):
            for label, moments in zip(activations.layers, side, strict=True):
                check_finite(moments.total, model, label)
        b.release()
        return Sides(known or a.side(found[0]), b.side(found[1]), stream)

    def _rows(self, reader: Reader) -> int:
        """Rows of the probe set under the token rule."""
        return sum(map(len, reader.ids)) if self.settings.tokens == "all" else len(reader.ids)

    def _streams(self, reader: Reader) -> bool:
        rule = self.settings.streaming
        return rule == "always" or (rule == "auto" and self._rows(reader) > self.settings.max_rows)

    def _followed(self, a: Reader, b: Reader) -> list[tuple[int, int]]:
        """Pairs of layers whose sums are kept: all where they fit, else the matched ones."""
        every = [(i, j) for i in range(a.shape[0]) for j in range(b.shape[0])]
        fits = needed_mib(a.shape, b.shape, len(every)) <= self.settings.memory_mib
        return every if fits else matched_layers(a.shape[0], b.shape[0])

    def _needs(self, a: Reader, b: Reader, kept: int, pairs: int) -> str:
        """Say how much memory the measurement takes besides the models."""
        values = a.shape[0] * a.shape[1] + b.shape[0] * b.shape[1]
        rows = 2 * 4 * kept * values / 2**20  # as captured, and centred
        tiles = 4 * TILE**2 * (a.shape[0] + b.shape[0]) / 2**20
        parts = f"{kept:,} kept rows {rows:.0f}, tiles of Gram matrices {tiles:.0f}"
        if not self._streams(a):
            return f"needs about {rows + tiles:.0f} MiB: {parts}"
        sums = needed_mib(a.shape, b.shape, pairs)
        total = rows + tiles + sums
        return f"needs about {total:.0f} MiB: {parts}, sums of {self._rows(a):,} rows {sums:.0f}"

    def _activations(self, reader: Reader, sample: Sample) -> Activations:
        """Kept rows of one model, from the cache where they are there."""
        key, checkpoint = None, reader.checkpoint
        # Ranks must take the same way: one that finds an entry would leave the others waiting for its share.
        if self.cache is not None and checkpoint.content is not None and self.world.size == 1:
            key = activation_key(checkpoint.content, checkpoint.bidirectional, reader.tokens, sample)
            if (found := self.cache.get(key, sample)) is not None:
                return found
        [found] = read([reader.model], [reader.ids], sample, world=self.world)
        reader.release()
        if key is not None and self.cache is not None:
            self.cache.put(key, found)
        return found

    def _pilot(self, models: list, ids: list[list[np.ndarray]]) -> list[list[torch.Tensor]]:
        """Points that sums are taken about, the main rank's for all: means of the first texts' states."""
        means: list[list[torch.Tensor]] = []

        def keep(rows: list[list[torch.Tensor]], _: torch.Tensor) -> None:
            if not means:
                means.extend([layer.mean(dim=0) for layer in side] for side in rows)

        few = [texts[:_PILOT] for texts in ids]
        read(models, few, draw_sample([len(t) for t in few[0]], self.settings.tokens, _PILOT, 0), each=keep)
        share = 1.0 if self.world.is_main else 0.0
        return [[sum_over_ranks(mean * share, self.world) for mean in side] for side in means]


def matched_layers(a: int, b: int) -> list[tuple[int, int]]:
    """Pairs of equal relative depth of models of `a` and `b` layers, embedding and final norm included."""
    deep_a, deep_b = a - 2, b - 2
    return [*((i, round(i * deep_b / deep_a)) for i in range(deep_a + 1)), (deep_a + 1, deep_b + 1)]
