"""What a folder of results holds, and its cleaning. Only files that czslkit wrote are removed, and none outside."""

from __future__ import annotations

import re
import struct
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigError, CzslkitError, LockedError
from .files import file_lock
from .foreign_files import JSON_LIMIT, check_regular, parse_json, read_json
from .options import user_path
from .report.asked import Asked, read_asked
from .result_store import Store

WORLDS = ("closed", "open")
_CELL_FOLDER = re.compile(r"seed(?P<seed>\d+)-(?P<config_id>[\w+-]+)")
_RESULT_FILE = re.compile(r"(?P<world>closed|open)\.(stale(-\d+)?\.)?json")
_RESULT_PARTS = re.compile(r"(?P<world>closed|open)\.(curve\.csv|images\.npz|details\.json|error\.txt|resamples)")
_TRAINING = re.compile(r"training(\.stale(-\d+)?)?")
_TRAINING_FILES = ("method.json", "weights.safetensors", "last.safetensors", "backbone.safetensors")
_UNFINISHED = re.compile(r"\..+\.(tmp|partial)|\.tmp\w{6}")
_CACHE_FILE = re.compile(r"(features|images)-.+\.(safetensors|npy)")
_ABANDONED = 3600.0  # seconds after which an unfinished file belongs to no living process, where no lock tells


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

    A result must be named by every part of the selection that is given. The cell of a running process stays.

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
            raise ConfigError([f"{runs} has no {label} {', '.join(unknown)}. Known: {', '.join(known) or 'none'}."])

    def is_selected(item: Item) -> bool:
        in_parts = all(getattr(item, name) in chosen for name, chosen in given.items() if name != "what")
        in_world = not worlds or item.what in worlds
        return in_parts and in_world and (not failed or item.status == "failed")

    chosen = [item for item in items if item.what in WORLDS and is_selected(item)]
    left = {item.folder for item in items if item.what in WORLDS and item not in chosen}
    folders = {item.folder for item in chosen} - left
    if not (worlds or failed):  # trainings without a result
        folders |= {item.folder for item in items if is_selected(item)} - left
    chosen += [item for item in items if item.what not in WORLDS and item.folder in folders]
    return _remove(chosen, dry_run)


def prune_runs(runs: str | Path, *, cache: bool = False, dry_run: bool = False) -> Cleaning:
    """Remove stale results and trainings, trainings that no result refers to, and unfinished files of killed processes.

    A training without a result stays if a command of ``czslkit bench`` asked for its cell, since it can be resumed.

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
    chosen, kept = [], []
    for item in items:
        if item.status == "stale":
            chosen.append(item)
        elif item.what not in WORLDS and not used.intersection(item.keys):
            if _can_be_resumed(item, asked):
                kept.append(f"{item}: no result refers to it, but czslkit bench was asked for its cell")
            else:
                chosen.append(item)
    done = _remove(chosen, dry_run)
    files = [*_unfinished(root), *(_cache_files(root) if cache else ())]
    size = sum(file.lstat().st_size for file in files)
    for file in files:
        if not dry_run:
            file.unlink(missing_ok=True)
    return Cleaning((*done.removed, *map(str, files)), done.size + size, (*done.kept, *kept))


def _can_be_resumed(item: Item, asked: Asked) -> bool:
    cell = {"dataset": item.dataset, "method": item.method, "seed": item.seed, "config_id": item.config_id}
    return any(asked.asks_for({**cell, "world": world}) for world in WORLDS)


def _remove(items: Sequence[Item], dry_run: bool) -> Cleaning:
    """Remove items, each cell under its lock; a cell that another process holds is kept and named."""
    by_folder: dict[Path, list[Item]] = {}
    for item in items:
        by_folder.setdefault(item.folder, []).append(item)
    removed: list[str] = []
    kept: list[str] = []
    size = 0
    for folder, together in by_folder.items():
        with _lock(folder) as locked:
            if not locked:
                kept += [f"{item}: a process holds {folder / '.lock'}" for item in together]
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
def _lock(folder: Path) -> Iterator[bool]:
    """Hold the lock of a cell within the ``with`` block, if no other process holds it; give whether it is held."""
    if not (folder / ".lock").exists():
        yield True
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(folder / ".lock", _print_to_stderr, wait=False))
        except LockedError:
            yield False
            return
        yield True


def _remove_empty(folder: Path) -> list[str]:
    """Remove the folders of a cell that are empty; return a text for each file that czslkit did not write."""
    for training in folder.iterdir():
        if _TRAINING.fullmatch(training.name) and _is_folder(training) and not any(training.iterdir()):
            training.rmdir()
    rest = [path for path in folder.iterdir() if path.name != ".lock"]
    if not rest:
        (folder / ".lock").unlink(missing_ok=True)
        for empty in (folder, folder.parent, folder.parent.parent):
            try:
                empty.rmdir()
            except OSError:  # there are other cells
                break
    known = (_RESULT_FILE, _RESULT_PARTS, _TRAINING, _UNFINISHED)
    return [
        f"{path}: czslkit did not write it" for path in rest if not any(kind.fullmatch(path.name) for kind in known)
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
            status, stale, key = _result_status(path)
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


def _result_status(path: Path) -> tuple[str, str, tuple[str, ...]]:
    """Return the status of a result, why it is stale, and the key of its training."""
    try:
        content = read_json(path)
        key = content.get("training_key")
        return str(content["status"]), str(content.get("stale") or ""), (str(key),) if key else ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "damaged", "", ()


def _training_keys(folder: Path) -> tuple[str, ...]:
    """Return the keys of the training in a folder: of its trained method, and of its state."""
    keys: list[Any] = []
    with suppress(OSError, ValueError, AttributeError):
        keys.append(read_json(folder / "method.json").get("training_key"))
    with suppress(OSError, ValueError, struct.error, AttributeError):
        check_regular(state := folder / "last.safetensors")
        with state.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = parse_json(file.read(length)) if length <= JSON_LIMIT else {}
            keys.append(header.get("__metadata__", {}).get("key"))
    return tuple(dict.fromkeys(str(key) for key in keys if key))


def _unfinished(root: Path) -> list[Path]:
    """Return files that killed processes have left unfinished: in no cell that is locked, and not written lately."""
    found = []
    folders = [root, *(path for path in (root / "cache", root / "checked") if _is_folder(path))]
    for cell in _cell_folders(root):
        with _lock(cell) as locked:
            folders += [cell, *(path for path in _folders(cell) if _TRAINING.fullmatch(path.name))] if locked else []
    for folder in folders:
        files = [path for path in folder.iterdir() if _UNFINISHED.fullmatch(path.name) and _is_file(path)]
        found += [path for path in files if time.time() - path.lstat().st_mtime > _ABANDONED]
    return sorted(found)


def _cache_files(root: Path) -> list[Path]:
    folder = root / "cache"
    files = sorted(folder.iterdir()) if _is_folder(folder) else []
    return [path for path in files if _CACHE_FILE.fullmatch(path.name) and _is_file(path)]


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
