"""Where the numbers of a run also go: TensorBoard, Weights & Biases, trackio; none can stop or delay a run."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import netrc
import os
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.config.resolved import with_old_defaults
from reasoning_embedding.errors import SetupError
from reasoning_embedding.progress import Report
from reasoning_embedding.secrets import known_secrets, mask, masked

#: Seconds that the end of a run waits for a tracker that may be waiting for its server.
PATIENCE = 15.0
#: Steps a tracker may lag behind before numbers are left out.
_BACKLOG = 100_000


class Tracker(Protocol):
    """Takes the numbers of steps."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take the numbers of one step."""

    def close(self) -> None:
        """Write what is left."""


def open_trackers(settings: config.RunConfig, run: RunFolder, *, first: int, report: Report) -> list[Tracker]:
    """Open what ``logging.trackers`` names, once :func:`require_trackers` has found it installed.

    Parameters
    ----------
    settings : config.RunConfig
        The run.
    run : RunFolder
        Where TensorBoard and wandb keep their files.
    first : int
        Steps already done.
    report : callable
        Told of what is left out: TensorBoard where it is not installed, for it is asked for by default.
    """
    logging = settings.logging
    found: list[Tracker] = []
    for name in dict.fromkeys(logging.trackers):
        if name == "tensorboard":
            board = _tensorboard(run, first, report) if logging.tensorboard else None
            found += [board] if board is not None else []
            continue
        start = _start_wandb if name == "wandb" else _start_trackio
        found.append(Background(name, lambda start=start: start(settings, run, report), report))
    return found


def require_trackers(settings: config.RunConfig) -> None:
    """Look for what ``logging.trackers`` names, before a run leaves anything behind.

    Raises
    ------
    SetupError
        If wandb or trackio was asked for and is not installed.
    """
    for name in settings.logging.trackers:
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise SetupError(
                f"logging.trackers names {name}, which is not installed",
                todo=f"pip install 'reasoning-embedding[{name}]', or take it out",
            )


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def _tensorboard(run: RunFolder, first: int, report: Report) -> Tracker | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        report("TensorBoard is not installed (extra: tracking); metrics go to metrics.jsonl only")
        return None
    return _TensorBoard(SummaryWriter(str(run.path / "tensorboard"), purge_step=first + 1 if first else None))


class Background:
    """A tracker in a thread of its own, because its start and its server may take any time.

    Parameters
    ----------
    name : str
        For messages.
    start : callable
        Opens the tracker, in the thread.
    report : callable
        Told once when it fails or falls behind; the run goes on.
    """

    def __init__(self, name: str, start: Callable[[], Tracker], report: Report) -> None:
        self._name, self._start, self._report = name, start, report
        self._waiting: queue.Queue[tuple[Mapping[str, float], int] | None] = queue.Queue()
        self._behind = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Hand the numbers over and return at once."""
        if not self._thread.is_alive():
            return
        if self._waiting.qsize() < _BACKLOG:
            self._waiting.put((values, step))
        elif not self._behind:
            self._behind = True
            self._report(
                f"{self._name} is {_BACKLOG:,} steps behind; steps from {step} on are left out of it"
            )

    def close(self, patience: float = PATIENCE) -> None:
        """Let the tracker finish, for at most `patience` seconds."""
        self._waiting.put(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._report(f"{self._name} still waits for its server and is left; metrics.jsonl has every step")

    def _work(self) -> None:
        try:
            tracker = self._start()
            while (item := self._waiting.get()) is not None:
                tracker.log(*item)
            tracker.close()
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises must not end a run; it is said
            said = mask(str(error).split("\n")[0], *known_secrets())
            self._report(f"{self._name} failed ({said}); metrics go to metrics.jsonl only")


class _Module:
    """A library of wandb's form: ``log(values, step=)`` and ``finish()``."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._handle.log(dict(values), step=step)

    def close(self) -> None:
        self._handle.finish()


def _start_wandb(settings: config.RunConfig, run: RunFolder, report: Report) -> Tracker:
    wandb = importlib.import_module("wandb")
    mode: Any = os.environ.get("WANDB_MODE") or ("online" if has_wandb_key() else "offline")
    if mode == "offline":
        report(f"wandb is offline; `wandb sync {run.path / 'wandb'}/offline-run-*` sends the run later")
    handle = wandb.init(
        **_identity(settings),
        id=_run_id(settings),
        dir=str(run.path),
        mode=mode,
        settings=wandb.Settings(silent=True),
    )
    return _Module(handle)


def _start_trackio(settings: config.RunConfig, _: RunFolder, __: Report) -> Tracker:
    trackio = importlib.import_module("trackio")
    trackio.init(**_identity(settings))
    return _Module(trackio)


def _identity(settings: config.RunConfig) -> dict[str, Any]:
    """What both libraries file a run under; a resumed run goes on where it was."""
    return {
        "project": settings.logging.project,
        "group": settings.logging.group,
        "name": settings.name,
        "config": masked(config.resolved_json(settings)),
        "resume": "allow",
    }


def _run_id(settings: config.RunConfig) -> str:
    text = json.dumps(with_old_defaults(config.resolved_json(settings)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def has_wandb_key() -> bool:
    """Whether wandb would find a key: in the environment, or in the netrc file for its host."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    try:
        return host is not None and netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
