"""A local stand-in for the HTTP interface of the Hugging Face hub."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

TOKEN = "hf_writer"
Files = dict[str, bytes]


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)  # name -> commit

    def commit(self, files: Files, branch: str = "main", message: str = "by hand") -> str:
        """Make a commit of these files, all that the branch then has, and return its hash."""
        sha = hashlib.sha1(repr((sorted(files.items()), len(self.commits))).encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        self.messages.append(message)
        return sha


class Hub:
    """The repositories by name, and what was asked for. ``cut`` files end in the middle at their first download."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.repositories: dict[str, Repository] = defaultdict(Repository)
        self.objects: dict[str, bytes] = {}  # large files by SHA-256
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.cut: set[str] = set()
        self.readers, self.writers = {TOKEN}, {TOKEN}

    def downloads(self) -> list[str]:
        return [line.rpartition("/")[2] for line in self.requests if line.startswith("GET") and "/resolve/" in line]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None: ...

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append(f"{self.command} {path}")
        routes = (
            (r"/", self._root),
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", lambda _: self._json({"errors": [], "warnings": []})),
            (r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self._info),
            (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self._tree),
            (r"/api/models/([^/]+/[^/]+)/branch/(.+)", self._branch),
            (r"/api/models/([^/]+/[^/]+)/preupload/(.+)", self._preupload),
            (r"/api/models/([^/]+/[^/]+)/commit/(.+)", self._commit),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/objects/(\w+)", self._object),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
        )
        for pattern, answer in routes:
            if found := re.fullmatch(pattern, path):
                answer(body, *found.groups())
                return
        self._json({"error": f"no route for {path}"}, 404)

    def _send(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, content: Any, status: int = 200, **headers: str) -> None:
        self._send(json.dumps(content).encode(), status, Content_Type="application/json", **headers)

    def _error(self, status: int, code: str) -> None:
        self._json({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

    @property
    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _root(self, _: bytes) -> None:
        self._send(b"a hub")

    def _readable(self, name: str) -> Repository | None:
        """Return a repository, or answer that there is none for this reader."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and self._token not in self.hub.readers):
            self._error(404 if self._token else 401, "RepoNotFound")
            return None
        return repository

    def _files(self, name: str, revision: str | None) -> tuple[str, Files] | None:
        """Return a commit and its files, or answer why not."""
        if (repository := self._readable(name)) is None:
            return None
        sha = repository.branches.get(revision or "main", revision or "main")
        if revision is None and sha == "main":
            return "", {}
        if sha not in repository.commits:
            self._error(404, "RevisionNotFound")
            return None
        return sha, repository.commits[sha]

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        if self._token not in self.hub.writers:
            self._json({"error": "You don't have the rights"}, 403 if self._token in self.hub.readers else 401)
            return
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            self._json({"url": f"{self.hub.address}/{name}", "error": "You already created this model repo"}, 409)
            return
        made = self.hub.repositories[name]
        made.private = bool(asked.get("private")) or asked.get("visibility") == "private"
        made.commit({".gitattributes": b"*.safetensors filter=lfs"}, message="initial commit")
        self._json({"url": f"{self.hub.address}/{name}", "name": name, "id": name})

    def _info(self, _: bytes, name: str, revision: str | None) -> None:
        if found := self._files(name, revision):
            sha, files = found
            private = self.hub.repositories[name].private
            siblings = [{"rfilename": file} for file in files]
            self._json({"id": name, "modelId": name, "sha": sha, "private": private, "siblings": siblings, "tags": []})

    def _tree(self, _: bytes, name: str, revision: str) -> None:
        if found := self._files(name, revision):
            entries = []
            for path, content in found[1].items():
                digest = hashlib.sha256(content).hexdigest()
                lfs = {"lfs": {"oid": digest, "size": len(content), "pointerSize": 1}} if _is_large(path) else {}
                oid = hashlib.sha1(content).hexdigest()
                entries.append({"type": "file", "path": path, "size": len(content), "oid": oid, **lfs})
            self._json(entries)

    def _branch(self, _: bytes, name: str, branch: str) -> None:
        repository = self.hub.repositories[name]
        if branch in repository.branches:
            self._json({"error": "Reference already exists"}, 409)
            return
        repository.branches[branch] = repository.branches["main"]
        self._json({})

    def _preupload(self, body: bytes, name: str, _: str) -> None:
        if self._readable(name):
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if _is_large(file["path"]) else "regular"}
                for file in json.loads(body)["files"]
            ]
            self._json({"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})

    def _batch(self, body: bytes, _: str) -> None:
        found = []
        for each in json.loads(body)["objects"]:
            there = each["oid"] in self.hub.objects
            actions = {} if there else {"actions": {"upload": {"href": f"{self.hub.address}/objects/{each['oid']}"}}}
            found.append({**each, **actions})
        self._json({"transfer": "basic", "objects": found})

    def _object(self, body: bytes, digest: str) -> None:
        assert hashlib.sha256(body).hexdigest() == digest
        self.hub.objects[digest] = body
        self._send(b"")

    def _commit(self, body: bytes, name: str, branch: str) -> None:
        repository = self.hub.repositories[name]
        files, message = dict(repository.commits[repository.branches[branch]]), ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(files, branch, message)
        self._json({"commitUrl": f"{self.hub.address}/{name}/commit/{sha}", "commitOid": sha, "success": True})

    def _resolve(self, _: bytes, name: str, revision: str, path: str) -> None:
        if (found := self._files(name, revision)) is None:
            return
        sha, files = found
        if self.hub.repositories[name].gated:
            self._error(403, "GatedRepo")
            return
        if path not in files:
            self._error(404, "EntryNotFound")
            return
        content, headers = files[path], {"X_Repo_Commit": sha, "ETag": f'"{hashlib.sha256(files[path]).hexdigest()}"'}
        if start := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            self.hub.ranges.append(self.headers["Range"])
            rest = content[int(start[1]) :]
            self._send(rest, 206, Content_Range=f"bytes {start[1]}-{len(content) - 1}/{len(content)}", **headers)
        elif self.command == "GET" and path in self.hub.cut:
            self.hub.cut.remove(path)
            self.send_response(200)
            for key, value in {"Content_Length": str(len(content)), **headers}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            self._send(content, **headers)


def _is_large(path: str) -> bool:
    return path.endswith(".safetensors")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process asks instead of the real one, without a token and with an empty cache."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    address = f"http://127.0.0.1:{server.server_address[1]}"
    Handler.hub = hub = Hub(address)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    constants = {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
    }
    for name, value in constants.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    yield hub
    server.shutdown()
    server.server_close()
