"""Sentences on the candidates of the open world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from czslkit.report.table import Table

Make = Callable[..., dict[str, Any]]


def open_world(*results: dict[str, Any], mixed: bool = False) -> list[str]:
    return [sentence for sentence in Table(results, mixed=mixed).caption() if sentence.startswith("In the open world")]


def test_the_caption_says_that_there_is_no_threshold(result: Make, open_result: Make) -> None:
    everything = "In the open world, all pairs are candidates: there is no feasibility threshold."
    assert open_world(open_result(), open_result("msci"), open_result(dataset="cgqa")) == [everything]
    assert open_world(result(world="closed")) == []
    missing = "missing: feasibility_cgqa.pt"
    assert open_world(open_result(), open_result(dataset="cgqa", feasibility=missing)) == [
        "In the open world of demo, all pairs are candidates: there is no feasibility threshold.",
        "In the open world of cgqa, all pairs are candidates: there is no feasibility threshold "
        "(feasibility_cgqa.pt is missing).",
    ]


def test_the_caption_says_which_threshold_and_whose(open_result: Make) -> None:
    published = {"threshold": 0.36183673469387756, "threshold_from": "published", "feasibility": "published.pt"}
    assert open_world(open_result(**published), open_result("msci", **{**published, "threshold": 0.4069159426})) == [
        "In the open world of demo, unseen pairs with feasibility below 0.3618, 0.4069 are excluded (threshold "
        "published, feasibility from published.pt)."
    ]
    searched = {"threshold_from": "searched on validation", "feasibility": "/far/away/glove.txt"}
    searched["infeasible"] = "original"
    assert open_world(*(open_result(seed=n, threshold=0.1 * (n + 1), **searched) for n in range(4))) == [
        "In the open world of demo, unseen pairs with feasibility below 0.1 to 0.4 get score 0 as in the original "
        "evaluator (threshold searched on validation, feasibility from glove.txt)."
    ]


def test_rows_of_different_thresholds_are_named(open_result: Make) -> None:
    given = open_result(threshold=0.5, threshold_from="given")
    searched = open_result("msci", threshold=0.25, threshold_from="searched on validation")
    assert open_world(given, searched, open_result("msci", "cgqa"), mixed=True) == [
        "In the open world of demo, unseen pairs with feasibility below 0.5 are excluded (threshold given, feasibility "
        "from file.pt) [csp]; unseen pairs with feasibility below 0.25 are excluded (threshold searched on validation, "
        "feasibility from file.pt) [msci].",
        "In the open world of cgqa, all pairs are candidates: there is no feasibility threshold.",
    ]
