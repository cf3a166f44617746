"""Trap: a dataset that reads the names of its colours from a file which ``files`` does not return."""

import csv
import json

from PIL import Image

from czslkit import DATASETS, Dataset
from czslkit.data.layout import SPLITS, Instance, Listing

PAIRS = {"train": ("b tile", "r tile", "b flag"), "val": ("b tile", "r flag"), "test": ("b flag", "r flag")}
COLOURS = {"b": "blue", "r": "red"}


@DATASETS.register("forgotten-file")
class ForgottenFile(Dataset):
    """Tiles and flags in two colours."""

    def listing(self, folder):
        colours = json.loads((folder / "colours.json").read_text())
        with (folder / "table.csv").open(newline="") as file:
            rows = [Instance(image, colours[attr], obj, split) for image, attr, obj, split in csv.reader(file)]
        instances = {split: tuple(row for row in rows if row.set == split) for split in SPLITS}
        pairs = {split: tuple(dict.fromkeys((i.attr, i.obj) for i in instances[split])) for split in SPLITS}
        return Listing(pairs, instances)

    def files(self, folder):
        return (folder / "table.csv",)

    def make(self, folder):
        (folder / "images").mkdir(parents=True)
        (folder / "colours.json").write_text(json.dumps(COLOURS))
        rows = []
        for split, pairs in PAIRS.items():
            for attr, obj in map(str.split, pairs):
                rows.append((f"{split} {attr} {obj}.png", attr, obj, split))
                size = (16, 16) if obj == "tile" else (24, 8)
                Image.new("RGB", size, COLOURS[attr]).save(folder / "images" / rows[-1][0])
        with (folder / "table.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
