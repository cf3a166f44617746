from __future__ import annotations

import pytest

from czslkit.cli import main


def test_a_table_is_rendered_again_from_its_files(bench, tmp_path, capsys):
    _, out, _ = bench()
    assert main(["table", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out == out
    assert main(["table", str(tmp_path / "runs"), "--format", "latex"]) == 0
    assert capsys.readouterr().out == (tmp_path / "runs" / "table.tex").read_text()


def test_a_report_is_one_page(bench, tmp_path, capsys):
    bench()
    assert main(["report", str(tmp_path / "runs")]) == 0
    page = tmp_path / "runs" / "report.html"
    assert capsys.readouterr().out == f"{page}\n"
    assert "<table" in page.read_text()


@pytest.mark.parametrize("command", ["table", "report"])
def test_a_folder_without_results_is_named(command, tmp_path, capsys):
    assert main([command, str(tmp_path / "nowhere")]) == 1
    assert f"no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert main([command, str(tmp_path)]) == 1
    assert f"no results in {tmp_path}" in capsys.readouterr().err


def test_a_table_of_what_is_not_there_names_what_is(bench, tmp_path, capsys):
    bench()
    assert main(["table", str(tmp_path / "runs"), "--methods", "mcsi, csp"]) == 2
    assert "has no results of mcsi. Known: clip, csp." in capsys.readouterr().err
    assert main(["table", str(tmp_path / "runs"), "--methods", "csp", "--datasets", "toys"]) == 0
    assert "clip" not in capsys.readouterr().out


def test_names_may_have_spaces_between_them_also_before_the_folder(bench, tmp_path, monkeypatch, capsys):
    bench("--worlds", "closed")
    monkeypatch.chdir(tmp_path)
    tables = []
    for arguments in (
        ["runs"],
        ["runs", "--methods", "clip", "csp"],
        ["runs", "--methods", "clip,", "csp", "--datasets", "toys"],
        ["--methods", "clip", "csp", "runs"],
        ["--methods", "clip", "--datasets", "toys", "--methods=csp", "runs"],
        ["--methods", "clip,csp", "--datasets", "toys", "./runs"],
        ["--datasets", "toys", "runs", "--methods", "clip", "csp"],
    ):
        assert main(["table", *arguments]) == 0
        tables.append(capsys.readouterr().out)
    assert len(set(tables)) == 1
    assert main(["report", "--methods", "csp", "runs"]) == 0
    assert capsys.readouterr().out == "runs/report.html\n"
    assert main(["table", "--methods", "csp", "clip"]) == 2
    assert capsys.readouterr().err.startswith("czslkit: RUNS is missing: give the folder of results")


def test_a_table_is_in_the_order_in_which_bench_was_asked(bench, tmp_path, capsys):
    _, out, _ = bench("--methods", "csp,clip")
    assert out.index("\ncsp ") < out.index("\nclip ")
    assert main(["table", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out == out
    assert main(["table", str(tmp_path / "runs"), "--methods", "clip,csp"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("\nclip ") < shown.index("\ncsp ")


def test_a_mistyped_command_leaves_no_trace_in_later_tables(bench, tmp_path, capsys):
    (tmp_path / "empty" / "toys").mkdir(parents=True)
    status, out, _ = bench("--data", str(tmp_path / "empty"), "--worlds", "closed", "--set", "csp.word_dropout=0.5")
    assert status == 1 and "failed" in out
    _, out, _ = bench("--worlds", "closed")
    assert main(["table", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr()
    assert shown.out == out and "failed" not in out
    assert "left out: 1 failed cell " in shown.err
