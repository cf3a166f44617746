"""The checks of an examination. Each check returns the rows of a section and reports problems, without the network.

``versions`` and ``plugins`` only read metadata. The other checks import heavy libraries, which may end the process;
``czslkit.doctor.subprocess_checks`` runs these checks in another process.
"""

from __future__ import annotations

import inspect
import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ..entry_points import installed_plugins
from ..errors import ConfigError, DataError
from ..provenance import PACKAGES
from .findings import Report, Rows

if TYPE_CHECKING:
    from ..data.check.status import DatasetStatus

_ENOUGH_SPACE = 1 << 30  # bytes that should be free on the disk of the datasets


def versions(report: Report) -> Rows:
    """Return the versions of Python, the system and the packages; report unmet requirements."""
    from packaging.requirements import Requirement

    rows = {"python": platform.python_version(), "platform": platform.platform()}
    rows |= {name: _version(name) or "not installed" for name in PACKAGES}
    if simd := _version("pillow-simd"):
        rows["pillow-simd"] = f"{simd}; resized images may differ from those of Pillow in the last bit"
    for text in metadata.requires("czslkit") or () if _version("czslkit") else ():
        needed = Requirement(text)
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        found = _version(needed.name) or (simd if needed.name == "pillow" else "")
        if not found or not needed.specifier.contains(found, prereleases=True):
            what = f"{needed.name} is {found or 'not installed'}, czslkit needs {needed.name}{needed.specifier}"
            report(what, f"pip install '{needed.name}{needed.specifier}'")
    return rows


def _version(package: str) -> str:
    """Return the version of a package, ``""`` if it is not installed or its metadata is damaged."""
    try:
        return metadata.version(package) or ""  # None if the metadata is damaged
    except metadata.PackageNotFoundError:
        return ""


def plugins() -> Rows:
    """Return the distribution and module of each installed plugin, without importing it."""
    return {plugin.name: f"{plugin.dist} ({plugin.module})" for plugin in installed_plugins()}


def devices(report: Report) -> Rows:
    """Return the processors and accelerators that torch can use; report an NVIDIA driver that torch cannot use."""
    import torch

    rows = {"cpu": f"{os.cpu_count()} processors, {torch.get_num_threads()} threads{_main_memory()}"}
    for n in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(n)
        rows[f"cuda:{n}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        rows["mps"] = "available"
    if not torch.cuda.is_available() and Path("/proc/driver/nvidia/version").exists():
        what = f"there is an NVIDIA driver, but torch {torch.__version__} cannot use it"
        report(what, "install a torch version that supports the driver: https://pytorch.org/get-started")
    return rows


def _main_memory() -> str:
    """Return the size of the main memory as the end of a row, ``""`` if the size is unknown."""
    try:
        return f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB of memory"
    except (AttributeError, OSError, ValueError):
        return ""


def weights(backbone: str, report: Report) -> Rows:
    """Return the files of CLIP weights on this machine, by the backbone setting that selects them.

    Args:
        backbone: backbone setting or file of weights that must be on this machine; ``""`` for none. Absent weights
            are reported.
    """
    import open_clip
    from huggingface_hub.constants import HF_HUB_CACHE

    from ..backbones.open_clip import OpenClip, weight_files
    from ..weights import read_tensors

    default = inspect.signature(OpenClip).parameters["argument"].default
    cached = {f"{name}/{tag}": file for name, tag in open_clip.list_pretrained() for file in _cached_weights(name, tag)}
    rows = {"cache": HF_HUB_CACHE, default: "not on this machine; the first use downloads it", **cached}
    after = backbone.partition("/")[2]
    files = [Path(part) for part in (backbone, after, after.partition("/")[2]) if part]
    if backbone.startswith("local-dir:"):
        files = weight_files(Path(backbone.removeprefix("local-dir:")))
    if file := next((file for file in files if file.is_file()), None):
        try:
            rows[backbone] = f"{len(read_tensors(file))} tensors, {file.stat().st_size / 2**20:,.0f} MiB"
        except ConfigError as error:
            report(str(error), "copy the whole file again")
    elif backbone and backbone not in cached:
        remedy = "copy it from a machine with a network, or give a file: NAME//path/to/weights"
        report(f"{backbone!r} is neither a file nor among the weights on this machine", remedy)
    return rows


def _cached_weights(name: str, tag: str) -> Iterator[str]:
    """Yield the file in which open_clip finds a model's weights without a network, or nothing."""
    import open_clip
    from huggingface_hub import try_to_load_from_cache

    config = open_clip.get_pretrained_cfg(name, tag)
    repository, file_name = os.path.split(config.get("hf_hub", ""))
    file_name = file_name or "open_clip_pytorch_model.bin"
    for candidate in ("open_clip_model.safetensors", str(Path(file_name).with_suffix(".safetensors")), file_name):
        cached_file = try_to_load_from_cache(repository, candidate) if repository else None
        if isinstance(cached_file, str):
            yield cached_file
            return
    downloaded = Path("~/.cache/clip").expanduser() / os.path.basename(config.get("url") or "none")
    if downloaded.is_file():
        yield str(downloaded)


def datasets(root: str | None, report: Report) -> Rows:
    """Return the folder of the datasets, its free space, and every dataset and unfinished download in it.

    Reports an unusable folder, a full disk, incomplete datasets and unreadable lists.

    Args:
        root: folder of the datasets, as for ``load_dataset``.
    """
    from ..data.check.status import dataset_statuses, unfinished_downloads
    from ..data.dataset_folders import data_root
    from ..sizes import format_bytes

    base = data_root(root)
    existing = next(folder for folder in (base, *base.absolute().parents) if folder.exists())
    rows = {"folder": str(base.absolute()) + ("" if base.is_dir() else " (does not exist yet)")}
    if not existing.is_dir():
        what = f"{existing} is a file, expected the folder of the datasets"
        report(what, "give another folder with --data or CZSLKIT_DATA")
        return rows
    free = shutil.disk_usage(existing).free
    rows["free"] = format_bytes(free)
    if free < _ENOUGH_SPACE:
        report(f"{rows['free']} are free in {existing}", "delete files, or give another folder with --data")
    for status in dataset_statuses(root):
        rows[status.name] = (
            f"{status.state}, {status.images:,} images in {status.folder}" if status.folder else "absent"
        )
        if problem := status.problem or _listing_error(status):
            remedy = f"czslkit data download {status.name} if it is published; czslkit data verify {status.name}"
            report(f"{status.name}: {problem}", f"{remedy} prints all errors")
    return rows | {f"download {n}": line for n, line in enumerate(unfinished_downloads(root), 1)}


def _listing_error(status: DatasetStatus) -> str:
    """Return the error in the lists of a dataset, ``""`` if there is none or the dataset is absent."""
    from ..data.dataset_folders import dataset

    try:
        if status.folder:
            dataset(status.name).listing(status.folder)
    except DataError as error:
        return str(error)
    return ""
