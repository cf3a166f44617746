"""Splits without images of seen, or of unseen, pairs: what selects the epoch, and what a table prints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import czslkit
from czslkit.data.writing import write_dataset
from czslkit.report.table import Table
from czslkit.result_store import Store
from czslkit.training import loop

Pairs = Iterable[tuple[str, str]]
SEEN, UNSEEN = [("red", "box"), ("blue", "cup")], [("red", "cup")]


@pytest.fixture
def one_sided(tmp_path: Path, clip_file: Path) -> Callable[..., Any]:
    """Train CSP for three epochs on data with these pairs in validation and test; its log is in ``.lines``."""

    def go(val: Pairs, test: Pairs, **settings: Any) -> Any:
        pairs = {"train": SEEN, "val": list(val), "test": list(test)}
        rng = np.random.default_rng(0)
        images = (
            ({"image": f"{split}{n}{attr}{obj}.png", "attr": attr, "obj": obj, "set": split}, picture)
            for split in pairs
            for attr, obj in pairs[split]
            for n in range(3)
            for picture in [Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))]
        )
        write_dataset(tmp_path / "data" / "mine", pairs, images)
        go.lines = []
        where = {"data": tmp_path / "data", "runs": tmp_path / "runs", "cache": "off", "progress": False}
        quick = {"backbone": str(clip_file), "train.epochs": 3, "train.batch_size": 4}
        methods, worlds = settings.pop("methods", "csp"), settings.pop("worlds", "closed")
        chosen = {"settings": quick | settings, "log": go.lines.append}
        return czslkit.bench(methods, "mine", worlds, **where, **chosen)

    return go


@pytest.mark.parametrize(("val", "kind"), [(SEEN, "an unseen"), (UNSEEN, "a seen")])
def test_the_accuracy_selects_the_epoch_where_the_auc_is_undefined(one_sided: Any, val: Pairs, kind: str) -> None:
    found = one_sided(val, SEEN + UNSEEN)
    (result,) = found.results
    history = result["training"]["history"]
    accuracies = [row["val_acc"] for row in history]
    assert [row["val_auc"] for row in history] == [None] * 3
    assert result["training"]["best_epoch"] == 1 + accuracies.index(max(accuracies))
    reason = f"no val image shows {kind} pair"
    (told,) = [line for line in one_sided.lines if reason in line]
    assert told.endswith("Set train.select to loss or last for another criterion")
    assert sum("validation accuracy" in line and ": epoch " in line for line in one_sided.lines) == 3
    selected_by = f"validation accuracy, closed world, since the AUC is undefined: {reason}"
    assert result["protocol"]["selected_by"] == selected_by
    assert f"csp on mine: epoch selected by {selected_by}\n" in found.table().to_text()


def test_the_loss_still_selects_the_epoch_where_the_auc_is_undefined(one_sided: Any) -> None:
    found = one_sided(SEEN, SEEN + UNSEEN, **{"train.select": "loss"})
    (result,) = found.results
    losses = [row["val_loss"] for row in result["training"]["history"]]
    assert result["training"]["best_epoch"] == 1 + losses.index(min(losses))
    assert result["protocol"]["selected_by"] == "validation loss"
    assert not any("undefined" in line for line in one_sided.lines)


@pytest.mark.parametrize(
    ("test", "defined", "kind"),
    [
        (SEEN, {}, "an unseen"),  # the original curve has no bias for a best seen accuracy
        (UNSEEN, {"U": "best_unseen"}, "a seen"),
    ],
)
def test_an_undefined_number_is_a_dash_with_its_reason(
    one_sided: Any, test: Pairs, defined: dict[str, str], kind: str
) -> None:
    found = one_sided(SEEN + UNSEEN, test, methods="clip,csp")
    for result in found.results:
        undefined = {name for name, value in result["metrics"].items() if value is None}
        assert undefined == {"best_seen", "best_unseen", "best_hm", "auc", "auc_original", "auc_exact"} - {
            *defined.values()
        }
    text = found.table().to_text()
    names = ", ".join(name for name in ("S", "U", "H", "AUC") if name not in defined)
    assert f"mine: {names} undefined (-): no image shows {kind} pair\n" in text
    row = next(line for line in text.splitlines() if line.startswith("csp")).split()
    assert [number == "-" for number in row[1:5]] == [name not in defined for name in ("S", "U", "H", "AUC")]
    frame = found.to_frame()
    assert frame["auc"].isna().all() and frame["attr_acc"].notna().all()
    assert f"no test image shows {kind} pair" in "".join(one_sided.lines)
    assert found.to_csv() and found.to_latex() and found.to_json() and found.table().to_html()


def test_an_accuracy_is_told_where_every_printed_number_is_undefined(one_sided: Any, tmp_path: Path) -> None:
    found = one_sided(SEEN + UNSEEN, SEEN, methods="clip,csp")
    assert sum("pair: all of S, U, H and AUC are undefined" in line for line in one_sided.lines) == 2
    text = found.table().to_text()
    for result in found.results:
        details = json.loads(found.store.attached(result, "details.json"))
        accuracy = details["accuracy_of_top_k_at_zero"]["1"]
        said = f"{result['cell']['method']} on mine (closed): every pair is seen: accuracy {100 * accuracy:.1f} %"
        assert f"{said}, of the pair at bias 0\n" in text
    again = {**found.results[1], "cell": {**found.results[1]["cell"], "seed": 1}}
    stored = found.store.folder(found.results[1]["cell"])
    shutil.copytree(stored, found.store.folder(again["cell"]))
    assert (
        ", of the pair at bias 0, mean of 2 seeds\n"
        in Table([*found.results, again], attached=found.store.attached).to_text()
    )


def test_no_accuracy_is_told_where_it_is_damaged_or_some_number_is_defined(one_sided: Any) -> None:
    found = one_sided(SEEN + UNSEEN, SEEN, methods="clip")
    found.store.path(found.results[0]["cell"]).with_suffix(".details.json").write_text("{}")
    assert "every pair is seen" not in found.table().to_text()
    partly = one_sided(SEEN + UNSEEN, SEEN, methods="clip", **{"eval.bins": "exact"})
    assert any("some of S, U, H and AUC are undefined" in line for line in one_sided.lines)
    assert "every pair is seen" not in partly.table().to_text()


def test_the_exact_curve_has_a_seen_accuracy_without_unseen_pairs(one_sided: Any) -> None:
    (result,) = one_sided(SEEN, SEEN, methods="clip", **{"eval.bins": "exact"}).results
    assert result["metrics"]["best_seen"] is not None
    assert result["metrics"]["best_unseen"] is result["metrics"]["auc"] is None


def test_stored_zeros_of_undefined_numbers_are_dashes_too(one_sided: Any, tmp_path: Path) -> None:
    (result,) = one_sided(SEEN + UNSEEN, SEEN, methods="clip").results
    zeros = {name: 0.0 if value is None else value for name, value in result["metrics"].items()}
    Store(tmp_path / "runs").put({**result, "metrics": zeros})
    assert czslkit.results(tmp_path / "runs")["auc"].isna().all()


def test_a_stored_training_that_an_undefined_auc_selected_is_made_again(
    one_sided: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("czslkit.data.splits.Splits.undefined_auc", lambda self, split: "")
        patch.setattr(loop, "best_epoch", lambda history, select: 1)
        patch.setattr("czslkit.evaluation.validation.math.nan", 0.0)
        (old,) = one_sided(SEEN, SEEN + UNSEEN).results
    assert [row["val_auc"] for row in old["training"]["history"]] == [0.0] * 3
    (new,) = one_sided(SEEN, SEEN + UNSEEN).results
    assert any("stale because criterion added" in line for line in one_sided.lines)
    assert "accuracy" in new["protocol"]["selected_by"]
    one_sided(SEEN, SEEN + UNSEEN)
    assert one_sided.lines[-1].endswith("done before")


def test_a_threshold_is_not_searched_by_an_undefined_auc(one_sided: Any) -> None:
    settings = {"eval.threshold": "search", "eval.feasibility": "clip"}
    (result,) = one_sided(SEEN, SEEN + UNSEEN, worlds="open", **settings).results
    assert "eval.threshold is 'search', but no val image shows an unseen pair" in result["error"]["message"]


def found_lines(one_sided: Any) -> list[str]:
    return list(one_sided.lines)
