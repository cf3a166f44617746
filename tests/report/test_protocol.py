"""The protocol of the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from czslkit.report.protocol import environment_facts, protocol_facts

Make = Callable[..., dict[str, Any]]


def test_each_dataset_and_world_has_its_protocol(result: Make, open_result: Make) -> None:
    closed = result()
    closed["metrics"] |= {"n_seen": 1200, "n_unseen": 34}
    closed["protocol"] |= {"candidates": 86, "columns": 104, "selected_by": "validation AUC"}
    closed["depends"]["data"]["reading"] = "upright, 8 bits"  # no digest
    found = protocol_facts(["csp", "csp"], [closed, open_result(threshold=0.25, feasibility="/home/me/file.pt")])
    assert list(found) == [("demo", "closed"), ("demo", "open")]
    assert {fact.name: fact.value for fact in found["demo", "closed"]} == {
        "test images": "1,200 of seen pairs, 34 of unseen pairs",
        "candidates": "86 of 104 pairs",
        "curve": "original, about 20 biases",
        "epoch selected by": "validation AUC",
        "files, SHA-256": "test_pairs.txt d1",
    }
    opened = {fact.name: fact.value for fact in found["demo", "open"]}
    assert (opened["feasibility threshold"], opened["feasibility from"]) == ("0.25, searched", "file.pt")
    assert opened["pairs below it"] == "exclude"


def test_rows_that_differ_are_named(open_result: Make) -> None:
    results = [open_result(str(i), threshold=i / 10 or None) for i in range(5)]
    facts = {fact.name: fact.value for fact in protocol_facts(list("abcde"), results)["demo", "open"]}
    assert facts["feasibility threshold"] == ("none (a); 0.1, searched (b); 0.2, searched (c); and 2 other values")


def test_failed_cells_have_no_protocol_but_versions(failed: Make) -> None:
    cell = failed({"type": "E", "message": "m", "traceback": ""})
    assert protocol_facts(["csp"], [cell]) == {}
    assert [(fact.name, fact.value) for fact in environment_facts(["csp"], [cell])] == [("czslkit", "0.1.0")]
