"""A small Hugging Face Hub on the loopback interface, with faults that tests turn on.

It answers what the client asks for a model: the list of files, HEAD and GET of a file, with ranges. Large files are
served from a second port, as the real Hub serves them from another host: there a token must not be sent.
"""

import hashlib
import json
import socket
import struct
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_FROM = 20_000  # bytes; larger files are stored by SHA-256 and served from the second port


@dataclass
class Repository:
    """A model on the server, and what is wrong with it."""

    files: dict[str, bytes]
    commit: str
    private: bool = False
    branches: tuple[str, ...] = ("main", "v1.0")  # they all stand for the one commit
    status: int = 200  # of every answer; others come with `error`
    error: dict[str, str] = field(default_factory=dict)  # the headers X-Error-Code and X-Error-Message
    listed: list[str] = field(default_factory=list)  # names in the list of files that are not in `files`
    list_body: bytes | None = None  # instead of the list of files
    without: tuple[str, ...] = ()  # headers that are left out
    headers: dict[str, str] = field(default_factory=dict)  # with files, in place of what they should be
    ignore_range: bool = False
    # Kind of request ("list", "HEAD", "GET", and those of upload_server.py) -> what to do instead, first entry first; one that
    # "for ever" follows stays.
    # 503: that status. "close", "reset": stop after 40 % of the file. "wrong": right size, wrong bytes.
    # "dead": hang up. "silence": never answer. "drip": a byte a second.
    faults: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class Request:
    """A request that arrived."""

    kind: str
    repository: str
    file: str
    port: int
    headers: dict[str, str]


class QuietServer(ThreadingHTTPServer):
    """Does not report that a client hung up."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class HubServer:
    """The server; `endpoint` is what HF_ENDPOINT should be."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self.servers = [QuietServer(("127.0.0.1", 0), self.handler()) for _ in range(2)]
        for server in self.servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.endpoint, self.storage = (f"http://127.0.0.1:{server.server_port}" for server in self.servers)

    def add(self, name: str, files: dict[str, bytes], **options: Any) -> Repository:
        """Put a model on the server; its commit is derived from its name and files."""
        commit = hashlib.sha1(repr((name, sorted(files.items()))).encode()).hexdigest()
        self.repositories[name] = Repository(files, commit, **options)
        return self.repositories[name]

    def asked(self, name: str) -> list[Request]:
        """The requests for one model."""
        return [request for request in self.requests if request.repository == name]

    def stop(self) -> None:
        """Stop answering: connections are refused from now on."""
        self.stopping.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def handler(self) -> Any:
        """The class that answers."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                self.answer()

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                path = urlsplit(self.path).path
                if path.startswith("/api/models/"):
                    name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
                    kind, file, revision = "list", "", revision or "main"
                else:
                    name, _, rest = path[1:].partition("/resolve/")
                    revision, _, file = rest.partition("/")
                    kind, file = self.command, unquote(file)
                repository = hub.repositories.get(name)
                fault = self.fault(kind, name, file)
                if repository is None:
                    self.refuse(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
                elif fault in ("dead", "silence") or isinstance(fault, int):
                    self.fail(fault)
                elif repository.status != 200:
                    self.refuse(repository.status, repository.error)
                elif unquote(revision) not in (*repository.branches, repository.commit):
                    self.refuse(404, {"X-Error-Code": "RevisionNotFound"})
                elif kind == "list":
                    self.list_files(repository)
                elif file not in repository.files:
                    self.refuse(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repository.commit})
                else:
                    at_home = self.server.server_address[1] != hub.port_of_storage
                    self.send_file(repository, file, fault, elsewhere=hub.storage if at_home else "")

            def fault(self, kind: str, name: str, file: str) -> Any:
                """Note the request; what is to be done instead of answering it, or None."""
                headers = {key.lower(): value for key, value in self.headers.items()}
                hub.requests.append(Request(kind, name, file, self.server.server_address[1], headers))
                faults = hub.repositories[name].faults[kind] if name in hub.repositories else []
                return faults[0] if faults[1:] == ["for ever"] else faults.pop(0) if faults else None

            def fail(self, fault: int | str) -> None:
                if isinstance(fault, int):
                    self.refuse(fault, {})
                elif fault == "dead":
                    self.connection.shutdown(socket.SHUT_RDWR)
                else:
                    hub.stopping.wait()

            def refuse(self, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()

            def list_files(self, repository: Repository) -> None:
                files = [_listing(name, data) for name, data in repository.files.items()]
                files += [{"rfilename": name, "size": 4, "blobId": "0" * 40} for name in repository.listed]
                body = repository.list_body
                if body is None:
                    said = {"id": "owner/name", "private": repository.private, "sha": repository.commit, "siblings": files}
                    body = json.dumps(said).encode()
                self.send_json(200, body)

            def send_json(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def send_file(self, repository: Repository, file: str, fault: object, elsewhere: str) -> None:
                data = repository.files[file]
                large = len(data) >= LFS_FROM
                headers = {
                    "X-Repo-Commit": repository.commit,
                    "ETag": f'"{sha256(data) if large else git_hash(data)}"',
                    "Accept-Ranges": "bytes",
                }
                if large and elsewhere:
                    headers |= {
                        "X-Linked-ETag": headers["ETag"],
                        "X-Linked-Size": str(len(data)),
                        "Location": elsewhere + self.path,
                        "Content-Length": "0",
                    }
                    self.start(302, headers, repository)
                    return
                start = 0
                if (wanted := self.headers.get("Range")) and not repository.ignore_range:
                    start = int(wanted.removeprefix("bytes=").partition("-")[0])
                    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                headers["Content-Length"] = str(len(data) - start)
                self.start(206 if start else 200, headers, repository)
                if self.command == "GET":
                    self.send_body(data[start:], fault)

            def start(self, status: int, headers: dict[str, str], repository: Repository) -> None:
                self.send_response(status)
                for name, value in (headers | repository.headers).items():
                    if name not in repository.without:
                        self.send_header(name, value)
                self.end_headers()

            def send_body(self, data: bytes, fault: object) -> None:
                if fault in ("close", "reset"):
                    self.wfile.write(data[: len(data) * 2 // 5])
                    self.wfile.flush()
                    if fault == "reset":  # to linger for no time makes close() send RST instead of FIN
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        self.rfile.close()
                        self.connection.close()
                    else:
                        self.connection.shutdown(socket.SHUT_RDWR)
                elif fault == "drip":
                    for byte in data:
                        self.wfile.write(bytes([byte]))
                        if hub.stopping.wait(1):
                            return
                else:
                    self.wfile.write(bytes(255 - byte for byte in data) if fault == "wrong" else data)

        return Handler

    @property
    def port_of_storage(self) -> int:
        """The port that large files are served from."""
        return self.servers[1].server_port


def _listing(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_hash(data)}
    if len(data) >= LFS_FROM:
        entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 134}
    return entry


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
