"""Linear maps on either library against torch's own function."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from czslkit import linear as module
from czslkit.backbones import load_backbone
from czslkit.linear import LEAST_CHANNELS, Linear, linear, use_linear

WIDE = LEAST_CHANNELS + 8
needs_onednn = pytest.mark.skipif(not module._ONEDNN, reason="needs a CPU with AVX-512 and torch with oneDNN")


def tensors(*rows: int, bias: bool = True, width: int = WIDE) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    made = (torch.randn(*shape, generator=generator) / 8 for shape in ((*rows, width), (40, width), (40,)))
    x, weight, offset = (value.requires_grad_() for value in made)
    return x, weight, offset if bias else None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(3,), (1,), (2, 5), (2, 3, 4)])
def test_a_wide_map_and_its_gradients_are_those_of_torch(rows: tuple[int, ...], bias: bool) -> None:
    inputs = tensors(*rows, bias=bias)
    wanted = [value for value in inputs if value is not None]
    mine, torchs = linear(*inputs), F.linear(*inputs)
    torch.testing.assert_close(mine, torchs)
    above = torch.randn_like(mine)
    torch.testing.assert_close(torch.autograd.grad(mine, wanted, above), torch.autograd.grad(torchs, wanted, above))


def test_second_derivatives_are_those_of_torch() -> None:
    x, weight, bias = tensors(3)

    def penalty(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        (slope,) = torch.autograd.grad(function(x, weight, bias).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.pow(2).sum(), (x, weight, bias))

    torch.testing.assert_close(penalty(linear), penalty(F.linear), rtol=1e-4, atol=1e-3)


@needs_onednn
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck's own tensors
@pytest.mark.parametrize("needed", [(True, True), (False, True), (True, False)])
def test_the_operator_of_wide_maps_obeys_the_rules_of_torch(needed: tuple[bool, bool]) -> None:
    x, weight, bias = tensors(2, 3)
    args = x.detach().requires_grad_(needed[0]), weight.detach().requires_grad_(needed[1]), bias
    assert set(torch.library.opcheck(module._onednn_linear, args).values()) == {"SUCCESS"}


@needs_onednn
def test_only_wide_maps_of_32_bit_floats_on_the_cpu_use_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = tensors(3)
    used: list[Tensor] = []
    monkeypatch.setattr(module, "_onednn_linear", lambda *given: used.append(given[0]) or F.linear(*given))
    linear(x, weight, bias)
    assert len(used) == 1
    narrow = tensors(3, width=LEAST_CHANNELS - 1)
    others = (
        narrow,
        (x.double(), weight.double(), None),
        (x[0], weight, bias),
        (x[:0], weight, bias),
        (x.to("meta"), weight.to("meta"), None),
    )
    for given in others:
        assert linear(*given).shape == (*given[0].shape[:-1], len(weight))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    monkeypatch.setattr(module, "_ONEDNN", False)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
    assert len(used) == 1


def test_maps_inside_a_module_keep_parameters_hooks_and_subclasses() -> None:
    class Mine(nn.Linear):
        pass

    before = nn.ModuleDict({"plain": nn.Linear(WIDE, 8), "mine": Mine(4, 4), "attn": nn.MultiheadAttention(WIDE, 4)})
    calls: list[str] = []
    before["plain"].register_forward_hook(lambda *_: calls.append("plain"))
    x = torch.randn(2, WIDE)
    expected, state = before["plain"](x), copy.deepcopy(before.state_dict())
    use_linear(before)
    assert {name: type(part) for name, part in before.named_modules() if isinstance(part, nn.Linear)} == {
        "plain": Linear,
        "mine": Mine,
        "attn.out_proj": Linear,
    }
    torch.testing.assert_close(before["plain"](x), expected)
    torch.testing.assert_close(before.state_dict(), state)
    assert calls == ["plain", "plain"]


def test_the_towers_of_a_clip_use_fast_maps_and_the_demo_clip_is_too_narrow_to_change() -> None:
    backbone = load_backbone("demo", adapter_dim=8)
    kinds = {type(part) for part in backbone.modules() if isinstance(part, nn.Linear)}
    assert kinds == {Linear}
    assert max(part.in_features for part in backbone.modules() if isinstance(part, nn.Linear)) < LEAST_CHANNELS
