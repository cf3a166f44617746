"""What every method owes the evaluator and the trainer, as checks for plugin authors' own tests."""

from __future__ import annotations

import torch
from torch import Tensor

from .method import Method, build
from .types import Batch, PairSpace

TOLERANCE = 2e-4  # in units of the scores


def demo_space() -> PairSpace:
    """Three attributes, four objects, all pairs, nine of them seen."""
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(4))
    return PairSpace(
        ("dotted", "Faux.Fur", "wet"), ("heart", "ring", "star", "dry-erase_board"), pairs, pairs.sum(1) < 4
    )


def check_method(name: str, **options: object) -> None:
    """Check the contract of a registered method on random images.

    Args:
        name: as registered.
        options: the method's own; a small backbone keeps this fast.

    Raises:
        AssertionError: names the part of the contract that does not hold.

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
            if parameter.requires_grad:  # away from a start where gates and adapters are still closed
                parameter.add_(0.02 * torch.randn_like(parameter))
    method.eval()
    with torch.no_grad():
        check_scores(method, images, space.pairs)


def check_scores(method: Method, images: Tensor, pairs: Tensor) -> None:
    """The part of the contract that holds for scores, of a method in evaluation mode."""
    text = method.text(pairs)
    scores = method(images, text)
    kept = scores.pair.clone()
    ranked = method.rank(images, text)
    assert ranked.shape == (len(images), len(pairs)), f"one column per pair: rank is {list(ranked.shape)}"
    first = method.head.rank(scores, pairs)
    assert torch.equal(scores.pair, kept), "ranking mutates nothing: the pair logits have changed"
    assert torch.equal(method.head.rank(scores, pairs), first), "ranking mutates nothing: a second call differs"

    order = torch.randperm(len(pairs))
    _agree(method.rank(images, method.text(pairs[order])), ranked[:, order], "permuting pairs permutes columns")
    if method.independent:
        alone = torch.cat([method.rank(image, text) for image in images.split(1)])
        _agree(alone, ranked, "an image's scores do not depend on its batch")
    _agree(method.rank(method.encode(images), text), ranked, "encoded images score as images do")
    if method.chunkable:
        chunks = torch.cat([method.rank(images, method.text(chunk)) for chunk in pairs.split(5)], 1)
        _agree(chunks, ranked, "chunks of pairs agree")
        rows = [text.rows(slice(start, start + 5)) for start in range(0, len(pairs), 5)]
        _agree(
            torch.cat([method.rank(images, some) for some in rows], 1), ranked, "rows of a text agree with the whole"
        )


def check_gradients(method: Method, images: Tensor, space: PairSpace) -> None:
    """Every trainable parameter gets a gradient from the loss, out of training's start."""
    if not method.trains:
        return
    seen = space.pairs[space.seen]
    shown = seen[torch.arange(len(images)) % len(seen)]
    method.train()
    method.loss(Batch(images, shown[:, 0], shown[:, 1]), seen).backward()
    idle = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle, f"every trainable parameter gets a gradient: {', '.join(idle)} got none"
    method.zero_grad(set_to_none=True)


def _agree(found: Tensor, expected: Tensor, claim: str) -> None:
    worst = (found - expected).abs().max().item()
    assert worst <= TOLERANCE, f"{claim}: scores differ by up to {worst:.2g}"
