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
    assert table.arrangement.rows == ("msci", "msci low_layers=2")
    assert printed_aucs(table) == ["_10.0_", "*20.0*"]


def test_labels_leave_out_the_section_of_a_setting(result: Make) -> None:
    configs: list[dict[str, Any]] = [
        {"options": {"fusion": name}, "train": {"lr": lr}} for name, lr in (("sum", 0.1), ("max", 0.2))
    ]
    table = Table([result(config=config, config_id=str(n)) for n, config in enumerate(configs)])
    assert table.arrangement.rows == ("csp fusion=sum, lr=0.1", "csp fusion=max, lr=0.2")


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
    assert table.arrangement.rows == ("csp depth=1", "csp depth=2")


def _labels(result: Make, *configs: dict[str, Any]) -> tuple[str, ...]:
    return Table([result(config=config, config_id=f"id{n}") for n, config in enumerate(configs)]).arrangement.rows


def test_settings_of_two_sections_with_one_name_keep_their_section(result: Make) -> None:
    configs = [{"train": {"batch_size": n}, "eval": {"batch_size": 8 * n}} for n in (1, 2)]
    assert _labels(result, *configs) == (
        "csp train.batch_size=1, eval.batch_size=8",
        "csp train.batch_size=2, eval.batch_size=16",
    )


def test_values_that_differ_only_in_their_quotes_keep_them(result: Make) -> None:
    assert _labels(result, {"options": {"a": 1}}, {"options": {"a": "1"}}) == ("csp a=1", 'csp a="1"')


def test_only_configurations_that_nothing_tells_apart_are_named_by_their_id(result: Make) -> None:
    labels = _labels(result, {"train": {"lr": 1}}, {"train": {"lr": 1}}, {"train": {"lr": 2}})
    assert labels == ("csp lr=1, config id0", "csp lr=1, config id1", "csp lr=2")
    assert _labels(result, {}, {}) == ("csp config id0", "csp config id1")


def test_rows_that_differ_in_many_settings_are_named_by_the_fewest_that_tell_them_apart(result: Make) -> None:
    def config(lr: float, fusion: str, others: int) -> dict[str, Any]:
        return {"options": {"fusion": fusion} | {f"option_{n}": others for n in range(9)}, "train": {"lr": lr}}

    labels = _labels(result, config(0.1, "sum", 1), config(0.2, "sum", 1), config(0.2, "max", 2))
    assert labels == ("csp fusion=sum, lr=0.1, ...", "csp fusion=sum, lr=0.2, ...", "csp fusion=max, lr=0.2, ...")
    caption = Table([result(config=config(lr, "sum", lr), config_id=f"id{lr}") for lr in (1, 2)]).caption()  # type: ignore[arg-type]
    assert "Rows whose name ends with ', ...' also differ in other settings, which are columns in CSV." in caption


def test_settings_of_dict_and_list_kind_are_short_and_tell_rows_apart(result: Make) -> None:
    nested = [{"options": {"image": {"mean": [0.1, x], "std": {"red": 0.5}}}} for x in (0.2, 0.3)]
    assert _labels(result, *nested) == ("csp mean=[0.1,0.2]", "csp mean=[0.1,0.3]")
    layers = [{"options": {"layers": [*range(30), last]}} for last in (31, 32)]
    assert _labels(result, *layers) == ("csp layers=...31]", "csp layers=...32]")
    tables = [{"options": {"adapters": [{"width": 64, "kind": kind}] * 9}} for kind in ("linear", "conv")]
    assert _labels(result, *tables) == ("csp adapters=[{kind:linear,wid...", "csp adapters=[{kind:conv,width...")


@pytest.mark.parametrize("many", [2, 3, 60])
def test_labels_are_unique_and_bounded_whatever_differs(result: Make, many: int) -> None:
    configs = [
        {"options": {"file": f"/a/long/path/of/someone/{n}/weights.pt", "words": [f"w{n}"] * 50, "text": "x" * 99}}
        for n in range(many)
    ]
    labels = _labels(result, *configs)
    assert len(set(labels)) == many
    assert max(map(len, labels)) <= 80
    assert not [label for label in labels if "config id" in label]


def test_a_label_does_not_depend_on_the_order_of_results(result: Make) -> None:
    configs = [{"options": {"a": n % 2, "b": n % 3, "c": "y" * 20 + str(n)}} for n in range(6)]
    results = [result(config=config, config_id=f"id{n}") for n, config in enumerate(configs)]
    assert sorted(Table(results).arrangement.rows) == sorted(Table(results[::-1]).arrangement.rows)
