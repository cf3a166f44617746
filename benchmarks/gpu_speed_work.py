"""The work that ``gpu_speed.py`` measures, in the authors' way and in ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from authors_way import AuthorsWay
from cpu_speed import MIT_STATES, label_space
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import czslkit
from czslkit.data.batches import Feed
from czslkit.data.splits import Split, Splits
from czslkit.evaluation.evaluator import Evaluation
from czslkit.learned_state import learned_state, load_learned
from czslkit.precision import Precision, computing_in, tf32
from czslkit.runner.recipes import load_recipe, recipes
from czslkit.training.epoch import Trainer
from czslkit.training.memory import StepMemory
from czslkit.training.optimizers import make_optimizers
from czslkit.training.options import TrainOptions
from czslkit.types import Batch, PairSpace

CGQA = {"attrs": 413, "objs": 674, "seen": 5_592, "pairs": 6_963}
#: Steps of a training before its time is taken, and steps that are timed.
WARM_UP, STEPS = 2, 5
DISTINCT = 64  # random images; those of a training are repeated
CHECKED = 4  # images whose losses and gradients are compared before the measurement
KEPT = 5  # best scores of each image that are compared


class Way(NamedTuple):
    """A way of computing."""

    whose: str  # "authors" or "ours"
    precision: Precision


@dataclass(frozen=True)
class Work:
    """A method with the sizes of a dataset, and what it does."""

    kind: str  # "train step" or "open-world scoring"
    method: str
    dataset: str  # folder of the recipe with the options of the method
    sizes: dict[str, int] = field(hash=False)
    images: int  # images of a training step, or images that are scored
    backbone: str = "ViT-L-14-quickgelu/random"

    @property
    def pairs(self) -> int:
        """The number of candidates."""
        return self.sizes["seen"] if self.kind == "train step" else self.sizes["attrs"] * self.sizes["objs"]

    def shares_method(self, other: Work) -> bool:
        """Return whether both have the same method with the same options and sizes."""
        return (self.method, self.dataset, self.sizes) == (other.method, other.dataset, other.sizes)

    def __str__(self) -> str:
        return f"{self.kind}, {self.method}, {self.images} images, {self.pairs:,} pairs"


def works() -> list[Work]:
    """Return the rows of the table, the most important first; consecutive works may share a method."""
    mit, cgqa = ("mit-states", MIT_STATES), ("cgqa", CGQA)
    return [
        *(Work(kind, "msci", *mit, 64) for kind in ("train step", "open-world scoring")),
        Work("train step", "troika", *mit, 64),
        Work("train step", "csp", *mit, 64),
        Work("open-world scoring", "msci", *cgqa, 16),
        Work("open-world scoring", "csp", *mit, 64),
        Work("open-world scoring", "csp", *cgqa, 16),
        Work("open-world scoring", "troika", *mit, 64),
        Work("open-world scoring", "troika", *cgqa, 16),
    ]


def tiny_works() -> list[Work]:
    """Return the same works with the demo CLIP, a few images and a little more than 1,024 pairs in the open world."""
    sizes = {"attrs": 32, "objs": 33, "seen": 12, "pairs": 20}
    images = {"mit-states": 4, "cgqa": 3}
    return [Work(work.kind, work.method, work.dataset, sizes, images[work.dataset], "demo") for work in works()]


@dataclass(frozen=True)
class Run:
    """What was measured in one run."""

    seconds: float  # for a training step, or for an image that is scored
    text_seconds: float | None  # for the texts of all pairs; None in a training
    operations: float  # floating-point operations in ``seconds``; 0 if they were not counted
    result: Tensor | None = field(repr=False, default=None)  # best scores of the images


class Stopwatch:
    """Times of a device, and numbers of floating-point operations; a mark does not wait for the device."""

    def __init__(self, device: torch.device, counter: FlopCounterMode | None) -> None:
        self.device, self.counter = device, counter
        self.marks: list[tuple[Any, int]] = []

    def mark(self) -> int:
        """Return the number of a new mark."""
        now: Any = time.perf_counter()
        if self.device.type == "cuda":
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        self.marks.append((now, self.counter.get_total_flops() if self.counter else 0))
        return len(self.marks) - 1

    def seconds(self, start: int, end: int) -> float:
        """Return the seconds between two marks, after the device has reached the second."""
        first, last = self.marks[start][0], self.marks[end][0]
        if self.device.type == "cuda":
            last.synchronize()
            return float(first.elapsed_time(last)) / 1000
        return float(last - first)

    def operations(self, start: int, end: int) -> int:
        """Return the floating-point operations between two marks."""
        return self.marks[end][1] - self.marks[start][1]


class SyntheticFeed(Feed):
    """Batches of random images that are on the device already.

    Args:
        method, split, batch_size: see ``Feed``.
        watch: gets a mark whenever a batch is asked for, and one after the last batch.
        precision: number format of what is computed.
    """

    def __init__(self, method: Any, split: Split, batch_size: int, watch: Stopwatch, precision: Precision) -> None:
        super().__init__(
            method, split, batch_size, augment=True, precision=precision
        )  # augmented images are encoded in every pass
        side, images, device = method.backbone.image_size, min(len(split), DISTINCT), method.device
        self.pixels = torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(1)).to(device)
        self.labels = torch.stack((split.attr, split.obj)).to(device)
        self.watch, self.passes = watch, list[list[int]]()  # marks of every pass over the images

    def batches(
        self, order: Any = None, epoch: int = 0, size: Any = None, companions: Any = None, part: Any = None
    ) -> Iterator[Batch]:
        order = torch.arange(len(self.split)) if order is None else order
        marks: list[int] = []
        self.passes.append(marks)
        for index in order.to(self.labels.device).split(size or self.batch_size):
            marks.append(self.watch.mark())
            attr, obj = self.labels[:, index]
            yield Batch(self.pixels[index % len(self.pixels)], attr, obj, index)
        marks.append(self.watch.mark())


class Task:
    """A work with its method on a device, and its labels.

    Args:
        work: the work.
        method: a method of another work with the same method and sizes; by default it is built.
        device: the device to measure.
    """

    def __init__(self, work: Work, device: torch.device, method: Any = None) -> None:
        self.work, self.space = work, label_space(work.sizes)
        self.method: Any = method or built(work, self.space).to(device)
        self.learned = {name: value.cpu().clone() for name, value in learned_state(self.method).items()}
        self.authors, self.memories = AuthorsWay(self.method), dict[Precision, StepMemory]()
        self.images = work.images if work.kind != "train step" else work.images * (WARM_UP + STEPS)
        pairs = self.space.pairs[self.space.seen] if work.kind == "train step" else self.space.pairs
        shown = pairs[torch.arange(self.images) % len(pairs)]
        split = Split("test", (Path("random"),) * self.images, shown[:, 0], shown[:, 1], pairs)
        self.data = Splits("random", Path(), self.space, split, split, split, "", 0)

    def run(self, way: Way, batch_size: int, *, count: bool = False) -> Run:
        """Return what is measured in one way.

        Args:
            way: the way.
            batch_size: images of a step, or images that are scored at a time.
            count: count operations, which takes time.
        """
        counter = FlopCounterMode(display=False) if count else None
        watch = Stopwatch(self.method.device, counter)
        feed = SyntheticFeed(self.method, self.data.test, batch_size, watch, way.precision)
        work = {
            ("train step", "authors"): self._train_authors,
            ("train step", "ours"): self._train_ours,
            ("open-world scoring", "authors"): self._score_authors,
            ("open-world scoring", "ours"): self._score_ours,
        }[self.work.kind, way.whose]
        if way.whose == "ours" and self.work.kind == "train step":
            self._step_memory(feed)  # outside of the counter
        with tf32(False, self.method.device), counter or nullcontext():
            return work(feed)

    def loss_and_gradient(self, way: Way) -> Tensor:
        """Return the loss of a few images without dropout, and its gradient, in one vector."""
        images = min(CHECKED, self.work.images)
        device = self.method.device
        feed = SyntheticFeed(self.method, self.data.train, images, Stopwatch(device, None), way.precision)
        batch, pairs = next(feed.batches()), self.data.train.pairs.to(device)
        self.method.eval()
        with tf32(way.precision == "tf32", device):
            with computing_in(way.precision, device):
                loss = (self.authors if way.whose == "authors" else self.method).loss(batch, pairs)
            loss.backward()
        gradients = [p.grad.flatten() for p in self.method.parameters() if p.grad is not None]
        self.method.zero_grad(set_to_none=True)
        return torch.cat([loss.detach().view(1), *gradients]).float().cpu()

    def _train_authors(self, feed: SyntheticFeed) -> Run:
        method, pairs, total = self.method.train(), feed.split.pairs.to(self.method.device), 0.0
        optimizer = torch.optim.Adam(method.parameters(), lr=1e-4, weight_decay=1e-5)
        for batch in feed.batches():
            loss = self.authors.loss(batch, pairs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        return self._trained(feed)

    def _step_memory(self, feed: SyntheticFeed) -> StepMemory:
        """Return what plans the memory of steps in a precision; it counts a step in its first call, before any time."""
        if feed.precision not in self.memories:
            memory = StepMemory(self.method.train(), feed, _options(feed), self.data.training_data(), lambda line: None)
            memory.recomputation()
            self.memories[feed.precision] = memory
        return self.memories[feed.precision]

    def _train_ours(self, feed: SyntheticFeed) -> Run:
        optimizers, data = make_optimizers(self.method, _options(feed)), self.data.training_data()
        Trainer(self.method, feed, _options(feed), data, optimizers, 0, self._step_memory(feed)).run(0)
        return self._trained(feed)

    def _trained(self, feed: SyntheticFeed) -> Run:
        """Return the time of a step after the first ones, and restore the weights."""
        marks, watch = feed.passes[0], feed.watch
        self.method.zero_grad(set_to_none=True)
        load_learned(self.method, self.learned)
        start, end, steps = marks[WARM_UP], marks[-1], len(marks) - 1 - WARM_UP
        return Run(watch.seconds(start, end) / steps, None, watch.operations(start, end) / steps)

    @torch.no_grad()
    def _score_authors(self, feed: SyntheticFeed) -> Run:
        self.method.eval()
        space = self.space.open()
        pairs = space.pairs.to(self.method.device)
        start, scores = feed.watch.mark(), []
        texts = self.authors.all_texts(pairs)
        for batch in feed.batches():
            assert isinstance(batch.images, Tensor)
            scores.append(self.authors.scores(batch.images, texts, pairs))
        return self._scored(feed, start, torch.cat(scores))

    def _score_ours(self, feed: SyntheticFeed) -> Run:
        evaluation = Evaluation.plan(self.method, self.data, "test", ["open"], feed, keep=KEPT)
        start = feed.watch.mark()
        return self._scored(feed, start, evaluation.run()["open"])

    def _scored(self, feed: SyntheticFeed, start: int, found: Tensor | czslkit.Sweep) -> Run:
        """Return the time of an image, that of the texts, and the best scores.

        Args:
            start: the mark before the texts.
            found: all scores, ``[N, A * O]``, or the sweep that got them.
        """
        watch = feed.watch
        end, spans = watch.mark(), [(marks[0], marks[-1]) for marks in feed.passes]
        if isinstance(found, Tensor):
            space = self.space.open()
            sweep = czslkit.Sweep(space.pairs, space.seen, keep=KEPT)
            sweep.update(found, feed.split.attr, feed.split.obj)
            found = sweep
        top = found.top_scores()[0]
        best = torch.cat((top.true_score[:, None], top.seen.score, top.unseen.score, top.top.score), 1)
        seconds = sum(watch.seconds(*span) for span in spans)
        operations = sum(watch.operations(*span) for span in spans)
        return Run(seconds / self.images, watch.seconds(start, end) - seconds, operations / self.images, best.cpu())


def _options(feed: SyntheticFeed) -> TrainOptions:
    return TrainOptions(epochs=1, batch_size=feed.batch_size, augment=False, precision=feed.precision)


def built(work: Work, space: PairSpace) -> Any:
    """Return the method of a work with the options of its recipe and random weights, on the CPU."""
    torch.manual_seed(0)
    options = load_recipe(recipes(work.dataset, work.method)[0])["options"]
    return czslkit.build(work.method, space, **options | {"backbone": work.backbone})


def matmul_rate(precision: Precision, side: int, device: torch.device) -> float:
    """Return the floating-point operations per second of a product of two ``side`` x ``side`` matrices."""
    left, right = torch.randn(2, side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else None)
    watch, products = Stopwatch(device, None), 5
    with tf32(precision == "tf32", device):
        marks = [watch.mark()]
        for _ in range(4):
            for _ in range(products):
                left @ right
            marks.append(watch.mark())
    seconds = min(watch.seconds(start, end) for start, end in pairwise(marks[1:]))
    return 2 * side**3 * products / seconds
