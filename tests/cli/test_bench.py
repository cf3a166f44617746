from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from czslkit.cli import main
from czslkit.entry_points import GROUP
from czslkit.method import METHODS
from czslkit.runner.bench import Benchmark
from czslkit.runner.suite import Suite


@pytest.fixture
def asked(monkeypatch):
    """Return the methods, datasets, worlds and seeds that a command line asks for; nothing runs."""

    def go(*arguments):
        given = []
        monkeypatch.setattr("czslkit.runner.bench.bench", lambda *grid, **_: given.extend(grid) or Benchmark(()))
        assert main(["bench", "--estimate", *arguments]) == 0
        return given

    def with_methods(*arguments):
        return go(*arguments) if "--methods" in arguments else go("--methods", "csp", *arguments)

    return with_methods


def test_bench_prints_a_table_and_writes_it_in_every_format(bench, tmp_path):
    status, out, err = bench()
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[:4]] == ["toys", "method", "clip", "csp"]
    assert "[2/2] csp on toys, seed 0: running" in err
    written = {path.name: path.read_text() for path in (tmp_path / "runs").glob("table.*")}
    assert sorted(written) == ["table.bib", "table.csv", "table.json", "table.md", "table.tex"]
    assert written["table.md"].startswith("| toys | closed S |")
    assert r"\toprule" in written["table.tex"]
    assert len(written["table.csv"].splitlines()) == 1 + 2 * 2
    assert len(json.loads(written["table.json"])["rows"]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "cps"), "no method named 'cps'. Did you mean 'csp' or 'compcos'?"),
        (("--datasets", "toy"), "no dataset named 'toy'. Did you mean 'toys'?"),
        (("--worlds", "half"), "no world named 'half'"),
        (("--set", "lr"), "'lr' is not KEY=VALUE"),
        (
            ("--set", "train.lr=1e-3", "--set", "train.lr=5e-3"),
            "train.lr is given 2 times (1e-3, 5e-3): give it once; train.lr=1e-3,5e-3 is for several configurations",
        ),
        (("--set", "backbone=dem"), "no backbone named 'dem', and no file 'dem'. Did you mean 'demo'?"),
        (("--device", "gpu"), "device 'gpu' cannot be used"),
        (("--workers", "-1"), "workers is -1, expected auto or a whole number, 0 or more"),
        (("--workers", "two"), "workers is 'two', expected auto or a whole number, 0 or more"),
        (("--plugins", "not_there.py"), "plugin not_there.py did not load: FileNotFoundError"),
    ],
)
def test_wrong_usage_ends_with_two_and_no_traceback(bench, arguments, message):
    status, out, err = bench(*arguments)
    assert status == 2
    assert out == ""
    assert f"czslkit: {message}" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [
        (["--methods", "clip", "--set", "backbone=demo"], False),
        (["--methods", "clip,acme", "--set", "backbone=demo"], True),
        (["--methods", "clip", "--set", "backbone=acme"], True),
    ],
    ids=["built-in names", "method", "backbone"],
)
def test_a_plugin_is_imported_only_if_its_name_is_asked_for(tmp_path, demo_world, arguments, imported):
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nacme = acme:Acme\n")
    (tmp_path / "acme.py").write_text(
        "from pathlib import Path\n"
        "from czslkit import BACKBONES, METHODS\n"
        "from czslkit_plugins.clip import Clip\n"
        "from czslkit.backbones.demo import DemoClip\n"
        "Path(__file__).with_name('mark').touch()\n"
        "@METHODS.register('acme')\n"
        "class Acme(Clip): ...\n"
        "@BACKBONES.register('acme')\n"
        "class AcmeBackbone(DemoClip): ...\n"
    )
    command = [sys.executable, "-m", "czslkit", "bench", "--estimate", *arguments]
    folders = ["--data", str(demo_world), "--runs", str(tmp_path / "runs")]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([*command, *folders], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mark").exists() is imported


def test_verbose_prints_the_traceback_of_an_error(bench, tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text("1 / 0")
    for verbose in ([], ["--verbose"]):
        status, _, err = bench("--plugins", str(plugin), *verbose)
        assert status == 2
        assert err.endswith(f"czslkit: plugin {plugin} did not load: ZeroDivisionError: division by zero\n")
        assert (f'File "{plugin}", line 1' in err) is bool(verbose)


def test_a_recipe_is_given_for_a_method(bench, tmp_path):
    recipe = tmp_path / "toys" / "csp.yaml"
    recipe.parent.mkdir()
    recipe.write_text("method: csp\ntrain: {lr: 0}\nexpected: {closed: {S: 11.1, U: 2, H: 3, AUC: 4, source: nowhere}}")
    status, out, _ = bench("--recipe", f"csp={recipe}", "--worlds", "closed")
    assert status == 0
    assert "11.1" in out
    assert "clip on toys: no recipe; " in out
    assert bench("--recipe", "csp")[::2] == (2, "czslkit: 'csp' is not METHOD=FILE.yaml\n")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("zero", "'zero' is not whole numbers separated by commas, such as 0,1,2, or a range, such as 0-2"),
        ("0-", "'0-' is not whole numbers"),
        ("0-1-2", "'0-1-2' is not whole numbers"),
        ("1e3", "'1e3' is not whole numbers"),
        (",", "',' is not whole numbers"),
        ("0--2", "'0--2' is not whole numbers"),
        ("7-2", "'7-2' counts down: write 2-7"),
        ("0-1000", "'0-1000' has more than 1,000 seeds: give fewer, such as 0-9"),
        ("0-600,1000-1600", "'0-600,1000-1600' has more than 1,000 seeds"),
        ("9" * 5000, "999' is not whole numbers"),
    ],
)
def test_seeds_must_be_numbers_or_ranges(bench, capsys, typed, message):
    with pytest.raises(SystemExit, match="2"):
        bench("--seeds", typed)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["0-2"], [0, 1, 2]),
        (["0-2,7"], [0, 1, 2, 7]),
        (["5", "4"], [5, 4]),
        (["1,", "2"], [1, 2]),
        (["3-3", " 8 , 10 - 11"], [3, 8, 10, 11]),
        (["0-999"], list(range(1000))),
        (["-1"], [-1]),
    ],
)
def test_seeds_are_numbers_and_ranges(asked, typed, expected):
    assert asked("--seeds", *typed)[3] == expected


@pytest.mark.parametrize("typed", [["csp,msci"], ["csp", "msci"], ["csp,", "msci"], ["csp , msci"]])
def test_names_have_commas_or_spaces_between_them(asked, typed):
    assert asked("--methods", *typed)[0] == ["csp", "msci"]
    assert asked("--datasets", *typed)[1] == ["csp", "msci"]
    assert asked("--worlds", *typed)[2] == ["csp", "msci"]


def test_an_option_that_is_repeated_adds_to_what_it_named_before(asked):
    texts = ["--methods", "csp", "--datasets", "a", "--worlds", "open", "--seeds", "3", "--methods", "msci,clip"]
    grid = asked(*texts, "--datasets", "b", "--seeds", "5-6", "--worlds", "closed")
    assert grid == [["csp", "msci", "clip"], ["a", "b"], ["open", "closed"], [3, 5, 6]]


def test_the_grid_is_demo_in_both_worlds_for_seed_0_if_nothing_else_is_asked_for(asked):
    assert asked("--methods", "csp") == [["csp"], None, None, None]
    assert (Suite().datasets, Suite().worlds, Suite().seeds) == (("demo",), ("closed", "open"), (0,))


def test_methods_without_a_name_are_nothing_to_run(capsys):
    assert main(["bench", "--methods", ","]) == 2
    assert capsys.readouterr().err == "czslkit: nothing to run: give --methods, SUITE.yaml or --checkpoint\n"


def test_every_combination_of_several_values_is_a_row(bench, tmp_path):
    status, out, err = bench("--worlds", "closed", "--set", "csp.train.lr=1e-3,5e-3", "csp.word_dropout=0,0.5")
    assert status == 0
    assert "[1/5] clip on toys, seed 0: running" in err
    assert "[4/5] csp train.lr=0.005 word_dropout=0 on toys, seed 0: running" in err
    assert len(list(tmp_path.glob("runs/toys/csp/seed0-*/closed.json"))) == 4
    assert len({line.partition("  ")[0] for line in out.splitlines() if line.startswith("csp ")}) == 4
    assert (
        "[5/5] csp train.lr=0.005 word_dropout=0.5 on toys, seed 0: done before"
        in bench("--worlds", "closed", "--set", "csp.train.lr=1e-3,5e-3", "csp.word_dropout=0,0.5", "--estimate")[2]
    )


def test_a_failed_cell_ends_with_one_and_is_in_the_table(bench):
    status, out, _ = bench("--datasets", "cgqa,toys", "--worlds", "closed")
    assert status == 1
    assert "failed: clip, csp on cgqa (closed, seed 0): DataError: cgqa is absent" in out
    assert "toys" in out


def test_unpackaged_code_is_loaded(bench, tmp_path, monkeypatch):
    list(METHODS)  # every plugin is loaded, so that the copy below holds them all
    monkeypatch.setattr(METHODS, "_items", dict(METHODS._items))
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


def test_every_epoch_leaves_a_line(bench):
    _, _, err = bench()
    assert "[2/2] csp on toys, seed 0: epoch 1/1: loss " in err


@pytest.mark.parametrize(("arguments", "keep_stale"), [((), False), (("--keep-stale",), True)])
def test_stale_results_are_kept_only_if_asked_for(bench, monkeypatch, arguments, keep_stale):
    given = {}

    def stand_in(*positional, **keywords):
        given.update(keywords)
        return Benchmark(())

    monkeypatch.setattr("czslkit.runner.bench.bench", stand_in)
    assert bench("--estimate", *arguments)[0] == 0
    assert given["keep_stale"] is keep_stale
