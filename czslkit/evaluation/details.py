"""What lies behind the numbers of one evaluation: curves, images, words, and what is taken for what."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..metrics.curves import Bins, Standings, duels, hits, last_point, predicted
from ..metrics.metrics import Metrics
from ..metrics.outcomes import Outcomes
from ..metrics.sweep import Sweep
from ..types import PairSpace

FORMAT = 1
TOP = (1, 3, 5)  # how many guesses an image gets
CONFUSED = 20  # pairs of pairs that are named


def files(sweep: Sweep, space: PairSpace, bins: Bins) -> dict[str, bytes]:
    """Everything of the first (or only) set of candidates, as files by the ends of their names.

    Args:
        sweep: whose ``keep`` is at least the largest of ``TOP``, or the shares of more guesses are left out.
        space: the words that the pairs of the sweep are made of.
        bins: the curve whose best harmonic mean the details are about.
    """
    standings, pairs = sweep.standings()[0], sweep.candidates.pairs
    curves: tuple[Bins, ...] = ("original", "exact")
    measured = {curve: sweep.compute_all(curve)[0] for curve in curves}
    told = details(standings, pairs, space, measured[bins], bins)
    return {
        "curve.csv": curves_csv(measured).encode(),
        "images.npz": outcomes(standings, pairs).to_bytes(),
        "details.json": (json.dumps(told, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n").encode(),
    }


def outcomes(standings: Standings, pairs: Tensor) -> Outcomes:
    """What decides each image at every bias; ``pairs`` is ``[K, 2]``."""
    duel = duels(standings.target, standings.is_seen, standings.seen, standings.unseen)
    at_last, bias = last_point(standings)
    right = hits(predicted(standings, 0.0), standings.target, pairs)
    return Outcomes(
        target=standings.target.numpy().astype(np.int32),
        is_seen=standings.is_seen.numpy(),
        open=duel.open.numpy(),
        true=duel.true.where(duel.open, 0).numpy(),
        rival=duel.rival.where(duel.open, 0).numpy(),
        wins_tie=duel.wins_tie.numpy(),
        bias=bias.numpy(),
        at_last=at_last.numpy(),
        attr=right[:, 0].numpy(),
        obj=right[:, 1].numpy(),
    )


def curves_csv(measured: Mapping[Bins, Metrics]) -> str:
    """Every point of every curve, named in the first column; the exact one starts at ``-inf`` and ends at ``inf``."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["curve", "bias", "seen", "unseen"])
    for name, metrics in measured.items():
        writer.writerows([name, *point] for point in zip(*metrics.curve.to_dict().values(), strict=True))
    return out.getvalue()


def details(standings: Standings, pairs: Tensor, space: PairSpace, metrics: Metrics, bins: Bins) -> dict[str, Any]:
    """Accuracy by pair, attribute and object, of several guesses, and the pairs that are most often confused.

    Args:
        standings: of ``N`` images.
        pairs: ``[K, 2]``, attribute and object of each column.
        space: their names.
        metrics: which tell the bias of the best harmonic mean.
        bins: the curve that they are of.

    Returns:
        Ready for strict JSON. Tables have a row for each pair, attribute and object of some image, in the order of
        the columns; accuracies are rounded to four decimals. An attribute counts as right where that of the predicted
        pair is.
    """
    target, biases = standings.target, {"zero": 0.0, "best_hm": metrics.hm_bias}
    guessed = {at: predicted(standings, bias, bins) for at, bias in biases.items()}
    right = torch.stack([hits(columns, target, pairs) for columns in guessed.values()])  # [2, N, 3]
    accuracies = [f"accuracy_at_{at}" for at in biases]
    is_seen = dict(zip(target.tolist(), standings.is_seen.tolist(), strict=True))
    of_pairs = [
        [*_words(column, pairs, space), is_seen[column], *rest] for column, *rest in _shares(target, right[..., 2])
    ]
    found: dict[str, Any] = {
        "format": FORMAT,
        "bins": bins,
        "biases": {at: str(bias) if math.isinf(bias) else bias for at, bias in biases.items()},
        "accuracy_of_top_k_at_zero": _guesses(standings),
    }
    for at, columns in guessed.items():
        found[f"confused_at_{at}"] = _table(
            ["attribute", "object", "predicted attribute", "predicted object", "images"],
            _confused(target, columns[:, 0], pairs, space),
        )
    found["pairs"] = _table(["attribute", "object", "seen", "images", *accuracies], of_pairs)
    for part, (kind, names) in enumerate((("attribute", space.attrs), ("object", space.objs))):
        rows = [[names[word], *rest] for word, *rest in _shares(pairs[target, part], right[..., part])]
        found[f"{kind}s"] = _table([kind, "images", *accuracies], rows)
    return found


def _shares(groups: Tensor, right: Tensor) -> list[tuple[Any, ...]]:
    """Each group, its number of images and its share of right ones at each bias.

    Args:
        groups: ``[N]`` long.
        right: ``[biases, N]`` bool.
    """
    names, at, counts = groups.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(right), len(names), dtype=torch.double).index_add_(1, at, right.double())
    shares = [[round(share, 4) for share in of_bias] for of_bias in (sums / counts).tolist()]
    return list(zip(names.tolist(), counts.tolist(), *shares, strict=True))


def _guesses(standings: Standings) -> dict[str, float]:
    """Share of images whose pair is among the best few at bias 0, as far as so many were kept."""
    right = standings.top.column == standings.target[:, None]  # [N, keep]
    kept = right.shape[1]
    return {str(k): round(float(right[:, :k].any(1).double().mean()), 6) for k in TOP if k <= kept}


def _confused(target: Tensor, guess: Tensor, pairs: Tensor, space: PairSpace) -> list[list[Any]]:
    """True pair, predicted pair and number of images, the most frequent first and then by column."""
    keys, counts = (target * len(pairs) + guess)[guess != target].unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:CONFUSED]
    both = [divmod(key, len(pairs)) for key in keys[order].tolist()]
    return [
        [*_words(true, pairs, space), *_words(found, pairs, space), n]
        for (true, found), n in zip(both, counts[order].tolist(), strict=True)
    ]


def _words(column: int, pairs: Tensor, space: PairSpace) -> tuple[str, str]:
    attr, obj = pairs[column].tolist()
    return space.attrs[attr], space.objs[obj]


def _table(columns: list[str], rows: list[list[Any]]) -> dict[str, Any]:
    return {"columns": columns, "rows": rows}
