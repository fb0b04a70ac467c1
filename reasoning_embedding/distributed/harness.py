"""Running a function on several connected ranks of this machine, for tests."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from reasoning_embedding.errors import TrainingError

from .world import World


def run_ranks(size: int, function: Callable[..., Any], *arguments: Any, timeout: float = 120.0) -> list[Any]:
    """Call ``function(world, *arguments)`` on `size` forked ranks connected by gloo.

    Forking takes a tenth of a second where spawning takes seven; it needs a parent that has not
    started a GPU context.

    Parameters
    ----------
    size : int
        Number of ranks.
    function : callable
        What each rank does.
    *arguments
        Given to every rank.
    timeout : float
        Seconds that a rank waits for another in a collective. All are killed after twice as long: one that waits
        for a lost one has then said so.

    Returns
    -------
    list
        What each rank returned, in rank order.

    Raises
    ------
    TrainingError
        Naming each rank that died or ran out of time, and the first that failed, with its traceback.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_rank_main, args=(rank, size, folder, timeout, function, arguments))
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        deadline = time.monotonic() + 2 * timeout
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()
            process.join()
        results = [_read(Path(folder) / f"{rank}.pickle") for rank in range(size)]
    said = []
    for rank, (kind, _) in enumerate(results):
        if kind == "nothing":
            end = (
                "was killed: it took too long"
                if codes[rank] is None
                else f"died with exit code {codes[rank]}"
            )
            said.append(f"rank {rank} {end}")
    # The first to fail is the cause; the others lose their connection to it.
    errors = [(*value, rank) for rank, (kind, value) in enumerate(results) if kind == "error"]
    if errors:
        _, trace, rank = min(errors)
        said.append(f"rank {rank} failed:\n{trace}")
    if said:
        raise TrainingError("\n".join(said))
    return [value for _, value in results]


def _rank_main(
    rank: int,
    size: int,
    folder: str,
    timeout: float,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    import torch
    import torch.distributed as dist

    gc.freeze()  # nothing of the parent is garbage: collections need not search it
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)  # what a launcher sets, and DeepSpeed asks for
    result: tuple[str, Any]
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/rendezvous",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=timeout),
        )
        result = ("value", function(World(rank, size), *arguments))
    except Exception:  # noqa: BLE001  (whatever it was belongs into the parent's report)
        result = ("error", (time.monotonic(), traceback.format_exc()))
    written = Path(folder, f"{rank}.partial")
    written.write_bytes(pickle.dumps(result))
    written.rename(written.with_suffix(".pickle"))  # a rank that is killed here leaves no half result
    # Leaving without interpreter shutdown: a peer that died would keep gloo's threads waiting.
    os._exit(0 if result[0] == "value" else 1)


def _read(path: Path) -> tuple[str, Any]:
    return pickle.loads(path.read_bytes()) if path.exists() else ("nothing", None)
