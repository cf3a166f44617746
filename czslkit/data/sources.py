"""The archives of the downloadable datasets: their file names, URLs and needed parts."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DataError


class Refused(DataError):
    """An unusable answer or archive of one source. Another source may have a usable archive."""


@dataclass(frozen=True)
class RemoteFile:
    """One archive, with the same bytes at every URL."""

    name: str
    """File name, which ends in ``.zip`` or ``.tar.gz``. A mirror has the archive under this name."""
    urls: tuple[str, ...]
    """URLs, the best one first."""
    size: int | None = None
    """Bytes, None if the size is not published."""
    sha256: str = "*"
    """SHA-256 in hex. A ``*`` replaces digits that are not published."""


@dataclass(frozen=True)
class Source:
    """The part of an archive that a dataset needs."""

    file: RemoteFile
    within: str
    """Folder of the archive, at any depth, such as ``release_dataset/images``."""
    below: str = ""
    """Subfolder of the dataset that the content is unpacked to; by default the dataset's folder itself."""
    needed: tuple[str, ...] = ("",)
    """Prefixes of the needed paths below ``within``; by default all paths are needed."""

    def path(self, member: str) -> str:
        """Return the path of a member below ``within``, or an empty text if the member is not needed.

        Members outside ``within`` and hidden files are not needed.

        >>> images = Source(RemoteFile("pets.zip", ()), "pets/images")
        >>> [images.path(name) for name in ("v1/pets/images/wet dog/1.jpg", "pets/images/.DS_Store", "pets/README")]
        ['wet dog/1.jpg', '', '']
        """
        _, _, path = f"/{member}".partition(f"/{self.within}/")
        hidden = any(part.startswith(".") for part in path.split("/"))
        return path if path.startswith(self.needed) and not hidden else ""


DOWNLOADS = ".downloads"
"""Name of the folder of downloaded archives, in the data root."""

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
VAW_CZSL = (
    "https://drive.google.com/drive/folders/1CalwDXkkGALxz0e-aCFg9xBmf7Pu4eXL",  # README of github.com/nirat1606/OADis
    "https://drive.google.com/file/d/1_J-oiLnj0P0WB9OFqTsxLqHMv8wdOL_a/view",  # a zip archive, of hirunima/OWCZSL
)
"""Pages with the files of VAW-CZSL."""
CLOTHING16K = (
    "https://drive.google.com/drive/folders/1ZSw4uL8bjxKxBhrEFVeG3rgewDyDVIWj",  # README of github.com/PRIS-CV/IVR
    "https://drive.google.com/drive/folders/1ky5BvTFrMkPBdAWixHFGLdcfJHfu5e9_",  # README of github.com/haoosz/ade-czsl
)
"""Pages with the files of Clothing16K."""
GLOVE = RemoteFile(
    "glove.6B.zip",
    (
        "https://nlp.stanford.edu/data/glove.6B.zip",
        "https://huggingface.co/stanfordnlp/glove/resolve/main/glove.6B.zip",
    ),
    size=862_182_613,
    sha256="617afb2f*cbcf2fb",
)
"""Archive of the GloVe word vectors."""
GLOVE_MEMBER = "glove.6B.300d.txt"
"""The only needed member of ``GLOVE``."""
