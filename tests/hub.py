"""A hub on loopback, as huggingface_hub speaks to one: repositories in memory, large files by Git LFS."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KNOWN, READS_ONLY = "hf_writes", "hf_reads"  # tokens
LARGE = (".parquet", ".safetensors")  # by Git LFS, as the hub's .gitattributes say


@dataclass
class Hub:
    """A running hub: its address, what was made, and the files of its repositories, by "<type>s/<name>"."""

    url: str
    made: list[dict[str, Any]] = field(default_factory=list)
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # of Git LFS, by their SHA-256

    def write(self, repository: str, folder: Path) -> Path:
        """A repository's files, as somebody has downloaded them."""
        for name, data in self.repositories[repository].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub for as long as the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.hub  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token != KNOWN:
            return self._answer({"error": "no"}, 403 if token == READS_ONLY else 401)
        path = self.path.split("?")[0]
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._answer({"warnings": [], "errors": []})
        if match := re.fullmatch(r"/api/(\w+s/.+)/preupload/main", path):
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(LARGE) else "regular" for name in files}
            return self._answer(
                {"files": [{"path": k, "uploadMode": v, "shouldIgnore": False} for k, v in modes.items()]}
            )
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body)["objects"])
        if match := re.fullmatch(r"/api/(\w+s/.+)/commit/main", path):
            return self._commit(match[1], [json.loads(line) for line in body.splitlines()])
        return self._answer({"error": "not here"}, 404)

    def do_PUT(self) -> None:
        self.hub.objects[self.path.removeprefix("/lfs/")] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({})

    def do_GET(self) -> None:
        self._answer({"error": "not here"}, 404)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        there = self.hub.repositories.setdefault(f"{asked['type']}s/{name}", {})
        self.hub.made.append(asked)
        place = name if asked["type"] == "model" else f"{asked['type']}s/{name}"
        self._answer({"url": f"{self.hub.url}/{place}"}, 409 if there else 200)

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        found = [
            {**each, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}", "header": {}}}}
            for each in objects
        ]
        self._answer({"transfer": "basic", "objects": found})

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        files = self.hub.repositories[repository]
        for line in lines:
            told = line["value"]
            if line["key"] == "file":
                files[told["path"]] = base64.b64decode(told["content"])
            elif line["key"] == "lfsFile":
                files[told["path"]] = self.hub.objects[told["oid"]]
        place = repository.removeprefix("models/")
        self._answer({"commitUrl": f"{self.hub.url}/{place}/commit/{'0' * 40}", "commitOid": "0" * 40})

    def _answer(self, answer: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
