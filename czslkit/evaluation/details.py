"""The detail files of one evaluation: curves, numbers per image, accuracy per word, and confused pairs."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..data.layout import images_folder
from ..data.splits import Splits
from ..metrics.curves import Bins, correct_parts, image_outcomes, predict
from ..metrics.metrics import Metrics
from ..metrics.predictions import Predictions
from ..metrics.sweep import Sweep
from ..metrics.top_scores import TopScores
from ..types import PairSpace

FORMAT = 1  # format of details.json
TOP_K = (1, 3, 5)  # values of k for which the top-k accuracy is reported
MAX_CONFUSIONS = 20  # largest number of rows in a table of confused pairs
MAX_WORD_CONFUSIONS = 10_000  # largest number of rows in the table of confused attributes


def detail_files(sweep: Sweep, space: PairSpace, bins: Bins) -> dict[str, bytes]:
    """Return the content of each detail file, by file name, for the first (or only) set of candidates.

    Args:
        sweep: keeps ``max(TOP_K)`` columns per image; if it keeps fewer, some top-k accuracies are left out.
        space: the names of the attributes and objects of the sweep's pairs.
        bins: the curve whose best harmonic mean gives the second bias of the tables.
    """
    scores, pairs = sweep.top_scores()[0], sweep.candidates.pairs
    curves: tuple[Bins, ...] = ("original", "exact")
    metrics = {curve: sweep.compute_all(curve)[0] for curve in curves}
    content = details(scores, pairs, space, metrics[bins], bins)
    return {
        "curve.csv": curves_csv(metrics).encode(),
        "images.npz": image_outcomes(scores, pairs).to_bytes(),
        "details.json": (
            json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
        ).encode(),
    }


def predictions(sweep: Sweep, data: Splits, bins: Bins) -> Predictions:
    """Return the predicted pair of every test image by name, for the first (or only) set of candidates.

    Args:
        sweep: the scores of the test split of ``data``.
        data: the dataset, which has the paths of the images.
        bins: the curve whose best harmonic mean gives the bias.
    """
    scores, pairs = sweep.top_scores()[0], sweep.candidates.pairs
    columns = predict(scores, sweep.compute_all(bins)[0].hm_bias, bins)[:, 0]
    used, index = torch.stack([scores.target, columns]).unique(return_inverse=True)
    seen = sweep.candidates.seen[used].tolist()
    names = [(*_pair_names(column, pairs, data.space), flag) for column, flag in zip(used.tolist(), seen, strict=True)]
    folder = os.path.abspath(images_folder(data.root))
    images = [os.path.relpath(path, folder).replace(os.sep, "/") for path in data.test.paths]
    return Predictions(folder, images, names, index[0].tolist(), index[1].tolist())


def curves_csv(metrics: Mapping[Bins, Metrics]) -> str:
    """Return every point of every curve as CSV; the exact curve starts at bias ``-inf`` and ends at ``inf``.

    Args:
        metrics: metrics by curve; the first column has the name of the curve.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["curve", "bias", "seen", "unseen"])
    for bins, found in metrics.items():
        writer.writerows([bins, *point] for point in zip(*found.curve.to_dict().values(), strict=True))
    return out.getvalue()


def details(scores: TopScores, pairs: Tensor, space: PairSpace, metrics: Metrics, bins: Bins) -> dict[str, Any]:
    """Return accuracies per pair, attribute and object, top-k accuracies, and the most confused pairs.

    Each table is computed at two biases: 0, and the bias of the best harmonic mean.

    Args:
        scores: the best scores of ``N`` images.
        pairs: ``[K, 2]``, attribute and object of each column.
        space: the names of attributes and objects.
        metrics: the metrics of the same images; ``hm_bias`` is the second bias.
        bins: the curve that ``metrics`` belongs to.

    Returns:
        Values for strict JSON. The tables have a row for each pair, attribute or object of at least one image, in the
        order of the columns. Accuracies are rounded to four decimals. An attribute is right if the predicted pair has
        it.
    """
    target = scores.target
    biases = {"zero": 0.0, "best_hm": metrics.hm_bias}
    predicted = {name: predict(scores, bias, bins) for name, bias in biases.items()}
    right = torch.stack([correct_parts(columns, target, pairs) for columns in predicted.values()])  # [2, N, 3]
    content: dict[str, Any] = {
        "format": FORMAT,
        "bins": bins,
        "biases": {name: str(bias) if math.isinf(bias) else bias for name, bias in biases.items()},
        "accuracy_of_top_k_at_zero": _top_k_accuracies(scores),
    }
    for name, columns in predicted.items():
        content[f"confused_at_{name}"] = _table(
            ["attribute", "object", "predicted attribute", "predicted object", "images"],
            [
                [*_pair_names(true, pairs, space), *_pair_names(wrong, pairs, space), n]
                for true, wrong, n in _confused(target, columns[:, 0], MAX_CONFUSIONS)
            ],
        )
    accuracy_columns = [f"accuracy_at_{name}" for name in biases]
    is_seen = dict(zip(target.tolist(), scores.is_seen.tolist(), strict=True))
    pair_rows = [
        [*_pair_names(column, pairs, space), is_seen[column], *numbers]
        for column, *numbers in _group_accuracies(target, right[..., 2])
    ]
    content["pairs"] = _table(["attribute", "object", "seen", "images", *accuracy_columns], pair_rows)
    for part, (kind, names) in enumerate((("attribute", space.attrs), ("object", space.objs))):
        word_rows = [
            [names[word], *numbers] for word, *numbers in _group_accuracies(pairs[target, part], right[..., part])
        ]
        content[f"{kind}s"] = _table([kind, "images", *accuracy_columns], word_rows)
    content["confused_attributes_at_zero"] = _table(
        ["attribute", "predicted attribute", "images"],
        [
            [space.attrs[true], space.attrs[wrong], n]
            for true, wrong, n in _confused(pairs[target, 0], pairs[predicted["zero"][:, 0], 0], MAX_WORD_CONFUSIONS)
        ],
    )
    return content


def _group_accuracies(groups: Tensor, right: Tensor) -> list[tuple[Any, ...]]:
    """Return the number of each group, its number of images and its accuracy at each bias.

    Args:
        groups: ``[N]`` long, group of each image.
        right: ``[biases, N]`` bool, whether each image is right.
    """
    numbers, index, counts = groups.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(right), len(numbers), dtype=torch.double).index_add_(1, index, right.double())
    accuracies = [[round(accuracy, 4) for accuracy in at_bias] for at_bias in (sums / counts).tolist()]
    return list(zip(numbers.tolist(), counts.tolist(), *accuracies, strict=True))


def _top_k_accuracies(scores: TopScores) -> dict[str, float]:
    """Return the share of images whose true pair is among the best k at bias 0, for each k that was kept."""
    right = scores.top.column == scores.target[:, None]  # [N, keep]
    keep = right.shape[1]
    return {str(k): round(float(right[:, :k].any(1).double().mean()), 6) for k in TOP_K if k <= keep}


def _confused(true: Tensor, predicted: Tensor, most: int) -> list[tuple[int, int, int]]:
    """Return true number, predicted number and number of images, the most frequent first, then by number.

    Args:
        true: ``[N]`` long, the number of the true pair or word of each image.
        predicted: ``[N]`` long, the predicted one.
        most: largest number of rows.
    """
    base = int(torch.cat([true, predicted]).max()) + 1 if len(true) else 1
    keys, counts = (true * base + predicted)[predicted != true].unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:most]
    return [(*divmod(key, base), n) for key, n in zip(keys[order].tolist(), counts[order].tolist(), strict=True)]


def _pair_names(column: int, pairs: Tensor, space: PairSpace) -> tuple[str, str]:
    """Return the attribute and the object of a column."""
    attr, obj = pairs[column].tolist()
    return space.attrs[attr], space.objs[obj]


def _table(columns: list[str], rows: list[list[Any]]) -> dict[str, Any]:
    return {"columns": columns, "rows": rows}
