"""Trap: ``extra`` reads the boxes of the images from a file which ``files`` does not return."""

import torch

from czslkit import DATASETS, Dataset
from czslkit.testing import write_tiny


@DATASETS.register("forgotten-boxes")
class ForgottenBoxes(Dataset):
    version = 1

    def extra(self, folder, listing):
        boxes = iter([float(line) for line in (folder / "boxes.txt").read_text().split()])
        return {split: {"box": torch.tensor([next(boxes) for _ in rows])} for split, rows in listing.instances.items()}

    def make(self, folder):
        write_tiny(folder.parent).rename(folder)
        (folder / "boxes.txt").write_text("\n".join(map(str, range(1000))))
