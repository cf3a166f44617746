"""Plugins of other distributions, installed for real, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "third_party"


def renamed(source: Path, changes: Mapping[str, str]) -> Path:
    """The project at ``source`` with words changed in files and folder names."""
    for path in sorted(source.rglob("*"), reverse=True):  # what a folder holds comes before it
        if path.is_file():
            text = path.read_text()
            for old, new in changes.items():
                text = text.replace(old, new)
            path.write_text(text)
        path.rename(path.with_name(changes.get(path.name, path.name)))
    return source


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Folders to put on ``PYTHONPATH``, each with one distribution that pip installed into it.

    ``rival`` is the third party's code under another distribution's name; ``shadow`` calls its method ``csp``.
    """
    root = tmp_path_factory.mktemp("third_party")

    def copied(source: Path, name: str, **changes: str) -> Path:
        copy = root / "sources" / name
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("broken", "__pycache__", "*.egg-info", "build"))
        return renamed(copy, changes)

    rival = {"czsl-thirdparty": "czsl-rival", "czsl_thirdparty": "czsl_rival", "1.2.0": "3.0"}
    shadow = {"czsl-thirdparty": "czsl-shadow", "czsl_thirdparty": "czsl_shadow", "1.2.0": "6.6"}
    names = {'"skim"': '"csp"', '"mean_layers"': '"mean_of_layers"', '"swatches"': '"samples"'}
    projects = {
        "thirdparty": copied(SOURCES, "thirdparty"),
        "broken": copied(SOURCES / "broken", "broken_"),
        "rival": copied(SOURCES, "rival", **rival),
        "shadow": copied(SOURCES, "shadow", **shadow, **names),
    }
    wheels = root / "wheels"
    offline = ["--no-index", "--no-deps", "--disable-pip-version-check", "--quiet"]
    build = [*offline, "--no-build-isolation", "--wheel-dir", wheels, *projects.values()]
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", *map(str, build)], check=True)
    for name in projects:
        (wheel,) = wheels.glob(f"czsl_{name}-*.whl")
        subprocess.run([*pip, "install", *offline, "--target", root / name, wheel], check=True)
    return {name: root / name for name in projects}


def python(*arguments: object, path: tuple[Path, ...]) -> subprocess.CompletedProcess[str]:
    """Run Python with the distributions in ``path`` installed."""
    found = os.pathsep.join(filter(None, [*map(str, path), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1"},  # more wait for each other where others run
        cwd=path[0],
    )


def rows(listing: str) -> list[list[str]]:
    """Kind, name, distribution and version of every line of ``czslkit list`` but the first."""
    return [line.split()[:4] for line in listing.splitlines()[1:]]


def test_list_names_what_plugins_bring_with_their_distribution(installed: Mapping[str, Path]) -> None:
    done = python("-m", "czslkit", "list", path=(installed["thirdparty"],))
    assert done.returncode == 0, done.stderr
    assert ["method", "skim", "czsl-thirdparty", "1.2.0"] in rows(done.stdout)
    assert ["aggregator", "mean_layers", "czsl-thirdparty", "1.2.0"] in rows(done.stdout)
    assert ["dataset", "swatches", "czsl-thirdparty", "1.2.0"] in rows(done.stdout)
    assert "Skim: learned words attend to the mean of all visual layers." in done.stdout


def test_list_reports_a_plugin_that_does_not_load_and_shows_the_rest(installed: Mapping[str, Path]) -> None:
    alone = python("-m", "czslkit", "list", path=(installed["thirdparty"],))
    beside = python("-m", "czslkit", "list", path=(installed["thirdparty"], installed["broken"]))
    assert beside.stdout == alone.stdout
    assert beside.stderr.splitlines() == [
        "plugin 'broken' (czsl-broken 0.1) did not load: ModuleNotFoundError: No module named 'foo_that_is_not_there'"
    ]
    assert beside.returncode == 0


def test_a_name_that_is_not_found_is_answered_with_the_plugin_that_did_not_load(installed: Mapping[str, Path]) -> None:
    done = python("-m", "czslkit", "bench", "--methods", "skimm", path=(installed["thirdparty"], installed["broken"]))
    assert done.returncode == 2
    assert "no method named 'skimm'. Did you mean 'skim'? Known: ade, balanced, caila, " in done.stderr
    assert "plugin 'broken' (czsl-broken 0.1) did not load: ModuleNotFoundError" in done.stderr
    assert "Traceback" not in done.stderr


def test_bench_runs_a_third_partys_method_and_records_its_version(
    installed: Mapping[str, Path], toys: Path, tmp_path: Path
) -> None:
    cells = ["--methods", "skim", "--datasets", "toys", "--worlds", "closed"]
    settings = ["--set", "train.epochs=1", "train.batch_size=8"]
    folders = ["--data", toys, "--runs", tmp_path / "runs"]
    both = (installed["thirdparty"], installed["broken"])
    done = python("-m", "czslkit", "bench", *cells, *settings, *folders, path=both)
    assert done.returncode == 0, done.stderr
    assert "set aside: plugin 'broken' (czsl-broken 0.1) did not load: ModuleNotFoundError" in done.stderr
    (file,) = tmp_path.glob("runs/toys/skim/*/closed.json")
    result = json.loads(file.read_text())
    assert result["status"] == "done"
    code = result["depends"]["training"]["code"]
    assert {name: version for name, version in code.items() if name.startswith("czsl_thirdparty")} == {
        f"czsl_thirdparty:{name}": "czsl-thirdparty 1.2.0" for name in ("AttendToLevel", "MeanLayers", "Skim")
    }
    assert result["components"]["czsl_thirdparty"] == "czsl-thirdparty 1.2.0"
    assert result["training"]["trainable_parameters"] > 0


@pytest.mark.parametrize("name", ["swatches", "swatch-book"])
def test_bench_runs_on_a_third_partys_dataset(installed: Mapping[str, Path], tmp_path: Path, name: str) -> None:
    done = python("-m", "czslkit", *on_swatches(tmp_path, name), path=(installed["thirdparty"],))
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("runs/swatches/clip/*/closed.json")
    result = json.loads(file.read_text())
    assert result["status"] == "done"
    assert result["depends"]["training"]["data"].keys() == {"table.csv", "images"}


def test_bench_runs_on_a_dataset_of_a_single_file(tmp_path: Path) -> None:
    file = SOURCES / "src" / "czsl_thirdparty" / "swatches.py"
    done = python("-m", "czslkit", *on_swatches(tmp_path, "swatches"), "--plugins", file, path=(tmp_path,))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "swatches" / "table.csv").is_file()


def on_swatches(folder: Path, name: str) -> list[object]:
    cells = ["bench", "--methods", "clip", "--datasets", name, "--worlds", "closed", "--set", "backbone=demo"]
    return [*cells, "--data", folder / "data", "--runs", folder / "runs"]


def test_the_check_of_installed_names_is_printed_and_written(
    installed: Mapping[str, Path], clip_file: Path, tmp_path: Path
) -> None:
    checked = ["check", "skim", "swatches", "--set", f"skim.backbone={clip_file}", "--json", tmp_path / "report.json"]
    done = python("-W", "error", "-m", "czslkit", *checked, path=(installed["thirdparty"],))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed   a killed training ends with the same weights (4 epochs, killed after each)" in done.stdout
    assert "dataset swatches: 9 passed, 0 failed, 0 skipped" in done.stdout
    reports = json.loads((tmp_path / "report.json").read_text())
    assert [(report["kind"], report["name"], report["passed"]) for report in reports] == [
        ("method", "skim", True),
        ("dataset", "swatches", True),
    ]


def test_a_third_partys_method_learns(installed: Mapping[str, Path], clip_file: Path) -> None:
    code = f"""
import torch
from czslkit import Batch, build
from czslkit.testing import demo_space
torch.manual_seed(0)
space = demo_space()
method = build("skim", space, backbone={str(clip_file)!r}).train()
seen = space.pairs[space.seen]
images = torch.randn(len(seen), 3, 32, 32) + 3 * torch.randn(len(seen), 3, 1, 1)  # each of its own colour
batch = Batch(images, *seen.T)
optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 3e-3)
losses = []
for _ in range(80):
    losses.append(method.loss(batch, seen))
    losses[-1].backward()
    optimizer.step()
    optimizer.zero_grad()
print(losses[0].item(), losses[-1].item())
"""
    done = python("-c", code, path=(installed["thirdparty"],))
    assert done.returncode == 0, done.stderr
    first, last = map(float, done.stdout.split())
    assert last < first / 2


def test_two_claims_to_one_name_are_an_error_naming_both(installed: Mapping[str, Path]) -> None:
    both = (installed["thirdparty"], installed["rival"])
    claims = "is claimed by czsl-rival 3.0 (czsl_rival) and by czsl-thirdparty 1.2.0 (czsl_thirdparty)"
    listed = python("-m", "czslkit", "list", path=both)
    found = {re.sub(r"(czsl_\w+)\.\w+\)", r"\1)", line) for line in listed.stderr.splitlines()}
    assert found >= {f"{name} {claims}" for name in ("aggregator 'mean_layers'", "dataset 'swatches'", "method 'skim'")}
    assert all(line.endswith(claims) for line in found)
    done = python("-m", "czslkit", "bench", "--methods", "skim", path=both)
    assert done.returncode == 2
    assert f"method 'skim' {claims}; it works once one of the two is uninstalled" in done.stderr


def test_two_claims_to_one_name_leave_other_names_alone(installed: Mapping[str, Path]) -> None:
    code = "import czslkit; print(czslkit.METHODS['csp'].__module__, czslkit.AGGREGATORS['low_high'].__module__)"
    done = python("-c", code, path=(installed["thirdparty"], installed["rival"], installed["shadow"]))
    assert done.stdout.split() == ["czslkit_plugins.csp", "czslkit_plugins.msci"], done.stderr


def test_a_plugin_that_claims_a_built_ins_name_is_set_aside(installed: Mapping[str, Path]) -> None:
    done = python("-m", "czslkit", "list", path=(installed["shadow"], installed["thirdparty"]))
    assert done.stderr.splitlines() == [
        "plugin 'thirdparty' (czsl-shadow 6.6) did not load: NameTakenError: method 'csp' is already registered by "
        "czslkit 0.1.0 (czslkit_plugins.csp); czsl-shadow 6.6 (czsl_shadow) cannot take the same name"
    ]
    names = rows(done.stdout)
    assert ["method", "csp", "czslkit", "0.1.0"] in names
    assert ["method", "skim", "czsl-thirdparty", "1.2.0"] in names
    assert not [row for row in names if row[2] == "czsl-shadow"]
    assert done.returncode == 0
