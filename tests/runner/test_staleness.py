"""Changes that make a result stale, changes that need only another evaluation, and changes without effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

import czslkit
from czslkit import evaluation, precision, provenance, source_code
from czslkit import training as training_package
from czslkit.heads import CosineHead
from czslkit.method import METHODS, Method
from czslkit.provenance import class_name, class_version, class_versions, current_version
from czslkit.result_store import FORMAT_1, Store
from czslkit.types import TextFeatures
from czslkit.weights import read_safetensors, write_tensors


@pytest.fixture
def bench(bench_toys: Any) -> Any:
    return bench_toys


def cell(runs: Path) -> Path:
    (path,) = runs.rglob("closed.json")
    return path.parent


def as_format_1(path: Path, **depends: Any) -> dict[str, Any]:
    """Rewrite a result in format 1 and return its new content."""
    result = json.loads(path.read_text())
    training = result.pop("depends")["training"]
    old = {"data": training["data"], "code": {"czslkit.method": "d1"}, "plugins": {}, "weights": training["weights"]}
    content = {**result, "format": 1, "depends": old | depends}
    for later in ("training_key", "digest"):
        content.pop(later)
    path.write_text(json.dumps(content))
    return content


def test_a_raised_version_of_the_evaluation_evaluates_again_without_training(
    bench: Any, trainings: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (first,) = bench().results
    weights = (cell(tmp_path / "runs") / "training" / "weights.safetensors").read_bytes()
    assert len(trainings) == 2
    monkeypatch.setattr(evaluation, "VERSION", 2)
    (again,) = bench().results
    assert len(trainings) == 2
    assert any(line.endswith("closed world stale because code: czslkit.evaluation changed") for line in bench.log_lines)
    assert again["metrics"] == first["metrics"]
    assert again["depends"]["evaluation"]["code"]["czslkit.evaluation"] == "version 2"
    assert (cell(tmp_path / "runs") / "training" / "weights.safetensors").read_bytes() == weights
    assert not list((tmp_path / "runs").rglob("training.stale*"))
    assert bench().results == (again,)
    assert bench.log_lines[-1].endswith("done before")


@pytest.mark.parametrize("where", ["training loop", "head", "method"])
def test_a_raised_version_trains_again_and_keeps_the_old_weights(
    bench: Any, trainings: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    bench()
    weights = (cell(tmp_path / "runs") / "training" / "weights.safetensors").read_bytes()
    owner, name, changed = {
        "training loop": (training_package, "VERSION", "czslkit.training"),
        "head": (CosineHead, "version", "czslkit.heads.cosine:CosineHead"),
        "method": (METHODS["csp"], "version", "czslkit_plugins.csp:Csp"),
    }[where]
    for version, kept in ((2, "training.stale"), (3, "training.stale-2")):
        monkeypatch.setattr(owner, name, version)
        (again,) = bench().results
        assert any(line.endswith(f"closed world stale because code: {changed} changed") for line in bench.log_lines)
        assert len(trainings) == 2 * version
        assert again["depends"]["training"]["code"][changed] == f"version {version}"
        folder = cell(tmp_path / "runs")
        assert (folder / kept / "weights.safetensors").read_bytes() == weights
        assert any(str(folder / kept) in line for line in bench.log_lines)
    assert {file.name for file in folder.glob("closed.stale*.json")} == {"closed.stale.json", "closed.stale-2.json"}


def test_an_evaluation_setting_makes_another_cell_with_the_same_training(bench: Any, trainings: list[int]) -> None:
    (first,) = bench().results
    (other,) = bench(settings={"eval.infeasible": "original"}).results
    assert len(trainings) == 2
    assert first["cell"]["config_id"] != other["cell"]["config_id"]
    assert first["training"]["history"] == other["training"]["history"]
    assert first["training_key"] == other["training_key"]
    assert any("has the same settings, data and code, and is used here" in line for line in bench.log_lines)
    bench(settings={"eval.bins": "exact"})  # the AUC that the epoch is selected by
    assert len(trainings) == 4


def test_stale_results_can_be_kept_and_are_named_in_the_table(
    bench: Any, trainings: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (first,) = bench().results
    monkeypatch.setattr(training_package, "VERSION", 2)
    kept = bench(keep_stale=True)
    assert len(trainings) == 2
    reason = "code: czslkit.training changed"
    assert kept.results == ({**first, "stale": reason},)
    assert any(f"kept although it is stale because {reason}" in line for line in bench.log_lines)
    for table in (kept.table(), czslkit.runner.bench.Table(Store(tmp_path / "runs").results())):
        assert any(reason in note and note.startswith("csp on toys (closed") for note in table.notes())
    closed, opened = bench(worlds="closed,open", keep_stale=True).results  # the new world uses the weights on disk
    assert len(trainings) == 2
    assert opened["status"] == "done" and opened["stale"] == closed["stale"] == reason
    assert opened["depends"]["training"] == first["depends"]["training"]
    monkeypatch.setattr(training_package, "VERSION", 1)
    assert bench().results == (first,)
    assert len(trainings) == 2
    monkeypatch.setattr(training_package, "VERSION", 3)
    assert "stale" not in bench(worlds="open").results[0]
    assert len(trainings) == 4


SQUASH = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear", "resize_mode": "squash"}
RECORD = {"mode": "squash", "interpolation": "bilinear", "crop": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture
def bench_tagged(bench: Any, clip_file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Benchmark of CSP on an open_clip model with a pretrained tag that says how images are prepared."""
    model = {
        "embed_dim": 64,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 5, "width": 128, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", model)

    def go(said: dict[str, Any]) -> Any:
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"web": said})
        (result,) = bench(settings={"backbone": f"tiny/{clip_file}"}).results
        return result

    return go


def test_a_result_records_how_images_are_prepared_and_is_stale_when_it_changes(
    bench: Any, bench_tagged: Any, trainings: list[int]
) -> None:
    assert bench_tagged(SQUASH)["depends"]["training"]["preprocessing"] == RECORD
    bench_tagged(SQUASH)
    assert len(trainings) == 2
    changed = bench_tagged(SQUASH | {"resize_mode": "longest"})
    assert changed["depends"]["training"]["preprocessing"] == RECORD | {"mode": "longest", "fill": [0, 0, 0]}
    reason = "closed world stale because preprocessing: mode changed; preprocessing: fill added"
    assert any(line.endswith(reason) for line in bench.log_lines)
    assert len(trainings) == 4


def test_results_with_the_images_of_openais_clip_record_nothing_and_stay(
    bench: Any, bench_tagged: Any, trainings: list[int], tmp_path: Path
) -> None:
    assert "preprocessing" not in bench_tagged({})["depends"]["training"]
    other_mean = bench_tagged({"mean": (0.5, 0.5, 0.5)})  # as an earlier version has taken it without a record
    assert "preprocessing" not in other_mean["depends"]["training"]
    assert len(trainings) == 2
    bench_tagged(SQUASH)  # as an earlier version has not taken it
    assert any("closed world stale because preprocessing: mode added" in line for line in bench.log_lines)
    assert len(trainings) == 4


def test_a_result_stays_where_the_preprocessing_is_unknown(
    bench: Any, bench_tagged: Any, monkeypatch: pytest.MonkeyPatch, trainings: list[int]
) -> None:
    bench_tagged(SQUASH)
    monkeypatch.setattr("czslkit.runner.staleness.stated_preprocessing", lambda setting: None)
    assert bench_tagged(SQUASH)["depends"]["training"]["preprocessing"] == RECORD
    assert len(trainings) == 2


def test_a_docstring_and_a_help_text_change_nothing(
    bench: Any, trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench().results
    monkeypatch.setattr(CosineHead, "__doc__", "Another text.")
    monkeypatch.setattr(METHODS["csp"].Options, "__doc__", "Another text.")
    assert bench().results == first
    assert bench.log_lines == ["[1/1] csp on toys, seed 0: done before"]


def test_code_that_no_number_depends_on_is_no_dependency(bench: Any) -> None:
    """The code of the command line, of tables and of the report has no version."""
    (found,) = bench().results
    code = {*found["depends"]["training"]["code"], *found["depends"]["evaluation"]["code"]}
    above = ("czslkit.cli", "czslkit.report", "czslkit.explain", "czslkit.runner", "czslkit.result_store")
    assert code and not [name for name in code if name.startswith(above)]


def test_results_of_format_1_are_read_and_are_not_stale(bench: Any, trainings: list[int], tmp_path: Path) -> None:
    (first,) = bench().results
    as_format_1(cell(tmp_path / "runs") / "closed.json")
    (again,) = bench().results
    assert bench.log_lines[-1].endswith("done before")
    assert again["metrics"] == first["metrics"]
    assert again["depends"]["training"]["code"] == {FORMAT_1: "version 1"}
    assert "csp" in bench().table().to_text()
    assert len(trainings) == 2


def test_results_of_format_1_are_stale_after_a_version_is_raised(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench()
    as_format_1(cell(tmp_path / "runs") / "closed.json")
    monkeypatch.setattr(CosineHead, "version", 2)
    (again,) = bench().results
    assert any(f"stale because code: {FORMAT_1} changed" in line for line in bench.log_lines)
    assert again["format"] == 3
    assert again["depends"]["training"]["code"]["czslkit.heads.cosine:CosineHead"] == "version 2"


def test_a_stale_evaluation_of_format_1_is_made_again_with_its_weights(
    bench: Any, trainings: list[int], tmp_path: Path
) -> None:
    """The state on disk has the key of format 1; the result shows that this key is still valid."""
    (first,) = bench(worlds="closed").results
    folder = cell(tmp_path / "runs")
    as_format_1(folder / "closed.json")
    key = Store(tmp_path / "runs").get(first["cell"])["training_key"]
    state = folder / "training" / "last.safetensors"
    tensors, metadata = read_safetensors(state)
    write_tensors(tensors, state, metadata | {"key": key})
    (opened,) = bench(worlds="open").results
    assert len(trainings) == 2
    assert opened["status"] == "done"
    assert opened["training"]["history"] == first["training"]["history"]
    assert not list(folder.glob("training.stale*"))


def test_a_plugin_in_format_1_counts_by_its_distribution(bench: Any, tmp_path: Path) -> None:
    bench()
    path = cell(tmp_path / "runs") / "closed.json"
    shipped = {
        "torch.nn": f"torch {provenance.version('torch')} (torch.nn)",
        "czslkit_plugins.csp": "czslkit 0.0.1 (x)",
    }
    as_format_1(path, plugins=shipped)
    bench()
    assert bench.log_lines[-1].endswith("done before")
    content = json.loads(path.read_text())
    content["depends"]["plugins"] = {"torch.nn": "torch 0.1 (torch.nn)"}
    path.write_text(json.dumps(content))
    bench()
    assert any("stale because code: torch.nn changed" in line for line in bench.log_lines)
    assert not bench.log_lines[-1].endswith("done before")


def test_a_class_counts_by_its_own_version_or_by_its_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sub(CosineHead):
        pass

    assert class_version(CosineHead) == "version 1"
    assert class_version(torch.nn.Linear) is None and class_version(TextFeatures) is None
    file = tmp_path / "my_head.py"
    file.write_text("from czslkit.heads import CosineHead\nclass Mine(CosineHead):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import my_head

    before = class_version(my_head.Mine)
    assert before is not None and before.startswith("code ")
    file.write_text(file.read_text() + "    longer = True\n")
    assert class_version(my_head.Mine) == before  # this process goes on with the code that it has imported
    provenance._version_of_loaded.cache_clear()
    source_code._read_once.cache_clear()
    assert class_version(my_head.Mine) not in (None, before)
    assert current_version("my_head:Mine") == class_version(my_head.Mine)
    assert class_versions([my_head.Mine])["czslkit.heads.cosine:CosineHead"] == "version 1"
    my_head.Mine.version = 7
    assert class_version(my_head.Mine) == "version 7"


def test_a_name_that_does_not_exist_has_no_version() -> None:
    assert current_version("czslkit.heads.cosine:NoSuchHead") is None
    assert current_version("czslkit.no_such_module:Head") is None
    assert current_version("czslkit.evaluation") == "version 1"
    assert current_version(class_name(Method)) == "version 1"


def test_a_package_in_editable_mode_counts_by_its_code_too(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = provenance.module_version("filelock")
    assert plain == f"filelock {provenance.version('filelock')}"
    monkeypatch.setattr(provenance, "_is_editable", lambda name: True)
    provenance._version_of_loaded.cache_clear()
    assert provenance.module_version("filelock").startswith(f"{plain}, code ")
    provenance._version_of_loaded.cache_clear()


def test_a_training_that_was_finished_is_not_saved_again(bench: Any, tmp_path: Path) -> None:
    bench(worlds="closed")
    saved = cell(tmp_path / "runs") / "training" / "method.json"
    before = saved.stat().st_mtime_ns
    bench(worlds="closed,open")
    assert saved.stat().st_mtime_ns == before
    assert json.loads(saved.read_text())["training_key"]


def test_a_raised_evaluation_version_evaluates_results_of_format_1_again_without_training(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (first,) = bench().results
    as_format_1(cell(tmp_path / "runs") / "closed.json")
    monkeypatch.setattr(evaluation, "VERSION", 2)
    result = Store(tmp_path / "runs").get(first["cell"])
    spec = czslkit.runner.plan.plan(["csp"], ["toys"], ["closed"], settings={"backbone": "demo"})[0]
    assert "code" not in czslkit.runner.staleness.training_changes(result, spec, {})
    assert FORMAT_1 in czslkit.runner.staleness.evaluation_changes(result, spec, None)


def test_number_formats_other_than_fp32_are_recorded_and_depend_on_their_version(
    bench: Any, trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (plain,) = bench().results
    assert "precision" not in plain["protocol"] and "precision" not in plain["config"]["eval"]
    rounded = {"settings": {"train.precision": "bf16", "eval.precision": "tf32"}}
    (first,) = bench(**rounded).results
    assert first["protocol"]["precision"] == {"train": "bf16", "eval": "tf32"}
    assert first["cell"]["config_id"] != plain["cell"]["config_id"]
    assert bench(**rounded).results == (first,)
    trained = len(trainings)
    monkeypatch.setattr(precision, "VERSION", 2)
    assert bench().results == (plain,)
    assert len(trainings) == trained
    (again,) = bench(**rounded).results
    assert len(trainings) > trained
    for part in ("training", "evaluation"):
        assert again["depends"][part]["code"]["czslkit.precision"] == "version 2"
        assert "czslkit.precision" not in plain["depends"][part]["code"]
