"""Values as users type them."""

from __future__ import annotations

from typing import Any

import pytest

from czslkit.errors import ConfigError
from czslkit.runner.settings import parse_settings
from czslkit.runner.yaml_values import load_yaml


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("064", 64),
        ("-010", -10),
        ("0o17", 15),
        ("0x1F", 31),
        ("1e-3", 0.001),
        ("5.", 5.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("1:04", "1:04"),
        ("1_000", "1_000"),
        ("2026-01-31", "2026-01-31"),
        ("[007, 1:30]", [7, "1:30"]),
        ("/data/run #2/w.pt", "/data/run #2/w.pt"),
        ("C: drive/w.pt", "C: drive/w.pt"),
        ("[old] weights.pt", "[old] weights.pt"),
        ("'a: b # c'", "a: b # c"),
        ("*name", "*name"),
        ("- x", "- x"),
        ("yes", True),
        ("OFF", False),
        ("null", None),
    ],
)
def test_a_typed_value_is_the_value_that_is_used(typed: str, value: Any) -> None:
    found = parse_settings([f"key= {typed} "])["key"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("weights=", "weights has no value: write weights=null for none"),
        ("weights=  ", "weights has no value"),
        ("layers=[1, [2]", r"layers is '\[1, \[2\]', which is not a YAML value \(while parsing a flow sequence\)"),
        (
            "seed=" + "9" * 5000,
            r"seed is '9+\.\.\.9+', which is not a YAML value \(it has a whole number of 5,000",
        ),
    ],
)
def test_a_value_that_cannot_be_read_is_named(typed: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_settings([typed])


def test_a_recipe_has_the_same_numbers() -> None:
    assert load_yaml("train:\n  epochs: 010\n  schedule: 1:30  # a text\n") == {
        "train": {"epochs": 10, "schedule": "1:30"}
    }
