from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image

from czslkit.data.layout import metadata_file
from czslkit.data.loading import load_dataset
from czslkit.data.splits import Splits
from czslkit.data.writing import write_dataset

Entries = list[dict[str, str]]

PAIRS = {
    "train": [("wet", "dog"), ("dry", "cat")],
    "val": [("wet", "dog"), ("dry", "dog")],
    "test": [("wet", "cat"), ("dry", "cat")],
}
SHOWN = {"train": 3, "val": 2, "test": 2}


def pictures() -> Iterator[tuple[dict[str, str], Image.Image]]:
    for split, pairs in PAIRS.items():
        for attr, obj in pairs:
            for n in range(SHOWN[split]):
                entry = {"image": f"{attr}_{obj}/{split}{n}.jpg", "attr": attr, "obj": obj, "set": split}
                yield entry, Image.effect_noise((40 + n, 33), 60).convert("RGB")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """The folder of a dataset of wet and dry cats and dogs: 6 + 4 + 4 images."""
    assert write_dataset(tmp_path / "pets", PAIRS, pictures())
    return tmp_path / "pets"


@pytest.fixture
def splits(pets: Path) -> Splits:
    """The dataset ``pets``, loaded."""
    return load_dataset("pets", pets.parent)


@pytest.fixture
def edit(pets: Path) -> Callable[[Callable[[Entries], None]], None]:
    """Applies a function to the metadata of ``pets``."""

    def apply(change: Callable[[Entries], None]) -> None:
        entries = torch.load(metadata_file(pets), weights_only=True)
        change(entries)
        torch.save(entries, metadata_file(pets))

    return apply


Answer = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    """Answer with the next planned answer for a path, or with the file if none is planned."""

    protocol_version = "HTTP/1.1"
    shop: Shop

    def do_GET(self) -> None:
        self.close_connection = True
        name = self.path.lstrip("/")
        self.shop.requests.append((name, dict(self.headers)))
        waiting = self.shop.answers.get(name)
        answer = waiting.pop(0) if waiting else serve()
        answer(self, self.shop.files.get(name, b""))

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def tag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def serve(*, ranges: bool = True, etag: bool = True, length: bool = True, stop: int | None = None) -> Answer:
    """Send the file or the requested range; close the connection after ``stop`` bytes."""

    def answer(handler: Handler, content: bytes) -> None:
        if not content:
            handler.send_error(404)
            return
        headers = {"ETag": tag(content)} if etag else {}
        asked, same = handler.headers.get("Range"), handler.headers.get("If-Range", tag(content)) == tag(content)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if ranges and asked and same else 0
        if start >= len(content):
            handler.head(416, 0, Content_Range=f"bytes */{len(content)}")
            return
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        rest = content[start:]
        handler.head(206 if start else 200, len(rest) if length else None, **headers)
        handler.wfile.write(rest[:stop])

    return answer


def stall(after: int) -> Answer:
    def answer(handler: Handler, content: bytes) -> None:
        handler.head(200, len(content), ETag=tag(content))
        handler.wfile.write(content[:after])
        handler.wfile.flush()
        handler.shop.closing.wait(10)

    return answer


def reset(after: int) -> Answer:
    def answer(handler: Handler, content: bytes) -> None:
        handler.head(200, len(content), ETag=tag(content))
        handler.wfile.write(content[:after])
        handler.wfile.flush()
        time.sleep(0.05)  # what was sent would be lost with the connection
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()

    return answer


def promise(length: int) -> Answer:
    """Send the whole file with a wrong length."""

    def answer(handler: Handler, content: bytes) -> None:
        handler.head(200, length, ETag=tag(content))
        handler.wfile.write(content)

    return answer


def fail(status: int, **headers: str) -> Answer:
    return lambda handler, content: handler.head(status, 0, **headers)


def page(handler: Handler, content: bytes) -> None:
    """Send a web page instead of the file."""
    text = b"<!DOCTYPE html><title>We have moved</title>"
    handler.head(200, len(text))
    handler.wfile.write(text)


@dataclass
class Shop:
    """A web server on this machine."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    """Answers to the next requests for each file, in order; later requests get the file."""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    serve = staticmethod(serve)
    stall = staticmethod(stall)
    reset = staticmethod(reset)
    promise = staticmethod(promise)
    fail = staticmethod(fail)
    page = staticmethod(page)

    def ranges(self) -> list[str | None]:
        """Return the byte range of each request for a file."""
        return [headers.get("Range") for _, headers in self.requests]


@pytest.fixture
def shop() -> Iterator[Shop]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    server.handle_error = lambda *args: None  # the client went away
    shop = Shop(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = type("Of", (Handler,), {"shop": shop})
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02))
    thread.start()
    yield shop
    shop.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()
