"""The built-in datasets: the published ones with their published counts, and the rendered demo world."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from ..terminal import log_to_stderr, tracked
from . import sources
from .datasets import DATASETS, Counts, Dataset, SplitCounts
from .layout import metadata_file
from .metadata import read_metadata
from .sources import Source
from .writing import write_dataset

BENCHMARKS = ("mit-states", "ut-zappos", "cgqa")
"""Datasets that the name ``all`` means: those of the published tables, which a command can download."""


@DATASETS.register("mit-states")
class MitStates(Dataset):
    """MIT-States: objects in different states, from web searches."""

    version = 1
    display_name = "MIT-States"
    citation = """
@inproceedings{isola2015mitstates,
  author = {Isola, Phillip and Lim, Joseph J. and Adelson, Edward H.},
  title = {Discovering States and Transformations in Image Collections},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year = {2015}
}
"""
    sources = sources.MIT_STATES
    counts = Counts(
        attrs=115,
        objs=245,
        pairs=1962,
        splits={
            "train": SplitCounts(1262, 0, 30338),
            "val": SplitCounts(300, 300, 10420),
            "test": SplitCounts(400, 400, 12995),
        },
    )

    def placement(self, source: Source, folder: Path) -> Callable[[str], Sequence[str]]:
        """Return the paths that a member is unpacked to; ``_`` replaces spaces in folder names, as in the metadata."""
        place = super().placement(source, folder)

        def with_underscores(path: str) -> str:
            parent, slash, name = path.rpartition("/")
            return parent.replace(" ", "_") + slash + name

        return lambda member: [with_underscores(path) for path in place(member)]


@DATASETS.register("ut-zappos")
class UtZappos(Dataset):
    """UT-Zappos: kinds of shoes and their materials."""

    version = 1
    display_name = "UT-Zappos"
    citation = """
@inproceedings{yu2014zappos,
  author = {Yu, Aron and Grauman, Kristen},
  title = {Fine-Grained Visual Comparisons with Local Learning},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year = {2014}
}
"""
    aliases = ("ut-zap50k",)
    sources = sources.UT_ZAPPOS
    counts = Counts(
        attrs=16,
        objs=12,
        pairs=116,
        splits={
            "train": SplitCounts(83, 0, 22998),
            "val": SplitCounts(15, 15, 3214),
            "test": SplitCounts(18, 18, 2914),
        },
    )

    def placement(self, source: Source, folder: Path) -> Callable[[str], Sequence[str]]:
        """Return the paths of an image in the metadata; the archive has other folders, by kind of shoe and maker."""
        if source.below != "images":
            return super().placement(source, folder)
        paths: dict[str, list[str]] = {}
        for original, image in dict.fromkeys((i.original, i.image) for i in read_metadata(metadata_file(folder))):
            paths.setdefault(original, []).append(f"images/{image}")
        return lambda member: paths.get(source.path(member), ())


@DATASETS.register("cgqa")
class Cgqa(Dataset):
    """C-GQA in its updated version: crops of everyday scenes."""

    version = 1
    display_name = "C-GQA"
    citation = """
@inproceedings{naeem2021cgqa,
  author = {Naeem, Muhammad Ferjad and Xian, Yongqin and Tombari, Federico and Akata, Zeynep},
  title = {Learning Graph Embeddings for Compositional Zero-Shot Learning},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year = {2021}
}
"""
    sources = sources.CGQA
    counts = Counts(
        attrs=413,
        objs=674,
        pairs=7555,
        splits={
            "train": SplitCounts(5592, 0, 26920),
            "val": SplitCounts(1252, 1040, 7280),
            "test": SplitCounts(888, 923, 5098),
        },
    )


@DATASETS.register("vaw-czsl")
class VawCzsl(Dataset):
    """VAW-CZSL: rare attributes of objects in everyday scenes; words have spaces."""

    version = 1
    display_name = "VAW-CZSL"
    citation = """
@inproceedings{saini2022oadis,
  author = {Saini, Nirat and Pham, Khoi and Shrivastava, Abhinav},
  title = {Disentangling Visual Embeddings for Attributes and Objects},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year = {2022}
}
"""
    pages = sources.VAW_CZSL
    unpublished = "no source of the counts of vaw-czsl could be read: its lists and images are compared with no counts"


@DATASETS.register("clothing16k")
class Clothing16K(Dataset):
    """Clothing16K: clothes and their colours, from Kaggle's apparel dataset."""

    version = 1
    display_name = "Clothing16K"
    citation = """
@inproceedings{zhang2022ivr,
  author = {Zhang, Tian and Liang, Kongming and Du, Ruoyi and Sun, Xian and Ma, Zhanyu and Guo, Jun},
  title = {Learning Invariant Visual Representations for Compositional Zero-Shot Learning},
  booktitle = {European Conference on Computer Vision},
  year = {2022}
}
"""
    pages = sources.CLOTHING16K
    counts = Counts(
        attrs=9,
        objs=8,
        pairs=None,
        splits={
            "train": SplitCounts(18, 0, 7242),
            "val": SplitCounts(10, 10, 5515),
            "test": SplitCounts(9, 8, 3413),
        },
    )
    unpublished = "the number of different pairs of clothing16k is not published: it is compared with no count"


@DATASETS.register("demo")
class Demo(Dataset):
    """The demo world: rendered shapes with surface finishes."""

    version = 1

    def make(self, folder: Path) -> None:
        """Render the dataset into ``folder``."""
        from . import demo_world  # imports numpy

        log_to_stderr(f"rendering the demo dataset into {folder} (only at its first use)")
        total = sum(1 for _ in demo_world.instances())
        write_dataset(folder, demo_world.split_pairs(), tracked(_demo_images(), "images rendered", total))


def _demo_images() -> Iterator[tuple[dict[str, str], Image.Image]]:
    """Yield the metadata entry and the image of every instance of the demo world."""
    from . import demo_world

    for split, attr, obj, index in demo_world.instances():
        entry = {"image": f"{attr}_{obj}/{split}_{index:03d}.png", "attr": attr, "obj": obj, "set": split}
        yield entry, demo_world.render_instance(split, attr, obj, index)
