from __future__ import annotations

import errno
import io
import json
import re
import shutil
import socket
from collections import namedtuple
from pathlib import Path
from typing import Any, NoReturn
from urllib.request import Request

import pytest

from czslkit.data.download import resumable_http
from czslkit.data.download.resumable_http import HttpClient, file_size, partial_path
from czslkit.data.sources import Refused
from czslkit.errors import DataError

CONTENT = bytes(range(256)) * 1000
CLIENT = HttpClient(timeout=0.3, attempts=3, pause=0.001, progress=False)
Room = namedtuple("Room", "total used free")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "pets.zip"


@pytest.fixture
def url(shop: Any) -> str:
    shop.files["pets.zip"] = CONTENT
    return f"{shop.url}/pets.zip"


@pytest.fixture
def partial(target: Path, url: str, shop: Any) -> Path:
    """A partial file of 1,000 bytes, as an interrupted process leaves it."""
    shop.answers["pets.zip"] = [shop.serve(stop=1000), shop.fail(404)]
    with pytest.raises(Refused, match="HTTP 404 Not Found"):
        CLIENT.fetch(url, target)
    assert partial_path(target).read_bytes() == CONTENT[:1000]
    shop.requests.clear()
    return partial_path(target)


def complete(target: Path) -> bool:
    """Return whether the file exists and no other file does."""
    return target.read_bytes() == CONTENT and list(target.parent.iterdir()) == [target]


def test_a_file_is_fetched_by_one_request_with_a_user_agent(target: Path, url: str, shop: Any) -> None:
    CLIENT.fetch(url, target)
    assert complete(target)
    ((_, headers),) = shop.requests
    assert headers["User-Agent"].startswith("czslkit/")


@pytest.mark.parametrize("fault", ["stall", "reset"])
def test_a_broken_connection_is_resumed(target: Path, url: str, shop: Any, fault: str) -> None:
    shop.answers["pets.zip"] = [getattr(shop, fault)(1000), shop.serve(stop=5000)]
    CLIENT.fetch(url, target)
    assert complete(target)
    assert shop.ranges() == [None, "bytes=1000-", "bytes=6000-"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (("stall", 0), "the server sent nothing for 0.3 seconds"),
        (("reset", 0), "Connection reset by peer"),
        (("fail", 500), "HTTP 500 Internal Server Error"),
        (("fail", 429), "HTTP 429 Too Many Requests"),
    ],
)
def test_attempts_without_new_bytes_end_in_an_error(
    target: Path, url: str, shop: Any, fault: tuple[str, int], reason: str
) -> None:
    shop.answers["pets.zip"] = [getattr(shop, fault[0])(fault[1]) for _ in range(5)]
    with pytest.raises(Refused, match=re.escape(f"{reason} (3 attempts brought no new bytes; 0.0 kB are kept)")):
        CLIENT.fetch(url, target)
    assert len(shop.requests) == 3
    assert not target.exists()


def test_a_temporary_failure_is_retried(target: Path, url: str, shop: Any) -> None:
    shop.answers["pets.zip"] = [shop.fail(503), shop.fail(500)]
    CLIENT.fetch(url, target)
    assert complete(target)


def test_attempts_with_new_bytes_do_not_count(target: Path, url: str, shop: Any) -> None:
    shop.answers["pets.zip"] = [shop.serve(stop=1000) for _ in range(20)]
    CLIENT.fetch(url, target)
    assert complete(target)


def test_a_missing_file_is_requested_once(target: Path, url: str, shop: Any) -> None:
    with pytest.raises(Refused, match="HTTP 404 Not Found"):
        CLIENT.fetch(f"{url}.gz", target)
    assert len(shop.requests) == 1


def test_a_refused_connection_is_an_error(target: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{other.getsockname()[1]}/pets.zip"
        with pytest.raises(Refused, match="Connection refused"):
            CLIENT.fetch(url, target)


def test_a_partial_file_is_resumed(target: Path, url: str, shop: Any, partial: Path) -> None:
    CLIENT.fetch(url, target)
    assert complete(target)
    assert shop.ranges() == ["bytes=1000-"]


@pytest.mark.parametrize("answer", [{"ranges": False}, {"ranges": False, "etag": False}], ids=["ranges", "etags"])
def test_if_the_server_ignores_ranges_the_download_starts_again(
    target: Path, url: str, shop: Any, partial: Path, answer: dict[str, bool]
) -> None:
    shop.answers["pets.zip"] = [shop.serve(**answer)]
    CLIENT.fetch(url, target)
    assert complete(target)


def test_without_etag_and_date_the_file_counts_as_unchanged(target: Path, url: str, shop: Any) -> None:
    shop.answers["pets.zip"] = [shop.serve(etag=False, stop=1000), shop.serve(etag=False)]
    CLIENT.fetch(url, target)
    assert complete(target)
    assert shop.ranges() == [None, "bytes=1000-"]


def test_if_the_server_refuses_ranges_the_download_starts_again(
    target: Path, url: str, shop: Any, partial: Path
) -> None:
    shop.answers["pets.zip"] = [shop.fail(416)]
    CLIENT.fetch(url, target)
    assert complete(target)
    assert shop.ranges() == ["bytes=1000-", None]


def test_restarts_without_new_bytes_end_in_an_error(target: Path, url: str, shop: Any) -> None:
    shop.answers["pets.zip"] = [shop.serve(ranges=False, stop=1000) for _ in range(5)]
    with pytest.raises(
        Refused,
        match=r"the connection ended after 1,000 of 256,000 bytes \(3 attempts brought no new bytes; 1.0 kB are kept\)",
    ):
        CLIENT.fetch(url, target)
    assert len(shop.requests) == 4


def test_a_file_that_changed_on_the_server_is_downloaded_again(
    target: Path, url: str, shop: Any, partial: Path
) -> None:
    shop.files["pets.zip"] = CONTENT[::-1]
    CLIENT.fetch(url, target)
    assert target.read_bytes() == CONTENT[::-1]


def test_a_change_is_noticed_even_if_the_server_ignores_conditions(
    target: Path, url: str, shop: Any, partial: Path
) -> None:
    def unconditional(handler: Any, content: bytes) -> None:
        del handler.headers["If-Range"]
        shop.serve()(handler, content)

    shop.files["pets.zip"], shop.answers["pets.zip"] = CONTENT[::-1], [unconditional]
    CLIENT.fetch(url, target)
    assert target.read_bytes() == CONTENT[::-1]
    assert shop.ranges() == ["bytes=1000-", None]


def test_an_answer_from_another_byte_is_not_appended(target: Path, url: str, shop: Any, partial: Path) -> None:
    def elsewhere(handler: Any, content: bytes) -> None:
        handler.headers.replace_header("Range", "bytes=2000-")
        shop.serve()(handler, content)

    shop.answers["pets.zip"] = [elsewhere]
    CLIENT.fetch(url, target)
    assert complete(target)


def test_a_partial_file_of_another_source_is_not_resumed(target: Path, url: str, shop: Any, partial: Path) -> None:
    shop.files["other.zip"] = CONTENT
    CLIENT.fetch(f"{shop.url}/other.zip", target)
    assert complete(target)
    assert shop.ranges() == [None]


def test_a_failed_source_keeps_the_partial_file_of_another(target: Path, url: str, shop: Any, partial: Path) -> None:
    with pytest.raises(Refused, match="HTTP 404"):
        CLIENT.fetch(f"{shop.url}/other.zip", target)
    CLIENT.fetch(url, target)
    assert shop.ranges() == [None, "bytes=1000-"]


def test_a_partial_file_without_a_valid_record_is_downloaded_again(
    target: Path, url: str, shop: Any, partial: Path
) -> None:
    partial.with_name("pets.zip.partial.json").write_text('{"url": 1}')
    CLIENT.fetch(url, target)
    assert shop.ranges() == [None]
    assert complete(target)


def test_a_complete_partial_file_needs_no_request(target: Path, url: str, shop: Any, partial: Path) -> None:
    partial.write_bytes(CONTENT)
    CLIENT.fetch(url, target)
    assert complete(target)
    assert shop.requests == []


def test_fewer_bytes_than_the_declared_length_are_an_error(target: Path, url: str, shop: Any) -> None:
    shop.answers["pets.zip"] = [shop.promise(len(CONTENT) + 5) for _ in range(5)]
    with pytest.raises(Refused, match="the connection ended after 256,000 of 256,005 bytes"):
        CLIENT.fetch(url, target)
    assert not target.exists()


def test_bytes_beyond_the_declared_length_are_not_read(target: Path, url: str, shop: Any) -> None:
    shop.answers["pets.zip"] = [shop.promise(len(CONTENT) - 5)]
    CLIENT.fetch(url, target)
    assert target.read_bytes() == CONTENT[:-5]


def test_a_file_of_unknown_length_ends_with_the_connection(target: Path, url: str, shop: Any) -> None:
    shop.answers["pets.zip"] = [shop.serve(length=False)]
    CLIENT.fetch(url, target)
    assert complete(target)


def test_redirects_are_followed(target: Path, url: str, shop: Any) -> None:
    shop.answers["old.zip"] = [shop.fail(302, Location=url)]
    CLIENT.fetch(f"{shop.url}/old.zip", target)
    assert complete(target)


def test_redirects_in_a_circle_are_refused(target: Path, url: str, shop: Any) -> None:
    shop.answers["pets.zip"] = [shop.fail(301, Location=url) for _ in range(20)]
    with pytest.raises(Refused, match="HTTP 301"):
        CLIENT.fetch(url, target)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/passwd", "HTTP 302 .*Redirection to url 'file:///etc/passwd' is not allowed"),
        ("ftp://127.0.0.1/pets.zip", "the server redirects from http to ftp://127.0.0.1/pets.zip"),
    ],
)
def test_redirects_to_anything_but_the_web_are_refused(
    target: Path, url: str, shop: Any, location: str, reason: str
) -> None:
    shop.answers["pets.zip"] = [shop.fail(302, Location=location)]
    with pytest.raises(Refused, match=reason):
        CLIENT.fetch(url, target)


def test_redirects_from_an_encrypted_connection_to_a_plain_one_are_refused() -> None:
    handler, request = resumable_http._SafeRedirects(), Request("https://a.org/pets.zip")
    with pytest.raises(Refused, match=r"the server redirects from https to http://a\.org/pets\.zip"):
        handler.redirect_request(request, io.BytesIO(), 302, "Found", {}, "http://a.org/pets.zip")
    new = handler.redirect_request(request, io.BytesIO(), 302, "Found", {}, "https://b.org/pets.zip")
    assert new.full_url == "https://b.org/pets.zip"


def test_the_disk_needs_space_for_the_archive_and_its_content(
    target: Path, url: str, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Room(0, 0, 511_999))
    with pytest.raises(DataError, match=r"has 512 kB free, but pets.zip needs about 512 kB until it is unpacked"):
        CLIENT.fetch(url, target)
    assert not partial_path(target).exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Room(0, 0, 512_000))
    CLIENT.fetch(url, target)


def test_a_full_disk_keeps_the_partial_file(target: Path, url: str, shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: HttpClient, response: Any, out: Any, *sizes: int) -> NoReturn:
        out.write(response.read(1000))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(HttpClient, "_receive", full)
        with pytest.raises(OSError, match="No space left"):
            CLIENT.fetch(url, target)
    assert partial_path(target).read_bytes() == CONTENT[:1000]
    CLIENT.fetch(url, target)
    assert complete(target)
    assert shop.ranges() == [None, "bytes=1000-"]


def test_the_record_lies_next_to_the_partial_file(partial: Path, url: str) -> None:
    note = json.loads(partial.with_name("pets.zip.partial.json").read_text())
    assert (note["url"], note["total"]) == (url, len(CONTENT))


def test_a_file_of_another_size_is_refused_before_its_bytes_arrive(target: Path, url: str) -> None:
    with pytest.raises(Refused, match="the file on the server has 256,000 bytes, expected 1,000"):
        CLIENT.fetch(url, target, 1000)
    assert not target.exists() and file_size(partial_path(target)) == 0


def test_an_answer_without_a_length_does_not_fill_the_disk(
    target: Path, url: str, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.answers["pets.zip"] = [shop.serve(length=False)]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Room(0, 0, 300_000))
    with pytest.raises(Refused, match="the server gives no length and sent more than 150 kB"):
        CLIENT.fetch(url, target)
    assert file_size(partial_path(target)) == 0
