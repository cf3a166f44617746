from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from czslkit.data import demo_world
from czslkit.data.datasets import DATASETS, Dataset
from czslkit.data.folders import canonical, data_root, dataset, ensure_folder, find_folder
from czslkit.data.layout import SPLITS, Instance, Listing
from czslkit.data.loading import load_dataset
from czslkit.data.published import BENCHMARKS
from czslkit.errors import DataError, UnknownNameError


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    some = list(itertools.islice(demo_world.instances(), 0, None, 15))
    monkeypatch.setattr(demo_world, "instances", lambda: iter(some))


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
        "no dataset named 'mit-state'. Did you mean 'mit-states'? Known: cgqa, demo, mit-states, pets, ut-zappos."
    )


@pytest.mark.parametrize("name", ["..", ".", "", "pets/images", "/", ".pets.partial"])
def test_a_name_does_not_lead_elsewhere(pets: Path, name: str) -> None:
    (pets.parent / ".pets.partial").mkdir()
    with pytest.raises(UnknownNameError, match=re.escape(f"no dataset named {name!r}")):
        ensure_folder(name, pets.parent)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_absent_dataset_is_an_error_saying_where_it_was_looked_for_and_where_it_is_had(
    tmp_path: Path, name: str
) -> None:
    assert find_folder(name, tmp_path) is None
    with pytest.raises(DataError, match=f"{name} is not there: looked for {tmp_path / name}") as info:
        ensure_folder(name, tmp_path)
    assert f"'czslkit data download {name} --data {tmp_path}' unpacks it from\n" in str(info.value)
    for source in DATASETS[name].sources:
        assert f"  {source.file.name} from {source.file.urls[0]}" in str(info.value)


def test_both_folders_of_ut_zappos_are_named_when_absent(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"looked for {tmp_path}/ut-zappos and {tmp_path}/ut-zap50k"):
        ensure_folder("ut-zap50k", tmp_path)


@pytest.mark.usefixtures("few_pictures")
def test_an_absent_demo_is_rendered_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ensure_folder("demo", tmp_path / "new")
    assert capsys.readouterr().err == f"rendering the demo dataset into {tmp_path}/new/demo, once\n"
    assert len(list(folder.rglob("*.png"))) == len(list(demo_world.instances()))
    assert ensure_folder("demo", tmp_path / "new") == folder
    assert capsys.readouterr().err == ""


def test_the_known_names() -> None:
    assert [name for name in DATASETS if DATASETS[name].__module__.startswith("czslkit.")] == sorted(
        [*BENCHMARKS, "demo"]
    )


@pytest.mark.parametrize("name", DATASETS)
def test_a_registered_dataset_is_had_by_a_download_or_made_here(name: str, tmp_path: Path) -> None:
    known = dataset(name)
    assert known.name == canonical(name) == name
    assert known.sources or type(known).make is not Dataset.make
    for source in known.sources:
        assert source.file.urls
        assert source.file.name.endswith((".zip", ".tar.gz"))
    for alias in known.aliases:
        assert canonical(alias) == name
        assert alias not in DATASETS


@pytest.mark.parametrize("name", DATASETS)
def test_published_counts_agree_with_each_other(name: str) -> None:
    counts = DATASETS[name].counts
    if counts is None:
        assert name not in BENCHMARKS
        return
    train, val, test = (counts.splits[phase] for phase in SPLITS)
    assert counts.pairs == train.seen + val.unseen + test.unseen
    assert train.unseen == 0
    assert max(val.seen, test.seen) <= train.seen
    assert counts.pairs <= counts.attrs * counts.objs


class Csv(Dataset):
    """A dataset whose list is one table."""

    aliases = ("tables",)

    def listing(self, folder: Path) -> Listing:
        rows = [line.split(",") for line in (folder / "table.csv").read_text().split()]
        instances = {phase: tuple(Instance(*row) for row in rows if row[3] == phase) for phase in SPLITS}
        return Listing({phase: tuple({(i.attr, i.obj) for i in instances[phase]}) for phase in SPLITS}, instances)

    def files(self, folder: Path) -> tuple[Path, ...]:
        return (folder / "table.csv",)


@pytest.fixture
def csv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASETS, "_items", dict(DATASETS._items))
    DATASETS.register("csv")(Csv)


def written(folder: Path) -> Path:
    """A dataset as ``Csv`` reads it, of one pair in every phase."""
    (folder / "images").mkdir(parents=True)
    for phase in SPLITS:
        Image.new("RGB", (4, 4)).save(folder / "images" / f"{phase}.png")
    (folder / "table.csv").write_text("".join(f"{phase}.png,wet,dog,{phase}\n" for phase in SPLITS))
    return folder


@pytest.mark.usefixtures("csv")
@pytest.mark.parametrize("folder", ["csv", "tables"])
@pytest.mark.parametrize("name", ["csv", "tables"])
def test_a_dataset_with_lists_of_its_own_is_used_by_name(tmp_path: Path, name: str, folder: str) -> None:
    written(tmp_path / folder)
    data = load_dataset(name, tmp_path)
    assert (data.name, data.root, len(data.train), data.space.objs) == ("csv", tmp_path / folder, 1, ("dog",))
    (tmp_path / folder / "table.csv").write_text((tmp_path / folder / "table.csv").read_text() + "\n")
    assert load_dataset(name, tmp_path).fingerprint != data.fingerprint


@pytest.mark.usefixtures("csv")
def test_a_dataset_without_sources_that_is_absent_is_an_error_saying_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"csv is not there: looked for {tmp_path}/csv and {tmp_path}/tables.$"):
        ensure_folder("csv", tmp_path)


def test_built_in_datasets_are_looked_up_without_loading_anything_else() -> None:
    """A third party's plugin would be loaded by the last line, and torch with it; the package's own are not."""
    program = (
        "import sys\n"
        "from czslkit.data.datasets import DATASETS\n"
        "from czslkit.data.folders import canonical, find_folder, unregistered\n"
        "assert DATASETS['cgqa'].counts.pairs == 7555 and 'demo' in DATASETS\n"
        "assert not {'torch', 'numpy', 'czslkit.components'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_is_no_folder_of_datasets(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(DataError, match="data is a file, expected the folder of the datasets"):
        find_folder("cgqa", tmp_path / "data")
