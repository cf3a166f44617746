"""One training step by several ranks: shares of a batch, and the sums of their gradients and losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import distributed
from ..data.batches import Feed
from ..learned_state import kept_buffers, learned_state, load_learned
from ..method import Method
from ..shares import computing, replaced, whole_batches
from ..training_hooks import TrainingHooks
from ..types import Batch, ImageFeatures

SAMPLE = 4  # images of the batch that is divided to measure whether its loss can be
_TOLERANCE = 1e-4  # of losses, relative to their size


@contextmanager
def divided(method: Method) -> Iterator[None]:
    """Let ``method.loss`` of a share of a batch, within ``computing(rows)``, draw from the mask of the whole batch.

    What the method computes of texts has no rows of a batch.
    """
    with ExitStack() as stack:
        if distributed.size() > 1:
            stack.enter_context(whole_batches())
            for owner, name in ((method, "text"), (method.prompt, "forward")):
                stack.enter_context(replaced(owner, name, _without_rows(getattr(owner, name))))
        yield


def _without_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    def texts(*arguments: Any, **keywords: Any) -> Any:
        with computing(None):
            return function(*arguments, **keywords)

    return texts


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients of trainable parameters by their sums over all ranks, with one operation.

    A parameter that has no gradient on any rank has none afterwards.
    """
    if distributed.size() == 1:
        return
    trainable = [p for p in parameters if p.requires_grad]
    if not trainable:
        return
    has_gradient = torch.tensor([p.grad is not None for p in trainable], dtype=torch.float32)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainable]
    flat = torch.cat([gradient.flatten() for gradient in gradients] + [has_gradient.to(gradients[0].device)])
    *sums, has_gradient = distributed.summed(flat).split([*(p.numel() for p in trainable), len(trainable)])
    lacking = any(p.grad is None for p in trainable)  # only then the numbers of the device are waited for
    some = has_gradient.tolist() if lacking else [1.0] * len(trainable)
    for parameter, total, count in zip(trainable, sums, some, strict=True):
        parameter.grad = total.view_as(parameter).to(parameter.dtype) if count else None


def sum_losses(parts: Mapping[str, Tensor], weight: float) -> Mapping[str, Tensor]:
    """Return the parts of a loss for the whole batch, from those for this rank's share and the weight of the share."""
    if distributed.size() == 1:
        return parts
    sums = distributed.summed(torch.stack([value.detach().float().flatten()[0] for value in parts.values()]) * weight)
    return dict(zip(parts, sums, strict=True))


def equal_weights(method: Method) -> None:
    """Load what training changes as the first rank has it, which may have computed it on another kind of machine."""
    if distributed.size() > 1:
        load_learned(method, distributed.first(lambda: {n: value.cpu() for n, value in learned_state(method).items()}))


def equal_random_numbers(device: torch.device) -> None:
    """Set the random numbers of torch to those of the first rank; shares of different sizes may draw differently."""
    torch.set_rng_state(distributed.broadcast(torch.get_rng_state()))
    if device.type == "cuda":
        torch.cuda.set_rng_state(distributed.broadcast(torch.cuda.get_rng_state(device)), device)


def undivided(method: Method, batch: Batch, pairs: Tensor) -> str:
    """Return why the loss of a batch is not the mean of the losses of its parts; empty if it is.

    The losses are measured in training mode, without dropout, and with the running statistics of batch normalisation.
    Neither the method nor the random numbers of torch change.

    Args:
        batch: some images, with their companions.
        pairs: the candidates at training, ``[P, 2]``.
    """
    if type(method).companions is not TrainingHooks.companions:
        return "its companions belong to whole batches"
    if not method.independent:
        return "the scores of an image depend on the batch"
    count = len(batch.attr)
    half = -(-count // 2)
    modes = {module: module.training for module in method.modules()}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([method.device] if method.device.type == "cuda" else []))
        stack.enter_context(kept_buffers(method))
        stack.enter_context(replaced(F, "dropout", lambda input, *_, **__: input))
        stack.enter_context(torch.no_grad())
        method.train()
        for module in method.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        try:
            _total(method.loss(batch, pairs))  # fills what is computed once
            before = _kept(method)
            whole = _total(method.loss(batch, pairs))
            if kept := _changed(before, _kept(method)):
                return f"its loss keeps something in {', '.join(kept)}"
            try:
                parts = [_total(method.loss(part_of(batch, rows), pairs)) for rows in (slice(half), slice(half, count))]
            except Exception as error:
                return f"its loss of {half} images raises {type(error).__name__}: {error}"
        finally:
            for module, mode in modes.items():
                module.training = mode
    mean = (half * parts[0] + (count - half) * parts[1]) / count
    if abs(whole - mean) <= _TOLERANCE * max(1.0, abs(whole)):
        return ""
    return f"its loss of {count} images is {whole:.6g}, and the mean of the losses of its halves is {mean:.6g}"


def sampled(feed: Feed) -> Batch:
    """Return a few images from the beginning to the end of a split."""
    images = len(feed.split)
    return feed.sample(torch.linspace(0, images - 1, min(SAMPLE, images)).long())


def part_of(batch: Batch, rows: slice) -> Batch:
    """Return some images of a batch without companions."""
    images = batch.images
    some = ImageFeatures(images.pooled[rows]) if isinstance(images, ImageFeatures) else images[rows]
    extra = {name: values[rows] for name, values in batch.extra.items()}
    index = None if batch.index is None else batch.index[rows]
    return Batch(some, batch.attr[rows], batch.obj[rows], index, extra)


def _total(loss: Tensor | Mapping[str, Tensor]) -> float:
    return float(sum(float(value) for value in (loss.values() if isinstance(loss, Mapping) else [loss])))


def _kept(method: Method) -> dict[str, tuple[Any, int]]:
    """Return the attributes and buffers of all modules of a method, with the version of each tensor."""
    held: dict[str, tuple[Any, int]] = {}
    for name, module in method.named_modules():
        for key, value in {**vars(module), **module._buffers}.items():
            held[f"{name}.{key}".lstrip(".")] = value, value._version if isinstance(value, Tensor) else 0
    return held


def _changed(before: Mapping[str, tuple[Any, int]], after: Mapping[str, tuple[Any, int]]) -> list[str]:
    """Return the names of attributes and buffers that are new, replaced or written to, sorted."""

    def same(old: tuple[Any, int], new: tuple[Any, int]) -> bool:
        plain = isinstance(new[0], (int, float, str))
        return old[1] == new[1] and (old[0] is new[0] or (plain and bool(old[0] == new[0])))

    return sorted(name for name, new in after.items() if name not in before or not same(before[name], new))
