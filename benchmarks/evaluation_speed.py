"""Time and memory of the evaluation at the size of MIT-States' closed world and of C-GQA's open world.

    python benchmarks/evaluation_speed.py            # prints a table, a few minutes

Scores are random; each row is a process of its own, and its memory is what that process took at its peak beyond what it
had before the first score (MIT-States: before the first metric, with the scores there). Beside ours stands what the
field's evaluator does, rewritten in numpy in its simplest form: the whole matrix of scores again for every bias.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from czslkit import Sweep
from czslkit.metrics.feasibility import threshold_grid

MIT_STATES = {"attrs": 115, "objs": 245, "pairs": 1_962, "seen": 1_262, "images": 12_995}
CGQA = {"attrs": 413, "objs": 674, "pairs": 413 * 674, "seen": 5_592, "images": 5_098}
SOME = 128  # images of C-GQA for which every bias is tried on the whole matrix
CHUNK = 4_096  # pairs at a time


def space(sizes: dict[str, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pairs ``[K, 2]``, whether each is seen ``[K]`` and the column that each image shows ``[N]``."""
    generator = torch.Generator().manual_seed(0)
    all_pairs = torch.tensor(list(product(range(sizes["attrs"]), range(sizes["objs"]))))
    pairs = all_pairs[torch.randperm(len(all_pairs), generator=generator)[: sizes["pairs"]]]
    seen = torch.arange(len(pairs)) < sizes["seen"]
    shown = 2 * sizes["seen"]  # as many unseen pairs as seen ones are shown
    return pairs, seen, torch.randint(min(shown, len(pairs)), (sizes["images"],), generator=generator)


def drawn(target: torch.Tensor, columns: torch.Tensor, seed: int) -> torch.Tensor:
    """Scores ``[N, k]`` of some columns; that of the true one is higher than most."""
    scores = torch.randn(len(target), len(columns), generator=torch.Generator().manual_seed(seed))
    return scores.add_(3.0 * (columns == target[:, None]))


def every_bias(scores: np.ndarray, target: np.ndarray, seen: np.ndarray) -> float:
    """AUC by the original's about 20 biases, each tried on the whole matrix."""
    of_seen = seen[target]
    own = scores[np.arange(len(target)), target]
    right = ~of_seen & (np.where(seen, -1e10, scores).argmax(1) == target)
    gaps = np.sort((scores[:, seen].max(1) - own)[right]) - 1e-4
    biases = gaps[:: max(len(gaps) // 20, 1)]
    curve = []
    for bias in [*biases, None]:
        shifted = scores + (bias if bias is not None else 1e3) * ~seen
        hit = shifted.argmax(1) == target
        curve.append((hit[of_seen].mean(), hit[~of_seen].mean()))
    seen_accuracy, unseen_accuracy = np.array(curve).T
    return float(np.trapezoid(seen_accuracy, unseen_accuracy))


def mit_states() -> dict[str, float]:
    pairs, seen, target = space(MIT_STATES)
    scores = drawn(target, torch.arange(len(pairs)), 1)

    def both_curves() -> None:
        sweep = Sweep(pairs, seen)
        sweep.update(scores, *pairs[target].T)
        assert sweep.compute_all("original")[0].auc > 0 and sweep.compute_all("exact")[0].auc > 0

    return measured(both_curves, MIT_STATES["images"])


def mit_states_every_bias() -> dict[str, float]:
    pairs, seen, target = space(MIT_STATES)
    scores = drawn(target, torch.arange(len(pairs)), 1).numpy()
    return measured(lambda: every_bias(scores, target.numpy(), seen.numpy()), MIT_STATES["images"])


def cgqa(thresholds: int) -> dict[str, float]:
    pairs, seen, target = space(CGQA)
    feasibility = torch.rand(len(pairs), generator=torch.Generator().manual_seed(2))
    drawing = 0.0

    def search() -> None:
        nonlocal drawing
        grid = threshold_grid(feasibility, seen, thresholds) if thresholds else None
        sweep = Sweep(pairs, seen, feasibility=feasibility if thresholds else None, thresholds=grid)
        for number, columns in enumerate(torch.arange(len(pairs)).split(CHUNK)):
            start = time.perf_counter()
            scores = drawn(target, columns, number)
            drawing += time.perf_counter() - start
            sweep.update(scores, *pairs[target].T, columns=columns)
        assert max(found.auc for found in sweep.compute_all("original")) > 0

    found = measured(search, CGQA["images"])
    return found | {"of which drawing scores, s": drawing}


def cgqa_every_bias() -> dict[str, float]:
    pairs, seen, target = space(CGQA | {"images": SOME})
    scores = drawn(target, torch.arange(len(pairs)), 1).numpy()
    return measured(lambda: every_bias(scores, target.numpy(), seen.numpy()), SOME)


CASES: dict[str, Callable[[], dict[str, float]]] = {
    "MIT-States closed, one pass, both curves": mit_states,
    "MIT-States closed, whole matrix for every bias": mit_states_every_bias,
    "C-GQA open, streamed, no threshold": lambda: cgqa(0),
    "C-GQA open, streamed, 50 thresholds": lambda: cgqa(50),
    f"C-GQA open, whole matrix for every bias, {SOME} images, no threshold": cgqa_every_bias,
}


def measured(do: Callable[[], object], images: int) -> dict[str, float]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is taken
    before, start = _peak(), time.perf_counter()
    do()
    seconds = time.perf_counter() - start
    return {"s": seconds, "ms an image": 1000 * seconds / images, "MB on top": _peak() - before, "MB in all": _peak()}


def _peak() -> float:
    """Megabytes that this process took at its peak, on Linux."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    case = parser.parse_args().case
    torch.set_num_threads(2)
    if case:
        print(json.dumps(CASES[case]()))
        return
    rows = []
    for name in CASES:
        found = subprocess.run([sys.executable, __file__, "--case", name], capture_output=True, text=True, check=True)
        rows.append({"": name, **json.loads(found.stdout)})
        print(name, found.stdout, end="", file=sys.stderr)
    print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3g"))


if __name__ == "__main__":
    main()
