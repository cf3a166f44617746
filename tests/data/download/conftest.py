"""A web server with small archives in the shape of the published ones, and a call that downloads from it."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from czslkit.data.datasets import DATASETS
from czslkit.data.download import install
from czslkit.data.download.download import download
from czslkit.data.download.resumable_http import HttpClient
from czslkit.data.layout import metadata_file
from czslkit.data.make.mini import write_mini
from czslkit.data.published import BENCHMARKS
from czslkit.data.sources import GLOVE, RemoteFile

CLIENT = HttpClient(timeout=2, attempts=2, pause=0.001, progress=False)


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tar_bytes(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def files_below(folder: Path) -> dict[str, bytes]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith("."))
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="session")
def zipped() -> Callable[[Mapping[str, bytes]], bytes]:
    """Returns the bytes of a zip archive of files."""
    return zip_bytes


@pytest.fixture(scope="session")
def tarred() -> Callable[[Mapping[str, bytes]], bytes]:
    """Returns the bytes of a ``.tar.gz`` archive of files."""
    return tar_bytes


@pytest.fixture(scope="session")
def below() -> Callable[[Path], dict[str, bytes]]:
    """Returns the content of every file of a folder that is not hidden, by its path."""
    return files_below


@pytest.fixture(scope="session")
def archives_in() -> Callable[[Path], list[str]]:
    """Returns the names of the archives below a root, without records and locks."""
    return lambda root: sorted(file.name for file in (root / ".downloads").glob("[!.]*") if file.suffix != ".json")


@pytest.fixture(scope="session")
def leftovers() -> Callable[[Path], list[str]]:
    """Returns the names of the hidden folders below a root, without that of the archives."""
    return lambda root: [
        each.name for each in root.iterdir() if each.is_dir() and each.name[0] == "." and each.name != ".downloads"
    ]


@pytest.fixture(scope="session")
def minis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small replicas of the three datasets, as their archives unpack by hand."""
    root = tmp_path_factory.mktemp("minis")
    for name in BENCHMARKS:
        write_mini(name, root)
    return root


@pytest.fixture(scope="session")
def published(minis: Path) -> dict[str, bytes]:
    """Archives in the shape of the published ones, with needed and other files."""
    mit, ut, cgqa = (files_below(minis / name) for name in BENCHMARKS)
    entries = torch.load(metadata_file(minis / "ut-zappos"), weights_only=True)
    shoes = {f"ut-zap50k-images/{entry['_image']}": ut[f"images/{entry['image']}"] for entry in entries}
    return {
        "compositional_split_natural.tar.gz": tar_bytes(
            {f"mit-states/{name}": content for name, content in mit.items() if not name.startswith("images")}
            | {f"ut-zap50k/{name}": content for name, content in ut.items() if not name.startswith("images")}
            | {"ut-zap50k/compositional-split/train_pairs.txt": b"older", "README": b"!"}
        ),
        "release_dataset.zip": zip_bytes(
            {f"release_dataset/{k.replace('_', ' ')}": v for k, v in mit.items() if k.startswith("images")}
            | {"release_dataset/images/.DS_Store": b"!", "release_dataset/meta/adj_ants.csv": b"!"}
        ),
        "ut-zap50k-images.zip": zip_bytes(
            shoes | {"ut-zap50k-images/Boots/Knee High/Maker/1.1.jpg": b"!", "README": b"!"}
        ),
        "cgqa.zip": zip_bytes({f"cgqa/{name}": content for name, content in cgqa.items()} | {"cgqa/notes.txt": b"!"}),
    }


@pytest.fixture
def full_shop(shop: Any, published: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A web server with every archive at two addresses, ``/official/`` and ``/hub/``, which the datasets name."""

    def here(file: RemoteFile) -> RemoteFile:
        return replace(file, urls=tuple(f"{shop.url}/{shelf}/{file.name}" for shelf in ("official", "hub")))

    for name, content in published.items():
        shop.files |= {f"official/{name}": content, f"hub/{name}": content}
    for name in BENCHMARKS:
        sources = tuple(replace(source, file=here(source.file)) for source in DATASETS[name].sources)
        monkeypatch.setattr(DATASETS[name], "sources", sources)
    monkeypatch.setattr(install, "GLOVE", here(GLOVE))
    return shop


@pytest.fixture
def get(tmp_path: Path) -> Callable[..., tuple[Path, ...]]:
    """Downloads datasets to ``tmp_path``."""
    return lambda names, **options: download(names, tmp_path, client=CLIENT, log=lambda line: None, **options)
