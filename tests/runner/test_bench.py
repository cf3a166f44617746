from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import czslkit
from czslkit.data import images
from czslkit.data.layout import pairs_file
from czslkit.data.make.mini import write_mini
from czslkit.errors import ConfigError
from czslkit.result_store import Store
from czslkit.runner import run_job as running
from czslkit.training.epoch import Trainer
from czslkit.weights import read_tensors


@pytest.fixture
def bench(toys, clip_file, tmp_path):
    """Benchmark on the toys; its log lines are in ``.log_lines``."""

    def go(methods="clip,csp", datasets="toys", settings=None, data=toys, **arguments):
        go.log_lines = []
        msci = {"msci.low_layers": 2, "msci.high_layers": 2, "msci.heads": [2, 2]} if "msci" in methods else {}
        quick = {"backbone": str(clip_file), "train.epochs": 2, "train.batch_size": 8, "train.lr": 1e-2}
        return czslkit.bench(
            methods,
            datasets,
            data=data,
            runs=tmp_path / "runs",
            settings=quick | msci | (settings or {}),
            progress=False,
            log=go.log_lines.append,
            **arguments,
        )

    return go


SPLITS = ("test", "train", "val")


def numbers(result) -> list:
    return [(r["cell"], r["metrics"]) for r in result.results]


def test_results_record_their_dependencies(bench, clip_file):
    result = bench("csp", seeds=[0, 1])
    assert result.failed == 0
    assert [(r["cell"]["seed"], r["cell"]["world"]) for r in result.results] == [
        *[(0, "closed"), (0, "open"), (1, "closed"), (1, "open")]
    ]
    closed, opened = result.results[:2]
    assert closed["protocol"]["columns"] == 7
    assert closed["protocol"]["candidates"] == 6  # five of training, and blue left
    assert opened["protocol"]["columns"] == opened["protocol"]["candidates"] == 9
    assert closed["metrics"]["auc"] == closed["metrics"]["auc_original"]
    assert closed["metrics"]["n_seen"] + closed["metrics"]["n_unseen"] == 8
    assert closed["training"]["trainable_parameters"] == 6 * 64
    assert set(closed["depends"]["training"]["data"]) > {"train_pairs.txt", "images"}
    assert {
        *("czslkit.training", "czslkit.data.image_transforms", "czslkit.method:Method", "czslkit_plugins.csp:Csp"),
        *("czslkit.prompts:SoftPrompt", "czslkit.heads.cosine:CosineHead", "czslkit.backbones.open_clip:OpenClip"),
        "czslkit.data.datasets:Dataset",
    } <= set(closed["depends"]["training"]["code"])
    assert set(closed["depends"]["evaluation"]["code"]) == {"czslkit.evaluation", "czslkit.data.image_transforms"}
    assert closed["components"]["czslkit_plugins.csp"] == f"czslkit {czslkit.__version__}"
    assert closed["versions"]["python"] == platform.python_version()
    assert closed["config"]["options"]["backbone"] == str(clip_file)
    json.dumps(result.results, allow_nan=False)


def test_scores_of_a_benchmark_are_those_of_its_method(bench, toys, clip_file):
    """The numbers are compared with ``evaluate`` on the full matrix of scores."""
    closed, opened = bench("clip").results
    data = czslkit.load_dataset("toys", toys)
    method = czslkit.build("clip", data.space, backbone=str(clip_file)).eval()
    images = torch.cat([batch.images.pooled for batch in czslkit.data.batches.Feed(method, data.test, 3).batches()])
    for result, space, candidates in (
        (closed, data.space, data.candidates("test")),
        (opened, data.space.open(), None),
    ):
        with torch.no_grad():
            scores = method.rank(czslkit.ImageFeatures(images), method.text(space.pairs))
        labels = data.test.attr, data.test.obj, space.pairs, space.seen, candidates
        expected = czslkit.evaluate(scores, *labels, bins="original")
        for name in ("auc", "best_seen", "best_unseen", "best_hm", "attr_acc", "obj_acc"):
            assert result["metrics"][name] == pytest.approx(getattr(expected, name), abs=1e-9), name
        exact = czslkit.evaluate(scores, *labels, bins="exact").auc
        assert result["metrics"]["auc_exact"] == pytest.approx(exact, abs=1e-9)


def test_the_printed_area_can_be_the_exact_one(bench):
    (closed, _) = bench("clip", settings={"eval.bins": "exact"}).results
    assert closed["metrics"]["auc"] == closed["metrics"]["auc_exact"]


def test_finished_cells_are_not_run_again(bench, monkeypatch):
    first = bench()
    monkeypatch.setattr(running, "make_results", lambda *a: pytest.fail("run again"))
    again = bench()
    assert numbers(again) == numbers(first)
    assert all("done before" in line for line in bench.log_lines)


def test_a_world_added_later_uses_the_same_training(bench, monkeypatch):
    bench("csp", worlds="closed")
    monkeypatch.setattr(Trainer, "run", lambda *a: pytest.fail("trained again"))
    assert bench("csp", worlds="closed,open").failed == 0


def test_settings_are_cells_of_their_own(bench):
    bench("csp", worlds="closed")
    bench("csp", worlds="closed", settings={"word_dropout": 0.0})
    assert not any("done before" in line for line in bench.log_lines)
    bench("csp", worlds="closed")
    assert "done before" in bench.log_lines[-1]


def test_changed_data_makes_results_stale_and_says_so(bench, toys, tmp_path):
    data = shutil.copytree(toys, tmp_path / "data")
    bench("csp", worlds="closed", data=data)
    file = pairs_file(data / "toys", "test")
    file.write_text(file.read_text() + "red right\n")
    result = bench("csp", worlds="closed", data=data)
    assert any("stale because data: test_pairs.txt changed" in line for line in bench.log_lines)
    assert result.results[0]["protocol"]["columns"] == 8
    assert list((tmp_path / "runs").rglob("closed.stale.json"))


def test_changed_weights_make_results_stale(bench, tmp_path, clip_file):
    weights = shutil.copy(clip_file, tmp_path / "mine.pt")
    (before,) = bench("csp", worlds="closed", settings={"backbone": str(weights)}).results
    state = read_tensors(weights)
    torch.save(state | {"visual.proj": state["visual.proj"].flip(0)}, weights)
    (after,) = bench("csp", worlds="closed", settings={"backbone": str(weights)}).results
    assert any("stale because weights changed" in line for line in bench.log_lines)
    assert before["training"]["history"] != after["training"]["history"]


@pytest.mark.parametrize("part", ["make_results", "usable_results"])
def test_the_traceback_of_a_failed_cell_is_in_a_file_until_the_cell_is_done(bench, monkeypatch, part):
    with monkeypatch.context() as broken:
        broken.setattr(running, part, lambda *arguments: 1 / 0)
        (failed,) = bench("clip", worlds="closed").results
        (file,) = [
            re.search(r"traceback of the closed world is in (.*)", line) for line in bench.log_lines if "is in" in line
        ]
        path = Path(file[1])
        assert path.name == "closed.error.txt"
        assert path.read_text() == failed["error"]["traceback"]
        assert path.read_text().endswith("ZeroDivisionError: division by zero\n")
        assert not any("Traceback" in line for line in bench.log_lines)
        bench("clip", worlds="closed", verbose=True)
        assert sum(path.read_text() in line for line in bench.log_lines) == 1
    assert bench("clip", worlds="closed").failed == 0
    assert not path.exists()


def test_a_result_leaves_out_the_middle_of_a_long_error(bench, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the start " + "\0" * 9_000_000 + " the end")

    monkeypatch.setattr(running, "make_results", fail)
    for _ in range(2):
        (failed,) = bench("clip", worlds="closed").results
        assert failed["error"]["message"].startswith("the start ")
        assert failed["error"]["message"].endswith(" the end")
        assert "\n[8,900,018 characters are left out]\n" in failed["error"]["message"]
    (read,) = Store(tmp_path / "runs").results()
    assert read == failed
    (whole,) = tmp_path.rglob("closed.error.txt")
    assert "\0" * 9_000_000 in whole.read_text()
    assert not list(tmp_path.rglob("*.stale*"))


def test_verbose_logs_the_traceback_of_a_cell_that_cannot_be_estimated(bench, monkeypatch):
    monkeypatch.setattr(running, "usable_results", lambda job: 1 / 0)
    for verbose in (False, True):
        bench("clip", worlds="closed", estimate=True, verbose=verbose)
        assert any("Traceback" in line for line in bench.log_lines) is verbose


def test_one_failed_cell_does_not_take_the_others_down(bench, monkeypatch):
    real = czslkit.Method.loss

    def loss(self, batch, pairs):
        return real(self, batch, pairs) * float("nan" if type(self).__name__ == "Coop" else 1)

    monkeypatch.setattr(czslkit.Method, "loss", loss)
    result = bench("coop,csp", worlds="closed")
    assert [r["status"] for r in result.results] == ["failed", "done"]
    assert result.failed == 1
    assert result.results[0]["error"]["type"] == "TrainingError"
    assert "epoch 1, step 1 of 2" in result.table().to_text()
    monkeypatch.setattr(czslkit.Method, "loss", real)
    assert bench("coop,csp", worlds="closed").failed == 0


def test_settings_that_do_not_fit_the_backbone_fail_their_cell_alone(bench):
    result = bench("csp,msci", worlds="closed", settings={"msci.low_layers": 9})
    assert [r["status"] for r in result.results] == ["done", "failed"]
    assert "low_high needs 9 low and 2 high layers, the backbone has 5" in result.results[1]["error"]["message"]


def test_an_absent_dataset_leaves_the_others_to_run(bench):
    result = bench("clip", datasets="cgqa,toys", worlds="closed")
    assert [r["status"] for r in result.results] == ["failed", "done"]
    message = result.results[0]["error"]["message"]
    assert "cgqa is absent: looked for" in message
    assert "cgqa.zip" in message


def test_finished_results_outlive_their_dataset(bench, toys, tmp_path):
    data = shutil.copytree(toys, tmp_path / "data")
    os.rename(data / "toys", data / "cgqa")
    first = bench("clip", datasets="cgqa", worlds="closed", data=data)
    shutil.rmtree(data / "cgqa")
    assert numbers(bench("clip", datasets="cgqa", worlds="closed", data=data)) == numbers(first)
    assert any("finished results are kept: closed" in line for line in bench.log_lines)


def test_weights_that_are_gone_keep_what_was_measured(bench, tmp_path, clip_file):
    weights = shutil.copy(clip_file, tmp_path / "mine.pt")
    first = bench("csp", worlds="closed", settings={"backbone": str(weights)})
    weights.unlink()
    with pytest.raises(ConfigError, match="which is not the path of a file that exists"):
        bench("csp", worlds="closed", settings={"backbone": str(weights)})
    named = {"backbone": f"open_clip/ViT-B-32/{weights}"}
    result = bench("csp", worlds="closed", settings=named)
    assert f"there is no file {weights}" in result.results[0]["error"]["message"]
    assert first.failed == 0


def test_a_failure_that_cannot_be_stored_leaves_the_others_to_run(bench, monkeypatch):
    real = Store.put

    def put(self, result):
        if result["cell"]["method"] == "clip":
            raise OSError(28, "No space left on device")
        return real(self, result)

    monkeypatch.setattr(Store, "put", put)
    result = bench("clip,csp", worlds="closed")
    assert [r["status"] for r in result.results] == ["failed", "done"]
    assert "No space left on device" in result.results[0]["error"]["message"]


def test_data_that_has_become_unreadable_keeps_what_was_measured(bench, toys, tmp_path):
    data = shutil.copytree(toys, tmp_path / "data")
    first = bench("clip", worlds="closed", data=data)
    next((data / "toys" / "images").rglob("*.png")).unlink()
    again = bench("clip,coop", worlds="closed", data=data)
    assert numbers(again)[:1] == numbers(first)
    assert [r["status"] for r in again.results] == ["done", "failed"]
    assert any("finished results are kept: closed" in line for line in bench.log_lines)


def test_a_new_method_is_prepared_once_before_anything_is_measured(bench, toys, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(czslkit.METHODS["csp"], "prepare", lambda self, data: calls.append((data.name, len(data))))
    rank = czslkit.Method.rank
    monkeypatch.setattr(czslkit.Method, "rank", lambda *a: (calls.append("rank"), rank(*a))[1])
    bench("csp")
    assert calls[0] == ("toys", 21)
    assert calls.count(("toys", 21)) == 1
    calls.clear()
    (training,) = tmp_path.glob("runs/toys/csp/*/training")
    where = {"data": toys, "runs": tmp_path / "other", "log": lambda line: None}
    assert not czslkit.bench(None, "toys", checkpoints=[training], **where).failed
    assert calls[0] == "rank"  # a checkpoint has what its training prepared
    assert ("toys", 21) not in calls


@pytest.mark.parametrize(("cached", "counted"), [(False, "37 images of toys"), (True, "21 train images")])
def test_an_unreadable_image_fails_before_anything_is_trained(bench, toys, tmp_path, monkeypatch, cached, counted):
    data = shutil.copytree(toys, tmp_path / "data")
    image = next((data / "toys" / "images").rglob("train*.png"))
    image.write_bytes(image.read_bytes()[:100])
    monkeypatch.setattr(Trainer, "run", lambda *a: pytest.fail("trained"))
    result = bench("clip,csp", worlds="closed", data=data, cache_images=cached)
    for failed in result.results:
        assert f"1 of {counted} cannot be read:\n  {image}" in failed["error"]["message"]


def trained(result) -> list:
    return [(r["cell"], r["metrics"], r["training"]["history"]) for r in result.results]


def test_no_number_depends_on_the_cache(tmp_path):
    write_mini("ut-zappos", tmp_path / "data")
    log_lines = []

    def bench(runs, methods="clip,csp,msci", **arguments):
        where = {"data": tmp_path / "data", "runs": tmp_path / runs, "log": log_lines.append, "progress": False}
        settings = {"backbone": "demo", "train.epochs": 1, "csp.train.augment": False}
        return czslkit.bench(methods, "ut-zappos", "closed", settings=settings, **where, **arguments)

    without = bench("off", cache="off")
    filled = bench("filled", cache=tmp_path / "kept", cache_images=True)
    again = bench("again", "csp", cache=tmp_path / "kept", cache_images=True)
    assert trained(filled) == trained(without)
    assert trained(again) == trained(filled)[1:2]
    assert not list((tmp_path / "off").glob("cache*"))
    kinds = sorted(file.name.rsplit("-", 2)[0] for file in (tmp_path / "kept").glob("[!.]*"))
    assert [kind.split("-")[:2] for kind in kinds] == [[k, s] for k in ("features", "images") for s in SPLITS]
    assert sum(line.startswith("making") for line in log_lines) == len(kinds)


def test_features_are_cached_below_the_results_by_default(bench, tmp_path):
    bench("clip", worlds="closed")
    [file] = (tmp_path / "runs" / "cache").glob("features-test-*.safetensors")
    assert f"making the features of 8 test images: 2.0 kB in {file}" in bench.log_lines


def test_with_decoded_images_kept_every_file_is_read_once(bench, monkeypatch):
    read = []
    real = images.open_image
    monkeypatch.setattr(images, "open_image", lambda path: read.append(path) or real(path))
    assert bench("csp,msci", worlds="closed", cache_images=True).failed == 0
    assert len(read) == len(set(read)) == 37


def test_without_room_for_decoded_images_the_benchmark_goes_on(bench, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=100))
    assert bench("csp", worlds="closed", cache_images=True).failed == 0
    room = f"no space for 21 decoded train images: 65 kB needed, 0.1 kB free in {tmp_path / 'runs' / 'cache'}"
    assert any(room in line for line in bench.log_lines)
    assert list((tmp_path / "runs" / "checked").iterdir())


def test_images_cannot_be_cached_without_a_cache(bench):
    message = "cache is off, but cache_images asks to keep images in it: leave out one of the two"
    with pytest.raises(ConfigError, match=message):
        bench(cache="off", cache_images=True)


def test_wrong_names_are_all_reported_and_nothing_runs(bench, tmp_path):
    with pytest.raises(ConfigError, match=r"no method named 'cps'[\s\S]*no dataset named 'toy'\. Did you mean 'toys'"):
        bench("cps", datasets="toy")
    assert not (tmp_path / "runs").exists()


def test_a_result_file_that_is_damaged_is_made_again(bench, tmp_path):
    first = bench("clip", worlds="closed")
    (path,) = (tmp_path / "runs").rglob("closed.json")
    path.write_text(path.read_text()[:50])
    assert numbers(bench("clip", worlds="closed")) == numbers(first)
    assert any("cannot be read" in line for line in bench.log_lines)
    assert path.with_name("closed.stale.json").exists()


def test_a_killed_benchmark_completes_with_the_same_numbers(toys, clip_file, tmp_path):
    """A process is killed again and again, each time when a new file is on disk."""

    log = tmp_path / "log.txt"

    def start(runs):
        settings = f"backbone={clip_file} train.epochs=3 train.batch_size=4 train.lr=0.01".split()
        settings += ["msci.low_layers=2", "msci.high_layers=2", "msci.heads=[2, 2]"]
        command = [sys.executable, "-m", "czslkit", "bench", "--methods", "csp,msci", "--datasets", "toys"]
        command += ["--data", str(toys), "--runs", str(runs), "--set", *settings]
        with log.open("a") as out:
            return subprocess.Popen(command, stdout=out, stderr=out)

    def files():
        return {(p, p.stat().st_mtime_ns) for p in (tmp_path / "cut").rglob("*") if p.is_file()}

    whole = start(tmp_path / "whole")
    kills = 0
    while True:
        before, process = files(), start(tmp_path / "cut")
        while process.poll() is None and len(files() - before) < 3 + 2 * kills:
            time.sleep(0.01)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert whole.wait() == process.returncode == 0, log.read_text()
    assert kills >= 2

    def found(runs):
        keys = ("cell", "metrics")
        return [[r[key] for key in keys] + [r["training"]["history"]] for r in Store(runs).results()]

    assert found(tmp_path / "cut") == found(tmp_path / "whole")
    assert len(found(tmp_path / "cut")) == 4


def test_an_estimate_logs_time_and_memory_and_runs_nothing(bench, tmp_path):
    result = bench("csp", estimate=True)
    assert (result.failed, result.results) == (0, ())
    prefix = r"\[1/1\] csp on toys, seed 0: "
    evaluation = rf"{prefix}test, open world, about: 8 images x 9 pairs, 8 x 9 at a time: \d+ s, \d+ MB"
    assert re.fullmatch(evaluation, bench.log_lines[1])
    assert re.fullmatch(rf"{prefix}training of 2 epochs, about: \d+ s, [\d.]+ [kM]B", bench.log_lines[2])
    assert not list((tmp_path / "runs").glob("*/*/*/*.json"))
    bench("csp")
    assert any(re.fullmatch(evaluation, line) for line in bench.log_lines)
    bench("csp", estimate=True)
    assert bench.log_lines == ["[1/1] csp on toys, seed 0: done before"]


@pytest.mark.parametrize("augment", [False, True])
def test_an_estimate_has_the_companions_of_a_method(bench, monkeypatch, augment):
    csp, loss = czslkit.METHODS["csp"], czslkit.Method.loss
    monkeypatch.setattr(csp, "companions", lambda self, data, index, generator: {"first": index[:3]})
    monkeypatch.setattr(csp, "loss", lambda self, batch, pairs: loss(self, batch.companions["first"], pairs))
    result = bench("csp", settings={"train.augment": augment}, estimate=True)
    assert not result.failed
    assert re.search(r"training of 2 epochs, about: \d+ s", bench.log_lines[-1])


def test_too_little_memory_is_logged_by_an_estimate_and_fails_the_cell(bench):
    before, after = bench("clip", memory="9MB", estimate=True), bench("clip", memory="9MB")
    assert (before.failed, after.failed) == (2, 2)
    for result in (*before.results, *after.results):
        assert re.match(r"memory is 9.0 MB, but \d+ MB are needed: ", result["error"]["message"])
    with pytest.raises(ConfigError, match="memory: '4 apples' is not a size such as 4GB or 512MiB"):
        bench("clip", memory="4 apples")
