"""Score matrices with the recorded output of the original evaluator, from ``recorded/``.

Each file holds a recipe for random scores, digests of what it must give, and every number that the evaluator of
ltpwy/MSCI (``test_base.py``, unmodified) printed for them.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RECORDED = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class RecordedSplit:
    scores: np.ndarray  # [N, K] float32
    attr: np.ndarray  # [N]
    obj: np.ndarray  # [N]
    candidates: np.ndarray  # [K] bool

    @property
    def images(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.scores, self.attr, self.obj


@dataclass(frozen=True)
class Case:
    record: dict[str, Any]
    pairs: np.ndarray  # [K, 2]
    seen: np.ndarray  # [K] bool
    feasibility: np.ndarray  # [K] float32, 0 in the closed world
    splits: dict[str, RecordedSplit]


@functools.cache
def rebuild(name: str) -> Case:
    record = json.loads((RECORDED / f"{name}.json").read_text())
    recipe = record["recipe"]
    random = np.random.RandomState(recipe["seed"])  # the order of the draws below is part of the recipe
    n_objs, n_all = recipe["n_obj"], recipe["n_attr"] * recipe["n_obj"]

    pool = random.permutation(n_all)[: recipe["n_pairs"]]
    sizes = [recipe["n_train"], recipe["n_val_unseen"], recipe["n_test_unseen"]]
    train, *unseen = np.split(pool, np.cumsum(sizes))[:3]
    again = [train[random.permutation(len(train))[: recipe[f"n_{split}_seen"]]] for split in ("val", "test")]
    shown = {split: np.concatenate(both) for split, *both in zip(("val", "test"), again, unseen, strict=True)}

    columns = np.arange(n_all) if recipe["open_world"] else np.sort(pool)
    pairs = np.stack(np.divmod(columns, n_objs), 1)
    seen = np.isin(columns, train)
    feasibility = np.zeros(len(columns))
    if recipe["open_world"]:
        share = random.random_sample((~seen).sum())
        real = np.isin(columns[~seen], np.concatenate(unseen))
        floor = recipe["feas_true_floor"]
        share[real] = floor + (1 - floor) * share[real]
        low, high = recipe["feas_range"]
        feasibility[~seen] = low + (high - low) * share

    splits = {}
    for split in recipe["phases"]:
        of_images = shown[split]
        if recipe.get("only"):
            of_images = of_images[np.isin(of_images, train) == (recipe["only"] == "seen")]
        n = recipe["n_images"][split]
        truth = of_images[random.randint(0, len(of_images), n)]
        scores = random.standard_normal((n, len(columns)))
        boosted = random.random_sample(n) < recipe["boost_p"]
        boost = random.random_sample(n) * recipe["boost_max"]
        attr, obj = np.divmod(truth, n_objs)
        scores += recipe["attr_bonus"] * (pairs[:, 0] == attr[:, None])
        scores += recipe["obj_bonus"] * (pairs[:, 1] == obj[:, None])
        scores += recipe["seen_bonus"] * seen
        target = np.searchsorted(columns, truth)
        scores[np.arange(n), target] += np.where(boosted, boost, 0)
        rows = np.flatnonzero(~np.isin(truth, train))
        if recipe.get("force") == "unseen_right":
            scores[rows, target[rows]] = scores[rows][:, ~seen].max(1) + 0.25
        elif recipe.get("force") == "unseen_wrong":
            scores[rows, target[rows]] = scores[rows].min(1) - 1
        scores = scores * recipe["scale"] + recipe["offset"]
        if recipe.get("round_decimals") is not None:
            scores = np.round(scores, recipe["round_decimals"])
        scores = scores.astype(np.float32)
        assert hashlib.sha256(scores.tobytes()).hexdigest() == record["scores_sha256"][split], f"{name}: other scores"
        closed = np.isin(columns, np.concatenate([train, shown[split]]))
        splits[split] = RecordedSplit(scores, attr, obj, closed | recipe["open_world"])
    return Case(record, pairs, seen, feasibility.astype(np.float32), splits)


@pytest.fixture
def recorded() -> Callable[[str], Case]:
    """Return the case of a name, with its random scores drawn again."""
    return rebuild
