"""Pictures to import with their labels, and the rules that labels and image files must follow."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ..check.lint import MISSING_LABELS
from ..layout import ABSENT, Pair

_MOST_PROBLEMS = 10  # problems that a message lists; other problems are counted


@dataclass(frozen=True)
class LabelledPicture:
    """An image file, the attribute and object that it shows, and its split."""

    file: Path
    attr: str
    obj: str
    split: str = ""
    """Empty if a rule assigns the split."""


def normalized_label(text: str) -> str:
    """Return a label as words: composed letters, and a single space in the place of spaces and ``_``.

    >>> normalized_label(" very  wet "), normalized_label("teddy_bear")
    ('very wet', 'teddy bear')
    """
    return " ".join(unicodedata.normalize("NFC", text).replace("_", " ").split())


def label_problem(column: str, label: str) -> str:
    """Return the problem of an unusable label, empty for a usable label.

    Args:
        column: ``attr`` or ``obj``.
        label: the normalized label.
    """
    if not label or label == ABSENT or label.lower() in MISSING_LABELS:
        return f"{column} is {label!r}, which means that the label is missing"
    if not label.isprintable() or "/" in label or "\\" in label:
        return f"{column} is {label!r}, expected printable characters without '/' and '\\'"
    return ""


def doubtful_labels(pairs: Iterable[Pair]) -> list[str]:
    """Return a sentence for each attribute and object that may have taken words of the other one.

    Such an attribute is of several words, occurs with one object only, and starts with the words of another attribute.
    Such an object occurs with one attribute only, and ends with the words of another object.

    >>> doubtful_labels([("dry", "cat"), ("dry teddy", "bear")])
    ["'dry teddy' is the attribute of 'bear' only, and 'dry' is another attribute: is it 'dry' and 'teddy bear'?"]
    >>> doubtful_labels([("wet", "dog"), ("light", "blue dog")])
    ["'blue dog' is the object of 'light' only, and 'dog' is another object: is it 'light blue' and 'dog'?"]
    """
    objs: dict[str, set[str]] = defaultdict(set)
    attrs: dict[str, set[str]] = defaultdict(set)
    for attr, obj in pairs:
        objs[attr].add(obj)
        attrs[obj].add(attr)
    found = []
    for attr, (obj, *others) in sorted((attr, sorted(found)) for attr, found in objs.items()):
        words = attr.split()
        cut = next((n for n in range(1, len(words)) if " ".join(words[:n]) in objs), 0)
        if cut and not others:
            found.append(_doubt("attribute", attr, obj, " ".join(words[:cut]), " ".join([*words[cut:], obj])))
    for obj, (attr, *others) in sorted((obj, sorted(found)) for obj, found in attrs.items()):
        words = obj.split()
        cut = next((n for n in range(1, len(words)) if " ".join(words[n:]) in attrs), 0)
        if cut and not others:
            found.append(_doubt("object", obj, attr, " ".join([attr, *words[:cut]]), " ".join(words[cut:])))
    return found


def _doubt(kind: str, label: str, only: str, attr: str, obj: str) -> str:
    """Return the sentence that asks whether the pair of a doubtful label is another one, ``attr`` and ``obj``."""
    known = attr if kind == "attribute" else obj
    return f"{label!r} is the {kind} of {only!r} only, and {known!r} is another {kind}: is it {attr!r} and {obj!r}?"


def refuse_if_any(source: Path, problems: Sequence[str]) -> None:
    """Raise an error with all problems of a source, if there are any.

    Raises:
        DataError: ``problems`` is not empty. The message lists ten problems and the number of the others.
    """
    if problems:
        hidden = len(problems) - _MOST_PROBLEMS
        more = [f"and {hidden} more"] if hidden > 0 else []
        raise DataError("\n  ".join([f"{source} cannot be imported:", *problems[:_MOST_PROBLEMS], *more]))
