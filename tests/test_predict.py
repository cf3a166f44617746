"""Predictions for photos are those of the evaluator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import czslkit
from czslkit import gallery
from czslkit.checkpoints.calibration import write_calibration
from czslkit.checkpoints.trained import save
from czslkit.data.batches import Feed
from czslkit.data.images import upright
from czslkit.errors import ConfigError, DataError
from czslkit.evaluation.evaluator import Evaluation, OpenWorld, SearchedThreshold
from czslkit.feasibility_files import text_feasibility
from czslkit.json_digest import with_digest
from czslkit.method import METHODS
from czslkit.metrics.curves import predict
from czslkit.predict import predict_images
from czslkit.prediction import Calibration, Predictor

#: Settings that make a method small; any other method has its own defaults.
SMALL: dict[str, dict[str, Any]] = {
    "gipcol": {"graph_layers": "d16,d"},
    "msci": {"low_layers": 2, "high_layers": 3, "heads": (2, 2), "layers": (1, 2), "adapter_dim": 4},
    "troika": {"layers": 2, "adapter_dim": 4},
    "tomcat": {"adapter_dim": 4},
}


def built(name: str, space: Any, clip_file: Path, **options: Any) -> Any:
    torch.manual_seed(0)
    method = czslkit.build(name, space, **{"backbone": str(clip_file), **SMALL.get(name, {}), **options})
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return method.eval()


@pytest.fixture(scope="module")
def data(toys):
    return czslkit.load_dataset("toys", toys)


@pytest.fixture
def csp(data, clip_file):
    return built("csp", data.space, clip_file)


def evaluated(method, data, world, open_world=None):
    """Return the sweep of the evaluator on the test split."""
    feed = Feed(method, data.test, 8)
    return Evaluation.plan(method, data, "test", [world], feed, open_world=open_world, keep=9).run()[world]


def named(predictions, space, places=1):
    """Return attribute and object index of the best pairs, ``[N, places, 2]``."""
    return torch.tensor(
        [[(space.attrs.index(q.attr), space.objs.index(q.obj)) for q in p.pairs[:places]] for p in predictions]
    )


@pytest.mark.parametrize("world", ["closed", "open"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_predicts_what_the_evaluator_finds(name, world, data, clip_file):
    method = built(name, data.space, clip_file)
    pairs = data.space.pairs[data.candidates("test")] if world == "closed" else None
    sweep = evaluated(method, data, world)
    scores, columns, bias = sweep.top_scores()[0], sweep.candidates, 0.3
    found = method.predict(data.test.paths, pairs, 3, world=world, bias=bias, batch_size=8)
    assert torch.equal(named(found, data.space)[:, 0], columns.pairs[predict(scores, bias)[:, 0]])
    for one, best, numbers in zip(found, scores.top.score, scores.top.column, strict=True):
        known = numbers < len(columns)
        with_bias = best[known] + torch.where(columns.seen[numbers[known]], 0, bias)
        assert [pair.score for pair in one.pairs] == pytest.approx(sorted(with_bias.tolist())[:-4:-1], abs=1e-4)


@pytest.mark.parametrize("name", ["csp", "msci", "compcos"])
def test_seen_and_unseen_accuracy_at_the_bias_are_those_of_the_evaluator(name, data, clip_file):
    method = built(name, data.space, clip_file)
    metrics = evaluated(method, data, "closed").compute()
    pairs = data.space.pairs[data.candidates("test")]
    bias = min(max(metrics.hm_bias, -1000.0), 1000.0)
    found = named(method.predict(data.test.paths, pairs, 1, bias=bias), data.space)[:, 0]
    right = (found == torch.stack([data.test.attr, data.test.obj], 1)).all(1).double()
    shown = data.test.attr * len(data.space.objs) + data.test.obj
    seen = torch.isin(shown, data.space.flat()[data.space.seen])
    assert float(right[seen].mean()) == pytest.approx(metrics.hm_seen)
    assert float(right[~seen].mean()) == pytest.approx(metrics.hm_unseen)


def test_pairs_that_a_method_never_predicts_are_in_no_prediction(csp, data, monkeypatch):
    never = data.space.pairs[:, 0] == 1

    def rank(scores, pairs, setting):
        return scores.pair.masked_fill(pairs[:, 0] == 1, -torch.inf)

    monkeypatch.setattr(type(csp), "masks_pairs", "pairs of green")
    csp.head.rank = rank
    found = csp.predict(data.test.paths, top=99)
    for one in found:
        assert len(one.pairs) == int((~never).sum()) and "green" not in {pair.attr for pair in one.pairs}
        assert sum(pair.probability for pair in one.pairs) == pytest.approx(1)
    best = evaluated(csp, data, "open").top_scores()[0].top
    expected = data.space.open().pairs[best.column[:, 0]]
    assert torch.equal(named(csp.predict(data.test.paths, world="open", bias=0.0), data.space)[:, 0], expected)


def test_probabilities_are_sums_of_a_softmax_over_the_candidates(csp, data):
    (found,) = csp.predict(data.test.paths[0], top=99, bias=0.5)
    scores = np.array([pair.score for pair in found.pairs])
    shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    assert len(found.pairs) == len(data.space.pairs)
    assert [pair.probability for pair in found.pairs] == pytest.approx(shares, abs=1e-5)
    for word in data.space.attrs:
        expected = sum(share for pair, share in zip(found.pairs, shares, strict=True) if pair.attr == word)
        assert float(found.attrs[data.space.attrs.index(word)]) == pytest.approx(expected, abs=1e-5)
        assert all(
            pair.attr_probability == pytest.approx(expected, abs=1e-5) for pair in found.pairs if pair.attr == word
        )
    assert float(found.objs.sum()) == pytest.approx(1)


def test_paths_pictures_and_arrays_of_one_photo_get_the_same_scores(csp, data):
    path = data.test.paths[0]
    with Image.open(path) as file:
        picture = file.convert("RGB")
    found = csp.predict([path, str(path), picture, np.asarray(picture)])
    assert [one.pairs[0].score for one in found] == pytest.approx([found[0].pairs[0].score] * 4)
    assert [one.image for one in found] == [str(path), str(path), "2", "3"]
    for single in (path, str(path), picture, np.asarray(picture)):
        assert len(csp.predict(single)) == 1
    assert len(csp.predict(np.stack([np.asarray(picture)] * 2))) == 2
    assert len(csp.predict(np.array([str(path)] * 2))) == 2
    names, rows = np.array(["red left"]), np.array([[data.space.attrs.index("red"), data.space.objs.index("left")]])
    assert (
        csp.predict(path, names)[0].pairs == csp.predict(path, rows)[0].pairs == csp.predict(path, "red left")[0].pairs
    )
    assert csp.predict([]) == []


def test_a_damaged_picture_in_memory_is_named(csp, data, tmp_path):
    whole = Path(data.test.paths[0]).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with Image.open(tmp_path / "half.png") as picture, pytest.raises(DataError, match="the image cannot be read: "):
        upright(picture)


def test_a_predictor_without_text_encoder_only_knows_the_words_of_its_training(csp, data):
    with pytest.raises(ConfigError, match="Csp only knows the words of its training"):
        Predictor.with_words(csp, data.space)


def test_more_pairs_than_there_are_need_no_memory(csp, data):
    (found,) = csp.predict(data.test.paths[0], top=10**12)
    assert len(found.pairs) == len(data.space.pairs)


def test_a_photo_that_is_turned_is_read_upright(csp, data, tmp_path):
    with Image.open(data.test.paths[0]) as file:
        picture = file.convert("RGB").resize((64, 40))
    turned, exif = picture.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    picture.save(tmp_path / "upright.png")
    first, second = csp.predict([tmp_path / "turned.png", tmp_path / "upright.png"])
    assert first.pairs == second.pairs


def test_workers_and_batch_sizes_change_no_prediction(csp, data):
    expected = csp.predict(data.test.paths)
    for settings in ({"batch_size": 3}, {"batch_size": 2, "workers": 2}):
        found = csp.predict(data.test.paths, **settings)
        for one, other in zip(found, expected, strict=True):
            assert [pair.score for pair in one.pairs] == pytest.approx([pair.score for pair in other.pairs], abs=1e-4)


@pytest.mark.parametrize("name", ["csp", "msci", "tomcat"])
def test_an_unreadable_photo_changes_no_other_prediction(name, data, clip_file, tmp_path):
    method = built(name, data.space, clip_file)
    (tmp_path / "bad.png").write_text("no photo")
    paths = [*data.test.paths[:3], tmp_path / "bad.png", tmp_path / "gone.png", *data.test.paths[3:6]]
    found = method.predict(paths, workers=2, batch_size=2)
    assert [bool(one.error) for one in found] == [False] * 3 + [True] * 2 + [False] * 3
    assert "bad.png is not a readable image" in found[3].error and not found[3].pairs and found[3].attrs.isnan().all()
    expected = method.predict(data.test.paths[:6], batch_size=2)
    for one, other in zip([one for one in found if not one.error], expected, strict=True):
        assert [pair.score for pair in one.pairs] == pytest.approx([pair.score for pair in other.pairs], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top": 0}, "top is 0, expected a whole number from 1"),
        ({"batch_size": 1.5}, r"batch_size is 1\.5, expected a whole number from 1"),
        ({"world": "opened"}, "world is 'opened', expected closed or open"),
        ({"bias": float("inf")}, "bias is inf, expected a finite number"),
        ({"pairs": torch.tensor([[0, 7]])}, r"pairs are \[\[0, 7\]\], expected at least one pair of indices below 3"),
        ({"pairs": []}, r"pairs are \[\], expected at least one pair"),
        ({"images": [np.zeros((4, 4, 3))]}, r"image 0 is a ndarray of float64 \[4, 4, 3\], expected a path, a PIL"),
        ({"images": [3]}, "image 0 is a int, expected a path, a PIL image, or an array of uint8"),
        ({"images": 3}, "image 0 is a int, expected a path, a PIL image, or an array of uint8"),
        ({"images": torch.zeros(3, 4)}, r"^image 0 is a Tensor of torch.float32 \[3, 4\], expected a path[^\n]*$"),
        ({"images": [None] * 99}, r"image 9 is a NoneType(.|\n)*and 89 more$"),
        ({"bias": "auto"}, "bias is 'auto', expected a finite number"),
        ({"workers": -1}, "workers is -1, expected a whole number from 0"),
        ({"pairs": 3}, "pairs are 3, expected names such as 'wet dog', in a list or with commas between them"),
        ({"pairs": [("red", "left")]}, r"pairs are \[\('red', 'left'\)\], expected names such as 'wet dog', in a list"),
        ({"pairs": torch.tensor([0, 1])}, r"pairs are torch.int64 \[2\], expected names .* or whole numbers \[P, 2\]"),
        ({"pairs": np.array([[0.5, 1]])}, r"pairs are float64 \[1, 2\], expected names"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(csp, data, arguments, message):
    with pytest.raises(ConfigError, match=message):
        predict_images(csp, **{"images": data.test.paths[:1], **arguments})


@pytest.mark.parametrize("threshold", [0.6, "search"])
def test_a_run_records_the_bias_and_the_candidates_of_its_evaluation(
    threshold, toys, data, clip_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "czslkit.runner.evaluate.searched_threshold", lambda *args, **options: SearchedThreshold(0.62, 0.25)
    )
    settings = {
        "backbone": str(clip_file),
        "train.epochs": 2,
        "train.batch_size": 8,
        "eval.feasibility": "clip",
        "eval.bins": "exact",
    }
    settings |= {"eval.threshold": threshold}
    runs = {"data": toys, "runs": tmp_path / "runs", "log": lambda line: None}
    closed, opened = czslkit.bench("csp", "toys", settings=settings, **runs).results
    (folder,) = (tmp_path / "runs").glob("toys/csp/*")
    method = czslkit.load(folder)
    training = closed["training"]
    recorded = training["history"][training["best_epoch"] - 1].get("val_bias")
    expected = {"closed": recorded} if recorded is not None else {}
    assert method.calibration.bias == expected | ({"open": 0.25} if threshold == "search" else {})
    protocol = opened["protocol"]
    rule = OpenWorld(text_feasibility(method.backbone, method.space), [protocol["threshold"]])
    sweep = evaluated(method, data, "open", rule)
    bias = method.calibration.bias.get("open", recorded or 0.0)
    expected = sweep.candidates.pairs[predict(sweep.top_scores()[0], bias)[:, 0]]
    assert torch.equal(named(method.predict(data.test.paths, world="open"), data.space)[:, 0], expected)
    assert sweep.compute_all("exact")[0].best_hm == pytest.approx(opened["metrics"]["best_hm"])
    kept = len(method.predict(data.test.paths[0], top=99, world="open")[0].pairs)
    assert kept == protocol["candidates"]


def test_a_method_with_other_scores_in_tests_gets_a_bias_for_these(demo_world, clip_file, tmp_path, monkeypatch):
    def rank(self, scores, pairs, setting):
        return scores.pair * (0.5 if setting.world == "open" else 0.1) if setting.split == "test" else scores.pair

    monkeypatch.setattr(czslkit.heads.CosineHead, "rank", rank)
    settings = {"backbone": str(clip_file), "train.epochs": 2, "train.lr": 1e-2, "eval.bins": "exact"}
    runs = {"data": demo_world, "runs": tmp_path / "runs", "log": lambda line: None}
    training = czslkit.bench("csp", "demo", settings=settings, **runs).results[0]["training"]
    (folder,) = (tmp_path / "runs").glob("demo/csp/*")
    method, data = czslkit.load(folder), czslkit.load_dataset("demo", demo_world)
    recorded = training["history"][training["best_epoch"] - 1]["val_bias"]
    opened = Evaluation.plan(method, data, "val", ["open"], Feed(method, data.val, 8)).run()["open"].compute()
    expected = {"closed": 0.1 * recorded, "open": 0.5 * opened.hm_bias}
    assert method.calibration.bias == pytest.approx(expected, abs=1e-4) and recorded


def test_a_result_outlives_an_error_in_the_search_for_the_bias(toys, clip_file, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no bias today")

    monkeypatch.setattr("czslkit.runner.run_job.calibration", fail)
    lines = []
    settings = {"backbone": str(clip_file), "train.epochs": 1}
    where = {"data": toys, "runs": tmp_path, "progress": False, "log": lines.append}
    result = czslkit.bench("csp", "toys", "closed", settings=settings, **where)
    assert (result.failed, len(result.results)) == (0, 1)
    assert any("no bias is recorded for czslkit predict: RuntimeError: no bias today" in line for line in lines)
    (run,) = (tmp_path / "toys" / "csp").iterdir()
    assert czslkit.load(run).calibration.bias == {}


def test_a_calibration_of_other_weights_is_not_used_and_a_changed_one_is_named(csp, clip_file, tmp_path):
    save(tmp_path, "csp", csp, {"backbone": str(clip_file)})
    feasible = torch.arange(9) % 2 > 0
    write_calibration(tmp_path, Calibration({"closed": 0.5}), csp.space)
    write_calibration(tmp_path, Calibration({"open": -1.0}, feasible), csp.space)
    found = czslkit.load(tmp_path).calibration
    assert found.bias == {"closed": 0.5, "open": -1.0} and torch.equal(found.feasible, feasible)
    file = tmp_path / "calibration.json"
    content = file.read_text()
    file.write_text(content.replace("0.5", "0.6"))
    with pytest.raises(ConfigError, match=r"calibration\.json was changed after it was written(.|\n)*Remove it"):
        czslkit.load(tmp_path)
    file.write_text("{")
    with pytest.raises(ConfigError, match=r"calibration\.json cannot be read: JSONDecodeError"):
        czslkit.load(tmp_path)
    for bias in ("1e999", "9" * 400):
        file.write_text(with_digest(json.loads(content) | {"bias": {"closed": json.loads(bias)}}))
        with pytest.raises(ConfigError, match=r"calibration\.json cannot be read: (Value|Overflow)Error"):
            czslkit.load(tmp_path)
    file.write_text(with_digest(json.loads(content) | {"feasible": "AAAAAA=="}))
    with pytest.raises(ConfigError, match=r"ValueError: feasible has 32 values, expected 9\. Remove it"):
        czslkit.load(tmp_path)
    file.write_text(content)
    with torch.no_grad():
        csp.prompt.words.add_(1)
    save(tmp_path, "csp", csp, {"backbone": str(clip_file)})
    assert czslkit.load(tmp_path).calibration.bias == {}


def test_the_gallery_says_how_many_photos_it_leaves_out(csp, data, monkeypatch):
    monkeypatch.setattr(gallery, "MOST_PHOTOS", 2)
    paths = list(data.test.paths[:3])
    page = gallery.gallery_page(paths, csp.predict(paths), "about")
    assert "it shows the first 2 of 3 photos" in page and page.count("<figure>") == 2
