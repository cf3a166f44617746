from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from czslkit.data.fingerprint import fingerprint_parts
from czslkit.data.layout import SPLITS, metadata_file, pairs_file
from czslkit.data.listing import read_listing
from czslkit.data.pair_lists import encode_pairs, parse_pairs, read_pairs, unlistable
from czslkit.errors import DataError

Edit = Callable[[Callable[[list[dict[str, str]]], None]], None]


def test_a_list_may_have_windows_line_ends_a_byte_order_mark_and_empty_lines(tmp_path: Path) -> None:
    file = tmp_path / "train_pairs.txt"
    file.write_bytes(b"\xef\xbb\xbfFaux.Fur Shoes.Flats\r\n\r\nwet dry-erase_board\r\n")
    assert read_pairs(file) == (("Faux.Fur", "Shoes.Flats"), ("wet", "dry-erase_board"))


def test_a_line_that_is_not_two_words_is_named_by_file_and_number(tmp_path: Path) -> None:
    file = tmp_path / "train_pairs.txt"
    file.write_text("wet dog\nwet\nvery wet dog\n")
    with pytest.raises(DataError, match=r"train_pairs.txt:2: 'wet' is not 'attr obj'") as info:
        read_pairs(file)
    assert "train_pairs.txt:3: 'very wet dog' is not" in str(info.value)
    assert "2 mistakes in all" in str(info.value)


def test_words_with_spaces_are_parted_by_a_plus(tmp_path: Path) -> None:
    file = tmp_path / "train_pairs.txt"
    file.write_bytes(b"light blue+teddy bear\r\nwet+dog\n\nlight  blue+ice-cream cone\n")
    assert read_pairs(file) == (("light blue", "teddy bear"), ("wet", "dog"), ("light blue", "ice-cream cone"))
    file.write_text("wet+dog\n")
    assert read_pairs(file) == (("wet", "dog"),)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("c++ code\na+ grade\n", [("c++", "code"), ("a+", "grade")]),
        ("c+d dog\nwet dog\nold dog\n", [("c+d", "dog"), ("wet", "dog"), ("old", "dog")]),
    ],
)
def test_a_plus_in_a_word_is_kept(text: str, pairs: list[tuple[str, str]], tmp_path: Path) -> None:
    file = tmp_path / "train_pairs.txt"
    file.write_text(text)
    assert list(read_pairs(file)) == pairs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("light blue+dog\nwet teddy bear\nold+cat\n", r":2: 'wet teddy bear' is not 'attr\+obj', as other lines are"),
        ("light blue+dog\nwet+dog+cat\n", r":2: 'wet\+dog\+cat' is not 'attr\+obj', as other lines are"),
        ("light blue dog\n", r"1 mistakes in all; words with spaces are written as attr\+obj, on every line"),
    ],
)
def test_a_line_in_no_format_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "train_pairs.txt"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_pairs(file)


def test_lists_with_any_words_are_read_as_they_were_written() -> None:
    plain = [("wet", "dog"), ("c+d", "dog"), ("old", "cat")]
    spaced = [("light blue", "dog"), ("old", "teddy bear")]
    for pairs in (plain, spaced):
        assert parse_pairs(encode_pairs(pairs), Path("pairs.txt")) == tuple(pairs)
        assert unlistable(pairs) == []
    faulty = [("c+d", "dog"), (" wet", "dog"), ("", "cat")]
    assert unlistable([*spaced, *faulty]) == faulty


def test_a_pair_listed_twice_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "train_pairs.txt"
    file.write_text("wet dog\ndry dog\nwet dog\n")
    with pytest.raises(DataError, match=r"train_pairs.txt: 'wet dog' is listed 2 times"):
        read_pairs(file)


def test_of_many_mistakes_ten_are_shown_and_all_counted(tmp_path: Path) -> None:
    file = tmp_path / "train_pairs.txt"
    file.write_text("".join(f"word{n}\n" for n in range(25)))
    with pytest.raises(DataError, match="25 mistakes in all") as info:
        read_pairs(file)
    assert len(str(info.value).splitlines()) == 11


def test_a_list_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "train_pairs.txt"
    file.write_bytes(b"wet d\xf8g\n")
    with pytest.raises(DataError, match=r"train_pairs.txt cannot be read: .*0xf8"):
        read_pairs(file)


def test_absent_lists_are_rebuilt_from_the_metadata_and_written_once(
    pets: Path, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(lambda entries: entries.append(entries[0] | {"image": "a.jpg", "attr": "NA"}))
    edit(lambda entries: entries.append(entries[0] | {"image": "b.jpg", "attr": "old", "set": "NA"}))
    written = read_listing(pets)
    for split in SPLITS:
        pairs_file(pets, split).unlink()
    rebuilt = read_listing(pets)
    assert rebuilt.pairs == {split: tuple(sorted(pairs)) for split, pairs in written.pairs.items()}
    assert rebuilt.instances == written.instances
    assert pairs_file(pets, "val").read_bytes() == b"dry dog\nwet dog\n"
    names = "train_pairs.txt, val_pairs.txt, test_pairs.txt"
    assert capsys.readouterr().err == f"{pets}: {names} rebuilt from the metadata, and written\n"
    assert read_listing(pets) == rebuilt
    assert capsys.readouterr().err == ""


def test_rebuilt_lists_have_the_names_with_spaces(pets: Path, edit: Edit, capsys: pytest.CaptureFixture[str]) -> None:
    edit(lambda entries: entries.append(entries[0] | {"obj": "guinea pig"}))
    edit(lambda entries: entries.append(entries[0] | {"obj": "guinea pig ", "attr": "old"}))
    for split in SPLITS:
        pairs_file(pets, split).unlink()
    listing = read_listing(pets)
    assert ("wet", "guinea pig") in listing.pairs["train"]
    assert [i.obj for i in listing.skipped] == ["guinea pig "]
    assert pairs_file(pets, "train").read_bytes() == b"dry+cat\nwet+dog\nwet+guinea pig\n"
    assert pairs_file(pets, "val").read_bytes() == b"dry dog\nwet dog\n"
    assert "with '+' between words because some have spaces: guinea pig\n" in capsys.readouterr().err


def test_a_list_that_is_there_is_not_rebuilt(pets: Path) -> None:
    pairs_file(pets, "train").write_text("dry cat\nwet dog\nold dog\n")
    pairs_file(pets, "test").unlink()
    assert read_listing(pets).pairs == {
        "train": (("dry", "cat"), ("wet", "dog"), ("old", "dog")),
        "val": (("wet", "dog"), ("dry", "dog")),
        "test": (("dry", "cat"), ("wet", "cat")),
    }


def test_where_nothing_can_be_written_lists_are_rebuilt_in_memory(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr("czslkit.data.pair_lists.write_bytes", refuse)
    before = read_listing(pets)
    for split in SPLITS:
        pairs_file(pets, split).unlink()
    files = sorted(pets.rglob("*"))
    assert read_listing(pets).instances == before.instances
    assert fingerprint_parts(pets).keys() == {metadata_file(pets).name, "images"}
    assert sorted(pets.rglob("*")) == files
    said = capsys.readouterr().err
    assert said.count("\n") == 1, "said for every reading"
    assert said.endswith("rebuilt from the metadata, but not written: Read-only file system\n")


def test_lists_are_not_rebuilt_from_metadata_that_cannot_be_read(pets: Path) -> None:
    pairs_file(pets, "val").unlink()
    metadata_file(pets).write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"metadata_compositional-split-natural.t7 is refused"):
        read_listing(pets)
    assert not pairs_file(pets, "val").exists()
