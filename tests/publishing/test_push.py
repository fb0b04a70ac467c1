"""Pushing to a Hub on loopback: once, again, interrupted, refused, and through every fault."""

from __future__ import annotations

import email.utils
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reasoning_embedding.errors import InputError, ReasoningEmbeddingError, SetupError
from reasoning_embedding.publishing import Release, export, plan_release
from reasoning_embedding.publishing import hub as hub_module
from reasoning_embedding.publishing.facts import About
from reasoning_embedding.publishing.hub import Hub, find_token
from reasoning_embedding.publishing.push import push
from reasoning_embedding.publishing.release import ReleaseRecord
from tests.hub_server import Commit, Fault, HubServer
from tests.publishing.published_run import write_run

REPO = "lab/small"
ALL = ["step-000000", "step-000003", "step-000006", "main"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were to be waited between tries; none is."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


@pytest.fixture(scope="module")
def exported(run_folder: Path) -> Release:
    release = plan_release(run_folder, REPO, all_steps=True)
    export(release, About(), lambda line: None)
    return release


@pytest.fixture
def released(exported: Release, tmp_path: Path) -> Release:
    """An export of its own for each test."""
    shutil.copytree(exported.folder, tmp_path / "publish")
    return replace(exported, folder=tmp_path / "publish")


class Pusher:
    """Pushes a release and keeps every line that was said."""

    def __init__(self, release: Release, server: HubServer, user: str = "me") -> None:
        self.release, self.server, self.token = release, server, server.token_of(user)
        self.said: list[str] = []

    def __call__(self, **options: bool) -> None:
        hub = Hub(self.release.repo, self.token, endpoint=self.server.url, report=self.said.append)
        record = ReleaseRecord(self.release.folder)
        push(self.release, hub, record, report=self.said.append, **options)

    def fails(self, kind: type[ReasoningEmbeddingError], match: str, **options: bool) -> str:
        with pytest.raises(kind, match=match) as caught:
            self(**options)
        message = str(caught.value)
        assert type(caught.value) is kind
        assert "complete on the Hub: " in message
        assert "the same command goes on" in message
        written = [path.read_bytes() for path in self.release.folder.rglob("*") if path.is_file()]
        assert not any(self.token.encode() in content for content in written)
        assert self.token not in message + "".join(self.said)
        assert "secretsignature" not in message + "".join(self.said)
        return message


@pytest.fixture
def pusher(released: Release, server: HubServer) -> Pusher:
    return Pusher(released, server)


def assert_whole(release: Release, server: HubServer) -> None:
    """Every revision holds exactly the exported files."""
    repo = server.repos[release.repo]
    for revision in release.revisions:
        folder = release.exported(revision)
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        assert repo.files(revision.name) == files, revision.name


def test_every_step_is_a_branch_and_a_second_push_uploads_nothing(pusher: Pusher, server: HubServer) -> None:
    pusher()
    assert_whole(pusher.release, server)
    repo = server.repos[REPO]
    assert list(repo.branches) == ["main", *ALL[:-1]]
    assert not repo.private
    # main's own content came last, when what its card lists was there
    assert server.requests[-1].startswith("POST") or "main" in pusher.said[-1]
    assert pusher.said[-1] == "main: uploaded"
    writes = server.count("^(POST|PUT|DELETE)")
    pusher()
    assert server.count("^(POST|PUT|DELETE)") == writes
    assert pusher.said[-4:] == [f"{name}: complete already" for name in ALL]
    (pusher.release.folder / "ledger.json").unlink()
    pusher()  # what is complete is recognised by its files, not by the record
    assert server.count("^(POST|PUT|DELETE)") == writes


def test_steps_may_be_tags_which_leave_no_branch_behind(
    run_folder: Path, tmp_path: Path, server: HubServer
) -> None:
    release = plan_release(run_folder, REPO, all_steps=True, tags=True, output=tmp_path / "publish")
    export(release, About(), lambda line: None)
    pusher = Pusher(release, server)
    server.faults = [Fault("POST .*/tag/", 500, times=3, after=1)]
    pusher.fails(SetupError, "500 while creating tag step-000003")
    assert list(server.repos[REPO].tags) == ["step-000000"]
    server.faults = [Fault("(POST .*/tag/|DELETE)", "lose", times=3)]
    pusher()
    assert_whole(release, server)
    repo = server.repos[REPO]
    assert (list(repo.branches), list(repo.tags)) == (["main"], ALL[:-1])
    (release.exported(release.steps[1]) / "README.md").write_text("another card")
    pusher()
    assert_whole(release, server)
    assert (list(repo.branches), sorted(repo.tags)) == (["main"], ALL[:-1])
    branches = plan_release(run_folder, REPO, all_steps=True, output=tmp_path / "publish")
    message = Pusher(branches, server).fails(InputError, "step-000000 is a tag of lab/small already")
    assert "--tag" in message


def test_a_private_repository(pusher: Pusher, server: HubServer) -> None:
    pusher(private=True)
    assert server.repos[REPO].private
    pusher(private=True)
    server.repos[REPO].private = False
    pusher.fails(InputError, "exists and is public", private=True)


@pytest.mark.parametrize(
    ("pattern", "action", "times"),
    [
        ("POST .*/commit/", 500, 2),
        ("POST .*/commit/", 503, 1),
        ("POST .*/commit/", "drop", 2),
        ("POST .*/commit/", "lose", 1),
        ("PUT /lfs/", "drop", 2),
        ("PUT /lfs/", 500, 3),
        ("POST .*/preupload/", 502, 1),
        ("POST .*/branch/", "lose", 1),
        ("POST /api/repos/create", "lose", 1),
        ("GET .*/tree/", 500, 1),
    ],
)
def test_passing_faults_pass(
    pusher: Pusher, server: HubServer, pattern: str, action: int | str, times: int
) -> None:
    server.faults = [Fault(pattern, action, times)]
    pusher()
    assert_whole(pusher.release, server)
    repo = server.repos[REPO]
    # One commit a revision and the Hub's initial one: a lost answer makes no second commit.
    assert len(repo.commits) == 5


def test_a_hub_that_goes_on_failing_ends_in_a_message_and_the_next_call_goes_on(
    pusher: Pusher, server: HubServer
) -> None:
    server.faults = [Fault("POST .*/commit/step-000003", 500)]
    message = pusher.fails(SetupError, "500 while uploading step-000003")
    assert "complete on the Hub: step-000000\n" in message
    assert "not complete: step-000003, step-000006, main " in message
    assert server.count("POST .*/commit/step-000003") == 3
    assert server.repos[REPO].files() == {}, "main says nothing of what is not there"
    assert server.repos[REPO].files("step-000003") == {}
    server.faults = []
    pusher()
    assert_whole(pusher.release, server)
    assert server.count("POST .*/commit/step-000000") == 1
    assert server.count("PUT /lfs/") == 3, "weights that arrived are not sent again"


@pytest.mark.parametrize("action", ["drop", 500])
def test_an_upload_that_keeps_breaking_off(pusher: Pusher, server: HubServer, action: int | str) -> None:
    server.faults = [Fault("PUT /lfs/", action, after=1)]
    match = "500 while uploading" if action == 500 else "the connection failed while uploading"
    message = pusher.fails(SetupError, match)
    assert "complete on the Hub: step-000000\n" in message
    assert server.count("PUT /lfs/") < 30
    server.faults = []
    pusher()
    assert_whole(pusher.release, server)


def test_a_token_that_expires_in_between(pusher: Pusher, server: HubServer) -> None:
    server.faults = [Fault("POST .*/commit/step-000006", 401)]
    message = pusher.fails(SetupError, "does not accept the token .401 while uploading step-000006")
    assert "hf auth login" in message
    assert server.count("POST .*/commit/step-000006") == 1, "a refusal does not pass"
    server.faults = []
    pusher()
    assert_whole(pusher.release, server)


def test_a_token_that_is_not_known(released: Release, server: HubServer) -> None:
    pusher = Pusher(released, server)
    server.tokens.clear()
    pusher.fails(SetupError, "does not accept the token .401")
    assert not server.repos


def test_storage_that_no_longer_takes_the_token(
    pusher: Pusher, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploads in chunks fail with an exception of their own library."""
    error = type("XetAuthenticationError", (PermissionError,), {"__module__": "hf_xet"})

    def refuse(*_: object, **__: object) -> None:
        raise error(f"token refresh failed for {server.token}")

    monkeypatch.setattr("huggingface_hub.HfApi.preupload_lfs_files", refuse)
    pusher.fails(SetupError, "does not accept the token .401 while uploading step-000000")
    assert server.count("POST .*/commit/") == 0, "no commit names weights that did not arrive"


def test_a_token_that_may_only_read(run_folder: Path, tmp_path: Path, server: HubServer) -> None:
    release = plan_release(run_folder, "reader/small", output=tmp_path / "publish")
    export(release, About(), lambda line: None)
    Pusher(release, server, "reader").fails(InputError, "may only read")
    assert server.count("^(POST|PUT)") == 0, "refused before anything is written"


def test_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(SetupError, match="no access token"):
        find_token()
    monkeypatch.setenv("OTHER", "  opaque ")
    assert find_token("OTHER") == "opaque"
    monkeypatch.delenv("OTHER")
    with pytest.raises(SetupError, match="OTHER is not set"):
        find_token("OTHER")


@pytest.mark.parametrize(
    ("repo", "match"),
    [("labb/small", "cannot write to 'labb'.*lab"), ("Qwen/Qwen3-4B", "cannot write to 'Qwen'")],
)
def test_a_namespace_of_others(
    run_folder: Path, tmp_path: Path, server: HubServer, repo: str, match: str
) -> None:
    release = plan_release(run_folder, repo, output=tmp_path / "publish")
    export(release, About(), lambda line: None)
    Pusher(release, server).fails(InputError, match)
    assert server.count("^(POST|PUT)") == 0


def test_a_repository_the_token_may_not_write(pusher: Pusher, server: HubServer) -> None:
    server.faults = [Fault("POST .*/branch/", 403)]
    server.create(REPO, user="other")
    pusher.fails(InputError, "may not do that .403 while creating branch step-000000")
    assert server.count("POST .*/branch/") == 1, "a refusal does not pass"
    assert server.count("^PUT|POST .*/commit/") == 0


def test_what_others_put_there_is_kept_unless_told_otherwise(pusher: Pusher, server: HubServer) -> None:
    server.create(REPO, user="other", **{"README.md": b"theirs", "model.bin": b"theirs"})
    message = pusher.fails(InputError, "main holds 2 files that were not published from here")
    assert "--overwrite" in message
    assert server.count("^(POST|PUT|DELETE)") == 0, "refused before anything is written"
    pusher(overwrite=True)
    assert_whole(pusher.release, server)


def test_a_commit_by_another_after_ours_is_kept(pusher: Pusher, server: HubServer) -> None:
    pusher()
    repo = server.repos[REPO]
    tip = repo.branches["step-000003"]
    repo.add("step-000003", Commit({**repo.commits[tip].files, "README.md": b"edited"}, "edit", "other", tip))
    message = pusher.fails(InputError, "step-000003 holds .* not published from here")
    assert "complete on the Hub: step-000000\n" in message
    assert repo.files("step-000003")["README.md"] == b"edited"


def test_our_own_earlier_publication_is_replaced(pusher: Pusher, server: HubServer) -> None:
    pusher()
    export(pusher.release, About("apache-2.0"), lambda line: None)
    (pusher.release.exported(pusher.release.main) / "checkpoints.jsonl").unlink()
    pusher()
    assert_whole(pusher.release, server)
    assert "checkpoints.jsonl" not in server.repos[REPO].files()
    assert b"license: apache-2.0" in server.repos[REPO].files()["README.md"]


def test_a_commit_that_slips_in_between_is_not_overwritten(
    pusher: Pusher, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Hub.remote

    def slow(self: Hub, commit: str):
        found = original(self, commit)
        repo = server.repos[REPO]
        if commit == repo.branches["main"] and "step-000006: uploaded" in pusher.said:
            repo.add("main", Commit({"README.md": b"theirs"}, "theirs", "other", commit))
        return found

    monkeypatch.setattr(Hub, "remote", slow)
    pusher.fails(InputError, "changed at the same time .412")
    assert server.repos[REPO].files() == {"README.md": b"theirs"}


def test_without_network_the_answer_comes_at_once(
    released: Release, server: HubServer, waits: list[float]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    hub = Hub(REPO, server.token, endpoint=address)
    with pytest.raises(SetupError, match="the connection failed while asking who") as caught:
        push(released, hub, ReleaseRecord(released.folder))
    assert "complete on the Hub: nothing" in str(caught.value)
    assert caught.value.exit_code == 3
    assert waits == []


def test_in_offline_mode(pusher: Pusher, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    pusher.fails(SetupError, "HF_HUB_OFFLINE is set")
    assert server.requests == []


@pytest.mark.parametrize(
    ("tags", "stop"),
    [*((False, stop) for stop in (1, 4, 7, 10)), *((True, stop) for stop in (4, 6, 14))],
)
def test_killed_at_any_request_the_next_call_goes_on(
    released: Release, server: HubServer, monkeypatch: pytest.MonkeyPatch, tags: bool, stop: int
) -> None:
    """Ctrl-C while the `stop`-th answer arrives, at every stage of the upload."""
    pusher = Pusher(replace(released, tags=tags), server)
    counted = iter(range(1, 1000))
    original: Callable[..., object] = Hub._call

    def interrupted(self: Hub, *args: object, **named: object) -> object:
        answer = original(self, *args, **named)
        if next(counted) == stop:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(Hub, "_call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pusher()
    assert pusher.said[-1].startswith("interrupted\n  complete on the Hub: ")
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    pusher()
    assert_whole(pusher.release, server)
    repo = server.repos[REPO]
    assert len(repo.commits) == 5
    assert sorted(repo.branches) == (["main"] if tags else sorted(ALL))


def test_a_file_with_a_token_never_leaves(pusher: Pusher, server: HubServer) -> None:
    readme = pusher.release.exported(pusher.release.main) / "README.md"
    readme.write_text(readme.read_text() + "\nhf_" + "z9" * 17)
    with pytest.raises(InputError, match="holds an access token"):
        pusher()
    assert server.requests == []


@pytest.mark.parametrize(
    ("pattern", "doing"),
    [
        ("GET /api/whoami", "asking who"),
        ("GET .*/refs", "reading the repository's revisions"),
        ("GET .*/tree/", "reading the repository's files|uploading"),
        ("POST .*/preupload/", "uploading step-000000"),
        ("POST .*/objects/batch", "uploading step-000000"),
        ("PUT /lfs/", "uploading step-000000"),
        ("POST .*/commit/", "uploading step-000000"),
        ("POST .*/branch/", "creating branch"),
    ],
)
def test_a_hub_that_stops_answering_ends_in_a_message(
    pusher: Pusher, server: HubServer, monkeypatch: pytest.MonkeyPatch, pattern: str, doing: str
) -> None:
    monkeypatch.setattr(hub_module, "_SILENCE", 0.2)
    monkeypatch.setattr(hub_module, "_PATIENCE", 0.2)
    server.faults = [Fault(pattern, "hang")]
    started = time.monotonic()
    message = pusher.fails(SetupError, f"no answer within 0 s while ({doing})")
    assert time.monotonic() - started < 5
    assert server.count(pattern) <= 3, "the client's own five tries are not added to ours"
    assert "status.huggingface.co" in message
    server.faults = []
    monkeypatch.undo()
    online_again(monkeypatch)
    pusher()
    assert_whole(pusher.release, server)


def online_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


def test_the_clients_own_settings_are_as_they_were(pusher: Pusher) -> None:
    from huggingface_hub.utils import get_session

    before = get_session().timeout
    pusher()
    assert get_session().timeout == before


@pytest.mark.parametrize("pattern", ["GET .*/refs", "PUT /lfs/"])
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (429, {"Retry-After": "60"}),
        (503, {"Retry-After": "60"}),
        (429, {"Retry-After": "a date"}),
        (429, {"RateLimit": '"api";r=0;t=60'}),
    ],
)
def test_the_wait_that_the_hub_asks_for_is_kept(
    pusher: Pusher,
    server: HubServer,
    waits: list[float],
    pattern: str,
    status: int,
    headers: dict[str, str],
) -> None:
    if headers.get("Retry-After") == "a date":
        in_a_minute = datetime.now(UTC) + timedelta(seconds=61)
        headers = {"Retry-After": email.utils.format_datetime(in_a_minute, usegmt=True)}
    server.faults = [Fault(pattern, status, 1, headers=headers)]
    pusher()
    assert_whole(pusher.release, server)
    assert len(waits) == 1
    assert 40 <= waits[0] <= 62
    assert len(server.repos[REPO].commits) == 5


@pytest.mark.parametrize("pattern", ["GET .*/refs", "PUT /lfs/"])
def test_a_wait_of_hours_is_said_not_slept(
    pusher: Pusher, server: HubServer, waits: list[float], pattern: str
) -> None:
    server.faults = [Fault(pattern, 429, headers={"Retry-After": "7200"})]
    pusher.fails(SetupError, "the Hub asks to wait 2.0 h .429")
    assert waits == []


@pytest.mark.parametrize(
    ("pattern", "action"),
    [
        (".*", "page"),
        (".*", 511),
        (".*", "text"),
        ("GET .*/refs", 403),
        ("POST .*/preupload/", "text"),
        ("PUT /lfs/", "page"),
        ("POST .*/commit/", "page"),
    ],
)
def test_a_page_in_the_hubs_place_is_the_networks_fault(
    pusher: Pusher, server: HubServer, pattern: str, action: str | int
) -> None:
    server.faults = [Fault(pattern, action, page=action != "text")]
    message = pusher.fails(SetupError, "a web page .(200|403|511). came|what answers is not the Hub")
    assert "HF_ENDPOINT" in message
    assert server.count(pattern) == 1


def test_a_page_that_tells_of_a_failure_passes(pusher: Pusher, server: HubServer) -> None:
    server.faults = [Fault("GET .*/refs", 502, 1, page=True)]
    pusher()
    assert_whole(pusher.release, server)


@pytest.mark.parametrize("tags", [False, True])
def test_a_server_that_stores_other_bytes_is_found_out(
    released: Release, server: HubServer, tags: bool
) -> None:
    pusher = Pusher(replace(released, tags=tags), server)
    server.faults = [Fault("POST .*/commit/.*step-000003", "corrupt")]
    message = pusher.fails(SetupError, "the Hub holds other bytes than were sent, in 1 files: .*tokenizer")
    assert "complete on the Hub: step-000000\n" in message
    assert server.repos[REPO].files() == {}, "main does not point to it"
    assert not any("step-000003: uploaded" in line for line in pusher.said)
    server.faults = []
    pusher()
    assert_whole(pusher.release, server)
