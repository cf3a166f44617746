from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

import czslkit
from czslkit.cli import main
from czslkit.data.check.verification import verify
from czslkit.data.images import open_rgb
from czslkit.data.layout import Instance, images_folder, metadata_file
from czslkit.data.left_out import refuse_many_set_aside
from czslkit.data.listing import read_listing
from czslkit.data.loading import load_dataset
from czslkit.data.make.dataset_import import import_dataset
from czslkit.data.metadata import read_metadata
from czslkit.errors import ConfigError, DataError
from czslkit.prompts import FixedPrompt

ATTRS, OBJS = ("dry", "old", "wet"), ("cat", "dog", "fish")
Draw = Callable[[Path, int], None]
Table = Callable[..., Path]
Refused = Callable[[Path, str], str]


def test_verify_finds_nothing_in_an_imported_folder(photos: Path, tmp_path: Path) -> None:
    folder = import_dataset(photos, "mine", tmp_path / "data")
    assert folder == tmp_path / "data" / "mine"
    assert verify("mine", tmp_path / "data").findings == ()
    data = czslkit.load_dataset("mine", tmp_path / "data")
    assert (data.space.attrs, data.space.objs) == (ATTRS, OBJS)
    assert int(data.space.seen.sum()) == 7
    assert len(data.train) + len(data.val) + len(data.test) == 36
    assert (images_folder(folder) / "wet_dog" / "0.png").read_bytes() == (photos / "wet_dog" / "0.png").read_bytes()


def test_folder_and_table_give_the_same_dataset(
    photos: Path, tmp_path: Path, table: Table, all_rows: list[str]
) -> None:
    file = table(*all_rows)
    shutil.move(file, photos.parent / "t.csv")
    rows = (photos.parent / "t.csv").read_text().replace("\n", "\nphotos/").removesuffix("photos/")
    (photos.parent / "t.csv").write_text(rows)
    one, other = (
        import_dataset(s, n, tmp_path / "data") for s, n in ((photos, "one"), (photos.parent / "t.csv", "two"))
    )
    assert read_listing(one) == read_listing(other)


def test_an_imported_dataset_is_benchmarked_by_name(photos: Path, clip_file: Path, tmp_path: Path) -> None:
    data, runs = ["--data", str(tmp_path / "data")], ["--runs", str(tmp_path / "runs")]
    assert main(["data", "import", str(photos), "--name", "mine", *data]) == 0
    assert (
        main(["bench", "--methods", "clip", "--datasets", "mine", *data, *runs, "--set", f"backbone={clip_file}"]) == 0
    )


def test_the_command_says_what_the_dataset_holds(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["data", "import", str(photos), "--name", "mine", "--data", str(tmp_path)]
    assert main([*arguments, "--seed", "1", "--unseen", "0.3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(tmp_path / "mine")
    assert "test unseen pairs 2" in {" ".join(line.split()) for line in lines}
    assert main(arguments) == 1
    assert f"{tmp_path / 'mine'} exists already and is not changed" in capsys.readouterr().err
    assert main([*arguments, "--unseen", "1.5"]) == 2


def test_labels_and_file_names_are_normalized(
    photos: Path, tmp_path: Path, draw: Draw, table: Table, all_rows: list[str]
) -> None:
    rows = [f"{row},train" for row in all_rows] + [f"{row},{split}" for row, split in (
        ("x/héllo wörld.png,very  wet,e\u0301clair", "train"),
        ("x/../x/a:b.png,very wet,éclair", "val"),
        ("x\\c.png,very_wet,éclair", "test"),
        ("y/c.png,very wet,éclair", "test"),
        ("y/C.png,very wet,éclair", "test"),
    )]  # fmt: skip
    for n, name in enumerate(("x/héllo wörld.png", "x/a:b.png", "x/c.png", "y/c.png", "y/C.png")):
        draw(photos / name, 100 + n)
    folder = import_dataset(table(*rows, header="image,attr,obj,set"), "mine", tmp_path)
    assert read_metadata(metadata_file(folder))[36:] == tuple(
        Instance(f"very_wet_éclair/{name}.png", "very wet", "éclair", split)
        for name, split in (("héllo wörld", "train"), ("a_b", "val"), ("c", "test"), ("c-2", "test"), ("C-3", "test"))
    )
    assert verify("mine", tmp_path).passed


def test_clip_reads_the_words_of_labels(photos: Path, tmp_path: Path, table: Table, all_rows: list[str]) -> None:
    spelled = {",dog": ",teddy_bear", ",wet,": ",light  blue,"}
    rows = all_rows
    for short, long in spelled.items():
        rows = [row.replace(short, long) for row in rows]
    import_dataset(table(*rows), "mine", tmp_path)
    space = load_dataset("mine", tmp_path).space
    assert (space.attrs, space.objs) == (("dry", "light blue", "old"), ("cat", "fish", "teddy bear"))
    prompt = FixedPrompt(space)
    asked: list[str] = []

    class Reader:
        def check_words(self, words: list[str]) -> None: ...
        def encode_sentences(self, texts: list[str]) -> torch.Tensor:
            asked.extend(texts)
            return torch.zeros(len(texts), 2)

    prompt(Reader(), space.pairs)  # type: ignore[arg-type]
    assert "a photo of light blue teddy bear" in asked
    assert not any("_" in text for text in asked)


def test_a_plus_and_spaces_in_labels_are_refused_together(
    photos: Path, table: Table, all_rows: list[str], refused: Refused
) -> None:
    rows = [row.replace(",dog", ",hot dog").replace(",wet,", ",c+d,") for row in all_rows]
    refused(table(*rows), r"'c\+d', 'cat': a '\+' in a label, while labels have spaces, cannot be listed")


def test_too_few_pictures_to_split_are_refused(tmp_path: Path, draw: Draw, refused: Refused) -> None:
    draw(tmp_path / "photos" / "wet_dog" / "0.png", 0)
    refused(tmp_path / "photos", r"0 of 1 pairs \(1 attributes, 1 objects\) can be unseen, but 2 are needed")


def test_splits_that_make_no_task_are_refused(table: Table, all_rows: list[str], refused: Refused) -> None:
    rows = [f"{row},{'test' if 'old' in row else 'train'}" for row in all_rows]
    file = table(*rows, header="image,attr,obj,split")
    said = refused(file, "1 attributes of test_pairs.txt are in no training pair: old")
    assert "val_pairs.txt lists no pair" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "a dataset cannot be named ''"),
        ("a,b", "a dataset cannot be named 'a,b'"),
        ("../mine", "a dataset cannot be named '../mine'"),
        (".mine", "a dataset cannot be named '.mine'"),
        ("all", "the name 'all' is taken: it means several datasets"),
        ("cgqa", "the name 'cgqa' is taken: it means cgqa"),
        ("ut-zap50k", "the name 'ut-zap50k' is taken: it means ut-zappos"),
    ],
)
def test_an_unusable_name_is_wrong_usage(photos: Path, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        import_dataset(photos, name, tmp_path / "data")


@pytest.mark.parametrize("share", [1.0, -1.0, float("nan")])
def test_a_share_is_0_or_more_and_below_1(photos: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(ConfigError, match=f"unseen is {share}, expected 0 or more and below 1"):
        import_dataset(photos, "mine", tmp_path, unseen=share)


def test_pictures_that_cannot_be_read_are_set_aside_with_the_reason(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (photos / "wet_dog" / "1.png").read_bytes()
    (photos / "wet_dog" / "1.png").write_bytes(content[:-40] + bytes(40))
    (photos / "wet_dog" / "2.png").write_text("no image")
    folder = import_dataset(photos, "mine", tmp_path / "data")
    assert len(read_metadata(metadata_file(folder))) == 34
    said = capsys.readouterr().err
    assert "warning: 2 of 36 pictures cannot be read and are set aside:\n" in said
    assert f"{photos / 'wet_dog' / '2.png'}: it is in none of the formats JPEG" in said
    aside = json.loads((folder / "imported.json").read_text())["set_aside"]
    assert [one["file"] for one in aside] == [str(photos / "wet_dog" / f"{n}.png") for n in (1, 2)]
    assert aside[0]["reason"]
    limit = "which is more than 1%: czslkit bench needs --allow-missing to run without them"
    assert f"warning: 2 of 36 pictures cannot be read and are set aside, {limit}\n" in said
    [finding] = verify("mine", tmp_path / "data").findings
    assert (finding.severity, finding.kind, len(finding.where)) == ("warning", "set-aside", 2)
    assert finding.what == "2 of 36 pictures could not be read and were set aside when the dataset was imported"
    assert finding.where[1].startswith(f"{photos / 'wet_dog' / '2.png'}: it is in none of the formats JPEG")


def test_one_percent_of_the_pictures_may_be_set_aside(
    photos: Path, tmp_path: Path, draw: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(64):
        draw(photos / "wet_dog" / f"more{n}.png", 100 + n)
    (photos / "wet_dog" / "1.png").write_text("no image")
    import_dataset(photos, "mine", tmp_path / "data")
    said = capsys.readouterr().err
    assert "warning: 1 of 100 pictures cannot be read and are set aside:\n" in said
    assert "--allow-missing" not in said
    set_aside = load_dataset("mine", tmp_path / "data").set_aside
    assert set_aside and (set_aside.images, set_aside.of, set_aside.many) == (1, 100, False)
    refuse_many_set_aside("mine", set_aside)


@pytest.mark.parametrize("record", ["[]", "{", '{"set_aside": 1}', '{"set_aside": [{"file": "a.jpg"}]}'])
def test_a_damaged_record_of_an_import_is_named(photos: Path, tmp_path: Path, record: str) -> None:
    folder = import_dataset(photos, "mine", tmp_path / "data")
    (folder / "imported.json").write_text(record)
    with pytest.raises(DataError, match=r"mine/imported\.json is not as czslkit writes it: .* again with --force"):
        load_dataset("mine", tmp_path / "data")
    [finding] = verify("mine", tmp_path / "data").findings
    assert finding.severity == "error" and "imported.json is not as czslkit writes it" in finding.what


def test_a_source_of_unreadable_pictures_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "photos" / "wet_dog").mkdir(parents=True)
    (tmp_path / "photos" / "wet_dog" / "0.jpg").touch()
    refused(tmp_path / "photos", "photos: none of 1 pictures can be read:\n  .*0.jpg: it is empty")


def test_pictures_are_turned_and_scaled_only_in_imported_datasets(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (20, 10)).save(photos / "wet_dog" / "turned.jpg", exif=exif)
    Image.effect_noise((20, 10), 50).convert("RGB").save(photos / "wet_dog" / "turned.tif", exif=exif)
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(photos / "wet_dog" / "grey.tif")
    assert main(["data", "import", str(photos), "--name", "mine", "--data", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "2 pictures are turned\n" in said
    assert "1 pictures are float\n" in said
    images = images_folder(tmp_path / "mine") / "wet_dog"
    assert (open_rgb(images / "turned.jpg").size, open_rgb(photos / "wet_dog" / "turned.jpg").size) == (
        (10, 20),
        (20, 10),
    )
    assert open_rgb(images / "turned.tif").size == (10, 20)
    assert open_rgb(images / "grey.tif").getpixel((0, 0)) == (128, 128, 128)
    found = {finding.kind: finding for finding in verify("mine", tmp_path).findings}
    assert {kind: finding.severity for kind, finding in found.items()} == {"float": "warning", "turned": "note"}
    assert found["turned"].where == ("wet_dog/turned.jpg", "wet_dog/turned.tif")
    assert found["turned"].remedy == "they are read upright, because the dataset was imported"
    assert found["float"].remedy.startswith("they are read in 8 bits; white is the largest value of 1 (floats)")


def test_the_reading_of_pictures_is_part_of_fingerprint_and_digest(photos: Path, tmp_path: Path) -> None:
    folder = import_dataset(photos, "mine", tmp_path)
    imported = load_dataset("mine", tmp_path)
    digest = imported.train.digest
    (folder / "imported.json").unlink()
    as_published = load_dataset("mine", tmp_path)
    assert imported.fingerprint != as_published.fingerprint
    assert digest != as_published.train.digest


def test_force_replaces_a_dataset_that_was_imported(photos: Path, tmp_path: Path) -> None:
    arguments = ["data", "import", str(photos), "--name", "mine", "--data", str(tmp_path)]
    assert main(arguments) == 0
    (photos / "wet_dog" / "0.png").unlink()
    assert main([*arguments, "--force"]) == 0
    assert len(read_metadata(metadata_file(tmp_path / "mine"))) == 35
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_dir()) == ["mine", "photos"]


def test_force_replaces_nothing_else(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "import", str(photos), "--data", str(tmp_path), "--force", "--name"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    assert main([*arguments, "other"]) == 1
    assert "other has no written.json" in capsys.readouterr().err
    assert (tmp_path / "other" / "thesis.txt").is_file()
    assert main([*arguments, "cgqa"]) == 2
    assert "the name 'cgqa' is taken" in capsys.readouterr().err


def test_pictures_of_a_dataset_do_not_replace_it(photos: Path, tmp_path: Path) -> None:
    folder = import_dataset(photos, "mine", tmp_path)
    with pytest.raises(DataError, match=r"images has pictures in .*mine, which would be replaced: move them first"):
        import_dataset(images_folder(folder), "mine", tmp_path, force=True)
    assert len(read_metadata(metadata_file(folder))) == 36


def test_without_unseen_pairs_everything_is_trained_and_the_table_has_dashes(
    photos: Path, clip_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tmp_path / "data")]
    assert main(["data", "import", str(photos), "--name", "mine", *data, "--unseen", "0"]) == 0
    assert "warning: val_pairs.txt lists no unseen pair\n" in capsys.readouterr().err
    space = load_dataset("mine", tmp_path / "data").space
    assert (len(space.pairs), int(space.seen.sum())) == (9, 9)
    where = [*data, "--runs", str(tmp_path / "runs"), "--set", f"backbone={clip_file}", "train.epochs=1"]
    assert main(["bench", "--methods", "coop", "--datasets", "mine", *where]) == 0
    out = capsys.readouterr().out
    [row] = [line for line in out.splitlines() if line.lstrip("| ").startswith("coop")][:1]
    assert "-" in row.split()
    assert "epoch selected by validation accuracy" in out


def test_the_layout_is_told(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "import", str(photos), "--name", "mine", "--data", str(tmp_path)]) == 0
    assert f"read from {photos} as ATTR_OBJ\n" in capsys.readouterr().out


def test_attributes_that_look_split_wrongly_are_warned_of(
    photos: Path, tmp_path: Path, draw: Draw, table: Table, all_rows: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    draw(photos / "0.png", 99)
    source = str(table(*all_rows, "0.png,dry teddy,bear"))
    assert main(["data", "import", source, "--name", "mine", "--data", str(tmp_path)]) == 0
    warning = "warning: 'dry teddy' is the attribute of 'bear' only, and 'dry' is another attribute: is it"
    assert f"{warning} 'dry' and 'teddy bear'?\n" in capsys.readouterr().err


def test_objects_that_look_split_wrongly_and_spellings_are_warned_of(
    photos: Path, tmp_path: Path, table: Table, all_rows: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row.replace(",wet,dog", ",Wet,blue dog", 1) for row in all_rows]
    source = str(table(*rows))
    assert main(["data", "import", source, "--name", "mine", "--data", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "warning: 'blue dog' is the object of 'Wet' only, and 'dog' is another object: is it 'Wet blue' and" in said
    assert "warning: 1 attribute names have several spellings: 'Wet' = 'wet'\n" in said


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_has_64_bits(photos: Path, tmp_path: Path, seed: int) -> None:
    with pytest.raises(ConfigError, match=f"seed {seed} is not a whole number from 0 to 9223372036854775807"):
        import_dataset(photos, "mine", tmp_path, seed=seed)


def test_linked_images_take_no_space(photos: Path, tmp_path: Path) -> None:
    folder = import_dataset(photos, "mine", tmp_path, link=True)
    assert (images_folder(folder) / "wet_dog" / "0.png").samefile(photos / "wet_dog" / "0.png")


def test_a_full_disk_leaves_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    copied = []

    def full(source: Path, target: Path) -> None:
        copied.append(target)
        if len(copied) > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    refused(photos, "cannot write .*mine: .*No space left on device")
    assert not [each for each in tmp_path.iterdir() if each.is_dir() and each != photos]


def test_links_to_another_disk_are_refused(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def far(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("os.link", far)
    with pytest.raises(DataError, match=r".* and .* are on different disks: copy instead of linking"):
        import_dataset(photos, "mine", tmp_path, link=True)
