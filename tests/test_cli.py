from __future__ import annotations

import json

import pytest

from czslkit.cli import main


@pytest.fixture
def bench(toys, clip_file, tmp_path, capsys):
    """Run ``czslkit bench`` on the toys: exit status, standard output, standard error."""

    def go(*arguments: str) -> tuple[int, str, str]:
        fixed = ["--data", str(toys), "--runs", str(tmp_path / "runs")]
        settings = ["--set", f"backbone={clip_file}", "train.epochs=1"]
        status = main(["bench", "--methods", "clip,csp", "--datasets", "toys", *fixed, *settings, *arguments])
        return status, *capsys.readouterr()

    return go


def test_bench_prints_a_table_and_writes_it_in_every_format(bench, tmp_path):
    status, out, err = bench()
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[:4]] == ["toys", "method", "clip", "csp"]
    assert "[2/2] csp on toys, seed 0: running" in err
    written = {path.name: path.read_text() for path in (tmp_path / "runs").glob("table.*")}
    assert sorted(written) == ["table.csv", "table.json", "table.md", "table.tex"]
    assert written["table.md"].startswith("| toys | closed S |")
    assert r"\toprule" in written["table.tex"]
    assert len(written["table.csv"].splitlines()) == 1 + 2 * 2
    assert len(json.loads(written["table.json"])["rows"]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "cps"), "no method named 'cps'. Did you mean 'csp'?"),
        (("--datasets", "toy"), "no dataset named 'toy'. Did you mean 'toys'?"),
        (("--worlds", "half"), "no world named 'half'"),
        (("--set", "lr"), "'lr' is not KEY=VALUE"),
        (("--set", "backbone=dem"), "no backbone named 'dem', and no file 'dem'. Did you mean 'demo'?"),
        (("--device", "gpu"), "device 'gpu' cannot be used"),
        (("--workers", "-1"), "workers is -1, expected 0 or more"),
        (("--plugins", "not_there.py"), "plugin not_there.py did not load: FileNotFoundError"),
    ],
)
def test_wrong_usage_ends_with_two_and_no_traceback(bench, arguments, message):
    status, out, err = bench(*arguments)
    assert status == 2
    assert out == ""
    assert f"czslkit: {message}" in err
    assert "Traceback" not in err


def test_seeds_must_be_numbers(bench, capsys):
    with pytest.raises(SystemExit, match="2"):
        bench("--seeds", "zero")
    assert "'zero' is not whole numbers with commas" in capsys.readouterr().err


def test_a_failed_cell_ends_with_one_and_is_in_the_table(bench):
    status, out, _ = bench("--datasets", "cgqa,toys", "--worlds", "closed")
    assert status == 1
    assert "failed: clip, csp on cgqa (closed, seed 0): DataError: cgqa is not there" in out
    assert "toys" in out


def test_unpackaged_code_is_loaded(bench, tmp_path):
    plugin = tmp_path / "my_method.py"
    plugin.write_text(
        "from czslkit import METHODS\n"
        "from czslkit_plugins.csp import Csp\n"
        "@METHODS.register('mine')\n"
        "class Mine(Csp):\n"
        "    'Mine alone.'\n"
    )
    status, out, _ = bench("--methods", "csp,mine", "--worlds", "closed", "--plugins", str(plugin))
    assert status == 0
    assert out.splitlines()[3].startswith("mine")


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


def test_minis_are_written(tmp_path, capsys):
    assert main(["data", "mini", "ut-zappos", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'ut-zappos'}\n"
    assert main(["data", "mini", "ut-zapos", "--out", str(tmp_path)]) == 2
    assert "Did you mean 'ut-zappos'" in capsys.readouterr().err


def test_an_interrupt_says_that_nothing_is_lost(bench, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("czslkit.benchmark.bench", interrupt)
    status, _, err = bench()
    assert status == 130
    assert "the same command goes on from here" in err


def test_a_table_of_what_is_not_there_names_what_is(bench, tmp_path, capsys):
    bench()
    assert main(["table", str(tmp_path / "runs"), "--methods", "mcsi, csp"]) == 2
    assert "has no results of mcsi. Known: clip, csp." in capsys.readouterr().err
    assert main(["table", str(tmp_path / "runs"), "--methods", "csp", "--datasets", "toys"]) == 0
    assert "clip" not in capsys.readouterr().out


def test_a_file_in_the_way_is_an_error_without_traceback(bench, tmp_path):
    (tmp_path / "runs").write_text("")
    status, _, err = bench()
    assert status == 1
    assert "czslkit: [Errno" in err


def test_every_epoch_leaves_a_line(bench):
    _, _, err = bench()
    assert "[2/2] csp on toys, seed 0: epoch 1/1: loss " in err
