"""A Hub on loopback: what publishing and downloading need of the real one, and faults on request."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

#: Larger files go through LFS, as do all safetensors.
_LFS_BYTES = 100_000
_ZERO_DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class Commit:
    """A snapshot: path -> content."""

    files: dict[str, bytes]
    title: str
    author: str
    parent: str | None

    @property
    def oid(self) -> str:
        content = json.dumps([self.parent, self.title, {k: _sha1(v) for k, v in sorted(self.files.items())}])
        return hashlib.sha1(content.encode()).hexdigest()


@dataclass
class Repo:
    """Branches and tags over commits."""

    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, commit: Commit) -> str:
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit.oid

    def resolve(self, revision: str) -> str | None:
        found = self.branches.get(revision) or self.tags.get(revision)
        return found or (revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Files of a revision but the Hub's own."""
        oid = self.resolve(revision)
        assert oid is not None, revision
        return {
            path: content for path, content in self.commits[oid].files.items() if path != ".gitattributes"
        }


@dataclass
class Fault:
    """What happens to requests whose ``METHOD path`` matches, `times` times after the first `after`.

    `action` is a status, ``drop`` (the connection is cut while the body arrives), ``lose`` (the request is carried out
    and the connection cut before the answer), ``hang`` (no answer ever comes), ``corrupt`` (a commit holds other bytes
    than were sent), ``page`` (a web page answers with 200) or ``text`` (words answer with 200, called JSON).
    `headers` come with a status, and `page` makes its body a web page.
    """

    pattern: str
    action: int | str
    times: int = 1_000_000
    after: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    page: bool = False

    def takes(self, line: str) -> bool:
        if not re.search(self.pattern, line):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return self.times >= 0


class HubServer:
    """The server and what it holds; ``with HubServer() as hub: hub.url``."""

    def __init__(self) -> None:
        self.tokens = {"hf_" + "w" * 34: "me", "hf_" + "r" * 34: "reader", "hf_" + "o" * 34: "other"}
        self.orgs = {"me": ["lab"], "reader": [], "other": ["lab"]}
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        #: ``METHOD path`` of every request.
        self.requests: list[str] = []
        self.lock = threading.RLock()
        #: Set when the server ends, so that those who hang go home.
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def token(self) -> str:
        return next(iter(self.tokens))

    def token_of(self, user: str) -> str:
        return next(token for token, name in self.tokens.items() if name == user)

    def create(self, repo: str, *, user: str = "me", private: bool = False, **files: bytes) -> Repo:
        made = Repo(private)
        attributes = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
        made.add("main", Commit({**attributes, **files}, "initial commit", user, None))
        self.repos[repo] = made
        return made

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in self.requests)

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


def _sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _is_large(path: str, size: int) -> bool:
    return path.endswith(".safetensors") or size > _LFS_BYTES


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **body: str) -> None:
        self.status, self.message, self.code, self.body = status, message, code, body


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    corrupt = False
    protocol_version = "HTTP/1.1"
    #: Head and body leave together: apart, each answer would wait 40 ms for the client's acknowledgement.
    wbufsize = -1
    _ROUTES: tuple[tuple[str, str, str], ...] = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create_repo"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/refs", "refs"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)", "tree"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)", "info"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)", "info"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/branch/(?P<name>[^/]+)", "create_branch"),
        ("DELETE", r"/api/models/(?P<repo>[^/]+/[^/]+)/branch/(?P<name>[^/]+)", "delete_branch"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/tag/(?P<revision>[^/]+)", "create_tag"),
        ("DELETE", r"/api/models/(?P<repo>[^/]+/[^/]+)/tag/(?P<name>[^/]+)", "delete_tag"),
        ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put"),
        ("GET|HEAD", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        line = f"{self.command} {parts.path}"
        with self.hub.lock:
            self.hub.requests.append(line)
            fault = next((fault for fault in self.hub.faults if fault.takes(line)), None)
        if fault and fault.action == "drop":
            self.rfile.read(min(1, int(self.headers.get("Content-Length") or 0)))
            self._cut()
            return
        body = self._body()
        if fault and fault.action == "hang":
            self.hub.closing.wait(30)
            self._cut()
            return
        if fault and (fault.page or fault.action in ("page", "text")):
            self._say_page(fault)
            return
        self.corrupt = fault is not None and fault.action == "corrupt"
        try:
            if fault and isinstance(fault.action, int):
                expired = "Invalid credentials in Authorization header" if fault.action == 401 else "fault"
                raise _Refused(fault.action, expired)
            with self.hub.lock:
                status, headers, content = self._route(parts.path, parse_qs(parts.query), body)
        except _Refused as refused:
            content = json.dumps({"error": refused.message, **refused.body}).encode()
            headers = {"X-Error-Message": refused.message, "Content-Type": "application/json"}
            headers |= {"X-Error-Code": refused.code} if refused.code else {}
            status = refused.status
            headers |= fault.headers if fault else {}
        if fault and fault.action == "lose":
            self._cut()
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _say_page(self, fault: Fault) -> None:
        content = b"<!DOCTYPE html><title>Welcome to the hotel</title>"
        self.send_response(fault.action if isinstance(fault.action, int) else 200)
        self.send_header(
            "Content-Type", "application/json" if fault.action == "text" else "text/html; charset=utf-8"
        )
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().strip(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _route(
        self, path: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        for methods, pattern, name in self._ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods.split("|"):
                arguments = {key: unquote(value) for key, value in match.groupdict().items()}
                handle: Callable[..., Any] = getattr(self, f"_{name}")
                answer = handle(query=query, body=body, **arguments)
                if isinstance(answer, tuple):
                    return answer
                return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()
        raise _Refused(404, f"no route {self.command} {path}")

    def _user(self) -> str | None:
        authorization = self.headers.get("Authorization", "")
        if not authorization:
            return None
        user = self.hub.tokens.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise _Refused(401, "Invalid credentials in Authorization header")
        return user

    def _repo(self, repo: str, *, write: bool = False) -> Repo:
        user = self._user()
        found = self.hub.repos.get(repo)
        owner = repo.partition("/")[0]
        mine = user is not None and owner in (user, *self.hub.orgs[user])
        if found is None or (found.private and not mine):
            raise _Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and not mine:
            raise _Refused(403, "You do not have write access")
        return found

    def _commit_of(self, repo: Repo, revision: str) -> tuple[str, Commit]:
        oid = repo.resolve(revision)
        if oid is None:
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid, repo.commits[oid]

    def _whoami(self, **_: Any) -> Any:
        user = self._user()
        if user is None:
            raise _Refused(401, "Invalid credentials in Authorization header")
        role = "read" if user == "reader" else "write"
        return {
            "type": "user",
            "name": user,
            "orgs": [{"name": name} for name in self.hub.orgs[user]],
            "auth": {"type": "access_token", "accessToken": {"role": role}},
        }

    def _create_repo(self, body: bytes, **_: Any) -> Any:
        user = self._user()
        wanted = json.loads(body)
        owner = wanted.get("organization") or user
        if user is None or owner not in (user, *self.hub.orgs[user]):
            raise _Refused(403, f"You don't have the rights to create a model under {owner!r}")
        repo = f"{owner}/{wanted['name']}"
        if repo in self.hub.repos:
            raise _Refused(409, "You already created this model repo", url=f"{self.hub.url}/{repo}")
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self.hub.create(repo, user=user, private=private)
        return {"url": f"{self.hub.url}/{repo}"}

    def _validate_yaml(self, body: bytes, **_: Any) -> Any:
        json.loads(body)
        return {"errors": [], "warnings": []}

    def _refs(self, repo: str, **_: Any) -> Any:
        found = self._repo(repo)

        def listed(refs: dict[str, str], kind: str) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": oid} for n, oid in refs.items()]

        return {
            "branches": listed(found.branches, "heads"),
            "tags": listed(found.tags, "tags"),
            "converts": [],
        }

    def _tree(self, repo: str, revision: str, **_: Any) -> Any:
        _, commit = self._commit_of(self._repo(repo), revision)
        return [self._entry(path, content) for path, content in sorted(commit.files.items())]

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": path, "size": len(content), "oid": _sha1(content)}
        if _is_large(path, len(content)):
            oid = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
        return entry

    def _info(self, repo: str, revision: str = "main", **_: Any) -> Any:
        found = self._repo(repo)
        oid, commit = self._commit_of(found, revision)
        return {
            "id": repo,
            "modelId": repo,
            "sha": oid,
            "private": found.private,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
            "lastModified": _ZERO_DATE,
            "createdAt": _ZERO_DATE,
        }

    def _preupload(self, repo: str, revision: str, body: bytes, **_: Any) -> Any:
        _, commit = self._commit_of(self._repo(repo, write=True), revision)
        return {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if _is_large(file["path"], file["size"]) else "regular",
                    "shouldIgnore": False,
                    "oid": _sha1(commit.files[file["path"]]) if file["path"] in commit.files else None,
                }
                for file in json.loads(body)["files"]
            ]
        }

    def _lfs_batch(self, repo: str, body: bytes, **_: Any) -> Any:
        self._repo(repo, write=True)
        objects = []
        for item in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}?X-Amz-Signature=secretsignature"}}
            objects.append(item if item["oid"] in self.hub.large else {**item, "actions": upload})
        headers = {"Content-Type": "application/vnd.git-lfs+json"}
        return 200, headers, json.dumps({"transfer": "basic", "objects": objects}).encode()

    def _lfs_put(self, oid: str, body: bytes, **_: Any) -> Any:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Refused(400, "content does not match its hash")
        self.hub.large[oid] = body
        return {}

    def _commit(self, repo: str, revision: str, body: bytes, **_: Any) -> Any:
        found = self._repo(repo, write=True)
        if revision not in found.branches:
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        tip = found.branches[revision]
        files = dict(found.commits[tip].files)
        header: dict[str, Any] = {}
        for line in body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                header = value
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.hub.large:
                    raise _Refused(400, f"{value['path']} was not uploaded")
                files[value["path"]] = self.hub.large[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        if header.get("parentCommit") not in (None, tip):
            raise _Refused(412, "A commit has happened since. Please refresh and try again.")
        if self.corrupt:
            name = max(path for path in files if path.endswith((".safetensors", ".json")))
            files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])
        user = self._user()
        oid = found.add(revision, Commit(files, header["summary"], user or "", tip))
        return {"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid, "pullRequestUrl": None}

    def _create_branch(self, repo: str, name: str, body: bytes, **_: Any) -> Any:
        found = self._repo(repo, write=True)
        if name in found.branches:
            raise _Refused(409, "Reference already exists")
        start = json.loads(body or b"{}").get("startingPoint", "main")
        found.branches[name] = self._commit_of(found, start)[0]
        return {}

    def _delete_branch(self, repo: str, name: str, **_: Any) -> Any:
        del self._repo(repo, write=True).branches[name]
        return {}

    def _create_tag(self, repo: str, revision: str, body: bytes, **_: Any) -> Any:
        found = self._repo(repo, write=True)
        tag = json.loads(body)["tag"]
        if tag in found.tags:
            raise _Refused(409, "Tag reference exists already")
        found.tags[tag] = self._commit_of(found, revision)[0]
        return {}

    def _delete_tag(self, repo: str, name: str, **_: Any) -> Any:
        del self._repo(repo, write=True).tags[name]
        return {}

    def _resolve(self, repo: str, revision: str, path: str, **_: Any) -> Any:
        oid, commit = self._commit_of(self._repo(repo), revision)
        if path not in commit.files:
            raise _Refused(404, "Entry not found", "EntryNotFound")
        content = commit.files[path]
        large = _is_large(path, len(content))
        etag = hashlib.sha256(content).hexdigest() if large else _sha1(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": oid, "Content-Type": "application/octet-stream"}
        headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))} if large else {}
        return 200, {**headers, "Content-Length": str(len(content))}, content
