from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import czslkit
from czslkit.checkpoints.trained import save
from czslkit.cli import main
from czslkit.named_pairs import named_candidates
from czslkit.training_files import CALIBRATION_FILE

PAGE = Path(__file__).parents[2] / "docs" / "predict.md"


@pytest.fixture(scope="module")
def trained(toys, clip_file, tmp_path_factory):
    """Return a folder with trained methods for the toys: ``csp``, ``clip`` and ``coop``."""
    root, space = tmp_path_factory.mktemp("trained"), czslkit.load_dataset("toys", toys).space
    for name in ("csp", "clip", "coop"):
        torch.manual_seed(0)
        save(root / name, name, czslkit.build(name, space, backbone=str(clip_file)), {"backbone": str(clip_file)})
    return root


@pytest.fixture
def photos(toys, tmp_path, monkeypatch):
    """Return the current folder, with a folder of three photos and other files."""
    monkeypatch.chdir(tmp_path)
    Path("new/more/.hidden").mkdir(parents=True)
    source = next((toys / "toys" / "images" / "red_left").glob("*.png"))
    for name in ("new/b.PNG", "new/a.png", "new/more/c.png", "new/.x.png", "new/more/.hidden/d.png"):
        shutil.copy(source, name)
    Path("new/notes.txt").write_text("no photo")
    return tmp_path


@pytest.fixture
def predict(trained, photos, capsys):
    """Run ``czslkit predict``; returns exit status, standard output and standard error."""

    def go(*arguments: object, method: str = "csp") -> tuple[int, str, str]:
        status = main(["predict", *map(str, arguments), "--checkpoint", str(trained / method)])
        return status, *capsys.readouterr()

    return go


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_photos_of_folders_and_patterns_are_predicted_once_each(predict):
    status, out, err = predict("new/more/c.png", "new", "--top", 1)
    assert status == 0
    files = ["new/more/c.png:", "new/a.png:", "new/b.PNG:"]
    assert [line for line in out.splitlines() if line.startswith("new")] == files
    assert "the bias of unseen pairs is 0, because the trained method records no best one: --bias" in err
    for pattern, names in (("new/*.png", {"new/a.png", "new/b.PNG"}), ("new/**/*.PNG", {"new/a.png", "new/b.PNG",
                           "new/more/c.png"}), ("ne?/more", {"new/more/c.png"})):  # fmt: skip
        assert {row["image"] for row in rows(predict(pattern, "--format", "csv")[1])} == names


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("new/*.gif",), 1, "no image fits the pattern 'new/*.gif'"),
        (("empty",), 1, "empty has no images, not even in its subfolders"),
        (("new", "--pairs", "rusty left"), 2, "no attribute named 'rusty' among the 3 attributes of the checkpoint."),
        (("new", "--pairs", "rusty"), 2, "'rusty' is not an attribute and an object"),
        (("new", "--workers", "-1"), 2, "--workers is -1, expected 0 or more"),
        (("new", "--out", "new/a.png"), 2, "would replace a photo, expected another file"),
        (("new", "--gallery", "new/more/c.png"), 2, "would replace a photo, expected another file"),
        (("new", "--out", "p", "--gallery", "./p"), 2, "--out and --gallery are both p, expected two files"),
    ],
)
def test_what_cannot_be_predicted_is_named(predict, arguments, status, message):
    Path("empty").mkdir()
    found, out, err = predict(*arguments)
    assert (found, out) == (status, "")
    assert message in err


def test_a_bias_is_a_finite_number_or_auto(predict, capsys):
    for text in ("nan", "inf", "much"):
        with pytest.raises(SystemExit):
            predict("new", "--bias", text)
        assert f"{text!r} is neither auto nor a finite number" in capsys.readouterr().err
    assert "the bias of unseen pairs is -0.5, as given" in predict("new", "--bias", "-0.5")[2]
    assert predict("new", "--bias", "auto")[1] == predict("new", "--bias", "0")[1]


def test_a_photo_that_cannot_be_read_is_named_and_the_others_are_predicted(predict):
    Path("new/bad.jpg").write_text("no photo")
    status, out, err = predict("new", "new/gone.png", "--format", "csv", "--batch-size", 2)
    assert status == 1
    found = rows(out)
    assert {row["image"] for row in found if not row["error"]} == {"new/a.png", "new/b.PNG", "new/more/c.png"}
    assert {row["image"] for row in found if row["error"]} == {"new/bad.jpg", "new/gone.png"}
    for name in ("bad.jpg", "gone.png"):
        assert f"czslkit: new/{name} is not a readable image" in err


def test_forms_of_the_output_have_the_same_numbers(predict):
    text = predict("new/a.png", "--top", 2)[1]
    table = rows(predict("new/a.png", "--top", 2, "--out", "found.csv") and Path("found.csv").read_text())
    found = json.loads(predict("new/a.png", "--top", 2, "--format", "json")[1])
    assert (found["world"], found["bias"], found["method"]) == ("closed", 0.0, "CSP")
    (one,) = found["predictions"]
    assert [(row["attribute"], row["object"], float(row["score"])) for row in table] == [
        (pair["attr"], pair["obj"], pytest.approx(pair["score"], rel=1e-5)) for pair in one["pairs"]
    ]
    for line, pair in zip(text.splitlines()[2:4], one["pairs"], strict=True):
        assert line.startswith(f"{pair['attr']} {pair['obj']}" + ("" if pair["seen"] else " *"))
        assert f"{pair['score']:.3f}" in line and f"{pair['attr_probability']:.1%}" in line


def test_words_alone_stand_for_their_pairs(predict, toys):
    space = czslkit.load_dataset("toys", toys).space
    known = {f"{space.attrs[a]} {space.objs[o]}" for a, o in space.pairs.tolist()}
    found = rows(predict("new/a.png", "--pairs", "red, left", "--top", 9, "--format", "csv")[1])
    named = {f"{row['attribute']} {row['object']}" for row in found}
    assert named == {pair for pair in known if pair.startswith("red") or pair.endswith("left")}
    found = rows(predict("new/a.png", "--pairs", "green whole,red left", "--format", "csv")[1])
    assert {(row["attribute"], row["seen"]) for row in found} == {("green", "False"), ("red", "True")}
    assert sum(float(row["probability"]) for row in found) == pytest.approx(1, abs=1e-4)


def test_spaces_within_a_word_do_not_make_it_two_words():
    index = torch.tensor([[0, 0], [0, 1]])
    space = czslkit.PairSpace(("wet",), ("cat", "tin can"), index, torch.tensor([True, True]))
    whole, chosen = named_candidates("tin  can", space, new_words=True)
    assert (whole.attrs, whole.objs, chosen.tolist()) == (space.attrs, space.objs, [False, True])


@pytest.mark.parametrize("method", ["clip", "coop"])
def test_methods_with_open_texts_take_other_words_and_keep_their_scores(predict, method):
    words = "rusty bicycle,red left,red bicycle"
    found = rows(predict("new/a.png", "--pairs", words, "--format", "csv", method=method)[1])
    assert {f"{row['attribute']} {row['object']}" for row in found} == set(words.split(","))
    alone = rows(predict("new/a.png", "--pairs", "red left", "--format", "csv", method=method)[1])
    score = {row["object"] + row["attribute"]: float(row["score"]) for row in found}
    assert score["leftred"] == pytest.approx(float(alone[0]["score"]), rel=1e-4)


def test_the_gallery_shows_every_photo_and_keeps_hostile_names_text(predict):
    name = "<img src=x onerror=alert(1)>.png"
    shutil.copy("new/a.png", f"new/{name}")
    Path("new/bad<b>.png").write_text("no photo")
    status, out, err = predict("new", "--top", 2, "--format", "json", "--gallery", "shown.html")
    assert status == 1 and len(json.loads(out)["predictions"]) == 5 and "\nshown.html\n" in err
    page = Path("shown.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == page.count("data:image/jpeg;base64,") == 4
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;.png" in page
    assert "bad&lt;b&gt;.png is not a readable image" in page
    assert not re.search(r"https?://|<script|<link", page)


def test_the_commands_of_the_page_lead_from_photos_to_predictions(demo_world, clip_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images = demo_world / "demo" / "images"
    for pair in ("wet_fish", "wet_arrow", "dotted_arrow", "dotted_star", "striped_fish", "striped_star", "wet_star",
                 "striped_arrow", "dotted_fish"):  # fmt: skip
        if (images / pair).is_dir():
            Path("photos", pair).mkdir(parents=True)
            for file in sorted((images / pair).glob("*.png"))[:12]:
                shutil.copy(file, Path("photos", pair))
    Path("new").mkdir()
    shutil.copy(next((images / "wet_fish").glob("test*.png")), "new/p1.png")
    block = re.search(r"<!-- run -->\n```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block
    commands = block[1].splitlines()
    assert len(commands) <= 5
    for command in commands:
        words = []
        for word in shlex.split(command.replace("ViT-B-32/openai", f"{clip_file} train.epochs=2"))[1:]:
            words += sorted(map(str, Path().glob(word))) if "*" in word else [word]
        assert main(words) == 0, command
    out, err = capsys.readouterr()
    assert "new/p1.png:\npair" in out and Path("new.html").is_file()
    assert "which was best on the validation split of the closed world" in err
    (run,) = Path("runs/mine/csp").iterdir()
    assert (run / "training" / CALIBRATION_FILE).is_file()
    code = re.search(r"<!-- python -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code
    Image.open("new/p1.png").convert("RGB").save("new/p1.jpg")
    shutil.copy("new/p1.jpg", "new/p2.jpg")
    exec(code[1].replace("runs/mine/csp/seed0-3f2a91bc", str(run)))
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["new/p1.jpg", "new/p2.jpg"]
