"""Results on disk: one JSON file for each benchmark cell and what belongs to it, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from .errors import CzslkitError
from .files import checked_filename, write_bytes, write_text
from .options import flatten

Result = Mapping[str, Any]  # the content of one file
FORMAT = 1
_CELL = {"method": str, "dataset": str, "world": str, "seed": int, "config_id": str}
_SECTIONS = {"cell": dict, "status": str, "config": dict, "protocol": dict, "depends": dict}
_NAMED = 4  # differences named before the rest is only counted


class Store:
    """The results under one folder, each at ``<dataset>/<method>/seed<k>-<config_id>/<world>.json``.

    Attributes:
        problems: files that the last ``results()`` left out, each as path and reason.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.problems: list[str] = []

    def folder(self, cell: Mapping[str, Any]) -> Path:
        """Where everything of one training lives; the worlds share it.

        Raises:
            CzslkitError: a name that would lead out of, or astray in, the folder of results.
        """
        parts = (cell["dataset"], cell["method"], f"seed{cell['seed']}-{cell['config_id']}")
        return self.root.joinpath(*map(checked_filename, parts))

    def path(self, cell: Mapping[str, Any]) -> Path:
        return self.folder(cell) / f"{checked_filename(cell['world'])}.json"

    def get(self, cell: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result of a cell, None where it has not been run.

        Raises:
            CzslkitError: there is a file, and it is not a result.
        """
        path = self.path(cell)
        return self._read(path) if path.exists() else None

    def put(self, result: Result) -> Path:
        """Write a result; a finished one of other data or code that it replaces stays as ``<world>.stale.json``.

        Numbers that are not finite are written as null.
        """
        path = self.path(result["cell"])
        if path.exists() and self._worth_keeping(path, result):
            os.replace(path, _beside(path))
        write_text(path, json.dumps(_finite({"format": FORMAT, **result}), indent=1, allow_nan=False))
        return path

    def attach(self, cell: Mapping[str, Any], contents: Mapping[str, bytes]) -> dict[str, str]:
        """Write files beside the result of a cell, at ``<world>.<name>`` each.

        Returns:
            The digest of each by its name, which the result is to hold as ``files``: it tells its files from those of
            a later one.
        """
        for name, content in contents.items():
            write_bytes(self._attachment(cell, name), content)
        return {name: _digest(content) for name, content in contents.items()}

    def attached(self, result: Result, name: str) -> bytes | None:
        """What was written beside a result, None if nothing of that name ever was.

        Raises:
            CzslkitError: it is gone, or is not what was written.
        """
        files = result.get("files")
        if not isinstance(files, Mapping) or name not in files:
            return None
        path = self._attachment(result["cell"], name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CzslkitError(f"{path} cannot be read: {error.strerror or error}") from error
        if _digest(content) != files[name]:
            raise CzslkitError(f"{path} is not the file that was written with the result beside it")
        return content

    @staticmethod
    def stale(result: Result, depends: Mapping[str, Any]) -> str | None:
        """Why a result no longer stands, given what it would depend on now; None if it does.

        >>> Store.stale({"depends": {"data": {"test_pairs.txt": "3f"}}}, {"data": {"test_pairs.txt": "2a"}})
        'stale because data: test_pairs.txt changed'
        """
        words = differences(result["depends"], depends)
        return f"stale because {words}" if words else None

    def results(self) -> list[dict[str, Any]]:
        """Every result, by dataset, method, seed, configuration and world; ``problems`` names the files left out."""
        self.problems, found = [], []
        for path in sorted(self.root.glob("*/*/seed*-*/*.json")):
            if re.search(r"\.(stale(-\d+)?|details)$", path.stem):
                continue
            try:
                found.append(self._read(path))
            except CzslkitError as error:
                self.problems.append(str(error))
        return sorted(found, key=lambda r: [r["cell"][k] for k in ("dataset", "method", "seed", "config_id", "world")])

    def _attachment(self, cell: Mapping[str, Any], name: str) -> Path:
        return self.folder(cell) / checked_filename(f"{cell['world']}.{name}")

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CzslkitError(f"{path}: cannot be read: {error}. Remove it to run its cell again.") from error
        if fault := _fault(content):
            raise CzslkitError(f"{path}: {fault}")
        if (home := self.path(content["cell"])) != path:
            raise CzslkitError(f"{path}: is the result that belongs at {home}. Was it copied or renamed?")
        return content

    def _worth_keeping(self, path: Path, result: Result) -> bool:
        """Whether what stands at ``path`` is finished and rests on something else, or is no result at all."""
        try:
            old = self._read(path)
        except CzslkitError:
            return True
        return old["status"] == "done" and self.stale(old, result["depends"]) is not None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What was added, removed or changed between two nested dicts, in words; empty if nothing was.

    >>> differences({"code": {"czslkit.method": "3f"}, "weights": "11"}, {"code": {}, "weights": "22"})
    'code: czslkit.method removed; weights changed'
    """
    was, now = flatten(old), flatten(new)
    found = []
    for key in was | now:
        if was.get(key) != now.get(key):
            section, _, name = key.partition(".")
            change = "added" if key not in was else "removed" if key not in now else "changed"
            found.append(f"{section}: {name} {change}" if name else f"{section} {change}")
    rest = [f"and {len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return "; ".join(found[:_NAMED] + rest)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _beside(path: Path) -> Path:
    names = (path.with_name(f"{path.stem}.stale{f'-{n}' if n > 1 else ''}.json") for n in count(1))
    return next(name for name in names if not name.exists())


def _fault(content: Any) -> str | None:
    """Why ``content`` cannot stand in a table, None if it can."""
    if not isinstance(content, dict) or "format" not in content:
        return "is not a result of czslkit"
    if content["format"] != FORMAT:
        return f"is a result of format {content['format']!r}, this czslkit reads format {FORMAT}"
    if lacking := [key for key, kind in _SECTIONS.items() if not isinstance(content.get(key), kind)]:
        return f"lacks {', '.join(lacking)}"
    if lacking := [key for key, kind in _CELL.items() if not isinstance(content["cell"].get(key), kind)]:
        return f"lacks {', '.join(lacking)} in cell"
    if content["status"] == "done":
        metrics = content.get("metrics")
        if not isinstance(metrics, dict) or not all(isinstance(m, (int, float, type(None))) for m in metrics.values()):
            return "is done, but its metrics are not numbers"
    elif content["status"] == "failed":
        error = content.get("error")
        if not isinstance(error, dict) or not all(isinstance(error.get(key), str) for key in ("type", "message")):
            return "is failed, but its error has no type and message"
    else:
        return f"has status {content['status']!r}, neither 'done' nor 'failed'"
    return None
