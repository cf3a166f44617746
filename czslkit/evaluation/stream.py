"""Passes of a method that adapts to the images it scores; every pass starts from the trained method."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from ..data.batches import Feed
from ..data.fixed_features import close
from ..deferred import deferred_checks
from ..errors import ConfigError
from ..method import Method, finite_scores, ranked
from ..metrics.sweep import Sweep
from ..metrics.sweep_state import ChunkColumns
from ..precision import computing_in
from ..terminal import tracked
from ..types import ImageFeatures
from .memory_budget import WorldTask


def stream_order(images: int, seed: int) -> Tensor:
    """Return the order in which a method that streams gets the images of a split, ``[images]`` long.

    >>> stream_order(5, seed=0).tolist()
    [4, 0, 1, 3, 2]
    """
    return torch.randperm(images, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def encoded_images(method: Method, feed: Feed) -> Tensor | None:
    """Return the pooled features of every image of a split, ``[N, D]``, encoded in whole batches, for all passes.

    Returns:
        None if features may not be computed before a pass, depend on the batch, or do not suffice for the scores.
    """
    if method.layers or method.interaction.reads_tokens or not (method.caches_features and method.independent):
        return None
    features = []
    for batch in tracked(feed.batches(), f"{feed.split.name} images encoded, batches", len(feed), show=feed.progress):
        image = batch.images
        if isinstance(image, Tensor):
            with computing_in(feed.precision, method.device):
                image = method.encode(image)
        features.append(image.pooled.float())
    return torch.cat(features)


@torch.no_grad()
def stream_pass(method: Method, feed: Feed, task: WorldTask, seed: int, features: Tensor | None = None) -> Sweep:
    """Score a split one image after the other with a copy of a method, and return the filled sweep.

    The copy is dropped afterwards, so that a pass does not depend on earlier passes and does not change the method.

    Args:
        method: in evaluation mode; it is not changed.
        feed: batches of the same method and split.
        task: the pairs of one world; all of them are scored at a time.
        seed: seed of the order of the images, and of the random numbers of torch in the pass.
        features: the result of ``encoded_images``; None if every image is encoded when it is scored.

    Raises:
        ConfigError: the method cannot be copied, or has changed features that were computed before the pass.
        PluginError: ``rank`` does not return a number for each image and pair.
    """
    order, sweep, device = stream_order(len(feed.split), seed), task.sweep(), method.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), deferred_checks(device):
        images = _images(feed, order, features)
        first = next(images)  # processes that read images draw random numbers when they start
        torch.manual_seed(seed)
        adapting, pairs = _copy_of(method), task.pairs.to(device)
        with computing_in(feed.precision, device):
            adapting.begin(task.setting, pairs)
            text = adapting.text_in(task.setting.world, pairs)
        columns = ChunkColumns(sweep.candidates, task.columns)
        numbered = zip(order.split(1), chain([first], images), strict=True)
        name = f"{feed.split.name} images scored, {task.setting.world} world"
        for number, image in tracked(numbered, name, len(order), show=feed.progress):
            with computing_in(feed.precision, device):  # autocast keeps copies of weights until its end
                scores = ranked(adapting, image, text, task.setting)
            labels = feed.split.attr[number], feed.split.obj[number]
            sweep.update(finite_scores(method, scores.detach()), *labels, columns=columns, images=number)
    if features is not None:
        _check_features(method, adapting, feed)
    return sweep


def _images(feed: Feed, order: Tensor, features: Tensor | None) -> Iterator[Tensor | ImageFeatures]:
    """Yield the images of a split one by one: their ``features``, or pixels."""
    if features is None:
        yield from (batch.images for batch in feed.batches(order, size=1))
    else:
        yield from (ImageFeatures(features[i : i + 1]) for i in order.tolist())


def _copy_of(method: Method) -> Method:
    """Return a copy that shares nothing with a method: neither tensors nor lists, caches or optimisers.

    Raises:
        ConfigError: an attribute cannot be copied.
    """
    try:
        return copy.deepcopy(method)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        name = type(method).__name__
        raise ConfigError(
            [
                f"{name} streams, so every pass uses a copy of it, but it cannot be copied: {error}. "
                "Expected attributes that copy.deepcopy copies, such as buffers, lists, and tensors without a gradient"
            ]
        ) from error


def _check_features(method: Method, adapted: Method, feed: Feed) -> None:
    """Check that a pass has not changed the features of an image, as they were computed before the pass.

    Raises:
        ConfigError: they have changed, or a gradient reaches them now.
    """
    pixels = feed.sample(1).images
    assert isinstance(pixels, Tensor)
    with computing_in(feed.precision, method.device), torch.enable_grad():
        before, after = (one.encode(pixels).pooled for one in (method, adapted))
    if after.requires_grad > before.requires_grad or not close(after, before):
        name = type(method).__name__
        raise ConfigError(
            [
                f"{name} changes its image encoder while it adapts, but the features of all images were computed "
                f"before. Set caches_features = False in {name}, so that rank gets pixels"
            ]
        )
