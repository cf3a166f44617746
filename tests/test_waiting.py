"""No step of a training and no chunk of an evaluation waits for the device.

The device is CUDA as fake tensors show it: they have shapes, but no values. An operation that needs a value on the
host, such as ``item``, ``nonzero`` or an index of bools, raises an error there, and a copy between devices is visible.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from czslkit.deferred import MOST_WAITING, Checks, check, deferred_checks, sent
from czslkit.errors import TrainingError
from czslkit.method import METHODS, Method, build, ranked
from czslkit.metrics import sweep as sweeps
from czslkit.metrics import sweep_state
from czslkit.metrics.score_columns import ScoreColumns
from czslkit.metrics.sweep import Sweep
from czslkit.metrics.sweep_state import ChunkColumns, reduce_chunk
from czslkit.shares import Rows
from czslkit.training.epoch import Trainer
from czslkit.training.losses import UNREAD_BATCHES, MeanLosses
from czslkit.training.optimizers import make_optimizers
from czslkit.training.options import TrainOptions
from czslkit.training_hooks import AveragedWeights, TrainingPosition
from czslkit.types import Batch, PairSpace, Setting, TextFeatures

CUDA = torch.device("cuda:0")
SMALL: dict[str, dict[str, Any]] = {
    "msci": {"low_layers": 2, "high_layers": 2, "heads": (2, 2)},
    "visprod": {"backbone": "timm/resnet10t/random", "image_size": 32, "tune": "all"},
}
START = TrainingPosition(0, 1, 0, 1)


@dataclass(frozen=True)
class Split:
    """The part of a split that a step needs."""

    pairs: Tensor


@dataclass(frozen=True)
class Given:
    """A feed of that split."""

    split: Split


class Copies(TorchDispatchMode):
    """The operations inside the ``with`` block that copy between devices."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {v.device for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)}
        made = {v.device for v in tree_leaves(out) if isinstance(v, Tensor)}
        copied = func is torch.ops.aten.copy_.default and len(given) > 1
        if copied or (given and made - given):
            self.found.append(f"{func} from {given} to {made}")
        return out


@contextmanager
def fake_cuda() -> Iterator[tuple[FakeTensorMode, Copies]]:
    """Compute without values; attention is computed as on a GPU without its own kernel for it."""
    with FakeTensorMode() as mode, sdpa_kernel(SDPBackend.MATH), Copies() as copies:
        yield mode, copies


def on_cuda(method: Method, mode: FakeTensorMode) -> Method:
    """The method with fake tensors on CUDA in place of its own."""
    for module in method.modules():
        for name, p in module._parameters.items():
            if p is not None:
                with torch.no_grad():
                    value = mode.from_tensor(p).to(CUDA).detach()
                module._parameters[name] = nn.Parameter(value, p.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = mode.from_tensor(buffer).to(CUDA)
    return method


def built(name: str, space: PairSpace, clip_file: Path) -> Method:
    return build(name, space, **{"backbone": str(clip_file), **SMALL.get(name, {})})


def test_the_fake_device_reveals_what_waits() -> None:
    with fake_cuda() as (_, copies):
        values = torch.zeros(3, device=CUDA)
        with pytest.raises(DataDependentOutputException):
            values.sum().item()
        for waits in (lambda: values[values > 0], lambda: values.nonzero(), lambda: values.long().bincount()):
            with pytest.raises(DynamicOutputShapeException):
                waits()
        copies.found.clear()
        values.cpu()
        assert "_to_copy" in copies.found[0]


@pytest.mark.parametrize("name", [name for name in METHODS if name != "clip"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw_bert"])
def test_a_step_of_a_training_does_not_wait(
    name: str, optimizer: Any, space: PairSpace, clip_file: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checks, "read", lambda self: None)  # there are no values
    method, pairs = built(name, space, clip_file).train(), space.pairs[space.seen]
    attr, obj = pairs[torch.arange(len(images)) % len(pairs)].unbind(1)
    options = TrainOptions(optimizer=optimizer, clip_norm=1.0)
    trainer = Trainer(method, Given(Split(pairs)), options, None, [], 0, None)  # type: ignore[arg-type]
    losses = MeanLosses(UNREAD_BATCHES)
    with fake_cuda() as (mode, copies):
        on_cuda(method, mode)
        trainer.pairs = mode.from_tensor(pairs).to(CUDA)
        trainer.optimizers = make_optimizers(method, options)
        batch = Batch(*(mode.from_tensor(values).to(CUDA) for values in (images, attr, obj)))
        copies.found.clear()
        with deferred_checks(CUDA):
            trainer._set_learning_rate(START)
            forward_only(trainer, batch, losses)
            for p in method.parameters():
                p.grad = torch.zeros_like(p) if p.requires_grad else None
            trainer._step()
    assert not copies.found
    assert len(losses.unread) == 1


def forward_only(trainer: Trainer, batch: Batch, losses: MeanLosses) -> None:
    """Compute the loss of a batch as a step does; torch computes no gradients on CUDA where there is no driver."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "backward", lambda self: None)
        count = len(batch.attr)
        trainer._add_gradient(batch, Rows(0, count, count), count, START, losses)


@pytest.mark.parametrize("name", METHODS)
def test_the_scores_of_a_chunk_do_not_wait(
    name: str, space: PairSpace, clip_file: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checks, "read", lambda self: None)
    method = built(name, space, clip_file).eval()
    with torch.no_grad(), fake_cuda() as (mode, copies):
        pairs = mode.from_tensor(space.pairs)
        on_cuda(method, mode)
        if name in ("clip", "caila"):  # reads its words, once before the chunks
            text = TextFeatures(pairs.to(CUDA), torch.zeros(len(pairs), method.backbone.dim, device=CUDA))
        else:
            text = method.text_in("closed", pairs.to(CUDA))
        pixels = mode.from_tensor(images).to(CUDA)
        copies.found.clear()
        with deferred_checks(CUDA):
            scores = ranked(method, method.encode(pixels), text.rows(slice(0, 4)), Setting())
    assert scores.device == CUDA
    assert not copies.found


@pytest.mark.parametrize("keep", [1, 3])
def test_scores_are_reduced_without_waiting(keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = ScoreColumns(*PAIRS, feasibility=FEASIBLE, thresholds=[0.2, 0.6])
    chunk = ChunkColumns(columns, torch.arange(12))
    with fake_cuda() as (mode, copies):
        chunk._devices[CUDA] = tuple(mode.from_tensor(v).to(CUDA) for v in chunk.on(torch.device("cpu")))
        monkeypatch.setattr(chunk, "positions", lambda target: torch.zeros(5, dtype=torch.long, device=CUDA))
        scores = torch.zeros(5, 12, device=CUDA)
        copies.found.clear()
        state, finite = reduce_chunk(scores, chunk, torch.zeros(5), keep, 1)
    assert not copies.found
    assert {v.device for v in (state.best.score, state.at_bias_1000.column, state.true_score, finite)} == {CUDA}


PAIRS = torch.cartesian_prod(torch.arange(3), torch.arange(4)), torch.arange(12) % 3 == 0
FEASIBLE = torch.linspace(0, 1, 12)


@pytest.mark.parametrize("waiting", [0, 1 << 24])
@pytest.mark.parametrize("keep", [1, 3])
def test_numbers_read_later_are_those_read_at_once(waiting: int, keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(40, 12, generator=generator).round(decimals=1)  # with ties
    shown = torch.randint(12, (40,), generator=generator)

    def filled() -> Sweep:
        sweep = Sweep(*PAIRS, feasibility=FEASIBLE, thresholds=[0.2, 0.6], keep=keep)
        for start in range(0, 40, 7):
            rows = slice(start, start + 7)
            for columns in (torch.arange(5), torch.arange(11, 4, -1)):
                sweep.update(scores[rows, columns], *PAIRS[0][shown[rows]].T, columns=columns)
        return sweep

    at_once = filled()
    monkeypatch.setattr(sweeps, "BYTES_WAITING", waiting)
    for module in (sweeps, sweep_state):
        monkeypatch.setattr(module, "is_host", lambda device: False)
    later = filled()
    assert len(later._waiting) == (12 if waiting else 0)
    copied = pickle.loads(pickle.dumps(later))
    assert not later._waiting
    for bins in ("exact", "original"):
        assert at_once.compute_all(bins) == copied.compute_all(bins)
    for one, other in zip(at_once.top_scores(), later.top_scores(), strict=True):
        torch.testing.assert_close(vars(one.top), vars(other.top), rtol=0, atol=0)


def test_a_score_that_is_not_finite_is_found_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "is_host", lambda device: False)
    sweep = Sweep(*PAIRS)
    sweep.update(torch.zeros(2, 12), [0, 1], [0, 0])
    sweep.update(torch.tensor([[0.0] * 11 + [torch.nan]]), [0], [0])
    with pytest.raises(ValueError, match="image 2 has a score that is not finite"):
        sweep.compute()


def checks(*passed: bool, then: Exception | None = None) -> None:
    """Make checks that are read later, and raise an error after them."""
    with deferred_checks(CUDA):
        for number, one in enumerate(passed):
            check(torch.tensor(one), lambda number=number: ValueError(f"check {number} failed"))
        if then:
            raise then


def test_checks_are_read_together_and_come_before_an_error_that_may_follow_from_them() -> None:
    checks(*[True] * (MOST_WAITING + 1))
    for passed, first in (((True, False, False), 1), ((False,) * 2 * MOST_WAITING, 0)):
        with pytest.raises(ValueError, match=f"check {first} failed"):
            checks(*passed)
    with pytest.raises(ValueError, match="check 0 failed"):
        checks(False, then=RuntimeError("which follows from it"))
    with pytest.raises(RuntimeError, match="of its own"):
        checks(True, then=RuntimeError("of its own"))
    with pytest.raises(ValueError, match="outside"):
        check(torch.tensor(False), lambda: ValueError("outside"))


def test_a_loss_that_is_read_later_still_names_its_step() -> None:
    losses = MeanLosses(3)

    def add(step: int, value: float, then: Exception | None = None) -> None:
        values = {"loss": torch.tensor(1.0), "loss/own": torch.tensor(value)}
        with losses.all_read() if then else nullcontext():
            losses.add(values, 8, TrainingPosition(1, 4, step, 9), 0.01)
            if then:
                raise then

    add(0, 1.0)
    add(1, torch.inf)
    assert not losses.note() and not losses.images
    with pytest.raises(TrainingError, match=r"the part of the loss own is inf at epoch 2, step 2 of 9; .* was 0\.01"):
        add(2, 1.0)
    assert losses.note() == "loss 1.000"
    with pytest.raises(TrainingError, match="the part of the loss own is nan at epoch 2, step 4 of 9"):
        add(3, torch.nan, then=RuntimeError("which follows from it"))


def test_an_average_knows_its_number_of_updates_after_it_was_loaded() -> None:
    layer = nn.Linear(1, 1)
    average, other = AveragedWeights(layer), AveragedWeights(layer)
    for _ in range(3):
        average.update(layer)
    other.load_state_dict(average.state_dict())
    with torch.no_grad():
        layer.weight.add_(1)
    average.update(layer)
    other.update(layer)
    assert torch.equal(average.tensors()["weight"], other.tensors()["weight"])
    assert other.updates == 4


def test_values_are_sent_to_a_device() -> None:
    assert sent(torch.arange(3), torch.device("meta")).device.type == "meta"
