"""Swatches: a dataset whose images are drawn here and listed in a table, not in the layout of the field's datasets."""

from __future__ import annotations

import csv
from pathlib import Path

from PIL import Image

from czslkit.data.datasets import DATASETS, Dataset
from czslkit.data.layout import SPLITS, Instance, Listing

COLOURS = ("blue", "red", "white")
SHAPES = {"flag": (24, 8), "tile": (16, 16), "tower": (8, 24)}
UNSEEN = {"val": ("blue", "tower"), "test": ("white", "flag")}


@DATASETS.register("swatches")
class Swatches(Dataset):
    """Flags, tiles and towers in three colours."""

    aliases = ("swatch-book",)

    def listing(self, folder: Path) -> Listing:
        with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
            rows = [Instance(*row) for row in csv.reader(file)]
        instances = {split: tuple(row for row in rows if row.set == split) for split in SPLITS}
        pairs = {split: tuple(dict.fromkeys((i.attr, i.obj) for i in instances[split])) for split in SPLITS}
        return Listing(pairs, instances)

    def files(self, folder: Path) -> tuple[Path, ...]:
        return (folder / "table.csv",)

    def make(self, folder: Path) -> None:
        (folder / "images").mkdir(parents=True)
        rows = []
        for colour in COLOURS:
            for shape, size in SHAPES.items():
                splits = [split for split, pair in UNSEEN.items() if pair == (colour, shape)] or SPLITS
                for split in splits:
                    image = f"{colour} {shape} {split}.png"
                    Image.new("RGB", size, colour).save(folder / "images" / image)
                    rows.append((image, colour, shape, split))
        with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
