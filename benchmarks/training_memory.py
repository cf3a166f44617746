"""Count what training steps take at the sizes of the published datasets, and what fits into which card.

    python benchmarks/training_memory.py --out benchmarks/training_memory.md    # some minutes, no GPU

Nothing is computed: the steps of a ViT-L/14 with random weights are counted with tensors that have shapes and no
values, as ``train.memory`` counts them before a training. So the page does not depend on the speed of the machine.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tabulate import tabulate

import czslkit
from czslkit.data.batches import Feed
from czslkit.data.splits import Split
from czslkit.errors import TrainingError
from czslkit.recompute import NOTHING
from czslkit.training.memory import plan_step
from czslkit.training.options import TrainOptions
from czslkit.training.step_count import StepCounter
from czslkit.training_hooks import TrainingData
from czslkit.types import PairSpace

CARDS = (80, 48, 24, 16, 12)  # GB


@dataclass(frozen=True)
class Step:
    """A step of a method with the sizes of a dataset: attributes, objects and training pairs."""

    method: str
    dataset: str
    sizes: tuple[int, int, int]
    images: int
    precisions: tuple[str, ...] = ("fp32", "bf16")
    clip: str = "ViT-L-14-quickgelu/random"


MIT_STATES, CGQA = (115, 245, 1_262), (413, 674, 5_592)
STEPS = (
    Step("msci", "MIT-States", MIT_STATES, 64),
    Step("msci", "C-GQA", CGQA, 48),
    Step("csp", "MIT-States", MIT_STATES, 64, ("fp32",)),
)
TINY = (Step("msci", "MIT-States", (11, 12, 60), 8, clip="demo"),)


def counter(step: Step, precision: str) -> StepCounter:
    """Return the counter of a step; its images have labels and no files."""
    attrs, objs, pairs = step.sizes
    grid = torch.cartesian_prod(torch.arange(attrs), torch.arange(objs))
    chosen = grid[torch.randperm(len(grid), generator=torch.Generator().manual_seed(0))[:pairs]]
    words = [tuple(f"{kind}{i}" for i in range(n)) for kind, n in (("attr", attrs), ("obj", objs))]
    space = PairSpace(words[0], words[1], chosen, torch.ones(pairs, dtype=torch.bool))
    heads = {"heads": (4, 4), "low_layers": 2, "high_layers": 2} if step.clip == "demo" else {}
    method = czslkit.build(step.method, space, backbone=step.clip, **heads).train()
    shown = chosen[torch.arange(step.images) % pairs]
    split = Split("train", tuple(Path(str(i)) for i in range(step.images)), shown[:, 0], shown[:, 1], chosen)
    options = TrainOptions(batch_size=step.images, precision=precision)  # type: ignore[arg-type]
    data = TrainingData(step.dataset, Path(), space, split.paths, split.attr, split.obj)
    return StepCounter(method, Feed(method, split, step.images, augment=True), options, data)


def rows(step: Step, precision: str, cards: tuple[float, ...]) -> list[list[str]]:
    """Return the rows of a step: without a limit, and for each card that is smaller than what it takes."""
    counted = counter(step, precision)
    start = [step.method, f"{step.dataset}, {step.images} images", precision]
    plain = counted.count(NOTHING)
    found = [[*start, "no limit", f"{plain.bytes / 1e9:.1f} GB", "nothing", f"{plain.operations / 1e12:.1f} T", ""]]
    for card in (card for card in cards if card * 10**9 < plain.bytes):
        began = time.monotonic()
        try:
            plan = plan_step(counted, int(card * 10**9))
        except TrainingError as error:
            least = str(error).split(" at the least")[0].split("takes ")[1]
            found.append([*start, f"{card:g} GB", least, "all: does not fit"])
            continue
        print(f"{step.method} {step.dataset} {precision} {card:g} GB: {time.monotonic() - began:.0f} s", flush=True)
        operations = [f"{plan.step.operations / 1e12:.1f} T", f"+{plan.more_operations:.0%}"]
        found.append([*start, f"{card:g} GB", f"{plan.step.bytes / 1e9:.1f} GB", f"{plan.recomputation}", *operations])
    return found


def main() -> None:
    """Count all steps and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the page; without it, the table is printed")
    parser.add_argument("--tiny", action="store_true", help="count one small step, to try the program")
    args = parser.parse_args()
    found = []
    for step in TINY if args.tiny else STEPS:
        for precision in step.precisions:
            found += rows(step, precision, (0.2, 0.1) if args.tiny else CARDS)
    header = ["method", "step", "precision", "train.memory", "takes", "recomputed", "operations", "more"]
    table = tabulate(found, header, tablefmt="github", disable_numparse=True)
    if args.out is None:
        print(table)
        return
    args.out.write_text(f"""# Memory of training steps

Made by `training_memory.py`, which counts steps and computes nothing, so the numbers do not depend on the speed of
a machine. A step is the loss and the gradients of a batch against all training pairs with CLIP ViT-L/14. Its memory
is that of the weights, the images, the gradients, the numbers of Adam, and all that is kept for the gradients.
`train.memory` is the memory given, and operations are those of matrix products. What is counted are the kernels of
the CPU; the fused attention of GPUs may keep less. Workspaces of a GPU's libraries are not counted.

{table}
""")


if __name__ == "__main__":
    main()
