from __future__ import annotations

import pytest
import yaml

from czslkit.errors import ConfigError
from czslkit.method import METHODS
from czslkit.runner import recipes as recipe_files
from czslkit.runner.plan import plan
from czslkit.runner.recipes import load_recipe, recipes
from czslkit.runner.settings import parse_settings


def settled(spec) -> dict:
    return spec.config["options"] | {f"train.{k}": v for k, v in spec.config["train"].items()}


def test_every_combination_is_planned_dataset_by_dataset():
    specs = plan(["clip", "csp"], ["demo", "cgqa"], ["closed"], [0, 3])
    assert [(s.dataset, s.method, s.seed) for s in specs] == [
        *[("demo", "clip", 0), ("demo", "clip", 3), ("demo", "csp", 0), ("demo", "csp", 3)],
        *[("cgqa", "clip", 0), ("cgqa", "clip", 3), ("cgqa", "csp", 0), ("cgqa", "csp", 3)],
    ]
    assert {s.worlds for s in specs} == {("closed",)}


def test_settings_override_recipes_and_recipes_override_defaults():
    (plain,) = plan(["csp"], ["mit-states"])
    assert settled(plain)["train.lr"] == 5e-5  # of the method
    assert settled(plain)["backbone"] == "ViT-L-14-quickgelu/openai"
    (demo,) = plan(["csp"], ["demo"])
    assert settled(demo)["backbone"] == "demo"  # of the recipe
    (preset,) = plan(["csp"], ["mit-states"], preset="demo")
    assert settled(preset) == settled(demo)
    (changed,) = plan(["csp"], ["demo"], settings={"train.lr": 0.5, "word_dropout": 0.1})
    assert (settled(changed)["train.lr"], settled(changed)["word_dropout"]) == (0.5, 0.1)


def test_a_setting_can_be_for_one_method_only():
    specs = plan(["csp", "msci"], ["demo"], settings={"msci.low_layers": 2, "train.epochs": 3, "csp.train.epochs": 1})
    csp, msci = (settled(spec) for spec in specs)
    assert msci["low_layers"] == 2
    assert (csp["train.epochs"], msci["train.epochs"]) == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ({"methods": ["cps"]}, ["no method named 'cps'. Did you mean 'csp' or 'compcos'?"]),
        ({"methods": []}, ["no method to run"]),
        ({"seeds": []}, ["no seed to run"]),
        ({"seeds": [-1]}, ["seed -1 is not a whole number from 0 to 9223372036854775807"]),
        ({"seeds": [2**63]}, ["seed 9223372036854775808 is not a whole number"]),
        ({"seeds": [10**5000]}, ["seed of 16610 bits is not a whole number"]),
        ({"seeds": [True]}, ["seed True is not a whole number"]),
        ({"settings": {"eval.stream_seed": 2**63}}, ["stream_seed is 9223372036854775808, expected at most"]),
        ({"preset": "papre"}, ["no preset named 'papre'. Did you mean 'paper'? Known: demo, paper."]),
        ({"worlds": ["close"]}, ["no world named 'close'"]),
        ({"methods": ["csp", "csp"]}, ["method 'csp' is asked for twice"]),
        (
            {"settings": {"word_droput": 1, "train.epohs": 2, "eval.bins": "all"}},
            [
                "csp: word_droput is not an option. Did you mean 'word_dropout'?",
                "csp.train: epohs is not an option. Did you mean 'epochs'?",
                "csp.eval: bins is 'all', expected one of original, exact.",
            ],
        ),
        ({"settings": {"mcsi.heads": 3}}, ["mcsi.heads: mcsi is neither one of the methods (csp) nor train nor eval"]),
        (
            {"preset": "paper", "datasets": ["nowhere"]},
            ["preset 'paper': none of the methods (csp) has a recipe for nowhere, configs/nowhere/*_METHOD.yaml."],
        ),
    ],
)
def test_mistakes_are_reported_together(arguments, messages):
    with pytest.raises(ConfigError) as caught:
        plan(**{"methods": ["csp"], "datasets": ["mit-states"], **arguments})
    for message in messages:
        assert message in str(caught.value)


def test_an_option_of_some_methods_says_how_to_set_it():
    with pytest.raises(ConfigError, match=r"low_layers is an option of msci: set it as msci\.low_layers"):
        plan(["csp", "msci"], ["demo"], settings={"low_layers": 2})


def test_an_option_that_was_accepted_is_not_hinted_at():
    with pytest.raises(ConfigError) as caught:
        plan(["csp", "msci"], ["demo"], settings={"backbone": "demo", "msci.fusion": "gatd"})
    assert "backbone is an option" not in str(caught.value)


def test_settings_are_yaml():
    assert parse_settings(["a=1e-3", "b.c=[1, 2]", "d=x=y", "e=null"]) == {
        "a": 0.001,
        "b.c": [1, 2],
        "d": "x=y",
        "e": None,
    }
    with pytest.raises(ConfigError, match=r"'lr' is not KEY=VALUE[\s\S]*'=3' is not KEY=VALUE"):
        parse_settings(["lr", "=3"])


@pytest.mark.parametrize(
    "path", sorted(recipe_files.configs().rglob("*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_every_recipe_fits_its_method(path):
    method = yaml.safe_load(path.read_text())["method"]
    assert path.stem.endswith(f"_{method}")
    (spec,) = plan([method], [path.parent.name], preset="demo" if path.parent.name == "demo" else "paper")
    recipe = load_recipe(path)
    for section in ("options", "train", "eval"):
        for key, value in recipe[section].items():
            assert spec.config[section][key] == value, key


def test_every_method_of_the_package_has_one_demo_recipe():
    own = [name for name in METHODS if METHODS[name].__module__.startswith("czslkit_plugins.")]
    assert [len(recipes("demo", name)) for name in own] == [1] * len(own)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: csp\noption: {}\n", "option is not part of a recipe; expected method, source, options"),
        ("- 1\n", "the recipe has no method"),
        ("a: [\n", "cannot be read as YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, message):
    (tmp_path / "x_csp.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(tmp_path / "x_csp.yaml")
