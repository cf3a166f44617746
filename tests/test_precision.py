"""Number formats: what they switch, what they restore, and what is recorded of them."""

from __future__ import annotations

import itertools

import pytest
import torch

from czslkit.components import cosine
from czslkit.method import METHODS, build, ranked
from czslkit.precision import PRECISIONS, _allow_tf32, _tf32_allowed, computing_in, precision_record, tf32
from czslkit.training.losses import loss_parts
from czslkit.types import Batch, Setting

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _restored_switches():
    before = _tf32_allowed()
    yield
    _allow_tf32(*before)


@pytest.mark.parametrize("before", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("precision", PRECISIONS)
def test_tf32_is_allowed_inside_the_block_only_and_forbidden_for_other_formats(precision, before):
    _allow_tf32(*before)
    seen = []

    def fails():
        with tf32(precision == "tf32", CUDA):
            seen.append(_tf32_allowed())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fails()
    assert seen == [(precision == "tf32",) * 2]
    assert _tf32_allowed() == before


def test_convolutions_may_use_tf32_by_default_and_not_in_fp32():
    assert _tf32_allowed()[1]
    with tf32(False, CUDA):
        assert not _tf32_allowed()[1]
    assert _tf32_allowed()[1]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_cpu_computes_tf32_as_fp32(precision):
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    with computing_in(precision, x.device):
        product = x @ x
    assert product.dtype == dtype
    assert torch.equal(product, x @ x) == (dtype == torch.float32)


def test_a_cpu_leaves_the_switches_alone():
    before = _tf32_allowed()
    for precision in PRECISIONS:
        with computing_in(precision, torch.device("cpu")):
            assert _tf32_allowed() == before


def test_an_inner_format_holds():
    with computing_in("bf16", torch.device("cpu")), computing_in("fp32", torch.device("cpu")):
        assert (torch.eye(2) @ torch.eye(2)).dtype == torch.float32


def test_only_other_formats_than_fp32_are_recorded():
    assert precision_record(train="fp32", eval="fp32") == {}
    assert precision_record(train="bf16", eval="tf32") == {"train": "bf16", "eval": "tf32"}


@pytest.mark.parametrize("texts", [(7, 64), (5, 7, 64)])
def test_cosines_keep_their_digits_in_bf16(texts):
    generator = torch.Generator().manual_seed(0)
    image, text, scale = (torch.randn(s, generator=generator) for s in ((5, 64), texts, ()))
    with computing_in("bf16", image.device):
        found = cosine(image.bfloat16(), text, scale + 4)
        exact = cosine(image, text, scale + 4)
    assert found.dtype == torch.float32
    assert torch.equal(exact, cosine(image, text, scale + 4))
    torch.testing.assert_close(found, cosine(image.bfloat16().float(), text, scale + 4))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "clip"])
def test_every_method_trains_and_ranks_in_bf16_close_to_fp32(name, space, clip_file, images):
    torch.manual_seed(0)
    small = {"visprod": {"backbone": "timm/resnet10t/random", "image_size": 32, "tune": "all"}}
    msci = {"msci": {"low_layers": 2, "high_layers": 2, "heads": (2, 2)}}
    method = build(name, space, **{"backbone": str(clip_file), **(small | msci).get(name, {})})
    pairs = space.pairs[space.seen]
    batch = Batch(images, *pairs[torch.arange(len(images)) % len(pairs)].T)
    losses, scores = [], []
    for precision in ("fp32", "bf16"):
        method.train()
        torch.manual_seed(1)
        with computing_in(precision, images.device):
            loss = loss_parts(method, method.loss(batch, pairs))["loss"]
        loss.backward()
        losses.append(loss.detach())
        assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
        method.eval().zero_grad()
        with torch.no_grad(), computing_in(precision, images.device):
            scores.append(ranked(method, method.encode(images), method.text_in("closed", space.pairs), Setting()))
        assert scores[-1].dtype == torch.float32  # in bfloat16, scores of unlike pairs would be equal
    torch.testing.assert_close(losses[1].float(), losses[0], rtol=0.1, atol=0.1)
    most = max(scores[0].std(), 0.05 * scores[0].abs().max())
    assert (scores[1].float() - scores[0]).abs().max() < most
    assert not torch.equal(scores[1].float(), scores[0])
