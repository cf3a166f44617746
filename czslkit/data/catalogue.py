"""Which datasets there are, where they lie, and where they come from. Needs no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, UnknownNameError, did_you_mean
from .layout import pairs_file, write_dataset

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Source:
    """One download of a dataset."""

    what: str
    url: str
    unpack: str  # what goes where; {folder} is the dataset's folder, {root} the one above


_NATURAL_SPLITS = "https://senthilpurushwalkam.com/publications/compositional/compositional_split_natural.tar.gz"
SOURCES: dict[str, tuple[Source, ...]] = {
    "mit-states": (
        Source(
            "images",
            "http://wednesday.csail.mit.edu/joseph_result/state_and_transformation/release_dataset.zip",
            "release_dataset/images/* to {folder}/images, with '_' for ' ' in the folder names",
        ),
        Source("pair lists and metadata", _NATURAL_SPLITS, "mit-states/* to {folder}"),
    ),
    "ut-zappos": (
        Source(
            "images",
            "http://vision.cs.utexas.edu/projects/finegrained/utzap50k/ut-zap50k-images.zip",
            "the file that the metadata names as _image to {folder}/images/<attr>_<obj>/",
        ),
        Source("pair lists and metadata", _NATURAL_SPLITS, "ut-zap50k/* to {folder}"),
    ),
    "cgqa": (
        Source(
            "everything",
            "https://huggingface.co/datasets/nihalnayak/cgqa/resolve/main/cgqa.zip",
            "as it is to {root}; its top folder is cgqa",
        ),
    ),
}
"""Where each dataset was last reported alive; nothing is downloaded from here."""

NAMES = (*SOURCES, "demo")
"""The datasets known by name."""

_ALIASES = {"ut-zap50k": "ut-zappos"}
_FOLDERS = {"ut-zappos": ("ut-zappos", "ut-zap50k")}  # every other dataset lies in a folder of its name


def canonical(name: str) -> str:
    """The one spelling of a dataset's name.

    >>> canonical("ut-zap50k"), canonical("cgqa")
    ('ut-zappos', 'cgqa')
    """
    return _ALIASES.get(name, name)


def data_root(root: str | Path | None = None) -> Path:
    """Where datasets lie: ``root``, else what ``CZSLKIT_DATA`` says, else ``data`` in the current folder."""
    return Path(root or os.environ.get("CZSLKIT_DATA") or "data").expanduser()


def find(name: str, root: str | Path | None = None) -> Path | None:
    """The folder of a dataset, None where a known one is absent.

    Raises:
        UnknownNameError: neither a known dataset nor a folder under ``root``.
    """
    base, name = data_root(root), canonical(name)
    if name in NAMES:
        return next((base / each for each in _FOLDERS.get(name, (name,)) if (base / each).is_dir()), None)
    if not name or Path(name).name != name or name.startswith(".") or not (base / name).is_dir():
        known = sorted({*NAMES, *_custom(base)})
        raise UnknownNameError(
            f"no dataset named {name!r}.{did_you_mean(name, [*known, *_ALIASES])} Known: {', '.join(known)}. "
            f"A folder of that name under {base} would do, too."
        )
    return base / name


def locate(name: str, root: str | Path | None = None) -> Path:
    """The folder of a dataset; ``demo`` is rendered where it is absent.

    Raises:
        UnknownNameError: neither a known dataset nor a folder under ``root``.
        DataError: a dataset that is absent, with where to get it; or ``demo`` cannot be written.
    """
    folder = find(name, root)
    if folder is None and name == "demo":
        return _render_demo(data_root(root) / name)
    if folder is None:
        raise DataError(_absence(canonical(name), data_root(root)))
    return folder


def _custom(base: Path) -> list[str]:
    """Folders under ``base`` in the layout; hidden ones and other spellings of known ones do not count."""
    names = [each.name for each in base.iterdir() if pairs_file(each, "train").is_file()] if base.is_dir() else []
    return [name for name in names if not name.startswith(".") and name not in _ALIASES]


def _absence(name: str, base: Path) -> str:
    folders = [base / each for each in _FOLDERS.get(name, (name,))]
    lines = [f"{name} is not there: looked for {' and '.join(map(str, folders))}. To get it:"]
    for source in SOURCES[name]:
        lines += [f"  {source.what}: {source.url}", f"    {source.unpack.format(folder=folders[0], root=base)}"]
    return "\n".join(lines)


def _render_demo(folder: Path) -> Path:
    from . import demo

    print(f"rendering the demo dataset into {folder}, once", file=sys.stderr)
    write_dataset(folder, demo.split_pairs(), _demo_pictures())
    return folder


def _demo_pictures() -> Iterator[tuple[dict[str, str], Image.Image]]:
    from . import demo

    for split, attr, obj, index in demo.instances():
        entry = {"image": f"{attr}_{obj}/{split}_{index:03d}.png", "attr": attr, "obj": obj, "set": split}
        yield entry, demo.render_instance(split, attr, obj, index)
