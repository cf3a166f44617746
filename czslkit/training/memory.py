"""The memory of a training: what a step takes, and the least recomputation with which it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..data.batches import Feed
from ..device_memory import plannable_memory, total_memory
from ..errors import TrainingError
from ..method import Method
from ..recompute import NOTHING, PARTS, Part, Recomputation
from ..sizes import format_bytes, parse_bytes
from ..training_hooks import TrainingData
from .options import TrainOptions
from .step_count import NotCountableError, StepCount, StepCounter

TEXTS = (256, 64)  # texts that attend to the images at a time; fewer if the memory is not enough
MORE_TEXTS = (1024, 512)  # texts at a time if they fit: with fewer parts, keys and values are computed less often
SMALL = 10**8  # bytes of weights below which a step without ``train.memory`` is not counted
STEPS = 16  # shares of a part are whole 16ths


@dataclass(frozen=True)
class StepPlan:
    """What the steps of a training take, and what they recompute."""

    recomputation: Recomputation
    step: StepCount  # with the recomputation
    plain: StepCount  # without
    memory: int | None  # bytes that the step may take; None if ``train.memory`` is not set

    def __str__(self) -> str:
        """Return in words what a step takes."""
        text = f"a step takes {format_bytes(self.step.bytes)}"
        if self.memory is not None:
            text += f" of {format_bytes(self.memory)}"
        if self.recomputation == NOTHING:
            return text
        return (
            f"{text} in place of {format_bytes(self.plain.bytes)}, since it recomputes {self.recomputation}, with "
            f"{self.more_operations:.0%} more operations"
        )

    @property
    def more_operations(self) -> float:
        """The share of additional operations."""
        return self.step.operations / max(self.plain.operations, 1) - 1


def asked_memory(counter: StepCounter) -> int | None:
    """Return the bytes that a training may take; None if it may take any, or if they are not known."""
    method, asked = counter.method, counter.options.memory
    if asked != "auto":
        return None if asked is None else parse_bytes(asked)
    held = sum(tensor.nbytes for tensor in (*method.parameters(), *method.buffers()))
    return plannable_memory(method.device, held)


def plan_step(counter: StepCounter, memory: int | None) -> StepPlan:
    """Return the recomputation with the fewest operations that was found to fit.

    The parts that save the most memory for their operations are recomputed first, and of the last one as little as
    fits. What was counted on the way and is cheaper is taken in place of the result.

    Args:
        memory: bytes that a step may take; None for any.

    Raises:
        TrainingError: no recomputation fits; the message says how much is needed at the least, and what helps.
        NotCountableError: the loss of the method needs values.
    """
    least = Recomputation(text=float(counter.options.checkpoint_text))
    plain = counter.count(NOTHING)

    def plan(how: Recomputation) -> StepPlan:
        return StepPlan(how, counter.count(how), plain, memory)

    if memory is None or plan(least).step.bytes <= memory:
        return plan(least)
    less = least
    for how in _growing(counter, least):
        if plan(how).step.bytes <= memory:
            _count_shares(counter, less, _with_more_texts(counter, how, memory), memory)
            return plan(_cheapest(counter, least, memory))
        less = how
    asked = counter.options.memory
    least_bytes, given = format_bytes(plan(less).step.bytes), format_bytes(memory)
    raise TrainingError(
        f"a step of {counter.whole[0]:,} images and {counter.whole[1]:,} pairs takes {least_bytes} at the least, and "
        f"{f'train.memory={asked} gives' if asked else 'the device has'} {given}. Give more memory, or set a smaller "
        "train.batch_size with a larger train.accumulation"
        + (", or train.precision=bf16" if counter.options.precision != "bf16" else "")
    )


def remedy(counter: StepCounter) -> str:
    """Return which settings make a training fit that needs more than its device has; empty if it fits.

    Raises:
        NotCountableError: the loss of the method needs values.
    """
    total, device = total_memory(counter.method.device), counter.method.device
    if not total or (needed := plan_step(counter, None).step.bytes) <= total or counter.options.memory is not None:
        return ""
    start = f"TOO LARGE FOR THIS MACHINE: a step takes {format_bytes(needed)}, and {device} has {format_bytes(total)}"
    try:
        found = plan_step(counter, total)
    except TrainingError as error:
        return f"{start}. With train.memory=auto, {error}"
    return f"{start}. With train.memory=auto it takes {format_bytes(found.step.bytes)}, and " + (
        f"{found.more_operations:.0%} more operations"
    )


class StepMemory:
    """Chooses what the steps of a training recompute, and logs what they take.

    Steps of small methods are not counted unless ``train.memory`` is set.

    Args:
        method, feed, options, data: see :class:`czslkit.training.step_count.StepCounter`.
        log: called with one line when the choice is made.
    """

    def __init__(
        self, method: Method, feed: Feed, options: TrainOptions, data: TrainingData, log: Callable[[str], None]
    ) -> None:
        self.method, self.feed, self.options, self.data, self.log = method, feed, options, data, log
        self._chosen: dict[frozenset[str], Recomputation] = {}  # by the names of the trainable parameters

    def recomputation(self) -> Recomputation:
        """Return what the steps of the next epoch recompute; it is chosen again if other parameters are trained.

        Raises:
            TrainingError: no recomputation fits into ``train.memory``.
        """
        trained = frozenset(name for name, p in self.method.named_parameters() if p.requires_grad)
        if trained not in self._chosen:
            counter = StepCounter(self.method, self.feed, self.options, self.data)
            self._chosen[trained] = self._choose(counter)
        return self._chosen[trained]

    def _choose(self, counter: StepCounter) -> Recomputation:
        least = Recomputation(text=float(self.options.checkpoint_text))
        if self.options.memory is None and sum(p.nbytes for p in self.method.parameters()) < SMALL:
            return least
        try:
            plan = plan_step(counter, asked_memory(counter))
            self.log(remedy(counter) or f"{plan}")
        except NotCountableError as error:
            how = least if self.options.memory is None else Recomputation(1.0, 1.0, 1.0, TEXTS[0])
            self.log(f"{error}. Recomputed: {how}")
            return how
        return plan.recomputation


def _growing(counter: StepCounter, least: Recomputation) -> Iterator[Recomputation]:
    """Yield recomputations from little to all; each one recomputes all of a further part, or fewer texts at a time."""
    plain = counter.count(least)
    worth: dict[Part, float] = {}  # bytes that are kept no more, for each additional operation
    for part in PARTS:
        alone = counter.count(_with(least, part, 1.0))
        if alone.operations > plain.operations and not getattr(least, part):
            worth[part] = (plain.kept - alone.kept) / (alone.operations - plain.operations)
    how = least
    for part in sorted(worth, key=lambda part: -worth[part]):
        how = _with(how, part, 1.0)
        yield how
    for texts in TEXTS[1:] if how.interaction else ():
        how = replace(how, texts=texts)
        yield how


def _cheapest(counter: StepCounter, least: Recomputation, memory: int) -> Recomputation:
    """Return the recomputation with the fewest operations among those that were counted and fit."""
    fitting = {
        how: count.operations
        for how, count in counter.counted().items()
        if count.bytes <= memory and how.text >= least.text
    }
    return min(fitting, key=lambda how: fitting[how])


def _with(how: Recomputation, part: Part, share: float) -> Recomputation:
    """Return a recomputation with another share of a part."""
    texts = how.texts or TEXTS[0]
    found = replace(how, **{part: share}, texts=texts)
    return found if found.interaction else replace(found, texts=None)


def _count_shares(counter: StepCounter, less: Recomputation, more: Recomputation, memory: int) -> None:
    """Count shares of the last part of ``more`` until the smallest one that fits is found.

    Args:
        less: does not fit.
        more: fits, and recomputes all of a further part, or fewer texts at a time.
    """
    part = next((part for part in PARTS if getattr(less, part) < getattr(more, part)), None)
    low, high = 0, STEPS
    while part and high - low > 1:
        middle = (low + high) // 2
        fits = counter.count(_with(more, part, middle / STEPS)).bytes <= memory
        low, high = (low, middle) if fits else (middle, high)


def _with_more_texts(counter: StepCounter, how: Recomputation, memory: int) -> Recomputation:
    """Return a recomputation with as many texts at a time as fit, if that saves operations."""
    for texts in MORE_TEXTS if how.texts == TEXTS[0] else ():
        more = replace(how, texts=texts)
        found = counter.count(more)
        if found.bytes <= memory and found.operations < counter.count(how).operations:
            return more
    return how
