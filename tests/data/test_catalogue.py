from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path

import pytest

from czslkit.data import demo
from czslkit.data.catalogue import NAMES, SOURCES, canonical, data_root, find, locate
from czslkit.errors import DataError, UnknownNameError


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    some = list(itertools.islice(demo.instances(), 0, None, 15))
    monkeypatch.setattr(demo, "instances", lambda: iter(some))


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
    assert find(name, tmp_path) == locate(name, tmp_path) == tmp_path / folder
    assert canonical(name) == "ut-zappos"


def test_a_folder_of_any_other_name_is_found(pets: Path) -> None:
    assert locate("pets", pets.parent) == pets


def test_an_unknown_name_is_answered_with_the_known_ones(pets: Path) -> None:
    for other in ("ut-zap50k", ".half.partial"):
        shutil.copytree(pets, pets.with_name(other))
    with pytest.raises(UnknownNameError, match="no dataset named 'mit-state'") as info:
        find("mit-state", pets.parent)
    assert str(info.value).startswith(
        "no dataset named 'mit-state'. Did you mean 'mit-states'? Known: cgqa, demo, mit-states, pets, ut-zappos."
    )


@pytest.mark.parametrize("name", ["..", ".", "", "pets/images", "/", ".pets.partial"])
def test_a_name_does_not_lead_elsewhere(pets: Path, name: str) -> None:
    (pets.parent / ".pets.partial").mkdir()
    with pytest.raises(UnknownNameError, match=re.escape(f"no dataset named {name!r}")):
        locate(name, pets.parent)


@pytest.mark.parametrize("name", SOURCES)
def test_an_absent_dataset_is_an_error_saying_where_it_was_looked_for_and_where_it_is_had(
    tmp_path: Path, name: str
) -> None:
    assert find(name, tmp_path) is None
    with pytest.raises(DataError, match=f"{name} is not there: looked for {tmp_path / name}") as info:
        locate(name, tmp_path)
    for source in SOURCES[name]:
        assert source.url in str(info.value)
    assert "{" not in str(info.value)


def test_both_folders_of_ut_zappos_are_named_when_absent(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"looked for {tmp_path}/ut-zappos and {tmp_path}/ut-zap50k"):
        locate("ut-zap50k", tmp_path)


@pytest.mark.usefixtures("few_pictures")
def test_an_absent_demo_is_rendered_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = locate("demo", tmp_path / "new")
    assert capsys.readouterr().err == f"rendering the demo dataset into {tmp_path}/new/demo, once\n"
    assert len(list(folder.rglob("*.png"))) == len(list(demo.instances()))
    assert locate("demo", tmp_path / "new") == folder
    assert capsys.readouterr().err == ""


def test_the_known_names() -> None:
    assert NAMES == ("mit-states", "ut-zappos", "cgqa", "demo")
