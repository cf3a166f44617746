"""The numbers of a table as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from czslkit.report.table import Table

Make = Callable[..., dict[str, Any]]
MakeTable = Callable[..., Table]
DIVERGED = {"type": "TrainingError", "message": "loss is nan\nat step 3", "traceback": "Traceback ..."}


def test_csv_is_tidy_and_exact(result: Make, failed: Make) -> None:
    table = Table([result(auc=0.1, seed=0), result(auc=0.2, seed=1), failed(DIVERGED, world="open")])
    first, second = csv.DictReader(io.StringIO(table.to_csv()))
    assert (first["method"], first["dataset"], first["world"]) == ("csp", "demo", "closed")
    assert (first["done"], first["failed"], first["auc_n"]) == ("2", "0", "2")
    assert float(first["auc_mean"]) == statistics.fmean((0.1, 0.2))
    assert float(first["auc_std"]) == pytest.approx(0.5**0.5 / 10, rel=1e-15)
    assert (second["world"], second["done"], second["failed"]) == ("open", "0", "1")
    assert (second["auc_mean"], second["auc_std"], second["auc_n"]) == ("", "", "0")


def test_every_metric_reaches_the_csv(result: Make) -> None:
    measured = result()
    measured["metrics"]["attr_acc"] = 0.25
    (row,) = csv.DictReader(io.StringIO(Table([measured, result(seed=1)]).to_csv()))
    assert (row["attr_acc_mean"], row["attr_acc_n"]) == ("0.25", "1")


def test_no_text_of_a_result_is_a_formula_in_the_csv(result: Make) -> None:
    results = [
        result(config={"options": {"backbone": "=cmd|' /C calc'!A0", "shift": -1.5, "@name": "+1"}}, config_id="a"),
        result(config={"options": {"backbone": "-x", "shift": 2, "@name": "@x"}}, config_id="b"),
    ]
    lines = Table(results).to_csv().splitlines()
    assert lines[0].startswith("method,backbone,shift,'@name,dataset")
    first, second = csv.DictReader(io.StringIO("\n".join(lines)))
    assert (first["backbone"], first["shift"], first["'@name"]) == ("'=cmd|' /C calc'!A0", "-1.5", "+1")
    assert (second["backbone"], second["shift"], second["'@name"]) == ("'-x", "2", "'@x")


def test_json_holds_every_seed_and_every_error(result: Make, failed: Make) -> None:
    table = Table([result(auc=0.1, seed=0), result(auc=None, seed=1), failed(DIVERGED, seed=2)])
    content = json.loads(table.to_json())
    (row,) = content["rows"]
    assert (row["method"], row["dataset"], row["world"]) == ("csp", "demo", "closed")
    assert row["metrics"]["auc"] == {"mean": 0.1, "std": None, "n": 1}
    assert {seed: metrics["auc"] for seed, metrics in row["seeds"].items()} == {"0": 0.1, "1": None}
    assert row["failed"] == [2]
    assert [(error["cell"]["seed"], error["error"]["type"]) for error in content["failed"]] == [(2, "TrainingError")]


def test_csv_holds_the_intervals_where_there_are_any(result: Make, compared_table: MakeTable) -> None:
    best, tied, poor, old = csv.DictReader(io.StringIO(compared_table(result("old", auc=0.1)).to_csv()))
    low, high = compared_table().significance.intervals["tied", "demo", "closed"]["auc"]
    assert (float(tied["auc_low"]), float(tied["auc_high"]), tied["auc_tied"]) == (low, high, "True")
    assert (best["auc_tied"], poor["auc_tied"]) == ("", "False")
    assert (old["auc_low"], old["auc_high"], old["auc_tied"], old["auc_mean"]) == ("", "", "", "0.1")
    (plain,) = csv.DictReader(io.StringIO(Table([result()]).to_csv()))
    assert "auc_low" not in plain


def test_json_holds_the_intervals_and_the_distance_to_the_best(compared_table: MakeTable) -> None:
    table = compared_table()
    content = json.loads(table.to_json())
    best, tied, poor = content["rows"]
    assert content["bootstrap"] == {"resamples": 1000, "seed": 0, "level": 0.95}
    assert [best["metrics"]["auc"]["low"], best["metrics"]["auc"]["high"]] == list(
        table.significance.intervals["best", "demo", "closed"]["auc"]
    )
    assert "against_best" not in best
    gap = tied["against_best"]["auc"]
    assert gap["difference"] == pytest.approx(-0.01)
    assert gap | {"difference": 0} == {"best": "best", "difference": 0, "low": 0, "high": 0, "below": 0, "tied": True}
    assert poor["against_best"]["auc"]["high"] < 0
    assert poor["metrics"]["auc"]["tied"] is False


def test_csv_has_a_column_for_each_setting_that_differs(result: Make) -> None:
    configs: list[dict[str, Any]] = [
        {"options": {"layers": [1, 2]}, "train": {"lr": 0.1, "schedule": "step", "augment": True, "epochs": 3}},
        {"options": {}, "train": {"lr": 1e-05, "schedule": "cosine", "augment": None, "epochs": 3}},
    ]
    results = [
        result(method, world=world, seed=seed, config=config, config_id=method)
        for method, config in zip(("msci", "csp"), configs, strict=True)
        for world in ("closed", "open")
        for seed in (0, 1)
    ]
    rows = list(csv.DictReader(io.StringIO(Table(results).to_csv())))
    settings = ["layers", "train.lr", "train.schedule", "train.augment"]
    assert list(rows[0])[:8] == ["method", *settings, "dataset", "world", "done"]
    assert [[row[name] for name in settings] for row in rows] == [
        ["[1,2]", "0.1", "step", "true"],
        ["[1,2]", "0.1", "step", "true"],
        ["", "1e-05", "cosine", "null"],
        ["", "1e-05", "cosine", "null"],
    ]
    assert {row["done"] for row in rows} == {"2"}


def test_csv_of_results_with_the_same_settings_has_no_column_for_them(result: Make) -> None:
    (row,) = csv.DictReader(io.StringIO(Table([result(config={"train": {"lr": 0.1}})]).to_csv()))
    assert list(row)[:5] == ["method", "dataset", "world", "done", "failed"]
