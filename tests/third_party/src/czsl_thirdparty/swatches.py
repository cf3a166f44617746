"""Swatches: drawn here, and listed in a table of its own rather than in the field's layout."""

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
        instances = {phase: tuple(row for row in rows if row.set == phase) for phase in SPLITS}
        pairs = {phase: tuple(dict.fromkeys((i.attr, i.obj) for i in instances[phase])) for phase in SPLITS}
        return Listing(pairs, instances)

    def files(self, folder: Path) -> tuple[Path, ...]:
        return (folder / "table.csv",)

    def make(self, folder: Path) -> None:
        (folder / "images").mkdir(parents=True)
        rows = []
        for colour in COLOURS:
            for shape, size in SHAPES.items():
                phases = [phase for phase, pair in UNSEEN.items() if pair == (colour, shape)] or SPLITS
                for phase in phases:
                    image = f"{colour} {shape} {phase}.png"
                    Image.new("RGB", size, colour).save(folder / "images" / image)
                    rows.append((image, colour, shape, phase))
        with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
