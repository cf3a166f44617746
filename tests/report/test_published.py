"""Our numbers and the published numbers, in every format."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest

from czslkit.errors import CzslkitError
from czslkit.metrics.names import METRICS
from czslkit.report.table import Table
from czslkit.report.text_markdown_latex import WIDTH

PRINTED = {"S": 68.0, "U": 60.0, "H": 50.05, "AUC": 40.25, "source": "Table 2"}
SPREAD = {"S": 0.4, "U": 0.2, "H": 0.2, "AUC": 0.1, "what": "standard error over 5 random seeds"}
HOSTILE = "\x1b[31m<script>a_b&c|50%#$~^\\{x}\x1b[0m"


def result(
    method: str = "csp",
    world: str = "closed",
    seed: int = 0,
    dataset: str = "cgqa",
    published: dict[str, Any] | None = PRINTED,
    changed: tuple[str, ...] = (),
    **metrics: float | None,
) -> dict[str, Any]:
    """Return a finished cell, by default with S = 0.7, U = 0.6, H = 0.5 and AUC = 0.4."""
    numbers = {"best_seen": 0.7, "best_unseen": 0.6, "best_hm": 0.5, "auc": 0.4} | metrics
    made = {
        "cell": {"method": method, "dataset": dataset, "world": world, "seed": seed, "config_id": "aaaaaaaa"},
        "status": "done",
        "config": {},
        "protocol": {"bins": "original"},
        "depends": {},
        "metrics": numbers,
        "recipe": {"name": f"{dataset}/nayak2023_{method}", "changed": list(changed)},
    }
    return made | ({} if published is None else {"published": published})


def failed(**cell: Any) -> dict[str, Any]:
    error = {"type": "TrainingError", "message": "loss is nan"}
    return result(**cell) | {"status": "failed", "error": error, "metrics": {}, "protocol": {}, "depends": {}}


def beside(table: Table) -> str:
    """Return the second block of the text."""
    blocks = table.to_text().split("\n\n")
    return "\n\n".join(blocks[2:])


def test_a_number_that_is_not_published_is_a_dash_and_has_no_verdict() -> None:
    partly = PRINTED | {"S": None, "U": None, "spread": SPREAD | {"S": None, "U": None}}
    assert beside(Table([result(published=partly)])).startswith(
        "cgqa                  -------------- closed --------------\n"
        "method                   S     U            H          AUC\n"
        "csp: ours             70.0  60.0        50.00        40.00\n"
        "csp: published           -     -  50.05 ± 0.2  40.25 ± 0.1\n"
        "csp: difference          -     -        -0.05        -0.25\n"
        "csp: verdict, 1 seed     -     -       within        below\n"
    )
    table = Table([result(published=partly), result(world="open", published=partly, changed=("backbone",))])
    rows = json.loads(table.to_json())["published"]["rows"]
    assert [row["verdict"] for row in rows] == [
        {"S": None, "U": None, "H": "within", "AUC": "below"},
        {"S": None, "U": None, "H": "NOT COMPARABLE", "AUC": "NOT COMPARABLE"},
    ]
    cells = next(csv.DictReader(io.StringIO(table.to_csv())))
    assert (cells["best_seen_published"], cells["best_seen_verdict"], cells["auc_published"]) == ("", "", "0.4025")


def test_the_comparison_reads_as_printed_by_hand() -> None:
    spread = PRINTED | {"spread": SPREAD}
    table = Table([result(published=spread), result(world="open", published=None)])
    assert beside(table) == (
        "cgqa                  -------------------- closed --------------------  --- open ---\n"
        "method                         S           U            H          AUC  S  U  H  AUC\n"
        "csp: ours                   70.0        60.0        50.00        40.00  -  -  -    -\n"
        "csp: published        68.0 ± 0.4  60.0 ± 0.2  50.05 ± 0.2  40.25 ± 0.1  -  -  -    -\n"
        "csp: difference             +2.0        +0.0        -0.05        -0.25  -  -  -    -\n"
        "csp: verdict, 1 seed       above      within       within        below  -  -  -    -\n"
        "\n"
        "Our numbers and the published numbers are percentages; the difference is in percentage points.\n"
        "The ± of the published numbers is: standard error over 5 random seeds.\n"
        "The published numbers are from: Table 2.\n"
        "The verdict is 'within' if the difference, as printed, is at most the published spread or the standard "
        "deviation over our seeds, else 'above' or 'below'.\n"
        "All settings are those of the recipe unless a note names a change.\n"
    )


def lines(table: Table) -> dict[str, list[str]]:
    """Return the cells of each line of the second block by the label of the line."""
    found = [re.split("  +", line) for line in beside(table).splitlines() if line.startswith("csp: ")]
    return {label: cells for label, *cells in found}


def test_without_any_spread_only_an_equal_number_is_within() -> None:
    table = Table([result(best_seen=0.68049, best_unseen=0.6006, best_hm=0.5, auc=0.4025)])
    assert lines(table) == {
        "csp: ours": ["68.0", "60.1", "50.00", "40.25"],
        "csp: published": ["68.0", "60.0", "50.05", "40.25"],
        "csp: difference": ["+0.0", "+0.1", "-0.05", "+0.00"],
        "csp: verdict, 1 seed": ["within", "above", "below", "within"],
    }
    assert "No spread is known: none is published, and one seed has none.\n" in beside(table)


def test_three_seeds_have_a_spread_of_their_own() -> None:
    seeds = [(0.67, 0.63), (0.69, 0.64), (0.71, 0.65)]  # S 69 ± 2, U 64 ± 1
    table = Table([result(seed=i, best_seen=s, best_unseen=u, auc=0.40) for i, (s, u) in enumerate(seeds)])
    assert lines(table) == {
        "csp: ours": ["69.0 ± 2.0", "64.0 ± 1.0", "50.00 ± 0.00", "40.00 ± 0.00"],
        "csp: published": ["68.0", "60.0", "50.05", "40.25"],
        "csp: difference": ["+1.0", "+4.0", "-0.05", "-0.25"],
        "csp: verdict, 3 seeds": ["within", "above", "below", "below"],
    }
    assert "No spread is known" not in beside(table)


def test_the_larger_spread_counts() -> None:
    spread = PRINTED | {"spread": SPREAD | {"S": 0.1, "AUC": 0.3}}
    (row,) = Table([result(seed=i, published=spread, best_seen=s) for i, s in enumerate((0.67, 0.70))]).comparisons
    assert row.own_spread["S"] == pytest.approx(100 * 0.03 / 2**0.5) and row.own_spread["AUC"] == 0
    assert [row.verdict(name) for name in METRICS] == ["within", "within", "within", "within"]


@pytest.mark.parametrize(
    ("auc", "spread", "verdict"),
    [(0.405, 0.25, "within"), (0.4051, 0.25, "above"), (0.40, 0.25, "within"), (0.3999, 0.25, "below")],
)
def test_a_difference_as_large_as_the_spread_is_within(auc: float, spread: float, verdict: str) -> None:
    (row,) = Table([result(auc=auc, published=PRINTED | {"spread": SPREAD | {"AUC": spread}})]).comparisons
    assert row.verdict("AUC") == verdict


def test_the_seeds_of_a_line_are_those_of_its_columns() -> None:
    both = [result(seed=0), result(seed=1), result(world="open", seed=0), failed(world="open", seed=1)]
    table = Table(both)
    verdict_lines = [line for line in table.to_markdown().splitlines() if line.startswith("| csp: verdict")]
    verdicts = "above | within | below | below"
    assert verdict_lines == [f"| csp: verdict, 1 to 2 seeds | {verdicts} | {verdicts} |"]
    assert [(row.world, row.seeds) for row in table.comparisons] == [("closed", 2), ("open", 1)]
    assert "csp on cgqa (open): 1 of 2 seeds finished" in table.to_text()
    assert "No spread is known of csp on cgqa (open): none is published, and one seed has none." in table.to_text()


OTHER_DATA = {"data_differences": ["pairs 36 instead of 7,555", "train pairs 24 instead of 5,592", "a", "b", "c"]}
DATA_NOTE = (
    "cgqa: the data are not the published ones: pairs 36 instead of 7,555, train pairs 24 instead of 5,592, a, and 2 "
    "more"
)
NO_FILE = {"protocol": {"bins": "original", "threshold": None, "feasibility": "missing: feasibility_cgqa.pt"}}
CANDIDATES_NOTE = "every pair is a candidate here, although the recipe has a feasibility threshold"


def test_other_data_are_said_in_place_of_a_difference() -> None:
    table = Table([result() | OTHER_DATA, result("msci") | OTHER_DATA])
    found = lines(table)
    assert (found["csp: difference"], found["csp: verdict, 1 seed"]) == (["other data"], ["NOT COMPARABLE"])
    assert beside(table).count(DATA_NOTE) == 1
    assert "The verdict is" not in beside(table) and "No spread" not in beside(table)
    assert {row.difference("S") for row in table.comparisons} == {None}


def test_the_open_world_without_the_published_file_is_not_comparable() -> None:
    table = Table([result(), result(world="open") | NO_FILE])
    found = lines(table)
    assert found["csp: difference"] == ["+2.0", "+0.0", "-0.05", "-0.25", "no threshold"]
    assert found["csp: verdict, 1 seed"] == ["above", "within", "below", "below", "NOT COMPARABLE"]
    assert f"csp on cgqa (open): {CANDIDATES_NOTE}\n" in beside(table)


def in_open_world(*changed: str, **protocol: Any) -> dict[str, Any]:
    known = {"bins": "original", "threshold": 0.4, "feasibility": "feasibility_cgqa.pt"}
    return result(world="open", changed=changed) | {"protocol": known | protocol}


@pytest.mark.parametrize(
    ("made", "words", "reason"),
    [
        (in_open_world("eval.threshold", threshold=None), "no threshold", "because eval.threshold is null, unlike in"),
        (in_open_world("eval.feasibility", feasibility="clip"), "other feasibility", "is from clip, not from that of"),
        (in_open_world("eval.feasibility", feasibility="method"), "other feasibility", "is from method, not from"),
        (result(changed=("backbone",)), "other backbone", "the backbone is another one, not that of the recipe"),
        (
            result(changed=("backbone",)) | {"config": {"options": {"backbone": "demo"}}},
            "other backbone",
            "the backbone is demo, not that of the recipe",
        ),
    ],
)
def test_other_candidates_and_another_backbone_are_not_comparable(made: Any, words: str, reason: str) -> None:
    table = Table([made])
    found = lines(table)
    assert (found["csp: difference"], found["csp: verdict, 1 seed"]) == ([words], ["NOT COMPARABLE"])
    (note,) = [line for line in beside(table).splitlines() if line.startswith("csp on cgqa (")]
    assert reason in note


def test_a_recipe_without_a_threshold_is_compared() -> None:
    (row,) = Table([in_open_world(threshold=None, feasibility=None)]).comparisons
    assert row.verdict("S") == "above"


@pytest.mark.parametrize(
    "made",
    [
        result(changed=("train.lr",)),
        result(changed=("weights (those in mine, not trained here)",)),
        result(changed=("backbone",)) | {"config": {"options": {"backbone": "/weights/ViT-L-14.pt"}}},
        result(changed=("eval.threshold",)) | {"config": {"train": {"select_world": "open"}}},
        in_open_world("eval.threshold", threshold=0.3),
    ],
)
def test_a_verdict_names_settings_that_differ_from_the_recipe(made: dict[str, Any]) -> None:
    table = Table([made])
    verdicts = [f"{verdict} (changed)" for verdict in ("above", "within", "below", "below")]
    assert lines(table)["csp: verdict, 1 seed"] == verdicts
    assert "'(changed)' marks verdicts on numbers with settings that differ from the recipe.\n" in beside(table)


def test_settings_of_the_open_world_change_no_verdict_on_the_closed_world() -> None:
    made = result(changed=("eval.threshold", "eval.feasibility", "eval.infeasible"))
    assert lines(Table([made]))["csp: verdict, 1 seed"] == ["above", "within", "below", "below"]


def test_one_seed_of_other_data_makes_the_mean_not_comparable() -> None:
    (row,) = Table([result(), result(seed=1) | OTHER_DATA], mixed=True).comparisons
    assert row.obstacle and row.obstacle.words == "other data"


def test_an_obstacle_is_in_every_format() -> None:
    table = Table([result() | OTHER_DATA, result(world="open") | NO_FILE])
    markdown = table.to_markdown()
    assert "| csp: difference | other data |  |  |  | no threshold |  |  |  |" in markdown
    assert "| csp: verdict, 1 seed | NOT COMPARABLE |  |  |  | NOT COMPARABLE |  |  |  |" in markdown
    latex = table.to_latex()
    assert r"csp: difference & \multicolumn{4}{c}{other data} \\" in latex
    assert r"csp: verdict, 1 seed & \multicolumn{4}{c}{NOT COMPARABLE} \\" in latex
    page = table.to_html()
    assert page.count('<td colspan="4">NOT COMPARABLE</td>') == 2
    assert '<td colspan="4">other data</td>' in page and '<td colspan="4">no threshold</td>' in page
    closed, opened = csv.DictReader(io.StringIO(table.to_csv()))
    for row, reason in ((closed, DATA_NOTE.removeprefix("cgqa: ")), (opened, CANDIDATES_NOTE)):
        assert (row["auc_verdict"], row["auc_difference"], row["auc_published"]) == ("NOT COMPARABLE", "", "0.4025")
        assert row["not_comparable"] == reason
    for found, reason in zip(
        json.loads(table.to_json())["published"]["rows"],
        (DATA_NOTE.removeprefix("cgqa: "), CANDIDATES_NOTE),
        strict=True,
    ):
        assert (found["verdict"]["S"], found["difference"]["S"], found["unlike"]) == ("NOT COMPARABLE", None, reason)


@pytest.mark.parametrize("counts", ["a text", 3, {"a": 1}, [None, 2]])
def test_any_content_in_place_of_the_counts_is_an_obstacle(counts: Any) -> None:
    (row,) = Table([result() | {"data_differences": counts}]).comparisons
    assert row.obstacle and row.obstacle.reason.startswith("the data are not the published ones: ")


def test_results_without_published_numbers_make_no_second_block() -> None:
    table = Table([result(published=None)])
    assert table.to_text().count("method") == 1
    assert "published" not in table.to_text() + table.to_markdown() + table.to_latex() + table.to_csv()
    assert "published" not in json.loads(table.to_json())
    assert 'id="published"' not in table.to_html()


def test_ours_is_the_mean_of_the_finished_seeds() -> None:
    results = [result(seed=0, auc=0.40), result(seed=1, auc=0.41), result(seed=2, auc=None), failed(seed=3)]
    (row,) = Table(results).comparisons
    assert row.ours["AUC"] == pytest.approx(40.5)
    assert row.difference("AUC") == pytest.approx(0.25)


def test_an_undefined_metric_has_no_difference() -> None:
    (row,) = Table([result(best_hm=None)]).comparisons
    assert [row.printed(kind)[2] for kind in ("ours", "difference", "verdict")] == ["-", "-", "-"]
    assert row.printed("verdict")[3] == "below"
    assert (row.csv_columns()["best_hm_verdict"], row.as_dict()["verdict"]["H"]) == (None, None)
    assert (row.csv_columns()["auc_verdict"], row.as_dict()["verdict"]["AUC"]) == ("below", "below")


def test_a_row_of_failures_is_left_out() -> None:
    assert Table([failed()]).comparisons == []


def test_a_small_difference_has_no_negative_zero() -> None:
    (row,) = Table([result(best_seen=0.67999)]).comparisons
    assert row.printed("difference")[0] == "+0.0"


def test_numbers_published_with_two_decimals_are_compared_with_two() -> None:
    (row,) = Table([result(auc=0.0031, published=PRINTED | {"AUC": 0.27})]).comparisons
    assert [row.printed(what)[3] for what in ("ours", "published", "difference")] == ["0.31", "0.27", "+0.04"]


def test_rows_keep_the_order_of_the_table() -> None:
    table = Table([result("msci"), result("clip", published=None), result("csp")])
    assert re.findall(r"^(\w+): ours", beside(table), re.MULTILINE) == ["msci", "csp"]


def test_a_comparison_fits_a_terminal() -> None:
    spread = PRINTED | {"spread": SPREAD}
    table = Table([result("a_rather_long_name", world, published=spread) for world in ("closed", "open")])
    tables = [block for block in beside(table).split("\n\n") if "\nmethod" in block]
    assert len(tables) == 2  # too wide for both worlds at once
    assert max(len(line) for block in tables for line in block.splitlines()) <= WIDTH


def test_the_caption_names_sources_and_what_the_spread_is() -> None:
    other = PRINTED | {"source": "a README", "spread": SPREAD}
    caption = beside(Table([result("clip"), result("csp"), result("troika", published=other)]))
    assert "The published numbers are from: clip, csp: Table 2; troika: a README.\n" in caption
    assert "The ± of the published numbers is: troika: standard error over 5 random seeds.\n" in caption
    assert "The published numbers are from: Table 2.\n" in beside(Table([result("clip"), result("csp", "open")]))


def test_changed_settings_are_noted_once_for_both_worlds() -> None:
    table = Table([result(world=world, changed=("backbone", "train.epochs")) for world in ("closed", "open")])
    note = "csp on cgqa: backbone, train.epochs changed from recipe cgqa/nayak2023_csp\n"
    assert table.to_text().count(note) == 1
    assert "changed from" not in Table([result()]).to_text()


def test_other_published_values_are_notes() -> None:
    other = PRINTED | {"disagreement": "AUC is 36.9 in a survey"}
    assert "csp on cgqa (closed) as published: AUC is 36.9 in a survey\n" in Table([result(published=other)]).to_text()


def test_markdown_has_as_many_cells_in_every_line_of_a_block() -> None:
    text = Table([result(changed=("train.lr",)), result(world="open", published=None)]).to_markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {10}
    assert "| csp: difference | +2.0 | +0.0 | -0.05 | -0.25 | - | - | - | - |" in lines
    assert "- csp on cgqa: train.lr changed from recipe cgqa/nayak2023\\_csp\n" in text


def test_latex_has_a_second_float() -> None:
    text = Table([result(published=PRINTED | {"spread": SPREAD})]).to_latex()
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\caption{") == 2
    assert r"csp: published & 68.0 $\pm$ 0.4 & 60.0 $\pm$ 0.2 & 50.05 $\pm$ 0.2 & 40.25 $\pm$ 0.1 \\" in text


def test_latex_prints_changed_settings_below_the_table_and_marks_the_verdicts() -> None:
    text = Table([result(changed=("train.lr",)), result("clip", world="open") | NO_FILE]).to_latex()
    note = "csp on cgqa: train.lr changed from recipe cgqa/nayak2023_csp"
    printed = text.replace(r"\allowbreak{}", "").split(r"\label{tab:published-closed}")[1].split(r"\end{table}")[0]
    assert f"{note}.".replace("_", r"\_") in printed.split(r"\parbox")[1]
    assert f"clip on cgqa (open): {CANDIDATES_NOTE}." in printed
    assert r"csp: verdict, 1 seed & above & within & below & below" in printed
    assert printed.count(r"{\scriptsize (changed)}") == 4
    assert f"% {note}\n" in text


def test_html_has_a_second_table() -> None:
    page = Table([result(changed=("train.lr",))]).to_html()
    text = page.split('<section id="published">')[1].split("</section>")[0]
    assert text.count("<table>") == 1
    cells = "<td>+2.0</td><td>+0.0</td><td>-0.05</td><td>-0.25</td></tr>"
    assert f'<tr><th scope="row">csp: difference</th>{cells}' in text.replace("\n", "")
    cells = "".join(f"<td>{one} (changed)</td>" for one in ("above", "within", "below", "below")) + "</tr>"
    assert f'<tr><th scope="row">csp: verdict, 1 seed</th>{cells}' in text.replace("\n", "")
    assert "<li>csp on cgqa: train.lr changed from recipe cgqa/nayak2023_csp</li>" in text
    assert "<h4>recipe</h4>" in page and "<h4>published</h4>" in page


def test_csv_holds_fractions_and_blanks_where_nothing_was_published() -> None:
    spread = PRINTED | {"spread": SPREAD}
    table = Table([result(published=spread, changed=("a", "b")), result("mine", published=None)])
    first, second = csv.DictReader(io.StringIO(table.to_csv()))
    assert (first["best_seen_published"], first["best_seen_spread"], first["best_seen_difference"]) == (
        "0.68",
        "0.004",
        "0.02",
    )
    assert (first["auc_published"], first["published_source"], first["changed"]) == ("0.4025", "Table 2", "a, b")
    verdicts = [first[f"{metric}_verdict"] for metric in METRICS.values()]
    assert (verdicts, first["not_comparable"]) == (
        [f"{verdict} (changed)" for verdict in ("above", "within", "within", "below")],
        "",
    )
    assert {second[key] for key in second if "published" in key or key.endswith("difference")} == {""}


def test_json_has_our_numbers_the_published_numbers_and_their_sources() -> None:
    disagreeing = PRINTED | {"spread": SPREAD, "disagreement": "other"}
    (row,) = json.loads(Table([result(published=disagreeing, changed=("train.lr",))]).to_json())["published"]["rows"]
    assert (row["method"], row["dataset"], row["world"]) == ("csp", "cgqa", "closed")
    assert row["published"] == {name: PRINTED[name] for name in METRICS}
    assert row["ours"]["S"] == pytest.approx(70) and row["difference"]["S"] == pytest.approx(2)
    assert row["spread"] == {name: SPREAD[name] for name in METRICS}
    assert (row["spread_is"], row["source"], row["disagreement"]) == (SPREAD["what"], "Table 2", "other")
    assert (row["recipe"], row["changed"]) == ("cgqa/nayak2023_csp", ["train.lr"])
    verdicts = {"S": "above", "U": "within", "H": "within", "AUC": "below"}
    assert row["verdict"] == {name: f"{verdict} (changed)" for name, verdict in verdicts.items()}
    assert (row["seeds"], row["own_spread"], row["unlike"]) == (1, dict.fromkeys(METRICS), "")


@pytest.mark.parametrize("render", ["to_text", "to_markdown", "to_latex", "to_csv", "to_json", "to_html"])
def test_no_hostile_text_gets_through(render: str) -> None:
    published = PRINTED | {
        "source": HOSTILE,
        "disagreement": f"{HOSTILE}\r\n\\input{{x}}",
        "spread": SPREAD | {"what": HOSTILE},
    }
    wicked = result(HOSTILE, published=published, changed=(HOSTILE, "a\nb"))
    wicked["recipe"]["name"] = HOSTILE
    wicked["data_differences"] = [HOSTILE]
    text = getattr(Table([wicked]), render)()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    if render in ("to_markdown", "to_html"):
        assert "<script>a" not in text and "<script" not in text.rpartition("<script>")[0]
    if render == "to_latex":
        assert all(line.startswith("%") for line in text.split("\\end{table}\n")[-1].splitlines())
        assert "input{x}" not in text.split("\\end{table}")[1]


@pytest.mark.parametrize(
    ("published", "message"),
    [
        (3, r"csp on cgqa \(closed\): published is 3, expected S, U, H, AUC and source"),
        (PRINTED | {"S": "high"}, r"csp on cgqa \(closed\): published: S is 'high', expected a percentage"),
        ({"S": 1}, r"csp on cgqa \(closed\): published lacks U, H, AUC, source"),
    ],
)
def test_a_result_with_something_else_for_published_is_named(published: Any, message: str) -> None:
    with pytest.raises(CzslkitError, match=message):
        Table([result(published=published)])
