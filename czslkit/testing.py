"""Checks of the contract between a method and the evaluator and trainer, for the tests of plugin authors."""

from __future__ import annotations

import torch
from torch import Tensor

from .method import Method, build
from .training.epoch import loss_parts
from .types import Batch, PairSpace

TOLERANCE = 2e-4  # largest accepted difference, in units of the scores


def demo_space() -> PairSpace:
    """Return a label space of three attributes, four objects and all twelve pairs, of which nine are seen."""
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(4))
    return PairSpace(
        ("dotted", "Faux.Fur", "wet"), ("heart", "ring", "star", "dry-erase_board"), pairs, pairs.sum(1) < 4
    )


def check_method(name: str, **options: object) -> None:
    """Check that a registered method fulfils the contract, on random images.

    Args:
        name: registered name of the method.
        options: options of the method; with a small backbone, the check is fast.

    Raises:
        AssertionError: a part of the contract does not hold; the message names it.

    >>> check_method("csp", backbone="demo")
    """
    torch.manual_seed(0)
    space = demo_space()
    method = build(name, space, **options)
    size = method.backbone.image_size
    images = torch.randn(6, 3, size, size)
    check_gradients(method, images, space)
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:  # a gate or an adapter that starts at zero would hide mistakes
                parameter.add_(0.02 * torch.randn_like(parameter))
    method.eval()
    with torch.no_grad():
        check_scores(method, images, space.pairs)


def check_scores(method: Method, images: Tensor, pairs: Tensor) -> None:
    """Check the part of the contract about scores, for a method in evaluation mode.

    Args:
        images: ``[B, 3, H, W]``.
        pairs: ``[P, 2]``.

    Raises:
        AssertionError: a part of the contract does not hold; the message names it.
    """
    text = method.text(pairs)
    scores = method(images, text)
    pair_before = scores.pair.clone()
    ranked = method.rank(images, text)
    assert ranked.shape == (len(images), len(pairs)), f"one column per pair: rank is {list(ranked.shape)}"
    first_call = method.head.rank(scores, pairs)
    assert torch.equal(scores.pair, pair_before), "ranking mutates nothing: the pair logits have changed"
    assert torch.equal(method.head.rank(scores, pairs), first_call), "ranking mutates nothing: a second call differs"

    order = torch.randperm(len(pairs))
    _check_equal(method.rank(images, method.text(pairs[order])), ranked[:, order], "permuting pairs permutes columns")
    if method.independent:
        one_by_one = torch.cat([method.rank(image, text) for image in images.split(1)])
        _check_equal(one_by_one, ranked, "an image's scores do not depend on its batch")
    _check_equal(method.rank(method.encode(images), text), ranked, "encoded images score as images do")
    if method.chunkable:
        by_chunk = torch.cat([method.rank(images, method.text(chunk)) for chunk in pairs.split(5)], 1)
        _check_equal(by_chunk, ranked, "chunks of pairs agree")
        row_chunks = [text.rows(slice(start, start + 5)) for start in range(0, len(pairs), 5)]
        by_rows = torch.cat([method.rank(images, rows) for rows in row_chunks], 1)
        _check_equal(by_rows, ranked, "rows of a text agree with the whole")


def check_gradients(method: Method, images: Tensor, space: PairSpace) -> None:
    """Check that every trainable parameter gets a gradient from the loss at the start of a training.

    Args:
        images: ``[B, 3, H, W]``.
        space: label space of the method.

    Raises:
        AssertionError: some parameters have no gradient; the message lists them.
    """
    if not method.trains:
        return
    seen = space.pairs[space.seen]
    shown = seen[torch.arange(len(images)) % len(seen)]
    method.train()
    loss_parts(method, method.loss(Batch(images, shown[:, 0], shown[:, 1]), seen))["loss"].backward()
    idle = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle, f"every trainable parameter gets a gradient: {', '.join(idle)} got none"
    method.zero_grad(set_to_none=True)


def _check_equal(found: Tensor, expected: Tensor, claim: str) -> None:
    """Check that two tensors of scores are equal within the tolerance; ``claim`` starts the message if not."""
    difference = (found - expected).abs().max().item()
    assert difference <= TOLERANCE, f"{claim}: scores differ by up to {difference:.2g}"
