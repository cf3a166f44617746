"""The recipe files of ``configs/``: settings of a method on a dataset, with the numbers published for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError, CzslkitError
from ..method import METHODS
from ..report.expected import expected_problems
from .settings import SECTION_NAMES, parse_sections

PRESETS = ("demo", "paper")


def recipes(folder: str, method: str) -> list[Path]:
    """Return the recipe files of a method for a dataset, ``configs/<dataset>/<paper><year>_<method>.yaml``."""
    return sorted(p for p in (configs() / folder).glob("*.yaml") if p.stem.partition("_")[2] == method)


def configs() -> Path:
    """Return the folder of recipes: inside an installed package, or next to the package in a checkout."""
    package = Path(__file__).parents[1]
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def recipe_for(method: str, dataset: str, preset: str | None) -> Path | None:
    """Return the recipe of a method on a dataset, None if the method uses its default settings.

    Without a preset, only the demo world uses recipes. A method without a demo recipe uses its defaults.

    Raises:
        ConfigError: the number of recipes is not the one that the preset needs.
    """
    if preset is None and dataset != "demo":
        return None
    folder = dataset if preset == "paper" else "demo"
    found = recipes(folder, method)
    if len(found) == 1:
        return found[0]
    if preset != "paper" and not found:
        return None
    raise ConfigError(
        [
            f"preset {preset!r} needs one recipe of {method} for {dataset}, "
            f"configs/{folder}/*_{method}.yaml; found {len(found)}"
        ]
    )


def load_recipe(path: Path) -> dict[str, dict[str, Any]]:
    """Read the ``options``, ``train`` and ``eval`` of a recipe, and its ``expected`` numbers by world.

    Raises:
        ConfigError: the file is not a recipe, or does not fit its method; the message lists every problem.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"{path}: cannot be read as YAML: {error}"]) from error
    known = ("method", "source", *SECTION_NAMES, "expected")
    if not isinstance(content, dict) or content.get("method") is None:
        raise ConfigError([f"{path}: the recipe has no method; expected {', '.join(known)}"])
    recipe = {key: {} if content.get(key) is None else content[key] for key in (*SECTION_NAMES, "expected")}
    sections = {key: recipe[key] for key in SECTION_NAMES if isinstance(recipe[key], dict)}
    method, named = str(content["method"]), path.stem.partition("_")[2]
    problems = [f"{key} is not part of a recipe; expected {', '.join(known)}" for key in content if key not in known]
    problems += [f"its method is {method!r}, but its file name says {named!r}"] if method != named else []
    problems += [f"{key} is {recipe[key]!r}, expected settings" for key in SECTION_NAMES if key not in sections]
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
