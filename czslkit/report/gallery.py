"""Which test images the page shows for each dataset, what each method predicts for them, and where methods disagree."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CzslkitError
from ..metrics.predictions import FILE, Predictions
from ..result_store import Result
from .arrangement import Arrangement, Column, Key
from .escaping import printable
from .resamples import Attached
from .thumbnails import Thumbnails

MOST_ROWS = 8  # rows of a gallery
PER_OUTCOME = 3  # images for each outcome of the best method
MOST_DISAGREEING = 6  # images that methods disagree on
OUTCOMES = ("wrong", "object right", "attribute right", "right")
_LONGEST_NAME = 100  # characters of an attribute, an object or a path

Pair = tuple[str, str]


@dataclass(frozen=True)
class Guess:
    """The pair that a method predicts for an image."""

    label: str
    attr: str
    obj: str
    outcome: int  # position in ``OUTCOMES``

    @property
    def attr_right(self) -> bool:
        """Whether the attribute is right."""
        return self.outcome >= 2

    @property
    def obj_right(self) -> bool:
        """Whether the object is right."""
        return self.outcome in (1, 3)


@dataclass(frozen=True)
class Card:
    """An image with its true pair and the pair that each method predicts."""

    image: str  # path below the folder of images
    picture: str  # a data: URI; empty if the picture is not shown
    attr: str
    obj: str
    seen: bool
    guesses: Sequence[Guess]


@dataclass(frozen=True)
class Gallery:
    """The images of one dataset that the page shows, and in how many images methods agree.

    Attributes:
        dataset, world: where the pairs were predicted.
        labels: the rows that are compared, in the order of the table.
        best: the row whose outcomes the images are chosen by.
        images: number of test images.
        counts: for each row the number of images of each of ``OUTCOMES``.
        alone: for each row the number of images that only this row names right.
        agreement: for each row and row the share of images with the same predicted pair.
        groups: for each outcome of ``best``, from right to wrong, its images; empty groups are left out.
        disagreeing: images that some rows name right and others do not.
        gaps: sentences on what is not shown, and why.
    """

    dataset: str
    world: str
    labels: Sequence[str] = ()
    best: str = ""
    images: int = 0
    counts: Sequence[Sequence[int]] = ()
    alone: Sequence[int] = ()
    agreement: Sequence[Sequence[float]] = ()
    groups: Sequence[tuple[str, Sequence[Card]]] = ()
    disagreeing: Sequence[Card] = ()
    gaps: Sequence[str] = ()


def galleries(
    arrangement: Arrangement, results: Sequence[Result], attached: Attached | None, data: Path | None
) -> list[Gallery]:
    """Return a gallery for each dataset with a finished cell, in its first world.

    Args:
        arrangement: the entries of the table.
        results: the result of each row of ``arrangement.frame``.
        attached: returns the files of a result, as :meth:`Store.attached`; without it there are no predictions.
        data: folder of all datasets; None looks where the images were when they were predicted.
    """
    first: dict[str, Column] = {}
    for dataset, world in sorted(arrangement.columns, key=lambda column: column[1] != "closed"):
        first.setdefault(dataset, (dataset, world))
    thumbnails = Thumbnails(data)
    return [
        _gallery(found, thumbnails)
        for dataset in dict.fromkeys(dataset for dataset, _ in arrangement.columns)
        if (found := _read(arrangement, results, attached, first[dataset])) is not None
    ]


@dataclass
class _Found:
    """The predictions of the rows of one column."""

    column: Column
    predictions: dict[str, Predictions] = field(default_factory=dict)  # by label, in the order of the table
    aucs: dict[str, float] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)

    def names(self, label: str, numbers: Sequence[int]) -> list[Pair]:
        pairs = self.predictions[label].pairs
        return [pairs[number][:2] for number in numbers]


def _read(
    arrangement: Arrangement, results: Sequence[Result], attached: Attached | None, column: Column
) -> _Found | None:
    """Return the predictions of the best rows of a column, from the first seed of each; None if no cell is finished."""
    keys = [(label, *column) for label in arrangement.rows if arrangement.finished.get((label, *column))]
    if not keys:
        return None
    aucs = {key: -1.0 if (auc := arrangement.mean(key, "auc")) is None else auc for key in keys}
    chosen = set(sorted(keys, key=lambda key: -aucs[key])[:MOST_ROWS])
    found, lacking = _Found(column), []
    if len(keys) > MOST_ROWS:
        found.gaps.append(f"Of {len(keys)} rows, the {MOST_ROWS} with the highest AUC are compared.")
    for key in (key for key in keys if key in chosen):
        result = min((results[i] for i in arrangement.finished[key]), key=lambda r: r["cell"]["seed"])
        try:
            content = attached(result, FILE) if attached else None
            predictions = Predictions.from_bytes(content) if content else None
        except (CzslkitError, ValueError) as error:
            found.gaps.append(f"{_name(key)}: {FILE}: {printable(str(error))}"[:500])
            continue
        if predictions is None:
            lacking.append(key[0])
        else:
            found.predictions[key[0]], found.aucs[key[0]] = predictions, aucs[key]
    if lacking:
        found.gaps.append(
            f"No predictions per image are stored for {', '.join(lacking)}, as by earlier versions of czslkit. To add "
            f"them, remove {column[1]}.json of the cell and run czslkit bench again: it measures, and trains nothing."
        )
    _leave_out_other_images(found)
    return found


def _leave_out_other_images(found: _Found) -> None:
    """Leave out rows that were not measured on the images of the best row."""
    if not found.predictions:
        return
    best = max(found.predictions, key=lambda label: found.aucs[label])
    true = {label: found.names(label, one.true) for label, one in found.predictions.items()}
    images = found.predictions[best].images
    for label, one in list(found.predictions.items()):
        if one.images != images or true[label] != true[best]:
            del found.predictions[label], found.aucs[label]
            found.gaps.append(f"{label} was measured on other images than {best}, and is not compared.")


def _name(key: Key) -> str:
    return f"{key[0]} on {key[1]} ({key[2]})"


def _gallery(found: _Found, thumbnails: Thumbnails) -> Gallery:
    """Choose the images of a gallery and compare the rows."""
    dataset, world = found.column
    labels = list(found.predictions)
    if not labels or not len(found.predictions[labels[0]]):
        return Gallery(dataset, world, gaps=found.gaps)
    best = max(labels, key=lambda label: found.aucs[label])
    first = found.predictions[best]
    true = found.names(best, first.true)
    predicted = {label: found.names(label, found.predictions[label].predicted) for label in labels}
    outcomes = {label: list(map(_outcome, true, predicted[label])) for label in labels}
    order = sorted(range(len(first)), key=lambda i: hashlib.sha256(first.images[i].encode(errors="replace")).digest())
    of_best = [[i for i in order if outcomes[best][i] == kind][:PER_OUTCOME] for kind in range(len(OUTCOMES))]
    shown = {i for group in of_best for i in group}
    right = [sum(outcomes[label][i] == 3 for label in labels) for i in range(len(first))]
    split = [i for i in order if 0 < right[i] < len(labels) and i not in shown]
    split.sort(key=lambda i: abs(2 * right[i] - len(labels)))
    pictures = thumbnails.of(dataset, first.folder)

    def card(i: int) -> Card:
        guesses = [
            Guess(label, _cut(attr), _cut(obj), outcomes[label][i])
            for label in labels
            for attr, obj in [predicted[label][i]]
        ]
        attr, obj, seen = first.pairs[first.true[i]]
        return Card(_cut(first.images[i]), pictures.of(first.images[i]), _cut(attr), _cut(obj), seen, guesses)

    counts = [Counter(outcomes[label]) for label in labels]
    groups = [(OUTCOMES[kind], [card(i) for i in of_best[kind]]) for kind in (3, 2, 1, 0) if of_best[kind]]
    disagreeing = [card(i) for i in split[:MOST_DISAGREEING]]
    return Gallery(
        dataset,
        world,
        labels,
        best,
        len(first),
        counts=[[count[kind] for kind in range(len(OUTCOMES))] for count in counts],
        alone=[
            sum(kind == 3 and right[i] == 1 for i, kind in enumerate(outcomes[label])) if len(labels) > 1 else 0
            for label in labels
        ],
        agreement=[[_share(predicted[a], predicted[b]) for b in labels] for a in labels],
        groups=groups,
        disagreeing=disagreeing,
        gaps=[*found.gaps, *pictures.gaps()],
    )


def _outcome(true: Pair, predicted: Pair) -> int:
    """Return the position in ``OUTCOMES`` of a prediction.

    >>> [OUTCOMES[_outcome(("wet", "dog"), pair)] for pair in (("wet", "cat"), ("dry", "dog"), ("wet", "dog"))]
    ['attribute right', 'object right', 'right']
    """
    return 2 * (true[0] == predicted[0]) + (true[1] == predicted[1])


def _share(first: Sequence[Pair], second: Sequence[Pair]) -> float:
    return sum(map(lambda a, b: a == b, first, second)) / len(first)


def _cut(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME - 1]}…"
