from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from czslkit.data.dataset_folders import canonical, data_root, ensure_folder, find_folder
from czslkit.errors import DataError, UnknownNameError


def test_an_argument_beats_the_environment_which_beats_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CZSLKIT_DATA", str(tmp_path))
    assert data_root("here") == Path("here")
    assert data_root() == tmp_path
    monkeypatch.delenv("CZSLKIT_DATA")
    assert data_root() == Path("data")


@pytest.mark.parametrize("folder", ["ut-zappos", "ut-zap50k"])
@pytest.mark.parametrize("name", ["ut-zappos", "ut-zap50k"])
def test_both_names_of_ut_zappos_find_both_folders(tmp_path: Path, name: str, folder: str) -> None:
    (tmp_path / folder).mkdir()
    assert find_folder(name, tmp_path) == ensure_folder(name, tmp_path) == tmp_path / folder
    assert canonical(name) == "ut-zappos"


def test_a_folder_of_any_other_name_is_found(pets: Path) -> None:
    assert ensure_folder("pets", pets.parent) == pets


def test_an_unknown_name_is_answered_with_the_known_ones(pets: Path) -> None:
    for other in ("ut-zap50k", ".half.partial"):
        shutil.copytree(pets, pets.with_name(other))
    with pytest.raises(UnknownNameError, match="no dataset named 'mit-state'") as info:
        find_folder("mit-state", pets.parent)
    assert str(info.value).startswith(
        "no dataset named 'mit-state'. Did you mean 'mit-states'? Known: cgqa, clothing16k, demo, mit-states, pets, "
        "ut-zappos, vaw-czsl."
    )


@pytest.mark.parametrize("name", ["..", ".", "", "pets/images", "/", ".pets.partial"])
def test_a_name_does_not_lead_elsewhere(pets: Path, name: str) -> None:
    (pets.parent / ".pets.partial").mkdir()
    with pytest.raises(UnknownNameError, match=re.escape(f"no dataset named {name!r}")):
        ensure_folder(name, pets.parent)


def test_a_file_is_no_folder_of_datasets(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(DataError, match="data is a file, expected the folder of the datasets"):
        find_folder("cgqa", tmp_path / "data")
