"""The classifier has scikit-learn's manners and czslkit's numbers."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.utils import estimator_checks

import czslkit
from czslkit.data.image_transforms import resize_and_crop, to_normalized_tensor
from czslkit.errors import ConfigError, DataError
from czslkit.estimator import PairClassifier

PAGE = Path(__file__).parents[1] / "docs" / "estimator.md"
COLOURS = {"red": (200, 0, 0), "blue": (0, 0, 200)}


def picture(attr: str, obj: str, seed: int) -> Image.Image:
    """Return noise with a colour on a side."""
    pixels = np.random.default_rng(seed).integers(0, 60, (32, 32, 3), dtype=np.uint8)
    pixels[:, slice(0, 16) if obj == "left" else slice(16, 32)] += np.array(COLOURS[attr], np.uint8)
    return Image.fromarray(pixels)


def pictures(each: int = 6) -> tuple[list[Image.Image], np.ndarray]:
    """Return pictures of three of the four pairs, with their labels."""
    y = [pair for pair in (("red", "left"), ("red", "right"), ("blue", "left")) for _ in range(each)]
    return [picture(*pair, seed) for seed, pair in enumerate(y)], np.array(y)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{number}.png" for number in range(18)]
    for path, image in zip(paths, pictures()[0], strict=True):
        image.save(path)
    return list(map(str, paths))


def classifier(**parameters: Any) -> PairClassifier:
    return PairClassifier(
        **{
            "backbone": "demo",
            "settings": {"train.epochs": 4, "train.lr": 0.02, "train.batch_size": 9, "train.augment": False},
            "device": "cpu",
            **parameters,
        }
    )


@pytest.fixture(scope="module")
def fitted() -> PairClassifier:
    return classifier(unseen="blue right").fit(*pictures())


def test_a_fitted_classifier_names_pictures_and_knows_an_unseen_pair(fitted):
    images, y = pictures()
    assert fitted.classes_.tolist() == [["blue", "left"], ["blue", "right"], ["red", "left"], ["red", "right"]]
    assert fitted.attrs_.tolist() == ["blue", "red"] and fitted.objs_.tolist() == ["left", "right"]
    predicted = fitted.predict(images)
    assert predicted.shape == (18, 2)
    assert fitted.score(images, y) == np.mean([a == b for a, b in zip(predicted.tolist(), y.tolist(), strict=True)])
    first, *later = (row["loss"] for row in fitted.history_)
    assert len(later) == 3 and min(later) < first


def test_probabilities_are_the_softmax_of_the_scores_of_all_classes(fitted):
    images, _ = pictures()
    shares = fitted.predict_proba(images)
    how = fitted.method_.backbone.preprocessing
    pixels = torch.stack([to_normalized_tensor(resize_and_crop(image, how), how.mean, how.std) for image in images])
    with torch.no_grad():
        method, pairs = fitted.method_, fitted.method_.space.pairs
        scores = method.rank(pixels, method.text(pairs), czslkit.Setting("test", "closed", 4))
    np.testing.assert_allclose(shares, scores.softmax(1), atol=1e-5)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    assert (fitted.classes_[shares.argmax(1)] == fitted.predict(images)).all()


def test_bias_raises_unseen_pairs(fitted):
    images, _ = pictures()
    biased = pickle.loads(pickle.dumps(fitted)).set_params(bias=1e4)
    assert (biased.predict(images) == ["blue", "right"]).all()
    assert (fitted.predict(images) != ["blue", "right"]).any()


@pytest.mark.parametrize("kind", ["paths", "array of paths", "arrays", "batch"])
def test_files_arrays_and_pictures_give_the_same_numbers(fitted, files, kind):
    images, y = pictures()
    arrays = [np.asarray(image) for image in images]
    given = {"paths": files, "array of paths": np.array(files), "arrays": arrays, "batch": np.stack(arrays)}[kind]
    other = classifier(unseen=[("blue", "right")]).fit(given, y[:, 0], y[:, 1])
    assert other.history_ == fitted.history_
    np.testing.assert_array_equal(other.predict_proba(given), fitted.predict_proba(images))


def test_the_seed_decides_the_numbers_and_the_generator_of_the_caller_is_left_alone():
    images, y = pictures(3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (classifier(random_state=seed).fit(images, y).history_ for seed in (1, np.int64(1), 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)
    drawn = [classifier(random_state=np.random.RandomState(seed)).fit(images, y).history_ for seed in (3, 3)]
    assert drawn[0] == drawn[1] != first


def test_a_share_of_the_images_of_each_pair_chooses_the_epoch():
    images, y = pictures()
    held = classifier(validation=0.34).fit(images, y)
    accuracies = [row["val_acc"] for row in held.history_]
    assert all(round(6 * accuracy, 6) % 1 == 0 for accuracy in accuracies)  # of 2 images of each of 3 pairs
    assert "val_acc" not in classifier(validation=0.1).fit(images, y).history_[0]  # 0.6 images of each pair


def test_all_combinations_of_words_can_be_candidates():
    images, y = pictures(2)
    settings = {"train.epochs": 0}
    assert len(classifier(unseen="all", settings=settings).fit(images, y).classes_) == 4
    named = classifier(unseen="blue right,green+far left", settings=settings).fit(images, y)
    assert named.classes_.tolist()[1:3] == [["blue", "right"], ["green", "far left"]]
    assert len(classifier(settings=settings).fit(images, y).classes_) == 3


def test_any_registered_method_can_be_the_method():
    images, y = pictures(2)
    for name in ("clip", "visprod"):
        assert classifier(method=name, settings={}).fit(images, y).predict(images[:1]).shape == (1, 2)


def test_cross_validation_and_a_grid_search_run():
    images, y = pictures(4)
    folds = list(StratifiedKFold(2, shuffle=True, random_state=0).split(images, [" ".join(pair) for pair in y]))
    scores = cross_val_score(classifier(unseen="all"), images, y, cv=folds, error_score="raise")
    assert scores.shape == (2,) and (scores >= 0).all() and (scores <= 1).all()
    by_hand = []
    for train, test in folds:
        fitted = classifier(unseen="all").fit([images[i] for i in train], y[train])
        by_hand.append(fitted.score([images[i] for i in test], y[test]))
    assert scores.tolist() == by_hand
    search = GridSearchCV(classifier(settings={"train.epochs": 1}), {"method": ["clip", "csp"]}, cv=folds)
    assert search.fit(images, y).best_params_["method"] in ("clip", "csp")


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_no_attributes_set_in_init",
        "check_mixin_order",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
    ],
)
def test_it_passes_the_checks_of_scikit_learn_that_need_no_matrix(check):
    getattr(estimator_checks, check)("PairClassifier", PairClassifier())


def test_it_is_cloned_without_what_it_learned(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params() and not hasattr(copy, "classes_")
    assert is_classifier(fitted)
    with pytest.raises(NotFittedError):
        copy.predict(pictures()[0])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"validation": 1}, "validation is 1, expected a share of the images from 0 to below 1"),
        ({"validation": "some"}, "validation is 'some', expected a share"),
        ({"random_state": -1}, "-1"),
        ({"settings": {"train.epoch": 1}}, "epoch is not"),
        ({"settings": {"train.select": "auc"}}, "train.select is 'auc', but no image is held out"),
        ({"settings": {"train.epochs": czslkit.Grid([1, 2])}}, "settings have several values (train.epochs=1"),
        ({"unseen": ["blue"]}, "unseen has 'blue', expected 'wet dog', 'wet+tin can' if a word has spaces"),
        ({"unseen": 5}, "unseen has 5, expected 'wet dog'"),
        ({"unseen": [5]}, "unseen has 5, expected 'wet dog'"),
        ({"method": "cps"}, "no method named 'cps'"),
    ],
)
def test_parameters_that_cannot_be_used_are_named(parameters, message):
    with pytest.raises(czslkit.CzslkitError, match=re.escape(message)):
        classifier(**parameters).fit(*pictures(2))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((["red"] * 6,), "labels are [6] for 6 images, expected pairs [N, 2], or attributes [N] and objects [N]"),
        ((["red"] * 5, ["left"] * 6), "labels are [5] and [6] for 6 images"),
        ((np.zeros((6, 3)),), "labels are [6, 3] for 6 images"),
    ],
)
def test_labels_of_other_shapes_are_refused(labels, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        classifier().fit(pictures(2)[0], *labels)


def test_files_that_cannot_be_read_are_named(fitted, tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(DataError, match=r"broken\.png is not a readable image"):
        fitted.predict([str(tmp_path / "broken.png")])
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "broken.png"))):
        classifier().fit([str(tmp_path / "broken.png")], [("red", "left")])
    photos, y = [tmp_path / f"photo-{number}" for number in range(12)], pictures(4)[1]  # without a suffix
    for photo, image in zip(photos, pictures(4)[0], strict=True):
        image.save(photo, "png")
    photos[11].write_text("no image")
    with pytest.raises(DataError, match=f"^{re.escape(str(photos[11]))} is not a readable image"):
        classifier().fit(list(map(str, photos)), y)


def test_without_scikit_learn_the_package_works_and_the_message_says_what_to_install():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from importlib.machinery import PathFinder\n"
        "PathFinder.find_spec = lambda name, *places, find=PathFinder.find_spec: "
        "None if name == 'sklearn' else find(name, *places)\n"
        "import czslkit\n"
        "from czslkit import *\n"
        "assert bench and 'PairClassifier' not in dir(czslkit)\n"
        "try: czslkit.PairClassifier\n"
        "except czslkit.CzslkitError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert 'pip install "czslkit[sklearn]"' in done.stdout, done.stderr


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images, y = pictures(4)
    for number, (image, pair) in enumerate(zip(images, y, strict=True)):
        folder = Path("photos", "_".join(pair))
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.png")
    Path("new").mkdir()
    images[0].save("new/a.jpg")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(block.replace("ViT-B-32/openai", "demo").replace("wet dog", "blue right"), names)
    assert capsys.readouterr().out.strip()
