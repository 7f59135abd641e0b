"""A server on this machine that plays the Hugging Face hub for one data set, with its faults:
broken lines, wrong content, refused access.

Written from the requests that huggingface_hub 2.4 makes: GET /api/datasets/REPO/revision/REVISION,
and GET /datasets/REPO/resolve/COMMIT/FILE, which sends large files on to another host.
"""

import contextlib
import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPO = "YyWooo/Gen3DHF"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """What the hub holds and how it misbehaves; a test changes it while the server runs.

    Attributes:
        files: Name -> content. JSON files are plain git blobs, all others are large files.
        url: Address of the hub.
        storage: Address of the host that large files are sent from; "" for the hub itself.
        sent: Name -> content that is sent in place of the listed one.
        gone: Names that are listed and not there.
        gated: Access must be granted: the hub lists the files to everybody and sends none.
        cuts: Name -> body bytes after which the next answers break off, one entry an answer.
        stalls: Name -> body bytes after which an answer stops and stays open, until it is removed.
        reset: Broken lines are reset, not closed.
        ignores_ranges: Every answer is the whole file.
        token: The only token that is let in, or None for everybody.
        refusal: (status, error code of the hub) for every request of the listing, or None.
        requests: (kind, name, Range, Authorization, body bytes sent); kind is "api", "file" or
            "storage".
    """

    files: dict[str, bytes]
    url: str = ""
    storage: str = ""
    sent: dict[str, bytes] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    gated: bool = False
    cuts: dict[str, list[int]] = field(default_factory=dict)
    stalls: dict[str, int] = field(default_factory=dict)
    reset: bool = False
    ignores_ranges: bool = False
    token: str | None = None
    refusal: tuple[int, str] | None = None
    requests: list[tuple[str, str, str | None, str | None, int]] = field(default_factory=list)

    def listing(self) -> bytes:
        """The answer about the data set, with sizes and hashes."""
        siblings = []
        for name, content in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry = {"rfilename": name, "size": len(content), "blobId": blob}
            if not name.endswith(".json"):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 130}
            siblings.append(entry)
        return json.dumps({"id": REPO, "sha": COMMIT, "siblings": siblings}).encode()

    def transfers(self, name: str) -> list[tuple[str | None, int]]:
        """(Range, body bytes sent) of the answers that held (part of) a file."""
        return [(r[2], r[4]) for r in self.requests if r[1] == name and r[4]]


@contextlib.contextmanager
def serving(files: dict[str, bytes], *, with_storage: bool = False) -> Iterator[FakeHub]:
    """Runs a hub, and a second host for large files, on free ports."""
    hub = FakeHub(files)
    servers = [_server(hub, "file")] + ([_server(hub, "storage")] if with_storage else [])
    threads = [threading.Thread(target=s.serve_forever, args=(0.02,)) for s in servers]
    hub.url = f"http://127.0.0.1:{servers[0].server_port}"
    if with_storage:
        # Another name for the same machine: another origin to the client.
        hub.storage = f"http://localhost:{servers[1].server_port}"
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


def _server(hub: FakeHub, kind: str) -> ThreadingHTTPServer:
    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):  # the client has had enough
                _answer(self, hub, kind)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    server.block_on_close = False
    return server


def _answer(http: BaseHTTPRequestHandler, hub: FakeHub, kind: str) -> None:
    path = unquote(urlsplit(http.path).path)
    authorization = http.headers["Authorization"]
    allowed = hub.token is None or kind == "storage" or authorization == f"Bearer {hub.token}"
    if path == f"/api/datasets/{REPO}/revision/main":
        hub.requests.append(("api", "", None, authorization, 0))
        if hub.refusal:
            _send(http, hub.refusal[0], {"X-Error-Code": hub.refusal[1]}, b"")
        elif not allowed:
            _send(http, 401, {"X-Error-Code": "RepoNotFound"}, b"")
        else:
            _send(http, 200, {"Content-Type": "application/json"}, hub.listing())
        return
    if path.startswith("/api/datasets/"):
        code = "RevisionNotFound" if f"/{REPO}/" in path else "RepoNotFound"
        _send(http, 404, {"X-Error-Code": code}, b"")
        return
    name = path.removeprefix(f"/datasets/{REPO}/resolve/{COMMIT}/")
    if not allowed:
        _send(http, 401, {"X-Error-Code": "RepoNotFound"}, b"")
    elif hub.gated:
        _send(http, 403, {"X-Error-Code": "GatedRepo"}, b"")
    elif name not in hub.files or name in hub.gone:
        _send(http, 404, {"X-Error-Code": "EntryNotFound"}, b"")
    elif kind == "file" and hub.storage and not name.endswith(".json"):
        hub.requests.append((kind, name, http.headers["Range"], authorization, 0))
        _send(http, 302, {"Location": f"{hub.storage}{http.path}"}, b"")
    else:
        _send_file(http, hub, kind, name, authorization)


def _send_file(
    http: BaseHTTPRequestHandler, hub: FakeHub, kind: str, name: str, authorization: str | None
) -> None:
    content = hub.sent.get(name, hub.files[name])
    wanted = None if hub.ignores_ranges else http.headers["Range"]
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
    body = content[start:]
    cut = hub.cuts.get(name)
    length = cut.pop(0) if cut else len(body)
    # Before the bytes: the client may be done before this thread goes on.
    hub.requests.append((kind, name, http.headers["Range"], authorization, len(body[:length])))
    http.send_response(206 if wanted else 200)
    if wanted:
        http.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    http.send_header("Content-Length", str(len(body)))
    http.end_headers()
    if name in hub.stalls:
        http.wfile.write(body[: hub.stalls[name]])
        while name in hub.stalls:
            time.sleep(0.02)
        http.close_connection = True
        return
    http.wfile.write(body[:length])
    http.wfile.flush()
    if length < len(body):
        http.close_connection = True
        if hub.reset:
            linger = struct.pack("ii", 1, 0)
            http.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            http.connection.close()
        else:
            http.connection.shutdown(socket.SHUT_RDWR)


def _send(http: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    http.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        http.send_header(name, value)
    http.end_headers()
    http.wfile.write(body)
