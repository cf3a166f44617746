"""What docstrings look like on the site: examples as code, and references as plain names. Griffe calls this class."""

from __future__ import annotations

import re
from typing import Any

import griffe


class PlainDocstrings(griffe.Extension):
    """Write each docstring as Markdown."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """Change the docstring of an object before it is parsed."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(docstring: str) -> str:
    """Return a docstring with examples in a fence, and with names in the place of references such as ``:func:``."""
    text = re.sub(r":(?:func|class|meth|attr|mod|data):`~?([\w.]+)`", r"`\1`", docstring)
    text = text.replace("`czslkit.", "`")
    return re.sub(r"^( *)(>>> .*(?:\n\1\S.*)*)", r"\1```python\n\1\2\n\1```", text, flags=re.MULTILINE)
