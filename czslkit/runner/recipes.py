"""The recipe files of czslkit and of plugins: settings of a method on a dataset, with the published numbers."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ..entry_points import is_builtin
from ..errors import ConfigError, CzslkitError, shortened
from ..foreign_files import YAML_LIMIT, read_text
from ..method import METHODS, Method
from ..options import user_path
from ..report.expected import expected_problems
from .settings import SECTION_NAMES, parse_sections
from .yaml_values import load_yaml

PRESETS = ("demo", "paper")


def recipes(folder: str, method: str) -> list[Path]:
    """Return the recipe files of a method for a dataset, ``configs/<dataset>/<paper><year>_<method>.yaml``.

    Each folder ``configs`` of :func:`recipe_folders` is searched.
    """
    files = (file for home in recipe_folders(METHODS[method]) for file in (home / folder).glob("*.yaml"))
    return sorted(file for file in files if file.stem.partition("_")[2] == method)


def recipe_folders(cls: type[Method]) -> list[Path]:
    """Return the folders of recipes that belong to a method; they need not exist.

    They are czslkit's own folder for its own methods, the folder ``configs`` in the top-level package of another
    method, and the folder ``configs`` next to the file of a method that is not in a package.
    """
    if is_builtin(cls.__module__):
        return [configs()]
    top = sys.modules.get(cls.__module__.partition(".")[0])
    file = getattr(top, "__file__", None)
    homes = getattr(top, "__path__", [Path(file).parent] if file else [])
    return [Path(home) / "configs" for home in homes]


def configs() -> Path:
    """Return the folder of recipes: inside an installed package, or next to the package in a checkout."""
    package = Path(__file__).parents[1]
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def recipe_for(method: str, dataset: str, preset: str | None) -> Path | None:
    """Return the recipe of a method on a dataset, None if the method uses its default settings.

    Without a preset, only the demo world uses recipes.

    Raises:
        ConfigError: there are several recipes.
    """
    if preset is None and dataset != "demo":
        return None
    found = recipes(dataset if preset == "paper" else "demo", method)
    if len(found) > 1:
        names = ", ".join(map(str, found))
        raise ConfigError([f"{method} has {len(found)} recipes for {dataset}: {names}. Choose one with --recipe."])
    return found[0] if found else None


def shared_evaluation(dataset: str) -> dict[str, Any]:
    """Return the evaluation settings that have the same value in most of czslkit's recipes for a dataset.

    If most of them have a threshold, but not the same, the threshold is searched.

    >>> shared_evaluation("cgqa")
    {'bins': 'original', 'feasibility': 'file', 'infeasible': 'original', 'threshold': 'search'}
    """
    settings = [load_recipe(file)["eval"] for file in sorted((configs() / dataset).glob("*.yaml"))]
    shared = {}
    for key in sorted({key for one in settings for key in one}):
        (value, count), *_ = Counter(one.get(key) for one in settings).most_common()
        if value is not None and 2 * count > len(settings):
            shared[key] = value
    if 2 * sum(one.get("threshold") is not None for one in settings) > len(settings):
        shared.setdefault("threshold", "search")
    return shared


def parse_recipe_files(texts: Iterable[str]) -> dict[str, Path]:
    """Read ``METHOD=FILE.yaml`` texts into a mapping.

    Raises:
        ConfigError: some texts have another form, or name a method again; the message lists all of them.

    >>> parse_recipe_files(["csp=my/csp.yaml"])["csp"].name
    'csp.yaml'
    """
    found: dict[str, Path] = {}
    problems = []
    for text in texts:
        method, _, file = (part.strip() for part in text.partition("="))
        if not (method and file):
            problems.append(f"{text!r} is not METHOD=FILE.yaml")
        elif method in found:
            problems.append(f"{method} has two recipes, {found[method]} and {file}: give one")
        else:
            found[method] = user_path(file)
    if problems:
        raise ConfigError(problems)
    return found


def load_recipe(path: Path, given_for: str | None = None) -> dict[str, dict[str, Any]]:
    """Read the ``options``, ``train`` and ``eval`` of a recipe, and its ``expected`` numbers by world.

    Args:
        given_for: the method that the recipe was given for; None for the method in the name of the file.

    Raises:
        ConfigError: the file is not a recipe, or does not fit its method; the message lists every problem.
    """
    try:
        content = load_yaml(read_text(path, YAML_LIMIT))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError([f"{path}: cannot be read as YAML: {error}"]) from error
    known = ("method", "source", *SECTION_NAMES, "expected")
    if not isinstance(content, dict) or content.get("method") is None:
        raise ConfigError([f"{path}: the recipe has no method; expected {', '.join(known)}"])
    recipe = {key: {} if content.get(key) is None else content[key] for key in (*SECTION_NAMES, "expected")}
    sections = {key: recipe[key] for key in SECTION_NAMES if isinstance(recipe[key], dict)}
    method, named = str(content["method"])[:100], given_for or path.stem.partition("_")[2]
    named_by = "it was given for" if given_for else "its file name says"
    problems = [
        f"{str(key)[:100]} is not part of a recipe; expected {', '.join(known)}" for key in content if key not in known
    ]
    problems += [f"its method is {method!r}, but {named_by} {named!r}"] if method != named else []
    problems += [
        f"{key} is {shortened(recipe[key])}, expected settings" for key in SECTION_NAMES if key not in sections
    ]
    problems += expected_problems(recipe["expected"])
    problems = [f"{path}: {problem}" for problem in problems]
    try:
        where = {"options": f"{path}", "train": f"{path}: train", "eval": f"{path}: eval"}
        parse_sections(METHODS[method], sections, where)
    except ConfigError as error:
        problems += error.problems
    except CzslkitError as error:
        problems.append(f"{path}: {error}")
    if problems:
        raise ConfigError(problems)
    return recipe
