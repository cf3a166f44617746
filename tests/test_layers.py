"""Imports point down: a module knows the layers below its own, and nothing else of the core."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE, PLUGINS = ROOT / "czslkit", ROOT / "plugins" / "czslkit_plugins"
#: Lowest first. A package is one unit, whose modules may know each other, unless a module of it stands here too.
LAYERS = (
    {"errors"},
    {"processes", "sizes", "deferred", "loss_parts", "torchrun"},
    {"distributed"},
    {"shares"},
    {"locks", "training_files", "foreign_files"},
    {
        "entry_points",
        "options",
        "csv_cells",
        "files",
        "json_digest",
        "types",
        "metrics.names",
        "metrics.score_columns",
        "linear",
        "recompute",
        "footprint",
        "device_memory",
        "seeds",
        "precision",
    },
    {"registry", "named_pairs", "source_code", "pickle_scan", "report.expected", "terminal", "graphs", "online"},
    {"result_schema", "torch_files", "yaml_files"},
    {"torchscript", "word_files"},
    {"word_vectors", "pair_feasibility"},
    {"provenance", "weights", "translation", "result_store", "training_hooks", "prediction", "loggers"},
    {"components"},
    {"prompts", "aggregators", "interactions", "heads", "backbones"},
    {"word_prompts", "feasibility_files"},
    {"graph_prompts"},
    {"method"},
    {"learned_state"},
    {"metrics"},
    {"data"},
    {"data.download"},
    {"data.check"},
    {"data.make"},
    {"training"},
    {"evaluation"},
    {"checkpoints"},
    {"report"},
    {"stored_runs", "plot", "sharing"},
    {"runner"},
    {"explain", "predict", "gallery"},
    {"estimator", "export", "testing", "doctor"},
    {"cli"},
    {"__main__"},
)
RANK = {unit: rank for rank, units in enumerate(LAYERS) for unit in units}


def unit(module: str) -> str:
    """The unit of ``LAYERS`` that a dotted name inside the core belongs to.

    >>> unit("data.check.lint"), unit("data.splits.Split"), unit("types.Batch")
    ('data.check', 'data', 'types')
    """
    parts = module.split(".")
    return ".".join(parts[:2]) if ".".join(parts[:2]) in RANK else parts[0]


def dotted(path: Path) -> str:
    """``errors`` for ``czslkit/errors.py``, ``data`` for ``czslkit/data/__init__.py``, ``csp`` for the plugin."""
    home = CORE if CORE in path.parents else PLUGINS
    return ".".join(path.relative_to(home).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, *, runtime: bool = False) -> Iterator[str]:
    """Every absolute dotted name that a file imports, wherever in the file it does.

    Args:
        runtime: leave out what only a type checker sees, and what functions import when called.
    """
    package = path.relative_to(PLUGINS.parent if PLUGINS in path.parents else ROOT).parts[:-1]
    waiting = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if runtime and (
            isinstance(node, ast.FunctionDef) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ):
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            home = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{home}.{alias.name}" for alias in node.names)


def of_core(path: Path, *, runtime: bool = False) -> set[str]:
    """Return the names that a file imports from the core, as dotted names without ``czslkit``."""
    names = imported(path, runtime=runtime)
    return {name.removeprefix("czslkit.") for name in names if name.startswith("czslkit.")} - {"__version__"}


def modules() -> list[Path]:
    return sorted(path for path in CORE.rglob("*.py") if path != CORE / "__init__.py")


def test_imports_are_found_wherever_they_stand() -> None:
    assert {"components.Aggregator", "types.PairSpace"} <= of_core(CORE / "method.py")
    assert "types.PairSpace" in of_core(CORE / "data" / "closed_world.py")  # from ..types
    assert "provenance" in of_core(CORE / "data" / "feature_cache.py")  # from .. import provenance
    assert "runner.bench.bench" in of_core(CORE / "cli" / "bench.py")  # inside a function
    assert "method.METHODS" in of_core(PLUGINS / "csp.py")


def test_every_module_has_a_layer() -> None:
    strays = sorted({dotted(path) for path in modules() if unit(dotted(path)) not in RANK})
    assert not strays, f"{', '.join(strays)}: say in LAYERS what they stand on"


def test_every_layer_has_modules() -> None:
    found = {unit(dotted(path)) for path in modules()}
    assert not set(RANK) - found


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_point_down(path: Path) -> None:
    own = unit(dotted(path))
    above = {name for name in of_core(path) if unit(name) != own and RANK[unit(name)] >= RANK[own]}
    assert not above, f"{dotted(path)} imports {sorted(above)} from its own layer or above"


#: Bounds on lines, docstrings included. A function may be longer if its docstring says why.
LONGEST_FILE, LONGEST_CLASS, LONGEST_FUNCTION = 400, 200, 60


@pytest.mark.parametrize("path", [CORE / "__init__.py", *modules(), *sorted(PLUGINS.rglob("*.py"))], ids=dotted)
def test_files_classes_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            most = LONGEST_CLASS if isinstance(node, ast.ClassDef) else LONGEST_FUNCTION
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= most or "longer than others because" in (ast.get_docstring(node) or ""), node.name


def test_imports_form_no_circle() -> None:
    """Modules of one package may know each other, but not in a circle, also not one that only a type checker sees."""
    known = {dotted(path) for path in modules()}

    def module(name: str) -> str:
        return name if name in known else name.rpartition(".")[0]

    graph = {dotted(path): {module(name) for name in of_core(path)} - {"", dotted(path)} for path in modules()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_importing_the_package_imports_no_other_module() -> None:
    assert not of_core(CORE / "__init__.py", runtime=True)


@pytest.mark.parametrize("path", sorted(PLUGINS.rglob("*.py")), ids=lambda path: path.stem)
def test_methods_know_nothing_above_method(path: Path) -> None:
    above = {name for name in of_core(path) if RANK[unit(name)] > RANK["method"]}
    assert not above, f"{path.name} imports {sorted(above)}"


@pytest.mark.parametrize("path", [CORE / "__init__.py", *modules()], ids=dotted)
def test_the_core_never_imports_a_method(path: Path) -> None:
    assert not [name for name in imported(path) if name.split(".")[0] == "czslkit_plugins"]


@pytest.mark.parametrize(
    "modules", ["czslkit, czslkit.cli", "czslkit.errors, czslkit.options, czslkit.registry",
                "czslkit.cli.registered_names", "czslkit.result_store", "czslkit.report.table"]
)  # fmt: skip
def test_what_needs_no_numbers_does_not_load_torch(modules: str) -> None:
    code = f"import sys, {modules}; print([m for m in ('torch', 'open_clip', 'timm', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
