"""One repository of the Hub behind a few verbs; what fails there is tried again, or said with its cause and cure."""

from __future__ import annotations

import contextlib
import email.utils
import functools
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.errors import InputError, ReasoningEmbeddingError, SetupError
from reasoning_embedding.files import hash_file
from reasoning_embedding.progress import Report, duration
from reasoning_embedding.secrets import mask

from .masking import refuse_secrets
from .release import files_in

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")
#: Tries of a request that failed for a passing reason; the client itself tries uploads of files again.
_TRIES = 3
_LOGIN = "make a token with write permission at https://huggingface.co/settings/tokens, then `hf auth login`"
_PASSING = {408, 429, 500, 502, 503, 504}
#: Seconds within which the Hub must answer the first request, and any connection must stand.
_PATIENCE = 10.0
#: Seconds without a byte, sent or received, after which a request counts as unanswered.
_SILENCE = 60.0
#: The longest wait that the Hub may ask for, in seconds; one that asks for more ends the command with a message.
_LONGEST_WAIT = 300.0
#: Files that the Hub itself puts into a new repository.
_HUBS_OWN = {".gitattributes"}


def find_token(variable: str | None = None) -> str:
    """Return the access token: of an environment variable, or the one the Hub's client keeps.

    Parameters
    ----------
    variable : str, optional
        Name of the variable; absent: ``HF_TOKEN`` or the store of ``hf auth login``.

    Raises
    ------
    SetupError
        If there is none.
    """
    from huggingface_hub import get_token

    token = os.environ.get(variable, "").strip() if variable else get_token()
    if not token:
        raise SetupError(
            f"the environment variable {variable} is not set" if variable else "there is no access token",
            where=f"${variable}" if variable else "the Hub's token store",
            todo=f"{_LOGIN}, or export it and name the variable with --token-env",
        )
    return token


@dataclass(frozen=True)
class Remote:
    """A revision as it stands on the Hub.

    Attributes
    ----------
    commit : str
        What the branch or tag points to.
    files : dict of str
        Path -> SHA-256 of a large file (``sha256:...``), or git's hash of a small one (``git:...``).
    """

    commit: str
    files: dict[str, str]

    @property
    def empty(self) -> bool:
        """Whether there is nothing but what the Hub put there."""
        return not self.files

    def equals(self, folder: Path) -> bool:
        """Whether the files are those of a folder, by their hashes."""
        local = files_in(folder)
        return local.keys() == self.files.keys() and not self.changed(local)

    def changed(self, local: dict[str, Path]) -> list[str]:
        """Return the paths of `local` that are not there, or not in this form."""
        return [name for name, path in local.items() if not _is_equal(self.files.get(name), path)]


def _is_equal(remote: str | None, path: Path) -> bool:
    if remote is None:
        return False
    kind, _, value = remote.partition(":")
    if kind == "sha256":
        state = path.stat()
        return _sha256(path, state.st_size, state.st_mtime_ns) == value
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == value


@functools.cache
def _sha256(path: Path, size: int, changed: int) -> str:
    """Hash a file once for as long as it does not change: weights are compared before and after each commit."""
    return hash_file(path)


class Hub:
    """One model repository.

    Parameters
    ----------
    repo : str
        ``ORG/NAME``.
    token : str
        Sent with each request, shown nowhere.
    endpoint : str, optional
        Address of the Hub; absent: ``HF_ENDPOINT``, or huggingface.co.
    report : callable
        Takes a line for each new try.
    """

    def __init__(
        self,
        repo: str,
        token: str,
        *,
        endpoint: str | None = None,
        report: Report = lambda line: None,
    ) -> None:
        from huggingface_hub import HfApi

        self.repo = repo
        self._token, self._report = token, report
        address = endpoint or os.environ.get("HF_ENDPOINT") or None
        self._api: HfApi = HfApi(endpoint=address, token=token, library_name="reasoning_embedding")

    @property
    def endpoint(self) -> str:
        """Address of the Hub."""
        return self._api.endpoint

    def refuse_secrets(self, files: Iterable[Path]) -> None:
        """Refuse files that hold this token or another one; see :func:`.masking.refuse_secrets`."""
        refuse_secrets(files, self._token)

    def check_access(self) -> None:
        """Ask the Hub who the token belongs to, and whether that account may write here; answers at once.

        Raises
        ------
        SetupError
            Without network, in offline mode, or when the token is not accepted.
        InputError
            If the account has no such namespace, or the token cannot write.
        """
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        def ask() -> dict[str, Any]:
            # Not HfApi.whoami: that one waits without limit where the network swallows packets.
            response = get_session().get(
                f"{self.endpoint}/api/whoami-v2",
                headers=build_hf_headers(token=self._token),
                timeout=_PATIENCE,
            )
            hf_raise_for_status(response)
            return response.json()

        account = self._call("asking who the token belongs to", ask, tries=1)
        spaces = [account["name"], *(org["name"] for org in account.get("orgs") or [])]
        owner = self.repo.partition("/")[0]
        if owner.lower() not in {name.lower() for name in spaces}:
            raise InputError(
                f"the token's account cannot write to {owner!r}{did_you_mean(owner, spaces)}",
                where="--repo",
                todo=f"choose a repository of {', '.join(spaces)}",
            )
        role = ((account.get("auth") or {}).get("accessToken") or {}).get("role")
        if role == "read":
            raise InputError("this token may only read", where=self.endpoint, todo=_LOGIN)

    def revisions(self) -> dict[str, tuple[str, str]] | None:
        """Return name -> (``branch`` or ``tag``, commit), or None where there is no such repository."""
        from huggingface_hub.errors import RepositoryNotFoundError

        def ask() -> dict[str, tuple[str, str]] | None:
            try:
                refs = self._api.list_repo_refs(self.repo)
            except RepositoryNotFoundError:
                return None
            found = {ref.name: ("tag", ref.target_commit) for ref in refs.tags}
            return found | {ref.name: ("branch", ref.target_commit) for ref in refs.branches}

        return self._call("reading the repository's revisions", ask)

    def is_private(self) -> bool:
        """Whether the existing repository is private."""
        return bool(
            self._call(
                "reading the repository", lambda: self._api.model_info(self.repo, timeout=_SILENCE)
            ).private
        )

    def confirm(self, name: str, folder: Path) -> None:
        """Read a revision again after its upload, and compare the hash of every file with the folder's.

        Raises
        ------
        SetupError
            If the Hub holds other files, or other bytes, than were sent.
        """
        there = (self.revisions() or {}).get(name)
        remote = Remote("", {}) if there is None else self.remote(there[1])
        local = files_in(folder)
        wrong = sorted({*remote.changed(local), *(remote.files.keys() - local.keys())})
        if wrong:
            raise SetupError(
                f"the Hub holds other bytes than were sent, in {len(wrong)} files: {', '.join(wrong[:5])}",
                where=f"{name} of {self.repo} at {mask(self.endpoint, self._token)}",
                todo="run this again, which sends them anew; if it stays so, tell the Hub's operators",
            )

    def remote(self, commit: str) -> Remote:
        """Read the files of a commit."""
        from huggingface_hub.hf_api import RepoFile

        def ask() -> dict[str, str]:
            entries = self._api.list_repo_tree(self.repo, revision=commit, recursive=True)
            return {
                entry.path: f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}"
                for entry in entries
                if isinstance(entry, RepoFile) and entry.path not in _HUBS_OWN
            }

        return Remote(commit, self._call("reading the repository's files", ask))

    def create(self, *, private: bool) -> None:
        """Make the repository; one that exists is left as it is."""
        self._call(
            "creating the repository",
            lambda: self._api.create_repo(self.repo, private=private, exist_ok=True),
        )

    def create_branch(self, name: str) -> None:
        """Make a branch at the tip of main; one that exists is left as it is."""
        self._call(
            f"creating branch {name}", lambda: self._api.create_branch(self.repo, branch=name, exist_ok=True)
        )

    def delete_branch(self, name: str) -> None:
        """Delete a branch; one that is gone already is no error."""

        def ask() -> None:
            if name in (self.revisions() or {}):
                self._api.delete_branch(self.repo, branch=name)

        self._call(f"deleting branch {name}", ask)

    def move_tag(self, name: str, commit: str) -> None:
        """Let a tag point to a commit, wherever it pointed before."""

        def ask() -> None:
            there = (self.revisions() or {}).get(name)
            if there and there[1] != commit:
                self._api.delete_tag(self.repo, tag=name)
            if not there or there[1] != commit:
                self._api.create_tag(self.repo, tag=name, revision=commit)

        self._call(f"creating tag {name}", ask)

    def upload(self, folder: Path, branch: str, message: str) -> str:
        """Make a branch hold exactly a folder's files, in one commit: all of them or none.

        Returns
        -------
        str
            The commit.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        local = files_in(folder)
        uploaded: dict[str, CommitOperationAdd] = {}

        def commit() -> str:
            # Read anew on each try: a commit whose answer was lost has been made.
            there = self.revisions() or {}
            if branch not in there:
                raise RuntimeError(f"branch {branch} is not there yet")
            tip = there[branch][1]
            remote = self.remote(tip)
            if remote.equals(folder):
                return tip
            for name in remote.changed(local):
                uploaded.setdefault(name, CommitOperationAdd(name, str(local[name])))
            additions = [uploaded[name] for name in remote.changed(local)]
            self._api.preupload_lfs_files(self.repo, additions=additions, revision=branch, free_memory=False)
            gone = [CommitOperationDelete(name) for name in remote.files if name not in local]
            return self._api.create_commit(
                self.repo,
                operations=[*additions, *gone],
                commit_message=message,
                revision=branch,
                parent_commit=tip,
            ).oid

        return self._call(f"uploading {branch}", commit)

    def _call(self, doing: str, ask: Callable[[], T], *, tries: int = _TRIES) -> T:
        """Make a request for what `doing` says after "while"; what may pass is tried again."""
        from huggingface_hub.errors import HfHubHTTPError

        where = f"{self.repo} at {mask(self.endpoint, self._token)}"
        # The base of all network errors of the HTTP library that the client uses in its version.
        network: Any = HfHubHTTPError.__mro__[1]
        attempt = 1
        while True:
            try:
                with _quiet_client(), bounded_client():
                    return ask()
            except ReasoningEmbeddingError:
                raise
            except (network, OSError, RuntimeError, ValueError) as error:
                explained, passing = _explain(error, doing, where, self._token)
                if not passing or attempt == tries:
                    raise explained from None  # the cause's text may hold addresses with signatures
                wait = max(2.0 ** (attempt - 1), _asked_to_wait(error))
                self._report(f"{explained.what}; trying again in {wait:.0f} s ({attempt + 1} of {tries})")
                time.sleep(wait)
                attempt += 1


@contextlib.contextmanager
def _quiet_client() -> Generator[None]:
    """Keep the client from logging addresses: those of storage carry signatures."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


class _NoAnswer(OSError):
    """The Hub kept silent; the client, which would ask five times more by itself, does not know this error."""


@contextlib.contextmanager
def bounded_client() -> Generator[None]:
    """Let the client's requests end: its own wait for ever, and as long as any ``Retry-After`` asks them to.

    Within another one it does nothing: the client is made anew at either end, which takes a while.

    Raises
    ------
    SetupError
        Within, where a page for people answers in the Hub's place, or the Hub asks for too long a wait.
    """
    from huggingface_hub.utils import _http, set_client_factory

    before: Any = getattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)
    if getattr(before, "bounded", False):  # a request within another
        yield
        return

    def bounded() -> Any:
        client: Any = before()
        send = client.send

        def send_once(request: Any, **options: Any) -> Any:
            # In the request: some of the client's methods ask for no limit, whatever the session has.
            given = request.extensions.get("timeout") or {}
            most = {"connect": _PATIENCE, "read": _SILENCE, "write": _SILENCE, "pool": _SILENCE}
            limits = {part: min(given.get(part) or limit, limit) for part, limit in most.items()}
            request.extensions = {**request.extensions, "timeout": limits}
            try:
                response = send(request, **options)
            except Exception as error:
                # By name: the client's HTTP library is another in each of its versions.
                if not any(kind.__name__ == "TimeoutException" for kind in type(error).__mro__):
                    raise
                raise _NoAnswer(f"no answer within {_SILENCE:.0f} s") from error
            _refuse_page(response)
            _limit_wait(response)
            return response

        client.send = send_once
        return client

    bounded.bounded = True  # ty: ignore[missing-attribute]
    set_client_factory(bounded)
    try:
        yield
    finally:
        set_client_factory(before)


def _refuse_page(response: Any) -> None:
    """Refuse a page for people: the login of a hotel's network, a proxy's notice. The Hub's failures are pages too."""
    kind = response.headers.get("content-type", "")
    if kind.startswith("text/html") and response.status_code not in _PASSING:
        raise SetupError(
            f"a web page ({response.status_code}) came in the place of the Hub's answer",
            where=f"{response.url.scheme}://{response.url.netloc.decode()}",
            todo="this network may want a login (open any page in a browser); check HF_ENDPOINT and HTTPS_PROXY too",
        )


def _limit_wait(response: Any) -> None:
    """Write the wait that an answer asks for in seconds, as the client reads it, and refuse too long a one."""
    wait = _wait_of(response)
    if wait > _LONGEST_WAIT:
        raise SetupError(
            f"the Hub asks to wait {duration(wait)} ({response.status_code})",
            where=f"{response.url.scheme}://{response.url.netloc.decode()}",
            todo="run this again after that",
        )
    if wait and response.headers.get("retry-after"):
        response.headers["retry-after"] = str(math.ceil(wait))


def _wait_of(response: Any) -> float:
    """Seconds that an answer asks to wait, by ``Retry-After`` (seconds or a date) or ``RateLimit``; 0 where it does not."""
    if response.status_code not in _PASSING:
        return 0.0
    given = response.headers.get("retry-after", "").strip()
    if given.isdecimal():
        return float(given)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(given).timestamp() - time.time())
    limit = re.search(r";\s*r=0\s*;\s*t=(\d+)", response.headers.get("ratelimit", ""))
    return float(limit[1]) if limit else 0.0


def _asked_to_wait(error: BaseException) -> float:
    """Seconds that the answer which an error comes from asks to wait."""
    from huggingface_hub.errors import HfHubHTTPError

    refusals = [item for item in _causes(error) if isinstance(item, HfHubHTTPError)]
    return _wait_of(refusals[0].response) if refusals else 0.0


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and what it was raised from: uploads run in threads, which wrap what went wrong."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    return chain


def _explain(error: Exception, doing: str, where: str, token: str) -> tuple[ReasoningEmbeddingError, bool]:
    """Say what went wrong, and whether it may pass."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    chain = _causes(error)
    if (own := next((item for item in chain if isinstance(item, ReasoningEmbeddingError)), None)) is not None:
        return own, False
    if (silent := next((item for item in chain if isinstance(item, _NoAnswer)), None)) is not None:
        todo = "look at https://status.huggingface.co and the network, and run this again"
        return SetupError(f"{silent} while {doing}", where=where, todo=todo), True
    if any(isinstance(item, OfflineModeIsEnabled) for item in chain):
        return SetupError("HF_HUB_OFFLINE is set", where=where, todo="unset it and run this again"), False
    refusal = next((item for item in chain if isinstance(item, HfHubHTTPError)), None)
    if refusal is not None:
        status = refusal.response.status_code
        line = _line(refusal.server_message or refusal, token)
        return _refused(status, f"{status} while {doing}", where, line), status in _PASSING
    if isinstance(error, PermissionError) and type(error).__module__.startswith("hf_xet"):
        return _refused(401, f"401 while {doing}", where, _line(error, token)), False
    if isinstance(error, json.JSONDecodeError):
        todo = "check HF_ENDPOINT, HTTPS_PROXY and the network, and run this again"
        return SetupError(f"what answers is not the Hub, while {doing}", where=where, todo=todo), False
    if isinstance(error, (ValueError, FileNotFoundError, PermissionError)):
        return InputError(f"{doing}: {_line(error, token)}", where=where), False
    what = f"the connection failed while {doing} ({_line(chain[-1], token)})"
    todo = "check the network (and HF_ENDPOINT, HTTPS_PROXY) and run this again"
    return SetupError(what, where=where, todo=todo), True


def _refused(status: int, said: str, where: str, line: str) -> ReasoningEmbeddingError:
    if status == 401:
        what = f"the Hub does not accept the token ({said}): it may be expired, revoked or mistyped"
        return SetupError(what, where=where, todo=_LOGIN)
    if status == 403:
        todo = "choose a repository of yours, or a token with write permission for this one"
        return InputError(f"this token may not do that ({said})", where=where, todo=todo)
    if status in (409, 412):
        todo = "look at what changed there, and run this again"
        return InputError(f"the repository changed at the same time ({said})", where=where, todo=todo)
    if status in _PASSING:
        busy = "the Hub limits the rate of requests" if status == 429 else "the Hub fails"
        todo = "wait a while (https://status.huggingface.co) and run this again"
        return SetupError(f"{busy} ({said})", where=where, todo=todo)
    return InputError(f"the Hub refuses: {line} ({said})", where=where)


def _line(error: object, token: str) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return mask(lines[0], token)[:300]
