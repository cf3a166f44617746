"""The datasets of a benchmark, each read and checked once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from ..data.cache import Cache
from ..data.check.counts import count_splits, unexpected_counts
from ..data.dataset_folders import dataset, ensure_folder
from ..data.fingerprint import fingerprint_parts
from ..data.image_cache import decoded_images
from ..data.image_check import check_images
from ..data.left_out import refuse_large_shares, refuse_many_set_aside
from ..data.loading import load_dataset
from ..data.splits import Splits
from ..errors import CzslkitError
from ..terminal import log_to_stderr
from ..types import Preprocessing


class DataSource:
    """The datasets below one folder. Each is read once; if this fails, later calls raise the same error again.

    Args:
        root: the folder of the datasets; ``$CZSLKIT_DATA`` or ``./data`` if None.
        checked: a folder that records which datasets have readable images.
        cache: the cache of the benchmark; it may hold decoded images. None without a cache.
        allow_missing: accept a dataset of the user of which more than 1 % of a split is left out, or more than 1 % of
            the pictures were set aside when it was imported.
        progress: show how many images are checked.
        log: called with a line of text if it cannot be recorded that images are readable.
    """

    def __init__(
        self,
        root: str | Path | None,
        checked: Path,
        cache: Cache | None,
        *,
        allow_missing: bool = False,
        progress: bool = False,
        log: Callable[[str], None] = log_to_stderr,
    ) -> None:
        self._root, self._checked, self._cache, self._allow_missing = root, checked, cache, allow_missing
        self._progress, self._log = progress, log
        self._outcomes: dict[Hashable, Any] = {}

    def digests(self, name: str) -> dict[str, str]:
        """Return the digest of each file of a dataset, and as ``images`` one digest of all images.

        Raises:
            DataError: the dataset is absent or incomplete.
        """
        return self._once(("digests", name), lambda: self._digests(name))

    def load(self, name: str) -> Splits:
        """Return a dataset.

        Raises:
            DataError: the dataset is absent, malformed or inconsistent, or too much of it is left out. A dataset with
                published counts or pages is used as it was published.
        """
        return self._once(("load", name), lambda: self._load(name))

    def differences_to_published(self, name: str) -> list[str]:
        """Return the counts of a dataset that are not the published ones; empty if none are published.

        Raises:
            DataError: see :meth:`load`.
        """
        published = dataset(name).counts
        return list(unexpected_counts(count_splits(self.load(name)), published)) if published else []

    def check_images(self, name: str, preprocessing: Preprocessing) -> None:
        """Check that every image can be decoded; cache the decoded images if the cache holds images.

        Raises:
            DataError: images cannot be read.
        """
        shape = preprocessing.size, preprocessing.resizing
        self._once(("check", name, *shape), lambda: self._check_images(self.load(name), preprocessing))

    def _load(self, name: str) -> Splits:
        data = load_dataset(name, self._root)
        known = dataset(name)
        if known.counts is None and not known.pages and not self._allow_missing:
            refuse_large_shares(name, data.left_out)
            refuse_many_set_aside(name, data.set_aside)
        return data

    def _digests(self, name: str) -> dict[str, str]:
        folder = ensure_folder(name, self._root)
        return fingerprint_parts(folder, dataset(name).files(folder))

    def _check_images(self, data: Splits, preprocessing: Preprocessing) -> None:
        splits, cache, progress = (data.train, data.val, data.test), self._cache, self._progress
        if cache and cache.images:
            decoded = [decoded_images(cache, split, preprocessing, progress=progress) for split in splits]
            if None not in decoded:
                return
        check_images(data, cache=self._checked, progress=progress, log=self._log)

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._outcomes:
            try:
                self._outcomes[key] = make()
            except CzslkitError as error:
                self._outcomes[key] = error
        if isinstance(self._outcomes[key], CzslkitError):
            raise self._outcomes[key]
        return self._outcomes[key]
