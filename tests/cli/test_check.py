from __future__ import annotations

import json

import pytest

from czslkit.cli import main


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
     (["pooled", "--plugins", "absent.py"], "absent.py")],
)  # fmt: skip
def test_wrong_usage_gives_status_2(capsys, arguments, message):
    assert main(["check", *arguments]) == 2
    assert message in capsys.readouterr().err
