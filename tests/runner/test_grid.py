"""Several values of a setting, and suggestions for settings that do not exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from czslkit import Grid
from czslkit.cli import main
from czslkit.errors import ConfigError
from czslkit.runner.plan import plan
from czslkit.runner.settings import parse_settings


def names(*texts, methods=("csp",), **arguments):
    """Return the methods of a plan with the settings that a user types, each with the settings that differ."""
    return [spec.name for spec in plan(list(methods), ["demo"], settings=parse_settings(texts), **arguments)]


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("train.lr=1e-3,5e-3", ["0.001", "0.005"]),
        ("train.lr= 1e-3 , 5e-3 ", ["0.001", "0.005"]),
        ("train.optimizer=adam,sgd", ["adam", "sgd"]),
        ("train.augment=true,no", ["true", "false"]),
        ("train.clip_norm=null,1", ["null", "1"]),
        ("eval.threshold=search,null,0.1", ["search", "null", "0.1"]),
        ("csp.word_dropout=0,0.5", ["0", "0.5"]),
        ('backbone="demo","timm/resnet18"', ["demo", "timm/resnet18"]),
    ],
)
def test_a_comma_parts_values_unless_they_are_texts(typed, values):
    key = typed.partition("=")[0].removeprefix("csp.")
    assert names(typed) == [f"csp {key}={value}" for value in values]


def test_every_combination_of_values_is_planned_for_the_methods_that_a_key_is_for():
    texts = ["train.lr=1e-3,5e-3", "csp.train.epochs=1,2", "coop.train.lr=1e-4"]
    assert names(*texts, methods=["csp", "coop"], seeds=[0, 1]) == [
        *["csp train.lr=0.001 train.epochs=1"] * 2,
        *["csp train.lr=0.001 train.epochs=2"] * 2,
        *["csp train.lr=0.005 train.epochs=1"] * 2,
        *["csp train.lr=0.005 train.epochs=2"] * 2,
        *["coop"] * 2,
    ]


def test_lists_are_several_values_in_brackets_of_their_own():
    assert names("heads=[4, 4],[8, 8]", methods=["msci"]) == ["msci heads=[4, 4]", "msci heads=[8, 8]"]
    assert names("heads=[4, 4]", methods=["msci"]) == ["msci"]
    with pytest.raises(ConfigError, match=r"msci: heads is '4,8', expected a list: write \[4,8\] for one list, \[4\],"):
        names("heads=4,8", methods=["msci"])


def test_equal_configurations_are_planned_once():
    specs = plan(["csp"], ["demo"], settings=parse_settings(["train.lr=1e-3,5e-3,0.001"]))
    assert [spec.train.lr for spec in specs] == [0.001, 0.005]


def test_python_takes_a_grid_or_the_text_of_one():
    for values in (Grid([1e-3, 5e-3]), Grid((1e-3, 5e-3)), "1e-3,5e-3"):
        assert [spec.train.lr for spec in plan(["csp"], ["demo"], settings={"train.lr": values})] == [1e-3, 5e-3]
    (spec,) = plan(["csp"], ["demo"], settings={"backbone": Grid(["demo"])})
    assert (spec.options.backbone, spec.name) == ("demo", "csp")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.lr": "1,,2"}, r"csp: train\.lr is '1,,2', expected a value before and after each comma"),
        ({"train.lr": "1,"}, r"train\.lr is '1,', expected a value before and after each comma; write null for none"),
        ({"train.lr": "1,a"}, r"csp\.train: lr is 'a', expected a number"),
        ({"train.lr": "1," + "9" * 5000}, r"train\.lr is '1,99.*99', it has a whole number of 5,000 digits"),
        ({"train.lr": "1,[}]"}, r"train\.lr is '1,\[}\]', expected YAML values \(while parsing"),
        ({"train.lr": Grid([])}, r"train\.lr is Grid\(values=\[\]\), expected at least one value"),
        ({"train.lr": Grid(range(1, 1002))}, "csp: 1,001 configurations, expected at most 1,000: give fewer values"),
        ({"train.lr": Grid(range(99)), "train.epochs": Grid(range(99))}, "9,801 configurations, expected at most 1,0"),
    ],
)
def test_values_that_cannot_be_parted_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        plan(["csp"], ["demo"], settings=settings)


@pytest.mark.parametrize(
    ("texts", "written"),
    [
        (["train.lr=1e-3", "train.lr = 5e-3", "train.lr=1e-3"], "train.lr=1e-3,5e-3"),
        (["train.lr=1e-3,5e-3", "train.lr=1e-2"], "train.lr=1e-3,5e-3,1e-2"),
        (["backbone=demo", "backbone=timm/resnet18"], 'backbone="demo","timm/resnet18"'),
        (["heads=[4, 4]", "heads=[8, 8]"], "heads=[4, 4],[8, 8]"),
        (["eval.threshold=search", "eval.threshold=null"], 'eval.threshold="search",null'),
    ],
)
def test_a_setting_that_is_given_twice_says_how_both_are_run(texts, written):
    with pytest.raises(ConfigError, match=re.escape(f"): give it once; {shlex.quote(written)} is for several")):
        parse_settings(texts)
    assert len(parse_settings([written])) == 1


def test_a_path_and_a_text_keep_their_commas(tmp_path: Path, clip_file: Path):
    file = tmp_path / "a,b" / "clip,1.pt"
    file.parent.mkdir()
    file.symlink_to(clip_file)
    (spec,) = plan(["csp"], ["demo"], settings=parse_settings([f"backbone={file}", "context=a, photo, of"]))
    assert (spec.options.backbone, spec.options.context) == (str(file), "a, photo, of")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "backbone=demo,other",
            'backbone: a text keeps its commas, and several texts are written in quotes: "demo","ot',
        ),
        ("eval.feasibility=file,clip", 'feasibility: a text keeps its commas, .* in quotes: "file","clip"'),
    ],
)
def test_a_text_with_commas_that_cannot_be_used_says_how_several_texts_are_written(typed, message):
    with pytest.raises(ConfigError, match=message):
        names(typed)


def test_a_check_takes_one_configuration(capsys):
    assert main(["check", "csp", "--set", 'backbone="demo","timm"']) == 2
    assert capsys.readouterr().err == "czslkit: backbone has several values, but a check is of one configuration\n"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("epochs=1", "epochs is an option of train: set it as train.epochs"),
        ("csp.epochs=1", "epochs is an option of train: set it as train.epochs"),
        ("train.bins=exact", "bins is an option of eval: set it as eval.bins"),
        ("train.word_dropout=0", "word_dropout is an option of csp and msci: set it as word_dropout"),
        ("eval.LR=1", "LR is an option of train: set it as train.lr"),
        ("train.batch-size=3", "batch-size is an option of train: set it as train.batch_size"),
        ("epoch=1", "no option is named epoch. Did you mean 'train.epochs'?"),
        ("low_layer=1", "no option is named low_layer. Did you mean 'msci.low_layers'"),
        (
            "training.epochs=1",
            "training is neither one of the methods (csp, msci) nor train nor eval. Did you mean 'tr",
        ),
        ("mcsi.low_layers=1", "nor train nor eval. Did you mean 'msci.low_layers'?"),
        ("train.csp.epochs=1", "csp.epochs is an option of train: set it as train.epochs"),
        ("backbon=demo", "csp: backbon is not an option. Did you mean 'backbone'?"),
    ],
)
def test_a_key_that_does_not_exist_is_answered_with_the_one_that_was_meant(typed, hint):
    with pytest.raises(ConfigError) as caught:
        names(typed, methods=["csp", "msci"])
    assert hint in str(caught.value)


def test_a_key_that_is_like_no_other_has_no_suggestion():
    with pytest.raises(ConfigError) as caught:
        names("zzz=1", "qqq.zzz=1")
    assert "Did you mean" not in str(caught.value)
