"""Checks that the versions, which decide which results are stale, belong to the current code.

``versions.json`` holds, for everything that has a version, the version and a digest of its code: of the class or
function itself and of all that it uses of this project, up to other classes with a version. If a digest differs,
somebody changed code that numbers may depend on. Raise the version if numbers have changed by it, and write the list
anew in any case::

    python tests/test_versions.py
"""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import czslkit
from czslkit.provenance import OWN, class_name
from czslkit.registry import REGISTRIES, load_plugins
from czslkit.source_code import syntax

FILE = Path(__file__).parent / "versions.json"
ROOT = Path(czslkit.__file__).parents[1]
#: Modules with a ``VERSION``, and the functions and classes that it stands for.
MODULES = {
    "czslkit.training": [
        *("training.loop:train", "training.options:TrainOptions", "runner.train:_train", "runner.prepare:build_method"),
        *("data.loading:load_dataset", "data.pair_lists:read_pairs"),
    ],
    "czslkit.evaluation": [
        *("evaluation.evaluator:Evaluation", "evaluation.evaluator:searched_threshold"),
        *("evaluation.validation:plan_validation", "evaluation.feasibility_source:load_feasibility"),
        *(
            "metrics.sweep:Sweep",
            "runner.record:metrics_record",
            "runner.evaluate:evaluate",
            "runner.prepare:plan_test",
        ),
        *("data.loading:load_dataset", "data.pair_lists:read_pairs", "checkpoints.trained:TrainedMethod"),
    ],
    "czslkit.data.image_transforms": [
        "data.image_set:ImageSet",
        "data.image_reader:ImageReader",
        "data.images:open_rgb",
    ],
}
#: Modules that no number depends on: what they define is not followed.
WITHOUT_NUMBERS = (
    "errors",
    "registry",
    "files",
    "sizes",
    "terminal",
    "provenance",
    "source_code",
    "result_store",
    "options",
    "report",
    "data.cache",
    "data.dataset_folders",
    "data.fingerprint",
    "data.integrity",
    "runner.data_source",
    "runner.job",
    "runner.plan",
    "runner.recipes",
    "runner.settings",
)


@functools.cache
def parsed(module: str) -> tuple[dict[str, ast.stmt], dict[str, str]]:
    """Return the definitions of a module by name, and the dotted name of each imported name."""
    file = Path(str(importlib.import_module(module).__file__))
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    definitions: dict[str, ast.stmt] = {}
    imports: dict[str, str] = {}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            home = ".".join([*above, *filter(None, [node.module])])
            imports |= {alias.asname or alias.name: f"{home}.{alias.name}" for alias in node.names}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            definitions[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = (n for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))
            definitions |= {name.id: node for name in names}
    return definitions, imports


def is_module(name: str) -> bool:
    base = (ROOT / "plugins" if name.startswith("czslkit_plugins") else ROOT).joinpath(*name.split("."))
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def resolved(dotted: str) -> tuple[str, str] | None:
    """Return module and name of a definition of this project, None for everything else."""
    home, _, name = dotted.rpartition(".")
    if home.partition(".")[0] not in OWN or not is_module(home) or is_module(dotted):
        return None
    if any(f"{home}.".startswith(f"czslkit.{module}.") for module in WITHOUT_NUMBERS):
        return None
    definitions, imports = parsed(home)
    return (home, name) if name in definitions else resolved(imports[name]) if name in imports else None


def used(module: str, node: ast.stmt) -> Iterator[tuple[str, str]]:
    """Yield the definitions of this project that a piece of code uses."""
    _, imports = parsed(module)
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id in imports:
            found = resolved(f"{imports[part.value.id]}.{part.attr}")
        elif isinstance(part, ast.Name):
            found = resolved(imports.get(part.id, f"{module}.{part.id}"))
        else:
            continue
        if found:
            yield found


def has_version(node: ast.stmt) -> bool:
    body = node.body if isinstance(node, ast.ClassDef) else []
    return any(map(is_version, body))


def is_version(node: ast.stmt) -> bool:
    """Whether a line of a class body is ``version = ...``, with or without a type."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return any(isinstance(target, ast.Name) and target.id == "version" for target in targets)


def digest(*roots: tuple[str, str]) -> str:
    """Return the digest of the code of ``roots`` and of all code that it uses.

    Docstrings, help texts, messages and versions do not count.
    """
    waiting, found = list(roots), {}
    while waiting:
        module, name = waiting.pop()
        node = parsed(module)[0][name]
        if (module, name) in found or (has_version(node) and (module, name) not in roots):
            continue
        found[module, name] = code(node)
        waiting += used(module, node)
    return hashlib.sha256(json.dumps(sorted(found.values())).encode()).hexdigest()[:16]


def code(node: ast.stmt) -> str:
    """Return the code of a definition as text that is the same in every version of Python.

    Docstrings, help texts, messages and versions are left out.
    """
    tree = copy.deepcopy(node)
    for part in ast.walk(tree):
        if isinstance(part, ast.ClassDef):
            part.body = [n for n in part.body if not is_version(n)]
        elif isinstance(part, ast.Raise):
            part.exc, part.cause = None, None
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "option":
            del part.args[1:2]
    return syntax(tree)


def classes() -> list[type]:
    """Return every class of this project with a version: registered classes, their bases and the prompts."""
    load_plugins()
    registered = [cls for registry in REGISTRIES.values() for _, cls in registry.items()]
    prompts = [czslkit.SoftPrompt, importlib.import_module("czslkit.prompts").FixedPrompt]
    every = {base for cls in [*registered, *prompts] for base in cls.__mro__}
    own = [cls for cls in every if cls.__module__.partition(".")[0] in OWN and "version" in vars(cls)]
    return sorted(own, key=class_name)


def current() -> dict[str, dict[str, Any]]:
    """Return the version and the digest of everything that has a version."""
    found: dict[str, dict[str, Any]] = {}
    for module, names in MODULES.items():
        roots = [tuple(f"czslkit.{name}".split(":")) for name in names]
        found[module] = {"version": importlib.import_module(module).VERSION, "digest": digest(*roots)}
    for cls in classes():
        found[class_name(cls)] = {"version": vars(cls)["version"], "digest": digest((cls.__module__, cls.__qualname__))}
    return found


def test_a_change_of_code_comes_with_a_decision_about_its_version() -> None:
    committed = json.loads(FILE.read_text(encoding="utf-8"))
    changed = [name for name, entry in current().items() if committed.get(name) != entry]
    gone = sorted(committed.keys() - current().keys())
    assert not changed + gone, (
        f"the code of {', '.join(changed + gone)} has changed. If numbers change by it, raise its version; then, or if "
        "no number changes, run: python tests/test_versions.py"
    )


def test_versions_never_fall() -> None:
    committed = json.loads(FILE.read_text(encoding="utf-8"))
    fallen = [name for name, entry in current().items() if entry["version"] < committed.get(name, entry)["version"]]
    assert not fallen


@pytest.mark.parametrize("kind", sorted(REGISTRIES.keys() - {"logger"}))  # no number depends on a logger
def test_every_registered_class_has_a_version_of_its_own(kind: str) -> None:
    load_plugins()
    own = [cls for _, cls in REGISTRIES[kind].items() if cls.__module__.partition(".")[0] in OWN]
    assert own
    without = [class_name(cls) for cls in (*own, REGISTRIES[kind].base) if type(vars(cls).get("version")) is not int]
    assert not without, f"{', '.join(without)}: add version: ClassVar[int] = 1 to the class body"


def test_docstrings_help_texts_and_messages_do_not_count_as_code() -> None:
    texts = ['"""One."""', '"""Two."""', '"""One."""']
    sources = [f"def f(x):\n    {text}\n    y = option(1, {text})\n    raise ValueError({text})" for text in texts]
    sources[2] = sources[2].replace("option(1", "option(2")
    one, two, other = (code(ast.parse(source).body[0]) for source in sources)
    assert one == two != other


def test_what_a_class_uses_counts() -> None:
    """The cosine of a head is defined in another module; a class with a version of its own is not followed."""
    head = ("czslkit.heads.cosine", "CosineHead")
    assert ("czslkit.components", "cosine") in set(used(*_definition(head)))
    assert has_version(_definition(("czslkit.components", "Head"))[1])


def _definition(name: tuple[str, str]) -> tuple[str, ast.stmt]:
    return name[0], parsed(name[0])[0][name[1]]


if __name__ == "__main__":
    FILE.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{FILE} is written\n")
