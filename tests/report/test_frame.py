"""Results as a pandas frame, compared with the result files."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import czslkit
from czslkit.errors import CzslkitError
from czslkit.metrics import bootstrap
from czslkit.metrics.outcomes import Outcomes
from czslkit.report.frame import results_frame
from czslkit.report.table import Table

Make = Callable[..., dict[str, Any]]
RUNS = Path(__file__).parent / "recorded" / "runs"
IDENTITY = ["method", "label", "dataset", "world", "seed", "status"]
DIVERGED = {"type": "TrainingError", "message": "loss is nan\nat step 3"}


def trained(made: dict[str, Any], best_epoch: int | None, *epochs: dict[str, float]) -> dict[str, Any]:
    return made | {"training": {"best_epoch": best_epoch, "history": list(epochs)}}


def test_every_value_is_the_one_in_its_file() -> None:
    frame = czslkit.results(RUNS)
    assert len(frame) == 4
    for _, row in frame.iterrows():
        (path,) = RUNS.glob(f"{row['dataset']}/{row['method']}/seed{row['seed']}-*/{row['world']}.json")
        result = json.loads(path.read_text())
        assert (row["label"], row["status"]) == (row["method"], "done")
        assert {metric: row[metric] for metric in result["metrics"]} == result["metrics"]
        assert {name: row[name] for name in result["timing"]} == result["timing"]
        assert {name: row[name] for name in result["versions"]} == result["versions"]
        best = result["training"]["best_epoch"]
        assert (row["best_epoch"], row["val_auc"]) == (best, result["training"]["history"][best - 1]["val_auc"])
        assert row["train.epochs"] == result["config"]["train"]["epochs"]
        assert pd.isna(row["error"]) and pd.isna(row["stale"])


def test_intervals_hold_the_middle_of_the_resampled_metrics() -> None:
    frame = czslkit.results(RUNS)
    for _, row in frame.iterrows():
        (path,) = RUNS.glob(f"{row['dataset']}/{row['method']}/*/{row['world']}.images.npz")
        values = bootstrap.resampled_metrics(Outcomes.from_bytes(path.read_bytes()), "original")
        for metric, drawn in values.items():
            found = row[[f"{metric}_low", f"{metric}_high"]].tolist()
            assert found == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist(), rel=1e-12)
            assert found[0] < row[metric] < found[1]
    assert not {"n_seen_low", "auc_exact_low"} & set(frame.columns)


def test_columns_are_in_the_order_of_the_documentation(result: Make) -> None:
    made = trained(result(config={"options": {"depth": 1}}, config_id="a"), 1, {"loss": 2.0, "val_auc": 0.5})
    made["timing"] = {"train_s": 1.0, "eval_s": 2.0}
    made["versions"] = {"device": "cpu", "czslkit": "1", "timm": "3"}
    frame = results_frame([made, result(config={"options": {"depth": 2}}, config_id="b")])
    metrics = ["best_seen", "best_unseen", "best_hm", "auc"]
    versions = ["czslkit", "torch", "python", "device", "timm"]
    rest = ["val_auc", "best_epoch", "train_s", "eval_s", *versions, "transductive", "error", "stale"]
    assert list(frame.columns) == [*IDENTITY, "depth", *metrics, *rest]
    assert list(frame["label"]) == ["csp depth=1", "csp depth=2"]


def test_settings_that_differ_are_columns_of_plain_values(result: Make) -> None:
    configs: list[dict[str, Any]] = [
        {"options": {"layers": [1, 2], "backbone": "demo"}, "train": {"lr": 0.1, "augment": True}},
        {"options": {"layers": [3], "backbone": "demo"}, "train": {"lr": 1, "augment": False}},
        {"options": {"backbone": "demo"}, "train": {"lr": 0.1, "augment": None}},
    ]
    frame = results_frame([result(config=config, config_id=str(n)) for n, config in enumerate(configs)])
    assert list(frame.columns)[6:10] == ["layers", "train.lr", "train.augment", "best_seen"]
    assert frame["layers"].tolist()[:2] == [[1, 2], [3]]
    assert math.isnan(frame["layers"][2])
    assert frame["train.lr"].tolist() == [0.1, 1, 0.1]
    assert list(map(type, frame["train.lr"])) == [float, int, float]
    assert all(value is expected for value, expected in zip(frame["train.augment"], (True, False, None), strict=True))


def test_settings_of_one_method_alone_differ_and_equal_settings_do_not(result: Make) -> None:
    few, many = ({"options": {"depth": depth} if depth else {}, "train": {"lr": 0.1}} for depth in (None, 4))
    frame = results_frame([result("csp", config=few), result("msci", config=many)])
    assert list(frame.columns)[6:8] == ["depth", "best_seen"]
    assert frame["depth"].isna().tolist() == [True, False]


def test_an_option_named_as_another_column_keeps_its_section(result: Make) -> None:
    configs = [{"options": {"seed": n, "auc": n}} for n in (7, 8)]
    frame = results_frame([result(config=config, config_id=str(n)) for n, config in enumerate(configs)])
    assert frame["seed"].tolist() == [0, 0]
    assert frame["options.seed"].tolist() == frame["options.auc"].tolist() == [7, 8]


def test_a_failed_cell_has_an_error_and_no_numbers(result: Make, failed: Make) -> None:
    broken = failed(DIVERGED, method="msci", seed=2) | {"training": None, "timing": None, "metrics": {"auc": 0.9}}
    done, cell = results_frame([result(), broken]).to_dict("records")
    assert (cell["method"], cell["seed"], cell["status"]) == ("msci", 2, "failed")
    assert cell["error"] == "TrainingError: loss is nan\nat step 3"
    assert all(pd.isna(cell[name]) for name in ("auc", "best_seen", "best_epoch", "train_s"))
    assert pd.isna(done["error"])


def test_a_refused_cell_that_holds_nothing_else_is_a_row(result: Make) -> None:
    refused = {"cell": result("msci")["cell"], "status": "failed", "error": DIVERGED}
    frame = results_frame([result(config={"train": {"lr": 0.1}}), refused])
    assert frame["status"].tolist() == ["done", "failed"]
    assert list(frame.columns)[6] == "best_seen"


def test_rows_keep_their_order_and_seeds_are_rows(result: Make) -> None:
    results = [result(method, seed=seed, auc=0.1 * seed) for method in ("msci", "csp") for seed in (2, 0, 1)]
    frame = results_frame(results)
    assert list(zip(frame["method"], frame["seed"], strict=True)) == [
        (method, seed) for method in ("msci", "csp") for seed in (2, 0, 1)
    ]
    assert frame.index.tolist() == list(range(6))
    means = frame.groupby("label", sort=False)["auc"].mean()
    assert means.to_dict() == {"msci": pytest.approx(0.1), "csp": pytest.approx(0.1)}
    table = Table(results)
    assert table.arrangement.mean(("csp", "demo", "closed"), "auc") == pytest.approx(means["csp"])


def test_validation_numbers_are_those_of_the_epoch_that_was_kept(result: Make) -> None:
    epochs: list[dict[str, float]] = [{"loss": 3.0, "val_auc": n / 10, "val_loss": 1 / n} for n in (1, 2, 3)]
    frame = results_frame(
        [
            trained(result("csp"), 2, *epochs),
            trained(result("last"), 3, *({"loss": 1.0} for _ in range(3))),
            trained(result("zero-shot"), None),
            result("old"),
        ]
    )
    assert frame["val_auc"].fillna(-1).tolist() == [0.2, -1, -1, -1]
    assert frame["val_loss"].fillna(-1).tolist() == [0.5, -1, -1, -1]
    assert frame["best_epoch"].fillna(-1).tolist() == [2, 3, -1, -1]
    assert "loss" not in frame.columns


def test_a_stale_result_has_its_reason(result: Make) -> None:
    frame = results_frame([result() | {"stale": "the code changed"}, result("msci")])
    assert frame["stale"][0] == "the code changed"
    assert pd.isna(frame["stale"][1])


def test_types_do_not_depend_on_the_results(result: Make, failed: Make) -> None:
    done = trained(result(), 1, {"val_auc": 0.5})
    for results in ([], [done], [failed(DIVERGED)], [done, failed(DIVERGED, seed=1)]):
        types = results_frame(results).dtypes
        texts = ["method", "label", "dataset", "world", "status", "czslkit", "torch", "device", "error", "stale"]
        assert {str(types[name]) for name in texts} == {"string"}
        assert {str(types[name]) for name in ("best_seen", "auc", "train_s", "eval_s")} == {"float64"}
        assert (str(types["seed"]), str(types["best_epoch"])) == ("int64", "Int64")


def test_a_file_of_numbers_per_image_that_cannot_be_used_leaves_no_interval(result: Make, attached: Any) -> None:
    def some_are_torn(made: dict[str, Any], name: str) -> bytes | None:
        if made["cell"]["method"] == "gone":
            raise CzslkitError("closed.images.npz cannot be read")
        return b"torn" if made["cell"]["method"] == "torn" else attached(made, name)

    frame = results_frame([result(method) for method in ("best", "torn", "gone")], some_are_torn)
    assert frame["auc_low"].isna().tolist() == frame["auc_high"].isna().tolist() == [False, True, True]
    assert "auc_low" not in results_frame([result("torn")], some_are_torn).columns


def test_a_folder_that_is_not_there_or_holds_no_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(CzslkitError, match=f"no folder {tmp_path}/nowhere; expected the folder of results that"):
        czslkit.results(tmp_path / "nowhere")
    with pytest.raises(CzslkitError, match=f"no results in {tmp_path}; expected DATASET/METHOD/seedN-ID/WORLD.json"):
        czslkit.results(str(tmp_path))


def test_a_file_that_is_not_a_result_is_left_out_with_a_warning(tmp_path: Path) -> None:
    shutil.copytree(RUNS, tmp_path / "runs")
    path = next(tmp_path.glob("runs/demo/msci/*/open.json"))
    path.write_text("{}")
    with pytest.warns(UserWarning, match=f"left out: {path}: is not a result of czslkit") as warned:
        frame = czslkit.results(tmp_path / "runs")
    assert len(frame) == 3
    assert warned[0].filename == __file__


def test_the_function_is_public_and_loads_pandas_when_it_is_called() -> None:
    program = (
        "import sys, czslkit; czslkit.results; assert not {'numpy', 'pandas', 'torch'} & set(sys.modules);"
        f"print(czslkit.results({str(RUNS)!r})['auc'].notna().sum()); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert done.stdout == "4\n", done.stderr


def test_results_that_adapted_to_the_test_images_are_marked(result: Make) -> None:
    made = result("drift")
    made["protocol"] = {**made["protocol"], "transductive": {"images": "one by one", "stream_seed": 0}}
    frame = results_frame([made, result("csp")])
    assert frame["transductive"].dtype == bool
    assert frame["transductive"].tolist() == [True, False]
    assert frame["label"].tolist() == ["drift (transductive)", "csp"]
