"""TODO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError, CzslkitError
from ..method import METHODS
from ..report.expected import expected_problems
from .settings import SECTION_NAMES, parse_sections


def recipes(folder: str, method: str) -> list[Path]:
    """The recipe files of a method for a dataset, ``configs/<dataset>/<paper><year>_<method>.yaml``."""
    return sorted(p for p in (configs() / folder).glob("*.yaml") if p.stem.partition("_")[2] == method)


def configs() -> Path:
    """The folder of recipes: inside an installed package, or beside it in a checkout."""
    here = Path(__file__).parents[1]
    return here / "configs" if (here / "configs").is_dir() else here.parent / "configs"


def load_recipe(path: Path) -> dict[str, dict[str, Any]]:
    """The ``options``, ``train`` and ``eval`` of a recipe, and the numbers ``expected`` of it by world.

    Raises:
        ConfigError: not a recipe, or one that does not fit its method; every problem, with the file's name.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"{path}: cannot be read as YAML: {error}"]) from error
    known = ("method", "source", *SECTION_NAMES, "expected")
    if not isinstance(content, dict) or content.get("method") is None:
        raise ConfigError([f"{path}: a recipe names its method; expected {', '.join(known)}"])
    problems = [f"{key} is not part of a recipe; expected {', '.join(known)}" for key in content if key not in known]
    recipe = {key: {} if content.get(key) is None else content[key] for key in (*SECTION_NAMES, "expected")}
    method = str(content["method"])
    if method != path.stem.partition("_")[2]:
        problems.append(f"its method is {method!r}, its name says {path.stem.partition('_')[2]!r}")
    mappings = {key: values for key, values in recipe.items() if isinstance(values, dict)}
    problems += [f"{key} is {recipe[key]!r}, expected settings" for key in SECTION_NAMES if key not in mappings]
    problems += expected_problems(recipe["expected"])
    problems = [f"{path}: {problem}" for problem in problems]
    try:
        parse_sections(
            METHODS[method], mappings, {"options": f"{path}", "train": f"{path}: train", "eval": f"{path}: eval"}
        )
    except ConfigError as error:
        problems += error.problems
    except CzslkitError as error:
        problems.append(f"{path}: {error}")
    if problems:
        raise ConfigError(problems)
    return recipe
