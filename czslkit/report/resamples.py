"""The metrics of one result on bootstrap resamples of its test images, computed from its file of numbers per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CzslkitError
from ..metrics.names import undefined_metrics
from ..result_store import Result
from .comparability import data_digests

if TYPE_CHECKING:  # numpy is imported only if there are numbers to resample
    from ..metrics.bootstrap import Floats
    from ..metrics.outcomes import Outcomes

Interval = tuple[float, float]  # low and high end, as fractions
#: Function that takes a result and the end of a file name. It returns the content of this file of the result, None if
#: the result has no such file.
Attached = Callable[[Result, str], bytes | None]

IMAGES_FILE = "images.npz"


@dataclass(frozen=True, eq=False)
class Resamples:
    """The metrics of one result on each resample of the test images, or their mean over seeds."""

    images: Outcomes
    measurement: tuple[Any, ...]  # digests of the data, and the curve of the AUC
    values: Mapping[str, Floats]  # metric -> [resamples]; undefined metrics are left out
    intervals: Mapping[str, Interval]  # metric -> ends of the middle 95 % of the values

    def comparable(self, other: Resamples) -> bool:
        """Return whether both were measured on the same images of the same data, with the same curve."""
        return self.measurement == other.measurement and self.images.same_images(other.images)


def resampled_result(result: Result, attached: Attached | None) -> Resamples | CzslkitError | None:
    """Return the resampled metrics of a result, or the error if its file of numbers per image cannot be used.

    Args:
        result: a result as the store returns it.
        attached: returns the files of a result, as :meth:`Store.attached`.

    Returns:
        None for a result that failed or has no numbers per image.
    """
    if attached is None or result["status"] != "done":
        return None
    try:
        content = attached(result, IMAGES_FILE)
    except CzslkitError as error:
        return error
    if content is None:
        return None
    from ..metrics import bootstrap
    from ..metrics.outcomes import Outcomes

    bins = result["protocol"].get("bins")
    try:
        images = Outcomes.from_bytes(content)
        counts = [result["metrics"].get(name) for name in ("n_seen", "n_unseen")]
        if None not in counts and sum(counts) != len(images):
            raise ValueError(f"has numbers of {len(images):,} images, its result of {sum(counts):,}")
        values = bootstrap.resampled_metrics(images, bins, bootstrap.RESAMPLES, bootstrap.SEED)
    except ValueError as error:
        return CzslkitError(f"seed {result['cell']['seed']}: {IMAGES_FILE}: {error}")
    kinds = {"n_seen": int(images.is_seen.sum()), "n_unseen": int((~images.is_seen).sum())}
    for metric in undefined_metrics({**values, **kinds}, bins):
        del values[metric]
    return Resamples(images, (data_digests(result), bins), values, _intervals(values))


def mean_over_seeds(seeds: Sequence[Resamples]) -> Resamples:
    """Return the mean over several seeds on each resample; all seeds must be measured on the same images."""
    import numpy as np

    first = seeds[0]
    if len(seeds) == 1:
        return first
    values = {metric: np.mean([seed.values[metric] for seed in seeds], axis=0) for metric in first.values}
    return Resamples(first.images, first.measurement, values, _intervals(values))


def _intervals(values: Mapping[str, Floats]) -> dict[str, Interval]:
    from ..metrics import bootstrap

    return {metric: bootstrap.interval(drawn) for metric, drawn in values.items()}
