from __future__ import annotations

import csv
import html
import io
import itertools
import json
import random
import re
import statistics
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from czslkit.errors import CzslkitError
from czslkit.metrics.outcomes import Outcomes
from czslkit.report.rendering import WIDTH
from czslkit.report.table import Table

MISSING_DATA = {
    "type": "DataError",
    "message": "cgqa: 2 problems\nimages/ is not there\ntest_pairs.txt is not there",
    "traceback": "Traceback (most recent call last): ...",
}
DIVERGED = {"type": "TrainingError", "message": "loss is nan\nat step 3", "traceback": "Traceback ..."}
HOSTILE = "\x1b[31m<script>a_b&c|50%#$~^\\{x}\x1b[0m"


def result(
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
    """A finished cell with S = 0.7, U = 0.6, H = 0.5 and the given AUC."""
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


def failed(error: dict[str, str], **cell: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {"metrics": {}, "protocol": {}, "depends": {}}
    return result(**cell) | nothing | {"status": "failed", "error": error}


def aucs(table: Table) -> list[str]:
    """The last number of each line of a table of one dataset in one world, marks and all."""
    lines = table.to_text().split("\n\n")[0].splitlines()
    return [re.split(r"\s{2,}", line)[-1] for line in lines[2:]]


def test_a_table_of_two_methods_reads_as_printed_by_hand() -> None:
    table = Table([result("csp"), result("csp", world="open", auc=0.2), result("msci", auc=0.41)])
    assert table.to_text() == (
        "demo    ----------- closed -----------  ------------ open ------------\n"
        "method      S       U       H     AUC       S       U       H     AUC\n"
        "csp     *70.0*  *60.0*  *50.0*  _40.0_   70.0    60.0    50.0    20.0\n"
        "msci    *70.0*  *60.0*  *50.0*  *41.0*      -       -       -       -\n"
        "\n"
        "Percentages. S, U, H: best seen, best unseen and best harmonic-mean accuracy.\n"
        "AUC: area under the original ~20-bias curve.\n"
        "*Best* and _second_ of each column.\n"
    )


def test_the_mean_of_seeds_has_a_sample_standard_deviation() -> None:
    # 40, 42, 47: mean 43, deviations -3, -1, 4, so variance 26 / 2 = 13
    table = Table([result(seed=seed, auc=auc) for seed, auc in enumerate((0.40, 0.42, 0.47))])
    assert aucs(table) == ["43.0 ± 3.6"]
    assert "Mean ± sample standard deviation (ddof=1) over 3 seeds." in table.to_text()


def test_one_seed_has_no_standard_deviation() -> None:
    assert "±" not in Table([result()]).to_text()


def test_rows_that_have_fewer_seeds_are_admitted_in_the_caption() -> None:
    table = Table([result(seed=0), result(seed=1), result("msci")])
    assert "over 1 to 2 seeds." in table.to_text()


def test_best_and_second_agree_with_a_naive_loop() -> None:
    chance = random.Random(0)
    for _ in range(20):
        scores = [chance.choice((0.1, 0.2, 0.3, 0.4)) for _ in range(5)]
        shown = aucs(Table([result(f"m{i}", auc=score) for i, score in enumerate(scores)]))
        for score, text in zip(scores, shown, strict=True):
            better = len({other for other in scores if other > score})
            number = f"{100 * score:.1f}"
            assert text.strip() == (f"*{number}*", f"_{number}_", number, number)[better]


def test_scores_that_print_alike_share_the_mark() -> None:
    table = Table([result("a", auc=0.41004), result("b", auc=0.40996), result("c", auc=0.4)])
    assert aucs(table) == ["*41.0*", "*41.0*", "_40.0_"]


def test_the_best_is_by_size_not_by_spelling() -> None:
    assert aucs(Table([result("a", auc=0.09), result("b", auc=0.10), result("c", auc=1.0)])) == [
        "9.0",
        "_10.0_",
        "*100.0*",
    ]


def test_a_single_row_is_not_marked() -> None:
    table = Table([result()])
    assert "*" not in table.to_text()
    assert "\x1b" not in table.to_text(color=True)
    assert "**" not in table.to_markdown()
    assert "textbf" not in table.to_latex()
    assert "<b>" not in table.to_html()
    assert "best, underlined" not in table.to_markdown()


def test_a_single_number_in_a_column_is_not_marked() -> None:
    assert aucs(Table([result(), failed(DIVERGED, method="msci")])) == ["40.0", "failed"]


@pytest.mark.parametrize(
    ("render", "best", "second"),
    [
        (lambda table: table.to_text(), "*41.0*", "_40.0_"),
        (lambda table: table.to_text(color=True), "\x1b[1m41.0\x1b[0m", "\x1b[4m40.0\x1b[0m"),
        (lambda table: table.to_markdown(), "**41.0**", "<u>40.0</u>"),
        (lambda table: table.to_latex(), r"\textbf{41.0}", r"\underline{40.0}"),
        (lambda table: table.to_html(), "<b>41.0</b>", "<u>40.0</u>"),
    ],
)
def test_each_format_has_its_marks(render: Any, best: str, second: str) -> None:
    text = render(Table([result("csp", auc=0.40), result("msci", auc=0.41), result("clip", auc=0.39)]))
    assert text.count(best) == 1
    assert text.count(second) == 1


def test_an_undefined_metric_is_a_dash_and_not_averaged() -> None:
    assert aucs(Table([result("a", auc=None), result("b", auc=0.4)])) == ["-", "40.0"]
    assert aucs(Table([result(seed=0, auc=None), result(seed=1, auc=0.4)])) == ["40.0"]


def test_rows_keep_the_order_first_given() -> None:
    assert Table([result("msci"), result("clip"), result("msci", world="open"), result("csp")]).rows == [
        "msci",
        "clip",
        "csp",
    ]


def test_text_fits_a_terminal_and_lines_up() -> None:
    cells = itertools.product(("a_rather_long_name", "csp"), ("mit-states", "demo"), ("closed", "open"), range(3))
    table = Table([result(*cell, auc=0.1 + 0.2 * cell[3]) for cell in cells])
    blocks = table.to_text().split("\n\n")[:-1]
    assert len(blocks) == 4  # two datasets, each too wide for both worlds at once
    for block in blocks:
        lines = block.splitlines()
        assert max(map(len, lines)) <= WIDTH
        assert lines[2].index("±") == lines[3].index("±")
    colored = re.sub(r"\x1b\[\d+m", "", table.to_text(color=True)).split("\n\n")[:-1]
    widths = {len(line) for block in colored for line in block.splitlines()}
    assert widths == {len("a_rather_long_name") + len("  70.0 ± 0.0" * 3 + "  30.0 ± 20.0")}


def test_a_method_not_run_on_a_dataset_has_no_line_there() -> None:
    blocks = Table([result("csp"), result("msci", dataset="cgqa")]).to_text().split("\n\n")
    assert "msci" not in blocks[0]
    assert "csp" not in blocks[1]


def test_seeds_that_failed_are_left_out_and_counted() -> None:
    table = Table(
        [
            result("msci", seed=0, auc=0.4),
            failed(DIVERGED, method="msci", seed=1),
            result("msci", seed=2, auc=0.6),
        ]
    )
    assert aucs(table) == ["50.0 ± 14.1"]  # sqrt(2 * 10^2 / 1)
    assert "msci on demo (closed): 2 of 3 seeds\n" in table.to_text()
    assert "failed: msci on demo (closed, seed 1): TrainingError: loss is nan\n" in table.to_text()
    assert "step 3" not in table.to_text()


def test_a_dataset_that_is_not_there_is_explained_once() -> None:
    cells = itertools.product(("clip", "csp"), ("cgqa",), ("closed", "open"), (0, 1))
    keys = ("method", "dataset", "world", "seed")
    text = Table([failed(MISSING_DATA, **dict(zip(keys, cell, strict=True))) for cell in cells]).to_text()
    assert text.count(" failed") == 2 * 2 * 4
    assert text.endswith(
        "failed: clip, csp on cgqa (closed, seeds 0, 1; open, seeds 0, 1): DataError: cgqa: 2 problems\n"
        "  images/ is not there\n"
        "  test_pairs.txt is not there\n"
    )
    assert "AUC:" not in text


def test_one_error_on_two_datasets_is_told_for_each() -> None:
    notes = Table([failed(DIVERGED, dataset="cgqa"), failed(DIVERGED, dataset="demo")]).notes()
    assert [note.split(":")[1] for note in notes] == [" csp on cgqa (closed, seed 0)", " csp on demo (closed, seed 0)"]


def test_a_long_error_is_cut() -> None:
    many = {"type": "DataError", "message": "\n".join(f"line {n}" for n in range(20))}
    assert Table([failed(many)]).notes()[0].splitlines()[-2:] == ["  line 11", "  ... and 8 more lines"]
    wide = {"type": "RuntimeError", "message": "x" * 1000}
    assert Table([failed(wide)]).notes() == [f"failed: csp on demo (closed, seed 0): RuntimeError: {'x' * 299}…"]


def test_configurations_are_rows_told_apart_by_what_differs() -> None:
    configs: list[dict[str, Any]] = [{"options": {"fusion": "sum"}}, {"options": {"fusion": "sum", "low_layers": 2}}]
    table = Table(
        [result("msci", auc=0.1 * (n + 1), config=config, config_id=str(n)) for n, config in enumerate(configs)]
    )
    assert table.rows == ["msci", "msci [low_layers=2]"]
    assert aucs(table) == ["_10.0_", "*20.0*"]


def test_settings_outside_the_options_keep_their_section() -> None:
    configs: list[dict[str, Any]] = [
        {"options": {"fusion": name}, "train": {"lr": lr}} for name, lr in (("sum", 0.1), ("max", 0.2))
    ]
    table = Table([result(config=config, config_id=str(n)) for n, config in enumerate(configs)])
    assert table.rows == ["csp [fusion=sum, train.lr=0.1]", "csp [fusion=max, train.lr=0.2]"]


def test_recipes_of_different_datasets_are_one_row() -> None:
    table = Table(
        [
            result(dataset="demo", config={"train": {"lr": 0.1}}, config_id="a"),
            result(dataset="cgqa", config={"train": {"lr": 0.2}}, config_id="b"),
        ]
    )
    assert table.rows == ["csp"]


def test_a_variation_of_several_recipes_is_one_row_across_datasets() -> None:
    table = Table(
        [
            result(dataset=dataset, config={"options": {"depth": depth}, "train": {"lr": lr}}, config_id=f"{lr}{depth}")
            for dataset, lr in (("demo", 0.1), ("cgqa", 0.2))
            for depth in (1, 2)
        ]
    )
    assert table.rows == ["csp [depth=1]", "csp [depth=2]"]


@pytest.mark.parametrize("configs", [({"options": {"a": 1}}, {"options": {"a": "1"}}), ({}, {})])
def test_configurations_that_read_alike_are_told_apart_by_their_id(configs: tuple[dict[str, Any], ...]) -> None:
    table = Table([result(config=config, config_id=f"id{n}") for n, config in enumerate(configs)])
    assert table.rows == ["csp [config id0]", "csp [config id1]"]


def test_configurations_that_differ_in_much_are_told_apart_by_their_id() -> None:
    configs = [{"options": {f"option_{n}": value for n in range(9)}} for value in (1, 2)]
    table = Table([result(config=config, config_id=f"id{n}") for n, config in enumerate(configs)])
    assert table.rows == ["csp [config id0]", "csp [config id1]"]


def test_the_caption_says_which_area_it_is() -> None:
    assert "AUC: area under the original ~20-bias curve." in Table([result()]).to_text()
    assert "AUC: area under the curve through every breakpoint." in Table([result(bins="exact")]).to_text()


def test_no_results_make_no_table() -> None:
    with pytest.raises(CzslkitError, match="there are no results to put in a table"):
        Table([])


def test_a_result_given_twice_is_refused() -> None:
    message = r"msci on demo \(open, seed 3\) is there twice, each with configuration aaaaaaaa"
    for twin in (result("msci", world="open", seed=3), failed(DIVERGED, method="msci", world="open", seed=3)):
        with pytest.raises(CzslkitError, match=message):
            Table([result("msci", world="open", seed=3), twin])
        with pytest.raises(CzslkitError, match=message):
            Table([twin, result("msci", world="open", seed=3)])


def test_two_kinds_of_area_do_not_stand_side_by_side() -> None:
    message = (
        r"msci on cgqa \(open, seed 0\) has the AUC of bins='exact', csp on demo \(closed, seed 0\) that of "
        r"bins='original'\. Run one of them again, or choose: --methods, --datasets or --mixed\."
    )
    with pytest.raises(CzslkitError, match=message):
        Table([result("csp"), result("msci", dataset="cgqa", world="open", bins="exact")])


def test_results_on_different_data_do_not_stand_side_by_side() -> None:
    message = (
        r"msci on demo \(open, seed 0\) rests on other data than csp on demo \(closed, seed 0\) "
        r"\(data: test_pairs\.txt changed; data: x\.txt added\)\. Run one of them again, or choose: "
        r"--methods, --datasets or --mixed\."
    )
    with pytest.raises(CzslkitError, match=message):
        Table([result("csp"), result("msci", world="open", data={"test_pairs.txt": "d2", "x.txt": "d1"})])


def test_unlike_results_stand_side_by_side_when_asked_to_and_the_caption_says_so() -> None:
    table = Table([result("csp"), result("msci", bins="exact")], mixed=True)
    assert "Not measured alike: msci on demo (closed, seed 0) has the AUC of bins='exact'" in " ".join(table.caption())
    assert "Not measured alike" not in " ".join(Table([result("csp")], mixed=True).caption())


def opened(method: str = "csp", dataset: str = "demo", seed: int = 0, **protocol: Any) -> dict[str, Any]:
    """A finished cell of the open world, measured as the protocol says."""
    cut = {"threshold_from": "searched", "feasibility": "file.pt", "feasibility_sha256": "ab" * 32}
    cut["infeasible"] = "exclude"
    said = {**(cut if protocol.get("threshold") else {}), "bins": "original", "threshold": None, **protocol}
    return {**result(method, dataset, "open", seed), "protocol": said}


def open_world(*results: dict[str, Any], mixed: bool = False) -> list[str]:
    return [sentence for sentence in Table(results, mixed=mixed).caption() if sentence.startswith("Open world")]


def test_the_caption_says_that_there_is_no_threshold() -> None:
    everything = "Open world: all pairs are candidates, no feasibility threshold."
    assert open_world(opened(), opened("msci"), opened(dataset="cgqa")) == [everything]
    assert open_world(result(world="closed")) == []
    missing = "missing: feasibility_cgqa.pt"
    assert open_world(opened(), opened(dataset="cgqa", feasibility=missing)) == [
        "Open world of demo: all pairs are candidates, no feasibility threshold.",
        "Open world of cgqa: all pairs are candidates, no feasibility threshold (feasibility_cgqa.pt is missing).",
    ]


def test_the_caption_says_which_threshold_and_whose() -> None:
    published = {"threshold": 0.36183673469387756, "threshold_from": "published", "feasibility": "published.pt"}
    assert open_world(opened(**published), opened("msci", **{**published, "threshold": 0.4069159426})) == [
        "Open world of demo: infeasible pairs are excluded: unseen ones below 0.3618, 0.4069 (threshold published, "
        "feasibility from published.pt)."
    ]
    searched = {"threshold_from": "searched on validation", "feasibility": "/far/away/glove.txt"}
    searched["infeasible"] = "original"
    assert open_world(*(opened(seed=n, threshold=0.1 * (n + 1), **searched) for n in range(4))) == [
        "Open world of demo: infeasible pairs score 0 as in the original evaluator: unseen ones below 0.1 to 0.4 "
        "(threshold searched on validation, feasibility from glove.txt)."
    ]


def test_rows_of_different_thresholds_are_named() -> None:
    given = opened(threshold=0.5, threshold_from="given")
    searched = opened("msci", threshold=0.25, threshold_from="searched on validation")
    assert open_world(given, searched, opened("msci", "cgqa"), mixed=True) == [
        "Open world of demo: infeasible pairs are excluded: unseen ones below 0.5 (threshold given, feasibility from "
        "file.pt) [csp]; infeasible pairs are excluded: unseen ones below 0.25 (threshold searched on validation, "
        "feasibility from file.pt) [msci].",
        "Open world of cgqa: all pairs are candidates, no feasibility threshold.",
    ]


def test_other_values_of_a_threshold_found_alike_are_measured_alike_and_other_rules_not() -> None:
    closed = [result(), result("msci")]
    Table([*closed, opened(threshold=0.1), opened("msci", threshold=0.2)])
    Table([opened(threshold=0.1), opened("msci", "cgqa")])  # other datasets are other columns
    excluded, original = "infeasible pairs are excluded", "infeasible pairs score 0 as in the original evaluator"
    searched = "by a threshold searched on feasibility from"
    given = "given on feasibility from file.pt, of digest abababab"
    ways = {
        "no pair is infeasible": {},
        "no pair is infeasible, candidates have digest 0123abcd": {"candidates_sha256": "0123abcd" * 8},
        f"{excluded}, {searched} file.pt, of digest abababab": {"threshold": 0.1},
        f"{original}, {searched} file.pt, of digest abababab": {"threshold": 0.1, "infeasible": "original"},
        f"{excluded}, {searched} clip, of digest cdcdcdcd": {
            "threshold": 0.1,
            "feasibility": "clip",
            "feasibility_sha256": "cd" * 32,
        },
        f"{excluded}, by a threshold 0.1 {given}": {"threshold": 0.1, "threshold_from": "given"},
        f"{excluded}, by a threshold 0.2 {given}": {"threshold": 0.2, "threshold_from": "given"},
    }
    for (said, protocol), (other, another) in itertools.permutations(ways.items(), 2):
        pair = [*closed, opened(**another), opened("msci", **protocol)]
        message = f"in msci on demo (open, seed 0) {said}, in csp on demo (open, seed 0) {other}"
        with pytest.raises(CzslkitError, match=re.escape(f"{message}. Run one of them again, or choose: ")):
            Table(pair)
        assert f"Not measured alike: {message}." in Table(pair, mixed=True).caption()


def test_each_dataset_has_its_own_data_and_a_failure_has_none() -> None:
    other = {"test_pairs.txt": "d2"}
    Table([result("csp"), result("csp", dataset="cgqa", data=other), failed(MISSING_DATA, method="msci")])


def test_csv_is_tidy_and_exact() -> None:
    table = Table([result(auc=0.1, seed=0), result(auc=0.2, seed=1), failed(DIVERGED, world="open")])
    first, second = csv.DictReader(io.StringIO(table.to_csv()))
    assert (first["method"], first["dataset"], first["world"]) == ("csp", "demo", "closed")
    assert (first["done"], first["failed"], first["auc_n"]) == ("2", "0", "2")
    assert float(first["auc_mean"]) == statistics.fmean((0.1, 0.2))
    assert float(first["auc_std"]) == pytest.approx(0.5**0.5 / 10, rel=1e-15)
    assert (second["world"], second["done"], second["failed"]) == ("open", "0", "1")
    assert (second["auc_mean"], second["auc_std"], second["auc_n"]) == ("", "", "0")


def test_every_metric_reaches_the_csv() -> None:
    measured = result()
    measured["metrics"]["attr_acc"] = 0.25
    (row,) = csv.DictReader(io.StringIO(Table([measured, result(seed=1)]).to_csv()))
    assert (row["attr_acc_mean"], row["attr_acc_n"]) == ("0.25", "1")


def test_json_holds_every_seed_and_every_error() -> None:
    table = Table([result(auc=0.1, seed=0), result(auc=None, seed=1), failed(DIVERGED, seed=2)])
    content = json.loads(table.to_json())
    (row,) = content["rows"]
    assert (row["method"], row["dataset"], row["world"]) == ("csp", "demo", "closed")
    assert row["metrics"]["auc"] == {"mean": 0.1, "std": None, "n": 1}
    assert {seed: metrics["auc"] for seed, metrics in row["seeds"].items()} == {"0": 0.1, "1": None}
    assert row["failed"] == [2]
    assert [(error["cell"]["seed"], error["error"]["type"]) for error in content["failed"]] == [(2, "TrainingError")]


def test_markdown_has_as_many_cells_in_every_line() -> None:
    text = Table([result("csp"), result("msci", world="open"), failed(DIVERGED, method="a|b")]).to_markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {10}
    assert lines[0].startswith("| demo | closed S | closed U | closed H | closed AUC | open S |")


def test_latex_has_a_tabular_for_each_world() -> None:
    text = Table(
        [result("csp", seed=seed, auc=0.4 + 0.02 * seed) for seed in (0, 1)] + [result(world="open")]
    ).to_latex()
    assert text.count(r"\begin{tabular}{lrrrr}") == text.count(r"\end{tabular}") == 2
    assert r"closed world & \multicolumn{4}{c}{demo} \\" in text
    assert r"csp & 70.0 $\pm$ 0.0 & 60.0 $\pm$ 0.0 & 50.0 $\pm$ 0.0 & 41.0 $\pm$ 1.4 \\" in text
    assert text.index(r"\toprule") < text.index(r"\cmidrule") < text.index(r"\midrule") < text.index(r"\bottomrule")


def test_latex_shows_hostile_names_as_they_are() -> None:
    text = Table([result(HOSTILE), result("[x]"), result("*y")]).to_latex()
    name = r"\textless{}script\textgreater{}a\_b\&c\textbar{}50\%\#\$\textasciitilde{}\textasciicircum{}"
    assert name + r"\textbackslash{}\{x\} & " in text
    assert "\n{[}x] & " in text  # after the \\ of the line before, a bare bracket or star would be read as its argument
    assert "\n{*}y & " in text


def test_an_error_cannot_leave_its_latex_comment() -> None:
    text = Table([failed({"type": "DataError", "message": "a\nb\r\\input{x}\x0b\u2028c"})]).to_latex()
    after = text.split("\\end{table*}\n")[1]
    assert all(line.startswith("% ") for line in after.splitlines())


def test_markdown_shows_hostile_names_as_they_are() -> None:
    text = Table([result(HOSTILE)]).to_markdown()
    assert r"| &lt;script&gt;a\_b&amp;c\|50\%\#\$\~^\\\{x\} | 70.0 |" in text


def images(skill: float) -> bytes:
    """Numbers per image of a method that is right on some of 200 images."""
    random = np.random.default_rng(0)
    flags = {
        name: random.random(200) < skill for name in ("reachable", "right_at_last_bias", "attr_right", "obj_right")
    }
    scores = {name: random.normal(size=200) for name in ("true_score", "runner_up_score")}
    scores["wins_tie"] = np.ones(200, dtype=bool)
    bias = np.where(np.arange(200) % 4 == 1, random.normal(size=200), np.nan).astype(np.float32)
    columns = {"target": np.arange(200, dtype=np.int32), "is_seen": np.arange(200) % 2 == 0, "proposed_bias": bias}
    return Outcomes(**columns, **flags, **scores).to_bytes()  # type: ignore[arg-type]


SKILL = {"best": images(0.9), "tied": images(0.9), "poor": images(0.1)}


def attached(result: Any, name: str) -> bytes | None:
    return SKILL.get(result["cell"]["method"]) if name == "images.npz" else None


def sure(*more: Any, **options: Any) -> Table:
    """A table of three methods with numbers per image: one is the best, one may be as good, one is not."""
    aucs = {"best": 0.41, "tied": 0.40, "poor": 0.39}
    return Table([*(result(name, auc=auc) for name, auc in aucs.items()), *more], attached=attached, **options)


def test_what_may_be_as_good_as_the_best_reads_as_printed_by_hand() -> None:
    assert sure().to_text() == (
        "demo    ------------- closed -------------\n"
        "method      S        U        H      AUC\n"
        "best    *70.0*   *60.0*   *50.0*   *41.0*\n"
        "tied    *70.0*~  *60.0*~  *50.0*~  _40.0_~\n"
        "poor    *70.0*   *60.0*   *50.0*    39.0\n"
        "\n"
        "Percentages. S, U, H: best seen, best unseen and best harmonic-mean accuracy.\n"
        "AUC: area under the original ~20-bias curve.\n"
        "~: not significantly below the best of its column (the 95% interval of the paired difference holds 0; "
        "bootstrap, 1000 resamples of the test images, not corrected for many comparisons).\n"
        "*Best* and _second_ of each column.\n"
    )


@pytest.mark.parametrize(
    ("render", "mark"),
    [
        (lambda table: table.to_text(color=True), "\x1b[4m40.0\x1b[0m~"),
        (lambda table: table.to_markdown(), "<u>40.0</u>\\~ |"),
        (lambda table: table.to_latex(), r"\underline{40.0}\textasciitilde{} \\"),
        (lambda table: table.to_html(), "<td><u>40.0</u>~</td>"),
    ],
)
def test_each_format_marks_what_may_be_as_good_as_the_best_and_says_so(render: Any, mark: str) -> None:
    text = render(sure())
    assert text.count(mark) == 1
    assert "not significantly below the best of its column" in text


@pytest.mark.parametrize("render", ["to_text", "to_markdown", "to_latex", "to_csv", "to_json", "to_html"])
def test_results_without_numbers_per_image_are_rendered_as_ever(render: str) -> None:
    results = [result("csp"), result("msci", auc=0.41)]
    plain, asked = Table(results), Table(results, attached=lambda result, name: None, intervals=True)
    assert getattr(asked, render)() == getattr(plain, render)()


def test_intervals_are_printed_when_asked_for() -> None:
    table = sure(intervals=True)
    low, high = table.findings.intervals["tied", "demo", "closed"]["auc"]
    shown = f"40.0 [{100 * low:.1f}, {100 * high:.1f}]"
    assert f"_{shown}_~" in table.to_text()
    assert f"<u>{shown}</u>\\~".replace("[", "\\[").replace("]", "\\]") in table.to_markdown()
    assert "[low, high]: 95% bootstrap interval, 1000 resamples of the test images." in table.to_text()
    lines = [line for line in table.to_text().split("\n\n")[0].splitlines() if "[" in line]
    assert len({line.index(",") for line in lines}) == 1
    assert "[" not in sure().to_text()


def test_a_row_without_numbers_per_image_is_named() -> None:
    assert "old on demo (closed): not compared: no numbers per image" in sure(result("old", auc=0.1)).notes()


def test_csv_holds_the_intervals_where_there_are_any() -> None:
    best, tied, poor, old = csv.DictReader(io.StringIO(sure(result("old", auc=0.1)).to_csv()))
    low, high = sure().findings.intervals["tied", "demo", "closed"]["auc"]
    assert (float(tied["auc_low"]), float(tied["auc_high"]), tied["auc_tied"]) == (low, high, "True")
    assert (best["auc_tied"], poor["auc_tied"]) == ("", "False")
    assert (old["auc_low"], old["auc_high"], old["auc_tied"], old["auc_mean"]) == ("", "", "", "0.1")
    (plain,) = csv.DictReader(io.StringIO(Table([result()]).to_csv()))
    assert "auc_low" not in plain


def test_json_holds_the_intervals_and_the_distance_to_the_best() -> None:
    table = sure()
    content = json.loads(table.to_json())
    best, tied, poor = content["rows"]
    assert content["bootstrap"] == {"resamples": 1000, "seed": 0, "level": 0.95}
    assert [best["metrics"]["auc"]["low"], best["metrics"]["auc"]["high"]] == list(
        table.findings.intervals["best", "demo", "closed"]["auc"]
    )
    assert "against_best" not in best
    gap = tied["against_best"]["auc"]
    assert gap["difference"] == pytest.approx(-0.01)
    assert gap | {"difference": 0} == {"best": "best", "difference": 0, "low": 0, "high": 0, "below": 0, "tied": True}
    assert poor["against_best"]["auc"]["high"] < 0
    assert poor["metrics"]["auc"]["tied"] is False


def test_the_page_tells_the_intervals_of_each_seed() -> None:
    text = html.unescape(sure().to_html())
    low, high = sure().findings.of_seeds[("best", "demo", "closed"), 0]["auc"]
    assert f'"auc": [{low}, {high}]' in text


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag not in ("meta",):
            self.open.append(tag)
        assert not {name for name, _ in attrs} & {"src", "href"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_shows_hostile_content_as_text() -> None:
    wicked = result(HOSTILE, dataset="<b>", world="<i>", config={"options": {"x": "</pre><script>"}})
    error = {"type": "<img>", "message": "<svg>", "traceback": "</pre><script>"}
    page = Page(Table([wicked, failed(error, config_id="bbbbbbbb", seed=1)]).to_html())
    assert page.open == []
    assert not {"script", "img", "svg", "i", "b"} & set(page.tags)
    assert "<script>a_b&c|50%#$~^\\{x}" in page.text
    assert "<img>: <svg>" in page.text


def test_html_holds_what_stands_behind_each_number() -> None:
    text = Table([result(), failed(DIVERGED, method="msci")]).to_html()
    page = Page(text)
    assert page.open == []
    assert page.tags.count("details") == 2
    assert html.escape('"train_s": 12.3', quote=True).replace("&quot;", "&#34;") in text
    assert "csp on demo (closed, seed 0): done" in page.text
    assert "msci on demo (closed, seed 0): failed" in page.text


@pytest.mark.parametrize("render", ["to_text", "to_markdown", "to_latex", "to_csv", "to_json", "to_html"])
def test_no_terminal_escape_gets_through(render: str) -> None:
    error = {"type": "\x1b[1mType", "message": "\x1b[2J\x9b2Jgone\x07", "traceback": "plain"}
    setting = {"options": {"x": "\x1b[31m"}}
    table = Table(
        [
            result(HOSTILE, dataset="\x1b]0;title\x07", world="a\nb\u202ec"),
            result(HOSTILE, dataset="\x1b]0;title\x07", world="a\nb\u202ec", config=setting, config_id="\x1b[31m"),
            failed(error, method="csp", dataset="x"),
        ]
    )
    text = getattr(table, render)()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_a_table_changes_nothing_it_was_given() -> None:
    results = [result(HOSTILE), result("msci", seed=1), failed(DIVERGED)]
    before = json.dumps(results)
    table = Table(results)
    for render in (table.to_text, table.to_markdown, table.to_latex, table.to_csv, table.to_json, table.to_html):
        assert render() == render()
    assert json.dumps(results) == before


def test_the_report_does_not_import_torch() -> None:
    program = "import sys, czslkit.report.table; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
