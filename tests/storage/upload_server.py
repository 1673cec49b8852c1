"""The stand-in Hub of hub_server.py, which takes uploads too, as the real one takes them from its client.

A repository is made ("create"), the right to write to it is asked for ("auth-check"), a branch is made ("branch"), the files
are announced ("preupload"), the large ones are announced to storage ("batch") and put there ("PUT"), and a commit with the
contents of the small ones and the hashes of the large ones makes them all appear ("commit").
"""

import base64
import json
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.storage.hub_server import LFS_FROM, HubServer, Repository, git_hash, sha256


class UploadServer(HubServer):
    """Takes uploads from those who may write."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}  # token -> whose repositories it may make and write to
        self.stored: dict[str, bytes] = {}  # large files by their SHA-256
        self.large_from = LFS_FROM
        super().__init__()

    def make(self, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Make a repository."""
        url = f"{self.endpoint}/{name}"
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", "url": url}
        private = bool(body.get("private")) or body.get("visibility") == "private"
        self.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private, branches=("main",))
        return 200, {"url": url}

    def announce(self, repository: Repository, body: dict[str, Any]) -> dict[str, Any]:
        """Say of each file how it is to be sent."""
        files = []
        for file in body["files"]:
            old = repository.files.get(file["path"])
            mode = "lfs" if file["size"] >= self.large_from else "regular"
            hash_of = sha256 if mode == "lfs" else git_hash
            oid = None if old is None else hash_of(old)
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}

    def announce_to_storage(self, body: dict[str, Any]) -> dict[str, Any]:
        """Say of each large file where to put it, if it is not there yet."""
        objects = body["objects"]
        for each in objects:
            if each["oid"] not in self.stored:
                each["actions"] = {"upload": {"href": f"{self.storage}/put/{each['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def commit(self, name: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        """Let the files of a commit appear: all, or none if one is not in storage."""
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.stored[value["oid"]]
        repository = self.repositories[name]
        repository.files = repository.files | files
        repository.commit = sha256(repr(sorted(repository.files.items())).encode())[:40]
        return {
            "success": True,
            "commitOid": repository.commit,
            "commitUrl": f"{self.endpoint}/{name}/commit/{repository.commit}",
        }

    def handler(self) -> Any:
        """The class that answers."""
        hub = self

        class Handler(super().handler()):  # type: ignore[misc]
            def do_GET(self) -> None:
                name = urlsplit(self.path).path.removeprefix("/api/models/").removesuffix("/auth-check/write")
                if self.path.endswith("/auth-check/write"):
                    if self.may_write("auth-check", name):
                        self.send_json(200, b"{}")
                else:
                    self.answer()

            def do_PUT(self) -> None:
                digest = self.path.removeprefix("/put/")
                name = hub.requests[-1].repository  # a client at a time
                fault = self.fault("PUT", name, digest)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if fault is not None:
                    self.fail(fault)
                elif sha256(body) != digest:
                    self.refuse(400, {})
                else:
                    hub.stored[digest] = body
                    self.send_json(200, b"{}")

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                lines = [json.loads(line) for line in data.splitlines()]
                body = lines[0] if lines else {}
                path = urlsplit(self.path).path
                if path == "/api/validate-yaml":
                    self.send_json(200, b'{"errors": [], "warnings": []}')
                elif path == "/api/repos/create":
                    name = f"{body['organization']}/{body['name']}"
                    if self.may_write("create", name):
                        status, said = hub.make(name, body)
                        self.send_json(status, json.dumps(said).encode())
                else:
                    kind, name, revision = self.step(path)
                    if not self.may_write(kind, name):
                        return
                    repository = hub.repositories[name]
                    if kind == "branch":
                        there = revision in repository.branches
                        repository.branches = (*repository.branches, revision)
                        self.send_json(409 if there else 200, b"{}")
                    elif revision not in repository.branches:
                        self.refuse(404, {"X-Error-Code": "RevisionNotFound"})
                    else:
                        said = {
                            "preupload": lambda: hub.announce(repository, body),
                            "batch": lambda: hub.announce_to_storage(body),
                            "commit": lambda: hub.commit(name, lines),
                        }[kind]()
                        self.send_json(200, json.dumps(said).encode())

            def step(self, path: str) -> tuple[str, str, str]:
                """Kind of request, repository, revision."""
                if path.endswith(".git/info/lfs/objects/batch"):
                    return "batch", path[1:].removesuffix(".git/info/lfs/objects/batch"), "main"
                owner, title, kind, revision = path.removeprefix("/api/models/").split("/")
                return kind, f"{owner}/{title}", unquote(revision)

            def may_write(self, kind: str, name: str) -> bool:
                """Note the request, and answer it here if something is wrong."""
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                fault = self.fault(kind, name, "")
                if fault is not None:
                    self.fail(fault)
                elif token not in hub.owners:
                    self.refuse(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
                elif hub.owners[token] != name.partition("/")[0]:
                    self.refuse(403, {"X-Error-Message": "You don't have the rights to this namespace"})
                elif name not in hub.repositories and kind != "create":
                    self.refuse(404, {"X-Error-Code": "RepoNotFound"})
                else:
                    return True
                return False

        return Handler
