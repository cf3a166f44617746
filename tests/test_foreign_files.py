"""Files of other kinds, sizes and depths than czslkit writes."""

from __future__ import annotations

import io
import os
import socket
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from czslkit.errors import did_you_mean, first_ten, shortened
from czslkit.foreign_files import (
    check_array_size,
    check_members,
    check_regular,
    parse_json,
    read_json,
    read_npy_header,
    read_regular,
    text_lines,
)
from czslkit.yaml_files import parse_yaml, read_yaml


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "it is a pipe, expected a regular file"),
    "folder": (Path.mkdir, "it is a folder, expected a regular file"),
    "socket": (_socket, "it is a socket, expected a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device, expected a regular file"),
    "circle": (lambda path: path.symlink_to(path.name), "[Tt]oo many levels of symbolic links"),
    "nothing": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "large": (lambda path: path.write_bytes(bytes(1001)), r"it has 1.0 kB, expected at most 1.0 kB"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_to_something_else_than_a_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    make, message = KINDS[kind]
    monkeypatch.chdir(tmp_path)  # a socket needs a short path
    make(Path("found"))
    for read in (check_regular, read_regular):
        with pytest.raises(OSError, match=message):  # a pipe would wait for ever
            read("found", 1000)


def test_a_link_to_a_file_is_read_as_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"words")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 5) == b"words"
    assert check_regular(tmp_path / "link") == 5


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="there is no /proc")
def test_a_file_that_has_more_than_its_size_is_not_read_on() -> None:
    with pytest.raises(OSError, match=r"it has more than 0\.1 kB, the largest size that is read"):
        read_regular("/proc/self/maps", 100)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 1_000_000, "it has lists or dicts in more than 40 others"),
        (b"[" * 41 + b'"\\ud800"' + b"]" * 41, "it has lists or dicts in more than 40 others"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "it has lists or dicts in more than 40 others"),
        (b"[1" + b"0" * 4000 + b"]", "it has a whole number of 4,001 digits, expected at most 40"),
        (b"[NaN]", "it has NaN, which is not a number of JSON"),
        (b"[-Infinity]", "it has -Infinity, which is not"),
        (b"[" + b"[]," * 3_000_000 + b"1]", "it has more than 3,000,000 values"),
        (b"\xff\xfe", "utf-8"),
    ],
)
def test_json_that_no_program_of_ours_writes_is_refused_at_once(content: bytes, message: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match=message):
        parse_json(content)
    assert time.process_time() - started < 1


def test_usual_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, -2, 3e5, null, true], "\\ud83d\\ude00": "\\udc00x"}')
    assert read_json(tmp_path / "a.json") == {"a": [1, -2, 3e5, None, True], "😀": "?x"}
    assert parse_json(b"[" * 40 + b"]" * 40) is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [1, 2]\nb: [*a, *a]", r"it has the alias \*a; write the value where it is used"),
        ("a: 1" + "0" * 5000, "it has a whole number of 5,001 digits, expected at most 40"),
        ("[" * 20_000, "its lists and mappings are in too many others"),
    ],
)
def test_yaml_that_could_cost_more_than_its_text_is_refused(tmp_path: Path, text: str, message: str) -> None:
    import yaml

    with pytest.raises((ValueError, yaml.YAMLError), match=message):
        parse_yaml(text)
    (tmp_path / "a.yaml").write_bytes(b"a: 1\n" * 40_000)
    with pytest.raises(OSError, match="it has 200 kB, expected at most 131 kB"):
        read_yaml(tmp_path / "a.yaml")


def test_a_text_of_too_many_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="it has 1,000,001 lines, expected at most 1,000,000"):
        text_lines(b"\n" * 1_000_001)


def test_messages_hold_little_of_a_long_value() -> None:
    assert len(shortened({"a" * 10**6: ["b" * 10**6] * 50})) < 4000
    assert len(first_ten(["a" * 10**6] * 20)) < 11_000
    assert did_you_mean("a" * 10**6, ["a" * 10**6]) == ""


def test_a_member_that_expands_too_far_is_refused_before_it_is_read() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.npy", bytes(20 << 20))
        archive.writestr("few.npy", bytes(1 << 20))
    with zipfile.ZipFile(out) as archive:
        with pytest.raises(ValueError, match=r"its member zeros\.npy expands from 20 kB to 21 MB, more than 100 times"):
            check_members(archive, ["zeros.npy"])
        with pytest.raises(ValueError, match=r"it has 0 members more\.npy, expected 1"):
            check_members(archive, ["few.npy", "more.npy"])
    content = out.getvalue().replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01")
    with zipfile.ZipFile(io.BytesIO(content)) as archive, pytest.raises(ValueError, match=r"few\.npy is encrypted"):
        check_members(archive, ["few.npy"])


def test_a_header_that_claims_another_size_is_refused_before_memory_is_taken() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)})
    with zipfile.ZipFile(out) as archive, archive.open("a.npy") as member:
        shape, _, dtype = read_npy_header(member)
        with pytest.raises(ValueError, match=r"its member a\.npy has 0 bytes of values, expected float64 \[1125899"):
            check_array_size(archive, member, shape, dtype)
