from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import czslkit
from czslkit.cli import main
from czslkit.data.check.verification import verify
from czslkit.data.layout import Instance, images_folder, metadata_file
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


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_is_between_0_and_1(photos: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(ConfigError, match=f"unseen is {share}, expected between 0 and 1"):
        import_dataset(photos, "mine", tmp_path, unseen=share)


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
