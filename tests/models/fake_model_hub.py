"""A server on this machine that plays the Hugging Face hub for model repositories: what is pushed
to it is really stored, and can be fetched from it again.

Written from the requests that huggingface_hub 2.4 makes with HF_HUB_DISABLE_XET: repositories are
made by POST /api/repos/create; a push asks `preupload` which files are large, announces those to
the LFS batch address, PUTs them, and sends the commit as JSON lines; a fetch asks for the commit
and its tree, then HEAD and GET of REPO/resolve/COMMIT/FILE.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

NAME = "somebody/faces"


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of the files at the top of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@dataclass
class Repository:
    """One model: branch -> commit, and commit -> its files."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Stores a commit; its name is made from what it holds and what was before."""
        told = json.dumps([self.branches.get(branch), sorted(files)]).encode()
        content = b"".join(hashlib.sha1(files[name]).digest() for name in sorted(files))
        name = hashlib.sha1(told + content).hexdigest()
        self.commits[name] = dict(files)
        self.branches[branch] = name
        return name

    def at(self, revision: str) -> str | None:
        """The commit of a branch or a commit's name."""
        return revision if revision in self.commits else self.branches.get(revision)


@dataclass
class ModelHub:
    """What the hub holds and how it misbehaves; a test changes it while the server runs.

    Attributes:
        url: Address.
        repositories: Name -> repository.
        objects: SHA-256 -> content of large files.
        writer: The only token that may write; None lets everybody.
        reader: A token that is known and may not write.
        gated: Access must be granted.
        cuts: How many of the next uploads break off half-way.
        status: Answer to everything, where it is not 0.
        requests: "METHOD path" of every request.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    writer: str | None = None
    reader: str | None = None
    gated: bool = False
    cuts: int = 0
    status: int = 0
    requests: list[str] = field(default_factory=list)

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """What a repository holds."""
        repository = self.repositories[name]
        return repository.commits[repository.at(revision)]

    def holds(self, name: str, files: dict[str, bytes], *, private: bool = False) -> None:
        """Puts a repository there as if somebody had pushed it."""
        self.repositories[name] = Repository(private)
        self.repositories[name].commit("main", files)


@contextlib.contextmanager
def serving() -> Iterator[ModelHub]:
    """Runs a hub on a free port."""
    hub = ModelHub()

    class Answers(_Answers):
        pass

    Answers.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads, server.block_on_close = True, False
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ModelHub

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        with contextlib.suppress(ConnectionError):  # the client has had enough
            if self.command == "PUT" and self.hub.cuts > 0:
                self.hub.cuts -= 1
                self.rfile.read(100)
                self.close_connection = True
                self.connection.close()
                return
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            if "chunked" in (self.headers["Transfer-Encoding"] or ""):
                body = self._chunks()
            if self.hub.status:
                self._send(self.hub.status, {})
                return
            for pattern, answer in _ADDRESSES:
                if found := re.fullmatch(pattern, f"{self.command} {path}"):
                    answer(self, body, *found.groups())
                    return
            self._send(404, {"error": f"no address {path}"})

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(
        self, status: int, content: Any, headers: dict[str, str] | None = None, length: int = -1
    ) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        self.send_response(status)
        shown = {"Content-Type": kind, "Content-Length": str(length if length >= 0 else len(data))}
        for name, value in {**shown, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _may_write(self) -> bool:
        sent = self.headers["Authorization"]
        if self.hub.writer is None or sent == f"Bearer {self.hub.writer}":
            return True
        known = self.hub.reader is not None and sent == f"Bearer {self.hub.reader}"
        self._send(403 if known else 401, {"error": "this token may not write"})
        return False

    def _found(self, name: str, revision: str) -> tuple[Repository, str] | None:
        repository = self.hub.repositories.get(name)
        writer = f"Bearer {self.hub.writer}"
        hidden = repository and repository.private and self.hub.writer
        if repository is None or (hidden and self.headers["Authorization"] != writer):
            code = "RepoNotFound"
            self._send(401 if hidden else 404, {}, {"X-Error-Code": code})
            return None
        commit = repository.at(revision)
        if commit is None and not (revision == "main" and not repository.commits):
            self._send(404, {}, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository, commit or "0" * 40

    def create(self, body: bytes) -> None:
        if self._may_write():
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            if name in self.hub.repositories:
                self._send(409, {"error": "exists", "url": f"{self.hub.url}/{name}"})
                return
            self.hub.repositories[name] = Repository(wanted.get("visibility") == "private")
            self._send(200, {"url": f"{self.hub.url}/{name}"})

    def check_card(self, body: bytes) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._send(200, {"files": modes})

    def batch(self, body: bytes, name: str) -> None:
        answers = []
        for wanted in json.loads(body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.objects:
                href = f"{self.hub.url}/lfs/{wanted['oid']}"
                answer["actions"] = {"upload": {"href": href}}
            answers.append(answer)
        self._send(200, {"transfer": "basic", "objects": answers})

    def put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self._send(400, {"error": "content and hash differ"})
            return
        self.hub.objects[oid] = body
        self._send(200, b"")

    def commit(self, body: bytes, name: str, revision: str) -> None:
        if not self._may_write() or (found := self._found(name, revision)) is None:
            return
        repository, commit = found
        files = dict(repository.commits.get(commit, {}))
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            match entry["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        made = repository.commit(revision, files)
        address = f"{self.hub.url}/{name}/commit/{made}"
        self._send(200, {"commitUrl": address, "commitOid": made, "success": True})

    def branch(self, body: bytes, name: str, revision: str) -> None:
        if self._may_write():
            repository = self.hub.repositories[name]
            if revision in repository.branches:
                self._send(409, {"error": "exists"})
                return
            repository.branches[revision] = repository.branches.get("main", "")
            repository.commits.setdefault("", {})
            self._send(200, {})

    def info(self, body: bytes, name: str, revision: str | None) -> None:
        if found := self._found(name, revision or "main"):
            repository, commit = found
            files = repository.commits.get(commit, {})
            siblings = [{"rfilename": file} for file in sorted(files)]
            about = {"id": name, "modelId": name, "private": repository.private, "sha": commit}
            self._send(200, {**about, "siblings": siblings})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        if found := self._found(name, revision):
            repository, commit = found
            entries = []
            for path, content in sorted(repository.commits.get(commit, {}).items()):
                blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                entry = {"type": "file", "path": path, "size": len(content), "oid": blob}
                if path.endswith(".safetensors"):
                    digest = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
                entries.append(entry)
            self._send(200, entries)

    def file(self, body: bytes, name: str, revision: str, path: str) -> None:
        if not (found := self._found(name, revision)):
            return
        repository, commit = found
        if self.hub.gated:
            self._send(403, {}, {"X-Error-Code": "GatedRepo"})
            return
        content = repository.commits.get(commit, {}).get(path)
        if content is None:
            self._send(404, {}, {"X-Error-Code": "EntryNotFound"})
            return
        large = path.endswith(".safetensors")
        digest = hashlib.sha256(content).hexdigest()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest if large else blob}"'}
        self._send(200, content, headers)


_NAME = r"([\w.-]+/[\w.-]+)"
_ADDRESSES = (
    (r"POST /api/repos/create", _Answers.create),
    (r"POST /api/validate-yaml", _Answers.check_card),
    (rf"POST /api/models/{_NAME}/preupload/(.+)", _Answers.preupload),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _Answers.batch),
    (r"PUT /lfs/(\w+)", _Answers.put),
    (rf"POST /api/models/{_NAME}/commit/(.+)", _Answers.commit),
    (rf"POST /api/models/{_NAME}/branch/(.+)", _Answers.branch),
    (rf"GET /api/models/{_NAME}(?:/revision/(.+))?", _Answers.info),
    (rf"GET /api/models/{_NAME}/tree/([^/]+)(?:/)?", _Answers.tree),
    (rf"(?:HEAD|GET) /{_NAME}/resolve/([^/]+)/(.+)", _Answers.file),
)
