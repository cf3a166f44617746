"""Recomputed parts of a step: the same losses and gradients, and less in memory."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from czslkit.footprint import Footprint
from czslkit.method import METHODS, Method, build
from czslkit.recompute import Recomputation, recompute, recomputed, recomputed_texts
from czslkit.types import Batch, PairSpace

SMALL = {
    "gipcol": {"graph_layers": "d16,d"},
    "msci": {"low_layers": 2, "high_layers": 2, "heads": (2, 2)},
    "visprod": {"backbone": "timm/resnet10t/random", "image_size": 32, "tune": "all"},
}
ALL = Recomputation(text=1, interaction=1, image=1)


def built(name: str, space: PairSpace, clip_file: Path) -> Method:
    torch.manual_seed(0)
    return build(name, space, **{"backbone": str(clip_file), **SMALL.get(name, {})}).train()


def step(method: Method, space: PairSpace, images: Tensor, how: Recomputation) -> tuple[Tensor, dict[str, Tensor], int]:
    """The loss of a step, its gradients, and the bytes that it keeps until its gradient is computed."""
    pairs = space.pairs[space.seen]
    batch = Batch(images, *pairs[torch.arange(len(images)) % len(pairs)].T)
    torch.manual_seed(1)
    before = {name: value.clone() for name, value in method.named_buffers()}
    with recompute(how), Footprint() as footprint:
        loss = method.loss(batch, pairs)
        kept = footprint.live
        assert isinstance(loss, Tensor)
        loss.backward()
    gradients = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    method.zero_grad(set_to_none=True)
    after = {name: value.clone() for name, value in method.named_buffers()}
    for name, value in method.named_buffers():
        value.copy_(before[name])
    return loss.detach(), gradients | after, kept


@pytest.mark.parametrize("name", [name for name in METHODS if name != "clip"])
def test_a_recomputed_step_has_the_losses_gradients_and_statistics_of_a_plain_step(
    name: str, space: PairSpace, clip_file: Path, images: Tensor
) -> None:
    method = built(name, space, clip_file)
    plain, recomputed = (step(method, space, images, how) for how in (Recomputation(), ALL))
    assert torch.equal(plain[0], recomputed[0])
    assert plain[1].keys() == recomputed[1].keys()
    for key, value in plain[1].items():
        torch.testing.assert_close(recomputed[1][key], value, msg=lambda text, key=key: f"{key}: {text}")
    assert recomputed[2] <= plain[2]


@pytest.mark.parametrize("name", ["msci", "troika"])
def test_texts_in_parts_give_the_same_numbers_and_every_part_saves_memory(
    name: str, space: PairSpace, clip_file: Path, images: Tensor
) -> None:
    method = built(name, space, clip_file)
    for module in method.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # parts draw other random numbers than a whole
    ways = [
        Recomputation(),
        Recomputation(text=0.5),
        Recomputation(text=1),
        Recomputation(text=1, interaction=1, texts=2),
        Recomputation(text=1, interaction=1, image=0.5, texts=2),
        Recomputation(text=1, interaction=1, image=1, texts=2),
    ]
    plain, *others = (step(method, space, images, how) for how in ways)
    kept = [plain[2]]
    for loss, gradients, bytes_kept in others:
        torch.testing.assert_close(loss, plain[0])
        torch.testing.assert_close(gradients, plain[1], rtol=1e-4, atol=1e-6)
        kept.append(bytes_kept)
    assert kept == sorted(set(kept), reverse=True), kept


def test_nothing_is_recomputed_without_gradients_or_outside_the_block() -> None:
    sizes: list[int] = []

    def doubled(texts: Tensor) -> Tensor:
        sizes.append(len(texts))
        return texts.exp()

    texts = torch.ones(5, 2, requires_grad=True)
    with recompute(Recomputation(interaction=1, texts=2)):
        with torch.no_grad():
            recomputed_texts(doubled, texts)
        recomputed_texts(doubled, texts).sum().backward()
    recomputed_texts(doubled, texts)
    again = sorted(sizes[4:7])  # for the gradient
    assert (sizes[:4], again, sizes[7:]) == ([5, 2, 2, 1], [1, 2, 2], [5])


def test_a_step_that_recomputes_a_whole_part_is_compiled_once():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    step = torch.compile(lambda x: recomputed("text", torch.sin, x), backend=backend)
    x, after = torch.ones(2, requires_grad=True), []
    with recompute(Recomputation(text=1)):
        for _ in range(3):
            step(x)
            after.append(len(graphs))
    assert after == after[:1] * 3
