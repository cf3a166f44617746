"""Pages of the site that are made from other files; mkdocs calls these functions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
NOTEBOOK = "tutorials/demo.ipynb"
#: Page -> file of the repository that it is made from.
_SOURCES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "benchmarks.md": "benchmarks/README.md",
    **{f"{file.stem}.md": f"benchmarks/{file.name}" for file in (ROOT / "benchmarks").glob("*_*.md")},
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made from files outside of the folder of the site."""
    for page, source in _SOURCES.items():
        files.append(File.generated(config, page, content=_moved((ROOT / source).read_text(encoding="utf-8"))))
    files.append(File.generated(config, "tutorials/notebook.md", content=notebook_page()))
    return files


def on_page_markdown(markdown: str, **others: Any) -> str:
    """Return the text of a page with links to pages of the site in the place of links to files of the repository."""
    return re.sub(r"\]\(\.\./benchmarks/(\w+)\.md", r"](\1.md", markdown)


def notebook_page() -> str:
    """Return the notebook of the tutorials as Markdown, without its outputs."""
    cells = json.loads((ROOT / "docs" / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    texts = ("".join(cell["source"]) for cell in cells)
    parts = [
        text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for cell, text in zip(cells, texts, strict=True)
    ]
    return "\n\n".join(parts) + "\n"


def _moved(text: str) -> str:
    """Return the text of a file of the repository with the links that a page of the site has."""
    text = text.replace("](benchmarks/README.md)", "](benchmarks.md)").replace("](../docs/", "](")
    return re.sub(r"\]\(docs/", "](", text)
