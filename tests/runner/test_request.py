"""A request gives the same jobs in another process."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import czslkit
from czslkit import registry
from czslkit.runner.request import Request

PLUGIN = """
import czslkit
from czslkit_plugins.clip import Clip


@czslkit.METHODS.register("handed-on")
class HandedOn(Clip):
    pass
"""


def cells(request: Request) -> list[dict[str, object]]:
    return [job.spec.cell("closed") for job in request.jobs(lambda line: None)]


def test_a_request_that_was_sent_has_the_same_jobs(tmp_path: Path) -> None:
    request = Request(
        "clip,csp", seeds=(0, 3), runs=tmp_path, settings={"csp.train.lr": czslkit.Grid([1e-3, 5e-3])}, device="cpu"
    )
    assert cells(pickle.loads(pickle.dumps(request))) == cells(request)
    assert len(cells(request)) == 2 * (1 + 2)


def test_all_stands_for_every_registered_method(tmp_path: Path) -> None:
    found = [cell["method"] for cell in cells(Request("all", runs=tmp_path, device="cpu"))]
    assert found == list(czslkit.METHODS)
    assert len(found) >= 17


def test_a_request_takes_code_that_is_not_installed_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own.py"
    file.write_text(PLUGIN, encoding="utf-8")
    before, others = registry._snapshot(), dict(registry._unpackaged)
    registry._unpackaged.clear()  # without code that other tests have loaded
    registry.load_unpackaged(str(file))
    try:
        sent = pickle.dumps(Request("handed-on", runs=tmp_path, device="cpu"))
        registry._undo_registrations(before, None)  # as in a new process
        registry._unpackaged.clear()
        assert cells(pickle.loads(sent))[0]["method"] == "handed-on"
    finally:
        registry._undo_registrations(before, None)
        registry._unpackaged = others
