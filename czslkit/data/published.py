"""TODO."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import sources
from .datasets import DATASETS, Counts, Dataset, SplitCounts
from .layout import metadata_file, read_metadata, write_dataset
from .sources import Source

if TYPE_CHECKING:
    from PIL import Image

BENCHMARKS = ("mit-states", "ut-zappos", "cgqa")
"""What ``all`` stands for."""


@DATASETS.register("mit-states")
class MitStates(Dataset):
    """MIT-States: things in states, from web searches."""

    sources = sources.MIT_STATES
    counts = Counts(
        attrs=115,
        objs=245,
        pairs=1962,
        phases={
            "train": SplitCounts(1262, 0, 30338),
            "val": SplitCounts(300, 300, 10420),
            "test": SplitCounts(400, 400, 12995),
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
            "train": SplitCounts(83, 0, 22998),
            "val": SplitCounts(15, 15, 3214),
            "test": SplitCounts(18, 18, 2914),
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
            "train": SplitCounts(5592, 0, 26920),
            "val": SplitCounts(1252, 1040, 7280),
            "test": SplitCounts(888, 923, 5098),
        },
    )


@DATASETS.register("demo")
class Demo(Dataset):
    """The demo world: rendered shapes with surface finishes."""

    def make(self, folder: Path) -> None:
        from . import demo_world

        print(f"rendering the demo dataset into {folder}, once", file=sys.stderr)
        write_dataset(folder, demo_world.split_pairs(), _demo_pictures())


def _demo_pictures() -> Iterator[tuple[dict[str, str], Image.Image]]:
    from . import demo_world

    for split, attr, obj, index in demo_world.instances():
        entry = {"image": f"{attr}_{obj}/{split}_{index:03d}.png", "attr": attr, "obj": obj, "set": split}
        yield entry, demo_world.render_instance(split, attr, obj, index)
