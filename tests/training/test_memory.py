"""The memory of a step: counted as it is, and as little recomputation as the memory given allows."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

import czslkit
from czslkit.data.batches import Feed
from czslkit.errors import ConfigError, TrainingError
from czslkit.footprint import Footprint
from czslkit.method import METHODS, Method
from czslkit.options import as_dict, parse
from czslkit.recompute import NOTHING, Recomputation, recompute
from czslkit.sizes import format_bytes
from czslkit.training import memory
from czslkit.training.losses import loss_parts
from czslkit.training.memory import StepMemory, asked_memory, plan_step, remedy
from czslkit.training.options import TrainOptions
from czslkit.training.step_count import NotCountableError, StepCounter

SMALL = {
    "gipcol": {"graph_layers": "d16,d"},
    "msci": {"low_layers": 2, "high_layers": 2, "heads": (2, 2)},
    "visprod": {"backbone": "timm/resnet10t/random", "image_size": 32, "tune": "all"},
}
ALL = Recomputation(1, 1, 1, texts=2)


def counter_of(name: str, toy: Any, clip_file: Path, **settings: Any) -> StepCounter:
    torch.manual_seed(0)
    method = czslkit.build(name, toy.space, **{"backbone": str(clip_file), **SMALL.get(name, {})}).train()
    options = TrainOptions(batch_size=8, **{"augment": True, **settings})
    feed = Feed(method, toy.train, 8, augment=options.augment)
    return StepCounter(method, feed, options, toy.training_data())


def weights_of(method: Method) -> int:
    return sum(tensor.nbytes for tensor in (*method.parameters(), *method.buffers()))


def computed_bytes(counter: StepCounter, how: Recomputation) -> int:
    """The largest memory of a step that is computed, with weights, images and the numbers of Adam."""
    method = counter.method
    batch = next(iter(counter.feed.batches(torch.arange(8))))
    with recompute(how), Footprint() as footprint:
        with torch.autocast("cpu", torch.bfloat16, enabled=counter.options.precision == "bf16"):
            loss = loss_parts(method, method.loss(batch, counter.pairs))["loss"]
        loss.backward()
    method.zero_grad(set_to_none=True)
    images = batch.images.nbytes if isinstance(batch.images, torch.Tensor) else batch.images.pooled.nbytes
    trained = sum(p.nbytes for p in method.parameters() if p.requires_grad)
    return weights_of(method) + 2 * trained + images + footprint.peak


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "clip"])
def test_a_counted_step_takes_the_memory_of_a_computed_step(
    name: str, precision: str, toy: Any, clip_file: Path
) -> None:
    counter = counter_of(name, toy, clip_file, precision=precision)
    weights = weights_of(counter.method)
    for how in (NOTHING, ALL) if precision == "fp32" else (NOTHING,):
        counted, computed = counter.count(how).bytes - weights, computed_bytes(counter, how) - weights
        assert counted == pytest.approx(computed, rel=0.05), (name, how)


def test_cached_features_count_in_place_of_images(toy: Any, clip_file: Path) -> None:
    features, images = (counter_of("csp", toy, clip_file, augment=augment) for augment in (False, True))
    assert features.feed.caches_features
    assert features.count().operations < images.count().operations
    held = features.feed.feature_bytes
    assert features.count().bytes - held == pytest.approx(computed_bytes(features, NOTHING), rel=0.01)


def test_accumulated_gradients_and_the_numbers_of_the_optimiser_count(toy: Any, clip_file: Path) -> None:
    plain = counter_of("msci", toy, clip_file)
    trained = sum(p.nbytes for p in plain.method.parameters() if p.requires_grad)
    sgd, accumulated = (counter_of("msci", toy, clip_file, **o) for o in ({"optimizer": "sgd"}, {"accumulation": 2}))
    assert plain.count().bytes - sgd.count().bytes == trained
    assert accumulated.count().bytes - plain.count().bytes == trained


def test_counting_changes_neither_the_method_nor_random_numbers(toy: Any, clip_file: Path) -> None:
    counter = counter_of("msci", toy, clip_file)
    before = {name: value.clone() for name, value in counter.method.state_dict().items()}
    torch.manual_seed(3)
    random.seed(3)
    expected = torch.rand(2), random.random()
    torch.manual_seed(3)
    random.seed(3)
    counter.count(ALL)
    assert (random.random(), torch.rand(2).tolist()) == (expected[1], expected[0].tolist())
    after = counter.method.state_dict()
    assert not any(isinstance(value, FakeTensor) for value in after.values())
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert all(p.grad is None for p in counter.method.parameters())


def test_the_recomputation_is_as_small_as_the_memory_allows(toy: Any, clip_file: Path) -> None:
    counter = counter_of("msci", toy, clip_file)
    plain, least = counter.count().bytes, counter.count(replace(ALL, texts=64)).bytes
    assert least < 0.9 * plain
    assert plan_step(counter, plain).recomputation == NOTHING
    shares = [least + (plain - least) * n // 4 for n in range(5)]
    plans = [plan_step(counter, given) for given in shares]
    for plan, given in zip(plans, shares, strict=True):
        assert plan.step.bytes <= given
        assert computed_bytes(counter, plan.recomputation) <= 1.01 * given
    operations = [plan.step.operations for plan in plans]
    assert operations == sorted(operations, reverse=True)
    assert len({*operations}) >= 4


def test_a_step_that_fits_nowhere_says_how_much_it_needs_and_what_helps(toy: Any, clip_file: Path) -> None:
    counter = counter_of("csp", toy, clip_file, memory="1MB")
    least = format_bytes(counter.count(Recomputation(text=1)).bytes)
    message = (
        rf"a step of 8 images and 5 pairs takes {least} at the least, and train.memory=1MB gives 1.0 MB. Give more "
        r"memory, or set a smaller train.batch_size with a larger train.accumulation, or train.precision=bf16$"
    )
    with pytest.raises(TrainingError, match=message):
        plan_step(counter, asked_memory(counter))


def test_checkpoint_text_recomputes_the_texts_in_any_memory(toy: Any, clip_file: Path) -> None:
    counter = counter_of("csp", toy, clip_file, checkpoint_text=True)
    plan = plan_step(counter, None)
    assert plan.recomputation == Recomputation(text=1)
    assert plan.step.kept < plan.plain.kept
    assert str(plan).endswith(f"since it recomputes text, with {plan.more_operations:.0%} more operations")
    assert plan_step(counter, plan.step.bytes).recomputation.text == 1


def test_auto_is_what_the_device_can_give(toy: Any, clip_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = counter_of("csp", toy, clip_file, memory="auto")
    monkeypatch.setattr(memory, "plannable_memory", lambda device, held: 10 * held)
    assert asked_memory(counter) == 10 * sum(
        t.nbytes for t in (*counter.method.parameters(), *counter.method.buffers())
    )


@pytest.mark.parametrize(("asked", "expected"), [("24GB", 24 * 10**9), ("1GiB", 2**30), (None, None)])
def test_the_memory_asked_for_is_a_size(asked: str | None, expected: int | None, toy: Any, clip_file: Path) -> None:
    assert asked_memory(counter_of("csp", toy, clip_file, memory=asked)) == expected


def test_a_memory_that_is_no_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="train: memory: 'much' is not a size such as 4GB or 512MiB, or auto"):
        parse(TrainOptions, {"memory": "much"}, where="train")


def test_the_memory_of_a_training_is_no_part_of_its_configuration() -> None:
    settings = as_dict(TrainOptions(memory="24GB", checkpoint_text=True), record=True)
    assert settings == as_dict(TrainOptions(), record=True)


def test_a_training_that_needs_more_than_its_device_has_says_what_makes_it_fit(
    toy: Any, clip_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = counter_of("csp", toy, clip_file)
    plain, least = counter.count().bytes, counter.count(Recomputation(text=1)).bytes
    monkeypatch.setattr(memory, "total_memory", lambda device: plain)
    assert remedy(counter) == ""
    monkeypatch.setattr(memory, "total_memory", lambda device: (plain + least) // 2)
    start = f"TOO LARGE FOR THIS MACHINE: a step takes {format_bytes(plain)}, and cpu has "
    assert remedy(counter).startswith(start)
    assert "With train.memory=auto it takes " in remedy(counter)
    monkeypatch.setattr(memory, "total_memory", lambda device: least // 2)
    assert "With train.memory=auto, a step of 8 images and 5 pairs takes" in remedy(counter)


class Unpredictable(METHODS["csp"]):  # type: ignore[misc,name-defined]
    """A method whose loss has as many terms as values are positive."""

    def loss(self, batch: Any, pairs: Any) -> Any:
        loss = super().loss(batch, pairs)
        return loss + 0 * loss.reshape(1)[loss.reshape(1) > 0].sum()


@pytest.mark.parametrize(("asked", "expected"), [(None, NOTHING), ("24GB", Recomputation(1, 1, 1, texts=256))])
def test_a_step_that_cannot_be_counted_recomputes_all_if_memory_is_short(
    asked: str | None, expected: Recomputation, toy: Any, clip_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SMALL", 0)
    counter = counter_of("csp", toy, clip_file, memory=asked)
    method: Method = counter.method
    method.__class__ = Unpredictable
    with pytest.raises(NotCountableError, match="a step of Unpredictable cannot be counted without its values"):
        counter.count()
    lines: list[str] = []
    step_memory = StepMemory(method, counter.feed, counter.options, counter.data, lines.append)
    assert step_memory.recomputation() == expected
    assert lines[0].startswith("a step of Unpredictable cannot be counted")
    assert lines[0].endswith(f". Recomputed: {expected}")


def test_the_steps_of_a_small_method_are_counted_only_if_memory_is_given(toy: Any, clip_file: Path) -> None:
    for asked, count in ((None, 0), ("24GB", 1)):
        counter = counter_of("csp", toy, clip_file, memory=asked)
        lines: list[str] = []
        step_memory = StepMemory(counter.method, counter.feed, counter.options, counter.data, lines.append)
        assert step_memory.recomputation() == NOTHING
        assert len(lines) == count


def test_the_choice_is_made_again_if_other_parameters_are_trained(
    toy: Any, clip_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SMALL", 0)
    counter = counter_of("msci", toy, clip_file)
    lines: list[str] = []
    step_memory = StepMemory(counter.method, counter.feed, counter.options, counter.data, lines.append)
    step_memory.recomputation()
    step_memory.recomputation()
    assert len(lines) == 1
    next(p for p in counter.method.parameters() if p.requires_grad).requires_grad_(False)
    step_memory.recomputation()
    assert len(lines) == 2
    assert all(line.startswith("a step takes ") for line in lines)


def test_a_training_in_little_memory_has_the_numbers_of_a_plain_one(run: Any, toy: Any, clip_file: Path) -> None:
    def built(file: Path, space: Any) -> Any:
        return czslkit.build("csp", space, backbone=str(file), word_dropout=0.0)

    counter = counter_of("csp", toy, clip_file, augment=False)
    least = counter.count(ALL).bytes
    said: list[str] = []
    _, plain = run(built, "plain", epochs=2)
    _, small = run(built, "small", said, epochs=2, memory=f"{least + 1000}")
    assert plain.history[0].keys() | {"recomputed/text"} == small.history[0].keys()
    for one, other in zip(plain.history, small.history, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert other["val_auc"] == one["val_auc"]
    assert "since it recomputes" in said[0]
