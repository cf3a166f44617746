"""Scores in files of every format and order, compared with the same scores in memory."""

from __future__ import annotations

import csv
import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from czslkit.cli import main
from czslkit.errors import ConfigError, DataError
from czslkit.evaluation import score_file
from czslkit.evaluation.score_file import fill, open_scores
from czslkit.evaluation.score_file_summary import summarise
from czslkit.evaluation.score_labels import checked_labels, label_space, pair_mask
from czslkit.metrics.sweep import Sweep, evaluate

PAIRS = [("wet", "dog"), ("old", "cat"), ("dry", "cat"), ("dry", "dog"), ("old", "dog"), ("wet", "cat")]
SEEN = [("dry", "cat"), ("wet", "dog"), ("old", "cat")]
SPACE = label_space(PAIRS, SEEN)
TARGET = np.arange(40) % 6
SCORES = np.random.default_rng(0).integers(-20, 20, (40, 6)) / 8 + np.eye(6)[TARGET]
ATTR, OBJ = SPACE.pairs[TARGET].T.numpy()
ARRAYS = {"scores": SCORES, "attr": ATTR, "obj": OBJ}


def tensors(**arrays: Any) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(np.ascontiguousarray(values)) for name, values in arrays.items()}


WRITERS: dict[str, Callable[[Path], Any]] = {
    "plain.npz": lambda file: np.savez(file, **ARRAYS),
    "packed.npz": lambda file: np.savez_compressed(file, **ARRAYS),
    "columns.npz": lambda file: np.savez(file, **(ARRAYS | {"scores": np.asfortranarray(SCORES)})),
    "swapped.npz": lambda file: np.savez(file, **(ARRAYS | {"scores": SCORES.astype(">f4")})),
    "half.npz": lambda file: np.savez(
        file, scores=SCORES.astype(np.float16), attr=ATTR.astype(np.uint8), obj=OBJ.astype(np.int32)
    ),
    "plain.npy": lambda file: np.save(file, SCORES.astype(np.float32)),
    "columns.npy": lambda file: np.save(file, np.asfortranarray(SCORES)),
    "swapped.npy": lambda file: np.save(file, SCORES.astype(">f8")),
    "double.safetensors": lambda file: save_file(tensors(**ARRAYS), file),
    "bfloat16.safetensors": lambda file: save_file(
        tensors(**ARRAYS) | {"scores": torch.tensor(SCORES).bfloat16()}, file
    ),
}


def written(folder: Path, name: str) -> Path:
    WRITERS[name](folder / name)
    return folder / name


@pytest.fixture
def lists(tmp_path: Path) -> dict[str, str]:
    """Write text files of the columns, the seen pairs and the true pair of each image."""
    content = {"pairs": PAIRS, "seen": SEEN, "labels": [PAIRS[i] for i in TARGET]}
    for name, pairs in content.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{attr} {obj}\n" for attr, obj in pairs))
    return {name: str(tmp_path / f"{name}.txt") for name in content}


@pytest.mark.parametrize("block", [1, 50, 10_000])
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_gives_what_the_array_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, block: int
) -> None:
    monkeypatch.setattr(score_file, "SCORES_PER_BLOCK", block)
    monkeypatch.setattr(score_file, "BYTES_PER_READ", 7)
    scores = open_scores(written(tmp_path, name))
    labels = scores.labels or (torch.tensor(ATTR), torch.tensor(OBJ))
    sweep = Sweep(SPACE.pairs, SPACE.seen)
    fill(sweep, scores, checked_labels(labels, SPACE))
    assert scores.shape == (40, 6)
    assert (scores.labels is None) == name.endswith(".npy")
    assert sweep.compute() == evaluate(SCORES, ATTR, OBJ, SPACE.pairs, SPACE.seen)


def test_no_more_than_a_block_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_file, "SCORES_PER_BLOCK", 50)
    for name in WRITERS:
        sizes = [np.prod(block.shape) for *_, block in open_scores(written(tmp_path, name)).blocks()]
        assert sum(sizes) == SCORES.size
        assert max(sizes) <= 50


EMPTY_ZIP = b"PK\x05\x06" + bytes(18)
BROKEN: dict[str, tuple[str, Any, str]] = {
    "no scores": ("x.npz", lambda file: np.savez(file, logits=SCORES), "it holds logits; expected scores, with or"),
    "one label": (
        "x.npz",
        lambda file: np.savez(file, scores=SCORES, attr=ATTR),
        "it holds attr, scores; expected attr and obj both, or neither",
    ),
    "integers": ("x.npy", lambda file: np.save(file, ATTR), r"scores are int64 \[40\], expected floats of 16, 32 or"),
    "a cube": (
        "x.safetensors",
        lambda file: save_file({"scores": torch.zeros(2, 3, 4)}, file),
        r"scores are F32 \[2, 3, 4\], expected floats of 16, 32 or 64 bits, \[images, pairs\]",
    ),
    "named labels": (
        "x.npz",
        lambda file: np.savez(file, scores=SCORES, attr=np.array(["dry"] * 40), obj=OBJ),
        r"attr is <U3 \[40\], expected integers \[40\], one for each image",
    ),
    "too few labels": (
        "x.safetensors",
        lambda file: save_file(tensors(scores=SCORES, attr=ATTR, obj=OBJ[:39]), file),
        r"obj is int64 \[39\], expected integers \[40\]",
    ),
    "objects in npz": (
        "x.npz",
        lambda file: np.savez(file, scores=SCORES, attr=np.array([None] * 40), obj=OBJ),
        r"attr is object \[40\], expected integers \[40\]",
    ),
    "object scores": (
        "x.npz",
        lambda file: np.savez(file, scores=SCORES.astype(object)),
        r"scores are object \[40, 6\], expected floats",
    ),
    "objects in npy": ("x.npy", lambda file: np.save(file, np.array([[None]]), allow_pickle=True), "objects in dtype"),
    "an archive as npy": ("x.npy", lambda file: file.write_bytes(EMPTY_ZIP), "it is an archive; rename it"),
    "no archive": ("x.npz", lambda file: file.write_bytes(b"text"), "cannot be read: BadZipFile: File is not a zip"),
    "no safetensors": ("x.safetensors", lambda file: file.write_bytes(b"text"), "cannot be read: SafetensorError: "),
    "absent": ("x.npz", lambda file: None, r"cannot be read: \[Errno 2\] No such file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_of_something_else_is_named_with_what_it_holds(tmp_path: Path, case: str) -> None:
    name, write, message = BROKEN[case]
    write(tmp_path / name)
    with pytest.raises(DataError, match=rf"^{tmp_path / name}:? .*{message}"):
        open_scores(tmp_path / name)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x\.pt does not end in one of \.npz, \.npy, \.safetensors$"):
        open_scores(tmp_path / "x.pt")


def test_an_archive_that_ends_early_is_damaged(tmp_path: Path) -> None:
    whole, cut = written(tmp_path, "plain.npz"), tmp_path / "cut.npz"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(cut, "w") as target:
        target.writestr("scores.npy", source.read("scores.npy")[:-8])
    with pytest.raises(
        DataError, match=r"cut\.npz: its member scores\.npy has 1,912 bytes of values, expected float64"
    ):
        open_scores(cut)
    content = cut.read_bytes()
    sizes = [struct.pack("<II", 1912 + 128, 128 + n) for n in (1912, 1920)]  # in the archive and unpacked
    directory = content.rindex(b"PK\x01\x02")
    cut.write_bytes(content[:directory] + content[directory:].replace(*sizes))
    with pytest.raises(DataError, match=r"cut\.npz: it ends before its last score"):
        fill(Sweep(SPACE.pairs, SPACE.seen), open_scores(cut), (torch.tensor(ATTR), torch.tensor(OBJ)))


def test_scores_that_are_not_finite_are_named_with_their_image(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.where(np.arange(40)[:, None] == 7, np.nan, SCORES))
    with pytest.raises(DataError, match=r"x\.npy: image 7 has a score that is not finite"):
        fill(Sweep(SPACE.pairs, SPACE.seen), open_scores(tmp_path / "x.npy"), (torch.tensor(ATTR), torch.tensor(OBJ)))


# The command.


@pytest.fixture
def command(tmp_path: Path, lists: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run ``czslkit evaluate`` and return exit status, standard output and standard error."""

    def go(name: str, *options: str) -> tuple[int, str, str]:
        file = written(tmp_path, name) if name in WRITERS else tmp_path / name
        status = main(["evaluate", str(file), "--pairs", lists["pairs"], "--seen", lists["seen"], *options])
        return status, *capsys.readouterr()

    return go


def test_the_command_prints_the_numbers_of_evaluate(command: Any, lists: dict[str, str], tmp_path: Path) -> None:
    original, exact = (evaluate(SCORES, ATTR, OBJ, SPACE.pairs, SPACE.seen, bins=bins) for bins in BINS)
    status, out, err = command("plain.npz", "--out", str(tmp_path / "found.json"))
    assert (status, err) == (0, "")
    head, row = (line.split() for line in out.splitlines()[:2])
    assert head == ["candidates", "S", "U", "H", "AUC", "original", "AUC", "exact", "attr", "obj", "bias", "of", "H"]
    shown = [original.best_seen, original.best_unseen, original.best_hm, original.auc, exact.auc]
    shown += [original.attr_acc, original.obj_acc]
    assert row == ["6", *(f"{100 * value:.2f}" for value in shown), f"{original.hm_bias:.4g}"]
    assert "21 images of seen pairs, 19 images of unseen pairs.\nAll numbers but the bias are percentages." in out
    assert "S, U, H: best seen, unseen and harmonic-mean accuracy along the original (about 20 biases" in out
    found = json.loads((tmp_path / "found.json").read_text())
    (result,) = found.pop("results")
    assert result == {
        "threshold": None,
        "candidates": 6,
        **original.to_dict(),
        "auc_original": original.auc,
        "auc_exact": exact.auc,
    }
    assert found == {
        "files": {"scores": str(tmp_path / "plain.npz"), "pairs": lists["pairs"], "seen": lists["seen"]},
        "columns": 6,
        "seen_columns": 3,
        "topk": 1,
        "bins": "original",
        "infeasible": None,
    }


BINS: tuple[Any, ...] = ("original", "exact")


def test_the_exact_curve_is_shown_if_asked_for(command: Any) -> None:
    exact = evaluate(SCORES, ATTR, OBJ, SPACE.pairs, SPACE.seen, topk=2)
    status, out, _ = command("packed.npz", "--bins", "exact", "--topk", "2", "--format", "markdown")
    assert status == 0
    head, _, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()[:3])
    assert head.index("AUC exact") < head.index("AUC original")
    assert row[head.index("H")] == f"{100 * exact.best_hm:.2f}"
    assert "along the exact (every breakpoint) curve. " in out
    assert "An image is right if its pair is among the best 2." in out


def test_labels_by_name_replace_those_in_the_file(command: Any, lists: dict[str, str], tmp_path: Path) -> None:
    expected = command("plain.npz", "--format", "json")[1]
    for name in ("columns.npy", "other.npz"):
        np.savez(tmp_path / "other.npz", scores=SCORES, attr=ATTR + 7, obj=OBJ)
        status, out, _ = command(name, "--labels", lists["labels"], "--format", "json")
        assert status == 0
        assert json.loads(out)["results"] == json.loads(expected)["results"]


def test_candidates_are_what_may_be_predicted(command: Any, tmp_path: Path) -> None:
    file = tmp_path / "candidates.txt"
    file.write_text("old dog\ndry cat\nwet dog\n")
    mask = pair_mask(PAIRS, [("old", "dog"), *SEEN[:2]], "candidate")
    metrics = evaluate(SCORES, ATTR, OBJ, SPACE.pairs, SPACE.seen, mask, bins="original")
    status, out, _ = command("plain.npz", "--candidates", str(file), "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (status, row["candidates"], float(row["auc"])) == (0, "3", metrics.auc)
    assert float(row["at_zero.pair"]) == metrics.at_zero.pair
    assert row["files.candidates"] == str(file)
    assert "20 images show a pair that is no candidate" in command("plain.npz", "--candidates", str(file))[1]


@pytest.mark.parametrize("infeasible", ["exclude", "original"])
def test_every_threshold_has_a_row(command: Any, tmp_path: Path, infeasible: Any) -> None:
    feasibility = np.array([0.0, 0.5, 0.0, -0.25, -0.5, 0.0])  # dry cat, dry dog, old cat, ...
    np.save(tmp_path / "feasibility.npy", feasibility)
    thresholds = [0.25, -0.25, -1.0]
    sweep = Sweep(
        SPACE.pairs,
        SPACE.seen,
        None,
        feasibility[SPACE.flat()],
        thresholds,
        bins="original",
        infeasible=infeasible,
    )
    sweep.update(SCORES, ATTR, OBJ)
    asked = ("--feasibility", str(tmp_path / "feasibility.npy"), "--threshold", *map(str, thresholds))
    status, out, _ = command("plain.npz", *asked, "--infeasible", infeasible, "--format", "json")
    rows = json.loads(out)["results"]
    assert status == 0
    assert [row["threshold"] for row in rows] == thresholds
    assert [row["candidates"] for row in rows] == [4, 5, 6]
    assert [row["auc"] for row in rows] == [metrics.auc for metrics in sweep.compute_all()]
    text = command("plain.npz", *asked, "--infeasible", infeasible)[1]
    assert text.split()[0] == "threshold"
    assert ("unseen pairs below a threshold have score 0" in text) == (infeasible == "original")


def test_word_vectors_give_the_feasibility(command: Any, tmp_path: Path) -> None:
    vectors = {"dry": [1, 0], "wet": [0.6, 0.8], "old": [0.8, -0.6], "cat": [1, 0], "dog": [0.8, 0.6]}
    save_file({word: torch.tensor(v, dtype=torch.float32) for word, v in vectors.items()}, tmp_path / "w.safetensors")
    status, out, _ = command(
        "plain.npz", "--feasibility", str(tmp_path / "w.safetensors"), "--threshold", "0.5", "--format", "json"
    )
    # Beside the three seen pairs dry dog and wet cat, (0.8 + 0.6) / 2; old dog has (0.8 + 0) / 2.
    assert (status, json.loads(out)["results"][0]["candidates"]) == (0, 5)


WRONG = [
    (("plain.npz", "--topk", "0"), 2, "--topk is 0, expected 1 or more"),
    (("plain.npz", "--threshold", "0.5"), 2, "--threshold without --feasibility: give both or neither"),
    (("plain.npz", "--feasibility", "x.pt"), 2, "--feasibility without --threshold: give both or neither"),
    (("plain.npz", "--infeasible", "original"), 2, "--infeasible original without --threshold"),
    (("plain.npz", "--feasibility", "x.pt", "--threshold", "nan"), 2, "--threshold is nan, expected finite numbers"),
    (("plain.npz", "--feasibility", "x.pt", "--threshold", "0"), 1, "x.pt is refused"),
    (("plain.npy",), 2, "plain.npy has no labels: give --labels"),
    (("x.txt",), 2, "x.txt does not end in one of .npz, .npy, .safetensors"),
    (("x.npz",), 1, "x.npz cannot be read"),
    (("plain.npz", "--labels", "nowhere.txt"), 1, "nowhere.txt cannot be read"),
    (("plain.npz", "--candidates", "nowhere.txt"), 1, "nowhere.txt cannot be read"),
]


@pytest.mark.parametrize(("arguments", "status", "message"), WRONG)
def test_wrong_usage_ends_with_two_and_what_cannot_be_read_with_one(
    command: Any, arguments: tuple[str, ...], status: int, message: str
) -> None:
    found, out, err = command(*arguments)
    assert (found, out) == (status, "")
    assert "czslkit: " in err and message in err
    assert "Traceback" not in err


def test_scores_labels_and_pairs_must_belong_together(command: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", scores=SCORES[:, :5], attr=ATTR, obj=OBJ)
    status, _, err = command("x.npz")
    assert (status, f"{tmp_path / 'x.npz'} has scores [40, 5], expected [N, 6]: a column for each" in err) == (2, True)
    (tmp_path / "few.txt").write_text("wet dog\n")
    status, _, err = command("plain.npz", "--labels", str(tmp_path / "few.txt"))
    assert (status, "1 labels for the 40 images of" in err) == (2, True)
    np.savez(tmp_path / "x.npz", scores=SCORES[:0], attr=ATTR[:0], obj=OBJ[:0])
    status, _, err = command("x.npz")
    assert (status, "x.npz has scores of 0 images, expected at least 1" in err) == (2, True)
    (tmp_path / "none.txt").write_text("")
    status, _, err = command("plain.npz", "--candidates", str(tmp_path / "none.txt"))
    assert (status, "czslkit: none of the 6 pairs is a candidate" in err) == (2, True)


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom czslkit.cli import main\n"
        "try: main(['evaluate', '--help'])\nexcept SystemExit as end: print(end.code)\n"
        "print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == ["0", "[]"], done.stderr


def test_a_summary_of_a_file_needs_no_command(tmp_path: Path) -> None:
    scores = open_scores(written(tmp_path, "plain.npz"))
    assert scores.labels is not None
    summary = summarise(scores, SPACE, scores.labels, bins="exact")
    (row,) = summary.rows
    assert row.by_bins["exact"] == evaluate(SCORES, ATTR, OBJ, SPACE.pairs, SPACE.seen)
    assert [summary.render(kind) for kind in ("text", "json")] == [summary.to_text(), summary.to_json()]
