"""Bootstrap intervals of a table's entries, and tests whether they are significantly below the best of their column.

Both are computed from the files of numbers per image. All methods and seeds that were measured on the same images use
the same resamples; the value of an entry on a resample is the mean over its seeds. So the intervals show the variation
of the test set. The variation of the training is the standard deviation in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import CzslkitError
from .arrangement import Arrangement, Column, Key
from .grids import TIED_MARK
from .kept_resamples import Interval
from .resamples import Resamples, mean_over_seeds


@dataclass(frozen=True)
class DifferenceToBest:
    """The difference of an entry to the best entry of its column on the same images, for one metric, in fractions."""

    best: str  # label of the best row
    difference: float  # mean of the entry over seeds minus mean of the best
    low: float  # ends of the middle 95 % of the differences on the resamples
    high: float
    below: float  # share of the resamples in which the entry is below the best

    @property
    def tied(self) -> bool:
        """True if the entry is not significantly below the best, that is, if the interval contains 0."""
        return self.low <= 0 <= self.high

    def as_dict(self) -> dict[str, Any]:
        """Return all values, ready for JSON."""
        return {**asdict(self), "tied": self.tied}


@dataclass(frozen=True)
class Significance:
    """The intervals of a table's entries and their differences to the best; empty without numbers per image."""

    intervals: Mapping[Key, Mapping[str, Interval]] = field(default_factory=dict)  # entry -> metric -> interval
    differences: Mapping[Key, Mapping[str, DifferenceToBest]] = field(
        default_factory=dict
    )  # the best entries have none
    notes: tuple[str, ...] = ()  # a sentence for each entry that could not be compared

    def interval(self, key: Key, metric: str) -> Interval | None:
        """Return the interval of an entry, None without numbers per image."""
        return self.intervals.get(key, {}).get(metric)

    def tied(self, key: Key, metric: str) -> bool | None:
        """Return whether an entry is not significantly below the best; None for the best and without a comparison."""
        compared = self.differences.get(key, {}).get(metric)
        return compared.tied if compared else None

    def settings(self) -> dict[str, float]:
        """Return the number and the seed of the resamples, and the level of the intervals."""
        from ..metrics import bootstrap

        return {"resamples": bootstrap.RESAMPLES, "seed": bootstrap.SEED, "level": bootstrap.LEVEL}

    def caption(self, intervals: bool, metrics: Sequence[str]) -> list[str]:
        """Return sentences that explain the tie marks of a table and, if they are printed, the intervals.

        Args:
            intervals: whether the table prints intervals.
            metrics: the metrics in the table.
        """
        if not self.intervals:
            return []
        from ..metrics import bootstrap

        level, resamples = f"{bootstrap.LEVEL:.0%}", f"{bootstrap.RESAMPLES} resamples of the test images"
        sentences = [f"[low, high] is the {level} bootstrap interval from {resamples}."] if intervals else []
        tied = [
            found.tied for entry in self.differences.values() for metric, found in entry.items() if metric in metrics
        ]
        if tied:
            sentences.append(
                f"{TIED_MARK} marks numbers that are not significantly below the best of their column: the {level} "
                f"interval of the paired difference contains 0 (bootstrap, {resamples}, not corrected for multiple "
                f"comparisons).{'' if any(tied) else ' No number is marked here.'}"
            )
        return sentences


def significance(arrangement: Arrangement, resamples: Sequence[Resamples | CzslkitError | None]) -> Significance:
    """Return the interval and the difference to the best of every entry that has numbers per image.

    Args:
        arrangement: the entries of the table.
        resamples: what :func:`czslkit.report.resamples.resampled_result` returned for each row of
            ``arrangement.frame``.
    """
    resamples_of_entry: dict[Key, Resamples] = {}
    problems: dict[Key, str] = {}
    differences: dict[Key, dict[str, DifferenceToBest]] = {}
    keys_by_column: dict[Column, list[Key]] = {column: [] for column in arrangement.columns}
    for key, cells in arrangement.finished.items():
        keys_by_column[key[1:]] += [key] if cells else []
    seeds = arrangement.frame["seed"].tolist()
    for keys in keys_by_column.values():
        for key in keys:
            cells = arrangement.finished[key]
            try:
                found = _entry_resamples([resamples[i] for i in cells], [seeds[i] for i in cells])
            except CzslkitError as error:
                problems[key] = str(error)
            else:
                if found:
                    resamples_of_entry[key] = found
        if len(keys) > 1 and any(key in resamples_of_entry for key in keys):
            missing = [key for key in keys if key not in resamples_of_entry and key not in problems]
            problems |= dict.fromkeys(missing, "there are no numbers per image")
            compared, not_comparable = _compare_with_best(arrangement, keys, resamples_of_entry)
            differences |= compared
            problems |= not_comparable
    return Significance(
        {key: found.intervals for key, found in resamples_of_entry.items()},
        differences,
        tuple(
            f"{label} on {dataset} ({world}) is not compared with the best: {problem}"
            for (label, dataset, world), problem in problems.items()
        ),
    )


def _entry_resamples(found: Sequence[Resamples | CzslkitError | None], seeds: Sequence[int]) -> Resamples | None:
    """Return the mean over the seeds of one entry, None if a seed has no numbers per image.

    Raises:
        CzslkitError: the file of a seed cannot be used, or seeds were measured on different images.
    """
    usable: list[Resamples] = []
    for item in found:
        if isinstance(item, CzslkitError):
            raise item
        if item is not None:
            usable.append(item)
    if len(usable) < len(found):
        return None
    for seed, item in zip(seeds, usable, strict=True):
        if not item.comparable(usable[0]):
            raise CzslkitError(f"seed {seed} was measured on other images than seed {seeds[0]}")
    return mean_over_seeds(usable)


def _compare_with_best(
    arrangement: Arrangement, keys: Sequence[Key], resamples: Mapping[Key, Resamples]
) -> tuple[dict[Key, dict[str, DifferenceToBest]], dict[Key, str]]:
    """Return the difference of each entry of one column to the best, by metric, and the entries without comparison."""
    from ..metrics import bootstrap

    differences: dict[Key, dict[str, DifferenceToBest]] = {}
    problems = {}
    for metric in bootstrap.METRIC_NAMES:
        means = {key: mean for key in keys if (mean := arrangement.mean(key, metric)) is not None}
        best = max(means, key=lambda key: means[key], default=None)
        drawn = {}
        for key in means:
            if best is None or key == best or not {key, best} <= resamples.keys():
                continue
            if not resamples[key].comparable(resamples[best]):
                problems[key] = f"{best[0]} was measured on other images, or with another curve"
                continue
            drawn[key] = resamples[key].values[metric] - resamples[best].values[metric]
        for (key, values), (low, high) in zip(drawn.items(), bootstrap.intervals(list(drawn.values())), strict=True):
            assert best is not None
            difference, below = means[key] - means[best], float((values < 0).mean())
            differences.setdefault(key, {})[metric] = DifferenceToBest(best[0], difference, low, high, below)
    return differences, problems
