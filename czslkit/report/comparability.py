"""A check that results are comparable: that they have the same data, curve and candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..result_store import Result, differences
from .escaping import printable
from .labels import cell_name
from .open_world import candidate_rule


def data_digests(result: Result) -> Mapping[str, Any]:
    """Return the digests of the dataset of a result, by name of the part.

    Results of format 1 hold them directly under ``depends``, results of format 2 under ``depends.training``.

    >>> data_digests({"depends": {"data": {"test_pairs.txt": "3f"}}})
    {'test_pairs.txt': '3f'}
    >>> data_digests({"depends": {"training": {"data": {"test_pairs.txt": "3f"}}, "evaluation": {}}})
    {'test_pairs.txt': '3f'}
    """
    depends: Mapping[str, Any] = result.get("depends") or {}
    return depends.get("training", depends).get("data") or {}


def evaluation_precision(protocol: Mapping[str, Any]) -> str:
    """Return the number format in which images were encoded and pairs were scored; fp32 is not recorded."""
    return printable(str((protocol.get("precision") or {}).get("eval", "fp32")))


def first_difference(labels: Sequence[str], results: Sequence[Result]) -> str:
    """Return a sentence on the first two results that were not measured alike; empty if all were measured alike.

    All results must have the same curve. Results of the same dataset must have the same data, and results of the same
    dataset and world the same rule for candidates and the same number format of the evaluation, and all or none of them
    may have adapted to the test images.
    """
    done = [(cell_name(label, r["cell"]), r) for label, r in zip(labels, results, strict=True) if r["status"] == "done"]
    first_of_dataset: dict[str, tuple[str, Result]] = {}
    first_of_column: dict[tuple[str, str], tuple[str, Result]] = {}
    for name, result in done:
        (first_name, first), cell = done[0], result["cell"]
        bins, first_bins = (r["protocol"].get("bins") for r in (result, first))
        if bins != first_bins:
            return f"{name} has the AUC of bins={bins!r}, {first_name} has the AUC of bins={first_bins!r}"
        first_name, first = first_of_dataset.setdefault(cell["dataset"], (name, result))
        if changes := differences(*({"data": data_digests(r)} for r in (first, result))):
            return f"{name} was measured on different data than {first_name} ({printable(changes)})"
        first_name, first = first_of_column.setdefault((cell["dataset"], cell["world"]), (name, result))
        rule, first_rule = (candidate_rule(r["protocol"]) for r in (result, first))
        if rule != first_rule:
            return f"in {name}, {rule}; in {first_name}, {first_rule}"
        used, first_used = (evaluation_precision(r["protocol"]) for r in (result, first))
        if used != first_used:
            return f"{name} was measured in {used}, {first_name} in {first_used}"
        if bool(result["protocol"].get("transductive")) != bool(first["protocol"].get("transductive")):
            adapts, other = (name, first_name) if result["protocol"].get("transductive") else (first_name, name)
            return f"{adapts} has adapted to the test images, {other} has not"
    return ""
