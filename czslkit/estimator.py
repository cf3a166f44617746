"""A classifier of attribute-object pairs with the manners of scikit-learn."""

from __future__ import annotations

import itertools
import math
import numbers
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .data.dataset_folders import is_in_dataset
from .data.images import upright
from .data.layout import images_folder, import_record
from .data.photos import Photo, as_photos, photo_name
from .data.splits import Split, Splits
from .errors import ConfigError, DataError, first_ten
from .evaluation.validation import plan_validation
from .method import build
from .options import as_dict
from .runner.machine import Machine
from .runner.resolve import Resolved, resolve_settings
from .runner.variant import Variant
from .seeds import seed_problems
from .training.loop import Training, train
from .training.state import TrainingState
from .types import PairSpace

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise ConfigError(
        [f'czslkit.PairClassifier needs scikit-learn ({error}): pip install "czslkit[sklearn]"']
    ) from None

Pair = tuple[str, str]
_PHOTOS_PER_CHUNK = 1024  # photos whose probabilities of all pairs are collected at a time
_NAME = "photos"  # name of the data, as methods see it


class PairClassifier(ClassifierMixin, BaseEstimator):
    """A classifier that names the attribute and the object of images, and can name pairs it has not seen.

    Images are paths, PIL images or uint8 arrays ``[H, W]`` or ``[H, W, 3]``. Labels are an array of pairs
    ``[("wet", "dog"), ...]`` ``[N, 2]``, or two arrays with the attributes and the objects, ``[N]`` each. The training
    is that of ``czslkit bench``, with the same settings.

    Args:
        method: name of the method, one that ``czslkit list`` prints.
        backbone: image encoder, such as ``"ViT-B-32/openai"`` or ``"demo"``; by default that of the method.
        settings: other settings by the names that ``czslkit bench --set`` takes, such as ``{"train.epochs": 5}``.
        unseen: pairs without training images that can be predicted, too: names such as ``"wet dog"`` in a list or with
            commas between them, or tuples ``("wet", "dog")``; or ``"all"``, every combination of the words in the
            labels. By default none, so that only pairs of the training labels are predicted.
        bias: added to the scores of unseen pairs; they are usually too low, since they were not trained.
        validation: share of the images of each pair that are held out to choose the epoch to keep, rounded down; that
            with the highest accuracy is kept. With 0, or if every pair has too few images, all images are trained on
            and the last epoch is kept.
        random_state: seed of the training and of the held-out images: a number from 0, a
            ``numpy.random.RandomState``, or None for another seed each time.
        device: torch device, such as ``cpu`` or ``cuda``; ``auto`` selects a GPU if there is one.
        verbose: print a line for each epoch, and show progress.

    Attributes:
        classes_: pairs that can be predicted, sorted, ``[P, 2]``; the order of the columns of ``predict_proba``.
        attrs_, objs_: their attributes and their objects, sorted.
        method_: the trained :class:`czslkit.Method`.
        history_: a dict of numbers for each epoch, such as its loss.
    """

    def __init__(
        self,
        method: str = "csp",
        backbone: str | None = None,
        settings: Mapping[str, Any] | None = None,
        unseen: str | Sequence[Any] = (),
        bias: float = 0.0,
        validation: float = 0.0,
        random_state: Any = 0,
        device: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.method, self.backbone, self.settings = method, backbone, settings
        self.unseen, self.bias, self.validation = unseen, bias, validation
        self.random_state, self.device, self.verbose = random_state, device, verbose

    def fit(self, images: Any, attrs: Any, objs: Any = None) -> PairClassifier:
        """Train the method on labelled images and return the estimator.

        Args:
            images: the images, ``N``.
            attrs: attribute of each image, ``[N]``; or without ``objs`` the pair of each image, ``[N, 2]``.
            objs: object of each image, ``[N]``.

        Raises:
            ConfigError: images, labels or parameters cannot be used; the message says what is expected.
            DataError: an image file cannot be read.
        """
        photos = as_photos(images)
        labels = _pairs(attrs, objs, len(photos))
        seed, settings = self._seed(), self._resolved()
        space = _label_space(labels, self.unseen)
        generator = torch.Generator().manual_seed(seed)
        index = torch.tensor([(space.attrs.index(attr), space.objs.index(obj)) for attr, obj in labels])
        held_out = _held_out(index, self._share(), generator)
        options = settings.train
        if not held_out.any():
            if "train.select" in (self.settings or {}) and options.select != "last":
                raise ConfigError(
                    [f"train.select is {options.select!r}, but no image is held out to select the epoch: set "
                     "validation to a share such as 0.2"]
                )  # fmt: skip
            options = replace(options, select="last", select_world="closed", fused_validation_loss=False)
        machine = Machine(self.device, progress=bool(self.verbose))
        device = machine.torch_device()
        devices = [device.index or 0] if device.type == "cuda" else []
        with tempfile.TemporaryDirectory(prefix="czslkit-") as folder, torch.random.fork_rng(devices):
            files = _files(photos, Path(folder))
            data = _splits(Path(folder), files, index, held_out, space)
            with _named_as_given(photos, files):
                trained = self._train(replace(settings, train=options), data, machine, seed)
        self.history_ = [{name: value for name, value in row.items() if value == value} for row in trained.history]
        self.attrs_, self.objs_ = np.array(space.attrs), np.array(space.objs)
        self.classes_ = np.array([(space.attrs[a], space.objs[o]) for a, o in space.pairs.tolist()])
        return self

    def predict(self, images: Any) -> NDArray[np.str_]:
        """Return the best pair of each image, ``[N, 2]``.

        Raises:
            sklearn.exceptions.NotFittedError: ``fit`` has not been called.
            DataError: some images cannot be read; the message names them.
        """
        check_is_fitted(self)
        found = [(best.attr, best.obj) for (best, *_) in self._predictions(as_photos(images), 1)]
        return np.array(found, self.classes_.dtype).reshape(-1, 2)

    def predict_proba(self, images: Any) -> NDArray[np.float64]:
        """Return the probability of every pair of ``classes_``, ``[N, P]``; rows sum to 1.

        It is the softmax of the method's scores at ``bias``. Errors are those of ``predict``.
        """
        check_is_fitted(self)
        photos = as_photos(images)
        column = {(attr, obj): i for i, (attr, obj) in enumerate(self.classes_.tolist())}
        shares = np.zeros((len(photos), len(column)))
        step = len(photos) if self.method_.streams else _PHOTOS_PER_CHUNK
        for start in range(0, len(photos), step or 1):
            for row, pairs in enumerate(self._predictions(photos[start : start + step], len(column)), start):
                for pair in pairs:
                    shares[row, column[pair.attr, pair.obj]] = pair.probability
        return shares

    def score(self, images: Any, attrs: Any, objs: Any = None) -> float:
        """Return the share of images whose attribute and object are both right; see ``fit`` for the arguments."""
        predicted = self.predict(images)
        true = np.array(_pairs(attrs, objs, len(predicted))).reshape(-1, 2)
        return float((predicted == true).all(1).mean())

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn has to know: images are no matrix, and labels have two columns."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.two_d_labels = tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags

    def _predictions(self, photos: Sequence[Photo], top: int) -> list[Any]:
        """Return the best pairs of each photo."""
        found = self.method_.predict(photos, top=top, bias=float(self.bias), progress=bool(self.verbose))
        if errors := [prediction.error for prediction in found if prediction.error]:
            raise DataError(first_ten(errors, "\n  "))
        return [prediction.pairs for prediction in found]

    def _train(self, settings: Resolved, data: Splits, machine: Machine, seed: int) -> Training:
        """Train ``method_`` on the data."""
        torch.manual_seed(seed)
        method = build(self.method, data.space, **as_dict(settings.options))
        method.prepare(data.training_data())
        self.method_ = method.to(machine.torch_device())
        options, evaluation = settings.train, settings.evaluation
        validate: Callable[[], dict[str, float]] = partial(dict, val_auc=math.nan)  # without images to validate on
        if len(data.val):
            size = evaluation.batch_size or options.batch_size
            feed = machine.feed(method, data.val, size, precision=evaluation.precision)
            validate = plan_validation(method, data, feed, options, bins=evaluation.bins, memory=machine.memory)
        trained = train(
            method,
            machine.training_feed(method, data.train, options, seed),
            options,
            validate,
            TrainingState(data.root, "training"),
            data=data.training_data(),
            seed=seed,
            log=print if self.verbose else lambda line: None,
        )
        method.eval()
        return trained

    def _resolved(self) -> Resolved:
        """Return the parsed settings.

        Raises:
            ConfigError: a setting is unknown or has several values.
        """
        given = {**(self.settings or {}), **({"backbone": self.backbone} if self.backbone else {})}
        found = resolve_settings(Variant(self.method), _NAME, given, None, [self.method], None)
        if len(found) != 1:
            raise ConfigError([f"settings have several values ({found[0].varied}, ...), expected one of each"])
        return found[0]

    def _share(self) -> float:
        """Return the share of images to hold out.

        Raises:
            ConfigError: it is not a number from 0 to below 1.
        """
        if not isinstance(self.validation, numbers.Real) or not 0 <= float(self.validation) < 1:
            raise ConfigError([f"validation is {self.validation!r}, expected a share of the images from 0 to below 1"])
        return float(self.validation)

    def _seed(self) -> int:
        """Return the seed of the training.

        Raises:
            ConfigError: ``random_state`` is no seed.
        """
        if isinstance(self.random_state, numbers.Integral):
            if problems := seed_problems(int(self.random_state)):
                raise ConfigError(list(problems))
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))


def _pairs(attrs: Any, objs: Any, images: int) -> list[Pair]:
    """Return the pair of each image.

    Raises:
        ConfigError: labels have other shapes, or there is not one for each image.
    """
    columns = [np.asarray(attrs)] if objs is None else [np.asarray(attrs), np.asarray(objs)]
    expected = [(images, 2)] if objs is None else [(images,), (images,)]
    found = [column.shape for column in columns]
    if found != expected or not images:
        form = "pairs [N, 2], or attributes [N] and objects [N]"
        shapes = " and ".join(str(list(shape)) for shape in found)
        raise ConfigError([f"labels are {shapes} for {images} images, expected {form} for N images, at least one"])
    rows = columns[0] if objs is None else np.stack(columns, 1)
    return [(str(attr), str(obj)) for attr, obj in rows]


def _label_space(labels: Sequence[Pair], unseen: str | Sequence[Any]) -> PairSpace:
    """Return the label space of the labels, with unseen pairs."""
    known = set(labels)
    if isinstance(unseen, str) and unseen == "all":
        others = set(itertools.product(*({pair[side] for pair in labels} for side in (0, 1))))
    else:
        named = unseen.split(",") if isinstance(unseen, str) else unseen
        others = set(map(_named, named if isinstance(named, Iterable) else [named]))
    pairs = sorted(known | others)
    attrs, objs = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
    index = torch.tensor([(attrs.index(attr), objs.index(obj)) for attr, obj in pairs])
    return PairSpace(tuple(attrs), tuple(objs), index, torch.tensor([pair in known for pair in pairs]))


def _named(pair: Any) -> Pair:
    """Return a pair of its name or of its two words.

    Raises:
        ConfigError: it is neither.
    """
    words = pair.split("+" if "+" in pair else None) if isinstance(pair, str) else pair
    words = list(words) if isinstance(words, Iterable) else []
    if len(words) != 2:
        raise ConfigError(
            [
                f"unseen has {pair!r}, expected 'wet dog', 'wet+tin can' if a word has spaces, ('wet', 'dog'), "
                "or 'all' alone"
            ]
        )
    return str(words[0]).strip(), str(words[1]).strip()


def _held_out(index: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return which images are held out, ``[N]`` bool: of each pair the share, rounded down, at random.

    Args:
        index: attribute and object index of each image, ``[N, 2]``.
    """
    held_out = torch.zeros(len(index), dtype=torch.bool)
    for pair in index.unique(dim=0):
        rows = (index == pair).all(1).nonzero()[:, 0]
        chosen = torch.randperm(len(rows), generator=generator)[: math.floor(share * len(rows) + 1e-9)]
        held_out[rows[chosen]] = True
    return held_out


def _files(photos: Sequence[Photo], folder: Path) -> list[Path]:
    """Return a file for each photo, to read while ``folder`` exists.

    Files of datasets are read as in their trainings. All others get a place in ``folder`` that is read upright and in 8
    bits, as ``Method.predict`` reads photos.
    """
    import_record(folder).write_text("{}")
    below = images_folder(folder) / "all"
    below.mkdir(parents=True)
    files = []
    for number, photo in enumerate(photos):
        if isinstance(photo, Image.Image):
            files.append(below / f"{number}.png")
            upright(photo).save(files[-1], compress_level=1)
        elif is_in_dataset(photo):
            files.append(photo)
        else:
            files.append(below / f"{number}{photo.suffix}")
            try:
                os.symlink(photo.absolute(), files[-1])
            except OSError:  # a system without links
                shutil.copyfile(photo, files[-1])
    return files


@contextmanager
def _named_as_given(photos: Sequence[Photo], files: Sequence[Path]) -> Iterator[None]:
    """Name photos in errors by the paths that the user gave, or by their numbers."""
    try:
        yield
    except DataError as error:
        text = str(error)
        named = {str(file): photo_name(photo, i) for i, (photo, file) in enumerate(zip(photos, files, strict=True))}
        for file in sorted(named, key=len, reverse=True):  # one name may start with another
            text = text.replace(file, named[file])
        raise DataError(text) from error


def _splits(folder: Path, files: Sequence[Path], index: Tensor, held_out: Tensor, space: PairSpace) -> Splits:
    """Return the images as a dataset whose test split is empty."""

    def split(name: str, chosen: Tensor) -> Split:
        rows = chosen.nonzero()[:, 0]
        paths = tuple(files[row] for row in rows.tolist())
        return Split(name, paths, index[rows, 0], index[rows, 1], space.pairs[space.seen])

    none = torch.zeros_like(held_out)
    train, val, test = split("train", ~held_out), split("val", held_out), split("test", none)
    return Splits(_NAME, folder, space, train, val, test, fingerprint="", skipped=0)
