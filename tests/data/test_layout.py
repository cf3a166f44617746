from __future__ import annotations

import errno
import io
import os
import pickle
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from czslkit.data.fingerprint import fingerprint_parts
from czslkit.data.layout import Instance, Listing, images_folder, metadata_file, pairs_file
from czslkit.data.listing import read_listing
from czslkit.data.metadata import read_metadata
from czslkit.data.pair_lists import read_pairs
from czslkit.data.writing import write_dataset
from czslkit.errors import DataError

PAIRS = {phase: [("wet", "dog")] for phase in ("train", "val", "test")}
Edit = Callable[[Callable[[list[dict[str, str]]], None]], None]


def one_picture() -> Iterator[tuple[dict[str, str], Image.Image]]:
    yield {"image": "wet_dog/a.png", "attr": "wet", "obj": "dog", "set": "train"}, Image.new("RGB", (4, 4))


def images_of(listing: Listing, phase: str) -> list[str]:
    return [instance.image for instance in listing.instances[phase]]


def test_what_was_written_is_read(pets: Path) -> None:
    listing = read_listing(pets)
    assert listing.pairs["train"] == (("wet", "dog"), ("dry", "cat"))
    assert listing.instances["val"][0] == Instance("wet_dog/val0.jpg", "wet", "dog", "val")
    assert {phase: len(found) for phase, found in listing.instances.items()} == {"train": 6, "val": 4, "test": 4}
    assert listing.skipped == ()
    assert all((images_folder(pets) / image).is_file() for image in images_of(listing, "test"))


def test_the_set_decides_the_split_even_where_the_pair_is_in_all_lists(pets: Path, edit: Edit) -> None:
    for phase in ("val", "test"):
        pairs_file(pets, phase).write_text("wet dog\ndry cat\n")
    edit(lambda entries: [entry.update(attr="wet", obj="dog") for entry in entries] and None)
    listing = read_listing(pets)
    for phase, count in (("train", 6), ("val", 4), ("test", 4)):
        images = images_of(listing, phase)
        assert len(images) == count
        assert all(f"/{phase}" in image for image in images)


def test_where_an_image_was_before_is_read_where_the_metadata_says_it(pets: Path, edit: Edit) -> None:
    edit(lambda entries: entries[0].update(_image="Dogs/Wet/1.jpg"))
    assert [instance.original for instance in read_metadata(metadata_file(pets))[:2]] == ["Dogs/Wet/1.jpg", ""]
    edit(lambda entries: entries[0].update(_image=1))
    with pytest.raises(DataError, match="instance 0 has _image=1, expected a string"):
        read_metadata(metadata_file(pets))


@pytest.mark.parametrize("change", [{"attr": "NA"}, {"set": "NA"}, {"attr": "old"}, {"obj": "NA"}])
def test_an_instance_without_attribute_or_set_or_of_an_unlisted_pair_is_skipped(
    pets: Path, edit: Edit, change: dict[str, str]
) -> None:
    edit(lambda entries: entries[0].update(change))
    listing = read_listing(pets)
    assert images_of(listing, "train")[0] == "wet_dog/train1.jpg"
    assert [each.image for each in listing.skipped] == ["wet_dog/train0.jpg"]


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


def test_absent_files_are_all_named(pets: Path) -> None:
    pairs_file(pets, "val").unlink()
    metadata_file(pets).unlink()
    with pytest.raises(DataError, match=r"no .*/val_pairs.txt, metadata_compositional-split-natural.t7"):
        read_listing(pets)


def test_absent_lists_are_rebuilt_from_the_metadata_and_written_once(
    pets: Path, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(lambda entries: entries.append(entries[0] | {"image": "a.jpg", "attr": "NA"}))
    edit(lambda entries: entries.append(entries[0] | {"image": "b.jpg", "attr": "old", "set": "NA"}))
    edit(lambda entries: entries.append(entries[0] | {"image": "c.jpg", "obj": "guinea pig"}))
    written = read_listing(pets)
    for phase in PAIRS:
        pairs_file(pets, phase).unlink()
    rebuilt = read_listing(pets)
    assert rebuilt.pairs == {phase: tuple(sorted(pairs)) for phase, pairs in written.pairs.items()}
    assert rebuilt.instances == written.instances
    assert pairs_file(pets, "val").read_bytes() == b"dry dog\nwet dog\n"
    names = "train_pairs.txt, val_pairs.txt, test_pairs.txt"
    assert capsys.readouterr().err == f"{pets}: {names} rebuilt from the metadata, and written\n"
    assert read_listing(pets) == rebuilt
    assert capsys.readouterr().err == ""


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
    for phase in PAIRS:
        pairs_file(pets, phase).unlink()
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


def test_what_is_wrong_with_several_files_is_said_at_once(pets: Path) -> None:
    pairs_file(pets, "val").write_text("wet\n")
    metadata_file(pets).write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"val_pairs.txt:1: 'wet'") as info:
        read_listing(pets)
    assert "metadata_compositional-split-natural.t7 is refused" in str(info.value)


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("save", [torch.save, lambda obj, file: file.write_bytes(pickle.dumps(obj))])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, save: Callable[[object, Path], None]) -> None:
    file, mark = tmp_path / "metadata.t7", tmp_path / "executed"
    save([Hostile(mark)], file)
    said = rf"{re.escape(str(file))} is refused, and nothing in it was run: .*; expected a torch.save of plain values"
    with pytest.raises(DataError, match=said) as info:
        read_metadata(file)
    assert "weights_only" not in str(info.value)
    assert not mark.exists()
    torch.load(file, weights_only=False) if save is torch.save else pickle.loads(file.read_bytes())
    assert mark.exists(), "the file was not hostile in the first place"


@pytest.mark.filterwarnings("ignore")  # that TorchScript is deprecated, and that this file is of it
def test_a_program_in_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.zeros(1)), tmp_path / "metadata.t7")
    with pytest.raises(DataError, match=r"metadata.t7 is refused, and nothing in it was run: RuntimeError: .*Script"):
        read_metadata(tmp_path / "metadata.t7")


def test_a_hostile_archive_in_the_oldest_file_format_is_refused_and_not_run(tmp_path: Path) -> None:
    file, mark = tmp_path / "metadata.t7", tmp_path / "executed"
    with tarfile.open(file, "w") as archive:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            content = pickle.dumps(Hostile(mark))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(DataError, match=r"metadata.t7 is refused, and nothing in it was run"):
        read_metadata(file)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04"])
def test_unreadable_metadata_is_a_data_error_naming_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metadata.t7").write_bytes(content)
    with pytest.raises(DataError, match=r"metadata.t7 is refused, and nothing in it was run"):
        read_metadata(tmp_path / "metadata.t7")


def test_metadata_in_the_older_file_format_is_read(tmp_path: Path) -> None:
    entries = [{"image": "a.jpg", "_image": "b.jpg", "attr": "wet", "obj": "dog", "set": "train"}]
    torch.save(entries, tmp_path / "metadata.t7", _use_new_zipfile_serialization=False)
    assert read_metadata(tmp_path / "metadata.t7") == (Instance("a.jpg", "wet", "dog", "train", "b.jpg"),)


GOOD = {"image": "a.jpg", "attr": "wet", "obj": "dog", "set": "train"}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"image": "a.jpg"}, "holds a dict, expected a list of instances"),
        ([GOOD, "a.jpg"], "instance 1 is a str, expected a dict"),
        ([{key: GOOD[key] for key in ("image", "attr", "set")}], "instance 0 has no 'obj'"),
        ([GOOD, GOOD | {"attr": 3}], "instance 1 has attr=3, expected a string"),
        ([GOOD, GOOD | {"attr": float("nan")}], "instance 1 has attr=nan, expected a string"),
        ([GOOD | {"set": "training"}], "instance 0 is of set 'training', expected one of train, val, test, NA"),
        ([GOOD | {"set": "x"}] * 12, "and 2 more"),
    ],
)
def test_metadata_that_is_no_list_of_instances_is_an_error(tmp_path: Path, entries: object, said: str) -> None:
    torch.save(entries, tmp_path / "metadata.t7")
    with pytest.raises(DataError, match=re.escape(said)):
        read_metadata(tmp_path / "metadata.t7")


def test_keys_of_the_metadata_that_mean_nothing_here_are_passed_over(tmp_path: Path) -> None:
    torch.save([GOOD | {"score": 0.5, "boxes": [[1, 2]]}], tmp_path / "metadata.t7")
    assert read_metadata(tmp_path / "metadata.t7") == (Instance("a.jpg", "wet", "dog", "train"),)


def test_nan_as_a_word_is_a_pair_that_no_list_holds(pets: Path, edit: Edit) -> None:
    edit(lambda entries: entries[0].update(attr="nan"))
    assert [each.attr for each in read_listing(pets).skipped] == ["nan"]


def test_writing_leaves_a_folder_that_is_there_as_it_was(pets: Path) -> None:
    before = sorted(pets.rglob("*"))
    assert not write_dataset(pets, PAIRS, one_picture())
    assert sorted(pets.rglob("*")) == before


@pytest.mark.parametrize("blow", [RuntimeError("full"), KeyboardInterrupt()])
def test_writing_that_breaks_off_leaves_nothing(tmp_path: Path, blow: BaseException) -> None:
    def broken() -> Iterator[tuple[dict[str, str], Image.Image]]:
        yield from one_picture()
        assert (tmp_path / ".pets.partial" / "images" / "wet_dog" / "a.png").is_file()
        assert not (tmp_path / "pets").exists()
        raise blow

    with pytest.raises(type(blow)):
        write_dataset(tmp_path / "pets", PAIRS, broken())
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == []
    assert write_dataset(tmp_path / "pets", PAIRS, one_picture())


def test_what_a_killed_process_left_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".pets.partial" / "images").mkdir(parents=True)
    (tmp_path / ".pets.partial" / "images" / "half.jpg").touch()
    assert write_dataset(tmp_path / "pets", PAIRS, one_picture())
    assert [file.name for file in (tmp_path / "pets" / "images").rglob("*.*")] == ["a.png"]


def test_a_second_writer_waits_for_the_first(tmp_path: Path) -> None:
    started, go_on, rendered = threading.Event(), threading.Event(), []
    wrote: dict[str, bool] = {}

    def slow() -> Iterator[tuple[dict[str, str], Image.Image]]:
        started.set()
        assert go_on.wait(10)
        yield from one_picture()

    def other() -> Iterator[tuple[dict[str, str], Image.Image]]:
        rendered.append("second")
        yield from one_picture()

    def write(name: str, pictures: Iterator[tuple[dict[str, str], Image.Image]]) -> None:
        wrote[name] = write_dataset(tmp_path / "pets", PAIRS, pictures)

    first = threading.Thread(target=write, args=("first", slow()))
    second = threading.Thread(target=write, args=("second", other()))
    first.start()
    assert started.wait(10)
    second.start()
    second.join(0.3)
    assert second.is_alive()
    go_on.set()
    first.join(10)
    second.join(10)
    assert wrote == {"first": True, "second": False}
    assert rendered == []


def test_a_place_that_cannot_be_written_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=rf"cannot write {re.escape(str(tmp_path / 'file' / 'pets'))}"):
        write_dataset(tmp_path / "file" / "pets", PAIRS, one_picture())


def test_metadata_that_may_not_be_read_is_not_called_hostile(tmp_path: Path) -> None:
    (tmp_path / "metadata.t7").mkdir()
    with pytest.raises(DataError, match=r"metadata.t7 cannot be read: .*[Dd]irectory"):
        read_metadata(tmp_path / "metadata.t7")
