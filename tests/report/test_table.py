from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from czslkit.errors import CzslkitError
from czslkit.report.table import Table

Make = Callable[..., dict[str, Any]]
ReadAucs = Callable[[Table], list[str]]
MakeTable = Callable[..., Table]
DIVERGED = {"type": "TrainingError", "message": "loss is nan\nat step 3", "traceback": "Traceback ..."}
HOSTILE = "\x1b[31m<script>a_b&c|50%#$~^\\{x}\x1b[0m"


def test_a_table_of_two_methods_reads_as_printed_by_hand(result: Make) -> None:
    table = Table([result("csp"), result("csp", world="open", auc=0.2), result("msci", auc=0.41)])
    assert table.to_text() == (
        "demo    ----------- closed -----------  ------------ open ------------\n"
        "method      S       U       H     AUC       S       U       H     AUC\n"
        "csp     *70.0*  *60.0*  *50.0*  _40.0_   70.0    60.0    50.0    20.0\n"
        "msci    *70.0*  *60.0*  *50.0*  *41.0*      -       -       -       -\n"
        "\n"
        "All numbers are percentages. S, U and H are the best seen, best unseen and best harmonic-mean accuracy.\n"
        "AUC is the area under the original ~20-bias curve.\n"
        "In each column, the *best* and the _second best_ number are marked.\n"
    )


def test_the_mean_of_seeds_has_a_sample_standard_deviation(result: Make, printed_aucs: ReadAucs) -> None:
    # 40, 42, 47: mean 43, deviations -3, -1, 4, so variance 26 / 2 = 13
    table = Table([result(seed=seed, auc=auc) for seed, auc in enumerate((0.40, 0.42, 0.47))])
    assert printed_aucs(table) == ["43.0 ± 3.6"]
    assert "Numbers are mean ± sample standard deviation (ddof=1) over 3 seeds." in table.to_text()


def test_one_seed_has_no_standard_deviation(result: Make) -> None:
    assert "±" not in Table([result()]).to_text()


def test_rows_that_have_fewer_seeds_are_admitted_in_the_caption(result: Make) -> None:
    table = Table([result(seed=0), result(seed=1), result("msci")])
    assert "over 1 to 2 seeds." in table.to_text()


def test_best_and_second_agree_with_a_naive_loop(result: Make, printed_aucs: ReadAucs) -> None:
    chance = random.Random(0)
    for _ in range(20):
        scores = [chance.choice((0.1, 0.2, 0.3, 0.4)) for _ in range(5)]
        shown = printed_aucs(Table([result(f"m{i}", auc=score) for i, score in enumerate(scores)]))
        for score, text in zip(scores, shown, strict=True):
            better = len({other for other in scores if other > score})
            number = f"{100 * score:.1f}"
            assert text.strip() == (f"*{number}*", f"_{number}_", number, number)[better]


def test_scores_that_print_alike_share_the_mark(result: Make, printed_aucs: ReadAucs) -> None:
    table = Table([result("a", auc=0.41004), result("b", auc=0.40996), result("c", auc=0.4)])
    assert printed_aucs(table) == ["*41.0*", "*41.0*", "_40.0_"]


def test_the_best_is_by_size_not_by_spelling(result: Make, printed_aucs: ReadAucs) -> None:
    assert printed_aucs(Table([result("a", auc=0.09), result("b", auc=0.10), result("c", auc=1.0)])) == [
        "9.0",
        "_10.0_",
        "*100.0*",
    ]


def test_a_single_row_is_not_marked(result: Make) -> None:
    table = Table([result()])
    assert "*" not in table.to_text()
    assert "\x1b" not in table.to_text(color=True)
    assert "**" not in table.to_markdown()
    assert "textbf" not in table.to_latex()
    assert "<b>" not in table.to_html()
    assert "second best is underlined" not in table.to_markdown()


def test_a_single_number_in_a_column_is_not_marked(result: Make, failed: Make, printed_aucs: ReadAucs) -> None:
    assert printed_aucs(Table([result(), failed(DIVERGED, method="msci")])) == ["40.0", "failed"]


def test_an_undefined_metric_is_a_dash_and_not_averaged(result: Make, printed_aucs: ReadAucs) -> None:
    assert printed_aucs(Table([result("a", auc=None), result("b", auc=0.4)])) == ["-", "40.0"]
    assert printed_aucs(Table([result(seed=0, auc=None), result(seed=1, auc=0.4)])) == ["40.0"]


def test_rows_keep_the_order_first_given(result: Make) -> None:
    table = Table([result("msci"), result("clip"), result("msci", world="open"), result("csp")])
    assert table.arrangement.rows == ("msci", "clip", "csp")


def test_a_method_not_run_on_a_dataset_has_no_line_there(result: Make) -> None:
    blocks = Table([result("csp"), result("msci", dataset="cgqa")]).to_text().split("\n\n")
    assert "msci" not in blocks[0]
    assert "csp" not in blocks[1]


def test_the_caption_says_which_area_it_is(result: Make) -> None:
    assert "AUC is the area under the original ~20-bias curve." in Table([result()]).to_text()
    assert "AUC is the area under the curve through every breakpoint." in Table([result(bins="exact")]).to_text()


def test_no_results_make_no_table() -> None:
    with pytest.raises(CzslkitError, match="there are no results to put in a table"):
        Table([])


def test_a_result_given_twice_is_refused(result: Make, failed: Make) -> None:
    message = r"msci on demo \(open, seed 3\) occurs twice, each time with configuration aaaaaaaa"
    for twin in (result("msci", world="open", seed=3), failed(DIVERGED, method="msci", world="open", seed=3)):
        with pytest.raises(CzslkitError, match=message):
            Table([result("msci", world="open", seed=3), twin])
        with pytest.raises(CzslkitError, match=message):
            Table([twin, result("msci", world="open", seed=3)])


def test_a_table_with_tie_marks_reads_as_printed_by_hand(compared_table: MakeTable) -> None:
    assert compared_table().to_text() == (
        "demo    ------------- closed -------------\n"
        "method      S        U        H      AUC\n"
        "best    *70.0*   *60.0*   *50.0*   *41.0*\n"
        "tied    *70.0*~  *60.0*~  *50.0*~  _40.0_~\n"
        "poor    *70.0*   *60.0*   *50.0*    39.0\n"
        "\n"
        "All numbers are percentages. S, U and H are the best seen, best unseen and best harmonic-mean accuracy.\n"
        "AUC is the area under the original ~20-bias curve.\n"
        "~ marks numbers that are not significantly below the best of their column: the 95% interval of the paired "
        "difference contains 0 (bootstrap, 1000 resamples of the test images, not corrected for multiple "
        "comparisons).\n"
        "In each column, the *best* and the _second best_ number are marked.\n"
    )


@pytest.mark.parametrize("render", ["to_text", "to_markdown", "to_latex", "to_csv", "to_json", "to_html"])
def test_results_without_numbers_per_image_are_rendered_without_intervals(render: str, result: Make) -> None:
    results = [result("csp"), result("msci", auc=0.41)]
    plain, asked = Table(results), Table(results, attached=lambda result, name: None, intervals=True)
    assert getattr(asked, render)() == getattr(plain, render)()


def test_intervals_are_printed_when_asked_for(compared_table: MakeTable) -> None:
    table = compared_table(intervals=True)
    low, high = table.significance.intervals["tied", "demo", "closed"]["auc"]
    shown = f"40.0 [{100 * low:.1f}, {100 * high:.1f}]"
    assert f"_{shown}_~" in table.to_text()
    assert f"<u>{shown}</u>\\~".replace("[", "\\[").replace("]", "\\]") in table.to_markdown()
    assert "[low, high] is the 95% bootstrap interval from 1000 resamples of the test images." in table.to_text()
    lines = [line for line in table.to_text().split("\n\n")[0].splitlines() if "[" in line]
    assert len({line.index(",") for line in lines}) == 1
    assert "[" not in compared_table().to_text()


def test_a_row_without_numbers_per_image_is_named(result: Make, compared_table: MakeTable) -> None:
    assert (
        "old on demo (closed) is not compared with the best: there are no numbers per image"
        in compared_table(result("old", auc=0.1)).notes()
    )


@pytest.mark.parametrize("render", ["to_text", "to_markdown", "to_latex", "to_csv", "to_json", "to_html"])
def test_no_terminal_escape_gets_through(render: str, result: Make, failed: Make) -> None:
    error = {"type": "\x1b[1mType", "message": "\x1b[2J\x9b2Jgone\x07", "traceback": "plain"}
    setting = {"options": {"x": "\x1b[31m", "y\x1b[31m": 1}}
    table = Table(
        [
            result(HOSTILE, dataset="\x1b]0;title\x07", world="a\nb\u202ec"),
            result(HOSTILE, dataset="\x1b]0;title\x07", world="a\nb\u202ec", config=setting, config_id="\x1b[31m"),
            failed(error, method="csp", dataset="x"),
        ]
    )
    text = getattr(table, render)()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_a_table_changes_nothing_it_was_given(result: Make, failed: Make) -> None:
    results = [result(HOSTILE), result("msci", seed=1), failed(DIVERGED)]
    before = json.dumps(results)
    table = Table(results)
    for render in (table.to_text, table.to_markdown, table.to_latex, table.to_csv, table.to_json, table.to_html):
        assert render() == render()
    assert json.dumps(results) == before


def test_the_report_does_not_import_torch() -> None:
    program = "import sys, czslkit.report.table; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
