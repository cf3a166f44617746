"""What figures show: the cells of each row of a table in one dataset and world, and their attached files."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..errors import ConfigError, CzslkitError
from ..foreign_files import parse_json
from ..result_store import Result
from .arrangement import Arrangement
from .asked import Asked
from .cell_details import DETAILS_FILE, read_details
from .comparability import first_difference
from .resamples import Attached
from .significance import Significance

CURVE_FILE = "curve.csv"
T = TypeVar("T")
_MOST_POINTS = 1_000_000  # of a curve; one with more is not drawn
_MOST_IMAGES = 10**9  # of an attribute or object


class Source(Protocol):
    """The numbers of figures, as :class:`czslkit.report.table.Table` has them."""

    @property
    def results(self) -> Sequence[Result]:
        """The results in the table."""

    @property
    def labels(self) -> Sequence[str]:
        """The row of the table of each result."""

    @property
    def arrangement(self) -> Arrangement:
        """The means over seeds."""

    @property
    def significance(self) -> Significance:
        """The intervals of the means."""

    @property
    def asked(self) -> Asked:
        """The cells that were asked for."""

    @property
    def attached(self) -> Attached | None:
        """Returns the files of a result; without it, only numbers of the table can be drawn."""


@dataclass(frozen=True)
class Row:
    """A row of the table in one dataset and world."""

    label: str
    place: int  # of the row in the table, which gives its colour
    results: tuple[Result, ...]  # finished, one for each seed
    problem: str = ""  # why there are no finished results, or which seeds are missing


@dataclass(frozen=True)
class Curve:
    """The points of one seed's curve, as fractions in the order of the bias."""

    unseen: list[float]
    seen: list[float]

    @property
    def best(self) -> int:
        """The first point of the highest harmonic mean of both accuracies."""
        means = [2 * s * u / (s + u) if s + u else 0.0 for s, u in zip(self.seen, self.unseen, strict=True)]
        return max(range(len(means)), key=means.__getitem__)


def chosen_dataset(source: Source, dataset: str | None) -> str:
    """Return the dataset to draw.

    Raises:
        ConfigError: the table has no results on the dataset, or several datasets of which none is chosen.
    """
    known = _known(source, 0)
    if dataset is None and len(known) > 1:
        raise ConfigError([f"the results are of several datasets: {', '.join(known)}. Choose one of them."])
    if dataset is not None and dataset not in known:
        raise ConfigError([f"there are no results on {dataset!r}. Known: {', '.join(known)}."])
    return dataset or known[0]


def chosen_world(source: Source, world: str | None) -> str:
    """Return the world to draw: the closed one if none is chosen and the table has it.

    Raises:
        ConfigError: the table has no results in the world.
    """
    known = _known(source, 1)
    if world is not None and world not in known:
        raise ConfigError([f"there are no results in the world {world!r}. Known: {', '.join(known)}."])
    return world or ("closed" if "closed" in known else known[0])


def _known(source: Source, part: int) -> list[str]:
    """Return the datasets (part 0) or worlds (part 1) of a table.

    Raises:
        ConfigError: the table has no results.
    """
    known = list(dict.fromkeys(column[part] for column in source.arrangement.columns))
    if not known:
        raise ConfigError(["the table has no results to draw"])
    return known


def rows(source: Source, dataset: str, world: str, methods: Sequence[str] | str | None) -> list[Row]:
    """Return the rows to draw, also those without a finished result, in the order of the table.

    Args:
        source: the table.
        dataset: name of the dataset.
        world: name of the world.
        methods: names of methods or labels of rows, as a sequence or separated by commas; None selects all.

    Raises:
        ConfigError: the table has no row of a method or label.
    """
    method_of = {label: result["cell"]["method"] for label, result in zip(source.labels, source.results, strict=True)}
    labels = list(source.arrangement.rows)
    wanted = None if methods is None else [methods] if isinstance(methods, str) and methods in labels else methods
    if isinstance(wanted, str):
        wanted = [name.strip() for name in wanted.split(",")]
    absent = [name for name in _never_run(source, dataset, world) if name not in method_of.values()]
    known = {*labels, *method_of.values(), *absent}
    if wanted is not None and (unknown := [name for name in wanted if name not in known]):
        raise ConfigError([f"the table has no row {', '.join(map(repr, unknown))}. Known: {', '.join(sorted(known))}."])
    found = [_row(source, (label, dataset, world), place) for place, label in enumerate(labels)]
    found += [Row(name, len(labels) + i, (), "not run") for i, name in enumerate(absent)]
    return [row for row in found if wanted is None or row.label in wanted or method_of.get(row.label) in wanted]


def first_notes(chosen: Iterable[Row]) -> list[str]:
    """Return the note on results of some rows that were not measured alike, if there are any."""
    found = [(row.label, result) for row in chosen for result in row.results]
    difference = first_difference([label for label, _ in found], [result for _, result in found])
    return [f"not all results were measured alike: {difference}"] if difference else []


def _row(source: Source, key: tuple[str, str, str], place: int) -> Row:
    label = key[0]
    finished, failed = source.arrangement.finished.get(key, []), source.arrangement.failed.get(key, [])
    results = tuple(source.results[i] for i in finished)
    problem = ""
    if failed:
        seeds = ", ".join(str(source.results[i]["cell"]["seed"]) for i in failed)
        problem = f"seed {seeds} failed" if results else "failed"
    elif not results:
        problem = "not run"
    return Row(label, place, results, problem)


def _never_run(source: Source, dataset: str, world: str) -> Iterable[str]:
    """Return the methods that the last command asked for in a dataset and world."""
    last, chosen = source.asked.last, source.asked.methods
    if last is None or world not in last.worlds:
        return []
    names = dict.fromkeys(method for name, method, _ in last.rows if name == dataset)
    return [name for name in names if not chosen or name in chosen]


def read_seeds(row: Row, read: Callable[[Result], T]) -> tuple[list[T], list[str]]:
    """Return what is read of each finished seed of a row, and notes on what is missing."""
    found: list[T] = []
    problems: dict[str, list[str]] = {}  # seeds by reason
    for result in row.results:
        try:
            found.append(read(result))
        except CzslkitError as error:
            problems.setdefault(str(error), []).append(str(result["cell"]["seed"]))
    texts = [row.problem] if row.problem else []
    for reason, seeds in problems.items():
        texts.append(reason if len(seeds) == len(row.results) else f"seed {', '.join(seeds)}: {reason}")
    return found, [f"{row.label}: {'; '.join(texts)}"] if texts else []


def read_curve(result: Result, attached: Attached | None) -> Curve:
    """Return the curve of a result that its AUC in the table belongs to.

    Raises:
        CzslkitError: the result has no curve, or its file cannot be used.
    """
    content = attached(result, CURVE_FILE) if attached else None
    if content is None:
        raise CzslkitError(f"no {CURVE_FILE} is stored")
    bins = (result.get("protocol") or {}).get("bins")
    try:
        lines = csv.DictReader(content.decode().splitlines())
        points = [(float(line["unseen"]), float(line["seen"])) for line in lines if line["curve"] == bins]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise CzslkitError(f"{CURVE_FILE} is not as czslkit writes it") from error
    if not 0 < len(points) <= _MOST_POINTS or not all(0 <= value <= 1 for point in points for value in point):
        raise CzslkitError(f"{CURVE_FILE} has no usable points of the {bins} curve")
    unseen, seen = zip(*points, strict=True)
    return Curve(list(unseen), list(seen))


def read_history(result: Result, metric: str) -> list[float]:
    """Return a number of each epoch of a training, NaN for an epoch without it.

    Raises:
        CzslkitError: the method was not trained, or no epoch has the number.
    """
    history = (result.get("training") or {}).get("history") or []
    if not history:
        raise CzslkitError("not trained")
    values = [_number(epoch.get(metric)) if isinstance(epoch, Mapping) else math.nan for epoch in history]
    if all(map(math.isnan, values)):
        raise CzslkitError(f"no {metric} is stored")
    return values


def read_words(result: Result, attached: Attached | None, part: str) -> dict[str, tuple[int, float]]:
    """Return the number of images of each attribute or object, and its accuracy at bias 0 as a fraction.

    Args:
        result: a finished result.
        attached: returns its files.
        part: ``attribute`` or ``object``.

    Raises:
        CzslkitError: the result has no such accuracies, or its file of details cannot be used.
    """
    found = _detail_rows(result, attached, f"{part}s", (part, "images", "accuracy_at_zero"))
    if not all(isinstance(w, str) and _is_count(n) and n and type(a) is float and 0 <= a <= 1 for w, n, a in found):
        raise CzslkitError(f"{part}s in {DETAILS_FILE} are not as czslkit writes them")
    return {word: (images, accuracy) for word, images, accuracy in found}


def read_confusions(result: Result, attached: Attached | None) -> dict[tuple[str, str], int]:
    """Return the number of images by true and wrongly predicted attribute at bias 0.

    Raises:
        CzslkitError: the result has no such numbers, as from earlier versions, or its file of details cannot be used.
    """
    columns = ("attribute", "predicted attribute", "images")
    found = _detail_rows(result, attached, "confused_attributes_at_zero", columns)
    if not all(isinstance(true, str) and isinstance(wrong, str) and _is_count(n) for true, wrong, n in found):
        raise CzslkitError(f"confused attributes in {DETAILS_FILE} are not as czslkit writes them")
    return {(true, wrong): images for true, wrong, images in found}


def _detail_rows(result: Result, attached: Attached | None, name: str, columns: Sequence[str]) -> list[list[Any]]:
    """Return some columns of a table of details.

    Raises:
        CzslkitError: the result has no such table, or its file of details cannot be used.
    """
    content = read_details(result, attached) if attached else None
    if content is None:
        raise CzslkitError(f"no {DETAILS_FILE} is stored")
    try:
        table = parse_json(content).get(name)
        if table is None:
            raise CzslkitError(
                f"{DETAILS_FILE} of an earlier version has no {name.removesuffix('_at_zero').replace('_', ' ')}"
            )
        places = [table["columns"].index(column) for column in columns]
        return [[row[place] for place in places] for row in table["rows"]]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise CzslkitError(f"{DETAILS_FILE} is not as czslkit writes it") from error


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_IMAGES


def _number(value: Any) -> float:
    return float(value) if type(value) in (int, float) and math.isfinite(value) else math.nan
