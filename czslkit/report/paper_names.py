"""The names of methods and datasets in papers, and the BibTeX entries that tables in LaTeX cite."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import PluginError, class_in_file


@dataclass(frozen=True)
class PaperName:
    """How papers write a method or a dataset, and what they cite for it.

    >>> name = PaperName("CSP", "@inproceedings{nayak2023csp, title = {Learning to Compose Soft Prompts}}")
    >>> name.key
    'nayak2023csp'
    """

    display_name: str
    citation: str = ""  # a BibTeX entry, or only its key; empty if there is nothing to cite

    @property
    def key(self) -> str:
        """The key of the BibTeX entry; empty if there is none that LaTeX could cite."""
        found = re.match(r"\s*(?:@\w+\s*\{\s*)?([\w:.+/-]+)\s*(?:,|$)", self.citation, re.ASCII)
        return found[1] if found else ""


def paper_name(cls: type, name: str) -> PaperName:
    """Return the ``display_name`` and ``citation`` in the body of a class, since a subclass is another method.

    Args:
        cls: the class of a method or of a dataset.
        name: its registered name, which is used if the class has no display name.

    Raises:
        PluginError: one of the two is not a text, or no key can be read from the citation.
    """
    texts = {attribute: vars(cls).get(attribute, "") for attribute in ("display_name", "citation")}
    for attribute, text in texts.items():
        if not isinstance(text, str):
            raise PluginError(f"{attribute} of {class_in_file(cls)} is {text!r}, expected a text")
    found = PaperName(texts["display_name"].strip() or name, texts["citation"].strip())
    if found.citation and not found.key:
        raise PluginError(
            f"citation of {class_in_file(cls)} starts with {found.citation[:40]!r}, expected a BibTeX entry such as "
            "@article{key, title = {...}}, or a key of letters, digits and _ : . + / -"
        )
    return found
