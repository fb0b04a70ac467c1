"""Opening checkpoints on a probe set and reading their states: alone, from the cache, or two in lockstep."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from reasoning_embedding import config
from reasoning_embedding.backbones import (
    Embedder,
    load_config,
    load_decoder,
    load_tokenizer,
    read_readout,
    require_decoder,
    untrained_decoder,
)
from reasoning_embedding.checkpoints import read_provenance
from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.checkpoints.models import (
    LibraryEmbedder,
    library_tokens,
    load_library,
    open_embedder,
)
from reasoning_embedding.checkpoints.provenance import verify_recorded
from reasoning_embedding.checkpoints.references import ResolvedModel
from reasoning_embedding.distributed import World, sum_over_ranks
from reasoning_embedding.errors import ContractError, InputError
from reasoning_embedding.progress import Report

from .cache import ActivationCache, activation_key, sinks_key
from .capture import (
    Activations,
    Sample,
    check_finite,
    draw_sample,
    leading_sinks,
    read,
    token_hash,
    tokenize,
)
from .metrics.cka import TILE
from .metrics.layer import Layer
from .metrics.procrustes import heldout_texts
from .moments import PairSums, needed_mib
from .probes import ProbeSet

#: Texts whose mean sums are taken about.
_PILOT = 8


@dataclass(frozen=True)
class Checkpoint:
    """A model to measure.

    Parameters
    ----------
    path : Path or str
        Its folder, or an id on the Hub.
    reference : str
        Its name in results and errors.
    revision : str, optional
        Branch, tag or commit on the Hub.
    content : str, optional
        Hash of its content; without one nothing of it is cached.
    """

    path: Path | str
    reference: str
    revision: str | None = None
    content: str | None = None


@dataclass(frozen=True, eq=False)
class ModelStates:
    """A model's states on the probe set.

    Parameters
    ----------
    checkpoint : Checkpoint
        The model.
    activations : Activations
        Its states.
    layers : list of Layer
        The same states, prepared for pairs.
    tokens : str
        Hash of the probe set's token ids.
    """

    checkpoint: Checkpoint
    activations: Activations
    layers: list[Layer]
    tokens: str

    @property
    def reference(self) -> str:
        """What the user calls it."""
        return self.checkpoint.reference

    @property
    def width(self) -> int:
        """Dimensions of every layer."""
        return self.layers[-1].width

    @property
    def sample(self) -> Sample:
        """The rows kept."""
        return self.activations.sample

    def describe(self) -> dict[str, Any]:
        """What the results file says of it."""
        known = read_provenance(Path(self.checkpoint.path)) or {}
        return {
            "reference": self.reference,
            "path": str(self.checkpoint.path),
            "revision": self.checkpoint.revision,
            "content_hash": self.checkpoint.content or known.get("content_hash"),
            "attention": "causal" if self.activations.causal else "bidirectional",
            "dimension": self.width,
            "layers": len(self.layers) - 2,
        }


class OpenModel:
    """A checkpoint opened on the probe set: its tokens now, its weights when they are needed.

    Parameters
    ----------
    checkpoint : Checkpoint
        The model.
    probe : ProbeSet
        Texts.
    max_tokens : int
        Longer texts are cut.
    device : torch.device or str
        Where it computes.
    report : callable
        Is told where a model is not read by the packed forward, and why.

    Raises
    ------
    InputError
        If the checkpoint cannot be read.
    ContractError
        If its layers cannot be told apart.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        probe: ProbeSet,
        max_tokens: int,
        device: torch.device | str = "cpu",
        report: Report = print,
    ) -> None:
        self.checkpoint, self.device = checkpoint, device
        self._resolved = ResolvedModel(checkpoint.reference, checkpoint.path, checkpoint.revision)
        self._path, self._revision = str(checkpoint.path), checkpoint.revision
        #: Whether its states are those of its own padded forward, as sentence-transformers runs it.
        self.padded = self._needs_padding(report)
        if self.padded:
            library: Any = load_library(self._resolved)
            self.ids = library_tokens(library, probe.texts, max_tokens)
            model_config: Any = library[0].auto_model.config
        else:
            tokenizer = load_tokenizer(self._path, revision=self._revision)
            self.ids = tokenize(probe.texts, tokenizer, max_tokens)
            model_config = load_config(self._path, revision=self._revision)
        self.tokens = token_hash(self.ids)
        text = model_config.get_text_config()
        #: Layers (embedding, layers, final states) and their width.
        self.shape: tuple[int, int] = text.num_hidden_layers + 2, text.hidden_size
        #: All that decides the model but its weights.
        self.architecture: str = json.dumps(
            {**model_config.to_dict(), "_name_or_path": None}, sort_keys=True, default=str
        )

    def _needs_padding(self, report: Report) -> bool:
        """Whether the packed forward does not give this model's states; it is said why."""
        try:
            require_decoder(load_config(self._path, revision=self._revision), self._path)
            saved = read_readout(self._path, revision=self._revision)
            if saved is not None:
                saved.refuse_wrapped_texts(self._path)
        except ContractError as error:
            report(
                f"{self.checkpoint.reference}: {error.what}; its states are those of its own padded forward"
            )
            return True
        if saved is None or self._resolved.provenance:
            return False
        return isinstance(open_embedder(self._resolved, report=report), LibraryEmbedder)

    @cached_property
    def model(self) -> Any:
        """The model without its head, on the device."""
        if Path(self._path).is_dir():
            verify_recorded(Path(self._path))
        try:
            if self.padded:
                library: Any = load_library(self._resolved)
                model: Any = library[0].auto_model.float().eval()
            else:
                model = load_decoder(self._path, revision=self._revision)[0]
        except SafetensorError as error:
            raise InputError(
                f"the weights cannot be read: {error}",
                where=self._path,
                todo="save or download the checkpoint again",
            ) from error
        return model.to(self.device)

    def untrained(self, seed: int) -> Any:
        """A model of the same architecture with fresh weights, on the CPU."""
        if not self.padded:
            return untrained_decoder(self._path, revision=self._revision, seed=seed)
        kind, settings = type(self.model), copy.deepcopy(self.model.config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return kind(settings).float().eval()

    def vectors(self, texts: Sequence[str], max_tokens: int) -> tuple[np.ndarray, str] | None:
        """Return what the model's own readout makes of texts, (n, D) unit vectors, and that readout in words.

        None of a language model, which has no readout. No prompt is put before the texts, as before the states.
        """
        if not self.padded and read_readout(self._path, revision=self._revision) is None:
            return None
        if self.padded:
            embedder: Embedder | LibraryEmbedder = LibraryEmbedder(load_library(self._resolved))
            readout: dict[str, Any] = embedder.readout
            words = f"{' + '.join(readout['modules'])}, pooling {readout['pooling']}"
        else:
            embedder = load_embedder(self._resolved.files)
            words = str(embedder.readout)
        own = embedder.max_tokens
        limit = max_tokens if own is None else min(max_tokens, own)
        return embedder.to(self.device).encode(texts, prompt="", max_tokens=limit), words

    def release(self) -> None:
        """Let the weights go."""
        self.__dict__.pop("model", None)

    def states(self, activations: Activations) -> ModelStates:
        """Prepare captured states for pairs."""
        layers = [
            Layer(rows, f"{self.checkpoint.reference}, {label}", dtype=np.float32)
            for rows, label in zip(activations.states, activations.layers, strict=True)
        ]
        return ModelStates(self.checkpoint, activations, layers, self.tokens)


@dataclass(frozen=True)
class PairStates:
    """The states of two models on the same rows; `sums` is absent where every row is kept."""

    a: ModelStates
    b: ModelStates
    sums: PairSums | None


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
    untrained: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What :mod:`.levels` measured of models with fresh weights, for further pairs of the same architectures."""

    def open(self, checkpoint: Checkpoint, like: OpenModel | None = None) -> OpenModel:
        """Open a checkpoint, the other side of `like`.

        Raises
        ------
        InputError
            If the checkpoint cannot be read, or cuts texts into other tokens than `like` while rows are tokens.
        """
        reader = OpenModel(checkpoint, self.probe, self.settings.max_tokens, self.world.device, self.report)
        if like is not None and reader.tokens != like.tokens and self.settings.tokens != "mean":
            raise InputError(
                f"{like.checkpoint.reference} and {checkpoint.reference} cut the probe texts into different tokens, "
                "so tokens cannot be compared row by row",
                where=f"tokens: {self.settings.tokens}",
                todo="set tokens: mean (--tokens mean), which compares one mean vector a text",
            )
        return reader

    def sample(self, *readers: OpenModel) -> Sample:
        """Return the rows kept of every model that is compared with `readers`, whose sinks are left out."""
        settings = self.settings
        lengths = [len(text) for text in readers[0].ids]
        skip = max(map(self._skipped, readers)) if settings.tokens == "all" else 0
        for reader in readers[1:]:  # the first is read next; two at once may not fit
            reader.release()
        return draw_sample(lengths, settings.tokens, settings.max_rows, settings.seed, skip=skip)

    def _skipped(self, reader: OpenModel) -> int:
        """Leading tokens to leave out of a text: as many as the settings say, or the model's attention sinks."""
        if self.settings.skip_first != "auto":
            return self.settings.skip_first
        content, cache = reader.checkpoint.content, self.cache if self.world.size == 1 else None
        key = None if content is None else sinks_key(content, reader.tokens)
        if cache is not None and key is not None and (known := cache.get_sinks(key)) is not None:
            return known
        found = leading_sinks(reader.model, reader.ids)
        if cache is not None and key is not None:
            cache.put_sinks(key, found)
        return found

    def states(
        self, a: OpenModel, b: OpenModel, known: ModelStates | None = None, *, sample: Sample | None = None
    ) -> PairStates:
        """Measure two models; `known` is the first one, if it was measured before, `sample` the rows to keep otherwise.

        Raises
        ------
        InputError
            If a state is NaN or infinite, naming the layer.
        """
        sample = known.sample if known else sample or self.sample(a, b)
        pairs, matched = self._followed(a, b), matched_layers(a.shape[0], b.shape[0])
        if known is None:
            if sample.skipped:
                many = (
                    f"first {sample.skipped} tokens of every text are"
                    if sample.skipped > 1
                    else "first token of every text is"
                )
                self.report(f"the {many} left out (attention sinks: skip_first)")
            self.report(self._needs(a, b, sample, len(pairs)))
        if not self._streams(a, sample):
            first = known or a.states(self._activations(a, sample))
            second = b.states(self._activations(b, sample))
            return PairStates(first, second, None)
        sums = PairSums(pairs, matched)
        held = torch.from_numpy(heldout_texts(len(a.ids), self.settings.heldout, self.settings.seed))
        models, ids = [a.model, b.model], [a.ids, b.ids]
        if self.world.size > 1:
            sums.begin(self._pilot(models, ids))
        found = read(
            models, ids, sample, world=self.world, each=lambda rows, texts: sums.add(rows, held[texts])
        )
        sums.reduce(self.world)
        for model, activations, side in zip(models, found, sums.layers, strict=True):
            for label, moments in zip(activations.layers, side, strict=True):
                check_finite(moments.total, model, label)
        b.release()
        return PairStates(known or a.states(found[0]), b.states(found[1]), sums)

    def _rows(self, reader: OpenModel, sample: Sample) -> int:
        """Rows of the probe set under the token rule."""
        if sample.tokens != "all":
            return len(reader.ids)
        return sum(max(0, len(text) - sample.skipped) for text in reader.ids)

    def _streams(self, reader: OpenModel, sample: Sample) -> bool:
        rule = self.settings.streaming
        return rule == "always" or (rule == "auto" and self._rows(reader, sample) > self.settings.max_rows)

    def _followed(self, a: OpenModel, b: OpenModel) -> list[tuple[int, int]]:
        """Pairs of layers whose sums are kept: all where they fit, else the matched ones."""
        every = [(i, j) for i in range(a.shape[0]) for j in range(b.shape[0])]
        fits = needed_mib(a.shape, b.shape, len(every)) <= self.settings.memory_mib
        return every if fits else matched_layers(a.shape[0], b.shape[0])

    def _needs(self, a: OpenModel, b: OpenModel, sample: Sample, pairs: int) -> str:
        """Say how much memory the measurement takes besides the models."""
        kept = len(sample)
        values = a.shape[0] * a.shape[1] + b.shape[0] * b.shape[1]
        rows = 2 * 4 * kept * values / 2**20  # as captured, and centred
        tiles = 4 * TILE**2 * (a.shape[0] + b.shape[0]) / 2**20
        parts = f"{kept:,} kept rows {rows:.0f}, tiles of Gram matrices {tiles:.0f}"
        if not self._streams(a, sample):
            return f"needs about {rows + tiles:.0f} MiB: {parts}"
        sums = needed_mib(a.shape, b.shape, pairs)
        total = rows + tiles + sums
        return f"needs about {total:.0f} MiB: {parts}, sums of {self._rows(a, sample):,} rows {sums:.0f}"

    def _activations(self, reader: OpenModel, sample: Sample) -> Activations:
        """Kept rows of one model, from the cache where they are there."""
        key, content = None, reader.checkpoint.content
        # Ranks must take the same way: one that finds an entry would leave the others waiting for its share.
        if self.cache is not None and content is not None and self.world.size == 1:
            key = activation_key(content, reader.tokens, sample)
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
