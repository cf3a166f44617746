"""Measure how fast images are read, and how long an epoch of CSP takes with cached features.

    python benchmarks/reading_speed.py

The program takes about five minutes on two cores that do nothing else. It writes ``reading_speed.md`` into its own
folder. All variants are measured in one run, in turns. The photographs are generated: smooth shapes with grain, saved
as JPEGs with the file size of real photographs. All files are in the page cache of the operating system.
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
from typing import cast

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import czslkit
from czslkit.data.image_cache import DecodedImages, decoded_images
from czslkit.data.image_reader import ImageReader
from czslkit.data.image_set import ImageSet
from czslkit.data.splits import Split
from czslkit.prompts import SoftPrompt
from czslkit.types import Preprocessing

HERE = Path(__file__).parent
CORES, ROUNDS, BATCH, SIZE = 2, 5, 64, 224
ATTRS, OBJS, PAIRS = 16, 12, 83  # numbers of attributes, objects and training pairs of UT-Zappos
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
RESIZED = [transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(SIZE)]
AUGMENTED = [transforms.RandomHorizontalFlip(), transforms.RandomPerspective(), transforms.RandomRotation(5)]
TENSOR = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
PLAIN = "PIL + torchvision DataLoader"
Reader = Callable[[], Iterable[object]]


def photograph(rng: np.random.Generator) -> Image.Image:
    """Return a picture of 500 x 375 pixels whose JPEG has the file size of a real photograph."""
    shapes = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 9, (375, 500, 1))
    return Image.fromarray((np.asarray(shapes) + grain).clip(0, 255).astype(np.uint8))


def label_space() -> czslkit.PairSpace:
    """Return a label space with the numbers of attributes, objects and training pairs of UT-Zappos."""
    every = torch.cartesian_prod(torch.arange(ATTRS), torch.arange(OBJS))
    pairs = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:PAIRS]]
    attrs, objs = ([f"{kind} {n}" for n in range(count)] for kind, count in (("state", ATTRS), ("thing", OBJS)))
    return czslkit.PairSpace(tuple(attrs), tuple(objs), pairs, torch.ones(PAIRS, dtype=torch.bool))


def write_photographs(folder: Path, space: czslkit.PairSpace, count: int) -> Split:
    """Write photographs into a folder for each pair, and return them as a training split."""
    rng, paths, labels = np.random.default_rng(0), [], space.pairs[torch.arange(count) % PAIRS]
    for n, (attr, obj) in enumerate(labels.tolist()):
        paths.append(folder / f"{attr}_{obj}" / f"{n}.jpg")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        photograph(rng).save(paths[-1], quality=85)
    return Split("train", tuple(paths), labels[:, 0], labels[:, 1], space.pairs)


def reading(folder: Path, split: Split) -> list[list[str]]:
    """Return a row for each way to read images: images per second, and the speed relative to the plain loader."""
    cache = czslkit.Cache(folder / "cache", images=True)
    start = time.perf_counter()
    decoded = decoded_images(cache, split, Preprocessing(SIZE))
    images_per_second = len(split) / (time.perf_counter() - start)
    rows = rate_rows(seconds_of_each(readers(folder, split, cache, decoded)), len(split))
    return [*rows, ["writing the decoded images, once", f"{images_per_second:,.0f}", "", ""]]


def readers(folder: Path, split: Split, cache: czslkit.Cache, decoded: DecodedImages | None) -> dict[str, Reader]:
    """Return a function that starts a pass over all images, for each name of a row."""

    def plain(*steps: object) -> Reader:
        images = datasets.ImageFolder(folder / "images", transforms.Compose([*RESIZED, *steps, *TENSOR]))
        return lambda: DataLoader(images, BATCH, shuffle=True, num_workers=CORES)

    def ours(decoded: DecodedImages | None = None, augment: bool = False) -> Reader:
        reader = ImageReader(
            ImageSet(split, Preprocessing(SIZE, MEAN, STD), decoded=decoded, augment=augment), workers=CORES
        )
        return lambda: reader.batches(torch.randperm(len(split)).split(BATCH))

    method = czslkit.build("csp", label_space(), backbone="ViT-B-32/random")
    feed = czslkit.Feed(method, split, BATCH, cache=cache)
    next(feed.batches())  # writes the features to the cache
    return {
        PLAIN: plain(),
        "czslkit, no cache": ours(),
        "czslkit, cached decoded images": ours(decoded=decoded),
        "czslkit, cached features": lambda: feed.batches(torch.randperm(len(split))),
        f"{PLAIN}, augmented": plain(*AUGMENTED),
        "czslkit, no cache, augmented": ours(augment=True),
        "czslkit, cached decoded images, augmented": ours(decoded=decoded, augment=True),
    }


def seconds_of_each(ways: dict[str, Reader]) -> dict[str, list[float]]:
    """Return the seconds of each of ``ROUNDS`` passes. The ways take turns, so all have the same load."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, start_pass in ways.items():
            start = time.perf_counter()
            for _ in start_pass():
                pass
            seconds[name].append(time.perf_counter() - start)
    return seconds


def rate_rows(seconds: dict[str, list[float]], images: int) -> list[list[str]]:
    """Return the median and the range of the images per second, and the speed relative to the plain loader."""
    rows: list[list[str]] = []
    for name, taken in seconds.items():
        plain = seconds[PLAIN + ", augmented" * name.endswith("augmented")]
        rates = [images / each for each in taken]
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        rows.append([name, f"{median(rates):,.0f}", spread, f"{median(plain) / median(taken):.1f}"])
    return rows


@dataclass(frozen=True)
class Epoch:
    """The duration of an epoch, and the loss of each batch."""

    seconds: float
    losses: tuple[float, ...]


def epoch(method: czslkit.Method, split: Split, batches: Callable[[torch.Tensor], Iterable[czslkit.Batch]]) -> Epoch:
    """Train for one epoch, always from the same weights and with the same random numbers.

    Args:
        batches: returns the batches of a pass, given the order of the images.
    """
    start = time.perf_counter()
    torch.manual_seed(0)
    words = cast(SoftPrompt, method.prompt).words
    initial = words.detach().clone()
    optimizer = torch.optim.Adam([words], lr=5e-4, weight_decay=1e-5)
    losses = []
    for batch in batches(torch.randperm(len(split))):
        loss = cast(torch.Tensor, method.loss(batch, split.pairs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    seconds = time.perf_counter() - start
    words.data.copy_(initial)
    return Epoch(seconds, tuple(losses))


def training(folder: Path, split: Split, backbone: str) -> list[str]:
    """Return a row with the seconds of an epoch of CSP: re-encoding, writing, opening and reading features."""
    method = czslkit.build("csp", label_space(), backbone=f"{backbone}/random").train()
    reader = ImageReader(ImageSet(split, method.backbone.preprocessing), workers=CORES)

    def read(order: torch.Tensor) -> Iterator[czslkit.Batch]:
        parts = order.split(BATCH)
        for index, pixels in zip(parts, reader.batches(parts), strict=True):
            yield czslkit.Batch(pixels, split.attr[index], split.obj[index])

    encoding = epoch(method, split, read)
    cache = czslkit.Cache(folder / "cache")
    writing = epoch(method, split, czslkit.Feed(method, split, BATCH, workers=CORES, cache=cache).batches)
    feed = czslkit.Feed(method, split, BATCH, workers=CORES, cache=cache)
    opening, *further = (epoch(method, split, feed.batches) for _ in range(4))
    difference = max(abs(a - b) for a, b in zip(encoding.losses, further[0].losses, strict=True))
    cached = median(each.seconds for each in further)
    times = [f"{seconds:.1f}" for seconds in (encoding.seconds, writing.seconds, opening.seconds, cached)]
    return [backbone, str(len(split)), *times, f"{encoding.seconds / cached:.1f}", f"{difference:.1g}"]


def machine() -> str:
    """Return processor, versions and load in one line."""
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
    parser.add_argument("--images", type=int, default=512, metavar="N", help="number of images to read (default: 512)")
    default = HERE / "reading_speed.md"
    parser.add_argument("--out", type=Path, default=default, metavar="FILE", help=f"page to write (default: {default})")
    args = parser.parse_args()
    torch.set_num_threads(CORES)
    described = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = write_photographs(folder / "images", label_space(), args.images)
        kilobytes = sum(path.stat().st_size for path in split.paths) / len(split) / 1000
        rates = reading(folder, split)
        epochs = [
            training(folder, Split("train", split.paths[:n], split.attr[:n], split.obj[:n], split.pairs), encoder)
            for n, encoder in ((4 * BATCH, "ViT-B-32"), (BATCH, "ViT-L-14"))
        ]
    args.out.write_text(PAGE.format(
        machine=described, images=len(split), kilobytes=kilobytes, rounds=ROUNDS, cores=CORES, batch=BATCH, pairs=PAIRS,
        reading=tabulate(rates, ("", "images/s, median", "range", "x plain loader"), "github", disable_numparse=True),
        training=tabulate(epochs, TIMES, "github", disable_numparse=True),
    ))  # fmt: skip
    print(args.out.read_text())


TIMES = (
    "encoder", "images", "re-encoding, s", "writing features, s", "opening features, s", "further epoch, s",
    "re-encoding / further epoch", "largest difference of a loss",
)  # fmt: skip
PAGE = """# How fast images are read

This page is written by `python benchmarks/reading_speed.py`.
{machine}.

## Reading

{images} JPEGs of 500 x 375 pixels and {kilobytes:.0f} kB on average are read as batches of {batch} normalised images of
224 pixels, with {cores} worker processes. Each way of reading passes {rounds} times over all images, in turns.
The plain loader starts its workers in every pass, czslkit in the first one only. All files are in the page cache. The
plain loader is torchvision's `ImageFolder` with `Resize`, `CenterCrop`, `ToTensor` and `Normalize`, which gives the
same tensors. Features are read in the training process, without workers.

{reading}

## An epoch of CSP

The times are of complete epochs with text encoder and optimiser, in batches of {batch} images and with {pairs} training
pairs, as on UT-Zappos, without augmentation. The encoders are those of CLIP with random weights, in fp32 on the CPU.
"Opening features" is the first epoch of another training. It checks with the weights and a picture of noise that the
features come from this encoder; the time of this check does not depend on the number of images.

{training}

With cached features, an epoch of CSP runs only the text encoder. The time of a batch grows with the number of pairs,
not with the number of images. So the ratio is larger for larger batches and image encoders, and smaller for the 1,262
training pairs of MIT-States and the 5,592 training pairs of C-GQA.
"""

if __name__ == "__main__":
    main()
