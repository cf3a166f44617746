from __future__ import annotations

import io
import os
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from czslkit.data.layout import Instance, metadata_file
from czslkit.data.metadata import read_metadata
from czslkit.errors import DataError

Edit = Callable[[Callable[[list[dict[str, str]]], None]], None]


def test_where_an_image_was_before_is_read_where_the_metadata_says_it(pets: Path, edit: Edit) -> None:
    edit(lambda entries: entries[0].update(_image="Dogs/Wet/1.jpg"))
    assert [instance.original for instance in read_metadata(metadata_file(pets))[:2]] == ["Dogs/Wet/1.jpg", ""]
    edit(lambda entries: entries[0].update(_image=1))
    with pytest.raises(DataError, match="instance 0 has _image=1, expected a string"):
        read_metadata(metadata_file(pets))


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


def test_metadata_that_may_not_be_read_is_not_called_hostile(tmp_path: Path) -> None:
    (tmp_path / "metadata.t7").mkdir()
    with pytest.raises(DataError, match=r"metadata.t7 cannot be read: it is a folder, expected a regular file"):
        read_metadata(tmp_path / "metadata.t7")


def test_metadata_in_the_older_file_format_is_read(tmp_path: Path) -> None:
    entries = [{"image": "a.jpg", "_image": "b.jpg", "attr": "wet", "obj": "dog", "set": "train"}]
    torch.save(entries, tmp_path / "metadata.t7", _use_new_zipfile_serialization=False)
    assert read_metadata(tmp_path / "metadata.t7") == (Instance("a.jpg", "wet", "dog", "train", "b.jpg"),)


GOOD = {"image": "a.jpg", "attr": "wet", "obj": "dog", "set": "train"}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"image": "a.jpg"}, "contains a dict, expected a list of instances"),
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
