"""The numbers of the validation split that select the epoch to keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

import torch
from torch import Tensor

from .. import distributed
from ..data.batches import Feed
from ..data.splits import Splits
from ..learned_state import kept_buffers
from ..method import Method
from ..metrics.metrics import Metrics
from ..metrics.sweep import Bins
from ..metrics.sweep_state import LAST_BIAS
from ..precision import computing_in
from ..sizes import MEMORY
from ..terminal import tracked
from ..training.losses import loss_parts
from ..training.options import TrainOptions
from ..types import Batch
from .evaluator import Evaluation, OpenWorld, whole_batches


class Batches(Protocol):
    """Batches that can be read several times."""

    def batches(self) -> Iterable[Batch]: ...


@dataclass(frozen=True)
class _Shown:
    """The batches of a feed, or a rank's share of them, which show their progress."""

    feed: Feed
    shared: bool

    def batches(self) -> Iterable[Batch]:
        feed = self.feed
        order = whole_batches(len(feed.split), feed.batch_size) if self.shared else None
        count = len(feed) if order is None else -(-len(order) // feed.batch_size)
        return tracked(feed.batches(order), "validation loss, batches", count, show=feed.progress)


def plan_validation(
    method: Method,
    data: Splits,
    feed: Feed,
    options: TrainOptions,
    *,
    bins: Bins,
    memory: int = MEMORY,
    open_world: OpenWorld | None = None,
    stream_seed: int = 0,
) -> Callable[[], dict[str, float]]:
    """Plan the validation of a method once; the returned function then validates it after any number of epochs.

    Args:
        method: left in evaluation mode.
        feed: batches of the same method and the validation split; its ``precision`` is that of the validation.
        options: settings of the training; ``select`` decides whether the validation loss is computed, and
            ``select_world`` the world of the AUC.
        bins: the curve whose area is the AUC.
        memory: bytes that scoring may take; the memory of a validation loss is not limited.
        open_world, stream_seed: as for ``Evaluation.plan``.

    Returns:
        A function that gives ``val_auc``, ``val_bias``, at which the harmonic mean is best unless it is always 0, and
        ``val_loss`` if epochs are selected by it. If the AUC is undefined because one kind of images is missing, it is
        NaN, there is no ``val_bias``, and ``val_acc`` is the accuracy of the pair at bias 0.

    Raises:
        ConfigError: ``memory`` is too little.
    """
    world = options.select_world
    evaluation = Evaluation.plan(
        method, data, "val", [world], feed, open_world=open_world, memory=memory, stream_seed=stream_seed
    )

    def validate() -> dict[str, float]:
        metrics = evaluation.run()[world].compute_all(bins)[0]
        found = {"val_auc": metrics.auc}
        if (bias := best_bias(metrics)) is not None:
            found["val_bias"] = bias
        if metrics.undefined:
            found = {"val_auc": math.nan, "val_acc": metrics.at_zero.pair}
        if options.select != "loss":
            return found
        pairs = data.space.pairs.to(method.device)
        own = type(method).loss is not Method.loss or type(method).validation_loss is not Method.validation_loss
        shared = distributed.size() > 1 and not own  # a loss of its own may depend on earlier batches
        with computing_in(feed.precision, method.device):
            fused = options.fused_validation_loss
            loss = validation_loss(method, _Shown(feed, shared), pairs, fused=fused, shared=shared)
        return {**found, "val_loss": loss}

    return validate


def best_bias(metrics: Metrics) -> float | None:
    """Return the finite bias with the best harmonic mean; None if this is 0 at every bias."""
    return min(max(metrics.hm_bias, -LAST_BIAS), LAST_BIAS) if metrics.best_hm else None  # exact ones can be infinite


@torch.no_grad()
def validation_loss(
    method: Method, feed: Batches, pairs: Tensor, *, fused: bool = False, shared: bool = False
) -> float:
    """Return the loss of a split against the candidates ``pairs`` ``[P, 2]``, in evaluation mode.

    It is the mean of the mean losses of the batches, as in the authors' programs, so images in a short last batch have
    more weight.

    Args:
        method: left in evaluation mode; its ``validation_loss`` is the loss of a batch.
        fused: use the fused scores that pairs are ranked by as pair logits, as Troika's and MSCI's programs do.
        shared: ``feed`` has a share of the batches, and the other ranks have the rest.
    """
    method.eval()
    text = method.text(pairs)
    with kept_buffers(method):  # a loss may fill a queue, which belongs to the training
        losses = (method.validation_loss(batch, text, fused=fused) for batch in feed.batches())
        values = [loss_parts(method, loss)["loss"].reshape(()) for loss in losses]
        own = torch.stack(values).tolist() if values else []
        shares = distributed.gather(own) if shared else [own]
        return fmean(value for share in shares for value in share)
