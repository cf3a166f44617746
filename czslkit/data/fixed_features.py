"""Measure whether the image features of a method stay the same, so that they can be computed once and kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..errors import ConfigError
from ..learned_state import kept_buffers
from ..method import Method
from ..types import VALIDATION, ImageFeatures


def has_fixed_features(method: Method, images: Tensor | None = None) -> bool:
    """Return whether an image always has the same features, and the method needs no other values of it than these.

    Some images are encoded in training mode, twice, and in evaluation mode. The features are fixed if no gradient
    reaches them, all three results are equal, and the pooled features are sufficient for the scores. The method, its
    buffers and the random state are left as they were.

    Args:
        images: the pixels of at least two images, ``[n, 3, H, W]``; noise by default.

    Raises:
        ConfigError: the scores need other features than the method's parts declare.
    """
    if method.layers or method.interaction.reads_tokens or not method.caches_features:
        return False
    if images is None:
        size, generator = method.backbone.image_size, torch.Generator().manual_seed(0)
        images = torch.rand(2, 3, size, size, generator=generator).to(method.device)
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


def probe_features(method: Method, images: Tensor) -> Tensor | None:
    """Return pooled features in evaluation mode, ``[n, D]``; None if a gradient reaches them.

    Images are encoded one after the other, which takes little memory.

    Args:
        images: the pixels, ``[n, 3, H, W]``.
    """
    with _left_as_it_was(method), torch.enable_grad():
        method.eval()
        features = [method.encode(image).pooled for image in images.split(1)]
    return None if any(feature.requires_grad for feature in features) else torch.cat(features)


def close(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal, apart from rounding; infinite numbers have to be equal.

    >>> close(torch.tensor([1.0, -torch.inf]), torch.tensor([5.0, -torch.inf]))
    False
    """
    finite = other.isfinite()
    largest = float(other[finite].abs().max()) if finite.any() else 0.0
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5 * largest, equal_nan=True)


def _check_pooled_features_suffice(method: Method, features: ImageFeatures) -> None:
    """Check that some pairs have the same scores with all features of some images and with only the pooled ones.

    Raises:
        ConfigError: they differ, or the pooled features alone cannot be scored.
    """
    if method.streams and method.streams_in_validation:  # a score would change the method
        return
    pairs = method.space.pairs[:2] if method.chunkable else method.space.pairs
    text = method.text(pairs.to(method.device))
    expected = method.rank(features, text, VALIDATION)
    if not isinstance(expected, Tensor):
        raise ConfigError(
            [f"rank of {type(method).__name__} returned a {type(expected).__name__}, expected a tensor [B, P]"]
        )
    try:
        found, reason = method.rank(ImageFeatures(features.pooled), text, VALIDATION), ""
    except Exception as error:
        reason = f"pooled features alone give {type(error).__name__}: {error}"
    if not reason and not close(found, expected):
        reason = "its scores are different with pooled features alone"
    if reason:
        raise ConfigError(
            [
                f"{type(method).__name__} needs more of an image than pooled features, but does not say so: {reason}. "
                f"Set reads_tokens = True on {type(method.interaction).__name__} if it uses the image's tokens; "
                f"otherwise set caches_features = False on {type(method).__name__}"
            ]
        )


@contextmanager
def _left_as_it_was(method: Method) -> Iterator[None]:
    """Restore the buffers and the mode of every module, and the state of random numbers."""
    modes = {module: module.training for module in method.modules()}
    with torch.random.fork_rng([method.device] if method.device.type == "cuda" else []), kept_buffers(method):
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
