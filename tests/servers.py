"""Servers on loopback that images are read from: one of files, and the part of the hub that data sets are read by."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

REPOSITORY = "somebody/pictures"
COMMIT = "0" * 40


@dataclass
class FileServer:
    """Files of a folder over HTTP, with byte ranges or without. It remembers what it was asked for."""

    folder: Path
    ranges: bool = True
    fails: Callable[[int], bool] = lambda number: False  # whether it breaks off at its nth answer
    status: int | None = None  # that it answers with instead
    asked: list[tuple[str, str, int]] = field(default_factory=list)  # method, path, bytes sent
    address: str = ""

    def file_of(self, path: str) -> Path:
        """The file that a request's path means."""
        return self.folder / path.lstrip("/")

    def listing_of(self, path: str) -> Any:
        """What is answered in JSON; None where a file is meant."""
        return None

    def bytes_of(self, name: str) -> int:
        """How many bytes of a file were sent."""
        return sum(sent for method, path, sent in self.asked if method == "GET" and path.endswith(name))


class Hub(FileServer):
    """The folder as a data set of the hub."""

    def file_of(self, path: str) -> Path:
        return self.folder / path.removeprefix(f"/datasets/{REPOSITORY}/resolve/main/")

    def listing_of(self, path: str) -> Any:
        inside = path.partition("?")[0].removeprefix(f"/api/datasets/{REPOSITORY}")
        if inside == path.partition("?")[0]:
            return None
        if inside.startswith("/tree/main"):
            below = self.folder / unquote(inside.removeprefix("/tree/main").lstrip("/"))
            return [self._entry(path) for path in sorted(below.iterdir())]
        return {"id": REPOSITORY, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0}

    def _entry(self, path: Path) -> dict[str, Any]:
        name = path.relative_to(self.folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0", "size": 0}
        return {"type": "file", "path": name, "size": path.stat().st_size, "oid": _digest(path)}


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    """While it answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version, wbufsize = "HTTP/1.1", -1  # an answer in one packet

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, with_body: bool) -> None:
            if server.fails(len(server.asked)):
                server.asked.append((self.command, self.path, 0))
                self.close_connection = True
                return
            told, file = server.listing_of(self.path), server.file_of(self.path.partition("?")[0])
            found = server.status or (200 if told is not None or file.is_file() else 404)
            data = json.dumps(told).encode() if told is not None else file.read_bytes() if found == 200 else b""
            part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
            total = len(data)
            if part and server.ranges and told is None and found == 200:
                data, found = data[int(part[1]) : int(part[2]) + 1], 206
            self.send_response(found)
            self.send_header("Content-Length", str(len(data)))
            if found == 206 and part:
                self.send_header("Content-Range", f"bytes {part[1]}-{part[2]}/{total}")
            if told is None and file.is_file():
                self.send_header("ETag", f'"{_digest(file)}"')
                self.send_header("Last-Modified", formatdate(file.stat().st_mtime, usegmt=True))
            self.end_headers()
            server.asked.append((self.command, self.path, len(data) if with_body else 0))
            if with_body:
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        server.address = f"http://127.0.0.1:{listening.server_address[1]}"
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            listening.shutdown()


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
