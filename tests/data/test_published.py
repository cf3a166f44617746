from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from czslkit.data import demo_world
from czslkit.data.dataset_folders import canonical, dataset, ensure_folder, find_folder
from czslkit.data.datasets import DATASETS, Dataset
from czslkit.data.layout import SPLITS
from czslkit.data.published import BENCHMARKS
from czslkit.errors import DataError

BY_HAND = ("vaw-czsl", "clothing16k")  # published datasets that only a browser can download


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    some = list(itertools.islice(demo_world.instances(), 0, None, 15))
    monkeypatch.setattr(demo_world, "instances", lambda: iter(some))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_absent_dataset_is_an_error_with_the_folders_searched_and_the_source(tmp_path: Path, name: str) -> None:
    assert find_folder(name, tmp_path) is None
    with pytest.raises(DataError, match=f"{name} is absent: looked for {tmp_path / name}") as info:
        ensure_folder(name, tmp_path)
    assert f"'czslkit data download {name} --data {tmp_path}' unpacks it from\n" in str(info.value)
    for source in DATASETS[name].sources:
        assert f"  {source.file.name} from {source.file.urls[0]}" in str(info.value)


def test_pages_for_a_browser_are_named_when_a_dataset_without_archives_is_absent(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=f"vaw-czsl is absent: looked for {tmp_path}/vaw-czsl. It cannot be dow"
    ) as info:
        ensure_folder("vaw-czsl", tmp_path)
    said = str(info.value)
    assert all(f"\n  {page}\n" in said for page in DATASETS["vaw-czsl"].pages)
    assert said.endswith(f"put them into {tmp_path}/vaw-czsl; 'czslkit data verify vaw-czsl' then checks them.")


def test_both_folders_of_ut_zappos_are_named_when_absent(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"looked for {tmp_path}/ut-zappos and {tmp_path}/ut-zap50k"):
        ensure_folder("ut-zap50k", tmp_path)


@pytest.mark.usefixtures("few_pictures")
def test_an_absent_demo_is_rendered_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ensure_folder("demo", tmp_path / "new")
    assert capsys.readouterr().err == f"rendering the demo dataset into {tmp_path}/new/demo (only at its first use)\n"
    assert len(list(folder.rglob("*.png"))) == len(list(demo_world.instances()))
    assert ensure_folder("demo", tmp_path / "new") == folder
    assert capsys.readouterr().err == ""


def test_the_known_names() -> None:
    assert [name for name in DATASETS if DATASETS[name].__module__.startswith("czslkit.")] == sorted(
        [*BENCHMARKS, *BY_HAND, "demo"]
    )


def test_the_name_all_means_the_three_datasets_of_the_published_tables() -> None:
    assert BENCHMARKS == ("mit-states", "ut-zappos", "cgqa")


@pytest.mark.parametrize("name", DATASETS)
def test_a_registered_dataset_is_downloaded_or_made_here_or_has_pages(name: str, tmp_path: Path) -> None:
    known = dataset(name)
    assert known.name == canonical(name) == name
    assert bool(known.sources) + bool(known.pages) + (type(known).make is not Dataset.make) == 1
    assert all(page.startswith("https://") for page in known.pages)
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
        assert name == "demo" or DATASETS[name].unpublished
        return
    train, val, test = (counts.splits[split] for split in SPLITS)
    if counts.pairs is None:
        assert "pairs" in DATASETS[name].unpublished
    else:
        assert counts.pairs == train.seen + val.unseen + test.unseen
        assert counts.pairs <= counts.attrs * counts.objs
    assert train.unseen == 0
    assert max(val.seen, test.seen) <= train.seen
    assert train.seen + max(val.unseen, test.unseen) <= counts.attrs * counts.objs


@pytest.mark.parametrize("name", [*BENCHMARKS, *BY_HAND, "demo"])
def test_a_built_in_dataset_states_a_version_of_its_own(name: str) -> None:
    assert isinstance(vars(DATASETS[name])["version"], int)
