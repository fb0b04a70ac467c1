"""Refuse to publish what a reader of the card could not use as the card says."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_embedding.backbones import Embedder, check_attention, input_contract
from reasoning_embedding.backbones.contracts import PROBE_TEXTS
from reasoning_embedding.checkpoints import content_hash, read_provenance, versions
from reasoning_embedding.checkpoints.embedder import load_embedder, verify_content
from reasoning_embedding.errors import ContractError, InputError
from reasoning_embedding.files import read_json_value
from reasoning_embedding.host import host_memory
from reasoning_embedding.progress import Report
from reasoning_embedding.secrets import mask

from .card import CARD
from .facts import read_run
from .release import Release, ReleaseRecord, Revision, Verified
from .usage import TITLES, literal, snippets_of_card

#: How far an embedding as the card computes it may lie from the trainer's own, in rounding noise of this very model.
NOISES = 10.0
#: Least noise believed: what the last bit of a float32 sum already moves in a unit vector.
_LEAST_NOISE = 1e-6
#: Noise believed of a model that is too large for float64 on this machine.
_UNMEASURED_NOISE = 1e-6
#: Longest limit of tokens at which a text beyond it is part of the probe.
_LONGEST_CUT = 1024

Probe = tuple[str, list[str]]
#: ([library -> code] a revision, [probes] a revision) -> {``REVISION/LIBRARY/PROBE``: (n, D) array}
RunFresh = Callable[[Sequence[dict[str, str]], Sequence[list[Probe]]], dict[str, np.ndarray]]


def run_fresh(codes: Sequence[dict[str, str]], probes: Sequence[list[Probe]]) -> dict[str, np.ndarray]:
    """Run card code in a process that knows nothing of this package, without network and without a token.

    Raises
    ------
    ContractError
        If the code fails; the last line of its traceback is the reason.
    """
    secret = ("TOKEN", "SECRET", "KEY", "PASSWORD")
    environment = {
        name: value for name, value in os.environ.items() if not any(word in name.upper() for word in secret)
    }
    environment |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    script = Path(__file__).with_name("fresh.py")
    with tempfile.TemporaryDirectory(prefix="reasoning-embedding-") as folder:
        output = Path(folder) / "embeddings.npz"
        job = {"revisions": list(codes), "probes": list(probes), "output": str(output)}
        done = subprocess.run(
            [sys.executable, "-P", str(script)],
            input=json.dumps(job),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise ContractError(f"the card's code fails in a fresh process: {mask(lines[-1])}", where=CARD)
        with np.load(output, allow_pickle=False) as arrays:
            return dict(arrays)


def verify(release: Release, record: ReleaseRecord, report: Report, fresh: RunFresh = run_fresh) -> None:
    """Check every exported revision; what was checked before in this very form is not checked again.

    Content hash, attention contract, the run's input contract, no code in the model, and embeddings: those of
    the card's own code, run in a fresh process, equal the trainer's to :data:`NOISES` times the rounding noise of
    this model, which is how far its own float32 embeddings of the same texts lie from those in float64.

    Parameters
    ----------
    release : Release
        Exported.
    record : ReleaseRecord
        Remembers what was checked.
    report : callable
        Takes a line a library.
    fresh : callable
        Runs the code.

    Raises
    ------
    ContractError
        Saying why this must not be published.
    InputError
        If a checkpoint is damaged or cannot be loaded.
    """
    inputs = read_run(release.run).manifest.get("input_contract") or {}
    fingerprints = {item: _fingerprint(release.exported(item)) for item in release.revisions}
    waiting = [item for item in release.revisions if record.verified(item.name, fingerprints[item]) is None]
    codes = [_card_code(release, revision) for revision in waiting]
    expected = [_expected(release.exported(revision), revision, inputs, report) for revision in waiting]
    if waiting:
        report(f"verifying {', '.join(item.name for item in waiting)} in a fresh process")
        found = fresh(codes, [one.probe for one in expected])
        for index, revision in enumerate(waiting):
            differences = {
                library: _difference(found, f"{index}/{library}", expected[index], release.exported(revision))
                for library in codes[index]
            }
            record.set_verified(
                revision.name, Verified(fingerprints[revision], differences, expected[index].noise)
            )
    verified = [record.verified(item.name, fingerprints[item]) for item in release.revisions]
    for library in TITLES:
        worst = max((one for one in verified if one), key=lambda one: one.differences[library])
        report(
            f"verified: the card's code for {library} gives the trainer's embeddings to "
            f"{worst.differences[library]:.1g} (float noise of the model {worst.noise:.1g})"
        )


@dataclass(frozen=True)
class _Expected:
    """The trainer's embeddings of a probe, (n, D) for each prompt, and the rounding noise of their entries."""

    probe: list[Probe]
    vectors: list[np.ndarray]
    noise: float


def _fingerprint(folder: Path) -> str:
    """Hash of what was verified: model, card, and the libraries that computed."""
    parts = [content_hash(folder), (folder / CARD).read_text(encoding="utf-8"), json.dumps(versions())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _expected(folder: Path, revision: Revision, inputs: dict[str, Any], report: Report) -> _Expected:
    """Check one revision here, and embed the probe as the trainer does."""
    verify_content(revision.checkpoint)
    record = read_provenance(folder) or {}
    if content_hash(folder) != record.get("content_hash"):
        raise ContractError("the exported files differ from the checkpoint's", where=str(folder))
    _refuse_code(folder)
    embedder = load_embedder(folder)
    if record.get("readout", str(embedder.readout)) != str(embedder.readout):
        raise ContractError(
            f"the readout of the saved model is {embedder.readout}; it was trained with {record['readout']}",
            where=str(folder),
            todo="restore the checkpoint's files",
        )
    check_attention(embedder.model, where=str(folder), causal=embedder.readout.causal)
    contract = input_contract(embedder.tokenizer)
    if inputs and inputs["token_hash"] != contract.token_hash:
        raise ContractError(
            "the input contract is broken: this tokenizer gives other ids than the run was trained on",
            where=str(folder),
            todo="restore the checkpoint's tokenizer files",
        )
    # A tokenizer without a limit says 1e30, which no integer of the tokenizer's own code can hold.
    limit = min(int(embedder.tokenizer.model_max_length), 1 << 20)
    texts = [*PROBE_TEXTS, *([" ".join(map(str, range(limit)))] if limit <= _LONGEST_CUT else [])]
    prompts = dict.fromkeys(["", *embedder.prompts.values()])
    probe = [(prompt, texts) for prompt in prompts]

    def embed() -> list[np.ndarray]:
        return [embedder.encode(texts, prompt=prompt, max_tokens=limit) for prompt in prompts]

    vectors = embed()
    return _Expected(probe, vectors, _noise(embedder, vectors, embed, report))


def _noise(
    embedder: Embedder, vectors: list[np.ndarray], embed: Callable[[], list[np.ndarray]], report: Report
) -> float:
    """Return how far the embeddings lie from those in float64; the embedder is left in float64.

    Two correct ways to compute an embedding (packed and padded, one library's sums and another's) differ by about
    this much: 3e-7 for a model of two layers, 1e-5 and more for one of thirty, by processor.
    """
    more = sum(parameter.numel() for parameter in embedder.parameters()) * 8
    if more > host_memory().available:
        report(
            f"float64 weights of {more / 1e9:.0f} GB do not fit in memory: the float noise of this model is taken "
            f"to be {_UNMEASURED_NOISE:.0e}"
        )
        return _UNMEASURED_NOISE
    embedder.double()
    exact = embed()
    found = max(float(np.abs(a - b).max()) for a, b in zip(vectors, exact, strict=True))
    return max(found, _LEAST_NOISE)


def _refuse_code(folder: Path) -> None:
    for path in folder.glob("*.json"):
        if "auto_map" in read_json_value(path):
            raise ContractError(
                "the model asks for code of its own (auto_map)",
                where=str(path),
                todo="publish a stock architecture",
            )


def _card_code(release: Release, revision: Revision) -> dict[str, str]:
    """Take the code from the card and let it load the exported folder instead of the repository."""
    card = release.exported(revision) / CARD
    codes = snippets_of_card(card.read_text(encoding="utf-8"))
    repo, folder = literal(release.repo), literal(str(release.exported(revision).resolve()))
    if set(codes) != set(TITLES) or not all(repo in code for code in codes.values()):
        raise InputError(
            "the card lacks its code", where=str(card), todo="delete the export folder and try again"
        )
    return {library: code.replace(repo, folder) for library, code in codes.items()}


def _difference(found: dict[str, np.ndarray], key: str, expected: _Expected, folder: Path) -> float:
    """Return the largest difference of an entry, or refuse it by name of the text."""
    library, worst, where = key.partition("/")[2], 0.0, ("", "")
    for number, ((prompt, texts), vectors) in enumerate(zip(expected.probe, expected.vectors, strict=True)):
        given = found.get(f"{key}/{number}")
        if given is None:
            raise ContractError("the card's code gave no embeddings", where=str(folder))
        if given.shape != vectors.shape:
            raise ContractError("the card's code gives embeddings of another shape", where=str(folder))
        if not np.isfinite(given).all():
            raise ContractError(
                f"the card's code for {library} gives embeddings that are not finite", where=str(folder)
            )
        by_text = np.abs(given - vectors).max(axis=1)
        if by_text.max() > worst:
            worst, where = float(by_text.max()), (prompt, texts[int(by_text.argmax())])
    if worst > NOISES * expected.noise:
        after = f" after the prompt {_short(where[0])}" if where[0] else ""
        raise ContractError(
            f"not published: by the card's code for {library} the embedding of {_short(where[1])}{after} differs from "
            f"the trainer's by {worst:.2g}, and float rounding of this model is {expected.noise:.1g}, of which "
            f"{NOISES:.0f} times are allowed",
            where=str(folder),
            todo="check the versions of transformers and sentence-transformers with `rembed doctor`",
        )
    return worst


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
