"""A method of a benchmark with settings, a label, a recipe and a checkpoint of its own. It does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Variant:
    """A method of a benchmark; the same method may occur several times with other settings.

    Attributes:
        method: registered name.
        settings: values by key, such as ``{"train.epochs": 3, "fusion": "gated"}``. Settings that are given for the
            whole benchmark override them.
        label: name of its row in the table; if empty, the method with the settings in which results differ.
        recipe: recipe file for every dataset, in place of the recipes of the method.
        checkpoint: folder of a trained method, or ``hf:USER/NAME``; the method is evaluated without training.
        places: where a file gives it, by the key of the setting, and as ``""`` for the method; starts of messages.

    >>> Variant("msci", {"fusion": "gated"}, label="gated MSCI").name
    'gated MSCI'
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    recipe: str | Path | None = None
    checkpoint: str | Path | None = None
    places: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """Its label, or else its method."""
        return self.label or self.method

    def located(self, problems: Iterable[str]) -> Iterator[str]:
        """Yield messages on its settings, each with the place in the file that it is about."""
        for problem in problems:
            found = [key for key in self.places if key and problem.startswith(self._starts(key))]
            place = self.places.get(found[0] if found else "")
            yield f"{place}: {problem}" if place else problem

    def _starts(self, key: str) -> tuple[str, ...]:
        """Return how messages about a setting start."""
        section, _, option = key.rpartition(".")
        owner = f"{self.method}.{section}" if section else self.method
        return f"{key}: ", f"{self.method}: {key} is ", f"{owner}: {option} is "


def variants(methods: Iterable[str | Variant]) -> list[Variant]:
    """Return methods as variants; a name is a variant without settings of its own."""
    return [method if isinstance(method, Variant) else Variant(method) for method in methods]
