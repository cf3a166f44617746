"""Labels of the rows of a table, with the settings in which configurations differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from czslkit.report.table import Table

Make = Callable[..., dict[str, Any]]
ReadAucs = Callable[[Table], list[str]]


def test_configurations_are_rows_named_by_the_settings_that_differ(result: Make, printed_aucs: ReadAucs) -> None:
    configs: list[dict[str, Any]] = [{"options": {"fusion": "sum"}}, {"options": {"fusion": "sum", "low_layers": 2}}]
    table = Table(
        [result("msci", auc=0.1 * (n + 1), config=config, config_id=str(n)) for n, config in enumerate(configs)]
    )
    assert table.arrangement.rows == ("msci", "msci [low_layers=2]")
    assert printed_aucs(table) == ["_10.0_", "*20.0*"]


def test_settings_outside_the_options_keep_their_section(result: Make) -> None:
    configs: list[dict[str, Any]] = [
        {"options": {"fusion": name}, "train": {"lr": lr}} for name, lr in (("sum", 0.1), ("max", 0.2))
    ]
    table = Table([result(config=config, config_id=str(n)) for n, config in enumerate(configs)])
    assert table.arrangement.rows == ("csp [fusion=sum, train.lr=0.1]", "csp [fusion=max, train.lr=0.2]")


def test_recipes_of_different_datasets_are_one_row(result: Make) -> None:
    table = Table(
        [
            result(dataset="demo", config={"train": {"lr": 0.1}}, config_id="a"),
            result(dataset="cgqa", config={"train": {"lr": 0.2}}, config_id="b"),
        ]
    )
    assert table.arrangement.rows == ("csp",)


def test_a_variation_of_several_recipes_is_one_row_across_datasets(result: Make) -> None:
    table = Table(
        [
            result(dataset=dataset, config={"options": {"depth": depth}, "train": {"lr": lr}}, config_id=f"{lr}{depth}")
            for dataset, lr in (("demo", 0.1), ("cgqa", 0.2))
            for depth in (1, 2)
        ]
    )
    assert table.arrangement.rows == ("csp [depth=1]", "csp [depth=2]")


@pytest.mark.parametrize("configs", [({"options": {"a": 1}}, {"options": {"a": "1"}}), ({}, {})])
def test_configurations_with_equal_labels_are_named_by_their_id(
    configs: tuple[dict[str, Any], ...], result: Make
) -> None:
    table = Table([result(config=config, config_id=f"id{n}") for n, config in enumerate(configs)])
    assert table.arrangement.rows == ("csp [config id0]", "csp [config id1]")


def test_configurations_with_long_labels_are_named_by_their_id(result: Make) -> None:
    configs = [{"options": {f"option_{n}": value for n in range(9)}} for value in (1, 2)]
    table = Table([result(config=config, config_id=f"id{n}") for n, config in enumerate(configs)])
    assert table.arrangement.rows == ("csp [config id0]", "csp [config id1]")
