"""Results on disk: one JSON file for each benchmark cell, with attached files. All files are written atomically."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from .errors import CzslkitError
from .files import checked_filename, write_bytes, write_text
from .foreign_files import parse_json, read_regular
from .json_digest import content_digest, with_digest
from .options import config_id, flatten, user_path
from .result_schema import FORMAT, fault

Result = Mapping[str, Any]  # the content of one result file
#: Dependency of a result of format 1 in place of versions: it was made when every version of czslkit's code was 1.
FORMAT_1 = "czslkit as of format 1"
_STALE = r"\.stale(-\d+)?\.json$"  # end of the name of a result that another one has replaced
#: End of the name of a file that keeps numbers computed from a result. It may be removed at any time.
KEPT_RESAMPLES = "resamples"
#: End of the error of a file that is not a result.
REMEDY = " Run czslkit bench again to make this result anew, or remove the file."
_RESULT_LIMIT, _ATTACHED_LIMIT = 8 << 20, 64 << 20  # largest sizes of a result and of a file attached to it, in bytes
_MOST_DIFFERENCES = 4  # largest number of differences that are named; the others are counted


class Store:
    """The results under one folder, each at ``<dataset>/<method>/seed<k>-<config_id>/<world>.json``.

    Attributes:
        problems: path and reason of each file that the last ``results()`` skipped.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = user_path(root)
        self.problems: list[str] = []

    def folder(self, cell: Mapping[str, Any]) -> Path:
        """Return the folder of one training, which has the results of both worlds.

        Raises:
            CzslkitError: a name is not a plain file name, so the path could lead out of the folder of results.
        """
        parts = (cell["dataset"], cell["method"], f"seed{cell['seed']}-{cell['config_id']}")
        return self.root.joinpath(*map(checked_filename, parts))

    def path(self, cell: Mapping[str, Any]) -> Path:
        """Return the file of a cell's result."""
        return self.folder(cell) / f"{checked_filename(cell['world'])}.json"

    def get(self, cell: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the result of a cell, None if the cell has not been run.

        Raises:
            CzslkitError: the file of the cell is not a result.
        """
        path = self.path(cell)
        return self.read(path) if path.exists() else None

    def put(self, result: Result) -> Path:
        """Write a result; a finished result with other dependencies is first renamed to ``<world>.stale.json``.

        A file that is damaged, was changed or is not a result is renamed as well. The file holds a digest of its
        content. Numbers that are not finite are written as null. What is kept of the old result is removed.
        """
        path = self.path(result["cell"])
        with suppress(OSError):
            path.with_suffix(f".{KEPT_RESAMPLES}").unlink()
        if path.exists() and self._is_worth_keeping(path, result):
            os.replace(path, unused_path(path, ".stale"))
        write_text(path, with_digest(_finite({**result, "format": FORMAT}), indent=1, allow_nan=False))
        return path

    def attach(self, cell: Mapping[str, Any], contents: Mapping[str, bytes]) -> dict[str, str]:
        """Write files that belong to the result of a cell, each as ``<world>.<name>``.

        Returns:
            The digest of each file by its name. The result must hold them as ``files``, so that files of a later result
            are not taken for files of this result.
        """
        for name, content in contents.items():
            write_bytes(self._attachment(cell, name), content)
        return {name: content_digest(content) for name, content in contents.items()}

    def attached(self, result: Result, name: str) -> bytes | None:
        """Return the content of a file that belongs to a result, None if the result has no file of that name.

        Raises:
            CzslkitError: the file is missing, or its content has changed.
        """
        files = result.get("files")
        if not isinstance(files, Mapping) or name not in files:
            return None
        path = self._attachment(result["cell"], name)
        try:
            content = read_regular(path, _ATTACHED_LIMIT)
        except OSError as error:
            raise CzslkitError(f"{path} cannot be read: {error.strerror or error}") from error
        if content_digest(content) != files[name]:
            raise CzslkitError(
                f"{path} is not the file that was written with its result: its content has the digest "
                f"{content_digest(content)}, expected {files[name]}. Run czslkit bench again to evaluate its cell anew."
            )
        return content

    def changed_files(self, result: Result) -> dict[str, str]:
        """Return an error for each file of a result that is there but cannot be used, by the name of the file."""
        errors = {}
        for name in result.get("files") or ():
            try:
                if self._attachment(result["cell"], name).exists():
                    self.attached(result, name)
            except CzslkitError as error:
                errors[name] = str(error)
        return errors

    def results(self) -> list[dict[str, Any]]:
        """Return all results by dataset, method, seed, configuration and world; ``problems`` lists the other files."""
        self.problems, found = [], []
        for path in sorted(self.root.glob("*/*/seed*-*/*.json")):
            if re.search(_STALE, path.name) or path.stem.endswith(".details"):
                continue
            try:
                found.append(self.read(path))
            except CzslkitError as error:
                self.problems.append(str(error))
        return sorted(found, key=lambda r: [r["cell"][k] for k in ("dataset", "method", "seed", "config_id", "world")])

    def of_all_settings(self, cell: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the results of a cell's method, dataset and seed with all settings, also those that were replaced."""
        found = []
        for path in sorted(self.folder(cell).parent.glob(f"seed{cell['seed']}-*/*.json")):
            with suppress(CzslkitError):  # not a result
                found.append(self.read(path))
        return found

    def _attachment(self, cell: Mapping[str, Any], name: str) -> Path:
        return self.folder(cell) / checked_filename(f"{cell['world']}.{name}")

    def read(self, path: Path) -> dict[str, Any]:
        """Return the result in a file of a cell's folder, also in one of a result that was replaced.

        Raises:
            CzslkitError: the file is not a result, was changed, or is that of another cell.
        """
        try:
            file = read_regular(path, _RESULT_LIMIT)
            content: dict[str, Any] = parse_json(file)
        except (OSError, ValueError) as error:
            raise CzslkitError(f"{path}: cannot be read: {error}.{REMEDY}") from error
        if reason := fault(content, file):
            raise CzslkitError(f"{path}: {reason}.{REMEDY}")
        content.pop("digest", None)
        try:
            home = self.path(content["cell"])
        except CzslkitError as error:
            raise CzslkitError(f"{path}: {error}") from error
        if home != path.with_name(re.sub(_STALE, ".json", path.name)):
            raise CzslkitError(f"{path}: holds the result of {home}. Was the file copied or renamed?")
        return _upgraded(content) if content["format"] == 1 else content

    def _is_worth_keeping(self, path: Path, result: Result) -> bool:
        """Return whether the file at ``path`` is a finished result with other dependencies, or is not a result."""
        try:
            old = self.read(path)
        except CzslkitError:
            return True
        return old["status"] == "done" and bool(differences(old["depends"], result["depends"]))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return a text on the entries that were added, removed or changed between two nested dicts; empty if none were.

    >>> differences({"code": {"czslkit.method": "3f"}, "weights": "11"}, {"code": {}, "weights": "22"})
    'code: czslkit.method removed; weights changed'
    """
    before, after = flatten(old), flatten(new)
    found = []
    for key in before | after:
        if before.get(key) != after.get(key):
            section, _, name = key.partition(".")
            change = "added" if key not in before else "removed" if key not in after else "changed"
            found.append(f"{section}: {name} {change}" if name else f"{section} {change}")
    more = [f"and {len(found) - _MOST_DIFFERENCES} more"] if len(found) > _MOST_DIFFERENCES else []
    return "; ".join(found[:_MOST_DIFFERENCES] + more)


def relative_path(cell: Mapping[str, Any]) -> str:
    """Return the path of a cell's result below the folder of results.

    >>> relative_path({"dataset": "demo", "method": "csp", "seed": 0, "config_id": "3f", "world": "closed"})
    'demo/csp/seed0-3f/closed.json'
    """
    return "{dataset}/{method}/seed{seed}-{config_id}/{world}.json".format_map(cell)


def unused_path(path: Path, mark: str) -> Path:
    """Return the first path next to ``path`` that does not exist: ``name.stale.json``, ``name.stale-2.json``, ...

    >>> unused_path(Path("nowhere/closed.json"), ".stale").name, unused_path(Path("nowhere/training"), ".stale").name
    ('closed.stale.json', 'training.stale')
    """
    names = (path.with_name(f"{path.stem}{mark}{f'-{n}' if n > 1 else ''}{path.suffix}") for n in count(1))
    return next(name for name in names if not name.exists())


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a file of format 1 in format 2.

    Format 1 recorded a digest of every module of czslkit. No number has changed from format 1 to version 1 in format 2,
    so ``FORMAT_1`` can replace these digests.
    """
    old = dict(content["depends"])
    feasibility = {"feasibility": old.pop("feasibility")} if "feasibility" in old else {}
    settings = {"config": content["config"], "seed": content["cell"]["seed"], "depends": old}
    own = re.compile(r"czslkit(_plugins)?(\.|$)")
    shipped = {m: str(d).partition(" (")[0] for m, d in old.get("plugins", {}).items() if not own.match(m)}
    from_files = {m: "not known" for m in old.get("code", {}) if m.startswith("czslkit_file_")}
    training = {
        "data": old.get("data", {}),
        "weights": old.get("weights"),
        "code": {FORMAT_1: "version 1", **shipped, **from_files},
    }
    depends = {"training": training, "evaluation": {"code": {FORMAT_1: "version 1"}, **feasibility}}
    return {**content, "depends": depends if old else {}, "training_key": config_id(settings)}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
