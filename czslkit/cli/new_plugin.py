"""``czslkit new-plugin``: write the package of a new method."""

from __future__ import annotations

import argparse
import keyword
import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import ConfigError, CzslkitError
from ..files import write_text
from ..registry import RESERVED
from .arguments import Commands, expanded_path
from .registered_names import registered_names

LONGEST_NAME = 30  # largest number of characters of a name, with which the lines of the package are not too long
_TEMPLATES = Path(__file__).parent / "plugin_template"
#: Path of each file in the new package -> file in the folder of templates; words between two @ are replaced in both.
_FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    ".github/workflows/ci.yml": "ci.yml.txt",
    "src/@package@/__init__.py": "package.py.txt",
    "src/@package@/@module@.py": "method.py.txt",
    "src/@package@/configs/demo/own_@name@.yaml": "recipe.yaml.txt",
    "tests/test_@module@.py": "test.py.txt",
}


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "new-plugin",
        help="write the package of a new method",
        description="Write a package with a small method that works, a recipe, a test and a CI workflow. Change the "
        "method into yours; every line of it is explained.",
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        help="name of the method: lower-case letters and digits, in words joined by - or _",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=expanded_path,
        help="folder to write; it must not exist (default: ./czsl-NAME)",
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Write the package, print what to do next and return the exit status."""
    words = _words(args.name)
    folder: Path = args.out or Path(words["dist"])
    write_package(folder, words)
    print(f"{folder} has the method {args.name} in src/{words['package']}/{words['module']}.py. Next:")
    print(f'  cd {folder} && pip install -e ".[dev]"\n  pytest\n  czslkit bench --methods csp,{args.name}')
    return 0


def write_package(folder: Path, words: Mapping[str, str]) -> None:
    """Write the package of a method.

    Args:
        folder: folder of the package.
        words: words that replace ``@key@`` in the templates, by key.

    Raises:
        CzslkitError: the folder exists.
    """
    if folder.exists():
        raise CzslkitError(f"{folder} exists: name a new folder with --out")
    for path, template in _FILES.items():
        file = folder / _filled(path, words)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, _filled((_TEMPLATES / template).read_text(encoding="utf-8"), words))


def _words(name: str) -> dict[str, str]:
    """Return the names in the package of a method, by the key that stands for them in templates.

    Raises:
        ConfigError: the name cannot be the name of a method, a module and a class, or is taken.

    >>> _words("graph-prompt")["package"], _words("graph-prompt")["Class"]
    ('czsl_graph_prompt', 'GraphPrompt')
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name) or len(name) > LONGEST_NAME:
        raise ConfigError(
            [
                f"{name!r} cannot be the name of a method: expected up to {LONGEST_NAME} lower-case letters and "
                "digits, in words joined by - or _, such as graph-prompt"
            ]
        )
    if name in RESERVED:
        raise ConfigError([f"{name} is a section of settings, as in {name}.batch_size: choose another name"])
    module, cls = name.replace("-", "_"), "".join(word.capitalize() for word in re.split("[-_]", name))
    template = (_TEMPLATES / _FILES["src/@package@/@module@.py"]).read_text(encoding="utf-8")
    if keyword.iskeyword(module) or re.search(rf"\b{cls}\b", template):
        raise ConfigError([f"{name} is a name that the code of the package uses: choose another name"])
    taken = {known.name: known.dist for known in registered_names()[0] if known.kind == "method"}
    if name in taken:
        raise ConfigError([f"{name} is already a method of {taken[name]}: choose another name"])
    dist = f"czsl-{name.replace('_', '-')}"
    return {"name": name, "dist": dist, "package": f"czsl_{module}", "module": module, "Class": cls}


def _filled(text: str, words: Mapping[str, str]) -> str:
    """Return a text in which every ``@key@`` is replaced by its word."""
    return re.sub("@([A-Za-z]+)@", lambda found: words[found[1]], text)
