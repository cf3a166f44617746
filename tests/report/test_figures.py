"""The numbers of a figure, read off its axes, are those of the table; and what is missing is named."""

from __future__ import annotations

import itertools
import json
import re
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import czslkit
from czslkit import plot
from czslkit.errors import ConfigError, CzslkitError
from czslkit.evaluation.details import detail_files
from czslkit.metrics.names import METRICS
from czslkit.metrics.sweep import Sweep
from czslkit.options import config_id
from czslkit.report.asked import Command, remember
from czslkit.report.figure_style import COLOURS, DASHES, Look
from czslkit.report.table import Table
from czslkit.result_store import Store
from czslkit.types import PairSpace

PAIRS = torch.cartesian_prod(torch.arange(3), torch.arange(4))
SPACE = PairSpace(("dry", "wet", "old"), ("cat", "dog", "bus", "car"), PAIRS, torch.arange(12) % 3 > 0)
TARGET = torch.randint(0, 12, (200,), generator=torch.Generator().manual_seed(1))
TRAINING = {"csp": (0.4, 0.6, 0.5), "msci": (0.5, 0.7)}  # validation AUC of each epoch


def scored(method: str, seed: int) -> torch.Tensor:
    """The scores of a method that gets better from csp to msci."""
    scores = torch.randn(200, 12, generator=torch.Generator().manual_seed(seed + len(method)))
    scores[torch.arange(200), TARGET] += {"csp": 1.0, "msci": 2.0}[method]
    return scores


def put(store: Store, method: str, dataset: str = "demo", seed: int = 0, world: str = "closed", **more: Any) -> None:
    """Put the evaluation of random scores into a store."""
    sweep = Sweep(PAIRS, SPACE.seen, keep=5)
    sweep.update(scored(method, seed), *PAIRS[TARGET].unbind(1))
    bins = more.pop("bins", "original")
    metrics = sweep.compute(bins=bins)
    config = {"train": {"lr": 0.1}}
    cell = {"method": method, "dataset": dataset, "world": world, "seed": seed, "config_id": config_id(config)}
    values = {name: getattr(metrics, name) for name in ("auc", "best_seen", "best_unseen", "best_hm")}
    counts = {"n_seen": int(SPACE.seen[TARGET].sum()), "n_unseen": int((~SPACE.seen[TARGET]).sum())}
    history = [{"loss": 1 / (e + 1) + seed, "val_auc": v + seed / 10} for e, v in enumerate(TRAINING[method])]
    result = {
        "cell": cell,
        "status": "done",
        "config": config,
        "protocol": {"bins": bins},
        "depends": {},
        "training": {"epochs": len(history), "best_epoch": 2, "history": history},
        "metrics": {**values, **counts, "attr_acc": metrics.attr_acc, "obj_acc": metrics.obj_acc},
        "files": store.attach(cell, detail_files(sweep, SPACE, bins)),
    }
    store.put({**result, **more})


def put_failed(store: Store, method: str, dataset: str = "demo", seed: int = 0) -> None:
    config = {"train": {"lr": 0.1}}
    cell = {"method": method, "dataset": dataset, "world": "closed", "seed": seed, "config_id": config_id(config)}
    error = {"type": "TrainingError", "message": "the loss is nan"}
    empty: dict[str, Any] = {"protocol": {}, "depends": {}, "metrics": {}}
    store.put({"cell": cell, "status": "failed", "error": error, "config": config, **empty})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CSP with two seeds and MSCI with one on the demo world; clip has failed, and coop was not run."""
    folder = tmp_path_factory.mktemp("runs")
    store = Store(folder)
    for method, seed in (("csp", 0), ("csp", 1), ("msci", 0)):
        put(store, method, seed=seed)
    put_failed(store, "clip")
    config = config_id({"train": {"lr": 0.1}})
    rows = tuple(("demo", method, config) for method in ("csp", "msci", "clip", "coop"))
    remember(folder, Command(rows, (0,), ("closed",)), {}, print)
    return folder


@pytest.fixture(scope="module")
def table(runs: Path) -> Table:
    found = plot.table_of(runs)
    assert isinstance(found, Table)
    return found


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """MSCI and CSP on two datasets; CSP failed on the second."""
    store = Store(tmp_path / "several")
    put(store, "msci")
    put(store, "msci", "other")
    put(store, "csp")
    put_failed(store, "csp", "other")
    return store.root


def lines(axes: Axes) -> dict[str, Any]:
    """Return the lines of a figure by their name in the legend."""
    return dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))


def legend(axes: Axes) -> list[str]:
    (found,) = axes.figure.legends  # type: ignore[union-attr]
    return [text.get_text() for text in found.get_texts()]


def points(axes: Axes, line: Any) -> np.ndarray:
    """Return the marked points of the colour of a line, ``[points, 2]``."""
    same = [other for other in axes.lines if other.get_color() == line.get_color() and other is not line]
    return np.array([other.get_xydata()[0] for other in same])


def test_the_area_below_a_curve_is_the_auc_of_the_table(table: Table) -> None:
    axes = plot.curve(table)
    for label in ("csp", "msci"):
        x, y = lines(axes)[label].get_data()
        assert np.trapezoid(y, x) / 100 == pytest.approx(
            100 * table.arrangement.mean((label, "demo", "closed"), "auc"), abs=1e-4
        )


def test_the_ends_of_a_curve_are_s_and_u_and_its_marker_is_h(table: Table) -> None:
    axes = plot.curve(table, methods="msci")
    line = lines(axes)["msci"]
    (marker,) = points(axes, line)
    frame = table.arrangement.frame.set_index("label").loc["msci"]
    assert line.get_ydata().max() == pytest.approx(100 * frame["best_seen"])
    assert line.get_xdata().max() == pytest.approx(100 * frame["best_unseen"])
    assert statistics.harmonic_mean(marker) == pytest.approx(100 * frame["best_hm"])


def test_each_seed_has_a_marker_whose_h_is_in_the_table_and_the_spread_is_a_band(table: Table) -> None:
    axes = plot.curve(table)
    markers = points(axes, lines(axes)["csp"])
    expected = table.arrangement.frame.query("label == 'csp'")["best_hm"]
    assert [statistics.harmonic_mean(point) for point in markers] == pytest.approx(list(100 * expected))
    (band,) = axes.collections  # MSCI has one seed and no band
    x, y = lines(axes)["csp"].get_data()
    middle = len(x) // 2
    at_x = band.get_paths()[0].vertices
    low, high = (end(at_x[at_x[:, 0] == x[middle], 1]) for end in (min, max))
    assert (low + high) / 2 == pytest.approx(y[middle])
    seeds = [single_curve(table, seed) for seed in (0, 1)]
    values = [np.interp(x[middle], *seed) for seed in seeds]
    assert (high - low) / 2 == pytest.approx(statistics.stdev(values), abs=1e-6)


def single_curve(table: Table, seed: int) -> tuple[list[float], list[float]]:
    """Return the points of CSP's original curve, read from its file."""
    (result,) = (r for r in table.results if r["cell"]["method"] == "csp" and r["cell"]["seed"] == seed)
    assert table.attached
    content = (table.attached(result, "curve.csv") or b"").decode().splitlines()
    found = [line.split(",") for line in content if line.startswith("original")]
    return [100 * float(line[3]) for line in found], [100 * float(line[2]) for line in found]


def test_a_table_of_exact_curves_is_drawn_with_exact_curves(tmp_path: Path) -> None:
    put(Store(tmp_path), "csp", bins="exact")
    put(Store(tmp_path), "csp", seed=1, bins="exact")
    x, y = lines(plot.curve(tmp_path))["csp"].get_data()
    auc = plot.table_of(tmp_path).arrangement.mean(("csp", "demo", "closed"), "auc")
    assert auc is not None and np.trapezoid(y, x) / 1e4 == pytest.approx(auc, abs=1e-6)


@pytest.mark.parametrize(("metric", "scale"), [("val_auc", 100), ("loss", 1)])
def test_a_training_has_the_numbers_of_its_history_and_marks_the_epoch_that_is_kept(
    table: Table, metric: str, scale: int
) -> None:
    axes = plot.training(table, metric=metric)
    for label in ("csp", "msci"):
        histories = [r["training"]["history"] for r in table.results if r["cell"]["method"] == label]
        expected = [scale * statistics.fmean(e[metric] for e in epoch) for epoch in zip(*histories, strict=True)]
        x, y = lines(axes)[label].get_data()
        assert list(x) == list(range(1, len(expected) + 1))
        assert list(y) == pytest.approx(expected)
        for point in points(axes, lines(axes)[label]):
            assert point.tolist() == pytest.approx([2, expected[1]])


def test_a_training_without_validation_of_unseen_pairs_has_the_number_that_there_is(tmp_path: Path) -> None:
    history = [{"loss": 3.0, "val_auc": None, "val_acc": 0.5, "val_bias": 1.5}] * 2
    put(Store(tmp_path), "csp", training={"best_epoch": 1, "history": history})
    assert [*lines(plot.training(tmp_path))["csp"].get_ydata()] == [50, 50]
    assert [*lines(plot.training(tmp_path, metric="val_bias"))["csp"].get_ydata()] == [1.5, 1.5]


def test_the_ticks_of_a_training_of_one_epoch_are_whole_numbers(tmp_path: Path) -> None:
    put(Store(tmp_path), "csp", training={"best_epoch": 1, "history": [{"loss": 3.0}]})
    axes = plot.training(tmp_path)
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_a_training_shows_the_validation_metric_unless_there_is_only_a_loss(table: Table, tmp_path: Path) -> None:
    assert plot.training(table).get_ylabel() == "validation AUC, %"
    put(Store(tmp_path), "csp", training={"best_epoch": 1, "history": [{"loss": 3.0}, {"loss": None}]})
    axes = plot.training(tmp_path)
    assert axes.get_ylabel() == "loss"
    assert lines(axes)["csp"].get_ydata()[0] == 3


@pytest.mark.parametrize("metric", METRICS)
def test_bars_have_the_means_and_the_intervals_of_the_table(several: Path, metric: str) -> None:
    table = plot.table_of(several)
    axes = plot.bars(table, metric=metric)
    drawn = {label: [bar.get_height() for bar in bars] for label, bars in lines(axes).items()}
    keys = [(label, dataset, "closed") for label, bars in drawn.items() for dataset in ("demo", "other")[: len(bars)]]
    means = [table.arrangement.mean(key, METRICS[metric]) for key in keys]
    assert list(itertools.chain(*drawn.values())) == pytest.approx([100 * (mean or 0) for mean in means])
    intervals = [table.significance.interval(key, METRICS[metric]) for key in keys]
    ends = [
        sorted(segment[:, 1].tolist())
        for collection in axes.collections
        for segment in collection.get_segments()  # type: ignore[attr-defined]
    ]
    expected = sorted([100 * low, 100 * high] for low, high in filter(None, intervals))
    assert np.array(sorted(ends)) == pytest.approx(np.array(expected))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["demo", "other"]


def test_a_bar_that_is_missing_says_why(table: Table, several: Path) -> None:
    assert [text.get_text() for text in plot.bars(several).texts] == [" csp: failed"]
    axes = plot.bars(table)
    assert [text.get_text() for text in axes.texts] == [" clip: failed", " coop: not run"]
    assert legend(axes) == ["csp", "msci"]
    assert not plot.bars(several, dataset="demo").texts
    put(Store(several), "msci", metrics={"auc": None})
    assert [text.get_text() for text in plot.bars(several, dataset="demo").texts] == [" msci: undefined"]


def test_bars_without_numbers_per_image_have_no_interval_and_say_so(tmp_path: Path) -> None:
    put(Store(tmp_path), "csp", files={})
    axes = plot.bars(tmp_path)
    assert "csp on demo: no interval" in axes.get_xlabel()
    assert not axes.collections


@pytest.mark.parametrize(("part", "metric"), [("attributes", "attr_acc"), ("objects", "obj_acc")])
def test_accuracies_of_words_average_to_the_accuracy_of_the_frame(table: Table, part: str, metric: str) -> None:
    axes = getattr(plot, part)(table)
    names = [label.get_text() for label in axes.get_yticklabels()]
    counts = [int(re.sub(r".*\((\d+)\)", r"\1", name)) for name in names]
    words = SPACE.attrs if part == "attributes" else SPACE.objs
    of_word = Counter(words[i] for i in PAIRS[TARGET, 0 if part == "attributes" else 1].tolist())
    assert sorted(names) == sorted(f"{word} ({n})" for word, n in of_word.items())
    for label, container in lines(axes).items():
        accuracies = container[0].get_xdata()
        expected = table.arrangement.frame.query(f"label == '{label}'")[metric].mean()
        assert np.average(accuracies, weights=counts) == pytest.approx(100 * expected, abs=0.01)
    means = np.mean([container[0].get_xdata() for container in lines(axes).values()], axis=0)
    assert list(means) == sorted(means)  # from the bottom to the top


def test_only_the_words_with_the_most_images_are_drawn_if_there_are_many(table: Table) -> None:
    axes = plot.objects(table, most=2)
    common = [word for word, _ in Counter(SPACE.objs[i] for i in PAIRS[TARGET, 1].tolist()).most_common(2)]
    assert sorted(label.get_text().split()[0] for label in axes.get_yticklabels()) == sorted(common)
    assert axes.get_xlabel().endswith("the 2 of 4 objects with the most images")


def test_a_confusion_has_the_shares_of_the_predicted_attributes(table: Table) -> None:
    axes = plot.confusion(table, methods="csp")
    matrix = np.asarray(axes.collections[0].get_array()).reshape(3, 3)
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["dry", "old", "wet"]
    predicted = [PAIRS[scored("csp", seed).argmax(1), 0] for seed in (0, 1)]
    true = PAIRS[TARGET, 0]
    for (y, row), (x, column) in itertools.product(enumerate(names), enumerate(names)):
        images = true == SPACE.attrs.index(row)
        hits = [(found[images] == SPACE.attrs.index(column)).float().mean() for found in predicted]
        assert matrix[y, x] == pytest.approx(100 * float(sum(hits)) / 2, abs=0.01)
    assert matrix.sum(1) == pytest.approx(np.full(3, 100), abs=0.02)
    assert axes.get_title() == "csp on demo, closed world"


def test_attributes_that_a_confusion_does_not_draw_are_in_its_last_column(table: Table) -> None:
    axes = plot.confusion(table, most=1)
    assert axes.get_title().startswith("msci on")  # the highest AUC
    assert axes.collections[0].get_array().sum() == pytest.approx(100)
    assert axes.collections[0].get_array().ravel()[1] > 1


@pytest.mark.parametrize("what", ["curve", "training", "attributes", "objects"])
def test_a_figure_names_the_rows_that_failed_or_were_not_run(table: Table, what: str) -> None:
    axes = getattr(plot, what)(table)
    assert legend(axes) == ["csp", "msci"]
    assert axes.get_xlabel().split("\n")[1:] == ["clip: failed", "coop: not run"]
    assert axes.has_data()


def test_a_confusion_of_a_failed_cell_says_so_and_draws_nothing(table: Table) -> None:
    axes = plot.confusion(table, methods="clip")
    assert axes.get_xlabel() == "clip: failed"
    assert not axes.has_data()


def test_a_seed_that_failed_is_named_beside_the_others(tmp_path: Path) -> None:
    put(Store(tmp_path), "csp")
    put_failed(Store(tmp_path), "csp", seed=1)
    axes = plot.curve(tmp_path)
    assert axes.get_xlabel().endswith("csp: seed 1 failed")
    assert list(lines(axes)) == ["csp"]


@pytest.mark.parametrize("what", ["curve", "training", "attributes", "bars"])
def test_results_that_were_not_measured_alike_are_named_if_both_are_drawn(tmp_path: Path, what: str) -> None:
    put(Store(tmp_path), "csp")
    put(Store(tmp_path), "msci", bins="exact")
    note = "not all results were measured alike:"
    assert note in getattr(plot, what)(tmp_path).get_xlabel().replace("\n", " ")
    assert note not in getattr(plot, what)(tmp_path, methods="msci").get_xlabel().replace("\n", " ")


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    for seed in (0, 1):
        put(Store(tmp_path), "csp", seed=seed, files={}, training=None)
    assert plot.curve(tmp_path).get_xlabel().endswith("csp: no curve.csv is stored")
    assert plot.attributes(tmp_path).get_xlabel().endswith("csp: no details.json is stored")
    assert plot.training(tmp_path).get_xlabel().endswith("csp: not trained")
    assert plot.training(tmp_path, metric="val_hm").get_ylabel() == "val hm, %"
    for seed in (0, 1):
        put(Store(tmp_path), "csp", seed=seed, files={}, training={"history": [{"epoch": 1, "loss": 2.0}]})
    assert plot.training(tmp_path, metric="val_hm").get_xlabel().endswith("csp: no val_hm is stored")


def changed(table: Table, name: str, content: Any) -> SimpleNamespace:
    """Return a table whose attached file ``name`` has another content."""
    made = content if isinstance(content, bytes) else json.dumps(content).encode()
    parts = {part: getattr(table, part) for part in ("results", "labels", "arrangement", "significance", "asked")}
    return SimpleNamespace(**parts, attached=lambda result, asked: made if asked == name else None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff", "curve.csv is not as czslkit writes it"),
        (b"a,b\n1,2\n", "curve.csv is not as czslkit writes it"),
        (b"curve,bias,seen,unseen\noriginal,0,0.5,x\n", "curve.csv is not as czslkit writes it"),
        (b"curve,bias,seen,unseen\noriginal,0,0.5,nan\n", "curve.csv has no usable points of the original curve"),
        (b"curve,bias,seen,unseen\nexact,0,0.5,0.5\n", "curve.csv has no usable points of the original curve"),
        (b"curve,bias,seen,unseen\noriginal,0,0.5,1e9\n", "curve.csv has no usable points of the original curve"),
    ],
)
def test_a_curve_that_cannot_be_used_is_named(table: Table, content: bytes, reason: str) -> None:
    axes = plot.curve(changed(table, "curve.csv", content), methods="msci")
    assert axes.get_xlabel().replace("\n", " ").endswith(f"msci: {reason}")
    assert not axes.figure.legends  # type: ignore[union-attr]


WORDS_TABLE = {"columns": ["attribute", "images", "accuracy_at_zero"], "rows": [["wet", 3, 0.5]]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "details.json is not as czslkit writes it"),
        ([], "details.json is not as czslkit writes it"),
        ({"attributes": {"columns": ["attribute"], "rows": []}}, "details.json is not as czslkit writes it"),
        ({}, "details.json of an earlier version has no attributes"),
        ({"attributes": {**WORDS_TABLE, "rows": [["wet", 0, 0.5]]}}, "attributes in details.json are not as czslkit"),
        ({"attributes": {**WORDS_TABLE, "rows": [["wet", 3, 7.0]]}}, "attributes in details.json are not as czslkit"),
        ({"attributes": WORDS_TABLE}, "details.json of an earlier version has no confused attributes"),
        (
            {
                "attributes": WORDS_TABLE,
                "confused_attributes_at_zero": {
                    "columns": ["attribute", "predicted attribute", "images"],
                    "rows": [["wet", "dry", -1]],
                },
            },
            "confused attributes in details.json are not as",
        ),
    ],
)
def test_details_that_cannot_be_used_are_named(table: Table, content: Any, reason: str) -> None:
    axes = plot.confusion(changed(table, "details.json", content), methods="msci")
    assert f"msci: {reason}" in axes.get_xlabel().replace("\n", " ")
    assert not axes.has_data()


def test_a_changed_file_of_a_result_is_named_not_drawn(tmp_path: Path) -> None:
    put(Store(tmp_path), "csp")
    (file,) = tmp_path.rglob("closed.curve.csv")
    file.write_text(file.read_text() + "original,1,0.9,0.9\n")
    assert "csp:" in plot.curve(tmp_path).get_xlabel()
    assert "is not the file that was written with" in plot.curve(tmp_path).get_xlabel().replace("\n", " ")


def test_wrong_choices_are_errors_that_say_what_there_is(table: Table, several: Path) -> None:
    with pytest.raises(ConfigError, match=r"^there are no results on 'mit'\. Known: demo\.$"):
        plot.curve(table, dataset="mit")
    with pytest.raises(ConfigError, match=r"^there are no results in the world 'open'\. Known: closed\.$"):
        plot.curve(table, world="open")
    with pytest.raises(ConfigError, match=r"^the table has no row 'cps'\. Known: clip, coop, csp, msci\.$"):
        plot.bars(table, methods="csp,cps")
    with pytest.raises(ConfigError, match=r"^the results are of several datasets: demo, other\. Choose one of them\.$"):
        plot.training(several)
    with pytest.raises(ConfigError, match=r"^the metric is 'auc', expected one of S, U, H, AUC$"):
        plot.bars(table, metric="auc")
    empty = SimpleNamespace(arrangement=SimpleNamespace(columns=()))
    with pytest.raises(ConfigError, match=r"^the table has no results to draw$"):
        plot.bars(empty)
    with pytest.raises(ConfigError, match=r"^most is 0, expected 1 or more attributes$"):
        plot.attributes(table, most=0)
    with pytest.raises(ConfigError, match=r"^most is -1, expected 1 or more attributes$"):
        plot.confusion(table, most=-1)


def test_a_figure_takes_a_folder_a_benchmark_or_a_table(runs: Path, table: Table) -> None:
    benchmark = SimpleNamespace(table=lambda: table)
    drawn = [plot.figure_svg(plot.bars(source, methods=["csp"])) for source in (runs, str(runs), benchmark, table)]
    assert len(set(drawn)) == 1
    with pytest.raises(CzslkitError, match="no folder nowhere; expected the folder of results"):
        plot.curve("nowhere")


def test_a_failed_cell_that_nobody_asked_for_is_left_out_as_in_the_table(tmp_path: Path) -> None:
    put(Store(tmp_path), "csp")
    put_failed(Store(tmp_path), "cps")
    remember(tmp_path, Command((("demo", "csp", config_id({"train": {"lr": 0.1}})),), (0,), ("closed",)), {}, print)
    assert plot.curve(tmp_path).get_xlabel() == "accuracy on unseen pairs, %"


def test_methods_are_chosen_by_name_or_by_the_label_of_a_row(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        put_lr(Store(tmp_path), lr)
    assert list(lines(plot.curve(tmp_path, methods="csp"))) == ["csp lr=0.1", "csp lr=0.2"]
    axes = plot.curve(tmp_path, methods=["csp lr=0.2"])
    assert list(lines(axes)) == ["csp lr=0.2"]
    assert lines(axes)["csp lr=0.2"].get_color() == Look(1).colour  # as in the figure of all rows


def put_lr(store: Store, lr: float) -> None:
    """Put a result of CSP with another learning rate."""
    config = {"train": {"lr": lr}}
    sweep = Sweep(PAIRS, SPACE.seen, keep=5)
    sweep.update(scored("csp", 0), *PAIRS[TARGET].unbind(1))
    cell = {"method": "csp", "dataset": "demo", "world": "closed", "seed": 0, "config_id": config_id(config)}
    store.put(
        {
            "cell": cell,
            "status": "done",
            "config": config,
            "protocol": {"bins": "original"},
            "depends": {},
            "metrics": {"auc": 0.5},
            "files": store.attach(cell, detail_files(sweep, SPACE, "original")),
        }
    )


@pytest.mark.parametrize(("wide", "inches"), [(False, 3.3), (True, 6.9)])
def test_a_figure_is_as_wide_as_a_column_or_as_the_text(table: Table, wide: bool, inches: float) -> None:
    axes = plot.curve(table, wide=wide)
    assert axes.figure.get_figwidth() == inches  # type: ignore[union-attr]
    assert {text.get_fontsize() for text in (axes.title, axes.xaxis.label, *axes.get_xticklabels())} == {7}


def test_given_axes_are_drawn_on_and_keep_their_style_and_get_no_legend(table: Table) -> None:
    figure = Figure()
    axes = figure.subplots()
    size = axes.xaxis.label.get_fontsize()
    assert plot.curve(table, ax=axes) is axes
    assert axes.xaxis.label.get_fontsize() == size
    assert not figure.legends
    assert axes.get_legend() is None


def test_panels_share_one_legend_in_which_each_row_is_named_once(several: Path) -> None:
    axes = plot.panels(2, wide=True)
    for ax, dataset in zip(axes, ("demo", "other"), strict=True):
        plot.curve(several, dataset=dataset, ax=ax)
    plot.add_legend(axes)
    assert legend(axes[0]) == ["csp", "msci"]
    assert [len(plot.panels(n, wide=wide)) for n, wide in ((5, True), (3, False))] == [5, 3]


def test_a_figure_with_panels_grows_by_their_notes(runs: Path) -> None:
    axes = plot.panels(2)
    for ax in axes:
        plot.bars(runs, ax=ax)
    bare = plot.panels(2)
    for ax, drawn in zip(bare, axes, strict=True):
        plot.bars(runs, ax=ax)
        ax.set_xlabel("")
        drawn.set_xlabel("AUC\nclip: failed\ncoop: not run")
    for panels in (axes, bare):
        plot.add_legend(panels)
    heights = [panels[0].figure.get_figheight() for panels in (axes, bare)]  # type: ignore[union-attr]
    assert heights[0] - heights[1] == pytest.approx(2 * 2 * 0.12)


def test_each_dash_shows_a_gap_beside_the_marker_of_the_legend(table: Table) -> None:
    """A gap that is under the marker in the middle of the line would make the dashes look solid."""
    axes = plot.curve(table)
    handle = axes.figure.legends[0].legend_handles[0]  # type: ignore[union-attr]
    x = handle.get_xdata()  # type: ignore[union-attr]
    length, marker = x[-1] - x[0], handle.get_markersize()  # type: ignore[union-attr]
    for _, lengths in DASHES[1:]:
        ends = np.cumsum(np.tile(lengths, 20))
        gaps = [(a, b) for a, b in zip(ends[::2], ends[1::2], strict=True) if b < length]
        assert sum(b <= (length - marker) / 2 or a >= (length + marker) / 2 for a, b in gaps) >= 2


def test_settings_of_a_matplotlibrc_change_neither_size_nor_words(table: Table) -> None:
    expected = plot.figure_svg(plot.bars(table))
    with rc_context({"savefig.bbox": "tight", "text.usetex": True}):
        found = plot.figure_svg(plot.bars(table))
    assert svg_texts(found) == svg_texts(expected)
    assert re.search(r'width="\S+"', found)[0] == re.search(r'width="\S+"', expected)[0]


@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_a_file_is_the_same_each_time_and_has_no_date(table: Table, tmp_path: Path, kind: str) -> None:
    written = [plot.save(plot.bars(table), tmp_path / f"{n}.{kind}").read_bytes() for n in range(2)]
    assert written[0] == written[1]
    assert not re.search(rb"CreationDate|dc:date|20[0-9]{2}-[01][0-9]-", written[0])
    assert written[0].startswith({"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}[kind])


def test_a_pdf_has_truetype_fonts_which_publishers_ask_for(table: Table, tmp_path: Path) -> None:
    content = plot.save(plot.curve(table), tmp_path / "a.pdf").read_bytes()
    assert b"/CIDFontType2" in content and b"/Type3" not in content


def test_a_file_of_another_type_is_refused_before_anything_is_written(table: Table, tmp_path: Path) -> None:
    message = r"^a figure cannot be written to 'a.jpg': expected a name that ends in \.pdf, \.svg or \.png$"
    with pytest.raises(ConfigError, match=message):
        plot.save(plot.bars(table), tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


def svg_texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_an_svg_for_a_page_has_text_and_nothing_that_the_page_would_load(table: Table) -> None:
    svg = plot.figure_svg(plot.curve(table))
    assert {"csp", "msci", "accuracy on seen pairs, %", "clip: failed"} <= set(svg_texts(svg))
    assert svg.startswith("<svg") and "<style" not in svg and "<metadata" not in svg and "font-family" not in svg
    assert re.findall(r'https?://[^"]+', svg) == ["http://www.w3.org/2000/svg"]
    assert "currentColor" in svg and "#1a1a1b" not in svg


def test_two_svgs_on_a_page_share_no_ids_and_refer_to_their_own(table: Table) -> None:
    (hatched,) = plot.panels(1)
    hatched.bar([0, 1], [1, 2], hatch="//")
    ids: list[str] = []
    for svg in map(plot.figure_svg, (plot.curve(table), plot.confusion(table), plot.bars(table), hatched)):
        found = re.findall(r' id="([^"]+)"', svg)
        assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', svg)) <= set(found)
        assert ("fill: url(#f" in svg) == ("<pattern" in svg)
        ids += found
    assert len(ids) == len(set(ids))


HOSTILE = ["<script>alert(1)</script>", "price in $ and $x_{", '"&\' id="x"', "_hidden", "狗\x1b[31m\n", "\\frac{" * 20]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_a_hostile_name_stays_text(table: Table, tmp_path: Path, name: str, kind: str) -> None:
    words = {"columns": ["attribute", "images", "accuracy_at_zero"], "rows": [[name, 3, 0.5], ["b", 2, 0.25]]}
    confused = {"columns": ["attribute", "predicted attribute", "images"], "rows": [["b", name, 1]]}
    source = changed(table, "details.json", {"attributes": words, "confused_attributes_at_zero": confused})
    for what in ("attributes", "confusion"):
        axes = getattr(plot, what)(source, methods="msci")
        plot.save(axes, tmp_path / f"a.{kind}")
        texts = [text.replace("\xa0", " ").strip() for text in svg_texts(plot.figure_svg(axes))]
        expected = name.replace("\x1b[31m\n", "").strip()
        assert any(text.startswith(expected[:30]) for text in texts)


def distance(one: str, other: str) -> float:
    """Return the smallest distance of two colours in CIELAB for four kinds of readers (Machado et al., 2009)."""
    kinds = {
        "all": np.eye(3),
        "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    }
    return min(float(np.linalg.norm(lab(one, m) - lab(other, m))) for m in map(np.array, kinds.values()))


def lab(colour: str, seen_as: np.ndarray) -> np.ndarray:
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.clip(seen_as @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_readers_who_confuse_hues_can_tell_rows_apart() -> None:
    for one, other in itertools.combinations(range(len(COLOURS)), 2):
        apart = distance(COLOURS[one], COLOURS[other])
        assert apart > 10, f"{COLOURS[one]} and {COLOURS[other]} are {apart:.0f} apart"
        if apart < 20:  # such rows differ in dashes and markers as well
            assert Look(one).dashes != Look(other).dashes and Look(one).marker != Look(other).marker
    looks = [(look.colour, str(look.dashes), look.marker) for look in map(Look, range(28))]
    assert len(set(looks)) == len({(colour, marker) for colour, _, marker in looks}) == 28


def test_figures_need_neither_torch_nor_the_state_of_pyplot(runs: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from czslkit.cli import main; status = main(sys.argv[1:]); "
        "print(status, [name for name in ('torch', 'matplotlib.pyplot') if name in sys.modules])"
    )
    command = ["plot", str(runs), "--what", "curve", "--out", str(tmp_path / "a.svg")]
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, *command], capture_output=True, text=True)
    assert done.stdout.splitlines() == [str(tmp_path / "a.svg"), "0 []"], done.stderr


def test_the_functions_are_public() -> None:
    assert czslkit.plot.curve is plot.curve
