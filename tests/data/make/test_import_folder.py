from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import czslkit
from czslkit.cli import main
from czslkit.data.check.verification import verify
from czslkit.data.layout import Instance, images_folder, metadata_file, read_listing, read_metadata
from czslkit.data.make.import_folder import import_dataset
from czslkit.errors import ConfigError, DataError

ATTRS, OBJS = ("dry", "old", "wet"), ("cat", "dog", "fish")


def draw(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 8, 3), np.uint8)).save(file, "PNG")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine folders of four images."""
    for n, (attr, obj) in enumerate((a, o) for a in ATTRS for o in OBJS):
        for k in range(4):
            draw(tmp_path / "photos" / f"{attr}_{obj}" / f"{k}.png", 10 * n + k)
    return tmp_path / "photos"


def table(photos: Path, *rows: str, header: str = "image,attr,obj") -> Path:
    file = photos / "table.csv"
    file.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return file


def all_rows(photos: Path) -> list[str]:
    files = sorted(photos.rglob("*.png"))
    return [f"{f.parent.name}/{f.name},{f.parent.name.replace('_', ',')}" for f in files]


def refused(source: Path, match: str, root: Path) -> str:
    with pytest.raises(DataError, match=match) as info:
        import_dataset(source, "mine", root)
    assert not (root / "mine").exists()
    return str(info.value)


def test_a_folder_becomes_a_dataset_that_verify_finds_nothing_wrong_with(photos: Path, tmp_path: Path) -> None:
    folder = import_dataset(photos, "mine", tmp_path / "data")
    assert folder == tmp_path / "data" / "mine"
    assert verify("mine", tmp_path / "data").findings == ()
    data = czslkit.load_dataset("mine", tmp_path / "data")
    assert (data.space.attrs, data.space.objs) == (ATTRS, OBJS)
    assert int(data.space.seen.sum()) == 7
    assert len(data.train) + len(data.val) + len(data.test) == 36
    assert (images_folder(folder) / "wet_dog" / "0.png").read_bytes() == (photos / "wet_dog" / "0.png").read_bytes()


def test_folder_and_table_give_the_same_dataset(photos: Path, tmp_path: Path) -> None:
    file = table(photos, *all_rows(photos))
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
    assert f"{tmp_path / 'mine'} is there already, and is left as it is" in capsys.readouterr().err
    assert main([*arguments, "--unseen", "1.5"]) == 2


def test_splits_of_a_table_are_kept(photos: Path, tmp_path: Path) -> None:
    rows = [f"{row},{('train', 'val', 'test', 'train')[n % 4]}" for n, row in enumerate(all_rows(photos))]
    folder = import_dataset(table(photos, *rows, header="image,attr,obj,split"), "mine", tmp_path)
    assert {i.image[-5]: i.set for i in read_metadata(metadata_file(folder))} == {
        "0": "train",
        "1": "val",
        "2": "test",
        "3": "train",
    }


def test_names_are_made_fit(photos: Path, tmp_path: Path) -> None:
    rows = [f"{row},train" for row in all_rows(photos)] + [f"{row},{phase}" for row, phase in (
        ("x/héllo wörld.png,very  wet,e\u0301clair", "train"),
        ("x/../x/a:b.png,very wet,éclair", "val"),
        ("x\\c.png,very_wet,éclair", "test"),
        ("y/c.png,very wet,éclair", "test"),
        ("y/C.png,very wet,éclair", "test"),
    )]  # fmt: skip
    for n, name in enumerate(("x/héllo wörld.png", "x/a:b.png", "x/c.png", "y/c.png", "y/C.png")):
        draw(photos / name, 100 + n)
    folder = import_dataset(table(photos, *rows, header="image,attr,obj,set"), "mine", tmp_path)
    assert read_metadata(metadata_file(folder))[36:] == tuple(
        Instance(f"very_wet_éclair/{name}.png", "very_wet", "éclair", phase)
        for name, phase in (("héllo wörld", "train"), ("a_b", "val"), ("c", "test"), ("c-2", "test"), ("C-3", "test"))
    )
    assert verify("mine", tmp_path).passed


@pytest.mark.parametrize("name", ["dry_teddy_bear", "dry  teddy bear", "dog", "_dog", "dog_"])
def test_a_folder_that_does_not_clearly_name_a_pair_is_named(photos: Path, tmp_path: Path, name: str) -> None:
    draw(photos / name / "0.png", 99)
    said = refused(photos, f"{photos} cannot be imported:\n  {name!r} is not clearly an attribute and an obj", tmp_path)
    assert "name it 'attr obj' with one space, or give a table" in said


@pytest.mark.parametrize(("name", "pair"), [("dry teddy_bear", ("dry", "teddy_bear")), ("wet cat", ("wet", "cat"))])
def test_one_space_parts_attribute_and_object(photos: Path, tmp_path: Path, name: str, pair: tuple[str, str]) -> None:
    draw(photos / name / "0.png", 99)
    shown = read_metadata(metadata_file(import_dataset(photos, "mine", tmp_path)))
    assert pair in {(i.attr, i.obj) for i in shown}
    assert len(shown) == 37


def test_files_that_are_no_images_are_left_out_and_said(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("README.txt", ".DS_Store", "wet_dog/Thumbs.db", "wet_dog/.hidden.png"):
        (photos / name).touch()
    import_dataset(photos, "mine", tmp_path)
    assert capsys.readouterr().err == "left out, by their names no images: README.txt, wet_dog/Thumbs.db\n"


def test_all_that_is_unclear_about_a_folder_is_said_at_once(photos: Path, tmp_path: Path) -> None:
    draw(photos / "stray.png", 1)
    draw(photos / "wet_dog" / "more" / "0.png", 2)
    (photos / "nan_dog").mkdir()
    said = refused(photos, "stray.png lies in no folder that says what it shows", tmp_path)
    assert "wet_dog/more is a folder, expected images" in said
    assert "attr is 'nan', which stands for a label that nobody gave" in said


def test_too_little_to_divide_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "photos" / "wet_dog" / "0.png", 0)
    refused(tmp_path / "photos", r"0 of 1 pairs \(1 attributes, 1 objects\) can be unseen, 2 are needed", tmp_path)


def test_no_images_and_no_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    refused(tmp_path / "photos", "photos holds no folder of images; expected photos/ATTR_OBJ", tmp_path)
    refused(tmp_path / "nowhere", "nowhere is neither a folder of pictures nor a table", tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("wet_dog/0.png,wet", "line 2: the number of its cells is not that of the first line"),
        ("wet_dog/0.png,wet,dog,train", "line 2: the number of its cells is not that of the first line"),
        ("wet_dog/9.png,wet,dog", "line 2: there is no image '.*wet_dog/9.png'"),
        ("wet_dog/0.png,,dog", "line 2: attr is '', which stands for a label that nobody gave"),
        ("wet_dog/0.png,wet,NaN", "line 2: obj is 'NaN', which stands for a label that nobody gave"),
        ("wet_dog/0.png,NA,dog", "line 2: attr is 'NA', which stands for a label that nobody gave"),
        ("wet_dog/0.png,../wet,dog", r"line 2: attr is '../wet', expected no '/', no '\\' and nothing that"),
        ("table.csv,wet,dog", "line 2: 'table.csv' is no image by its name; expected .bmp, .gif"),
        (f"{'x' * 5000}.png,wet,dog", "line 2: there is no image '.{300}'$"),
        ("wet_dog/1.png,wet,dog\nwet_dog/./1.png,old,dog", "line 3: 'wet_dog/./1.png' is also the image of line 2"),
    ],
)
def test_rows_that_say_too_little_are_named_by_their_lines(photos: Path, tmp_path: Path, row: str, said: str) -> None:
    refused(table(photos, row), said, tmp_path)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("image,attribute,obj", "has no column attr; its first line has 'image', 'attribute', 'obj'"),
        ("image,attr,obj,attr", "has several columns attr"),
        ("image,attr,obj,split,set", "has two columns of splits: split and set"),
        ("image,attr,obj", "has no row below its first line"),
    ],
)
def test_a_table_of_other_columns_or_of_no_rows_is_refused(
    photos: Path, tmp_path: Path, header: str, said: str
) -> None:
    refused(table(photos, header=header), said, tmp_path)


def test_a_split_of_another_name_is_refused(photos: Path, tmp_path: Path) -> None:
    file = table(photos, "wet_dog/0.png,wet,dog,dev", header="image,attr,obj,split")
    refused(file, "line 2: split is 'dev', expected train, val, test", tmp_path)


def test_splits_that_make_no_task_are_refused(photos: Path, tmp_path: Path) -> None:
    rows = [f"{row},{'test' if 'old' in row else 'train'}" for row in all_rows(photos)]
    file = table(photos, *rows, header="image,attr,obj,split")
    said = refused(file, "1 attributes of test_pairs.txt are in no training pair: old", tmp_path)
    assert "val_pairs.txt lists no pair" in said


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"image,attr,obj\n\xff,wet,dog\n")
    refused(tmp_path / "table.csv", "table.csv is not a readable table: .*0xff", tmp_path)


def test_tabs_part_the_columns_of_a_tsv(photos: Path, tmp_path: Path) -> None:
    file = photos / "table.tsv"
    file.write_text("\n".join(("image\tattr\tobj", *(row.replace(",", "\t") for row in all_rows(photos)))))
    assert len(read_metadata(metadata_file(import_dataset(file, "mine", tmp_path)))) == 36


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "a dataset cannot be named ''"),
        ("a,b", "a dataset cannot be named 'a,b'"),
        ("../mine", "a dataset cannot be named '../mine'"),
        (".mine", "a dataset cannot be named '.mine'"),
        ("all", "the name 'all' is taken: it stands for several datasets"),
        ("cgqa", "the name 'cgqa' is taken: it stands for cgqa"),
        ("ut-zap50k", "the name 'ut-zap50k' is taken: it stands for ut-zappos"),
    ],
)
def test_a_name_that_would_not_do_is_wrong_usage(photos: Path, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        import_dataset(photos, name, tmp_path / "data")


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_is_between_0_and_1(photos: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(ConfigError, match=f"unseen is {share}, expected between 0 and 1"):
        import_dataset(photos, "mine", tmp_path, unseen=share)


def test_linked_images_take_no_space(photos: Path, tmp_path: Path) -> None:
    folder = import_dataset(photos, "mine", tmp_path, link=True)
    assert (images_folder(folder) / "wet_dog" / "0.png").samefile(photos / "wet_dog" / "0.png")


def test_a_full_disk_leaves_nothing(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []

    def full(source: Path, target: Path) -> None:
        copied.append(target)
        if len(copied) > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    refused(photos, "cannot write .*mine: .*No space left on device", tmp_path)
    assert not [each for each in tmp_path.iterdir() if each.is_dir() and each != photos]


def test_links_to_another_disk_are_refused_with_what_to_do(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def far(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("os.link", far)
    with pytest.raises(DataError, match=r"lies on another disk than .*: leave out the link, and copy"):
        import_dataset(photos, "mine", tmp_path, link=True)
