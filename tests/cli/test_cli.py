from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

import czslkit
from czslkit.checkpoints.trained import load_checkpoint, save
from czslkit.cli import main
from czslkit.data.image_transforms import open_rgb, to_normalized_tensor
from czslkit.method import METHODS
from czslkit.types import Setting


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

    monkeypatch.setattr("czslkit.runner.bench.bench", interrupt)
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


@pytest.fixture(scope="module")
def trained(toys, clip_file, tmp_path_factory):
    """Folders of methods for the toys, as a training leaves them: those of ``msci``, ``troika`` and ``csp``."""
    root, space = tmp_path_factory.mktemp("trained"), czslkit.load_dataset("toys", toys).space
    small = {"backbone": str(clip_file), "adapter_dim": 4}
    options = {
        "msci": small | {"low_layers": 2, "high_layers": 2, "heads": [4, 4]},
        "troika": small | {"heads": 4},
        "csp": {"backbone": str(clip_file)},
    }
    for name, chosen in options.items():
        torch.manual_seed(0)
        save(root / name, name, czslkit.build(name, space, **chosen), chosen)
    return root


@pytest.fixture
def photo(toys):
    return next((toys / "toys" / "images" / "red_left").glob("*.png"))


@pytest.fixture
def explain(trained, photo, tmp_path, capsys):
    """Run ``czslkit explain`` on a toy: exit status, standard output, standard error."""

    def go(*arguments: object) -> tuple[int, str, str]:
        fixed = ["--checkpoint", trained / "msci", "--out", tmp_path / "shown.png"]
        status = main(["explain", *map(str, [photo, *fixed, *arguments])])
        return status, *capsys.readouterr()

    return go


def ranked_toys(method, photo):
    """Every pair of the toys with its score, the highest first."""
    image = to_normalized_tensor(open_rgb(photo), method.backbone.mean, method.backbone.std)[None]
    with torch.no_grad():
        scores = method.rank(image, method.text(method.space.pairs), Setting("test", "closed", len(method.space.pairs)))
    names = [f"{method.space.attrs[a]} {method.space.objs[o]}" for a, o in method.space.pairs.tolist()]
    return sorted(zip(scores[0].tolist(), names, strict=True), reverse=True)


def test_explain_ranks_all_pairs_and_draws_the_best(explain, trained, photo, tmp_path):
    status, out, err = explain()
    assert (status, err) == (0, "")
    header, *rows, path = out.splitlines()
    assert header.split(maxsplit=2)[:2] == ["pair", "score"]
    assert "local/global: pair" in header and "local/global: attr" in header and "local/global: obj" in header
    expected = ranked_toys(load_checkpoint(trained / "msci"), photo)[:3]
    for row, (score, name) in zip(rows, expected, strict=True):
        attr, obj, found, *shares = row.split()
        assert (f"{attr} {obj}", float(found)) == (name, pytest.approx(score, abs=1e-3))
        parts = [[int(part.rstrip("%")) for part in share.split("/")] for share in shares]
        assert len(parts) == 3 and all(abs(local + overall - 100) <= 1 for local, overall in parts)
    assert path == str(tmp_path / "shown.png")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        three = picture.size
    explain("--top", 1)
    with Image.open(path) as picture:
        assert (picture.width, picture.height) < three


def test_explain_shows_the_pairs_asked_for_once_each_and_those_of_no_list_too(explain):
    status, out, _ = explain("--pairs", "blue left, red whole,blue  left,green whole,red left")
    assert status == 0
    rows = [" ".join(line.split()[:2]) for line in out.splitlines()[1:-1]]
    assert sorted(rows) == ["blue left", "green whole", "red left", "red whole"]
    scores = [float(line.split()[2]) for line in out.splitlines()[1:-1]]
    assert scores == sorted(scores, reverse=True)
    assert len(explain("--pairs", "blue left,red whole", "--top", 1)[1].splitlines()) == 1 + 1 + 1


def test_explain_draws_the_same_again(explain, tmp_path):
    drawn = [(explain(), (tmp_path / "shown.png").read_bytes()) for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_explain_of_one_stage_has_no_shares(explain, trained):
    status, out, _ = explain("--checkpoint", trained / "troika")
    assert status == 0
    assert out.splitlines()[0].split() == ["pair", "score"]


def test_explain_of_what_cannot_be_explained_says_what_can(explain, trained, tmp_path):
    for arguments in ((), ("--pairs", "red left")):
        status, out, err = explain("--checkpoint", trained / "csp", *arguments)
        assert (status, out) == (1, "")
        assert err.startswith("czslkit: NoInteraction has nothing to explain: in it, no text attends to")
        assert "two_stage (czslkit_plugins.msci)" in err
    assert not (tmp_path / "shown.png").exists()


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (("--pairs", "redd left"), ["no attribute named 'redd' among the 3 of the checkpoint. Did you mean 'red'?"]),
        (("--pairs", "red lefd"), ["no object named 'lefd' among the 3 of the checkpoint. Did you mean 'left'?"]),
        (("--pairs", "left redd,red"), ["no attribute named 'left'", "no object named 'redd'", "'red' is not an attr"]),
        (("--pairs", ""), ["'' is not an attribute and an object, such as 'wet dog'"]),
        (("--top", "0"), ["--top is 0, expected 1 or more"]),
        (("--device", "gpu"), ["device 'gpu' cannot be used"]),
    ],
)
def test_explain_used_wrongly_ends_with_two(explain, arguments, messages):
    status, out, err = explain(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("czslkit: ")
    for message in messages:
        assert message in err


def test_explain_names_an_image_that_cannot_be_read(trained, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "not_there.png"):
        assert main(["explain", str(tmp_path / name), "--checkpoint", str(trained / "msci")]) == 1
        assert f"czslkit: {tmp_path / name} is not a readable image" in capsys.readouterr().err


def test_explain_names_a_folder_without_a_checkpoint(explain, tmp_path):
    status, _, err = explain("--checkpoint", tmp_path)
    assert status == 2
    assert f"czslkit: no {tmp_path / 'method.json'}" in err


def test_explain_reads_what_a_bench_run_leaves(bench, photo, tmp_path, capsys):
    sizes = ("msci.low_layers=2", "msci.high_layers=2", "msci.heads=[4, 4]", "msci.fusion=gated", "msci.adapter_dim=4")
    assert bench("--methods", "msci", "--worlds", "closed", "--set", *sizes)[0] == 0
    (folder,) = tmp_path.glob("runs/toys/msci/seed0-*/training")
    out = tmp_path / "of a run.png"
    assert main(["explain", str(photo), "--checkpoint", str(folder), "--out", str(out)]) == 0
    assert capsys.readouterr().out.endswith(f"\n{out}\n")
    assert out.read_bytes()[:4] == b"\x89PNG"
