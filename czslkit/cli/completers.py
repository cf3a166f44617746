"""What the shell offers after a TAB: names, keys of settings and files. Nothing here imports torch."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import argcomplete
from argcomplete.completers import DirectoriesCompleter, FilesCompleter, SuppressCompleter

from ..data.dataset_folders import data_root, folders_in_layout
from ..entry_points import installed_plugins
from ..metrics.names import WORLDS
from ..registry import BUILTIN
from .arguments import ReplaceDefault, names
from .registered_names import KINDS, names_in_source, source_file

Completer = Callable[..., Iterable[str]]
#: Modules that define options which methods of plugins inherit, and the sections of all methods.
_SHARED = ("czslkit.prompts", "czslkit.word_prompts", "czslkit.method")
_SECTIONS = {
    "train": ("czslkit.training.options", "TrainOptions"),
    "eval": ("czslkit.evaluation.evaluator", "EvalOptions"),
}


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell, which asks by an environment variable, and end the process."""
    _attach(parser)
    argcomplete.safe_actions.add(ReplaceDefault)  # so that completers see the methods that are given
    argcomplete.autocomplete(parser, always_complete_options="long")


def _attach(parser: argparse.ArgumentParser) -> None:
    """Give each argument of a parser, and of its commands, what completes it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                _attach(command)
        elif action.choices is None and action.nargs != 0:
            action.completer = _completer(action, parser.prog)  # type: ignore[attr-defined]


def _completer(action: argparse.Action, command: str) -> Completer:
    """Return what completes the values of an argument: by its name, or else by the word that stands for them."""
    by_name: dict[str, Completer] = {
        "--methods": _listed(lambda args: [*_names("method"), "all"]),
        "--method": _listed(lambda args: _names("method")),
        "--datasets": _listed(lambda args: [*_datasets(args), "all"]),
        "--dataset": _listed(_datasets),
        "--worlds": _listed(lambda args: WORLDS),
        "--log": _listed(lambda args: _names("logger")),
        "--set": _setting_keys,
        "--recipe": _listed(lambda args: [f"{name}=" for name in _names("method")]),
        "--device": _listed(lambda args: ("auto", "cpu", "cuda", "mps")),
    }
    words = action.metavar.split("|") if isinstance(action.metavar, str) else list(action.metavar or ())
    for option in action.option_strings:
        if option in by_name:
            return by_name[option]
    if "NAME" in words and not action.option_strings:
        group = command.split()[1:]
        if group[:1] == ["data"]:
            return _listed(lambda args: [*_datasets(args), "all"])
        return _listed(lambda args: [*(name for kind in KINDS.values() for name in _names(kind)), *_SECTIONS])
    if any("FILE" in word or "." in word or "PHOTO" in word for word in words):
        return FilesCompleter()
    if any("DIR" in word or word in ("RUNS", "FOLDER") for word in words):
        return DirectoriesCompleter()
    return SuppressCompleter()


def _listed(known: Callable[[argparse.Namespace], Iterable[str]]) -> Completer:
    """Return a completer of names, also of one after a comma."""

    def completer(prefix: str, parsed_args: argparse.Namespace, **others: Any) -> list[str]:
        before, comma, _ = prefix.rpartition(",")
        given = names([before])
        return [before + comma + name for name in known(parsed_args) if name not in given]

    return completer


def _names(kind: str) -> list[str]:
    """Return the names of a kind; plugins of other distributions are known by the names of their entry points."""
    plugins = installed_plugins()
    modules = (*BUILTIN, *(plugin.module for plugin in plugins if plugin.builtin))
    found = {known.name for module in modules for known in names_in_source(module, "") if known.kind == kind}
    others = {plugin.name for plugin in plugins if not plugin.builtin} if kind == "method" else set()
    return sorted(found | others)


def _datasets(args: argparse.Namespace) -> list[str]:
    return sorted({*_names("dataset"), *folders_in_layout(data_root(getattr(args, "data", None)))})


def _setting_keys(prefix: str, parsed_args: argparse.Namespace, **others: Any) -> list[str]:
    """Return ``KEY=`` for each setting of training, evaluation and the methods that are given, or of all methods."""
    keys = [f"{section}.{key}=" for section in _SECTIONS for key in section_keys(section)]
    given = names(getattr(parsed_args, "methods", None) or ())
    for method in [name for name in given if name in _names("method")] or _names("method"):
        options = option_keys(method)
        keys += [f"{key}=" for key in options if given]
        keys += [f"{method}.{key}=" for key in options]
    return list(dict.fromkeys(keys))


def option_keys(method: str) -> list[str]:
    """Return the names of the options of a method of czslkit, read from the source files; empty for other methods.

    >>> option_keys("csp")
    ['backbone', 'context', 'context_length', 'word_dropout']
    """
    classes = _classes()
    return next((_fields(_options_class(node)) for node in classes.values() if method in _registered(node)), [])


def section_keys(section: str) -> list[str]:
    """Return the names of the settings of a section, ``train`` or ``eval``, read from its source file."""
    module, name = _SECTIONS[section]
    return [_target(node) for node in _class_in(module, name).body if isinstance(node, ast.AnnAssign)]


@cache
def _classes() -> dict[str, ast.ClassDef]:
    """Return the classes of the methods of czslkit and of their options by name, whose names are all different."""
    modules = (*_SHARED, *(plugin.module for plugin in installed_plugins() if plugin.builtin))
    return {node.name: node for module in modules for node in _nodes(module)}


def _class_in(module: str, name: str) -> ast.ClassDef:
    return next(node for node in _nodes(module) if node.name == name)


def _nodes(module: str) -> Iterator[ast.ClassDef]:
    tree = ast.parse(source_file(module).read_text(encoding="utf-8"))
    return (node for node in tree.body if isinstance(node, ast.ClassDef))


def _registered(node: ast.ClassDef) -> list[str]:
    """Return the names under which a class is registered."""
    calls = (decorator for decorator in node.decorator_list if isinstance(decorator, ast.Call))
    return [str(argument.value) for call in calls for argument in call.args if isinstance(argument, ast.Constant)]


def _bases(node: ast.ClassDef) -> list[ast.ClassDef]:
    """Return the base classes of a class that are known."""
    return [_classes()[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in _classes()]


def _options_class(node: ast.ClassDef) -> ast.ClassDef | None:
    """Return the class of the options of a method, which a base class may give."""
    for statement in node.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(statement.value, ast.Name):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if [target.id for target in targets if isinstance(target, ast.Name)] == ["Options"]:
                return _classes().get(statement.value.id)
    return next((found for base in _bases(node) if (found := _options_class(base))), None)


def _fields(node: ast.ClassDef | None) -> list[str]:
    """Return the fields of a dataclass in the order of its constructor, with those of its base classes."""
    if node is None:
        return []
    inherited = [name for base in reversed(_bases(node)) for name in _fields(base)]
    own = [_target(statement) for statement in node.body if isinstance(statement, ast.AnnAssign)]
    return list(dict.fromkeys([*inherited, *own]))


def _target(statement: ast.AnnAssign) -> str:
    assert isinstance(statement.target, ast.Name)
    return statement.target.id
