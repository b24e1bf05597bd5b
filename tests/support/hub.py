"""A small hub on loopback that speaks what the real client asks of it when files are uploaded in one commit."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlparse


@dataclass
class Repository:
    """A repository: whether it is private, its files, and the titles of its commits."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


@dataclass
class Hub:
    """What the hub holds, and how it behaves."""

    token: str = "hf_the_token_of_these_tests"
    user: str = "me"
    failures: list[int] = field(default_factory=list)
    """Status codes of the next requests to upload a large file, before one succeeds."""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    address: str = ""


class Handler(BaseHTTPRequestHandler):
    """Answers one request; ``hub`` is set for each server."""

    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body, path = self._body(), urlparse(self.path).path
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._answer(200, {"transfer": "basic", "objects": self._places(json.loads(body)["objects"])})
        _, _, _, owner, name, action, *_ = path.split("/")
        repository = self.hub.repositories.get(f"{owner}/{name}")
        if repository is None:
            return self._answer(404, {"error": "Repository not found"})
        if action == "preupload":
            return self._answer(200, {"files": [self._mode(file) for file in json.loads(body)["files"]]})
        assert action == "commit"
        return self._commit(f"{owner}/{name}", [json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:
        body = self._body()
        if self.hub.failures:
            return self._answer(self.hub.failures.pop(0), {})
        assert hashlib.sha256(body).hexdigest() == self.path.rpartition("/")[2]
        self.hub.large[self.path.rpartition("/")[2]] = body
        return self._answer(200, {})

    def _create(self, asked: dict[str, Any]) -> None:
        owner = asked.get("organization") or self.hub.user
        if owner != self.hub.user:
            return self._answer(403, {"error": f"You don't have the rights to create a model under {owner}"})
        name = f"{owner}/{asked['name']}"
        address = {"url": f"{self.hub.address}/{name}"}
        if name in self.hub.repositories:
            return self._answer(409, {"error": "You already created this model repo", **address})
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private=bool(private))
        return self._answer(200, address)

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        repository = self.hub.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                repository.commits.append(value["summary"])
            elif line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            else:
                repository.files[value["path"]] = self.hub.large[value["oid"]]
        address = f"{self.hub.address}/{name}/commit/{'0' * 40}"
        self._answer(200, {"success": True, "commitOid": "0" * 40, "commitUrl": address, "hookOutput": ""})

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith(".safetensors")
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _places(self, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
        upload = {one["oid"]: {"upload": {"href": f"{self.hub.address}/large/{one['oid']}"}} for one in objects}
        return [{**one, "actions": upload[one["oid"]]} for one in objects]

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Leave standard error alone."""


@contextmanager
def hub_on_loopback() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
