from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from czslkit.cli import main
from czslkit.data.removal import remove_dataset
from czslkit.errors import DataError, UnknownNameError

Refused = Callable[[str], None]


@pytest.fixture
def refused(pets: Path) -> Refused:
    def check(match: str) -> None:
        before = sorted(pets.rglob("*"))
        with pytest.raises(DataError, match=match):
            remove_dataset("pets", pets.parent)
        assert sorted(pets.rglob("*")) == before

    return check


def test_a_dataset_that_czslkit_wrote_is_removed(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pets / "images" / ".DS_Store").touch()
    assert main(["data", "remove", "pets", "--data", str(pets.parent)]) == 0
    assert capsys.readouterr().out == f"removed {pets}\n"
    assert [each for each in pets.parent.iterdir() if each.is_dir()] == []


def test_a_dataset_that_czslkit_did_not_write_is_not_removed(pets: Path, refused: Refused) -> None:
    (pets / "written.json").unlink()
    refused(f"{re.escape(str(pets))} has no written.json, so .* did not write it, and it is not removed")


def test_files_that_were_added_are_named(pets: Path, refused: Refused) -> None:
    (pets / "notes.txt").touch()
    (pets / "images" / "wet_dog" / "mine.jpg").touch()
    refused("pets has 2 files that czslkit did not write, and is not removed: images/wet_dog/mine.jpg, notes.txt")


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"files": None})])
def test_a_damaged_list_of_files_removes_nothing(pets: Path, refused: Refused, content: str) -> None:
    (pets / "written.json").write_text(content)
    refused("written.json is damaged, and .*pets is not removed")


def test_a_link_to_a_dataset_is_not_removed(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(pets)
    with pytest.raises(DataError, match=f"linked is a link to {re.escape(str(pets))} and is not removed"):
        remove_dataset("linked", tmp_path)
    assert (pets / "written.json").is_file()


def test_a_dataset_that_is_not_there_cannot_be_removed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cgqa is absent, there is nothing to remove"):
        remove_dataset("cgqa", tmp_path)
    with pytest.raises(UnknownNameError, match="no dataset named 'mine'"):
        remove_dataset("mine", tmp_path)


def test_a_removal_that_fails_says_why(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr("os.replace", failing)
    with pytest.raises(DataError, match=r"cannot remove .*pets: .*Permission denied"):
        remove_dataset("pets", pets.parent)
