"""Passes of a method that adapts to the images it scores; every pass starts from the trained method."""

from __future__ import annotations

import copy
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
from .memory_budget import WorldTask


def stream_order(images: int, seed: int) -> Tensor:
    """Return the order in which a method that streams gets the images of a split, ``[images]`` long.

    >>> stream_order(5, seed=0).tolist()
    [4, 0, 1, 3, 2]
    """
    return torch.randperm(images, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def stream_pass(method: Method, feed: Feed, task: WorldTask, seed: int) -> Sweep:
    """Score a split one image after the other with a copy of a method, and return the filled sweep.

    The copy is dropped afterwards, so that a pass does not depend on earlier passes and does not change the method.

    Args:
        method: in evaluation mode; it is not changed.
        feed: batches of the same method and split.
        task: the pairs of one world; all of them are scored at a time.
        seed: seed of the order of the images, and of the random numbers of torch in the pass.

    Raises:
        ConfigError: the method cannot be copied, or has changed features that were computed before the pass.
        PluginError: ``rank`` does not return a number for each image and pair.
    """
    order, sweep, device = stream_order(len(feed.split), seed), task.sweep(), method.device
    if feed.caches_features:
        next(feed.batches())  # encodes the images in whole batches, if they are not encoded yet
    with torch.random.fork_rng([device] if device.type == "cuda" else []), deferred_checks(device):
        batches = feed.batches(order, size=1)
        first = next(batches)  # processes that read images draw random numbers when they start
        torch.manual_seed(seed)
        adapting, pairs = _copy_of(method), task.pairs.to(device)
        with computing_in(feed.precision, device):
            adapting.begin(task.setting, pairs)
            text = adapting.text_in(task.setting.world, pairs)
        columns = ChunkColumns(sweep.candidates, task.columns)
        numbered = zip(order.split(1), chain([first], batches), strict=True)
        name = f"{feed.split.name} images scored, {task.setting.world} world"
        for number, batch in tracked(numbered, name, len(order), show=feed.progress):
            with computing_in(feed.precision, device):  # autocast keeps copies of weights until its end
                scores = ranked(adapting, batch.images, text, task.setting)
            labels = feed.split.attr[number], feed.split.obj[number]
            sweep.update(finite_scores(method, scores.detach()), *labels, columns=columns, images=number)
    if feed.caches_features:
        _check_features(method, adapting, feed)
    return sweep


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
    with computing_in(feed.precision, method.device):
        before = method.encode(pixels).pooled
        with torch.enable_grad():
            after = adapted.encode(pixels).pooled
    if after.requires_grad or not close(after, before):
        name = type(method).__name__
        raise ConfigError(
            [
                f"{name} changes its image encoder while it adapts, but the features of all images were computed "
                f"before. Set caches_features = False in {name}, so that rank gets pixels"
            ]
        )
