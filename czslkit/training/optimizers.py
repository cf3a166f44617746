"""The optimisers of a training and the schedule of their learning rates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from ..errors import TrainingError
from ..method import Method
from ..training_hooks import group_parameters
from .options import TrainOptions


def make_optimizers(method: Method, options: TrainOptions) -> list[torch.optim.Optimizer]:
    """Return the optimisers of the groups of ``method.parameter_groups()``, the optimiser of ``options`` first.

    Raises:
        TrainingError: a group has an unknown optimiser or a learning rate, or a trainable parameter is not in exactly
            one group.
    """
    groups: dict[Any, list[dict[str, Any]]] = {}
    for given in method.parameter_groups():
        group = {**given, "params": group_parameters(given)}
        if "lr" in group:
            raise TrainingError(
                f"a group of {type(method).__name__}.parameter_groups() has lr={group['lr']!r}; "
                "give lr_scale, the factor of train.lr, instead"
            )
        scale = group.pop("lr_scale", 1.0)
        group = {"weight_decay": options.weight_decay, **group, "lr": options.lr * scale, "base_lr": options.lr * scale}
        groups.setdefault(group.pop("optimizer", options.optimizer), []).append(group)
    check_groups(method, [p for members in groups.values() for group in members for p in group["params"]])
    kinds = sorted(groups, key=lambda kind: kind != options.optimizer)
    return [_optimizer(method, kind, groups[kind], options) for kind in kinds]


def check_groups(method: Method, grouped: Sequence[nn.Parameter]) -> None:
    """Check that every trainable parameter is in exactly one group, and that the groups have no others.

    Raises:
        TrainingError: it is in none, or in several, or a group has a parameter of something else; the message names it.
    """
    counts = Counter(map(id, grouped))
    known = {id(p) for p in method.parameters()}
    if foreign := [list(p.shape) for p in grouped if id(p) not in known]:
        raise TrainingError(
            f"{type(method).__name__}.parameter_groups() has a parameter of shape {foreign[0]} that is not a parameter "
            "of the method, so it would not be saved: register its module, or the parameter, as an attribute"
        )
    trainable = {name: counts[id(p)] for name, p in method.named_parameters() if p.requires_grad}
    for problem, names in {
        "no group": [name for name, count in trainable.items() if not count],
        "several groups": [name for name, count in trainable.items() if count > 1],
    }.items():
        if names:
            raise TrainingError(
                f"trainable parameters of {type(method).__name__} are in {problem} of parameter_groups(): "
                f"{', '.join(names)}; expected exactly one group for each"
            )


def _optimizer(method: Method, kind: Any, groups: list[dict[str, Any]], options: TrainOptions) -> torch.optim.Optimizer:
    """Return one optimiser.

    Args:
        kind: a value of ``train.optimizer``, or a class of optimisers.
        groups: its groups of parameters.

    Raises:
        TrainingError: there is no such optimiser.
    """
    if isinstance(kind, str) and kind in _OPTIMIZERS:
        fused = {"fused": True} if kind in _FUSED and _can_fuse(groups) else {}
        return _OPTIMIZERS[kind](groups, lr=options.lr, weight_decay=options.weight_decay, **fused)
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer):
        return kind(groups, lr=options.lr)  # type: ignore[call-arg]
    raise TrainingError(
        f"{type(method).__name__}.parameter_groups() asks for the optimiser {kind!r}, expected one of "
        f"{', '.join(_OPTIMIZERS)}, or a subclass of torch.optim.Optimizer"
    )


def _can_fuse(groups: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether torch can update all parameters of an optimiser at once; on a CPU, this would change digits."""
    return all(p.is_cuda and p.is_floating_point() for group in groups for p in group["params"])


def lr_factor(options: TrainOptions, epoch: int, progress: float = 0.0, step_progress: float = 1.0) -> float:
    """Return the factor by which schedule and warm-up multiply the learning rate.

    Args:
        epoch: the epoch, counted from 0.
        progress: share of the epoch's steps before this step, from 0 to 1.
        step_progress: the same after this step.

    >>> [lr_factor(TrainOptions(schedule="step", step_size=2, gamma=0.5), epoch) for epoch in range(4)]
    [1.0, 1.0, 0.5, 0.5]
    >>> options = TrainOptions(schedule="constant", warmup_epochs=1)
    >>> [lr_factor(options, 0, step / 4, (step + 1) / 4) for step in range(4)]
    [0.25, 0.5, 0.75, 1.0]
    """
    warmup = min(1.0, (epoch + step_progress) / options.warmup_epochs) if options.warmup_epochs else 1.0
    return warmup * _schedule_factor(options, epoch, progress if options.schedule_by == "step" else 0.0)


def _schedule_factor(options: TrainOptions, epoch: int, progress: float) -> float:
    """Return the factor of the schedule without warm-up; see :func:`lr_factor`."""
    if options.schedule == "step":
        return options.gamma ** (epoch // options.step_size)
    if options.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (epoch + progress) / options.epochs))
    return 1.0


class AdamWBert(torch.optim.Optimizer):
    """AdamW as in BERT's first PyTorch port, which MSCI's program still uses.

    It differs from ``torch.optim.AdamW`` in two ways. ``eps`` is added to the root of the second moment before the bias
    correction, so it has more effect in the first steps. Weights decay after the step instead of before it.

    >>> weight = torch.nn.Parameter(torch.tensor(1.0))
    >>> optimizer = AdamWBert([weight], lr=0.1, weight_decay=0.5)
    >>> weight.grad = torch.tensor(2.0)
    >>> optimizer.step()
    >>> round(weight.item(), 4)  # (1 - 0.1) * (1 - 0.1 * 0.5)
    0.855
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient; return the loss that ``closure`` computes, if it is given."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, [p.grad for p in parameters], group)
        return loss

    def _update(self, parameters: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        """Update all parameters of a group at once."""
        beta1, beta2 = group["betas"]
        states = [self.state[parameter] for parameter in parameters]
        for state, parameter in zip(states, parameters, strict=True):
            if not state:
                state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(parameter) for _ in range(2))
            state["step"] = float(state.get("step", 0)) + 1  # a tensor in files of earlier versions
        means, squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        torch._foreach_mul_(means, beta1)
        torch._foreach_add_(means, grads, alpha=1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, group["eps"])
        sizes = [-group["lr"] * math.sqrt(1 - beta2**s) / (1 - beta1**s) for s in (state["step"] for state in states)]
        torch._foreach_addcdiv_(parameters, means, roots, sizes)
        torch._foreach_add_(parameters, parameters, alpha=-group["lr"] * group["weight_decay"])


_FUSED = ("adam", "adamw", "sgd")  # optimisers of which torch has a version that makes a step in a single operation
_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamw_bert": AdamWBert,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}
