"""A suite: a YAML file that holds a whole comparison. It is data: reading it runs no code that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from ..data.dataset_folders import canonical, find_folder
from ..data.published import BENCHMARKS
from ..errors import ConfigError, CzslkitError, did_you_mean, shortened
from ..foreign_files import YAML_LIMIT, read_text
from ..method import METHODS
from ..metrics.names import WORLDS
from ..options import user_path
from ..seeds import parse_seeds, seed_problems
from ..yaml_files import yaml_problem
from .grid import Grid, parse_values
from .recipes import PRESETS
from .variant import Variant
from .yaml_values import load_yaml_lines

_KEYS = ("methods", "datasets", "worlds", "seeds", "preset", "set")
_ENTRY_KEYS = ("method", "label", "set", "recipe", "checkpoint")
_LONGEST_LABEL = 60  # characters
Place: TypeAlias = tuple[str | int, ...]  # keys and positions that lead to a part of the file


@dataclass(frozen=True)
class Suite:
    """A comparison: what ``czslkit bench`` takes, apart from what belongs to one machine.

    Attributes:
        methods: None if they are those of checkpoints.
        settings: settings of all methods, which those of a variant override; the variants have them, too.
    """

    methods: tuple[Variant, ...] | None = None
    datasets: tuple[str, ...] = ("demo",)
    worlds: tuple[str, ...] = WORLDS
    seeds: tuple[int, ...] = (0,)
    preset: str | None = None
    settings: Mapping[str, Any] | None = None

    def choose(self, methods: Sequence[str | Variant] | str | None) -> Sequence[str | Variant] | str | None:
        """Return the variants of some methods, and the methods that it lacks with its settings of all methods.

        Args:
            methods: as :func:`czslkit.bench` takes them; None chooses every variant.
        """
        if self.methods is None or methods is None:
            return self.methods if methods is None else methods
        found: list[str | Variant] = []
        for item in methods.split(",") if isinstance(methods, str) else methods:
            if isinstance(item, Variant):
                found.append(item)
                continue
            for name in METHODS if item.strip() == "all" else [item.strip()]:
                own = [variant for variant in self.methods if name in (variant.method, variant.label)]
                found += own or [Variant(name, self._settings_of(name))]
        return found

    def _settings_of(self, method: str) -> dict[str, Any]:
        """Return the settings of all methods for a method that has no variant, without those of other methods."""
        others = {variant.method for variant in self.methods or ()} - {method}
        return {key: value for key, value in (self.settings or {}).items() if key.partition(".")[0] not in others}


def load_suite(path: str | Path, data: str | Path | None = None) -> Suite:
    """Read a suite; docs/suites.md describes the file.

    The settings of methods are checked when they are used, by :func:`czslkit.bench`.

    Args:
        path: the file.
        data: folder of the datasets, whose subfolders are names of datasets; ``$CZSLKIT_DATA`` or ``./data`` if None.

    Raises:
        ConfigError: the file cannot be read, or keys, names or values in it are wrong; the message lists every problem
            with its line.
    """
    suite, problems = read_suite(path, data)
    if problems:
        raise ConfigError(problems)
    return suite


def read_suite(path: str | Path, data: str | Path | None = None) -> tuple[Suite, tuple[str, ...]]:
    """Return what is right in a suite, and a message for everything that is wrong; see :func:`load_suite`.

    Raises:
        ConfigError: the file cannot be read, or is not a mapping.
    """
    file = user_path(path)
    try:
        content, lines = load_yaml_lines(read_text(file, YAML_LIMIT))
    except FileNotFoundError:
        known = "expected a suite, a YAML file that czslkit init writes; methods are given as --methods NAME"
        raise ConfigError([f"there is no file {file}; {known}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"{file}, {yaml_problem(error)}"]) from error
    except (OSError, ValueError) as error:
        raise ConfigError([f"{file} cannot be read as YAML: {error}"]) from error
    if not isinstance(content, dict):
        raise ConfigError([f"{file} is {shortened(content)}, expected a suite with {', '.join(_KEYS)}"])
    reader = _Reader(file, lines)
    suite = reader.suite(content, data)
    return suite, tuple(f"{reader.place(path)}: {problem}" for path, problem in reader.problems_by_line())


class _Reader:
    """Turns the content of a file into a suite, and collects what is wrong with it."""

    def __init__(self, file: Path, lines: Mapping[Place, int]) -> None:
        self._file, self._lines = file, lines
        self._problems: list[tuple[Place, str]] = []

    def problems_by_line(self) -> list[tuple[Place, str]]:
        """Return what is wrong, each with the keys and positions to its place, in the order of the file."""
        return sorted(self._problems, key=lambda problem: self._line(problem[0]))

    def suite(self, content: Mapping[Any, Any], data: str | Path | None) -> Suite:
        """Return the suite, in which defaults take the place of what is wrong."""
        self._check_keys(content, _KEYS, (), "a suite")
        shared = self._settings(content.get("set"), ("set",))
        preset = content.get("preset")
        if preset is not None and preset not in PRESETS:
            self._add(("preset",), f"no preset named {preset!r}.{_known(preset, PRESETS)}")
            preset = None
        given: dict[str, Any] = {}
        for key, check in (("datasets", _dataset_check(data)), ("worlds", _check_world)):
            if names := self._names(content.get(key), (key,), check):
                given[key] = names
        if seeds := self._seeds(content.get("seeds")):
            given["seeds"] = seeds
        return Suite(self._methods(content.get("methods"), shared), preset=preset, settings=shared, **given)

    def _methods(self, entries: Any, shared: Mapping[str, Any]) -> tuple[Variant, ...]:
        if not isinstance(entries, list) or not entries:
            found = "no methods" if entries is None else f"methods is {shortened(entries)}"
            self._add(("methods",), f"{found}, expected a list with a method in each line, such as '- csp'")
            return ()
        parted: list[tuple[Place, Mapping[Any, Any]]] = []
        for i, entry in enumerate(entries):
            names = METHODS if entry == "all" else [entry]
            parted += [(("methods", i), entry if isinstance(entry, dict) else {"method": name}) for name in names]
        methods = [entry.get("method") for _, entry in parted]
        variants: list[Variant] = []
        places: dict[str, str] = {}
        for path, entry in parted:
            variant = self._variant(entry, path, shared, methods)
            if variant is None:
                continue
            if variant.label in places:
                first = places[variant.label]
                self._add((*path, "label"), f"label {variant.label!r} is given twice, first in {first}")
            if variant.label:
                places[variant.label] = variant.places[""]
            variants.append(variant)
        return tuple(variants)

    def _variant(
        self, entry: Mapping[Any, Any], path: Place, shared: Mapping[str, Any], methods: Sequence[Any]
    ) -> Variant | None:
        """Return the method of one entry of the list; None if it has no known method."""
        self._check_keys(entry, _ENTRY_KEYS, path, "a method in a suite")
        method = entry.get("method")
        if not isinstance(method, str):
            self._add(path, f"method is {shortened(method)}, expected the name of a method, such as 'method: csp'")
            return None
        try:
            METHODS[method]
        except CzslkitError as error:
            self._add((*path, "method"), str(error))
            return None
        own = self._settings(entry.get("set"), (*path, "set"))
        for key in own:
            first, dot, rest = key.partition(".")
            if dot and first in methods:
                self._add(
                    (*path, "set", key), f"{key} has the name of a method, expected {rest} in an entry of {method}"
                )
            if key.startswith("train.") and entry.get("checkpoint") is not None:
                self._add((*path, "set", key), f"{key} does nothing: a method of a checkpoint is not trained")
        general = {key: value for key, value in shared.items() if key.partition(".")[0] not in methods}
        special = {key: value for key, value in shared.items() if key.partition(".")[0] == method}
        special = {key.removeprefix(f"{method}."): value for key, value in special.items()}
        places = {"": self.place(path)}
        places |= {key.removeprefix(f"{method}."): self.place(("set", key)) for key in shared}
        places |= {key: self.place((*path, "set", key)) for key in own}
        recipe = self._path(entry, "recipe", path)
        checkpoint = self._path(entry, "checkpoint", path)
        label = self._label(entry.get("label"), path)
        return Variant(method, {**general, **special, **own}, label, recipe, checkpoint, places)

    def _label(self, label: Any, path: Place) -> str:
        if label is None:
            return ""
        text = str(label) if isinstance(label, (str, int, float)) and not isinstance(label, bool) else ""
        if not text.strip() or not text.isprintable() or len(text) > _LONGEST_LABEL:
            expected = f"a text in one line with at most {_LONGEST_LABEL} characters"
            self._add((*path, "label"), f"label is {shortened(label)}, expected {expected}")
            return ""
        return text.strip()

    def _path(self, entry: Mapping[Any, Any], key: str, path: Place) -> Path | None:
        value = entry.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            self._add((*path, key), f"{key} is {shortened(value)}, expected a path")
            return None
        return None if value is None else user_path(value)

    def _settings(self, settings: Any, path: Place) -> dict[str, Any]:
        """Return settings by key; a text with several values becomes a grid, as on the command line."""
        if settings is None:
            return {}
        if not isinstance(settings, dict):
            self._add(path, f"set is {shortened(settings)}, expected settings such as 'train.epochs: 3'")
            return {}
        found = {}
        for key, value in settings.items():
            if isinstance(value, dict):
                inner = next(iter(value), "KEY")
                self._add((*path, str(key)), f"{key} has keys below it, expected one line for each: {key}.{inner}: ...")
                continue
            try:
                several = parse_values(value) if isinstance(value, str) else None
            except (ValueError, yaml.YAMLError):
                several = None
            found[str(key)] = several if isinstance(several, Grid) else value
        return found

    def _names(self, names: Any, path: tuple[str, ...], check: Callable[[str], None]) -> tuple[str, ...]:
        """Return the names in a list, or in a text with commas, that pass a check."""
        if names is None:
            return ()
        items = names.split(",") if isinstance(names, str) else names
        if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
            self._add(
                path, f"{path[0]} is {shortened(names)}, expected a list of names, such as [{_EXAMPLES[path[0]]}]"
            )
            return ()
        found = []
        for i, item in enumerate(items):
            try:
                check(item.strip())
                found.append(item.strip())
            except CzslkitError as error:
                self._add((*path, i), str(error))
        return tuple(found)

    def _seeds(self, seeds: Any) -> tuple[int, ...]:
        if seeds is None:
            return ()
        try:
            found = parse_seeds(seeds) if isinstance(seeds, str) else seeds if isinstance(seeds, list) else [seeds]
            wrong = seed_problems(*found) if found else ["no seed"]
        except ValueError as error:
            found, wrong = [], [str(error)]
        if wrong:
            self._add(("seeds",), f"{wrong[0]}, expected a list such as [0, 1, 2], or a range such as 0-2")
            return ()
        return tuple(found)

    def _check_keys(self, content: Mapping[Any, Any], known: Sequence[str], path: Place, what: str) -> None:
        for key in content:
            if key not in known:
                hint = _known(key, known)
                self._add((*path, str(key)), f"{str(key)[:100]} is not part of {what}.{hint}")

    def _add(self, path: Place, problem: str) -> None:
        self._problems.append((path, problem))

    def place(self, path: Place) -> str:
        """Return the file and the line of a part of it."""
        return f"{self._file}, line {self._line(path)}"

    def _line(self, path: Place) -> int:
        """Return the line of a part, or of the nearest part around it whose line is known."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)


_EXAMPLES = {"datasets": "ut-zappos, cgqa", "worlds": "closed, open"}


def _known(name: Any, known: Iterable[str]) -> str:
    """Return a hint with similar names, and every known name."""
    return f"{did_you_mean(str(name), known)} Known: {', '.join(known)}."


def _check_world(name: str) -> None:
    """Check the name of a world.

    Raises:
        ConfigError: there is no such world.
    """
    if name not in WORLDS:
        raise ConfigError([f"no world named {name!r}.{_known(name, WORLDS)}"])


def _dataset_check(data: str | Path | None) -> Callable[[str], None]:
    """Return a function that raises an error for a name that is neither a dataset nor a folder in ``data``."""

    def check(name: str) -> None:
        for one in BENCHMARKS if name == "all" else [canonical(name)]:
            find_folder(one, data)

    return check
