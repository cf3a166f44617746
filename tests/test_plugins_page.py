"""The whole files in ``docs/plugins.md`` run as they are written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from czslkit.backbones import load_backbone
from czslkit.method import METHODS
from czslkit.registry import load_unpackaged
from czslkit.testing import check_method, demo_space

PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
FILES = {name: block for block in BLOCKS for name in re.findall(r'@METHODS\.register\("(.*?)"\)', block)}


def test_the_page_has_whole_methods() -> None:
    assert FILES.keys() == {"mine", "image-head", "adapting", "plausible"}


def test_the_graph_prompt_of_the_page_makes_its_words(clip_file: Any) -> None:
    names: dict[str, Any] = {}
    exec(next(block for block in BLOCKS if "class GraphPrompt" in block), names)
    space = demo_space()
    backbone = load_backbone(str(clip_file))
    assert names["GraphPrompt"](backbone, space)(backbone, space.pairs).pair.shape == (len(space.pairs), backbone.dim)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_method_of_the_page_passes_the_checks(
    name: str, clip_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METHODS, "_items", dict(METHODS.items()))
    file = tmp_path / f"page_{name.replace('-', '_')}.py"
    file.write_text(FILES[name])
    load_unpackaged(str(file))
    check_method(name, backbone=str(clip_file))
