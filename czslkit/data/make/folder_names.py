"""Read an attribute and an object from the names of folders, such as ``wet_dog`` and ``light blue_dog``."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ...errors import first_ten
from ...terminal import log_to_stderr
from ..layout import Pair
from .labelled_pictures import normalized_label


def pairs_of_names(names: Collection[str]) -> dict[str, Pair | str]:
    """Return the attribute and object that each name of several folders has, or the problem of the name.

    A name is parted at its only space, or at its only ``_``. If it has both, and other names are parted at ``_``, it is
    parted where more of its labels are also those of other names. If no name has one separator only, those with both
    are parted at the space, and a warning is printed to standard error.

    >>> found = pairs_of_names(["wet_dog", "dry_dog", "light blue_dog", "dry teddy_bear"])
    >>> found["light blue_dog"], found["dry teddy_bear"]
    (('light blue', 'dog'), ('dry', 'teddy bear'))
    """
    parted = {name: list(_parted(name)) for name in names}
    if any(parted[name] and _spaces(name) == 0 for name in names):
        _select_known(parted)
        return {name: pairs[0] if len(pairs) == 1 else _problem(name, pairs) for name, pairs in parted.items()}
    if not any(parted[name] and "_" not in name for name in names):
        unsure = [f"{name!r} as {_words(pairs[0])}" for name, pairs in parted.items() if len(pairs) > 1]
        if unsure:
            log_to_stderr(f"warning: folders whose names have '_' and a space are read thus: {first_ten(unsure)}")
    return {name: pairs[0] if pairs and _spaces(name) == 1 else _problem(name, []) for name, pairs in parted.items()}


def _parted(name: str) -> Iterator[Pair]:
    """Yield the pairs that a name may mean, first the one with the space between attribute and object."""
    words = name.split()
    sides = [words] if len(words) == 2 else []
    sides += [name.split("_")] if name.count("_") == 1 and all(side.strip() for side in name.split("_")) else []
    yield from dict.fromkeys((normalized_label(attr), normalized_label(obj)) for attr, obj in sides)


def _spaces(name: str) -> int:
    return len(name.split()) - 1


def _select_known(parted: dict[str, list[Pair]]) -> None:
    """Keep one pair of each name that may mean two, if more of its labels are in names that mean one, than others'."""
    selected = True
    while selected:
        attrs, objs = ({pairs[0][side] for pairs in parted.values() if len(pairs) == 1} for side in (0, 1))
        selected = False
        for name, pairs in parted.items():
            known = [(attr in attrs) + (obj in objs) for attr, obj in pairs]
            if len(pairs) == 2 and known[0] != known[1]:
                parted[name], selected = [pairs[known.index(max(known))]], True


def _problem(name: str, pairs: list[Pair]) -> str:
    what = f"the folder {name!r} does not clearly name an attribute and an object"
    if pairs:
        return f"{what}: {' or '.join(map(_words, pairs))}? Move it to a folder for each attribute, or import a table"
    return f"{what}: rename it to 'attr obj' with one space, or import a table"


def _words(pair: Pair) -> str:
    return f"{pair[0]!r} and {pair[1]!r}"
