"""What ``czslkit bench`` was asked for, kept in the folder of results: the order of tables, and the names in papers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from ..files import file_lock, write_text
from ..foreign_files import parse_json, read_regular
from ..json_digest import change_since_written, with_digest
from ..result_store import Result
from .paper_names import PaperName

ASKED_FILE = "bench.json"
_FORMAT = 2  # files of this format and of format 1, which has no digest, are read
_MOST_BYTES = 1 << 20  # a larger file was not written by a bench
_KINDS = ("method", "dataset")
Row: TypeAlias = tuple[str, str, str]  # dataset, method and config_id


@dataclass(frozen=True)
class Command:
    """The grid of cells that one command asked for."""

    rows: tuple[Row, ...]  # in the order asked for
    seeds: tuple[int, ...]
    worlds: tuple[str, ...]

    def asks_for(self, cell: Mapping[str, Any]) -> bool:
        """Return whether a cell is in the grid."""
        row = (cell["dataset"], cell["method"], cell["config_id"])
        return row in self._rows and cell["seed"] in self.seeds and cell["world"] in self.worlds

    def covers(self, other: Command) -> bool:
        """Return whether all cells of another command are in the grid."""
        return self._rows >= other._rows and {*self.seeds} >= {*other.seeds} and {*self.worlds} >= {*other.worlds}

    @cached_property
    def _rows(self) -> frozenset[Row]:
        return frozenset(self.rows)


@dataclass(frozen=True)
class Asked:
    """The commands that were run in a folder of results.

    Attributes:
        commands: in the order of asking; one that asks for all cells of earlier ones takes the place of the first.
        last: the command that was run last.
        names: names in papers by ``"method"`` or ``"dataset"`` and registered name.
        labels: the label that a user gave a row; the one that was given last counts.
        methods, datasets: names that come first, before those of the commands.
        is_known: False if there is a record that cannot be read.
    """

    commands: tuple[Command, ...] = ()
    last: Command | None = None
    names: Mapping[str, Mapping[str, PaperName]] = field(default_factory=dict)
    labels: Mapping[Row, str] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    is_known: bool = True

    def then(
        self,
        command: Command,
        names: Mapping[str, Mapping[str, PaperName]],
        labels: Mapping[Row, str] | None = None,
    ) -> Asked:
        """Return what is known after another command."""
        covered = [i for i, earlier in enumerate(self.commands) if command.covers(earlier)]
        commands = [earlier for i, earlier in enumerate(self.commands) if i not in covered]
        commands.insert(covered[0] if covered else len(commands), command)
        merged = {kind: {**self.names.get(kind, {}), **names.get(kind, {})} for kind in _KINDS}
        labels = {**self.labels, **(labels or {})}
        return replace(self, commands=tuple(commands), last=command, names=merged, labels=labels, is_known=True)

    def asks_for(self, cell: Mapping[str, Any]) -> bool:
        """Return whether one of the commands asked for a cell."""
        return any(command.asks_for(cell) for command in self.commands)

    def missing(self, results: Iterable[Result]) -> list[str]:
        """Return a text for each method and dataset with cells that the last command asked for and that lack a result.

        Methods and datasets that are not selected do not count.
        """
        if self.last is None:
            return []
        found = {
            (c["dataset"], c["method"], c["config_id"], c["seed"], c["world"]) for c in (r["cell"] for r in results)
        }
        asked: Counter[str] = Counter()
        lacking: Counter[str] = Counter()
        for dataset, method, config in self.last.rows:
            if (self.methods and method not in self.methods) or (self.datasets and dataset not in self.datasets):
                continue
            for seed, world in product(self.last.seeds, self.last.worlds):
                asked[f"{method} on {dataset}"] += 1
                lacking[f"{method} on {dataset}"] += (dataset, method, config, seed, world) not in found
        return [f"{name} ({count} of {asked[name]} cells)" for name, count in lacking.items() if count]

    def is_left_out(self, result: Result) -> bool:
        """Return whether a cell failed and the last command did not ask for it, as after a mistake in a command."""
        return bool(self.last and result["status"] == "failed" and not self.last.asks_for(result["cell"]))

    def name(self, kind: str, name: str) -> PaperName:
        """Return how papers write a method or dataset; its registered name if no command has recorded it."""
        return self.names.get(kind, {}).get(name) or PaperName(name)

    def sorted(self, results: Iterable[Result]) -> list[Result]:
        """Return results in the order asked for: by dataset, method, configuration, seed and world."""

        def key(result: Result) -> tuple[Any, ...]:
            cell = result["cell"]
            dataset, world = self._place("dataset", cell["dataset"]), self._place("world", cell["world"])
            return dataset, *self.row_place(cell), cell["seed"], world

        return sorted(results, key=key)

    def row_place(self, cell: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the place of a cell's row: by method, then by configuration."""
        return self._place("method", cell["method"]), self._place("config", cell["config_id"])

    def _place(self, kind: str, name: str) -> tuple[int, str]:
        """Return the place of a name; names that no command has are last and in alphabetical order."""
        places = self._places[kind]
        return places.get(name, len(places)), name

    @cached_property
    def _places(self) -> dict[str, dict[str, int]]:
        rows = [row for command in self.commands for row in command.rows]
        orders: dict[str, Sequence[str]] = {
            "dataset": [*self.datasets, *(dataset for dataset, _, _ in rows)],
            "method": [*self.methods, *(method for _, method, _ in rows)],
            "config": [config for _, _, config in rows],
            "world": [world for command in self.commands for world in command.worlds],
        }
        return {kind: {name: i for i, name in enumerate(dict.fromkeys(names))} for kind, names in orders.items()}


def read_asked(runs: Path, log: Callable[[str], None]) -> Asked:
    """Return what the commands in a folder of results asked for, nothing if there is no usable record of them.

    Args:
        runs: the folder of results.
        log: called with a line if the record is damaged.
    """
    file = runs / ASKED_FILE
    try:
        return _parsed(read_regular(file, _MOST_BYTES))
    except FileNotFoundError:
        return Asked()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        log(f"the order in which cells were asked for is not known: {file} cannot be used: {error}"[:300])
        return Asked(is_known=False)


def remember(
    runs: Path,
    command: Command,
    names: Mapping[str, Mapping[str, PaperName]],
    log: Callable[[str], None],
    labels: Mapping[Row, str] | None = None,
) -> Asked:
    """Add a command to the record in a folder of results and return the command with its names.

    Args:
        runs: the folder of results.
        command: what is asked for now.
        names: names in papers by ``"method"`` or ``"dataset"`` and registered name.
        log: called with a line if the record cannot be written, which stops no benchmark.
        labels: the labels of its rows that have one.
    """
    try:
        with file_lock(runs / f".{ASKED_FILE}.lock", log):
            asked = read_asked(runs, log).then(command, names, labels)
            write_text(runs / ASKED_FILE, with_digest(_content(asked), separators=(",", ":")))
    except OSError as error:
        log(f"the order of this command cannot be kept in {runs / ASKED_FILE}: {error}")
    return Asked().then(command, names, labels)


def _content(asked: Asked) -> dict[str, Any]:
    assert asked.last is not None
    return {
        "format": _FORMAT,
        "commands": [asdict(command) for command in asked.commands],
        "last": asked.commands.index(asked.last),
        "names": {kind: {n: asdict(name) for n, name in names.items()} for kind, names in asked.names.items()},
        "labels": [[*row, label] for row, label in asked.labels.items()],
    }


def _parsed(file: bytes) -> Asked:
    """Return the record in the bytes of a file.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError: it is not a record.
    """
    content = parse_json(file)
    if content["format"] not in (1, _FORMAT):
        raise ValueError(f"it has format {content['format']!r}, this czslkit reads formats up to {_FORMAT}")
    if change := change_since_written(file, required="digest" in content or content["format"] == _FORMAT):
        raise ValueError(f"it {change}")
    commands = tuple(
        Command(
            tuple((_text(dataset), _text(method), _text(config)) for dataset, method, config in command["rows"]),
            tuple(map(int, command["seeds"])),
            tuple(map(_text, command["worlds"])),
        )
        for command in content["commands"]
    )
    names = {
        kind: {
            _text(n): PaperName(_text(name["display_name"]), _text(name["citation"]))
            for n, name in content["names"].get(kind, {}).items()
        }
        for kind in _KINDS
    }
    labels = {
        (_text(dataset), _text(method), _text(config)): _text(label)
        for dataset, method, config, label in content.get("labels", ())
    }
    return Asked(commands, commands[int(content["last"])], names, labels)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a text")
    return value
