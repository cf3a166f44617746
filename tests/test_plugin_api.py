"""``docs/plugin-api.md`` lists what a plugin may use, by its docstrings; this file, run as a script, rewrites it."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from czslkit.registry import Registry

PAGE = Path(__file__).parents[1] / "docs" / "plugin-api.md"
INTRODUCTION = """\
# What a plugin may use

Everything on this page keeps its name and meaning; other names of the package may change.
[Writing a plugin](plugins.md) is the guide. Each entry is the first paragraph of a docstring; `help(NAME)` prints all
of it, with arguments, shapes and errors. The settings of training and evaluation are in [results](results.md).
"""
#: The name and the text of an argument in a docstring.
ARGUMENT = r"^    (\w+): (.*(?:\n        .*)*)"
#: Module -> the names in it that a plugin may use, in the order of the page.
CONTENT = {
    "czslkit.method": ("Method", "METHODS", "build"),
    "czslkit.prediction": ("Predictor", "Prediction", "PredictedPair"),
    "czslkit.training_hooks": ("TrainingHooks", "TrainingData", "TrainingPosition", "AveragedWeights"),
    "czslkit.types": (
        "PairSpace",
        "Batch",
        "ImageFeatures",
        "TextFeatures",
        "Scores",
        "Setting",
        "VALIDATION",
        "pair_targets",
        "AttentionMaps",
        "Explanation",
    ),
    "czslkit.components": (
        "Backbone",
        "Aggregator",
        "Interaction",
        "Head",
        "BACKBONES",
        "AGGREGATORS",
        "INTERACTIONS",
        "HEADS",
        "cosine",
    ),
    "czslkit.prompts": ("SoftPrompt", "FixedPrompt", "SoftPromptOptions", "LearnedWordOptions", "clean", "in_parts"),
    "czslkit.backbones": ("load_backbone", "ClipBackbone"),
    "czslkit.backbones.adapters": (
        "Adapter",
        "BlockAdapters",
        "Bottleneck",
        "ModalAdapter",
        "ConceptAdapters",
        "adapter_mode",
    ),
    "czslkit.loss_parts": ("report",),
    "czslkit.loggers": ("Logger", "Run", "LOGGERS"),
    "czslkit.aggregators": ("LastLayer", "Pooled"),
    "czslkit.interactions": ("CrossAttention", "NoInteraction"),
    "czslkit.heads": ("CosineHead", "ThreeBranchHead", "ScoreFusion"),
    "czslkit.options": ("option",),
    "czslkit.data.datasets": ("Dataset", "DATASETS", "Counts", "SplitCounts"),
    "czslkit.data.layout": ("Instance", "Listing"),
    "czslkit.data.sources": ("Source",),
    "czslkit.translation": ("Translation",),
    "czslkit.errors": ("CzslkitError", "ConfigError", "DataError", "PluginError"),
    "czslkit.testing": (
        "check_method",
        "check_backbone",
        "check_dataset",
        "check_component",
        "Report",
        "ConformanceError",
        "check_scores",
        "check_gradients",
        "demo_space",
        "write_tiny",
    ),
}


def page() -> str:
    """Return the page as the code says it."""
    sections = (section(importlib.import_module(name), names) for name, names in CONTENT.items())
    return "\n".join([INTRODUCTION, *sections])


def section(module: Any, names: tuple[str, ...]) -> str:
    lines = [f"## `{module.__name__}`\n", f"{paragraph(module)}\n"]
    for name in names:
        found = getattr(module, name)
        if inspect.isclass(found):
            lines += [f"### `{name}`\n", f"{paragraph(found)}\n", *members(found), ""]
        elif inspect.isfunction(found):
            lines += [f"### `{name}{signature(found)}`\n", f"{paragraph(found)}\n"]
        elif not isinstance(found, Registry):
            comment = re.search(rf"^#: (.*)\n{name} = (.*)", inspect.getsource(module), re.MULTILINE)
            assert comment, name
            lines += [f"### `{name} = {comment[2]}`\n", f"{comment[1]}\n"]
        else:
            lines += [f"### `{name}`\n", f'The registry of {found.kind}s: `@{name}.register("name")`.\n']
    return "\n".join(lines)


def members(cls: type) -> Iterator[str]:
    """Yield a line for each public field, attribute, property and method in the body of a class."""
    comments, cached = field_comments(cls), (property, functools.cached_property)
    for name, text in comments.items():
        yield f"- `{name}`: {text}"
    for name, value in vars(cls).items():
        if name.startswith("_") or name in comments:
            continue
        if isinstance(value, cached):
            yield f"- `{name}`: {paragraph(value)}"
        elif isinstance(value, (staticmethod, classmethod)) or inspect.isfunction(value):
            inner = getattr(value, "__func__", value)
            if inner.__doc__:  # an inherited docstring is with the base class
                yield f"- `{name}{signature(inner)}`: {paragraph(inner)}"


def field_comments(cls: type) -> dict[str, str]:
    """Return the comments and help texts of the fields of a class by their names, in the order of its body."""
    found: dict[str, str] = {}
    before: list[str] = []
    arguments = dict(re.findall(ARGUMENT, inspect.getdoc(cls) or "", re.MULTILINE))
    lines = inspect.getsource(cls).splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if match := re.match(r"    #: (.*)", line):
            before.append(match[1])
        elif match := re.match(r"    ([A-Za-z]\w*): ([^=#]*?)(?: = (.*?))?(?:  # (.*))?$", line):
            text = " ".join(before) or match[4] or re.sub(r"\s+", " ", arguments.get(match[1], "")).strip()
            if not text and following.strip().startswith('"""'):
                text = following.strip().strip('"')
            found[match[1]] = text.replace("``", "`") or f"`{match[2]}`"
            before = []
        elif re.match(r"    [a-z]\w* = ", line):
            before = []
        elif line.startswith("    def "):
            break
    if dataclasses.is_dataclass(cls):
        found |= {f.name: f.metadata["help"] for f in dataclasses.fields(cls) if "help" in f.metadata}
    return {name: text for name, text in found.items() if name != "version"}


def paragraph(found: Any) -> str:
    """Return the first paragraph of a docstring on one line, in Markdown."""
    text = re.sub(r"\s+", " ", (inspect.getdoc(found) or "").split("\n\n")[0]).replace("``", "`")
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text)


def signature(found: Any) -> str:
    """Return the arguments of a function without its types."""
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(found).parameters.values()]
    shown = str(inspect.Signature([p for p in parameters if p.name not in ("self", "cls")]))
    return re.sub(r"=Setting\(.*?\)", "=VALIDATION", shown)


def test_the_page_is_what_the_docstrings_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/test_plugin_api.py"


def test_every_public_hook_and_seam_is_on_the_page() -> None:
    from czslkit.components import Backbone
    from czslkit.method import Method
    from czslkit.training_hooks import TrainingHooks

    text = PAGE.read_text(encoding="utf-8")
    for cls in (Method, TrainingHooks, Backbone):
        for name in vars(cls):
            assert name.startswith("_") or name == "version" or re.search(rf"- `{name}\b", text), name


LISTED = [getattr(importlib.import_module(module), name) for module, names in CONTENT.items() for name in names]


@pytest.mark.parametrize(
    "cls", [found for found in LISTED if dataclasses.is_dataclass(found) and isinstance(found, type)]
)
def test_every_public_field_of_a_dataclass_is_on_the_page(cls: type) -> None:
    entry = PAGE.read_text(encoding="utf-8").split(f"### `{cls.__name__}`\n")[1].split("\n#")[0]
    fields = [name for name in vars(cls)["__annotations__"] if not name.startswith("_")]  # others are with the base
    assert [name for name in fields if f"\n- `{name}`: " not in entry] == []


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
