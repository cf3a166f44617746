from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from czslkit.data.dataset_folders import ensure_folder
from czslkit.data.datasets import DATASETS, Dataset
from czslkit.data.layout import SPLITS, Instance, Listing
from czslkit.data.loading import load_dataset
from czslkit.errors import CzslkitError, DataError


class Csv(Dataset):
    """A dataset that is listed in one CSV table."""

    aliases = ("tables",)

    def listing(self, folder: Path) -> Listing:
        rows = [line.split(",") for line in (folder / "table.csv").read_text().split()]
        instances = {split: tuple(Instance(*row) for row in rows if row[3] == split) for split in SPLITS}
        return Listing({split: tuple({(i.attr, i.obj) for i in instances[split]}) for split in SPLITS}, instances)

    def files(self, folder: Path) -> tuple[Path, ...]:
        return (folder / "table.csv",)


@pytest.fixture
def csv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASETS, "_items", dict(DATASETS._items))
    DATASETS.register("csv")(Csv)


def written(folder: Path) -> Path:
    """Write a dataset for ``Csv`` with one pair in every split."""
    (folder / "images").mkdir(parents=True)
    for split in SPLITS:
        Image.new("RGB", (4, 4)).save(folder / "images" / f"{split}.png")
    (folder / "table.csv").write_text("".join(f"{split}.png,wet,dog,{split}\n" for split in SPLITS))
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
    with pytest.raises(DataError, match=f"csv is absent: looked for {tmp_path}/csv and {tmp_path}/tables.$"):
        ensure_folder("csv", tmp_path)


@pytest.mark.usefixtures("csv")
@pytest.mark.parametrize("name", ["csv", "cgqa", "unregistered"])
def test_a_mistyped_folder_of_the_datasets_is_said_to_be_missing_with_a_similar_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures.txt").touch()
    message = rf"There is no folder {tmp_path}/pictrues\. Did you mean 'pictures'\?"
    with pytest.raises(CzslkitError, match=message):
        ensure_folder(name, tmp_path / "pictrues")
    with pytest.raises(CzslkitError) as info:
        ensure_folder(name, tmp_path / "pictures")
    assert "There is no folder" not in str(info.value)
    with pytest.raises(CzslkitError, match=rf"There is no folder {tmp_path}/no/where\."):
        ensure_folder(name, tmp_path / "no" / "where")


def test_built_in_datasets_are_looked_up_without_loading_anything_else() -> None:
    """A third party's plugin would be loaded by the last line, and torch with it; the package's own are not."""
    program = (
        "import sys\n"
        "from czslkit.data.datasets import DATASETS\n"
        "from czslkit.data.dataset_folders import canonical, find_folder, unregistered\n"
        "assert DATASETS['cgqa'].counts.pairs == 7555 and 'demo' in DATASETS\n"
        "assert not {'torch', 'numpy', 'czslkit.components'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
