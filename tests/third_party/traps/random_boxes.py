"""Trap: ``extra`` draws random numbers."""

import random

import torch

from czslkit import DATASETS, Dataset
from czslkit.testing import write_tiny


@DATASETS.register("random-boxes")
class RandomBoxes(Dataset):
    version = 1

    def extra(self, folder, listing):
        return {
            split: {"box": torch.tensor([random.random() for _ in rows])} for split, rows in listing.instances.items()
        }

    def make(self, folder):
        write_tiny(folder.parent).rename(folder)
