"""How sure the numbers of a table are: bootstrap intervals, and which entries may be as good as the best.

Both come from the files of numbers per image beside the results. One draw of test images serves every method and every
seed that was measured on them, and a resample's number of an entry is the mean over its seeds on that very draw. Thus
the test set varies and the training does not; the spread over trainings is the standard deviation in the table.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import CzslkitError

if TYPE_CHECKING:  # numpy is loaded once there is something to draw from
    from ..metrics.bootstrap import Floats
    from ..metrics.outcomes import Outcomes

Result = Mapping[str, Any]
Key = tuple[str, str, str]  # row, dataset, world
Interval = tuple[float, float]  # fractions, as the metrics are
#: The content of a file beside a result by the end of its name; None if there never was one.
Attached = Callable[[Result, str], bytes | None]

FILE = "images.npz"
MARK = "~"


@dataclass(frozen=True)
class Gap:
    """An entry against the best of its column, on the same images; fractions."""

    best: str  # the row of the best
    difference: float  # entry minus best, of the means over seeds
    low: float  # where the middle 95 % of the resamples have the difference
    high: float
    below: float  # share of the resamples in which the entry is below the best

    @property
    def tied(self) -> bool:
        """Whether the difference may be chance."""
        return self.low <= 0 <= self.high

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "tied": self.tied}


@dataclass(frozen=True)
class Findings:
    """What resampling says about a table; empty where there are no numbers per image."""

    intervals: Mapping[Key, Mapping[str, Interval]] = field(default_factory=dict)  # by metric
    gaps: Mapping[Key, Mapping[str, Gap]] = field(default_factory=dict)  # by metric, of all but its best
    of_seeds: Mapping[tuple[Key, int], Mapping[str, Interval]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what could not be compared, and why

    def interval(self, key: Key, metric: str) -> Interval | None:
        return self.intervals.get(key, {}).get(metric)

    def tied(self, key: Key, metric: str) -> bool | None:
        """Whether an entry is not significantly below the best; None for the best and where nothing was compared."""
        gap = self.gaps.get(key, {}).get(metric)
        return gap.tied if gap else None

    def settings(self) -> dict[str, float]:
        """How the resamples were drawn."""
        from ..metrics import bootstrap

        return {"resamples": bootstrap.RESAMPLES, "seed": bootstrap.SEED, "level": bootstrap.LEVEL}

    def caption(self, intervals: bool, metrics: Sequence[str]) -> list[str]:
        """What the marks mean, and the intervals if they are printed, a sentence each.

        Args:
            metrics: the ones in the table.
        """
        if not self.intervals:
            return []
        from ..metrics import bootstrap

        level, drawn = f"{bootstrap.LEVEL:.0%}", f"{bootstrap.RESAMPLES} resamples of the test images"
        said = [f"[low, high]: {level} bootstrap interval, {drawn}."] if intervals else []
        tied = [gap.tied for of_entry in self.gaps.values() for metric, gap in of_entry.items() if metric in metrics]
        if tied:
            said.append(
                f"{MARK}: not significantly below the best of its column (the {level} interval of the paired "
                f"difference holds 0; bootstrap, {drawn}, not corrected for many comparisons)"
                f"{'.' if any(tied) else ': none here.'}"
            )
        return said


@dataclass(frozen=True, eq=False)
class _Sample:
    """One entry, resampled."""

    images: Outcomes
    measured: tuple[Any, ...]  # data and curve
    values: Mapping[str, Floats]  # metric of each resample, mean over seeds
    of_seeds: Mapping[int, Mapping[str, Interval]]

    def comparable(self, other: _Sample) -> bool:
        return self.measured == other.measured and self.images.same_images(other.images)


def findings(labels: Sequence[str], results: Sequence[Result], attached: Attached) -> Findings:
    """Intervals of every entry, and its distance to the best, as far as there are numbers per image.

    Args:
        labels: the row of each result.
        results: as the store returns them; those that failed do not count.
        attached: as :meth:`Store.attached`.
    """
    columns: dict[tuple[str, str], dict[Key, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for label, result in zip(labels, results, strict=True):
        if result["status"] == "done":
            dataset, world = result["cell"]["dataset"], result["cell"]["world"]
            columns[dataset, world][label, dataset, world].append(result)
    samples: dict[Key, _Sample] = {}
    gaps: dict[Key, dict[str, Gap]] = defaultdict(dict)
    reasons: dict[Key, str] = {}
    for entries in columns.values():
        for key, of_entry in entries.items():
            try:
                if sample := _sample(of_entry, attached):
                    samples[key] = sample
            except CzslkitError as error:
                reasons[key] = str(error)
        if samples.keys() & entries.keys() and len(entries) > 1:
            reasons |= {key: "no numbers per image" for key in entries if key not in samples and key not in reasons}
            reasons |= _compare(entries, samples, gaps)
    return Findings(
        {key: _intervals(sample.values) for key, sample in samples.items()},
        gaps,
        {(key, seed): found for key, sample in samples.items() for seed, found in sample.of_seeds.items()},
        tuple(f"{row} on {dataset} ({world}): not compared: {why}" for (row, dataset, world), why in reasons.items()),
    )


def _sample(results: Sequence[Result], attached: Attached) -> _Sample | None:
    """The resamples of one entry; None if some seed has no numbers per image.

    Raises:
        CzslkitError: a file is gone or changed, or the seeds were not measured alike.
    """
    contents = [attached(result, FILE) for result in results]
    if None in contents:
        return None
    import numpy as np

    from ..metrics import bootstrap
    from ..metrics.outcomes import Outcomes

    found: list[_Sample] = []
    for result, content in zip(results, contents, strict=True):
        seed, bins = result["cell"]["seed"], result["protocol"].get("bins")
        try:
            images = Outcomes.from_bytes(content or b"")
            values = bootstrap.resampled_metrics(images, bins, bootstrap.RESAMPLES, bootstrap.SEED)
        except ValueError as error:
            raise CzslkitError(f"seed {seed}: {FILE}: {error}") from error
        measured = (result["depends"].get("data"), bins)
        found.append(_Sample(images, measured, values, {seed: _intervals(values)}))
        if not found[-1].comparable(found[0]):
            raise CzslkitError(f"seed {seed} was measured on other images than seed {results[0]['cell']['seed']}")
    mean = {metric: np.mean([sample.values[metric] for sample in found], axis=0) for metric in found[0].values}
    of_seeds = {seed: intervals for sample in found for seed, intervals in sample.of_seeds.items()}
    return _Sample(found[0].images, found[0].measured, mean, of_seeds)


def _compare(
    entries: Mapping[Key, Sequence[Result]], samples: Mapping[Key, _Sample], gaps: dict[Key, dict[str, Gap]]
) -> dict[Key, str]:
    """Fill in the gaps of one column; what cannot be compared with a best one, and why."""
    from ..metrics import bootstrap

    reasons = {}
    for metric in bootstrap.METRIC_NAMES:
        means = {key: mean for key, of_entry in entries.items() if (mean := _mean(of_entry, metric)) is not None}
        best = max(means, key=lambda key: means[key], default=None)
        for key in means:
            if best is None or key == best or not {key, best} <= samples.keys():
                continue
            if not samples[key].comparable(samples[best]):
                reasons[key] = f"measured on other images, or by another curve, than {best[0]}"
                continue
            differences = samples[key].values[metric] - samples[best].values[metric]
            low, high = bootstrap.interval(differences)
            gaps[key][metric] = Gap(best[0], means[key] - means[best], low, high, float((differences < 0).mean()))
    return reasons


def _intervals(values: Mapping[str, Floats]) -> dict[str, Interval]:
    from ..metrics import bootstrap

    return {metric: bootstrap.interval(of_metric) for metric, of_metric in values.items()}


def _mean(results: Sequence[Result], metric: str) -> float | None:
    values = [value for result in results if (value := result["metrics"].get(metric)) is not None]
    return statistics.fmean(values) if values else None
