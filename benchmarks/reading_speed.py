"""Measure how fast images are read, and what an epoch of CSP costs from kept features.

    python benchmarks/reading_speed.py

Needs nothing but this package and some five minutes on two quiet cores; writes ``reading_speed.md`` beside itself.
What is compared is measured in one run, in turns. The photographs are made up: smooth shapes with grain, saved so that
they weigh what photographs of their size do. All files are in the page cache of the operating system.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import czslkit
from czslkit.data.image_cache import decoded_images
from czslkit.data.image_set import ImageSet, image_batches
from czslkit.data.splits import Split

HERE = Path(__file__).parent
CORES, ROUNDS, BATCH, SIZE = 2, 5, 64, 224
ATTRS, OBJS, PAIRS = 16, 12, 83  # as many words and training pairs as UT-Zappos has
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
RESIZED = [transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(SIZE)]
VARIED = [transforms.RandomHorizontalFlip(), transforms.RandomPerspective(), transforms.RandomRotation(5)]
TENSOR = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]


def photograph(rng: np.random.Generator) -> Image.Image:
    shapes = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 9, (375, 500, 1))
    return Image.fromarray((np.asarray(shapes) + grain).clip(0, 255).astype(np.uint8))


def label_space() -> czslkit.PairSpace:
    every = torch.cartesian_prod(torch.arange(ATTRS), torch.arange(OBJS))
    pairs = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:PAIRS]]
    attrs, objs = ([f"{kind} {n}" for n in range(count)] for kind, count in (("state", ATTRS), ("thing", OBJS)))
    return czslkit.PairSpace(tuple(attrs), tuple(objs), pairs, torch.ones(PAIRS, dtype=torch.bool))


def write_photographs(folder: Path, space: czslkit.PairSpace, count: int) -> Split:
    """A training split, each pair in a folder of its own."""
    rng, paths, shown = np.random.default_rng(0), [], space.pairs[torch.arange(count) % PAIRS]
    for n, (attr, obj) in enumerate(shown.tolist()):
        paths.append(folder / f"{attr}_{obj}" / f"{n}.jpg")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        photograph(rng).save(paths[-1], quality=85)
    return Split("train", tuple(paths), shown[:, 0], shown[:, 1], space.pairs)


def reading(folder: Path, split: Split) -> list[list[str]]:
    """Images a second of every way to read them, with its factor over the plain loader."""
    cache = czslkit.Cache(folder / "cache", images=True)
    start = time.perf_counter()
    decoded = decoded_images(cache, split, SIZE)
    made = len(split) / (time.perf_counter() - start)

    def plain(*steps: object) -> Callable[[], Iterable[object]]:
        images = datasets.ImageFolder(folder / "images", transforms.Compose([*RESIZED, *steps, *TENSOR]))
        return lambda: DataLoader(images, BATCH, shuffle=True, num_workers=CORES)

    def ours(**options: object) -> Callable[[], Iterable[object]]:
        images = ImageSet(split, SIZE, MEAN, STD, **options)
        return lambda: image_batches(images, BATCH, order=torch.randperm(len(split)), workers=CORES)

    method = czslkit.build("csp", label_space(), backbone="ViT-B-32/random")
    feed = czslkit.Feed(method, split, BATCH, cache=cache)
    next(feed.batches())  # makes the features
    ways = {
        "PIL + torchvision DataLoader": plain(),
        "czslkit, cold decode": ours(),
        "czslkit, decoded cache": ours(decoded=decoded),
        "czslkit, feature cache": lambda: feed.batches(torch.randperm(len(split))),
        "PIL + torchvision DataLoader, augmented": plain(*VARIED),
        "czslkit, cold decode, augmented": ours(augment=True),
        "czslkit, decoded cache, augmented": ours(decoded=decoded, augment=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in way():
                pass
            seconds[name].append(time.perf_counter() - start)
    rows: list[list[str]] = []
    for name, taken in seconds.items():
        base = seconds["PIL + torchvision DataLoader" + ", augmented" * name.endswith("augmented")]
        rates = [len(split) / each for each in taken]
        rows.append(
            [
                name,
                f"{median(rates):,.0f}",
                f"{min(rates):,.0f} to {max(rates):,.0f}",
                f"{median(base) / median(taken):.1f}",
            ]
        )
    return [*rows, ["making the decoded cache, once", f"{made:,.0f}", "", ""]]


@dataclass(frozen=True)
class Epoch:
    seconds: float
    losses: tuple[float, ...]


class Rereading(czslkit.Feed):
    """Every image is read and encoded in every epoch, as for an encoder that learns."""

    def batches(
        self, order: torch.Tensor | None = None, epoch: int = 0, size: int | None = None
    ) -> Iterator[czslkit.Batch]:
        return self._pixels(order, epoch, size or self.batch_size)


def epoch(method: czslkit.Method, feed: czslkit.Feed) -> Epoch:
    """A whole epoch of training, always from the same start and with the same random numbers."""
    start = time.perf_counter()
    torch.manual_seed(0)
    words = method.prompt.words
    untrained = words.detach().clone()
    optimizer = torch.optim.Adam([words], lr=5e-4, weight_decay=1e-5)
    losses = []
    for batch in feed.batches(torch.randperm(len(feed.split))):
        loss = method.loss(batch, feed.split.pairs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    seconds = time.perf_counter() - start
    words.data.copy_(untrained)
    return Epoch(seconds, tuple(losses))


def training(folder: Path, split: Split, backbone: str) -> list[str]:
    """What an epoch of CSP takes by re-encoding, when the features are made, opened, and at hand."""
    space = label_space()
    method = czslkit.build("csp", space, backbone=f"{backbone}/random").train()
    again = epoch(method, Rereading(method, split, BATCH, workers=CORES))
    cache = czslkit.Cache(folder / "cache")
    first = epoch(method, czslkit.Feed(method, split, BATCH, workers=CORES, cache=cache))
    feed = czslkit.Feed(method, split, BATCH, workers=CORES, cache=cache)
    opened, *kept = (epoch(method, feed) for _ in range(4))
    off = max(abs(a - b) for a, b in zip(again.losses, kept[0].losses, strict=True))
    taken = median(each.seconds for each in kept)
    times = [f"{seconds:.1f}" for seconds in (again.seconds, first.seconds, opened.seconds, taken)]
    return [backbone, str(len(split)), *times, f"{again.seconds / taken:.1f}", f"{off:.1g}"]


def machine() -> str:
    model = "unknown"
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), model)
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; Python {platform.python_version()}, "
        f"torch {torch.__version__}, Pillow {Image.__version__}; load before the run {load:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512, metavar="N", help="that are read (default: 512)")
    parser.add_argument("--out", type=Path, default=HERE / "reading_speed.md", metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(CORES)
    where = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = write_photographs(folder / "images", label_space(), args.images)
        weight = sum(path.stat().st_size for path in split.paths) / len(split) / 1000
        read = reading(folder, split)
        some = [Split("train", split.paths[:n], split.attr[:n], split.obj[:n], split.pairs) for n in (4 * BATCH, BATCH)]
        trained = [training(folder, *each) for each in zip(some, ("ViT-B-32", "ViT-L-14"), strict=True)]
    args.out.write_text(PAGE.format(
        machine=where, images=len(split), weight=weight, rounds=ROUNDS, cores=CORES, batch=BATCH, pairs=PAIRS,
        reading=tabulate(read, ("", "images/s, median", "range", "x plain"), "github", disable_numparse=True),
        training=tabulate(trained, TIMES, "github", disable_numparse=True),
    ))  # fmt: skip
    print(args.out.read_text())


TIMES = (
    "encoder", "images", "re-encoding, s", "making the features, s", "opening them, s", "every further epoch, s",
    "re-encoding / further epoch", "largest difference of a loss",
)  # fmt: skip
PAGE = """# How fast images are read

Written by `python benchmarks/reading_speed.py`.
{machine}.

## Reading

{images} JPEGs of 500 x 375 pixels, {weight:.0f} kB on average, as batches of {batch} normalised images of 224 pixels;
{cores} worker processes; {rounds} passes over all of them, in turns, each with the start of its workers. All files are
in the page cache. The plain loader is torchvision's `ImageFolder` with `Resize`, `CenterCrop`, `ToTensor` and
`Normalize`, which gives the same tensors. The feature cache is read in the process that trains.

{reading}

## An epoch of CSP

Whole epochs, text side and optimiser included, in batches of {batch} against {pairs} training pairs, as on UT-Zappos;
no augmentation; the encoders are CLIP's, with random weights, in fp32 on the CPU. "Opening them" is the first epoch of
another training: by the weights and a picture of noise it makes sure that the features are those of this encoder, which
takes as long for a whole dataset as for these few images.

{training}

What is left in an epoch from features is CSP's text side, which grows with the pairs and not with the images. The ratio
is larger for larger batches and encoders, and smaller for the 1,262 pairs of MIT-States and the 5,592 of C-GQA.
"""

if __name__ == "__main__":
    main()
