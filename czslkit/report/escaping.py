"""Names and messages as one printable line, and escaped for Markdown and LaTeX."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping
from typing import Any


def printable(text: str) -> str:
    """Return ``text`` on one line, without terminal escapes and without characters that do not print.

    >>> printable("\\x1b[31mred\\x1b[0m\\nname")
    'red name'
    """
    text = text.encode(errors="backslashreplace").decode()  # half characters, from names that are not UTF-8
    text = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", " ".join(text.splitlines()))
    return text.translate({ord(char): None for char in set(text) if unicodedata.category(char) in ("Cc", "Cf", "Cs")})


def printable_tree(value: Any) -> Any:
    """Return nested dicts and lists with every text in them made printable; keys do not change.

    >>> printable_tree({"name": ["a\\tb", 3]})
    {'name': ['ab', 3]}
    """
    if isinstance(value, Mapping):
        return {key: printable_tree(item) for key, item in value.items()}
    if isinstance(value, list):
        return [printable_tree(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def escape_markdown(text: str) -> str:
    r"""Return Markdown that shows ``text``.

    >>> print(escape_markdown("a_b|<i>"))
    a\_b\|&lt;i&gt;
    """
    return re.sub(r"([\\`*_{}\[\]#|~$%])", r"\\\1", html.escape(text, quote=False))


_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "_&%#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    | {"–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\ldots{}", "×": r"$\times$"}
    | {"ß": r"\ss{}", "ł": r"\l{}", "Ł": r"\L{}", "ø": r"\o{}", "Ø": r"\O{}", "æ": r"\ae{}", "Æ": r"\AE{}"}
    | {"[": "{[}", "*": "{*}", "|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}"}
)


def escape_latex(text: str) -> str:
    r"""Return LaTeX that shows ``text``.

    >>> print(escape_latex("a_b & 50%"))
    a\_b \& 50\%
    >>> print(escape_latex("Müller 猫"))
    M\"{u}ller U+732B
    """
    return "".join(map(_latex_letter, unicodedata.normalize("NFC", text.translate(_LATEX))))


#: LaTeX commands of the accents that a letter can be decomposed into.
_ACCENTS = dict(
    zip("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327", "`'^~=u.\"rHvc", strict=True)
)


def _latex_letter(letter: str) -> str:
    """Return LaTeX for one letter; letters that pdfLaTeX has no type for are written as ``U+732B``."""
    base, *accents = list(unicodedata.normalize("NFD", letter))
    if letter.isascii():
        return letter
    known = len(accents) == 1 and accents[0] in _ACCENTS and base.isascii()
    return rf"\{_ACCENTS[accents[0]]}{{{base}}}" if known else f"U+{ord(letter):04X}"
