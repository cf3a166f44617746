from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from czslkit.errors import ConfigError
from czslkit.method import METHODS
from czslkit.options import as_dict, config_id, expand_home, named_files, option, parse


@dataclasses.dataclass(frozen=True)
class Options:
    rate: float = option(0.5, "a share", minimum=0, maximum=1)
    free: float = option(0.0, "any number")
    count: int = option(3, "a number of things", minimum=1)
    size: int | None = option(None, "pixels, or none", minimum=8)
    name: str = option("a photo of", "words")
    flag: bool = option(False, "a switch")
    kind: Literal["step", "cosine"] = option("step", "a choice")
    power: Literal[1, 2] = option(1, "a choice of numbers")
    heads: tuple[int, int] = option((4, 4), "two numbers", minimum=1)
    weights: tuple[float, ...] = option((1.0,), "numbers", minimum=0)
    mixed: tuple[str, int] = option(("relu", 2), "a word and a number")
    line: float | Literal["search"] | None = option(None, "a number, a word or none", minimum=-1, maximum=1)
    file: Path | None = option(None, "a file")
    files: tuple[Path, ...] = option((), "files")
    backbone: str = option("demo", "a backbone")


def parsed(**values: Any) -> Options:
    return parse(Options, values, where="csp")


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("rate", "1e-1", 0.1),  # as YAML reads 1e-1
        ("rate", 1, 1.0),
        ("free", "+.5E+1", 5.0),
        ("free", "-064.", -64.0),
        ("count", 7, 7),
        ("size", None, None),
        ("size", 8, 8),
        ("name", "", ""),
        ("flag", True, True),
        ("kind", "cosine", "cosine"),
        ("power", 2, 2),
        ("heads", [2, 8], (2, 8)),
        ("weights", [], ()),
        ("weights", [1, "0.5"], (1.0, 0.5)),
        ("weights", 2, (2.0,)),
        ("mixed", ["gelu", 3], ("gelu", 3)),
        ("line", "search", "search"),
        ("line", "-1e-1", -0.1),
        ("line", 1, 1.0),
        ("line", None, None),
        ("file", "a/glove.txt", Path("a/glove.txt")),
        ("file", "~/glove.txt", Path.home() / "glove.txt"),
        ("file", Path("glove.txt"), Path("glove.txt")),
        ("file", None, None),
        ("files", ["a", "b"], (Path("a"), Path("b"))),
        ("files", "a", (Path("a"),)),
    ],
)
def test_a_value_of_the_right_kind_is_kept(name: str, given: Any, kept: Any) -> None:
    found = getattr(parsed(**{name: given}), name)
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("rate", "fast", "'fast', expected a number"),
        *(("free", text, f"'{text}', expected a number") for text in ("1_000", "inf", "-Infinity", "nan", " 1 ", "١")),
        ("free", ".inf", r"'\.inf', expected a number"),
        ("free", "1e999", "'1e999', expected a finite number"),
        ("free", math.inf, "inf, expected a finite number"),
        ("line", -math.inf, "-inf, expected a finite number or search"),
        ("weights", [1, math.nan], r"\[1, nan\], expected a finite number"),
        ("rate", None, "None, expected a number"),
        ("rate", True, "True, expected a number"),
        ("rate", [0.1], r"\[0.1\], expected a number"),
        ("free", 10**400, r"10+\.\.\.0+, expected a number"),
        ("rate", -0.1, "-0.1, expected at least 0"),
        ("rate", 1.1, "1.1, expected at most 1"),
        ("rate", "nan", "'nan', expected a number"),
        ("count", 0, "0, expected at least 1"),
        ("count", 2.0, "2.0, expected a whole number"),
        ("count", "2", "'2', expected a whole number"),
        ("count", True, "True, expected a whole number"),
        ("count", None, "None, expected a whole number"),
        ("size", 7, "7, expected at least 8"),
        ("size", "big", "'big', expected a whole number"),
        ("name", 5, "5, expected a word"),
        ("name", None, "None, expected a word"),
        ("flag", "yes", "'yes', expected true or false"),
        ("flag", 1, "1, expected true or false"),
        ("kind", "cosin", r"'cosin', expected one of step, cosine\. Did you mean 'cosine'\?"),
        ("kind", ["step"], r"\['step'\], expected one of step, cosine"),
        ("power", 3, r"3, expected one of 1, 2\."),
        ("line", "serach", r"'serach', expected a number or search\. Did you mean 'search'\?"),
        ("line", True, r"True, expected a number or search\."),
        ("line", -2, "-2, expected at least -1"),
        ("line", "nan", "'nan', expected a number or search"),
        ("heads", [4], r"\[4\], expected 2 values"),
        ("heads", 4, "4, expected 2 values"),
        ("heads", [4, 0], r"\[4, 0\], expected at least 1"),
        ("heads", [4, "x"], r"\[4, 'x'\], expected a whole number"),
        ("weights", [1, -1], r"\[1, -1\], expected at least 0"),
        ("weights", {"a": 1}, r"\{'a': 1\}, expected a number"),
        ("mixed", [2, 2], r"\[2, 2\], expected a word"),
        ("file", "", "'', expected the path of a file or folder"),
        ("file", " ", "' ', expected the path of a file or folder"),
        ("file", 3, "3, expected the path of a file or folder"),
        (
            "file",
            "~no.such.user/x",
            "'~no.such.user/x', expected the path of a file or folder; Could not determine home",
        ),
        ("files", ["a", ""], r"\['a', ''\], expected the path of a file or folder"),
        ("mixed", ["relu", "x"], r"\['relu', 'x'\], expected a whole number"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(name: str, given: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"^csp: {name} is {expected}"):
        parsed(**{name: given})


def test_an_unknown_option_is_named_with_the_closest_one() -> None:
    with pytest.raises(ConfigError, match=r"^csp: wieghts is not an option\. Did you mean 'weights'\? Known: rate, "):
        parsed(wieghts=1)


@pytest.mark.parametrize("key", [1, True, None])
def test_a_key_that_is_no_word_is_an_unknown_option(key: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^csp: {key} is not an option"):
        parse(Options, {key: 1}, where="csp")


def test_a_schema_without_options_knows_none() -> None:
    with pytest.raises(ConfigError, match=r"^clip: lr is not an option\. Known: none\.$"):
        parse(frozen(), {"lr": 1}, where="clip")


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(rate=2, cuont=1, flag=0, size=None)
    assert [problem.split(" is ")[0] for problem in caught.value.problems] == ["csp: rate", "csp: cuont", "csp: flag"]


def test_a_rule_between_options_is_reported_as_a_setting_that_cannot_be_used() -> None:
    @dataclasses.dataclass(frozen=True)
    class Ruled:
        low: int = 1

        def __post_init__(self) -> None:
            raise ValueError(f"low is {self.low}, more than high 0")

    with pytest.raises(ConfigError, match=r"^msci: low is 1, more than high 0$"):
        parse(Ruled, {}, where="msci")


class Undecorated(Options):
    rate: float = option(0.9, "another default")


def frozen(*fields: Any) -> type:
    """Return a frozen dataclass with some fields."""
    return dataclasses.make_dataclass("Schema", fields, frozen=True)


@dataclasses.dataclass(frozen=True)
class Unreadable:
    when: Date = option(None, "a date")  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("schema", "messages"),
    [
        (3, ["mine: Options is 3, expected a class with @dataclass(frozen=True) above it"]),
        (Undecorated, [f"mine: Undecorated ({__file__}) is not a dataclass: write @dataclass(frozen=True) above"]),
        (Unreadable, ["the types of its options cannot be read: NameError: name 'Date' is not defined. Import these"]),
        (
            frozen(("file", bytes, option(b"", "a file")), ("a", list, option((), ""))),
            ["file is of type <class 'bytes'>, expected int, float", "a is of type <class 'list'>"],
        ),
        (
            frozen(("size", int | bytes | None, option(0, "")), ("b", tuple[set, ...], 0)),
            ["size is of type int | bytes | None, expected", "b is of type tuple[set, ...], expected"],
        ),
        (
            frozen(("size", int)),
            ["size has no default: write size: TYPE = option(DEFAULT, HELP)"],
        ),
        (
            dataclasses.make_dataclass("Schema", [("size", int, option(0, ""))]),
            ["is not frozen, so its options could change later: write @dataclass(frozen=True) above the class"],
        ),
        (
            frozen(
                ("vec", Path, option("vec.txt", "")), ("n", int, option("x", "")), ("m", int, option(0, "", minimum=1))
            ),
            [
                "the default of vec is 'vec.txt', expected Path('vec.txt')",
                "the default of n is 'x', expected a whole number",
                "the default of m is 0, expected at least 1",
            ],
        ),
        (
            frozen(
                ("rate", float, option("1e-4", "")),
                ("heads", tuple[int, ...], option(4, "")),
                ("files", tuple[Path, ...], option(("a",), "")),
                ("on", bool, 1),
            ),
            [
                "rate is '1e-4', expected 0.0001",
                "heads is 4, expected (4,)",
                "files is ('a',), expected (Path('a'),)",
                "on is 1, expected true or false",
            ],
        ),
    ],
)
def test_a_class_that_cannot_hold_options_is_an_error_that_says_what_to_change(
    schema: Any, messages: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(schema, {}, where="mine")
    assert len(caught.value.problems) == len(messages)
    for message in messages:
        assert message in str(caught.value)


def test_paths_become_texts_that_can_be_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = parsed(file="glove.txt", files=["a", "/b"])
    assert (as_dict(options)["file"], as_dict(options)["files"]) == ("glove.txt", ["a", "/b"])
    absolute = as_dict(options, absolute=True)
    assert (absolute["file"], absolute["files"]) == (str(tmp_path / "glove.txt"), [str(tmp_path / "a"), "/b"])


def test_files_are_named_by_paths_and_by_texts_with_a_separator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "there.txt"
    there.write_text("")
    assert named_files(parsed()) == {}
    assert named_files(parsed(name="there.txt")) == {}  # a word
    assert named_files(parsed(name="./gone.txt", backbone=str(there))) == {}
    assert named_files(parsed(name=str(tmp_path))) == {}
    assert named_files(parsed(name=f"a/{5000 * 'b'}")) == named_files(parsed(name="a/\0")) == {}
    assert named_files(parsed(name=str(there))) == {"name": (there,)}
    assert named_files(parsed(file="gone.txt", files=["a", "b"])) == {
        "file": (Path("gone.txt"),),
        "files": (Path("a"), Path("b")),
    }


ANYTHING = (
    """[~, true, 0, -1, 3, 0.5, .nan, .inf, '', step, 2024-01-01, [], [1], [4, 4], [relu, 2], [[1], x], {}, {a: 1}]"""
)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Options)])
def test_any_yaml_value_is_parsed_or_is_a_config_error(name: str) -> None:
    for value in yaml.safe_load(ANYTHING):
        try:
            found = parsed(**{name: value})
        except ConfigError:
            continue
        assert parsed(**json.loads(json.dumps(as_dict(found)))) == found


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_backbone_is_refused_unless_it_is_the_default(empty: str) -> None:
    with pytest.raises(
        ConfigError, match=f"csp: backbone is '{empty}', expected the name of a backbone or the path of"
    ):
        parsed(backbone=empty)
    schema = dataclasses.make_dataclass("Own", [("backbone", str, option("", "a backbone"))], frozen=True)
    assert parse(schema, {"backbone": ""}, where="own") == schema()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_methods_options_survive_json_and_say_what_they_mean(name: str) -> None:
    schema = METHODS[name].Options
    assert parse(schema, json.loads(json.dumps(as_dict(schema()))), where=name) == schema()
    for field in dataclasses.fields(schema):
        assert field.metadata["help"], f"{name}.{field.name}"


def test_a_configuration_has_one_name_whatever_the_order_of_its_keys() -> None:
    assert config_id({"a": 1, "b": {"c": (1, 2), "d": None}}) == config_id({"b": {"d": None, "c": [1, 2]}, "a": 1})
    assert config_id({"a": 1}) != config_id({"a": 2})
    # printf '{"a":1}' | sha256sum
    assert config_id({"a": 1}) == "015abd7f"


@pytest.mark.parametrize(
    ("setting", "expanded"),
    [
        ("~/clip.pt", "HOME/clip.pt"),
        ("~", "HOME"),
        ("local-dir:~/model", "local-dir:HOME/model"),
        ("ViT-B-32/~/clip.pt", "ViT-B-32/HOME/clip.pt"),
        ("ViT-B-32/openai/~/clip.pt", "ViT-B-32/openai/HOME/clip.pt"),
        ("timm/resnet18/~/w.pt", "timm/resnet18/HOME/w.pt"),
        ("/data/~/clip.pt", "/data/~/clip.pt"),
        ("data~old/clip.pt", "data~old/clip.pt"),
        ("a/b/c/~/clip.pt", "a/b/c/~/clip.pt"),
        ("here/~/clip.pt", "here/~/clip.pt"),
    ],
)
def test_the_path_in_a_backbone_setting_may_start_in_the_home_folder(
    setting: str, expanded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "~").mkdir(parents=True)
    (tmp_path / "here" / "~" / "clip.pt").touch()
    assert expand_home(setting) == expanded.replace("HOME", str(tmp_path))
