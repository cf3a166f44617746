"""Made-up results, and tables of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from czslkit.metrics.outcomes import Outcomes
from czslkit.report.table import Table

Make = Callable[..., dict[str, Any]]


def _result(
    method: str = "csp",
    dataset: str = "demo",
    world: str = "closed",
    seed: int = 0,
    auc: float | None = 0.4,
    config: dict[str, Any] | None = None,
    config_id: str = "aaaaaaaa",
    bins: str = "original",
    data: dict[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "format": 1,
        "cell": {"method": method, "dataset": dataset, "world": world, "seed": seed, "config_id": config_id},
        "status": "done",
        "error": None,
        "config": config or {},
        "protocol": {"bins": bins},
        "depends": {"data": {"test_pairs.txt": "d1"} if data is None else data},
        "versions": {"czslkit": "0.1.0"},
        "metrics": {"best_seen": 0.7, "best_unseen": 0.6, "best_hm": 0.5, "auc": auc},
        "timing": {"train_s": 12.3},
    }


def _failed(error: dict[str, str], **cell: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"metrics": {}, "protocol": {}, "depends": {}}
    return _result(**cell) | empty | {"status": "failed", "error": error}


def _open_result(method: str = "csp", dataset: str = "demo", seed: int = 0, **protocol: Any) -> dict[str, Any]:
    threshold = {"threshold_from": "searched", "feasibility": "file.pt", "feasibility_sha256": "ab" * 32}
    threshold["infeasible"] = "exclude"
    defaults = {**(threshold if protocol.get("threshold") else {}), "bins": "original", "threshold": None}
    return {**_result(method, dataset, "open", seed), "protocol": {**defaults, **protocol}}


def _images(skill: float) -> bytes:
    """Return numbers per image of a method that is right on some of 200 images."""
    random = np.random.default_rng(0)
    flags = {
        name: random.random(200) < skill for name in ("reachable", "right_at_last_bias", "attr_right", "obj_right")
    }
    scores = {name: random.normal(size=200) for name in ("true_score", "runner_up_score")}
    scores["wins_tie"] = np.ones(200, dtype=bool)
    bias = np.where(np.arange(200) % 4 == 1, random.normal(size=200), np.nan).astype(np.float32)
    columns = {"target": np.arange(200, dtype=np.int32), "is_seen": np.arange(200) % 2 == 0, "proposed_bias": bias}
    return Outcomes(**columns, **flags, **scores).to_bytes()  # type: ignore[arg-type]


_IMAGES = {"best": _images(0.9), "tied": _images(0.9), "poor": _images(0.1)}


def _attached(result: Any, name: str) -> bytes | None:
    return _IMAGES.get(result["cell"]["method"]) if name == "images.npz" else None


@pytest.fixture
def result() -> Make:
    """Return a finished cell with S = 0.7, U = 0.6, H = 0.5 and the given AUC."""
    return _result


@pytest.fixture
def failed() -> Make:
    """Return a cell that failed with the given error."""
    return _failed


@pytest.fixture
def open_result() -> Make:
    """Return a finished cell of the open world with the given protocol."""
    return _open_result


@pytest.fixture
def attached() -> Callable[[Any, str], bytes | None]:
    """Return a function that gives the numbers per image of the methods best, tied and poor."""
    return _attached


@pytest.fixture
def compared_table() -> Callable[..., Table]:
    """A table of three methods with numbers per image: the best, one that is tied with it, and one that is worse."""

    def make(*more: Any, **options: Any) -> Table:
        aucs = {"best": 0.41, "tied": 0.40, "poor": 0.39}
        results = [*(_result(name, auc=auc) for name, auc in aucs.items()), *more]
        return Table(results, attached=_attached, **options)

    return make


@pytest.fixture
def printed_aucs() -> Callable[[Table], list[str]]:
    """Return the last number of each line of a table with one dataset and world, including marks."""

    def read(table: Table) -> list[str]:
        lines = table.to_text().split("\n\n")[0].splitlines()
        return [re.split(r"\s{2,}", line)[-1] for line in lines[2:]]

    return read
