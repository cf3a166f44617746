"""A folder of made-up results with as many cells as asked for: ``python many_cells.py FOLDER CELLS [SHAPE] [IMAGES]``.

The shape ``seeds`` has methods, datasets, worlds and seeds, and ``settings`` a configuration of one method for each
cell. ``failed`` is like ``seeds``, but every third cell has failed with an error of its own.
"""

from __future__ import annotations

import hashlib
import json
import sys
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from czslkit import options
from czslkit.json_digest import with_digest
from czslkit.metrics.outcomes import Outcomes
from czslkit.result_schema import FORMAT

SHAPES = ("seeds", "settings", "failed")
_DIGESTS = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("train", "val", "test", "metadata", "images")}


def write_many_cells(folder: Path, cells: int, shape: str = "seeds", images: int = 200) -> None:
    """Write ``cells`` finished or failed cells with numbers per image and details below ``folder``."""
    files = [_outcomes(images, seed) for seed in range(10)]
    details = json.dumps(_details()).encode()
    if shape == "settings":
        grid = product(["csp"], ["demo"], ["closed"], [0], range(cells))
    else:
        per_method = 5 * 2 * 10
        methods = [f"method{i}" for i in range(-(-cells // per_method))]
        grid = product(methods, [f"data{i}" for i in range(5)], ["closed", "open"], range(10), [0])
    for number, (method, dataset, world, seed, setting) in enumerate(islice(grid, cells)):
        config = _config(setting)
        config_id = options.config_id(config)
        cell = {"method": method, "dataset": dataset, "world": world, "seed": seed, "config_id": config_id}
        home = folder / dataset / method / f"seed{seed}-{config_id}"
        home.mkdir(parents=True, exist_ok=True)
        attached = {"images.npz": files[number % len(files)], "details.json": details}
        for name, content in attached.items():
            (home / f"{world}.{name}").write_bytes(content)
        digests = {name: hashlib.sha256(content).hexdigest()[:16] for name, content in attached.items()}
        made = _result(cell, config, number, digests)
        if shape == "failed" and number % 3 == 0:
            error = {
                "type": "TrainingError",
                "message": f"the loss is nan at step {number}",
                "traceback": "at ...\n" * 20,
            }
            made |= {"status": "failed", "error": error, "metrics": {}, "protocol": {}, "files": {}}
        (home / f"{world}.json").write_text(with_digest(made, indent=1), encoding="utf-8")


def _config(setting: int) -> dict[str, Any]:
    """Return a configuration."""
    train = {"epochs": 10, "batch_size": 64, "lr": 0.001 + setting / 1e6, "optimizer": "adam", "schedule": "step"}
    return {"options": {"backbone": "demo", "context": "a photo of"}, "train": train, "eval": {"bins": "original"}}


def _result(cell: dict[str, Any], config: dict[str, Any], number: int, files: dict[str, str]) -> dict[str, Any]:
    """Return a finished result with as much content as a real one."""
    auc = 0.2 + (number * 7919 % 1000) / 5000
    code = {f"czslkit.part{i}": "version 1" for i in range(20)}
    history = [{"loss": 1 / (1 + e), "lr": 0.001, "val_auc": auc * e / 10} for e in range(10)]
    return {
        "format": FORMAT,
        "cell": cell,
        "config": config,
        "depends": {
            "training": {"data": _DIGESTS, "weights": _DIGESTS["images"], "code": code},
            "evaluation": {"code": {"czslkit.evaluation": "version 1"}},
        },
        "recipe": {"name": f"{cell['dataset']}/nayak2023_{cell['method']}", "changed": ["train.lr"]},
        "published": {"S": 70.0, "U": 60.0, "H": 50.0, "AUC": 30.0, "source": f"Table {number % 3}"},
        "status": "done",
        "error": None,
        "training": {"epochs": 10, "best_epoch": 9, "trainable_parameters": 288, "history": history},
        "training_key": "0123abcd",
        "timing": {"train_s": 5.9, "eval_s": 0.3},
        "versions": {"python": "3.11.7", "platform": "Linux", "device": "cpu", "czslkit": "0.1.0", "torch": "2.14.1"},
        "finished": "2026-11-28T11:21:55+00:00",
        "metrics": {
            "auc": auc,
            "best_seen": 0.7,
            "best_unseen": 0.5 + auc / 4,
            "best_hm": 0.4 + auc / 4,
            "attr_acc": 0.5,
            "obj_acc": 0.6,
            "n_seen": 100,
            "n_unseen": 100,
            "auc_original": auc,
            "auc_exact": auc,
        },
        "protocol": {
            "split_files": _DIGESTS,
            "bins": "original",
            "biases": [i / 7 for i in range(21)],
            "split": "test",
            "columns": 120,
            "candidates": 120,
            "candidates_sha256": _DIGESTS["test"],
            "threshold": None,
            "selected_by": "validation AUC, closed world",
        },
        "files": files,
    }


def _outcomes(images: int, seed: int) -> bytes:
    random = np.random.default_rng(seed)
    flags = ("reachable", "wins_tie", "right_at_last_bias", "attr_right", "obj_right")
    values: dict[str, Any] = {name: random.random(images) < 0.7 for name in flags}
    values |= {name: random.normal(size=images).astype(np.float32) for name in ("true_score", "runner_up_score")}
    bias = np.where(np.arange(images) % 4 == 1, random.normal(size=images), np.nan).astype(np.float32)
    return Outcomes(
        target=np.arange(images, dtype=np.int32), is_seen=np.arange(images) % 2 == 0, proposed_bias=bias, **values
    ).to_bytes()


def _details() -> dict[str, Any]:
    """Return details of 120 pairs, in the format of the evaluation."""
    accuracies = ["accuracy_at_zero", "accuracy_at_best_hm"]
    pairs = [[f"attr{i % 10}", f"obj{i // 10}", i % 2 == 0, i + 1, 0.5, 0.4] for i in range(120)]
    confused = [[f"attr{i}", f"obj{i}", f"attr{i + 1}", f"obj{i}", 9] for i in range(20)]
    words = {kind: [[f"{kind[:-1]}{i}", 12, 0.5, 0.4] for i in range(10)] for kind in ("attributes", "objects")}
    return {
        "format": 1,
        "bins": "original",
        "biases": {"zero": 0.0, "best_hm": 1.5},
        "accuracy_of_top_k_at_zero": {"1": 0.5, "3": 0.7, "5": 0.8},
        "confused_at_zero": {
            "columns": ["attribute", "object", "predicted attribute", "predicted object", "images"],
            "rows": confused,
        },
        "pairs": {"columns": ["attribute", "object", "seen", "images", *accuracies], "rows": pairs},
        **{kind: {"columns": [kind[:-1], "images", *accuracies], "rows": rows} for kind, rows in words.items()},
    }


if __name__ == "__main__":
    write_many_cells(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:4], *map(int, sys.argv[4:5]))
