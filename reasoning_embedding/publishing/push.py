"""Upload a verified release: one commit a revision, main last, resumable at any point."""

from __future__ import annotations

from reasoning_embedding.errors import InputError, ReasoningEmbeddingError
from reasoning_embedding.progress import Report

from .hub import Hub, bounded_client
from .release import MAIN, Release, ReleaseRecord, Revision, files_in

_AGAIN = "the same command goes on: what is complete is left as it is"


def push(
    release: Release,
    hub: Hub,
    record: ReleaseRecord,
    *,
    private: bool = False,
    overwrite: bool = False,
    report: Report = lambda line: None,
) -> None:
    """Bring every revision to the Hub; those that are there already, by the hashes of their files, are left.

    Parameters
    ----------
    release : Release
        Exported and verified.
    hub : Hub
        Its repository.
    record : ReleaseRecord
        Remembers which commits are ours.
    private : bool
        Visibility of a new repository.
    overwrite : bool
        Replace what others, or other runs, put there.
    report : callable
        Takes a line a revision.

    Raises
    ------
    InputError
        If the repository holds something else, or may not be written.
    SetupError
        If the Hub cannot be reached or fails. Either names the revisions that are complete.
    """
    for revision in release.revisions:
        hub.refuse_secrets(files_in(release.exported(revision)).values())
    done: list[str] = []
    try:
        with bounded_client():
            _push(release, hub, record, done, private=private, overwrite=overwrite, report=report)
    except ReasoningEmbeddingError as error:
        what = f"{error.what}\n{_state(release, done)}"
        todo = f"{error.todo}; {_AGAIN}" if error.todo else _AGAIN
        raise type(error)(what, where=error.where, todo=todo) from None
    except KeyboardInterrupt:
        report(f"interrupted\n{_state(release, done)}\n  {_AGAIN}")
        raise


def _push(
    release: Release,
    hub: Hub,
    record: ReleaseRecord,
    done: list[str],
    *,
    private: bool,
    overwrite: bool,
    report: Report,
) -> None:
    """Bring every revision there; `done` takes the name of each that is complete."""
    hub.check_access()
    there = hub.revisions()
    if there is not None and private and not hub.is_private():
        raise InputError(
            f"{release.repo} exists and is public",
            where="--private",
            todo="make it private in its settings, or leave --private out",
        )
    waiting: list[Revision] = []
    for revision in release.revisions:
        if not _is_complete(release, revision, hub, record, there or {}, overwrite=overwrite):
            waiting.append(revision)
            continue
        branch = _working_branch(revision)
        if release.tags and branch in (there or {}):  # stopped just before its deletion
            hub.delete_branch(branch)
        report(f"{revision.name}: complete already")
        done.append(revision.name)
    if there is None:
        hub.create(private=private)
        report(f"created {release.repo} ({'private' if private else 'public'})")
    for revision in waiting:
        report(f"{revision.name}: uploading to {release.repo}")
        _upload(release, revision, hub, record)
        report(f"{revision.name}: uploaded")
        done.append(revision.name)


def _is_complete(
    release: Release,
    revision: Revision,
    hub: Hub,
    record: ReleaseRecord,
    there: dict[str, tuple[str, str]],
    *,
    overwrite: bool,
) -> bool:
    """Tell whether a revision is on the Hub as exported; refuse one that holds what is not ours."""
    if revision.name not in there:
        return False
    kind, commit = there[revision.name]
    wanted = "tag" if release.tags and revision.name != MAIN else "branch"
    if kind != wanted:
        raise InputError(
            f"{revision.name} is a {kind} of {release.repo} already",
            todo=f"add {'--tag' if kind == 'tag' else '--branch'}, or delete it on the Hub",
        )
    remote = hub.remote(commit)
    if remote.equals(release.exported(revision)):
        record.add_commit(revision.name, commit)
        return True
    if not (remote.empty or overwrite or commit in record.commits()):
        raise InputError(
            f"{revision.name} holds {len(remote.files)} files that were not published from here",
            where=f"{release.repo} at {hub.endpoint}",
            todo="choose another repository, or replace them with --overwrite",
        )
    return False


def _upload(release: Release, revision: Revision, hub: Hub, record: ReleaseRecord) -> None:
    as_tag = release.tags and revision.name != MAIN
    branch = _working_branch(revision) if as_tag else revision.name
    if branch != MAIN:
        hub.create_branch(branch)
    step = "" if revision.step is None else f" (step {revision.step})"
    commit = hub.upload(release.exported(revision), branch, f"Publish {revision.name}{step}")
    record.add_commit(revision.name, commit)
    if as_tag:
        hub.move_tag(revision.name, commit)
    hub.confirm(revision.name, release.exported(revision))
    if as_tag:
        hub.delete_branch(branch)


def _working_branch(revision: Revision) -> str:
    """Name of the branch that a tag's commit is made on."""
    return f"upload-{revision.name}"


def _state(release: Release, done: list[str]) -> str:
    """Say what is complete and what is not."""
    left = [revision.name for revision in release.revisions if revision.name not in done]
    return (
        f"  complete on the Hub: {', '.join(done) or 'nothing'}\n"
        f"  not complete: {', '.join(left) or 'nothing'} (each changes in one commit, none is half there)"
    )
