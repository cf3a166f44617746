from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from czslkit.source_code import code_digest, module_file, syntax


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on ``sys.path`` with the package ``digested``, which is not imported."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in {
        "digested/__init__.py": "raise ImportError\n",
        "digested/one.py": "from digested.two import f\nimport digested.four, json\nfrom . import five as same, X\n",
        "digested/two.py": "def f():\n    from .three.deep import b\n",
        "digested/three/__init__.py": "X = 1\n",
        "digested/three/deep.py": "from .. import one\nb = 1\n",
        "digested/four.py": "import elsewhere\n",
        "digested/five.py": "",
        "digested/unrelated.py": "",
        "elsewhere.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("digested")]:
        del sys.modules[name]


def digest(module: str = "digested.one") -> str | None:
    return code_digest(module, lambda package: package == "digested")


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        *((f"digested/{name}.py", True) for name in ("one", "two", "three/deep", "four", "five", "__init__")),
        *((f"digested/{name}.py", False) for name in ("three/__init__", "unrelated")),
        ("elsewhere.py", False),
    ],
)
def test_what_a_module_imports_counts(folder: Path, changed: str, counts: bool) -> None:
    before = digest()
    (folder / changed).write_text((folder / changed).read_text() + "y = 2\n")
    assert (digest() != before) == counts
    assert "digested" not in sys.modules


def test_comments_docstrings_and_layout_do_not_count(folder: Path) -> None:
    file = folder / "digested" / "two.py"
    before = digest()
    file.write_text(
        '"""Module."""\ndef f():  # a comment\n    """Function."""\n\n    from .three.deep import (\n        b)\n'
    )
    assert digest() == before
    file.write_text("def f():\n    from .three.deep import b\n    'a text' + ''\n")
    assert digest() != before


def test_the_digest_does_not_depend_on_what_is_imported(folder: Path) -> None:
    (folder / "digested" / "__init__.py").write_text("X = 1\n")
    before = digest()
    import digested.three.deep  # noqa: F401

    assert digest() == before
    assert module_file("digested.five") == folder / "digested" / "five.py"


@pytest.mark.parametrize("suffix", [".py", EXTENSION_SUFFIXES[-1]])
def test_code_that_cannot_be_parsed_counts_by_its_bytes(folder: Path, suffix: str) -> None:
    file = folder / "digested" / "five.py"
    file.unlink()
    file = file.with_name(f"five{suffix}")
    file.write_bytes(b"1 +")
    before = digest()
    file.write_bytes(b"1 + +")
    assert digest() not in (before, None)


def test_what_has_no_file_has_no_digest() -> None:
    assert digest("sys") is None
    assert digest("no_such_package.module") is None
    assert module_file("json.decoder.JSONDecoder") is None


def test_syntax_is_the_same_in_every_version_of_python() -> None:
    """Versions differ in the number of empty fields in a tree."""
    tree = ast.parse("def f(x: int = 0):\n    return [y for y in x]\n")
    no_fields = {"ctx": ["Load", {}]}
    x, y = (["Name", {"id": f"'{name}'", **no_fields}] for name in "xy")
    stored = ["Name", {"id": "'y'", "ctx": ["Store", {}]}]
    loop = ["comprehension", {"target": stored, "iter": x, "is_async": "0"}]
    argument = ["arg", {"arg": "'x'", "annotation": ["Name", {"id": "'int'", **no_fields}]}]
    expected = {
        "name": "'f'",
        "args": ["arguments", {"args": [argument], "defaults": [["Constant", {"value": "0"}]]}],
        "body": [["Return", {"value": ["ListComp", {"elt": y, "generators": [loop]}]}]],
    }
    assert json.loads(syntax(tree.body[0])) == ["FunctionDef", expected]


def test_names_in_papers_change_no_digest() -> None:
    plain = ast.parse("class A:\n    size = 1\n")
    named = ast.parse("class A:\n    display_name = 'A'\n    citation: ClassVar[str] = '@misc{a}'\n    size = 1\n")
    assert syntax(named) == syntax(plain)
    assert syntax(ast.parse("display_name = 'A'")) != syntax(ast.parse(""))  # outside a class it may mean anything
