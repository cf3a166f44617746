"""Files on other people's servers: what they are called, where they are had, and what of them a dataset needs."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DataError


class Refused(DataError):
    """What a source answers or holds cannot be used; another source may do better."""


@dataclass(frozen=True)
class RemoteFile:
    """One archive, the same bytes wherever it is had."""

    name: str
    """Of the file, ending in ``.zip`` or ``.tar.gz``; also what it is called below a mirror."""
    urls: tuple[str, ...]
    """Best first."""
    size: int | None = None
    """Bytes, None where nobody says."""
    sha256: str = "*"
    """In hex; ``*`` stands for digits that nobody gives."""


@dataclass(frozen=True)
class Source:
    """What a dataset takes from an archive."""

    file: RemoteFile
    within: str
    """Folder of the archive, at whatever depth: ``release_dataset/images``."""
    below: str = ""
    """Folder of the dataset that its content goes to, the dataset's own by default."""
    needed: tuple[str, ...] = ("",)
    """Beginnings of the paths below ``within`` that are needed; everything by default."""

    def path(self, member: str) -> str:
        """Where below ``within`` a member of the archive lies; empty where it is elsewhere, hidden or not needed.

        >>> images = Source(RemoteFile("pets.zip", ()), "pets/images")
        >>> [images.path(name) for name in ("v1/pets/images/wet dog/1.jpg", "pets/images/.DS_Store", "pets/README")]
        ['wet dog/1.jpg', '', '']
        """
        _, _, path = f"/{member}".partition(f"/{self.within}/")
        hidden = any(part.startswith(".") for part in path.split("/"))
        return path if path.startswith(self.needed) and not hidden else ""


_LISTS = ("compositional-split-natural/", "metadata_compositional-split-natural.t7")
_NATURAL_SPLITS = RemoteFile(
    "compositional_split_natural.tar.gz",
    ("https://senthilpurushwalkam.com/publications/compositional/compositional_split_natural.tar.gz",),
)

MIT_STATES = (
    Source(_NATURAL_SPLITS, "mit-states", needed=_LISTS),
    Source(
        RemoteFile(
            "release_dataset.zip",
            ("http://wednesday.csail.mit.edu/joseph_result/state_and_transformation/release_dataset.zip",),
        ),
        "release_dataset/images",
        "images",
    ),
)
UT_ZAPPOS = (
    Source(_NATURAL_SPLITS, "ut-zap50k", needed=_LISTS),
    Source(
        RemoteFile(
            "ut-zap50k-images.zip",
            ("http://vision.cs.utexas.edu/projects/finegrained/utzap50k/ut-zap50k-images.zip",),
        ),
        "ut-zap50k-images",
        "images",
    ),
)
CGQA = (
    Source(
        RemoteFile("cgqa.zip", ("https://huggingface.co/datasets/nihalnayak/cgqa/resolve/main/cgqa.zip",)),
        "cgqa",
        needed=("images/", *_LISTS),
    ),
)
GLOVE = RemoteFile(
    "glove.6B.zip",
    (
        "https://nlp.stanford.edu/data/glove.6B.zip",
        "https://huggingface.co/stanfordnlp/glove/resolve/main/glove.6B.zip",
    ),
    size=862_182_613,
    sha256="617afb2f*cbcf2fb",
)
"""Word vectors, of which ``GLOVE_MEMBER`` is needed."""
GLOVE_MEMBER = "glove.6B.300d.txt"


DOWNLOADS = ".downloads"
"""The folder below the root that archives are kept in until they are unpacked."""
