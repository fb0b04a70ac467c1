"""One byte changed in any file of a run: refused with a cure, a fallback that is said, or repaired; never other numbers.

``SOAK_FLIPS`` sets how many places of each file the slow tests try; ``make soak`` sets many. The places differ from run
to run unless ``SOAK_SEED`` is given; a failure prints it.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_embedding import config, training
from reasoning_embedding.backbones import Embedder
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.checkpoints.run_records import read_manifest, read_settings
from reasoning_embedding.checkpoints.scores import evaluated_scores, read_best, scores_while_training
from reasoning_embedding.distributed import World
from reasoning_embedding.distributed.harness import run_ranks
from reasoning_embedding.errors import InputError, ReasoningEmbeddingError
from reasoning_embedding.files import write_json
from reasoning_embedding.training.run_folder import starting_point
from tests.factories import flip

FLIPS = int(os.environ.get("SOAK_FLIPS", "1"))
SEED = int(os.environ.get("SOAK_SEED", str(random.randrange(10**6))))
CURVE = {0: 0.1, 2: 0.4, 4: 0.7, 6: 0.6}
TEXTS = ["red cat dog", "king"]


def score(embedder: Embedder, step: int, world: World) -> dict[str, float]:
    return {"world": CURVE[step], "mean": CURVE[step]}


def _stops(embedder: Embedder, step: int, world: World) -> dict[str, float]:
    if step == 6:
        raise RuntimeError("the machine goes down")
    return score(embedder, step, world)


class Made:
    """A run that was stopped after its fourth step and the same run at its end, with a cache of its data beside them."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = config.RunConfig.model_validate(settings)
        run = RunFolder.of(self.settings)
        with pytest.raises(RuntimeError, match="goes down"):
            training.train(self.settings, text="as written", score=_stops, report=lambda _: None)
        shutil.copytree(run.path, folder / "stopped")
        training.train(self.settings, resume=True, score=score, report=lambda _: None)
        # As `evaluate` leaves them.
        for step in (4, 6):
            entry = {"task": "world", "main_score": CURVE[step]}
            scores = {"model": "run", "revision": "r", "step": step, "tasks": [entry], "failed": []}
            write_json(run.evaluation / f"step-{step:06d}" / "scores.json", scores, summed=True)
        shutil.copytree(run.path, folder / "finished")
        shutil.rmtree(run.path)

    @contextlib.contextmanager
    def copy(self, kind: str) -> Iterator[RunFolder]:
        run = RunFolder.of(self.settings)
        shutil.copytree(self.folder / kind, run.path)
        try:
            yield run
        finally:
            shutil.rmtree(run.path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small_run: Callable[..., dict[str, Any]]) -> Made:
    folder = tmp_path_factory.mktemp("damage")
    extra = {
        "evaluation": {"tasks": [{"kind": "world"}], "every": 2},
        "checkpoints": {"every": 2, "log_spaced": False, "keep_states": 2},
    }
    settings = small_run(folder, extra=extra)
    settings["data"]["cache_dir"] = str(folder / "cache")
    return Made(folder, settings)


def tried(job: Callable[[], Any]) -> tuple[Any, ReasoningEmbeddingError | None]:
    """What a job gives, or its refusal; anything else that it raises is a traceback."""
    try:
        return job(), None
    except ReasoningEmbeddingError as error:
        return None, error


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.stat().st_size)


def numbers(run: RunFolder) -> dict[str, Any]:
    """What a run's folder says that anyone reads; a refusal stands in the place of what was refused."""

    def read(reader: Callable[[], Any]) -> Any:
        found, error = tried(reader)
        assert error is None or (error.where and error.todo), "a refusal names its place and its cure"
        return found if error is None else "refused"

    def losses() -> list[Any]:
        return [(step, found) for step, found in scores_while_training(run).items()]

    found = {
        "settings": read(lambda: read_settings(run)),
        "manifest": read(lambda: read_manifest(run)),
        "best": read(lambda: read_best(run)),
        "logged": read(losses),
        "scores": read(lambda: {step: entry["tasks"] for step, entry in evaluated_scores(run).items()}),
    }
    return found


def vectors(run: RunFolder, step: int) -> np.ndarray | None:
    try:
        return load_embedder(run.checkpoint(step)).encode(TEXTS)
    except InputError:
        return None


def same_or_refused(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(value in ("refused", wanted[name]) for name, value in found.items())


def weights(run: RunFolder, step: int) -> bytes:
    return (run.checkpoint(step) / "model.safetensors").read_bytes()


def test_the_undamaged_runs_are_what_the_others_are_held_to(made: Made) -> None:
    for kind, step, states in (("stopped", 4, [2, 4]), ("finished", 6, [4, 6])):
        with made.copy(kind) as run:
            said: list[str] = []
            start = starting_point(run, made.settings, World(), resume=True, report=said.append)
            assert (start.step, said, run.state_steps()) == (step, [], states)
            assert "refused" not in numbers(run).values()
            assert vectors(run, step) is not None


@pytest.mark.parametrize("kind", ["stopped", "finished"])
def test_a_byte_of_any_file(made: Made, kind: str) -> None:
    """Where a run would go on, what its folder says, and what its checkpoints give."""
    with made.copy(kind) as run:
        newest, before = run.state_steps()[-1], run.state_steps()[0]
        wanted, given = numbers(run), {step: vectors(run, step) for step in run.steps()}
        read = [run.checkpoint(newest), run.state(newest), run.config_json]  # what resuming reads
        fell_back = 0
        for number, file in enumerate(files_of(run.path)):
            size = file.stat().st_size
            place = (size // 2, size // 3, size - 2)[number % 3]
            flip(file, place)
            said: list[str] = []
            start, error = tried(
                lambda said=said: starting_point(run, made.settings, World(), resume=True, report=said.append)
            )
            if error is not None:
                assert error.todo, file
            else:
                inert = file.parent != run.path and not any(file.is_relative_to(folder) for folder in read)
                if any(file.is_relative_to(folder) for folder in read):
                    assert said, f"nothing was said of {file}"
                assert start.step == newest or (start.step == before and said), file
                assert not (inert and said), file
                fell_back += start.step == before
            assert same_or_refused(numbers(run), wanted), file
            if file.is_relative_to(run.checkpoints):
                step = int(file.relative_to(run.checkpoints).parts[0].removeprefix("step-"))
                found = vectors(run, step)
                assert found is None or np.array_equal(found, given[step]), file
                assert found is None, f"{file} was not missed"
            flip(file, place)
        assert fell_back > 10
        assert numbers(run) == wanted


def test_a_run_goes_on_from_the_state_before_and_ends_the_same(made: Made) -> None:
    with made.copy("finished") as run:
        wanted = weights(run, 6)
    with made.copy("stopped") as run:
        flip(run.state(4) / "state.safetensors", -9)
        flip(run.metrics, 40)
        flip(run.best, 9)
        run.config_json.unlink()
        said: list[str] = []
        training.train(made.settings, resume=True, score=score, report=said.append)
        assert weights(run, 6) == wanted
        text = "\n".join(said)
        assert "step 4 is left out" in text
        assert "the run goes on from step 2, the newest that is whole" in text
        assert (
            "config.resolved.json is not there; settings are held to what the saved states recorded" in text
        )
        assert "metrics.jsonl:1: " in text
        assert "best.json" in text
        assert read_best(run) == {"step": 4, "score": 0.7, "select": "mean"}
        assert read_settings(run)["seed"] == 0
        assert sorted(scores_while_training(run)) == [2, 4, 6], "what was damaged is left out"


def test_without_its_settings_a_run_is_held_to_its_states(made: Made) -> None:
    with made.copy("stopped") as run:
        run.config_json.unlink()
        other = made.settings.model_copy(update={"seed": 9})
        with pytest.raises(InputError, match=r"no saved state can be used.*other settings \(seed\)"):
            starting_point(run, other, World(), resume=True, report=lambda _: None)
        start = starting_point(run, made.settings, World(), resume=True, report=lambda _: None)
        assert start.step == 4


def test_a_state_of_another_step_or_another_run_is_not_taken(made: Made) -> None:
    with made.copy("stopped") as run:
        shutil.rmtree(run.state(4))
        shutil.copytree(run.state(2), run.state(4))
        said: list[str] = []
        start = starting_point(run, made.settings, World(), resume=True, report=said.append)
        assert start.step == 2
        assert "is the state of step 2" in said[0]
    with made.copy("stopped") as run:
        shutil.rmtree(run.checkpoint(4))
        shutil.copytree(run.checkpoint(2), run.checkpoint(4))
        start = starting_point(run, made.settings, World(), resume=True, report=said.append)
        assert start.step == 2
        assert "belongs to another checkpoint" in said[2]


def _begin(world: World, made: Made) -> tuple[int, list[str]]:
    said: list[str] = []
    start = starting_point(RunFolder.of(made.settings), made.settings, world, resume=True, report=said.append)
    return start.step, said


def test_all_ranks_fall_back_together(made: Made) -> None:
    with made.copy("stopped") as run:
        flip(run.state(4) / "state.safetensors", -9)
        found = run_ranks(2, _begin, made)
    assert [step for step, _ in found] == [2, 2]
    assert "was changed after it was written" in found[0][1][0]


def test_a_finished_run_is_repaired(made: Made) -> None:
    with made.copy("finished") as run:
        wanted = numbers(run)
        for file in (run.manifest, run.config_json, run.best):
            flip(file, file.stat().st_size // 2)
        found = numbers(run)
        assert [found[name] for name in ("settings", "manifest", "best")] == ["refused"] * 3
        said: list[str] = []
        training.train(made.settings, resume=True, score=score, report=said.append)
        assert "were gone or damaged: they are written anew" in "\n".join(said)
        repaired = numbers(run)
        assert {name: repaired[name] for name in ("settings", "best", "logged")} == {
            name: wanted[name] for name in ("settings", "best", "logged")
        }
        assert weights(run, 6)


def test_what_stands_in_the_place_of_a_file_is_named(made: Made) -> None:
    """A folder, nothing, brackets without end, a number of thousands of digits: never a traceback."""
    odd: list[Callable[[Path], object]] = [
        lambda file: file.mkdir(),
        lambda file: file.write_text(""),
        lambda file: file.write_text("[" * 100_000),
        lambda file: file.write_text('{"step": ' + "9" * 5000 + "}"),
        lambda file: file.write_text('{"step": "two"}\n'),
        lambda file: file.write_bytes(b"\xff\xfe"),
    ]
    with made.copy("stopped") as run:
        files = [
            run.config_json,
            run.manifest,
            run.metrics,
            run.best,
            run.state(4) / "state.json",
            run.checkpoint(4) / "provenance.json",
        ]
        for file in files:
            for replace in odd:
                kept = file.rename(file.with_name("kept"))
                replace(file)
                with contextlib.suppress(InputError):
                    starting_point(run, made.settings, World(), resume=True, report=lambda _: None)
                numbers(run)
                vectors(run, 4)
                shutil.rmtree(file) if file.is_dir() else file.unlink()
                kept.rename(file)
        run.lock.unlink()
        run.lock.mkdir()
        with pytest.raises(ReasoningEmbeddingError, match="a folder stands where a file should be"):
            training.train(made.settings, resume=True, score=score, report=lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stopped", "finished", "cache"])
def test_many_bytes_of_every_file(made: Made, kind: str) -> None:
    """A whole run from each damaged folder: refused, or the same weights, best step and scores in the end."""
    print(f"SOAK_SEED={SEED}")
    chance = random.Random(SEED)
    with made.copy("finished") as run:
        ended, wanted = {step: weights(run, step) for step in run.steps()}, numbers(run)
    count = refused = 0
    whole = made.folder / "whole-cache"
    shutil.copytree(made.folder / "cache", whole, dirs_exist_ok=True)
    for file in files_of(whole if kind == "cache" else made.folder / kind):
        for _ in range(FLIPS):
            place = chance.randrange(file.stat().st_size)
            said: list[str] = []
            with made.copy("stopped" if kind == "cache" else kind) as run:
                if kind == "cache":
                    damaged = made.folder / "cache" / file.relative_to(whole)
                else:
                    damaged = run.path / file.relative_to(made.folder / kind)
                content = bytearray(damaged.read_bytes())
                content[place] ^= chance.randrange(1, 256)
                damaged.write_bytes(content)
                count += 1
                _, error = tried(
                    lambda said=said: training.train(
                        made.settings, resume=True, score=score, report=said.append
                    )
                )
                if error is not None:
                    assert error.exit_code in (2, 3), (damaged, place)
                    assert error.todo, (damaged, place)
                    refused += 1
                    continue
                assert weights(run, 6) == ended[6], (damaged, place)
                for step in run.steps():
                    found = vectors(run, step)
                    assert found is None or weights(run, step) == ended[step], (damaged, place)
                now = numbers(run)
                assert now["best"] == wanted["best"], (damaged, place)
                logged = dict(now["logged"]) if now["logged"] != "refused" else {}
                assert logged.items() <= dict(wanted["logged"]).items(), (damaged, place)
                if kind == "finished":
                    assert now["scores"] in ("refused", wanted["scores"]), (damaged, place)
    print(f"{kind}: {count} places tried, {refused} refused, the others ended the same")
    assert count
