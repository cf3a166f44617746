import importlib.util
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from czslkit.data import demo_drawing, demo_finishes, demo_world
from czslkit.data.layout import SPLITS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def training() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("train_demo_clip", ROOT / "benchmarks" / "train_demo_clip.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up there
    spec.loader.exec_module(module)
    yield module
    monkeypatch.undo()


def pixels(split: str, attr: str, obj: str, index: int, seed: int = 0) -> np.ndarray:
    return np.asarray(demo_world.render_instance(split, attr, obj, index, seed))


def test_a_picture_is_64_by_64_rgb():
    picture = demo_world.render_instance("train", "striped", "star", 0)
    assert (picture.mode, picture.size) == ("RGB", (demo_drawing.SIZE, demo_drawing.SIZE))


def test_a_picture_does_not_depend_on_those_rendered_before():
    asked = list(itertools.islice(demo_world.instances(), 0, None, 600))
    forwards = [pixels(*each) for each in asked]
    backwards = [pixels(*each) for each in reversed(asked)]
    for one, other in zip(forwards, reversed(backwards), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "other",
    [
        ("val", "wet", "star", 3, 0),
        ("train", "woven", "star", 3, 0),
        ("train", "wet", "ring", 3, 0),
        ("train", "wet", "star", 4, 0),
        ("train", "wet", "star", 3, 1),
    ],
)
def test_split_pair_index_and_seed_each_change_the_picture(other):
    difference = np.abs(pixels("train", "wet", "star", 3, 0).astype(int) - pixels(*other))
    assert difference.mean() > 10


def test_no_two_pictures_of_the_dataset_are_the_same():
    asked = list(itertools.islice(demo_world.instances(), 0, None, 7))
    assert len({pixels(*each).tobytes() for each in asked}) == len(asked)


def test_render_goes_on_from_its_generator():
    rng = np.random.default_rng(0)
    first, second = demo_world.render("rusty", "fish", rng), demo_world.render("rusty", "fish", rng)
    assert first.tobytes() == demo_world.render("rusty", "fish", np.random.default_rng(0)).tobytes()
    assert first.tobytes() != second.tobytes()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("dev", "wet", "star", 0), "no split named 'dev'.*Known: train, val, test"),
        (("train", "damp", "star", 0), "no state named 'damp'.*Known: bubbly, .*woven"),
        (("train", "wet", "sun", 0), "no object named 'sun'.*Known: arrow, .*star"),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(wrong, message):
    with pytest.raises(ValueError, match=message):
        demo_world.render_instance(*wrong)


@pytest.mark.parametrize(("state", "obj", "name"), [("damp", "star", "damp"), ("wet", "sun", "sun")])
def test_render_refuses_an_unknown_name(state, obj, name):
    with pytest.raises(ValueError, match=name):
        demo_world.render(state, obj, np.random.default_rng(0))


def test_names_are_sorted_and_each_has_a_drawing():
    assert list(demo_world.ATTRS) == sorted(demo_finishes.FINISHES)
    assert list(demo_world.OBJS) == sorted(demo_drawing.OUTLINES)
    assert (len(demo_world.ATTRS), len(demo_world.OBJS)) == (12, 10)


@pytest.mark.parametrize("seed", range(5))
def test_the_splits_have_the_structure_of_the_benchmarks(seed):
    split = {name: set(pairs) for name, pairs in demo_world.split_pairs(seed).items()}
    train, val, test = split["train"], split["val"], split["test"]
    assert [len(train), len(val & train), len(val - train), len(test & train), len(test - train)] == [
        66,
        18,
        18,
        20,
        20,
    ]
    assert not (val - train) & (test - train)
    assert len(set(itertools.product(demo_world.ATTRS, demo_world.OBJS)) - train - val - test) == 16


@pytest.mark.parametrize("seed", range(5))
def test_every_state_and_object_has_four_seen_partners(seed):
    train = demo_world.split_pairs(seed)["train"]
    partners = [sum(name in pair for pair in train) for name in demo_world.ATTRS + demo_world.OBJS]
    assert min(partners) >= 4


def test_another_seed_splits_otherwise():
    assert demo_world.split_pairs(0) == demo_world.split_pairs(0)
    assert demo_world.split_pairs(0)["train"] != demo_world.split_pairs(1)["train"]


def test_instances_are_the_pictures_of_the_splits_pairs():
    listed = list(demo_world.instances())
    assert len(set(listed)) == len(listed) == 66 * 40 + 36 * 15 + 40 * 20
    pairs = demo_world.split_pairs()
    for split in SPLITS:
        of_split = [(attr, obj) for name, attr, obj, _ in listed if name == split]
        assert of_split == [pair for pair in pairs[split] for _ in range(demo_world.PER_PAIR[split])]


def nearest_mean_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the accuracy of a nearest-mean classifier fitted to the even rows and tested on the odd rows."""
    means = np.stack([features[::2][labels[::2] == label].mean(0) for label in range(labels.max() + 1)])
    found = np.square(features[1::2, None] - means).sum(-1).argmin(1)
    return float((found == labels[1::2]).mean())


@pytest.fixture(scope="module")
def pictures_by_state() -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(len(demo_world.ATTRS)), 100)
    rng = np.random.default_rng(0)
    drawn = [demo_world.render(demo_world.ATTRS[label], demo_world.OBJS[i % 10], rng) for i, label in enumerate(labels)]
    return np.stack([np.asarray(each, np.float64) for each in drawn]), labels


def test_mean_colour_does_not_predict_the_state(pictures_by_state):
    pictures, labels = pictures_by_state
    assert nearest_mean_accuracy(pictures.mean((1, 2)), labels) < 0.14  # chance is 0.083


def test_the_background_does_not_predict_the_state(pictures_by_state):
    pictures, labels = pictures_by_state
    corners = np.concatenate([pictures[:, row, column] for row in (0, -1) for column in (0, -1)], 1)
    assert nearest_mean_accuracy(corners, labels) < 0.14


def test_fine_detail_predicts_the_state(pictures_by_state):
    pictures, labels = pictures_by_state
    inside = pictures[:, 16:48, 16:48].mean(-1)
    spectrum = np.log1p(np.abs(np.fft.rfft2(inside - inside.mean((1, 2), keepdims=True))))
    across = spectrum.reshape(len(labels), -1)
    assert nearest_mean_accuracy(across, labels) > 0.3


def test_the_demo_clip_was_shown_training_pairs_only(training):
    train = demo_world.split_pairs()["train"]
    shown = [training.picture(number, training.TRAINING, seed=0) for number in range(2 * len(train))]
    assert {(each.state, each.obj) for each in shown} == set(train)


def test_captions_name_the_object_and_only_some_templates_the_state(training):
    shown = training.picture(0, training.TRAINING, seed=0)
    rng = np.random.default_rng(0)
    for templates, stated in ((training.WITH_STATE, True), (training.WITHOUT_STATE, False)):
        captions = [set(training.caption(shown, templates, rng).split()) for _ in range(200)]
        named = [words & {*demo_world.ATTRS, *demo_world.OBJS} for words in captions]
        assert all(words <= {shown.state, shown.obj} for words in named)
        assert all((shown.state in words) == stated for words in named)
        assert np.mean([shown.obj in words for words in named]) > 0.5


def test_pictures_with_one_caption_share_it(training):
    shown = [training.picture(number, training.TRAINING, seed=0) for number in (0, 0, 0, 0, 0, 0, 0, 0, 1)]
    tokens, which = training.batch_captions(shown, 1.0, np.random.default_rng(0))
    assert which.shape == (9, 2)
    assert len(tokens) == len({tuple(row) for row in tokens.tolist()}) == which.max() + 1 < which.numel()


def test_identical_captions_are_positives_of_each_other(training):
    torch = training.torch
    image, text = torch.eye(2)[[0, 0, 1]], torch.eye(2)
    which = torch.tensor([[0], [0], [1]])
    assert training.contrastive_loss(image, text, which, torch.tensor(100.0)) == pytest.approx(np.log(2) / 3, abs=1e-5)


def test_captions_fit_the_context_of_the_demo_clip(training):
    tokenizer = training.open_clip.SimpleTokenizer()
    longest = {"state": "scratched", "obj": "bottle", "colour": "purple", "backdrop": "yellow", "size": "large"}
    for template in training.WITH_STATE + training.WITHOUT_STATE:
        assert len(tokenizer.encode(template.format(**longest, place="bottom"))) + 2 <= 16


def test_every_word_of_the_demo_world_is_one_token(training):
    tokenizer = training.open_clip.SimpleTokenizer()
    assert [word for word in demo_world.ATTRS + demo_world.OBJS if len(tokenizer.encode(word)) != 1] == []


def test_saved_weights_are_small_and_load_to_what_was_saved(training, tmp_path):
    torch, model = training.torch, training.untrained()
    with torch.no_grad():
        model.token_embedding.rows *= 3
    training.save(model, tmp_path / "weights.safetensors")
    assert (tmp_path / "weights.safetensors").stat().st_size < 4_000_000
    loaded = training.load(tmp_path / "weights.safetensors")
    tokens = training.tokenizer()(["a photo of rusty crown", "wet"])
    torch.testing.assert_close(
        loaded.encode_text(tokens, normalize=True), model.encode_text(tokens, normalize=True), rtol=0, atol=5e-3
    )
    unused = training.first_embedding(49408, 96)[1000]
    assert 1000 not in training.stored_tokens()
    torch.testing.assert_close(loaded.token_embedding.weight[1000], unused, rtol=0, atol=0)


def test_the_packaged_weights_are_under_four_megabytes(training):
    assert (training.FOLDER / f"{training.NAME}.safetensors").stat().st_size < 4_000_000


def test_the_packaged_weights_recognise_objects_better_than_states(training):
    model = training.load(training.FOLDER / f"{training.NAME}.safetensors")
    shown = [training.picture(number, training.PROBING, seed=1) for number in range(198)]
    image, _ = training.tokens(model, training.pixels(shown))
    right_states, right_objects = training.recognised(model, image, shown)
    assert right_objects > right_states > 2 / len(demo_world.ATTRS)
