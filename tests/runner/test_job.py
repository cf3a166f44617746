"""The feasibility threshold of the open world, from the setting to the result, on a small replica of C-GQA."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import czslkit
from czslkit.data import demo_world
from czslkit.data.layout import SPLITS, metadata_file, pairs_file
from czslkit.data.make.mini import REPLICAS, write_mini
from czslkit.data.pair_lists import read_pairs
from czslkit.data.splits import Splits
from czslkit.evaluation.feasibility_source import FeasibilityScores, clip_feasibility
from czslkit.metrics.feasibility import threshold_grid
from czslkit.runner import prepare as preparing
from czslkit.runner import run_job as running
from czslkit.runner import staleness
from czslkit.runner.recipes import load_recipe, recipes
from czslkit.training.epoch import Trainer

FILE = "feasibility_cgqa.pt"


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replica of C-GQA with words that the demo CLIP knows."""
    root = tmp_path_factory.mktemp("data")
    folder, words = write_mini("cgqa", root), REPLICAS["cgqa"]
    known = dict(zip(words.attrs + words.objs, demo_world.ATTRS[:8] + demo_world.OBJS[:6], strict=True))
    for phase in SPLITS:
        file = pairs_file(folder, phase)
        file.write_text("".join(f"{known[attr]} {known[obj]}\n" for attr, obj in read_pairs(file)))
    entries = torch.load(metadata_file(folder), weights_only=True)
    for entry in entries:
        entry |= {key: known.get(entry[key], entry[key]) for key in ("attr", "obj")}
    torch.save(entries, metadata_file(folder))
    return root


@pytest.fixture
def bench(replica: Path, tmp_path: Path) -> Any:
    """Benchmark on the replica in its own folder ``.root``; its log lines are in ``.log_lines``."""

    def go(methods: str = "clip", worlds: str = "open", **settings: Any) -> czslkit.runner.bench.Benchmark:
        go.log_lines = []
        quick = {"backbone": "demo", "train.epochs": 1, "train.batch_size": 48, "train.augment": False}
        named = {f"eval.{key}": value for key, value in settings.items()}
        return czslkit.bench(
            methods,
            "cgqa",
            worlds,
            data=go.root,
            runs=tmp_path / "runs",
            settings={**quick, **named},
            progress=False,
            log=go.log_lines.append,
        )

    go.root = tmp_path / "data"
    go.root.mkdir()
    shutil.copytree(replica / "cgqa", go.root / "cgqa", copy_function=shutil.copy2)
    return go


@pytest.fixture(scope="module")
def data(replica: Path) -> Splits:
    return czslkit.load_dataset("cgqa", replica)


@pytest.fixture
def feasible(data: Splits) -> torch.Tensor:
    """Feasibility: 0 for seen pairs, -0.2 to 1 for unseen pairs, higher for pairs that have images."""
    values = torch.rand(48, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.2
    shown = data.space.flat()
    values[shown] = 0.7 * values[shown] + 0.3
    return values.masked_fill(data.space.open().seen, 0)


@torch.no_grad()
def dense(data: Splits, split: Any) -> torch.Tensor:
    method = czslkit.build("clip", data.space, backbone="demo").eval()
    text = method.text(data.space.open().pairs)
    return torch.cat([method.rank(batch.images, text) for batch in czslkit.Feed(method, split, 48).batches()])


def candidates(data: Splits, feasible: torch.Tensor, threshold: float) -> torch.Tensor:
    return data.space.open().seen | (feasible >= np.float32(threshold))


def test_a_threshold_without_its_file_is_not_applied_and_a_warning_is_logged(bench: Any) -> None:
    (plain,) = bench().results
    result = bench(threshold=0.3)
    (found,) = result.results
    assert found["metrics"] == plain["metrics"]
    assert found["protocol"] == {**plain["protocol"], "feasibility": "missing: feasibility_cgqa.pt"}
    assert found["protocol"]["threshold"] is None
    (warning,) = [line for line in bench.log_lines if "NO FEASIBILITY THRESHOLD" in line]
    assert warning.endswith(
        "NO FEASIBILITY THRESHOLD in the open world, though threshold is 0.3: there is no feasibility_cgqa.pt or "
        f"feasibility_cgqa.npy or feasibility_cgqa.safetensors in {bench.root / 'cgqa'} or {bench.root}. Put the "
        "published file there, or set eval.feasibility to clip or to the path of feasibility scores or of word vectors"
    )
    assert (
        "In the open world of cgqa, all pairs are candidates: there is no feasibility threshold "
        "(feasibility_cgqa.pt is missing)."
    ) in result.table().caption()
    (searched,) = bench(threshold="search").results
    assert searched["metrics"] == plain["metrics"]
    assert any("though threshold is search" in line for line in bench.log_lines)


def test_a_result_says_by_which_threshold_it_was_measured(bench: Any, data: Splits, feasible: torch.Tensor) -> None:
    torch.save({"feasibility": feasible}, bench.root / "cgqa" / FILE)
    closed, opened = bench(worlds="closed,open", threshold=0.3).results
    kept = int(candidates(data, feasible, 0.3).sum())
    space, kept_rows = data.space, candidates(data, feasible, 0.3)
    words = (f"{space.attrs[a]} {space.objs[o]}\n" for a, o in space.open().pairs[kept_rows].tolist())
    biases = opened["protocol"].pop("biases")
    assert biases == sorted(biases) and 2 <= len(biases) <= 25
    digests = opened["depends"]["training"]["data"]
    assert opened["protocol"] == {
        "split_files": {name: digest for name, digest in digests.items() if name != "images"},
        "candidates_sha256": hashlib.sha256("".join(words).encode()).hexdigest(),
        "bins": "original",
        "split": "test",
        "columns": 48,
        "candidates": kept,
        "threshold": 0.3,
        "threshold_from": "given",
        "feasibility": FILE,
        "feasibility_sha256": FeasibilityScores(feasible, "").digest,
        "infeasible": "exclude",
        "selected_by": "validation AUC, closed world",
    }
    cut = {"threshold_from", "feasibility", "feasibility_sha256", "infeasible"}
    assert set(closed["protocol"]) == {*opened["protocol"], "biases"} - cut
    assert closed["protocol"]["threshold"] is None
    assert "feasibility" in opened["depends"]["evaluation"]
    assert "feasibility" not in closed["depends"]["evaluation"]
    assert any(line.endswith(f"threshold 0.3, given: {kept} of 48 pairs are candidates") for line in bench.log_lines)


@pytest.mark.parametrize("infeasible", ["exclude", "original"])
def test_the_metrics_are_those_of_the_thresholded_evaluation(
    bench: Any, data: Splits, feasible: torch.Tensor, infeasible: str
) -> None:
    np.save(bench.root / "feasibility_cgqa.npy", feasible.numpy())
    (found,) = bench(threshold=0.3, infeasible=infeasible).results
    space, scores, kept = data.space.open(), dense(data, data.test), candidates(data, feasible, 0.3)
    masked, only = (scores, kept) if infeasible == "exclude" else (scores * kept, None)
    labels = data.test.attr, data.test.obj, space.pairs, space.seen
    for bins in ("original", "exact"):
        expected = czslkit.evaluate(masked, *labels, only, bins=bins)
        assert expected.auc > 0
        assert found["metrics"][f"auc_{bins}"] == pytest.approx(expected.auc, abs=1e-9)
    assert found["protocol"]["infeasible"] == infeasible
    assert found["protocol"]["feasibility"] == "feasibility_cgqa.npy"


def test_a_searched_threshold_is_the_best_on_validation(bench: Any, data: Splits, feasible: torch.Tensor) -> None:
    torch.save(feasible, bench.root / FILE)
    (found,) = bench(threshold="search", bins="exact").results
    space, scores = data.space.open(), dense(data, data.val)
    labels = data.val.attr, data.val.obj, space.pairs, space.seen
    grid = threshold_grid(feasible, space.seen)
    aucs = [czslkit.evaluate(scores, *labels, candidates(data, feasible, t)).auc for t in grid]
    assert max(aucs) > 0.01 + aucs[0]
    assert found["protocol"]["threshold"] == grid[aucs.index(max(aucs))]
    assert found["protocol"]["threshold_from"] == "searched on validation"
    assert found["protocol"]["candidates"] == int(candidates(data, feasible, found["protocol"]["threshold"]).sum())


def test_a_threshold_of_the_methods_recipe_is_published(bench: Any, feasible: torch.Tensor) -> None:
    torch.save(feasible, bench.root / FILE)
    threshold = load_recipe(recipes("cgqa", "csp")[0])["eval"]["threshold"]
    (found,) = bench("csp", threshold=threshold).results
    assert found["protocol"]["threshold_from"] == "published"
    (found,) = bench("csp", threshold=threshold, feasibility="clip").results
    assert found["protocol"]["threshold_from"] == "given"
    (found,) = bench("clip", threshold=threshold).results
    assert found["protocol"]["threshold_from"] == "given"


def test_a_changed_vector_runs_the_open_world_again_and_nothing_else(
    bench: Any, feasible: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench("csp", "closed,open", threshold=0.3).results
    assert bench("csp", "closed,open", threshold=0.3).results == first
    assert bench.log_lines[-1].endswith("done before")
    monkeypatch.setattr(Trainer, "run", lambda *a: pytest.fail("trained again"))
    digests = []
    for values in (feasible, -feasible):
        torch.save(values, bench.root / FILE)
        closed, opened = bench("csp", "closed,open", threshold=0.3).results
        assert closed == first[0]
        assert any(line.endswith("open world stale because feasibility changed") for line in bench.log_lines)
        assert not any("closed world" in line for line in bench.log_lines)
        digests.append(opened["protocol"]["feasibility_sha256"])
    assert digests == [FeasibilityScores(values, "").digest for values in (feasible, -feasible)]
    monkeypatch.setattr(running, "make_results", lambda *a: pytest.fail("run again"))
    bench("csp", "closed,open", threshold=0.3)


def test_a_vector_that_cannot_be_used_stops_the_open_world_alone(bench: Any, feasible: torch.Tensor) -> None:
    torch.save(feasible[:7], bench.root / FILE)
    closed, opened = bench(worlds="closed,open", threshold=0.3).results
    assert (closed["status"], opened["status"]) == ("done", "failed")
    message = f"{bench.root / FILE} holds float32 [7], expected floats [48]: one for each of 8 attributes x 6 objects"
    assert opened["error"]["message"] == message
    assert any(line.endswith(f"open world failed: {message}") for line in bench.log_lines)
    assert [result["status"] for result in bench(threshold=0.3).results] == ["failed"]
    torch.save(feasible, bench.root / FILE)
    again = bench(worlds="closed,open", threshold=0.3)
    assert again.results[0] == closed and again.failed == 0


def test_the_closed_world_asks_for_no_feasibility(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staleness, "source_file", lambda *a: pytest.fail("looked for"))
    monkeypatch.setattr(preparing, "load_feasibility", lambda *a: pytest.fail("read"))
    assert bench(worlds="closed", threshold="search").failed == 0
    assert bench(worlds="open", feasibility="clip").failed == 0  # without a threshold nothing is asked for either


def test_feasibility_can_come_from_the_backbone(bench: Any, data: Splits) -> None:
    (found,) = bench(threshold=0.5, feasibility="clip").results
    values = clip_feasibility(czslkit.load_backbone("demo"), data.space).values
    assert found["protocol"]["candidates"] == int(candidates(data, values, 0.5).sum())
    assert found["protocol"]["feasibility"] == "clip"
    assert found["protocol"]["feasibility_sha256"] == FeasibilityScores(values, "").digest


def test_a_backbone_without_words_has_no_feasibility(bench: Any) -> None:
    settings = {"visprod.backbone": "timm/resnet10t/random"}
    result = czslkit.bench(
        "visprod",
        "cgqa",
        "open",
        data=bench.root,
        runs=bench.root / "runs",
        settings={**settings, "eval.threshold": 0.5, "eval.feasibility": "clip"},
        log=lambda line: None,
    )
    assert "feasibility is clip, but Timm has no text tower" in result.results[0]["error"]["message"]


def test_feasibility_can_come_from_word_vectors(bench: Any) -> None:
    random = np.random.default_rng(0)
    glove = bench.root / "glove.txt"
    glove.write_text(
        "".join(
            f"{word} {' '.join(map(str, random.normal(size=4)))}\n" for word in (*demo_world.ATTRS, *demo_world.OBJS)
        )
    )
    result = bench(threshold=0.2, feasibility=str(glove))
    assert result.failed == 0
    assert result.results[0]["protocol"]["feasibility"] == str(glove)
    assert (
        "In the open world of cgqa, unseen pairs with feasibility below 0.2 are excluded (threshold given, feasibility "
        "from glove.txt)."
    ) in result.table().caption()
    glove.write_text(glove.read_text().replace("rusty ", "dry "))
    (found,) = bench(threshold=0.2, feasibility=str(glove)).results
    assert found["error"]["message"] == f"{glove} has no vector for rusty (rusty); expected 'word v1 v2 ...' a line"
