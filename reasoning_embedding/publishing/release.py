"""What will be published where: a repository, its main revision, and one revision for each step; and what is done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints import RunFolder, read_provenance, step_name
from reasoning_embedding.checkpoints.references import pick_step, resolve, series_of_steps
from reasoning_embedding.config.references import parse
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json, write_json

MAIN = "main"
#: Folder of a run (or beside a lone checkpoint) that holds what is exported.
FOLDER = "publish"
_RECORD = "ledger.json"


@dataclass(frozen=True)
class Revision:
    """A checkpoint under the name it gets on the Hub.

    Attributes
    ----------
    name : str
        ``main``, or a step's ``step-000200``.
    checkpoint : Path
        The model folder it is made from.
    step : int or None
        Its training step; None for a model that was not trained here (a merged one).
    """

    name: str
    checkpoint: Path
    step: int | None


@dataclass(frozen=True)
class Release:
    """Everything that goes to one repository.

    Attributes
    ----------
    repo : str
        ``ORG/NAME``.
    folder : Path
        Where it is exported: a folder a revision, and the record.
    main : Revision
        What who names no revision gets.
    steps : tuple of Revision
        The steps with a revision of their own.
    run : RunFolder or None
        The run the checkpoints are of, if they are of one.
    tags : bool
        Steps become tags, which never move, rather than branches.
    """

    repo: str
    folder: Path
    main: Revision
    steps: tuple[Revision, ...]
    run: RunFolder | None
    tags: bool = False

    @property
    def revisions(self) -> tuple[Revision, ...]:
        """All revisions in the order of upload: main last, when what its card lists is there."""
        return (*self.steps, self.main)

    def exported(self, revision: Revision) -> Path:
        """Folder of a revision's files."""
        return self.folder / revision.name


def choose_checkpoint(
    reference: str, step: str | None = None, *, allow_untrained: bool = False
) -> tuple[Path, int | None]:
    """Return a run's folder and the step that becomes main, or a lone checkpoint's folder and None.

    Step 0 is published where it is asked for by its number, or where an untrained model is allowed.

    Parameters
    ----------
    reference : str
        A checkpoint, a run folder, ``RUN@STEP``, or ``OWNER/NAME@REVISION`` of the Hub.
    step : str, optional
        Of a run: ``best``, ``last`` or a number. Absent: the best where the run chose one, else the last.
    allow_untrained : bool
        Take step 0 where it is the best one, or the last.

    Raises
    ------
    InputError
        If there is no such checkpoint, a step is named of what is one, or it is an untrained one.
    """

    def trained(number: int | None, chosen: str) -> int | None:
        if number == 0 and not allow_untrained:
            raise InputError(
                f"the {chosen} step of this run is 0, the model before training",
                where=reference,
                todo="look at its scores (rembed runs show), train longer, name a later --step, "
                "or give --allow-untrained",
            )
        return number

    run = series_of_steps(reference)
    if run is not None:
        chosen = step or ("best" if run.best.exists() else "last")
        number = pick_step(run, chosen, f"{reference}@{chosen}")
        return run.path, number if chosen in ("0", "first") else trained(number, chosen)
    model = resolve(reference)
    if step is not None:
        what = "this is one step" if model.run else "this is one checkpoint, not a run"
        raise InputError(what, where=reference, todo="leave --step out")
    if model.run is None:
        return model.files, None
    at = parse(reference).at
    return model.run.path, trained(model.step, at) if at in ("best", "last") else model.step


def plan_release(
    path: Path,
    repo: str,
    *,
    step: int | None = None,
    all_steps: bool = False,
    tags: bool = False,
    output: Path | None = None,
) -> Release:
    """Decide what is published; writes nothing.

    Parameters
    ----------
    path : Path
        A run's folder, or one checkpoint.
    repo : str
        ``ORG/NAME``.
    step : int, optional
        Step of a run that becomes ``main``; absent: the last.
    all_steps : bool
        Give every checkpoint of the run a revision of its own.
    tags : bool
        Tags rather than branches for the steps.
    output : Path, optional
        Export folder; absent: ``publish/ORG/NAME`` in the run, or beside a lone checkpoint.

    Raises
    ------
    InputError
        If the repository's name is none, or there is no such checkpoint.
    """
    check_repo_name(repo)
    run = RunFolder(path)
    if run.checkpoints.is_dir():
        there = run.steps()
        if not there:
            raise InputError("this run has no checkpoint", where=str(path), todo="train it first")
        chosen = there[-1] if step is None else step
        if chosen not in there:
            raise InputError(f"no checkpoint of step {chosen}", where=str(path), todo=f"steps there: {there}")
        main = Revision(MAIN, run.checkpoint(chosen), chosen)
        steps = tuple(Revision(step_name(s), run.checkpoint(s), s) for s in there) if all_steps else ()
        return Release(repo, output or path / FOLDER / repo, main, steps, run, tags)
    if step is not None or all_steps:
        raise InputError(
            "this is one checkpoint, not a run", where=str(path), todo="leave --step and --all-steps out"
        )
    if not (path / "modules.json").is_file():
        raise InputError(
            "neither a run nor an embedder's checkpoint lies here",
            where=str(path),
            todo="name a run's folder, or a step-NNNNNN folder of its checkpoints",
        )
    resolved = path.resolve()
    of_run = resolved.parent.name == "checkpoints"
    home = resolved.parent.parent if of_run else resolved.parent
    main = Revision(MAIN, path, (read_provenance(path) or {}).get("step"))
    return Release(repo, output or home / FOLDER / repo, main, (), RunFolder(home) if of_run else None, tags)


def files_in(folder: Path) -> dict[str, Path]:
    """Files of an exported revision in order, by the names they get on the Hub."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in files}


def check_repo_name(repo: str) -> None:
    """Refuse what the Hub would not take as ``ORG/NAME``.

    Raises
    ------
    InputError
        Saying what is wrong with it.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        if "/" not in repo:
            raise HFValidationError("it has the form ORG/NAME")
        if not repo.isascii():  # older versions of the client let them pass
            raise HFValidationError("its letters are those of ASCII")
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(
            f"{repo!r} is no repository name: {error}", where="--repo", todo="--repo ORG/NAME"
        ) from error


@dataclass(frozen=True)
class Verified:
    """What verification measured of a revision.

    Attributes
    ----------
    fingerprint : str
        Hash of what was verified.
    differences : dict of str to float
        Library -> largest difference of an entry between the card's embeddings and the trainer's.
    noise : float
        Rounding noise of such an entry.
    """

    fingerprint: str
    differences: dict[str, float]
    noise: float


class ReleaseRecord:
    """What was verified and uploaded so far, so that an interrupted upload goes on; every change is written at once.

    It lies beside the exported folders and holds no secret.

    Parameters
    ----------
    folder : Path
        A release's folder.

    Raises
    ------
    InputError
        If the file there is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _RECORD
        todo = "delete it: what is complete on the Hub is recognised by its files"
        found = read_json(self._path, default={"revisions": {}}, todo=todo).get("revisions")
        if not isinstance(found, dict):
            raise InputError("it names no revisions", where=str(self._path), todo=todo)
        self._revisions: dict[str, dict[str, Any]] = found

    def verified(self, name: str, fingerprint: str) -> Verified | None:
        """What verification measured of a revision of this very fingerprint, or None."""
        entry = self._revisions.get(name, {}).get("verified") or {}
        if entry.get("fingerprint") != fingerprint or "noise" not in entry:  # older records: verified again
            return None
        return Verified(fingerprint, entry["differences"], entry["noise"])

    def set_verified(self, name: str, verified: Verified) -> None:
        """Remember that a revision gave the trainer's embeddings."""
        self._change(name, verified=asdict(verified))

    def commits(self) -> set[str]:
        """Commits that were made from this folder."""
        return {commit for entry in self._revisions.values() for commit in entry.get("commits", [])}

    def add_commit(self, name: str, commit: str) -> None:
        """Remember a commit of a revision."""
        commits = self._revisions.get(name, {}).get("commits", [])
        self._change(name, commits=[*(item for item in commits if item != commit), commit])

    def _change(self, name: str, **values: Any) -> None:
        self._revisions[name] = {**self._revisions.get(name, {}), **values}
        write_json(self._path, {"revisions": self._revisions}, summed=True)
