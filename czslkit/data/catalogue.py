"""Which datasets there are, where they lie, and what is published about them. Needs no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from ..errors import DataError, UnknownNameError, did_you_mean
from ..registry import Registry, failures
from . import sources
from .layout import Listing, list_files, metadata_file, pairs_file, read_listing, read_metadata, write_dataset
from .sources import Source

if TYPE_CHECKING:
    from PIL import Image

DOWNLOADS = ".downloads"
"""The folder below the root that archives are kept in until they are unpacked."""
BENCHMARKS = ("mit-states", "ut-zappos", "cgqa")
"""What ``all`` stands for."""


@dataclass(frozen=True)
class PhaseCounts:
    """How much a phase holds."""

    seen: int
    """Pairs that are in the training list, too."""
    unseen: int
    images: int


@dataclass(frozen=True)
class Counts:
    """How much a dataset holds, as published."""

    attrs: int
    objs: int
    pairs: int
    """In the three lists together, each counted once."""
    phases: Mapping[str, PhaseCounts]


class Dataset:
    """A dataset that is known by name: mostly what is said about it, and what differs from the field's layout.

    A subclass is registered as any component is, and made with the name it is registered by::

        @DATASETS.register("pets")
        class Pets(Dataset):
            def listing(self, folder): ...

    Its folder lies below the root and has its name or an alias; in it, pictures lie below ``images/``.
    """

    aliases: ClassVar[tuple[str, ...]] = ()
    """Other names, of the dataset and of its folder."""
    sources: ClassVar[tuple[Source, ...]] = ()
    """What ``czslkit data download`` unpacks, in this order."""
    counts: ClassVar[Counts | None] = None

    def __init__(self, name: str) -> None:
        self.name = name

    def listing(self, folder: Path) -> Listing:
        """What the dataset holds, read from its own files.

        Raises:
            DataError: files that are absent or malformed.
        """
        return read_listing(folder)

    def files(self, folder: Path) -> tuple[Path, ...]:
        """Every file that ``listing`` depends on, under different names; the dataset is another one when one changes.

        Raises:
            DataError: some are not there.
        """
        return list_files(folder)

    def make(self, folder: Path) -> None:
        """Write the whole dataset to ``folder``, or nothing; called where it is absent.

        Raises:
            DataError: it cannot be made here; says where it is had.
        """
        raise DataError(self._absence(folder.parent))

    def placement(self, source: Source, folder: Path) -> Callable[[str], Sequence[str]]:
        """Where below the dataset's folder a member of an archive goes: nowhere, or to one or several places.

        Args:
            source: one of ``sources``.
            folder: what the sources before it were unpacked to.

        Raises:
            DataError: of those, something that says it is missing or malformed.
        """
        return lambda member: [str(PurePosixPath(source.below, path))] if (path := source.path(member)) else []

    def _absence(self, base: Path) -> str:
        folders = " and ".join(str(base / each) for each in (self.name, *self.aliases))
        head = f"{self.name} is not there: looked for {folders}."
        if not self.sources:
            return head
        files = [f"  {source.file.name} from {' or '.join(source.file.urls)}" for source in self.sources]
        return "\n".join(
            [
                f"{head} 'czslkit data download {self.name} --data {base}' unpacks it from",
                *files,
                f"A file that you have by other means is taken from {base / DOWNLOADS}.",
            ]
        )


DATASETS = Registry("dataset", Dataset, complete=True)


@DATASETS.register("mit-states")
class MitStates(Dataset):
    """MIT-States: things in states, from web searches."""

    sources = sources.MIT_STATES
    counts = Counts(
        attrs=115,
        objs=245,
        pairs=1962,
        phases={
            "train": PhaseCounts(1262, 0, 30338),
            "val": PhaseCounts(300, 300, 10420),
            "test": PhaseCounts(400, 400, 12995),
        },
    )

    def placement(self, source: Source, folder: Path) -> Callable[[str], Sequence[str]]:
        """As the metadata spells it: with ``_`` for the spaces in the archive's folder names."""
        place = super().placement(source, folder)

        def renamed(path: str) -> str:
            above, slash, name = path.rpartition("/")
            return above.replace(" ", "_") + slash + name

        return lambda member: [renamed(path) for path in place(member)]


@DATASETS.register("ut-zappos")
class UtZappos(Dataset):
    """UT-Zappos: shoes and what they are made of."""

    aliases = ("ut-zap50k",)
    sources = sources.UT_ZAPPOS
    counts = Counts(
        attrs=16,
        objs=12,
        pairs=116,
        phases={
            "train": PhaseCounts(83, 0, 22998),
            "val": PhaseCounts(15, 15, 3214),
            "test": PhaseCounts(18, 18, 2914),
        },
    )

    def placement(self, source: Source, folder: Path) -> Callable[[str], Sequence[str]]:
        """Images go where the metadata has them: the archive sorts them by kind of shoe and by maker."""
        if source.below != "images":
            return super().placement(source, folder)
        places: dict[str, list[str]] = {}
        for original, image in dict.fromkeys((i.original, i.image) for i in read_metadata(metadata_file(folder))):
            places.setdefault(original, []).append(f"images/{image}")
        return lambda member: places.get(source.path(member), ())


@DATASETS.register("cgqa")
class Cgqa(Dataset):
    """C-GQA, the updated one: crops of everyday scenes."""

    sources = sources.CGQA
    counts = Counts(
        attrs=413,
        objs=674,
        pairs=7555,
        phases={
            "train": PhaseCounts(5592, 0, 26920),
            "val": PhaseCounts(1252, 1040, 7280),
            "test": PhaseCounts(888, 923, 5098),
        },
    )


@DATASETS.register("demo")
class Demo(Dataset):
    """The demo world: rendered shapes with surface finishes."""

    def make(self, folder: Path) -> None:
        from . import demo

        print(f"rendering the demo dataset into {folder}, once", file=sys.stderr)
        write_dataset(folder, demo.split_pairs(), _demo_pictures())


def canonical(name: str) -> str:
    """The one spelling of a dataset's name.

    >>> canonical("ut-zap50k"), canonical("cgqa")
    ('ut-zappos', 'cgqa')
    """
    if name in DATASETS:
        return name
    return next((known for known in DATASETS if name in DATASETS[known].aliases), name)


def dataset(name: str) -> Dataset:
    """What is known about a dataset: of an unregistered one, that it is in the field's layout."""
    name = canonical(name)
    return DATASETS[name](name) if name in DATASETS else Dataset(name)


def data_root(root: str | Path | None = None) -> Path:
    """Where datasets lie: ``root``, else what ``CZSLKIT_DATA`` says, else ``data`` in the current folder."""
    return Path(root or os.environ.get("CZSLKIT_DATA") or "data").expanduser()


def find(name: str, root: str | Path | None = None) -> Path | None:
    """The folder of a dataset, None where a registered one is absent.

    Raises:
        UnknownNameError: neither a registered dataset nor a folder under ``root``.
    """
    base, asked = data_root(root), dataset(name)
    if base.is_file():
        raise DataError(f"{base} is a file, expected the folder of the datasets")
    if asked.name in DATASETS:
        folders = (base / each for each in (asked.name, *asked.aliases))
        return next((folder for folder in folders if folder.is_dir()), None)
    if not name or Path(name).name != name or name.startswith(".") or not (base / name).is_dir():
        known = sorted({*DATASETS, *unregistered(base)})
        raise UnknownNameError(
            f"no dataset named {name!r}.{did_you_mean(name, [*known, *_aliases()])} Known: {', '.join(known)}. "
            f"A folder of that name under {base} would do, too." + "".join(f"\n  {line}" for line in failures())
        )
    return base / name


def locate(name: str, root: str | Path | None = None) -> Path:
    """The folder of a dataset, which is made where it is absent and can be: ``demo`` is rendered.

    Raises:
        UnknownNameError: neither a registered dataset nor a folder under ``root``.
        DataError: a dataset that is absent, with where to get it; or it cannot be written.
    """
    folder = find(name, root)
    if folder is None:
        asked = dataset(name)
        folder = data_root(root) / asked.name
        asked.make(folder)
    return folder


def unregistered(base: Path) -> list[str]:
    """Folders under ``base`` in the field's layout that no registered dataset claims; hidden ones do not count."""
    folders = base.iterdir() if base.is_dir() else ()
    names = [each.name for each in folders if metadata_file(each).is_file() or pairs_file(each, "train").is_file()]
    taken = {*DATASETS, *_aliases()}
    return sorted(name for name in names if not name.startswith(".") and name not in taken)


def _aliases() -> list[str]:
    return [alias for name in DATASETS for alias in DATASETS[name].aliases]


def _demo_pictures() -> Iterator[tuple[dict[str, str], Image.Image]]:
    from . import demo

    for split, attr, obj, index in demo.instances():
        entry = {"image": f"{attr}_{obj}/{split}_{index:03d}.png", "attr": attr, "obj": obj, "set": split}
        yield entry, demo.render_instance(split, attr, obj, index)
