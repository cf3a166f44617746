from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

import czslkit
from czslkit.checkpoints.trained import load, save
from czslkit.cli import main
from czslkit.data.image_transforms import to_normalized_tensor
from czslkit.data.images import open_rgb
from czslkit.types import Setting


@pytest.fixture(scope="module")
def trained(toys, clip_file, tmp_path_factory):
    """Return a folder with the folders of three trained methods for the toys: ``msci``, ``troika`` and ``csp``."""
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
    """Run ``czslkit explain`` on a toy; returns exit status, standard output and standard error."""

    def go(*arguments: object) -> tuple[int, str, str]:
        fixed = ["--checkpoint", trained / "msci", "--out", tmp_path / "shown.png"]
        status = main(["explain", *map(str, [photo, *fixed, *arguments])])
        return status, *capsys.readouterr()

    return go


def ranked_toys(method, photo):
    """Return every pair of the toys with its score, the highest first."""
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
    expected = ranked_toys(load(trained / "msci"), photo)[:3]
    for row, (score, name) in zip(rows, expected, strict=True):
        attr, obj, found, *contributions = row.split()
        assert (f"{attr} {obj}", float(found)) == (name, pytest.approx(score, abs=1e-3))
        percents = [[int(part.rstrip("%")) for part in parts.split("/")] for parts in contributions]
        assert len(percents) == 3 and all(abs(local + overall - 100) <= 1 for local, overall in percents)
    assert path == str(tmp_path / "shown.png")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        three = picture.size
    explain("--top", 1)
    with Image.open(path) as picture:
        assert (picture.width, picture.height) < three


def test_explain_shows_each_pair_asked_for_once_even_if_the_dataset_does_not_list_it(explain):
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


def test_explain_of_one_stage_shows_no_contributions(explain, trained):
    status, out, _ = explain("--checkpoint", trained / "troika")
    assert status == 0
    assert out.splitlines()[0].split() == ["pair", "score"]


def test_explain_of_a_method_without_attention_names_interactions_with_it(explain, trained, tmp_path):
    for arguments in ((), ("--pairs", "red left")):
        status, out, err = explain("--checkpoint", trained / "csp", *arguments)
        assert (status, out) == (1, "")
        assert err.startswith("czslkit: NoInteraction has nothing to explain: its texts do not attend to")
        assert "two_stage (czslkit_plugins.msci)" in err
    assert not (tmp_path / "shown.png").exists()


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (
            ("--pairs", "redd left"),
            ["no attribute named 'redd' among the 3 attributes of the checkpoint. Did you mean 'red'?"],
        ),
        (
            ("--pairs", "red lefd"),
            ["no object named 'lefd' among the 3 objects of the checkpoint. Did you mean 'left'?"],
        ),
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


def test_explain_takes_the_folder_of_a_run_or_of_its_training(bench, photo, tmp_path, capsys):
    sizes = ("msci.low_layers=2", "msci.high_layers=2", "msci.heads=[4, 4]", "msci.fusion=gated", "msci.adapter_dim=4")
    assert bench("--methods", "msci", "--worlds", "closed", "--set", *sizes)[0] == 0
    (folder,) = tmp_path.glob("runs/toys/msci/seed0-*")
    drawn = []
    for checkpoint in (folder, folder / "training"):
        out = tmp_path / "of a run.png"
        assert main(["explain", str(photo), "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
        assert capsys.readouterr().out.endswith(f"\n{out}\n")
        drawn.append(out.read_bytes())
    assert drawn[0] == drawn[1]
    assert drawn[0][:4] == b"\x89PNG"
    again = ["--checkpoint", str(folder), "--runs", str(tmp_path / "again"), "--data", str(photo.parents[3])]
    assert main(["bench", "--datasets", "toys", "--worlds", "closed", *again]) == 0


@pytest.fixture
def photos(photo, tmp_path, monkeypatch):
    """Return a folder with two photos, a file of text, and a folder; the current folder has the photo ``red.png``."""
    monkeypatch.chdir(tmp_path)
    Path("photos/more").mkdir(parents=True)
    for name in ("red.png", "photos/b.PNG", "photos/a.png", "photos/.hidden.png", "photos/more/c.png"):
        Path(name).write_bytes(photo.read_bytes())
    Path("photos/notes.txt").write_text("no image")
    return Path("photos")


def explained(trained, *arguments):
    return main(["explain", *map(str, arguments), "--checkpoint", str(trained / "msci")])


def test_explain_takes_several_images_and_folders(trained, photos, capsys):
    assert explained(trained, photos, "red.png", "photos/more/c.png", "photos/a.png", "--top", 1) == 0
    out, err = capsys.readouterr()
    files = ["photos/a.png", "photos/b.PNG", "red.png", "photos/more/c.png"]
    lines = out.splitlines()
    assert lines[::4] == [f"{file}:" for file in files]
    assert lines[3::4] == [f"explained/{Path(file).name}.png" for file in files]
    assert err == ""
    assert sorted(file.name for file in Path("explained").iterdir()) == [
        "a.png.png",
        "b.PNG.png",
        "c.png.png",
        "red.png.png",
    ]
    alone = Path("alone.png")
    assert explained(trained, "red.png", "--top", 1, "--out", alone) == 0
    assert alone.read_bytes() == Path("explained/red.png.png").read_bytes()


def test_images_of_one_name_have_drawings_of_their_own(trained, photos, capsys):
    Path("a.png").write_bytes(Path("red.png").read_bytes())
    assert explained(trained, "photos/a.png", "a.png", "--top", 1, "--out", "new/drawings") == 0
    assert capsys.readouterr().out.splitlines()[3::4] == ["new/drawings/a.png-1.png", "new/drawings/a.png-2.png"]


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_drawn(trained, photos, capsys):
    Path("photos/a.png").write_text("no image")
    assert explained(trained, photos, "--top", 1) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "photos/b.PNG:"
    assert err.startswith("czslkit: photos/a.png is not a readable image")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["photos/more", "--out", "red.png"],
            2,
            "--out is 'red.png', which is a file; expected a folder for several dr",
        ),
        (["red.png", "--out", "."], 2, "--out is '.', which is a folder; expected the path of a PNG file to write"),
        (["red.png", "--out", "new/"], 2, "--out is 'new/', which is a folder"),
        (["red.png", "--out", "photos/../red.png"], 2, "but the drawing would replace the image"),
        (["empty"], 1, "empty has no images"),
    ],
)
def test_images_and_drawings_that_do_not_fit_are_refused(trained, photos, capsys, arguments, status, message):
    Path("empty").mkdir()
    assert explained(trained, *arguments) == status
    assert message in capsys.readouterr().err


def test_explain_loads_methods_of_a_file(trained, photos, capsys):
    Path("broken.py").write_text("1 / 0")
    assert explained(trained, "red.png", "--plugins", "broken.py") == 2
    assert capsys.readouterr().err == "czslkit: plugin broken.py did not load: ZeroDivisionError: division by zero\n"


def test_a_photo_is_read_upright_and_in_8_bits_and_an_image_of_a_dataset_as_in_trainings(trained, toys, photos, capsys):
    deep = Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 20)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    small = Image.fromarray((np.asarray(deep) / 257).round().astype(np.uint8)).convert("RGB")
    small.save("photos/turned.png", exif=exif)
    small.transpose(Image.Transpose.ROTATE_270).save("photos/upright.png")
    deep.save("photos/deep.png")
    small.save("photos/small.png")
    (published := Path("data/mine/images/red_left")).mkdir(parents=True)
    shutil.copytree(toys / "toys" / "compositional-split-natural", "data/mine/compositional-split-natural")
    for name in ("turned", "small", "deep"):
        shutil.copy(f"photos/{name}.png", published)

    def shown(file):
        assert explained(trained, file, "--top", 1, "--out", "shown.png") == 0
        capsys.readouterr()
        return Path("shown.png").read_bytes()

    assert shown("photos/turned.png") == shown("photos/upright.png") != shown("photos/small.png")
    assert shown("photos/deep.png") == shown("photos/small.png")
    assert shown(published / "turned.png") == shown("photos/small.png")
    assert shown(published / "deep.png") != shown("photos/small.png")
