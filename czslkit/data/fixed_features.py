"""Measure whether the image features of a method stay the same, so that they can be computed once and kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..errors import ConfigError
from ..method import Method
from ..types import VALIDATION, ImageFeatures


def has_fixed_features(method: Method) -> bool:
    """Return whether an image always has the same features, and the method needs no other values of it than these.

    Two images of noise are encoded in training mode, twice, and in evaluation mode. The features are fixed if no
    gradient reaches them, all three results are equal, and the pooled features are sufficient for the scores. The
    method, its buffers and the random state are left as they were.

    Raises:
        ConfigError: the scores need other features than the method's parts declare.
    """
    if method.layers or method.interaction.reads_tokens or not method.caches_features:
        return False
    images = _noise(method, 2)
    with _left_as_it_was(method):
        method.train()
        with torch.enable_grad():
            training, again = (method.encode(images).pooled for _ in range(2))
        if training.requires_grad:
            return False
        method.eval()
        with torch.no_grad():
            features = method.encode(images)
            if not (close(training, again) and close(training, features.pooled)):
                return False
            _check_pooled_features_suffice(method, features)
    return True


def probe_features(method: Method) -> Tensor | None:
    """Return pooled features of an image of noise in evaluation mode, ``[1, D]``; None if a gradient reaches them."""
    with _left_as_it_was(method), torch.enable_grad():
        features = method.eval().encode(_noise(method, 1)).pooled
    return None if features.requires_grad else features


def close(one: Tensor, other: Tensor) -> bool:
    """Return whether features are equal, apart from rounding."""
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def _check_pooled_features_suffice(method: Method, features: ImageFeatures) -> None:
    """Check that some pairs have the same scores with all features of some images and with only the pooled ones.

    Raises:
        ConfigError: they differ, or the pooled features alone cannot be scored.
    """
    if method.streams:  # a score would change the method
        return
    pairs = method.space.pairs[:2] if method.chunkable else method.space.pairs
    text = method.text(pairs.to(method.device))
    expected = method.rank(features, text, VALIDATION)
    try:
        found = method.rank(ImageFeatures(features.pooled), text, VALIDATION)
        reason = "" if close(found, expected) else "its scores are different with pooled features alone"
    except Exception as error:
        reason = f"pooled features alone give {type(error).__name__}: {error}"
    if reason:
        raise ConfigError(
            [
                f"{type(method).__name__} needs more of an image than pooled features, but does not say so: {reason}. "
                f"Set reads_tokens = True on {type(method.interaction).__name__} if it uses the image's tokens; "
                f"otherwise set caches_features = False on {type(method).__name__}"
            ]
        )


def _noise(method: Method, images: int) -> Tensor:
    """Return the same images of noise at every call, ``[images, 3, H, W]``."""
    size = method.backbone.image_size
    generator = torch.Generator().manual_seed(0)
    return torch.rand(images, 3, size, size, generator=generator).to(method.device)


@contextmanager
def _left_as_it_was(method: Method) -> Iterator[None]:
    """Restore the buffers and the mode of every module, and the state of random numbers."""
    modes = {module: module.training for module in method.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in method.buffers()]
    with torch.random.fork_rng([method.device] if method.device.type == "cuda" else []):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    if not torch.equal(buffer, value):
                        buffer.copy_(value)
            for module, mode in modes.items():
                module.training = mode
