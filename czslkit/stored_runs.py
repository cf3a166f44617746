"""What a folder of results holds, and its cleaning. Only files that czslkit wrote are removed, and none outside."""

from __future__ import annotations

import os
import re
import struct
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import ConfigError, CzslkitError, LockedError, LockError
from .files import file_lock, left_unfinished, remove_unfinished
from .foreign_files import JSON_LIMIT, check_regular, parse_json, read_json
from .locks import lock_files
from .metrics.names import WORLDS
from .options import user_path
from .report.asked import ASKED_FILE, Asked, read_asked
from .report.escaping import printable
from .result_store import Store
from .training_files import (
    BACKBONE_FILE,
    CALIBRATION_FILE,
    LOG_FILE,
    METADATA_FILE,
    RUN_IDS_FILE,
    STATE_FILE,
    TRAINING_FOLDER,
    WEIGHTS_FILE,
)

_CELL_FOLDER = re.compile(r"seed(?P<seed>\d+)-(?P<config_id>[\w+-]+)")
_RESULT_FILE = re.compile(r"(?P<world>closed|open)\.(stale(-\d+)?\.)?json")
_RESULT_PARTS = re.compile(
    r"(?P<world>closed|open)\.(curve\.csv|images\.npz|details\.json|predictions\.json\.gz|error\.txt|resamples)"
)
_TRAINING = re.compile(rf"{TRAINING_FOLDER}(\.stale(-\d+)?)?")
_TRAINING_FILES = (METADATA_FILE, WEIGHTS_FILE, STATE_FILE, BACKBONE_FILE, CALIBRATION_FILE, RUN_IDS_FILE)
_CACHE_FILE = re.compile(r"(features|images)-.+\.(safetensors|npy)")


@dataclass(frozen=True)
class Item:
    """A result or a training in a folder of results, with its files.

    Attributes:
        folder: the folder of the cell.
        dataset, method, seed, config_id: of the cell.
        what: ``closed`` or ``open`` for a result, ``training`` for a trained method or the state of a training.
        status: ``done``, ``failed``, ``damaged`` or ``stale`` (replaced by a newer one) for a result; ``trained``,
            ``unfinished`` or ``stale`` for a training.
        files: what removing the item removes.
        size: bytes of the files.
        age: seconds since a file was last written.
        stale: why a result was kept although it is stale; empty if it is not.
        keys: the keys of the training, or the key of the training that a result refers to.
    """

    folder: Path
    dataset: str
    method: str
    seed: int
    config_id: str
    what: str
    status: str
    files: tuple[Path, ...]
    size: int
    age: float
    stale: str = ""
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.method} on {self.dataset} ({self.what}, seed {self.seed}, config {self.config_id}): {self.status}"
        )


@dataclass(frozen=True)
class Cleaning:
    """What was removed from a folder of results, or would be with ``dry_run``.

    Attributes:
        removed: a text for each result, training or file.
        size: bytes of the removed files.
        kept: what was left although it was to be removed, each with the reason.
    """

    removed: tuple[str, ...]
    size: int
    kept: tuple[str, ...]


def list_runs(runs: str | Path) -> list[Item]:
    """Return the results and trainings in a folder of results, by dataset, method, seed and configuration.

    Args:
        runs: the folder, as given to ``czslkit bench --runs``.

    Raises:
        CzslkitError: there is no such folder.
    """
    root = user_path(runs)
    if not root.is_dir():
        raise CzslkitError(f"no folder {root}; expected the folder of results that czslkit bench wrote")
    return [item for folder in _cell_folders(root) for item in _items(Store(root), folder)]


def remove_runs(
    runs: str | Path,
    *,
    methods: Collection[str] = (),
    datasets: Collection[str] = (),
    worlds: Collection[str] = (),
    seeds: Collection[int] = (),
    config_ids: Collection[str] = (),
    failed: bool = False,
    dry_run: bool = False,
) -> Cleaning:
    """Remove the results that a selection names, and the trainings of cells of which no result is left.

    A result must be named by every part of the selection that is given. The cell of a running process stays. With
    ``failed``, trainings stay, since the next run of their cells goes on with them.

    Args:
        runs: the folder of results.
        methods, datasets, worlds, seeds, config_ids: names and numbers to select; all if empty.
        failed: select only failed cells.
        dry_run: remove nothing.

    Raises:
        ConfigError: nothing is selected.
        CzslkitError: there is no such folder.
    """
    parts: dict[str, Collection[Any]] = {
        "method": methods, "dataset": datasets, "what": worlds, "seed": seeds, "config_id": config_ids
    }  # fmt: skip
    given = {name: chosen for name, chosen in parts.items() if chosen}
    if not (given or failed):
        raise ConfigError(["nothing is selected: give methods, datasets, worlds, seeds, configurations or failed"])
    items = list_runs(runs)
    for name, chosen in given.items():
        known = sorted({str(getattr(item, name)) for item in items if name != "what" or item.what in WORLDS})
        if unknown := [str(value) for value in chosen if str(value) not in known]:
            label = {"what": "world", "config_id": "configuration"}.get(name, name)
            shown = printable(", ".join(known)) or "none"
            raise ConfigError([f"{runs} has no {label} {', '.join(unknown)}. Known: {shown}."])

    def is_selected(item: Item) -> bool:
        in_parts = all(getattr(item, name) in chosen for name, chosen in given.items() if name != "what")
        in_world = not worlds or item.what in worlds
        return in_parts and in_world and (not failed or item.status == "failed")

    chosen = [item for item in items if item.what in WORLDS and is_selected(item)]
    left = {item.folder for item in items if item.what in WORLDS and item not in chosen}
    folders = {item.folder for item in chosen} - left
    if not (worlds or failed):  # trainings without a result
        folders |= {item.folder for item in items if is_selected(item)} - left
    trainings = [item for item in items if item.what not in WORLDS and item.folder in folders]
    done = _remove(chosen if failed else [*chosen, *trainings], dry_run)
    resumed = [f"{item}: the next run of its cell goes on with it" for item in trainings if failed]
    return replace(done, kept=(*done.kept, *resumed))


def prune_runs(runs: str | Path, *, cache: bool = False, dry_run: bool = False) -> Cleaning:
    """Remove stale results and trainings, trainings that no result refers to, and unfinished files of killed processes.

    A training without a result stays if a command of ``czslkit bench`` asked for its cell, since it can be resumed, or
    if the record of these commands cannot be read. A training beside a result stays also if the result is damaged or
    does not name it.

    Args:
        runs: the folder of results.
        cache: also remove the cached features and images, which are made again when they are needed.
        dry_run: remove nothing.

    Raises:
        CzslkitError: there is no such folder.
    """
    root = user_path(runs)
    items = list_runs(root)
    asked = read_asked(root, _print_to_stderr)
    used = {key for item in items if item.what in WORLDS and item.status != "stale" for key in item.keys}
    chosen: list[Item] = []
    kept: list[str] = []
    damaged = {item.folder for item in items if item.status == "damaged"}
    for item in items:
        if item.what in WORLDS:
            chosen += [item] if item.status == "stale" else []
            continue
        named = not used.isdisjoint(item.keys)
        reason = "a result refers to it" if named else _use(item, asked, item.folder in damaged)
        if not reason:
            chosen.append(item)
        elif item.status == "stale" or not named:
            kept.append(f"{item}: {reason}")
    done = _remove(chosen, dry_run)
    files, size = _remove_unfinished(root, dry_run)
    for file in _cache_files(root) if cache else ():
        files.append(file)
        size += file.lstat().st_size
        if not dry_run:
            file.unlink(missing_ok=True)
    return Cleaning((*done.removed, *map(str, files)), done.size + size, (*done.kept, *kept))


def _use(item: Item, asked: Asked, damaged: bool) -> str:
    """Return why a training stays that no result names; an empty text if nothing needs it.

    Args:
        damaged: a result beside the training is damaged.
    """
    if damaged:
        return "the result beside it is damaged, and may refer to it"
    if item.status == "stale":
        return ""
    if any(os.path.lexists(item.folder / f"{world}.json") for world in WORLDS):
        return "the result beside it does not name it"
    if not asked.is_known:
        return f"no result refers to it, but {ASKED_FILE}, which tells whether it was asked for, cannot be read"
    cell = {"dataset": item.dataset, "method": item.method, "seed": item.seed, "config_id": item.config_id}
    if any(asked.asks_for({**cell, "world": world}) for world in WORLDS):
        return "no result refers to it, but czslkit bench was asked for its cell"
    return ""


def _remove(items: Sequence[Item], dry_run: bool) -> Cleaning:
    """Remove items, each cell under its lock; a cell that another process holds is kept and named."""
    by_folder: dict[Path, list[Item]] = {}
    for item in items:
        by_folder.setdefault(item.folder, []).append(item)
    removed: list[str] = []
    kept: list[str] = []
    size = 0
    for folder, together in by_folder.items():
        with _lock(folder) as problem:
            if problem:
                kept += [f"{item}: {problem}" for item in together]
                continue
            removed += map(str, together)
            size += sum(item.size for item in together)
            if not dry_run:
                for item in together:
                    for file in item.files:
                        file.unlink(missing_ok=True)
                kept += _remove_empty(folder)
    return Cleaning(tuple(removed), size, tuple(kept))


@contextmanager
def _lock(folder: Path) -> Iterator[str]:
    """Hold the lock of a cell within the ``with`` block; give why it cannot be held, an empty text if it is.

    The files of a lock that was new are removed.
    """
    lock = folder / ".lock"
    known = lock_files(lock)
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(lock, _print_to_stderr, wait=False))
        except LockedError:
            yield f"a process holds {lock}"
            return
        except LockError as error:
            yield str(error)
            return
        yield ""
        if not known and folder.exists():
            _remove_lock(lock)


def _remove_lock(lock: Path) -> None:
    """Remove the files of a lock that this process holds; whoever waits for it sees that its file is gone."""
    for file in lock_files(lock):
        file.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> list[str]:
    """Remove the folders of a cell that are empty; return a text for each file that czslkit did not write."""
    for training in folder.iterdir():
        if _TRAINING.fullmatch(training.name) and _is_folder(training) and not any(training.iterdir()):
            training.rmdir()
    rest = {*folder.iterdir()} - {*lock_files(folder / ".lock"), folder / LOG_FILE}
    if not rest:
        (folder / LOG_FILE).unlink(missing_ok=True)
        _remove_lock(folder / ".lock")
        for empty in (folder, folder.parent, folder.parent.parent):
            try:
                empty.rmdir()
            except OSError:  # there are other cells
                break
    known = (_RESULT_FILE, _RESULT_PARTS, _TRAINING)
    return [
        f"{path}: czslkit did not write it"
        for path in sorted(rest)
        if not any(kind.fullmatch(path.name) for kind in known)
    ]


def _cell_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of cells in order; a link to another place is not followed."""
    for dataset in _folders(root):
        for method in _folders(dataset):
            yield from (folder for folder in _folders(method) if _CELL_FOLDER.fullmatch(folder.name))


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if _is_folder(path))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _items(store: Store, folder: Path) -> Iterator[Item]:
    """Yield the results and the trainings in the folder of a cell."""
    match = _CELL_FOLDER.fullmatch(folder.name)
    assert match is not None
    cell = (folder, folder.parent.parent.name, folder.parent.name, int(match["seed"]), match["config_id"])

    def item(what: str, status: str, files: Sequence[Path], **more: Any) -> Item:
        stats = [file.lstat() for file in files]
        age = time.time() - max(found.st_mtime for found in stats)
        return Item(*cell, what, status, tuple(files), sum(found.st_size for found in stats), max(0.0, age), **more)

    entries = sorted(path for path in folder.iterdir() if not path.is_symlink())
    for path in entries:
        if (found := _RESULT_FILE.fullmatch(path.name)) and _is_file(path):
            status, stale, key = _result_status(store, path)
            if ".stale" in path.name:
                yield item(found["world"], "stale", [path], keys=key)
                continue
            parts = [p for p in entries if (m := _RESULT_PARTS.fullmatch(p.name)) and m["world"] == found["world"]]
            yield item(found["world"], status, [path, *filter(_is_file, parts)], stale=stale, keys=key)
        elif _TRAINING.fullmatch(path.name) and _is_folder(path):
            files = [path / name for name in _TRAINING_FILES if _is_file(path / name)]
            if files:
                trained = all((path / name).exists() for name in _TRAINING_FILES[:2])
                status = "stale" if ".stale" in path.name else "trained" if trained else "unfinished"
                yield item("training", status, files, keys=_training_keys(path))


def _result_status(store: Store, path: Path) -> tuple[str, str, tuple[str, ...]]:
    """Return the status of a result, why it is stale, and the key of its training."""
    try:
        content = store.read(path)
    except CzslkitError:
        return "damaged", "", ()
    key = content.get("training_key")
    return content["status"], content.get("stale") or "", (key,) if key else ()


def _training_keys(folder: Path) -> tuple[str, ...]:
    """Return the keys of the training in a folder: of its trained method, and of its state."""
    keys: list[Any] = []
    with suppress(OSError, ValueError, AttributeError):
        keys.append(read_json(folder / METADATA_FILE).get("training_key"))
    with suppress(OSError, ValueError, AttributeError, struct.error):
        check_regular(folder / STATE_FILE)
        with (folder / STATE_FILE).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = parse_json(file.read(length)) if length <= JSON_LIMIT else {}
            keys.append(header.get("__metadata__", {}).get("key"))
    return tuple(dict.fromkeys(str(key) for key in keys if key))


def _remove_unfinished(root: Path, dry_run: bool) -> tuple[list[Path], int]:
    """Remove what killed processes left unfinished, also in cells that no process holds; return it and its bytes."""
    found, size = [], 0
    others = {folder for folder in (root, root / "cache", root / "checked") if _is_folder(folder) or folder == root}
    for folder in [*sorted(others), *_cell_folders(root)]:
        with ExitStack() as stack:
            if folder not in others and stack.enter_context(_lock(folder)):
                continue
            left = left_unfinished(folder, locked=folder not in others)
            size += sum(path.lstat().st_size for path in left)
            found += left
            if left and not dry_run:
                remove_unfinished(folder, locked=folder not in others)
                if folder not in others:
                    _remove_empty(folder)
    return found, size


def _cache_files(root: Path) -> list[Path]:
    folder = root / "cache"
    files = sorted(folder.iterdir()) if _is_folder(folder) else []
    return [path for path in files if _CACHE_FILE.fullmatch(path.name) and _is_file(path)]


def _print_to_stderr(line: str) -> None:
    print(printable(line), file=sys.stderr)
