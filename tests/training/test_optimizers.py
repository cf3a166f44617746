from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch

from czslkit.training.optimizers import AdamWBert, _can_fuse

GRADIENTS = [(0.5, -2.0, 1e-6), (0.1, 0.3, 3e-6), (-0.7, 0.0, -1e-6), (0.2, 1.0, 2e-6), (0.2, -1.0, 0.0)]
START = (1.0, -3.0, 0.02)


def stepped(kind, gradients=GRADIENTS, **settings):
    """Return a weight of three entries after one step with each gradient."""
    weight = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer = kind([weight], **settings)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    return weight.tolist()


def by_hand(p, gradients, lr, decay):
    """Return one entry, computed by the formulas."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        p = p - lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (math.sqrt(v) + 1e-6)
        p = p - lr * decay * p
    return p


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_the_formulas(decay):
    expected = [
        by_hand(p, gradients, 0.05, decay) for p, gradients in zip(START, zip(*GRADIENTS, strict=True), strict=True)
    ]
    assert stepped(AdamWBert, lr=0.05, weight_decay=decay) == pytest.approx(expected, rel=1e-12)


def test_small_gradients_and_decay_are_not_treated_as_in_torch():
    mine, torchs = stepped(AdamWBert, lr=0.05), stepped(torch.optim.AdamW, lr=0.05, weight_decay=0, eps=1e-6)
    assert mine[:2] == pytest.approx(torchs[:2], rel=1e-3)
    assert abs(mine[2] - torchs[2]) > 0.02  # sqrt(v) is far below eps / sqrt(1 - 0.999)
    settings = {"gradients": GRADIENTS[:1], "lr": 0.05, "weight_decay": 0.1, "eps": 0.0}
    mine, torchs = stepped(AdamWBert, **settings), stepped(torch.optim.AdamW, **settings)
    assert mine[0] - torchs[0] == pytest.approx(0.05 * 0.05 * 0.1)  # the step itself decays, too


def test_a_weight_without_gradient_is_left_alone():
    weight, other = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = AdamWBert([weight, other], lr=0.1, weight_decay=0.5)
    weight.grad = torch.ones(2)
    optimizer.step()
    assert other.tolist() == [1, 1]
    assert other not in optimizer.state


def test_every_group_has_its_own_settings():
    one, two = (torch.nn.Parameter(torch.tensor(1.0)) for _ in range(2))
    optimizer = AdamWBert([{"params": [one], "lr": 0.2}, {"params": [two], "weight_decay": 0.5}], lr=0.1)
    one.grad = two.grad = torch.tensor(3.0)
    optimizer.step()
    assert (one.item(), two.item()) == pytest.approx((by_hand(1, [3], 0.2, 0), by_hand(1, [3], 0.1, 0.5)))


def test_a_closure_is_evaluated_with_gradients():
    weight = torch.nn.Parameter(torch.tensor(1.0))

    def closure():
        loss = weight**2
        loss.backward()
        return loss

    assert AdamWBert([weight], lr=0.1).step(closure).item() == 1
    assert weight.item() == pytest.approx(by_hand(1, [2], 0.1, 0))


def test_a_restored_optimizer_goes_on_as_it_would_have():
    weight, copy = (torch.nn.Parameter(torch.tensor(START)) for _ in range(2))
    optimizer = AdamWBert([weight], lr=0.05, weight_decay=0.1)
    for i, gradient in enumerate(GRADIENTS):
        if i == 2:
            with torch.no_grad():
                copy.copy_(weight)
            resumed = AdamWBert([copy], lr=0.05, weight_decay=0.1)
            resumed.load_state_dict(deepcopy(optimizer.state_dict()))
        weight.grad = copy.grad = torch.tensor(gradient)
        optimizer.step()
        if i >= 2:
            resumed.step()
    assert torch.equal(weight, copy)


def test_a_state_of_an_earlier_version_has_its_steps_as_tensors():
    weights = [torch.nn.Parameter(torch.tensor(START)) for _ in range(2)]
    optimizers = [AdamWBert([weight], lr=0.05) for weight in weights]
    for weight, optimizer in zip(weights, optimizers, strict=True):
        for gradient in GRADIENTS:
            weight.grad = torch.tensor(gradient)
            optimizer.step()
            if optimizer is optimizers[1]:
                optimizer.state[weight]["step"] = torch.tensor(optimizer.state[weight]["step"])
    assert torch.equal(*weights)


def test_torch_makes_a_step_in_one_operation_on_cuda_only():
    class Cuda(torch.nn.Parameter):
        is_cuda = True

    weight = torch.nn.Parameter(torch.ones(2))
    assert not _can_fuse([{"params": [weight]}])
    assert _can_fuse([{"params": [Cuda(torch.ones(2))]}])
    assert not _can_fuse([{"params": [Cuda(torch.ones(2))]}, {"params": [weight]}])
