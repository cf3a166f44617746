"""Measure training steps and scoring on one thread of a CPU against the authors' way.

    python benchmarks/cpu_speed.py            # prints a table after some minutes

Every row is the same work on the same random weights in one process. Before the measurement, both ways must give the
same loss or the same scores. Then our way and the authors' way (``authors_way.py``) take turns, and the smallest time
of each counts.

The floor is the time that the matrix products of our way would take at the rate at which the processor multiplies two
large matrices in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from authors_way import AuthorsWay
from tabulate import tabulate
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

import czslkit
from czslkit.linear import linear
from czslkit.method import Method
from czslkit.types import Batch, PairSpace

MIT_STATES = {"attrs": 115, "objs": 245, "seen": 1_262, "pairs": 1_962}
UT_ZAPPOS = {"attrs": 16, "objs": 12, "seen": 83, "pairs": 116}
SIDE = 2_048  # side of the square matrices whose product measures the rate of the processor


@register_flop_formula(torch.ops.czslkit.onednn_linear)
def linear_operations(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    """Return the floating-point operations of ``linear`` for the shapes of its arguments."""
    return 2 * prod(x) * weight[0]


@dataclass(frozen=True)
class Work:
    """One row of the table: a method with the sizes of a dataset, and a batch of images."""

    kind: str  # "train step" or "scoring"
    method: str
    clip: str
    dataset: str
    sizes: dict[str, int]
    images: int
    options: Mapping[str, Any] = field(default_factory=dict)  # other options of the method


ROWS = (
    Work("train step", "msci", "ViT-L-14-quickgelu", "MIT-States", MIT_STATES, 4),
    Work("train step", "troika", "ViT-L-14-quickgelu", "MIT-States", MIT_STATES, 4),
    Work("train step", "csp", "ViT-L-14-quickgelu", "MIT-States", MIT_STATES, 4),
    Work("scoring", "msci", "ViT-L-14-quickgelu", "MIT-States", MIT_STATES, 4),
    Work("train step", "msci", "ViT-B-32-quickgelu", "UT-Zappos", UT_ZAPPOS, 16, {"heads": (8, 8)}),
)


def label_space(sizes: dict[str, int]) -> PairSpace:
    """Return a label space of the sizes of a dataset; the first pairs are seen."""
    grid = torch.cartesian_prod(torch.arange(sizes["attrs"]), torch.arange(sizes["objs"]))
    chosen = torch.randperm(len(grid), generator=torch.Generator().manual_seed(0))[: sizes["pairs"]]
    attrs, objs = (tuple(f"{kind}{i}" for i in range(sizes[f"{kind}s"])) for kind in ("attr", "obj"))
    return PairSpace(attrs, objs, grid[chosen], torch.arange(sizes["pairs"]) < sizes["seen"])


def both_ways(work: Work, method: Method, space: PairSpace) -> dict[str, Callable[[], Tensor]]:
    """Return the work in our way and in the authors' way; each returns its loss or its scores."""
    authors = AuthorsWay(method)
    pairs = space.pairs if work.kind == "scoring" else space.pairs[space.seen]
    target = pairs[torch.arange(work.images) * (len(pairs) // work.images)]
    images = torch.randn(work.images, 3, 224, 224)
    batch = Batch(images, *target.T)

    def step(loss: Callable[[Batch, Tensor], Any]) -> Tensor:
        found: Tensor = loss(batch, pairs)
        found.backward()
        method.zero_grad(set_to_none=True)
        return found.detach()

    if work.kind == "train step":
        return {"ours": lambda: step(method.loss), "authors": lambda: step(authors.loss)}
    with torch.no_grad():  # texts are encoded once for all images
        text, texts = method.text(pairs), authors.texts(pairs)
    return {
        "ours": torch.no_grad()(lambda: method(images, text).pair),
        "authors": torch.no_grad()(lambda: authors.logits(images, texts)[0]),
    }


def measure(work: Work, rounds: int, rate: float) -> dict[str, str]:
    """Return a row of the table.

    Args:
        rounds: number of turns of each way.
        rate: floating-point operations per second of a large matrix product.
    """
    torch.manual_seed(0)
    space = label_space(work.sizes)
    method = czslkit.build(work.method, space, backbone=f"{work.clip}/random", **work.options)
    method.eval()  # without dropout, both ways compute the same numbers
    ways = both_ways(work, method, space)
    torch.testing.assert_close(ways["ours"](), ways["authors"](), rtol=1e-3, atol=1e-3)
    with FlopCounterMode(display=False) as operations:
        ways["ours"]()
    method.train(work.kind == "train step")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(seconds(way))
    ours, authors = min(times["ours"]), min(times["authors"])
    pairs = work.sizes["pairs" if work.kind == "scoring" else "seen"]
    return {
        "work": f"{work.kind}, {work.method}, {work.images} images, {pairs:,} pairs",
        "CLIP": work.clip.removesuffix("-quickgelu"),
        "authors' way, s": f"{authors:.2f}",
        "ours, s": f"{ours:.2f}",
        "ratio": f"{authors / ours:.2f}",
        "floor, s": f"{operations.get_total_flops() / rate:.2f}",
    }


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def product_rate() -> float:
    """Return the floating-point operations per second of a product of two large matrices."""
    left, right = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    return 2 * SIDE**3 / min(seconds(lambda: linear(left, right)) for _ in range(5))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way (default: 3)")
    parser.add_argument("--rows", default="", help="run only rows whose work contains this text (default: all)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rate = product_rate()
    print(f"torch {torch.__version__}, one thread, {rate / 1e9:.0f} GFLOP/s in products of {SIDE} x {SIDE} matrices\n")
    chosen = [work for work in ROWS if args.rows in f"{work.kind}, {work.method}, {work.clip}"]
    print(tabulate([measure(work, args.rounds, rate) for work in chosen], headers="keys", tablefmt="github"))


if __name__ == "__main__":
    main()
