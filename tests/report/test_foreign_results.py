"""A foreign or damaged file in a folder of results: it is left out by name, and the good rows are printed."""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from czslkit.cli import main
from czslkit.errors import CzslkitError
from czslkit.result_store import Store

RUNS = Path(__file__).parent / "recorded" / "runs"
BAD = Path("demo/msci/seed0-752ad09a")
RESULT = json.loads((RUNS / BAD / "closed.json").read_text())
IMAGES = dict(np.load(RUNS / BAD / "closed.images.npz"))
GOOD = "troika"  # a method of which the folder has results, too
FORMATS = ("text", "markdown", "csv", "latex", "json")
Write = Callable[[Path], object]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder of results without the result that is written by a test."""
    shutil.copytree(RUNS, tmp_path / "runs")
    (tmp_path / "runs" / BAD / "closed.json").unlink()
    return tmp_path / "runs"


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Leave the figures of reports out, which have tests of their own and take a second for each report."""
    if "with_figures" not in request.fixturenames:
        monkeypatch.setattr("czslkit.report.page_figures.page_figures", lambda table: {})


@pytest.fixture
def with_figures() -> None:
    """Draw the figures of reports in a test."""


def shown(runs: Path, command: str, capsys: pytest.CaptureFixture[str], kind: str = "text") -> str:
    """Print a table or write a report, check that the good rows are in it, and return standard error."""
    started = time.process_time()
    assert main([command, str(runs), "--mixed", *(["--format", kind] if command == "table" else [])]) == 0
    assert time.process_time() - started < 2
    out, err = capsys.readouterr()
    assert GOOD in (out if command == "table" else (runs / "report.html").read_text())
    assert len(err) < 10_000
    return err


def places(tree: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to each value in a tree; of a list, the first three values."""
    if place:
        yield place
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree[:3]) if isinstance(tree, list) else ():
        yield from places(value, (*place, key))


def changed(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return the result with another value at a place, or without the place for ``...``."""
    result = copy.deepcopy(RESULT)
    tree = result
    for key in place[:-1]:
        tree = tree[key]
    if value is ...:
        del tree[place[-1]]
    else:
        tree[place[-1]] = value
    return result


VALUES: tuple[Any, ...] = (
    *(..., None, True, False, 0, -1, 10**18, 10**30, 1.5, -1e308, 1e308, "", "x", "=1+1", "\x1b[31mred", "\ud800"),
    *("a" * 100_000, [], {}, [1], [[]], {"a": 1}, {"a": {"b": [1]}}, ["a"], {"": ""}, [None], {"x": None}, [{}]),
)


def test_no_change_of_a_result_ends_a_table_or_a_report(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)
    everywhere = list(places(RESULT))
    left_out = 0
    for number in range(100):
        place, value = draw.choice(everywhere), draw.choice(VALUES)
        (runs / BAD / "closed.json").write_text(json.dumps(changed(place, value)))
        left_out += "left out: " in shown(runs, "table", capsys, FORMATS[number % 5])
        if number % 4 == 0:
            shown(runs, "report", capsys)
    assert 20 < left_out < 90


def content(data: bytes | str) -> Write:
    return lambda file: file.write_bytes(data if isinstance(data, bytes) else data.encode())


def section(name: str, text: str) -> Write:
    """Write the result with the JSON text of a section."""
    return content(json.dumps({**RESULT, name: "@"}).replace('"@"', text))


def sparse(size: int) -> Write:
    def write(file: Path) -> None:
        with file.open("wb") as opened:
            opened.truncate(size)

    return write


DEEP = '{"a":' * 500 + "1" + "}" * 500
PAPER = {"S": 1, "U": 1, "H": 1, "AUC": 1, "source": "x"}
FAILED = {"type": "Error", "message": "m"}
CELL = RESULT["cell"]
HOSTILE: dict[str, tuple[Write, str]] = {
    "pipe": (os.mkfifo, "it is a pipe, expected a regular file"),
    "folder": (Path.mkdir, "it is a folder"),
    "device": (lambda file: file.symlink_to("/dev/zero"), "it is a device"),
    "circle": (lambda file: file.symlink_to(file.name), "Too many levels of symbolic links"),
    "dead link": (lambda file: file.symlink_to("nowhere"), "No such file"),
    "10 GB": (sparse(10 << 30), "it has 11 GB, expected at most 8.4 MB"),
    "zeros": (sparse(8 << 20), "Expecting value"),
    "nothing": (content(""), "Expecting value"),
    "null": (content("null"), "is not a result of czslkit"),
    "list": (content("[]"), "is not a result of czslkit"),
    "deep": (content("[" * 10**6), "it has lists or dicts in more than 40 others"),
    "surrogate key": (section("config", json.dumps({"options": {"\ud800": 1}})), "has a configuration with the id "),
    "dotted settings": (
        section("config", '{"options": {"a.b": 1, "a": {"b": 2}}}'),
        "has a configuration with the id ",
    ),
    "deep setting": (section("config", DEEP), "more than 40 others"),
    "deep dependency": (section("depends", DEEP), "more than 40 others"),
    "digits": (section("timing", '{"train_s": 1' + "0" * 4000 + "}"), "a whole number of 4,001 digits"),
    "more digits": (section("timing", '{"train_s": 1' + "0" * 400_000 + "}"), "a whole number of 400,001 digits"),
    "nan": (section("metrics", '{"auc": NaN}'), "it has NaN"),
    "infinite": (section("metrics", '{"auc": 1e999}'), "has metrics={'auc': inf}, expected numbers by name"),
    "huge": (section("metrics", '{"auc": 1e300}'), "has metrics={'auc': 1e+300}"),
    "latin-1": (content(b'{"format": 2, "x": "\xe9"}'), "'utf-8' codec can't decode"),
    "utf-16": (content(json.dumps(RESULT).encode("utf-16")), "'utf-8' codec can't decode"),
    "byte order mark": (content(b"\xef\xbb\xbf{}"), "Unexpected UTF-8 BOM"),
    "100 MB": (section("stale", f'"{"x" * 10**8}"'), "it has 100 MB, expected at most 8.4 MB"),
    "flag": (section("metrics", '{"auc": true}'), "has metrics={'auc': True}"),
    "names of columns": (section("metrics", '{"label": 0.5}'), "has metrics={'label': 0.5}"),
    "names of versions": (section("versions", '{"error": "x"}'), "has versions={'error': 'x'}, expected texts by name"),
    "many metrics": (
        section("metrics", json.dumps(dict.fromkeys(map("a{}".format, range(101)), 0))),
        "expected numbers by name",
    ),
    "many settings": (
        section("config", json.dumps({"options": dict.fromkeys(map("a{}".format, range(10**5)), 0)})),
        "expected sections with at most 1000 settings",
    ),
    "flat settings": (section("config", '{"label": 1}'), "has config={'label': 1}, expected sections"),
    "list of settings": (section("config", "[1]"), "has config=[1], expected a dict"),
    "history": (section("training", '{"best_epoch": 1, "history": [{"val_auc": "x"}]}'), "has training={"),
    "epoch": (section("training", '{"best_epoch": -5, "history": [{}]}'), "expected a whole number best_epoch"),
    "curve": (section("protocol", '{"bins": []}'), "has protocol.bins=[], expected a text"),
    "threshold": (section("protocol", '{"threshold": {}}'), "has protocol.threshold={}, expected a number"),
    "stream": (section("protocol", '{"transductive": [1]}'), "has protocol.transductive=[1], expected a dict"),
    "mask": (section("protocol", '{"masks_pairs": [1]}'), "has protocol.masks_pairs=[1], expected a text"),
    "no protocol": (section("protocol", "null"), "has protocol=None, expected a dict"),
    "published": (section("published", '{"S": 1}'), "has published lacks U, H, AUC, source"),
    "published key": (section("published", json.dumps({"x" * 10**6: 1})), "has published has no key xxx"),
    "spread": (section("published", json.dumps(PAPER | {"spread": [1]})), "has published.spread is [1]"),
    "published flag": (section("published", json.dumps(PAPER | {"AUC": True})), "has published: AUC is True"),
    "recipe": (section("recipe", '{"changed": "abc"}'), "has recipe.changed='abc', expected a list of texts"),
    "recipe name": (section("recipe", '{"name": {}}'), "has recipe.name={}, expected a text"),
    "left out": (section("left_out", '{"test": 1}'), "has left_out={'test': 1}, expected for each split"),
    "set aside": (section("set_aside", '{"images": 1}'), "has set_aside={'images': 1}, expected the counts images and"),
    "counts": (section("left_out", '{"test": {"images": "a", "of": 1}}'), "has left_out="),
    "files": (section("files", '{"images.npz": 1}'), "has files={'images.npz': 1}, expected digests by name"),
    "seed": (section("cell", json.dumps(CELL | {"seed": 10**30})), "has cell.seed=10000"),
    "seed flag": (section("cell", json.dumps(CELL | {"seed": False})), "has cell.seed=False"),
    "method": (section("cell", json.dumps(CELL | {"method": ["a"]})), "has cell.method=['a'], expected a text"),
    "outside": (section("cell", json.dumps(CELL | {"method": "../x"})), "'../x' cannot name a file of results"),
    "cell": (section("cell", "[1]"), "has cell=[1], expected a dict"),
    "status": (section("status", "[]"), "has status [], neither 'done' nor 'failed'"),
    "error": (section("error", '{"type": "E"}'), "is done, but its error has no type and message"),
    "traceback": (section("error", json.dumps(FAILED | {"traceback": 1})), "but its error has no type and message"),
    "format": (section("format", "[1]"), "is a result of format [1], this czslkit reads formats up to 3"),
    "format flag": (section("format", "true"), "is a result of format True"),
    "versions": (section("versions", '{"torch": [1]}'), "has versions={'torch': [1]}"),
    "digests": (section("depends", '{"training": {"data": {"a": [1]}}}'), "has depends={"),
    "code": (section("depends", '{"code": []}'), "has depends.code=[], expected a dict"),
    "stale": (section("stale", "[1]"), "has stale=[1], expected a text"),
    "training key": (section("training_key", "[1]"), "has training_key=[1], expected a text"),
    "timing": (section("timing", '{"train_s": "1"}'), "has timing={'train_s': '1'}"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_left_out_by_name_and_reason(
    runs: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    write, reason = HOSTILE[case]
    write(runs / BAD / "closed.json")
    for command in ("table", "report"):
        err = shown(runs, command, capsys)
        assert err.startswith(f"left out: {runs / BAD / 'closed.json'}: ")
        assert reason in err
        assert err.count("\n") == 1


ODD: dict[str, Write] = {
    "surrogate": section("recipe", json.dumps({"name": "\ud800"})),
    "long texts": section("recipe", json.dumps({"name": "x" * 7_000_000})),
    "long error": content(
        json.dumps({**RESULT, "status": "failed", "error": {"type": "DataError", "message": "m\n" * 10**6}})
    ),
    "a version called auc": section("versions", '{"auc": "x"}'),
    "formulas": section("published", json.dumps(PAPER | {"source": "=cmd|' /C calc'!A0"})),
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_result_is_shown_in_every_format(runs: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    ODD[case](runs / BAD / "closed.json")
    for kind in FORMATS:
        assert shown(runs, "table", capsys, kind) == ""
    assert shown(runs, "report", capsys) == ""


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def with_member(name: str, data: bytes) -> bytes:
    """Return the numbers per image with other bytes for one array."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, values in IMAGES.items():
            array = io.BytesIO()
            np.save(array, values)
            archive.writestr(f"{key}.npy", data if key == name else array.getvalue())
    return out.getvalue()


def header(kind: str, *shape: int) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": kind, "fortran_order": False, "shape": shape})
    return out.getvalue()


def mapped(change: Callable[[Any], Any]) -> bytes:
    return npz(**{key: change(values) if values.ndim else values for key, values in IMAGES.items()})


DETAILS: dict[str, Any] = {"format": 1, "biases": {"zero": 0.0}, "accuracy_of_top_k_at_zero": {"1": 0.5}}


def details(**parts: Any) -> bytes:
    return json.dumps(DETAILS | parts).encode()


ATTACHED: dict[str, tuple[str, bytes, str]] = {
    "expanding": ("images.npz", with_member("true", header("<f8", 2**25) + bytes(1 << 28)), "true.npy expands from"),
    "claiming": ("images.npz", with_member("true", header("<f8", 2**50)), "holds true of 1,125,899,906,842,624 images"),
    "short": (
        "images.npz",
        with_member("true", header("<f8", 100)),
        "true.npy has 0 bytes of values, expected float64",
    ),
    "objects": ("images.npz", with_member("true", header("|O", 3)), "holds true as object [3], expected one number"),
    "texts": ("images.npz", with_member("true", header("|S1000000000", 3)), "holds true as |S1000000000 [3]"),
    "long header": ("images.npz", with_member("true", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535), "images.npz: "),
    "other images": ("images.npz", mapped(lambda values: values[:-1]), "images, its result of"),
    "matrices": ("images.npz", mapped(lambda values: values[:, None]), "expected one number for each image"),
    "no archive": ("images.npz", b"PK\x03\x04" + bytes(100), "holds no numbers per image: File is not a zip file"),
    "deep": ("details.json", b"[" * 10**6, "it has lists or dicts in more than 40 others"),
    "no details": ("details.json", b"[]", "closed.details.json does not have format 1"),
    "biases": ("details.json", details(biases=[1]), "is not as czslkit writes it: AttributeError"),
    "bias": ("details.json", details(biases={"a": "x"}), 'ValueError: "could not convert string to float'),
    "rows": (
        "details.json",
        details(pairs={"columns": ["images"], "rows": [["a"]]}),
        "is not as czslkit writes it: Type",
    ),
    "columns": ("details.json", details(pairs={"columns": ["images"] * 21, "rows": []}), "pairs has 21 columns"),
    "large": ("details.json", b" " * (5 << 20), "details.json has 5.2 MB, expected at most 4 MB"),
    "no gzip": ("predictions.json.gz", b"{}", "predictions.json.gz: holds no predictions: Not a gzipped file"),
    "bomb": ("predictions.json.gz", gzip.compress(bytes(40 << 20)), "holds more than 34 MB, the largest size"),
    "no predictions": ("predictions.json.gz", gzip.compress(b"[]"), "predictions.json.gz: does not have format 1"),
}


@pytest.mark.parametrize("case", ATTACHED)
def test_a_hostile_file_beside_a_result_is_told_and_the_result_shown(
    runs: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    name, data, reason = ATTACHED[case]
    (runs / BAD / f"closed.{name}").write_bytes(data)
    files = {name: hashlib.sha256(data).hexdigest()[:16]}
    (runs / BAD / "closed.json").write_text(json.dumps({**RESULT, "files": files}))
    for kind in FORMATS:
        assert shown(runs, "table", capsys, kind) == ""
    assert shown(runs, "report", capsys) == ""
    assert reason in (runs / "report.html").read_text()


def test_figures_of_hostile_files_end_no_report(
    runs: Path, with_figures: None, capsys: pytest.CaptureFixture[str]
) -> None:
    content = details(
        attributes={"columns": ["attribute", "images", "accuracy_at_zero"], "rows": [["<script>$x^", "many", []]]}
    )
    files = {}
    for name, data in {"details.json": content, "curve.csv": b"curve,bias\n<b>,nan\n"}.items():
        (runs / BAD / f"closed.{name}").write_bytes(data)
        files[name] = hashlib.sha256(data).hexdigest()[:16]
    (runs / BAD / "closed.json").write_text(json.dumps({**RESULT, "files": files}))
    assert main(["report", str(runs), "--mixed"]) == 0
    page = (runs / "report.html").read_text()
    assert page.count("<svg") == 3 and GOOD in page


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda file: file.symlink_to("/dev/zero")])
def test_a_pipe_beside_a_result_is_not_waited_for(runs: Path, make: Write) -> None:
    (runs / BAD / "closed.images.npz").unlink()
    make(runs / BAD / "closed.images.npz")
    with pytest.raises(CzslkitError, match=r"images\.npz cannot be read: it is a (pipe|folder|device), expected a reg"):
        Store(runs).attached({**RESULT, "files": {"images.npz": "0" * 16}}, "images.npz")
