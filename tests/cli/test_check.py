from __future__ import annotations

import json

import pytest

from czslkit.cli import main
from czslkit.components import AGGREGATORS


def test_every_check_is_printed_with_its_outcome(capsys):
    assert main(["check", "last_layer"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "passed   the component is part of a method (aggregator last_layer, interaction none, head cosine)"
    )
    assert lines[-1] == "aggregator last_layer: 10 passed, 0 failed, 1 skipped"


def test_a_failed_check_gives_status_1_and_is_in_the_json_on_standard_output(capsys):
    assert main(["check", "traction", "pooled", "--json", "-"]) == 1
    captured = capsys.readouterr()
    reports = json.loads(captured.out)
    assert [(report["name"], report["passed"]) for report in reports] == [("traction", False), ("pooled", True)]
    assert "--set heads=" in reports[0]["checks"][0]["message"]
    assert "FAILED   the component is part of a method" in captured.err


def test_settings_are_options_of_the_checked_name(capsys, tmp_path):
    file = tmp_path / "report.json"
    assert main(["check", "traction", "--set", "heads=4", "--json", str(file)]) == 0
    assert json.loads(file.read_text())[0]["options"] == {"heads": 4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["lats_layer"], "nothing is registered as 'lats_layer'. Did you mean 'last_layer'?"),
     (["demo"], "demo is the name of a backbone and of a dataset"),
     (["pooled", "--plugins", "absent.py"], "absent.py"),
     (["csp", "--set", "word_droput=3"], "csp: word_droput is not an option. Did you mean 'word_dropout'?"),
     (["csp", "--set", "word_dropout=3"], "csp: word_dropout is 3, expected at most 1"),
     (["csp", "--set", "train.epochs=1"], "csp: train.epochs cannot be set: checks choose the settings of training"),
     (["traction", "--set", "haeds=4"], "traction: haeds is not an option. Did you mean 'heads' or 'head'? Known: "),
     (["demo", "--kind", "dataset", "--set", "x=4"], "demo: x is not an option. Known: none."),
     (["demo", "--kind", "backbone", "--set", "dim=4"], "demo: dim is not an option. Known: trainable, adapter_dim, "),
     (["pooled", "--set", "csp.backbone=demo"], "pooled: csp.backbone is not an option.")],
)  # fmt: skip
def test_wrong_usage_gives_status_2(capsys, arguments, message):
    assert main(["check", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_setting_can_be_for_one_name(capsys, tmp_path):
    file = tmp_path / "report.json"
    assert main(["check", "traction", "pooled", "--set", "traction.heads=4", "--json", str(file)]) == 0
    assert [report["options"] for report in json.loads(file.read_text())] == [{"heads": 4}, {}]


def test_a_name_that_two_plugins_claim_is_wrong_usage(capsys, monkeypatch):
    monkeypatch.setitem(AGGREGATORS._conflicts, "pooled", "aggregator 'pooled' is claimed by a 1 and by b 2")
    assert main(["check", "pooled"]) == 2
    assert "works once one of the two is uninstalled" in capsys.readouterr().err


def test_after_the_checks_of_a_dataset_the_command_that_checks_its_images_is_named(capsys, toys):
    assert main(["check", "toys", "--kind", "dataset", "--data", str(toys)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"'czslkit data verify toys --data {toys}' checks every image of it"


def test_the_name_of_a_folder_is_answered_with_the_kind_and_the_command_that_check_it(capsys, toys):
    assert main(["check", "toys", "--data", str(toys)]) == 2
    err = capsys.readouterr().err
    assert (
        "A dataset that is only a folder is checked with --kind dataset, and its images by 'czslkit data verify'" in err
    )
