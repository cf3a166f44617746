"""The checks of a dataset: its lists, its images, its splits and the files that its results depend on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..data.dataset_folders import data_root, dataset, find_folder
from ..data.datasets import Dataset
from ..data.fingerprint import fingerprint
from ..data.images import open_rgb
from ..data.layout import Listing, images_folder
from ..data.loading import extra_tensors, load_dataset
from ..data.splits import Split, Splits
from ..runner.bench import bench
from .report import Check, CheckFailed, CheckSkipped, check

MOST_IMAGES = 300  # images that are opened of each split; also the largest split that is evaluated


class DatasetTrial:
    """A dataset in its folder, or made in a temporary folder.

    Args:
        name: name of the dataset.
        root: folder of all datasets; None for the default folder.
        folder: an empty folder.
    """

    def __init__(self, name: str, root: str | Path | None, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.root = data_root(root) if root or find_folder(name) else folder / "data"

    @cached_property
    def data(self) -> Splits:
        """The loaded dataset."""
        return load_dataset(self.name, self.root)

    @property
    def known(self) -> Dataset:
        """The description of the dataset."""
        return dataset(self.name)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The three splits."""
        return self.data.train, self.data.val, self.data.test

    @contextmanager
    def mirror(self, without: Collection[Path] = ()) -> Iterator[Path]:
        """Yield a copy of the dataset's folder that links to its files, without some of them."""
        source, copy = self.data.root.resolve(), self.folder / "mirror"

        def ignored(folder: str, names: list[str]) -> list[str]:
            return [n for n in names if Path(folder, n) in without or Path(folder, n) == images_folder(source)]

        shutil.copytree(source, copy, ignore=ignored, copy_function=os.symlink)
        images_folder(copy).symlink_to(images_folder(source), target_is_directory=True)
        try:
            yield copy
        finally:
            shutil.rmtree(copy)


@check("listing(folder) returns a Listing with pairs and instances of train, val and test.")
def the_dataset_loads(trial: DatasetTrial) -> str:
    """The dataset is read, and its lists do not contradict each other."""
    data = trial.data
    return f"{len(data.space.pairs)} pairs, {sum(map(len, trial.splits))} images"


@check("Every split has a list of pairs and images.", the_dataset_loads)
def every_split_has_images(trial: DatasetTrial) -> str:
    """No split is empty, and every listed pair of a split has an image in it."""
    for split in trial.splits:
        if not len(split):
            raise CheckFailed(f"the split {split.name} has no image: return instances with set={split.name!r}")
        shown = set(zip(split.attr.tolist(), split.obj.tolist(), strict=True))
        space = trial.data.space
        missing = [f"{space.attrs[a]} {space.objs[o]}" for a, o in split.pairs.tolist() if (a, o) not in shown]
        if missing:
            raise CheckFailed(
                f"{len(missing)} of {len(split.pairs)} pairs of {split.name} have no image, such as {missing[0]!r}: "
                "list only pairs that images of the split show"
            )
    return ", ".join(f"{split.name} {len(split)}" for split in trial.splits)


@check("The pairs of val and test are those of their images.", every_split_has_images)
def val_and_test_have_seen_and_unseen_pairs(trial: DatasetTrial) -> str:
    """Validation and test have images of pairs that the training list has, and of pairs that it does not have."""
    space, counts = trial.data.space, []
    seen_of = torch.zeros(len(space.attrs), len(space.objs), dtype=torch.bool)
    seen_of[tuple(space.pairs[space.seen].T)] = True
    for split in trial.splits[1:]:
        seen = int(seen_of[split.attr, split.obj].sum())
        for kind, number in (("seen", seen), ("unseen", len(split) - seen)):
            if not number:
                raise CheckFailed(
                    f"{split.name} has no image of {kind} pairs, so there is no trade-off to measure: move "
                    "pairs between the lists of the splits"
                )
        counts.append(f"{split.name}: {seen} images of seen pairs, {len(split) - seen} of unseen pairs")
    return "; ".join(counts)


@check("Instance.image is a path below images/, with forward slashes.", the_dataset_loads)
def images_open(trial: DatasetTrial) -> str:
    """Images exist and can be decoded."""
    opened = 0
    for split in trial.splits:
        for path in split.paths[:: max(1, len(split) // MOST_IMAGES)]:
            try:
                open_rgb(path)
            except Exception as error:
                raise CheckFailed(
                    f"{path} of {split.name} cannot be opened ({type(error).__name__}: {error}): list only images that "
                    "exist, by their path below images/"
                ) from error
            opened += 1
    return f"{opened} images"


@check("files(folder) returns the paths of files that listing and extra read.", the_dataset_loads)
def files_exist(trial: DatasetTrial) -> str:
    """Every file of ``files`` exists, and their names differ."""
    files = trial.known.files(trial.data.root)
    if missing := [str(file) for file in files if not file.is_file()]:
        raise CheckFailed(
            f"files() names {missing[0]}, which does not exist: return the files that listing and extra read"
        )
    if len({file.name for file in files}) < len(files):
        raise CheckFailed(f"two files of files() have one name: {', '.join(file.name for file in files)}")
    return ", ".join(file.name for file in files) or "no files"


@check("listing(folder) and extra(folder, listing) depend only on the files.", the_dataset_loads)
def a_second_load_is_equal(trial: DatasetTrial) -> str:
    """A second load gives the same pairs, images, other tensors and fingerprint."""
    again, data = load_dataset(trial.name, trial.root), trial.data
    if not _equal(_content(trial, data.root), _content(trial, data.root)) or again.fingerprint != data.fingerprint:
        raise CheckFailed(
            "two loads differ: sort what a set or os.listdir gives, and draw no random numbers in listing and extra"
        )
    return f"fingerprint {data.fingerprint[:12]}"


@check("listing and extra read only files below folder that files(folder) returns, and images/.", files_exist,
       a_second_load_is_equal)  # fmt: skip
def files_has_every_file_that_is_read(trial: DatasetTrial) -> str:
    """``listing`` and ``extra`` give the same without the files that ``files`` does not return."""
    known, root = trial.known, trial.data.root.resolve()
    named = {file.resolve() for file in known.files(root)}
    others = [
        file
        for file in sorted(root.rglob("*"))
        if file.is_file() and file.resolve() not in named and images_folder(root) not in file.parents
    ]
    if not _read(trial, others):
        return f"{len(named)} files, {len(others)} other files"
    read = [str(file.relative_to(root)) for file in others if _read(trial, [file])] or [str(f) for f in others]
    raise CheckFailed(
        f"listing or extra reads {', '.join(read)}, which files() does not return, so results would not be run "
        f"again when it changes: add it to {type(known).__name__}.files"
    )


@check("files(folder) returns the paths of files that listing and extra read.", files_exist)
def the_fingerprint_changes_with_each_file(trial: DatasetTrial) -> str:
    """The fingerprint changes when one of the files changes."""
    known, root = trial.known, trial.data.root.resolve()
    names = [file.resolve().relative_to(root) for file in known.files(root)]
    for name in names:
        with trial.mirror() as copy:
            content = (root / name).read_bytes()
            (copy / name).unlink()
            (copy / name).write_bytes(content + b"\n")
            if fingerprint(copy, known.files(copy)) == trial.data.fingerprint:
                raise CheckFailed(f"the fingerprint stays when {name} changes: return paths below folder in files")
    return f"{len(names)} files changed"


@check("The dataset runs in a benchmark like any other; correct the line above.", every_split_has_images, images_open)
def a_benchmark_runs(trial: DatasetTrial) -> str:
    """CLIP is evaluated on the dataset in both worlds."""
    if max(map(len, trial.splits)) > MOST_IMAGES:
        raise CheckSkipped(f"a split has more than {MOST_IMAGES} images")
    where = {"data": trial.root, "runs": trial.folder / "runs"}
    result = bench("clip", trial.name, settings={"backbone": "demo"}, device="cpu", progress=False,
                   log=lambda line: None, data=where["data"], runs=where["runs"])  # fmt: skip
    if result.failed:
        error = next(cell["error"] for cell in result.results if cell["status"] != "done")
        raise CheckFailed(f"the benchmark failed with {error.get('type', 'an error')}: {error['message']}")
    return "clip on the demo backbone"


#: What ``listing`` returned, and the tensors of ``extra`` by split and name.
_Content = tuple[Listing, dict[str, Mapping[str, Tensor]]]


def _content(trial: DatasetTrial, folder: Path) -> _Content:
    """Return what ``listing`` and ``extra`` give for a folder."""
    listing = trial.known.listing(folder)
    return listing, extra_tensors(trial.known, folder, listing)


def _equal(one: _Content, other: _Content) -> bool:
    """Return whether two loads are equal; tensors have to be equal to the last bit."""
    same_names = [{split: sorted(tensors) for split, tensors in content[1].items()} for content in (one, other)]
    return (
        one[0] == other[0]
        and same_names[0] == same_names[1]
        and all(
            _same_tensor(tensor, other[1][split][name])
            for split, tensors in one[1].items()
            for name, tensor in tensors.items()
        )
    )


def _same_tensor(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are of one shape and kind and have equal numbers; NaN equals NaN."""
    same_kind = (one.shape, one.dtype) == (other.shape, other.dtype)
    return same_kind and bool(((one == other) | ((one != one) & (other != other))).all())


def _read(trial: DatasetTrial, files: list[Path]) -> bool:
    """Return whether ``listing`` or ``extra`` fails or gives something else without some files."""
    with trial.mirror() as whole:
        expected = _content(trial, whole)
    with trial.mirror(without=files) as rest:
        try:
            return not _equal(_content(trial, rest), expected)
        except Exception:
            return True


DATASET_CHECKS: tuple[Check[DatasetTrial], ...] = (
    the_dataset_loads,
    every_split_has_images,
    val_and_test_have_seen_and_unseen_pairs,
    images_open,
    files_exist,
    a_second_load_is_equal,
    files_has_every_file_that_is_read,
    the_fingerprint_changes_with_each_file,
    a_benchmark_runs,
)
