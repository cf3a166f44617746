"""Measure time and memory of an evaluation of the size of MIT-States (closed world) and C-GQA (open world).

    python benchmarks/evaluation_speed.py            # prints a table after a few minutes

Scores are random. Each row is measured in its own process. Its memory is the peak of this process, minus the memory
before the first score (for MIT-States: before the first metric, since the scores exist already). For comparison, some
rows repeat the algorithm of the field's usual evaluator in simple numpy: it uses the whole matrix for every bias.
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
FEW_IMAGES = 128  # images of C-GQA in the row that uses the whole matrix for every bias
PAIR_CHUNK = 4_096  # pairs that are scored at a time


def random_task(sizes: dict[str, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return pairs ``[K, 2]``, whether each pair is seen ``[K]``, and the index of each image's true pair ``[N]``."""
    generator = torch.Generator().manual_seed(0)
    all_pairs = torch.tensor(list(product(range(sizes["attrs"]), range(sizes["objs"]))))
    pairs = all_pairs[torch.randperm(len(all_pairs), generator=generator)[: sizes["pairs"]]]
    seen = torch.arange(len(pairs)) < sizes["seen"]
    shown = min(2 * sizes["seen"], len(pairs))  # the images show equal numbers of unseen and seen pairs
    return pairs, seen, torch.randint(shown, (sizes["images"],), generator=generator)


def random_scores(target: torch.Tensor, columns: torch.Tensor, seed: int) -> torch.Tensor:
    """Return random scores ``[N, k]`` of some pairs; the score of an image's true pair is higher than most."""
    scores = torch.randn(len(target), len(columns), generator=torch.Generator().manual_seed(seed))
    return scores.add_(3.0 * (columns == target[:, None]))


def every_bias(scores: np.ndarray, target: np.ndarray, seen: np.ndarray) -> float:
    """Return the AUC of the original curve of about 20 biases; each bias is added to the whole matrix of scores."""
    is_seen = seen[target]
    true_scores = scores[np.arange(len(target)), target]
    unseen_right = ~is_seen & (np.where(seen, -1e10, scores).argmax(1) == target)
    gaps = np.sort((scores[:, seen].max(1) - true_scores)[unseen_right]) - 1e-4
    biases = gaps[:: max(len(gaps) // 20, 1)]
    curve = []
    for bias in [*biases, None]:
        shifted = scores + (bias if bias is not None else 1e3) * ~seen
        hit = shifted.argmax(1) == target
        curve.append((hit[is_seen].mean(), hit[~is_seen].mean()))
    seen_accuracy, unseen_accuracy = np.array(curve).T
    return float(np.trapezoid(seen_accuracy, unseen_accuracy))


def mit_states() -> dict[str, float]:
    """Measure both curves of the closed world of MIT-States with ``Sweep``."""
    pairs, seen, target = random_task(MIT_STATES)
    scores = random_scores(target, torch.arange(len(pairs)), 1)

    def both_curves() -> None:
        sweep = Sweep(pairs, seen)
        sweep.update(scores, *pairs[target].T)
        assert sweep.compute_all("original")[0].auc > 0 and sweep.compute_all("exact")[0].auc > 0

    return measured(both_curves, MIT_STATES["images"])


def mit_states_every_bias() -> dict[str, float]:
    """Measure the same task with ``every_bias``."""
    pairs, seen, target = random_task(MIT_STATES)
    scores = random_scores(target, torch.arange(len(pairs)), 1).numpy()
    return measured(lambda: every_bias(scores, target.numpy(), seen.numpy()), MIT_STATES["images"])


def cgqa(thresholds: int) -> dict[str, float]:
    """Measure the open world of C-GQA with ``Sweep``, for this many feasibility thresholds; 0 means no threshold."""
    pairs, seen, target = random_task(CGQA)
    feasibility = torch.rand(len(pairs), generator=torch.Generator().manual_seed(2))
    score_seconds = 0.0

    def search() -> None:
        nonlocal score_seconds
        grid = threshold_grid(feasibility, seen, thresholds) if thresholds else None
        sweep = Sweep(pairs, seen, feasibility=feasibility if thresholds else None, thresholds=grid)
        for number, columns in enumerate(torch.arange(len(pairs)).split(PAIR_CHUNK)):
            start = time.perf_counter()
            scores = random_scores(target, columns, number)
            score_seconds += time.perf_counter() - start
            sweep.update(scores, *pairs[target].T, columns=columns)
        assert max(found.auc for found in sweep.compute_all("original")) > 0

    found = measured(search, CGQA["images"])
    return found | {"s for random scores": score_seconds}


def cgqa_every_bias() -> dict[str, float]:
    """Measure a few images of the same task with ``every_bias``."""
    pairs, seen, target = random_task(CGQA | {"images": FEW_IMAGES})
    scores = random_scores(target, torch.arange(len(pairs)), 1).numpy()
    return measured(lambda: every_bias(scores, target.numpy(), seen.numpy()), FEW_IMAGES)


CASES: dict[str, Callable[[], dict[str, float]]] = {
    "MIT-States closed, one pass, both curves": mit_states,
    "MIT-States closed, whole matrix for every bias": mit_states_every_bias,
    "C-GQA open, streamed, no threshold": lambda: cgqa(0),
    "C-GQA open, streamed, 50 thresholds": lambda: cgqa(50),
    f"C-GQA open, whole matrix for every bias, {FEW_IMAGES} images, no threshold": cgqa_every_bias,
}


def measured(run: Callable[[], object], images: int) -> dict[str, float]:
    """Return the seconds and the peak memory of a call."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current memory
    before, start = _peak_megabytes(), time.perf_counter()
    run()
    seconds, peak = time.perf_counter() - start, _peak_megabytes()
    return {"s": seconds, "ms per image": 1000 * seconds / images, "added MB": peak - before, "total MB": peak}


def _peak_megabytes() -> float:
    """Return the peak memory of this process, on Linux."""
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
