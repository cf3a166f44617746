"""What there is to work with on this machine, and what of it is wrong. Fails at nothing, and uses no network."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError
from .provenance import PACKAGES
from .registry import failures, installed_plugins, load_plugins

if TYPE_CHECKING:
    from .data.check.status import DatasetStatus

Rows = dict[str, str]
Report = Callable[[str, str], None]  # what is wrong, and its remedy

_LEAST = 1 << 30  # bytes free, fewer than which are too few
_WIDTH = 100
_SECONDS = 300
#: Runs ``probe`` in a process of its own, since a broken library may end the process that imports it.
_PROBE = "import sys; *asked, sys.path = *sys.argv[1:4], sys.argv[4:]; from czslkit.doctor import probe; probe(*asked)"
_MARK = "czslkit doctor: "  # a plugin may print, too


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, and how it is put right."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Examination:
    """What there is, by section, and everything that is wrong."""

    sections: dict[str, Rows]
    problems: tuple[Problem, ...]

    def to_text(self) -> str:
        """A page to read."""
        lines = []
        for title, rows in self.sections.items():
            width = max(map(len, rows), default=0)
            lines += [title, *(f"  {name:{width}}  {value}".rstrip() for name, value in rows.items()), ""]
        if not self.problems:
            return "\n".join([*lines, "nothing is wrong"])
        lines.append("what is wrong:")
        for problem in self.problems:
            lines += [_wrapped(problem.what, "  - ", "    "), _wrapped(problem.remedy, "    -> ", "       ")]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**self.sections, "problems": [vars(problem) for problem in self.problems]}


def examine(data: str | Path | None = None, backbone: str = "") -> Examination:
    """Look at packages, devices, datasets, weights and plugins.

    Args:
        data: folder of the datasets, as for ``load_dataset``.
        backbone: a setting whose weights must be here, such as ``ViT-L-14-quickgelu/openai`` or a file.
    """
    problems: list[Problem] = []

    def report(what: str, remedy: str) -> None:
        problems.append(Problem(what, remedy))

    found = _probed(str(data or ""), backbone, report)
    sections = {
        "versions": _guarded("versions", lambda: _versions(report), report),
        **{name: found.get(name, {}) for name in ("devices", "data", "weights")},
        "plugins": _guarded("plugins", _plugins, report),
    }
    return Examination(sections, tuple(problems))


def _guarded(section: str, look: Callable[[], Rows], report: Report) -> Rows:
    try:
        return look()
    except Exception as error:  # whatever is broken is what was asked for
        report(f"{section}: {type(error).__name__}: {error}", "put that right, and run czslkit doctor again")
        return {}


def _versions(report: Report) -> Rows:
    from packaging.requirements import Requirement

    versions = {"python": platform.python_version(), "platform": platform.platform()}
    versions |= {name: _version(name) or "not installed" for name in PACKAGES}
    if simd := _version("pillow-simd"):
        versions["pillow-simd"] = f"{simd}; what it resizes may differ from the originals in the last bit"
    for text in metadata.requires("czslkit") or () if _version("czslkit") else ():
        need = Requirement(text)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        there = _version(need.name) or (simd if need.name == "pillow" else "")
        if not there or not need.specifier.contains(there, prereleases=True):
            what = f"{need.name} is {there or 'not installed'}, czslkit needs {need.name}{need.specifier}"
            report(what, f"pip install '{need.name}{need.specifier}'")
    return versions


def _version(package: str) -> str:
    try:
        return metadata.version(package) or ""  # None where its metadata is damaged
    except metadata.PackageNotFoundError:
        return ""


def _plugins() -> Rows:
    return {plugin.name: f"{plugin.dist} ({plugin.module})" for plugin in installed_plugins()}


def _probed(data: str, backbone: str, report: Report) -> dict[str, Rows]:
    """The sections that a process of its own found out about."""
    command = [sys.executable, "-c", _PROBE, _MARK, data, backbone, *sys.path]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=_SECONDS)
        out, end = done.stdout, _end(done.returncode, done.stderr)
    except subprocess.TimeoutExpired as error:
        out, end = bytes(error.stdout or b"").decode(errors="replace"), f"did not end within {_SECONDS} s"
    found: dict[str, Rows] = {}
    tried = "start"
    for line in out.splitlines():
        if line.startswith(_MARK):
            key, value = json.loads(line.removeprefix(_MARK))
            if key == "trying":
                tried = value
            elif key == "problem":
                report(*value)
            else:
                found[key] = value
    if end:
        report(f"the process that looked at {tried} {end}", f"install anew what {tried} rests on")
    return found


def _end(status: int, stderr: str) -> str:
    """How a process ended, empty if well."""
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    last = (stderr.strip() or "without a message").splitlines()[-1]
    return f"ended with {status}: {last}" if status else ""


def probe(mark: str, data: str, backbone: str) -> None:
    """Print what can only be told by importing things, each on a line that starts with ``mark``, as JSON."""

    def log(key: str, value: Any) -> None:
        print(f"\n{mark}{json.dumps([key, value])}", flush=True)

    def report(what: str, remedy: str) -> None:
        log("problem", [what, remedy])

    def went_well(name: str, look: Callable[[], Rows | None]) -> bool:
        log("trying", name)
        try:
            log(name, look() or {})
        except (Exception, SystemExit) as error:
            report(f"{name}: {type(error).__name__}: {error}", f"install anew what {name} rests on")
            return False
        return True

    steps: dict[str, Callable[[], Rows | None]] = {  # each rests on those before it
        **{module: functools.partial(_import, module) for module in ("numpy", "PIL.Image", "torch")},
        "devices": lambda: _devices(report),
        **{module: functools.partial(_import, module) for module in ("torchvision", "open_clip", "timm")},
        "components": load_plugins,
        "weights": lambda: _weights(backbone, report),
    }
    all(went_well(name, look) for name, look in steps.items())  # up to the first that did not
    for line in failures():
        report(line, "uninstall its distribution, install what it needs, or ask its author")
    went_well("data", lambda: _data(data, report))  # here, since plugins bring datasets, too


def _import(module: str) -> None:
    importlib.import_module(module)


def _devices(report: Report) -> Rows:
    import torch

    rows = {"cpu": f"{os.cpu_count()} processors, {torch.get_num_threads()} threads{_memory()}"}
    for n in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(n)
        rows[f"cuda:{n}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        rows["mps"] = "available"
    if not torch.cuda.is_available() and Path("/proc/driver/nvidia/version").exists():
        what = f"there is an NVIDIA driver, and torch {torch.__version__} cannot use it"
        report(what, "install the torch that fits the driver: https://pytorch.org/get-started")
    return rows


def _memory() -> str:
    try:
        return f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB of memory"
    except (AttributeError, OSError, ValueError):  # not on this system
        return ""


def _weights(backbone: str, report: Report) -> Rows:
    """Which CLIP weights are here, by the setting that asks for them."""
    import open_clip
    from huggingface_hub.constants import HF_HUB_CACHE

    from .backbones.open_clip import OpenClip
    from .weights import read_tensors

    usual = inspect.signature(OpenClip).parameters["argument"].default
    here = {f"{n}/{tag}": file for n, tag in open_clip.list_pretrained() for file in _cached(n, tag)}
    rows = {"cache": HF_HUB_CACHE, usual: "not here, comes from the hub when first used", **here}
    files = (Path(part) for part in (backbone, backbone.partition("/")[2]) if part)
    if file := next((file for file in files if file.is_file()), None):
        try:
            rows[backbone] = f"{len(read_tensors(file))} tensors, {file.stat().st_size / 2**20:,.0f} MiB"
        except ConfigError as error:
            report(str(error), "take a whole copy of the file")
    elif backbone and backbone not in here:
        remedy = "bring it here from a machine with a network, or name a file: NAME//path/to/weights"
        report(f"{backbone!r} is neither a file nor among the weights that are here", remedy)
    return rows


def _cached(name: str, tag: str) -> Iterator[str]:
    """Where open_clip finds weights without a network."""
    import open_clip
    from huggingface_hub import try_to_load_from_cache

    config = open_clip.get_pretrained_cfg(name, tag)
    repository, file = os.path.split(config.get("hf_hub", ""))
    file = file or "open_clip_pytorch_model.bin"
    for each in ("open_clip_model.safetensors", str(Path(file).with_suffix(".safetensors")), file):
        found = try_to_load_from_cache(repository, each) if repository else None
        if isinstance(found, str):
            yield found
            return
    fetched = Path("~/.cache/clip").expanduser() / os.path.basename(config.get("url") or "none")
    if fetched.is_file():
        yield str(fetched)


def _data(root: str, report: Report) -> Rows:
    from .data.check.status import dataset_statuses, unfinished_downloads
    from .data.folders import data_root
    from .sizes import format_bytes

    base = data_root(root)
    there = next(folder for folder in (base, *base.absolute().parents) if folder.exists())
    rows = {"folder": str(base.absolute()) + ("" if base.is_dir() else " (not there yet)")}
    if not there.is_dir():
        report(f"{there} is a file, expected the folder of the datasets", "name another with --data or CZSLKIT_DATA")
        return rows
    free = shutil.disk_usage(there).free
    rows["free"] = format_bytes(free)
    if free < _LEAST:
        report(f"{rows['free']} are free below {there}", "make room, or name another folder")
    for each in dataset_statuses(root):
        rows[each.name] = f"{each.state}, {each.images:,} images in {each.folder}" if each.folder else "absent"
        if fault := each.fault or _unreadable(each):
            remedy = f"czslkit data download {each.name} if it is a published one; czslkit data verify {each.name}"
            report(f"{each.name}: {fault}", f"{remedy} says all that is wrong")
    return rows | {f"on its way {n}": line for n, line in enumerate(unfinished_downloads(root), 1)}


def _unreadable(holding: DatasetStatus) -> str:
    """Why the lists of a dataset cannot be read, empty if they can or there is no dataset."""
    from .data.folders import dataset
    from .errors import DataError

    try:
        if holding.folder:
            dataset(holding.name).listing(holding.folder)
    except DataError as error:
        return str(error)
    return ""


def _wrapped(text: str, first: str, rest: str) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
