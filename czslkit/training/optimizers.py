"""The optimiser of a training and the schedule of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from .options import TrainOptions


def make_optimizer(parameters: Iterable[nn.Parameter], options: TrainOptions) -> torch.optim.Optimizer:
    """Return the optimiser that ``options`` ask for."""
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "adamw_bert": AdamWBert,
        "sgd": lambda parameters, **options: torch.optim.SGD(parameters, momentum=0.9, **options),
    }
    return kinds[options.optimizer](parameters, lr=options.lr, weight_decay=options.weight_decay)


def lr_factor(options: TrainOptions, epoch: int) -> float:
    """Return the factor by which the schedule multiplies the learning rate in an epoch, counted from 0.

    >>> [lr_factor(TrainOptions(schedule="step", step_size=2, gamma=0.5), epoch) for epoch in range(4)]
    [1.0, 1.0, 0.5, 0.5]
    """
    if options.schedule == "step":
        return options.gamma ** (epoch // options.step_size)
    if options.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * epoch / options.epochs))
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
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(parameter) for _ in range(2))
        state["step"] += 1
        step = state["step"].item()
        mean = state["exp_avg"].mul_(beta1).add_(grad, alpha=1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        size = group["lr"] * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        parameter.addcdiv_(mean, square.sqrt().add_(group["eps"]), value=-size)
        parameter.add_(parameter, alpha=-group["lr"] * group["weight_decay"])
