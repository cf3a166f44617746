"""The part of the contract about scores and gradients: checks of a method that is already built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatch

import torch
from torch import Tensor

from ..components import Interaction
from ..method import Method
from ..training.losses import loss_parts
from ..types import Batch, ImageFeatures, PairSpace, TextFeatures
from .report import Check, CheckFailed, CheckSkipped, check

TOLERANCE = 2e-4  # largest accepted difference, in units of the scores
NOISE = 0.02  # standard deviation of the noise on parameters


@dataclass(frozen=True, eq=False)
class Scoring:
    """A method in evaluation mode, with images and candidates that it scores."""

    method: Method
    images: Tensor  # [B, 3, H, W]
    pairs: Tensor  # [P, 2]

    def text(self) -> TextFeatures:
        """Return the text features of all candidates."""
        return self.method.text_in("open", self.pairs)

    def ranked(self) -> Tensor:
        """Return the scores of all images and candidates, ``[B, P]``."""
        return self.method.rank(self.images, self.text())


def add_noise(method: Method) -> None:
    """Add the same small noise to the trainable parameters in every call: a gate of zero would hide mistakes."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.add_(NOISE * torch.randn(parameter.shape, generator=generator))


def check_scores(method: Method, images: Tensor, pairs: Tensor) -> None:
    """Check the part of the contract about scores, for a method in evaluation mode.

    Args:
        images: ``[B, 3, H, W]``.
        pairs: ``[P, 2]``.

    Raises:
        AssertionError: a part of the contract does not hold; the message says what to change.
    """
    scoring = Scoring(method, images, pairs)
    with torch.no_grad():
        for one in SCORE_CHECKS:
            try:
                one.run(scoring)
            except CheckSkipped:
                continue


def check_gradients(method: Method, images: Tensor, space: PairSpace) -> None:
    """Check that the loss is finite, and that every trainable parameter gets a gradient from it.

    Args:
        images: ``[B, 3, H, W]``.
        space: label space of the method.

    Raises:
        AssertionError: the loss is not finite, or some parameters have no gradient; the message lists them.
    """
    if method.trains:
        seen = space.pairs[space.seen]
        shown = seen[torch.arange(len(images)) % len(seen)]
        check_loss(method, Batch(images, shown[:, 0], shown[:, 1]), seen)


def check_loss(method: Method, batch: Batch, pairs: Tensor) -> None:
    """Check the loss of a batch and its gradients in training mode.

    Raises:
        AssertionError: the loss is not finite, or some parameters have no gradient; the message lists them.
    """
    name = type(method).__name__
    loss = loss_parts(method.train(), method.loss(batch, pairs))["loss"]
    if not loss.isfinite():
        raise CheckFailed(f"the loss is {loss.item()}, expected a finite number: change {name}.loss")
    if not loss.requires_grad:
        raise CheckFailed(
            f"the loss does not depend on any trainable parameter: remove torch.no_grad, detach and .data from {name}"
        )
    loss.backward()
    without = {name for name, p in method.named_parameters() if p.requires_grad and p.grad is None}
    idle = sorted(name for name in without if not any(fnmatch(name, pattern) for pattern in method.may_lack_gradient))
    method.zero_grad(set_to_none=True)
    if idle:
        raise CheckFailed(
            f"every trainable parameter gets a gradient: {', '.join(idle)} got none from the loss. Use them outside "
            "torch.no_grad and without detach, freeze them with requires_grad_(False), or name them in "
            f"{name}.may_lack_gradient"
        )


def equal_or_fail(found: Tensor, expected: Tensor, claim: str, remedy: str) -> None:
    """Check that two tensors of scores are equal within the tolerance.

    Raises:
        CheckFailed: they are not; the message has the claim, the difference and the remedy.
    """
    if found.shape != expected.shape:
        raise CheckFailed(f"{claim}: scores are {list(found.shape)}, expected {list(expected.shape)}. {remedy}")
    difference = torch.where(found == expected, 0.0, (found - expected).abs()).max().item()  # -inf equals -inf
    if not difference <= TOLERANCE:
        raise CheckFailed(f"{claim}: scores differ by up to {difference:.2g}. {remedy}")


@check("forward and rank take images [B, 3, H, W] and the features that text returned, and return scores [B, P].")
def one_column_for_each_pair(scoring: Scoring) -> str:
    """The scores are finite, with a row for each image and a column for each candidate."""
    ranked = scoring.ranked()
    images, pairs = len(scoring.images), len(scoring.pairs)
    if not isinstance(ranked, Tensor):
        raise CheckFailed(
            f"rank of {type(scoring.method).__name__} returned a {type(ranked).__name__}, expected a tensor "
            f"[{images}, {pairs}]: return a score for each image and each row of text.pairs"
        )
    if ranked.shape != (images, pairs):
        raise CheckFailed(
            f"one column per pair: rank is {list(ranked.shape)}, expected [{images}, {pairs}]. Return a score for "
            "each row of text.pairs"
        )
    masked = ranked == -torch.inf if scoring.method.masks_pairs else torch.zeros_like(ranked, dtype=torch.bool)
    if not (ranked.isfinite() | masked).all():
        raise CheckFailed(
            "rank returned scores that are not finite: add a small number in log. A method that gives some pairs the "
            "score -inf says so in masks_pairs"
        )
    return f"{images} images x {pairs} pairs"


@check("rank(scores, pairs, setting) of the head reads scores and returns [B, P].", one_column_for_each_pair)
def ranking_changes_nothing(scoring: Scoring) -> str:
    """Ranking leaves the scores as they are, and a second ranking is equal."""
    method = scoring.method
    scores = method(scoring.images, scoring.text())
    before = {name: value.clone() for name, value in vars(scores).items() if isinstance(value, Tensor)}
    first = method.head.rank(scores, scoring.pairs)
    for name, value in before.items():
        if not torch.equal(vars(scores)[name], value):
            raise CheckFailed(
                f"ranking mutates nothing: the {name} logits have changed. Write {type(method.head).__name__}.rank "
                "without in-place operations such as += or mul_"
            )
    if not torch.equal(method.head.rank(scores, scoring.pairs), first):
        raise CheckFailed("ranking mutates nothing: a second call differs. Keep no state in rank")
    return "2 calls of head.rank"


@check("text, encode, forward and rank can be called any number of times.", one_column_for_each_pair)
def a_second_pass_gives_the_same_scores(scoring: Scoring) -> str:
    """Scores in evaluation mode are not random and do not change from pass to pass."""
    equal_or_fail(
        scoring.ranked(),
        scoring.ranked(),
        "a second pass gives the same scores",
        "Use randomness only if self.training is true (F.dropout needs training=self.training), and keep no state "
        "between calls",
    )
    return "2 passes"


@check("text(pairs) takes the pairs in any order.", a_second_pass_gives_the_same_scores)
def permuting_pairs_permutes_columns(scoring: Scoring) -> str:
    """The order of the candidates does not change their scores."""
    order = torch.randperm(len(scoring.pairs), generator=torch.Generator().manual_seed(1))
    text = scoring.method.text_in("open", scoring.pairs[order])
    equal_or_fail(
        scoring.method.rank(scoring.images, text),
        scoring.ranked()[:, order],
        "permuting pairs permutes columns",
        "Compute the text features of a pair from pairs[:, 0] and pairs[:, 1], not from its row",
    )
    return f"{len(order)} pairs in two orders"


@check("forward and rank take any number of images.", a_second_pass_gives_the_same_scores)
def a_score_does_not_depend_on_the_batch(scoring: Scoring) -> str:
    """An image has the same scores alone, in a batch and in another order."""
    method, text, expected = scoring.method, scoring.text(), scoring.ranked()
    if not method.independent:
        raise CheckSkipped("the method declares independent = False")
    claim = "an image's scores do not depend on its batch"
    remedy = "Compute each row from its image alone, or set self.independent = False in __init__"
    one_by_one = torch.cat([method.rank(image, text) for image in scoring.images.split(1)])
    equal_or_fail(one_by_one, expected, claim, remedy)
    equal_or_fail(method.rank(scoring.images.flip(0), text), expected.flip(0), claim, remedy)
    return f"{len(expected)} images one by one, and in reverse order"


@check("forward takes the features that encode returned.", a_second_pass_gives_the_same_scores)
def encoded_images_score_as_images_do(scoring: Scoring) -> str:
    """Features of ``encode`` have the scores of their images."""
    features = scoring.method.encode(scoring.images)
    equal_or_fail(
        scoring.method.rank(features, scoring.text()),
        scoring.ranked(),
        "encoded images score as images do",
        "Do everything that an image needs in encode, and nothing of it in forward",
    )
    return f"{len(scoring.images)} images"


@check(
    "forward must work without image.tokens, since reads_tokens is False: set reads_tokens = True on the interaction.",
    encoded_images_score_as_images_do,
)
def tokens_are_declared(scoring: Scoring) -> str:
    """An interaction that reads the tokens of an image declares ``reads_tokens = True``."""
    method = scoring.method
    if method.interaction.reads_tokens:
        raise CheckSkipped("the interaction declares reads_tokens = True")
    features: ImageFeatures = replace(method.encode(scoring.images), tokens=None)
    equal_or_fail(
        method.rank(features, scoring.text()),
        scoring.ranked(),
        "scores do not depend on image.tokens",
        f"Set reads_tokens = True on {type(method.interaction).__name__}",
    )
    return "features without tokens"


@check(
    "The evaluator scores pairs in chunks: return every field of the text features that has a row for each pair in "
    "by_pair, or set chunkable = False.",
    a_second_pass_gives_the_same_scores,
)
def chunks_of_pairs_agree(scoring: Scoring) -> str:
    """A pair has the same scores whichever other pairs are candidates."""
    method, pairs, text, expected = scoring.method, scoring.pairs, scoring.text(), scoring.ranked()
    if not method.chunkable:
        raise CheckSkipped("the method declares chunkable = False")
    rest = "Compute the score of a pair from this pair alone, or set chunkable = False"
    by_chunk = torch.cat([method.rank(scoring.images, method.text_in("open", chunk)) for chunk in pairs.split(5)], 1)
    equal_or_fail(by_chunk, expected, "chunks of pairs agree", rest)
    rows = [text.rows(slice(start, start + 5)) for start in range(0, len(pairs), 5)]
    by_rows = torch.cat([method.rank(scoring.images, part) for part in rows], 1)
    remedy = "Return the fields of the text features that have a row for each pair in by_pair. " + rest
    equal_or_fail(by_rows, expected, "rows of a text agree with the whole", remedy)
    return f"{len(pairs)} pairs in chunks of 5"


@check("explain(image, text, backbone) of the interaction returns the features of forward, and attention maps.",
       one_column_for_each_pair)  # fmt: skip
def an_explanation_has_the_scores_of_a_forward_pass(scoring: Scoring) -> str:
    """``explain`` computes the same scores as ``forward``, if the interaction can be explained."""
    method = scoring.method
    if type(method.interaction).explain is Interaction.explain:
        raise CheckSkipped("the interaction does not implement explain")
    explained = method.explain(scoring.images[:2], scoring.text()).ranked
    remedy = "Return from explain the features that forward returns"
    equal_or_fail(explained, scoring.ranked()[:2], "an explanation has the scores of a forward pass", remedy)
    return "2 images"


#: Checks of a method that is already built, in evaluation mode and without gradients.
SCORE_CHECKS: tuple[Check[Scoring], ...] = (
    one_column_for_each_pair,
    ranking_changes_nothing,
    a_second_pass_gives_the_same_scores,
    permuting_pairs_permutes_columns,
    a_score_does_not_depend_on_the_batch,
    encoded_images_score_as_images_do,
    tokens_are_declared,
    chunks_of_pairs_agree,
    an_explanation_has_the_scores_of_a_forward_pass,
)
