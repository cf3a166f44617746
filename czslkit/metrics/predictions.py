"""The predicted pair of every test image by name, and the file that holds them. It imports neither torch nor numpy."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..foreign_files import JSON_LIMIT, parse_json
from ..sizes import format_bytes

FILE = "predictions.json.gz"  # end of the name of the file beside a result
FORMAT = 1
_LISTS = ("images", "pairs", "true", "predicted")


@dataclass(frozen=True)
class Predictions:
    """The true pair and the predicted pair of ``N`` images, at the bias of the best harmonic mean.

    Attributes:
        folder: the folder of the images on the machine that predicted; they may have moved since.
        images: path of each image below ``folder``, with forward slashes.
        pairs: attribute, object, and whether it is seen, of every pair that is true or predicted.
        true: the number of each image's true pair in ``pairs``.
        predicted: the number of each image's predicted pair in ``pairs``.
    """

    folder: str
    images: Sequence[str]
    pairs: Sequence[tuple[str, str, bool]]
    true: Sequence[int]
    predicted: Sequence[int]

    def __len__(self) -> int:
        return len(self.images)

    def to_bytes(self) -> bytes:
        """Return the content of a file of compressed JSON; the same predictions give the same bytes."""
        content = json.dumps({"format": FORMAT, **asdict(self)}, separators=(",", ":"))
        return gzip.compress(content.encode(), mtime=0)

    @staticmethod
    def from_bytes(content: bytes) -> Predictions:
        """Return the predictions in a file that :meth:`to_bytes` made.

        Raises:
            ValueError: the content is another file, has another format, or is longer than ``JSON_LIMIT`` when expanded.
        """
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                text = file.read(JSON_LIMIT + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"holds no predictions: {error}") from error
        if len(text) > JSON_LIMIT:
            raise ValueError(f"holds more than {format_bytes(JSON_LIMIT)}, the largest size that is read")
        found = parse_json(text)
        if not isinstance(found, Mapping) or found.get("format") != FORMAT:
            raise ValueError(f"does not have format {FORMAT}")
        _check(found)
        pairs = [(attr, obj, seen) for attr, obj, seen in found["pairs"]]
        return Predictions(found["folder"], found["images"], pairs, found["true"], found["predicted"])


def _check(found: Mapping[str, Any]) -> None:
    """Check that the entries of a file have their types and describe the same images.

    Raises:
        ValueError: an entry is missing or is something else.
    """
    if not isinstance(found.get("folder"), str) or not all(isinstance(found.get(name), list) for name in _LISTS):
        raise ValueError(f"lacks the text folder or one of the lists {', '.join(_LISTS)}")
    images, pairs, true, predicted = (found[name] for name in _LISTS)
    if not all(isinstance(image, str) for image in images):
        raise ValueError("has images that are not texts")
    if not all(isinstance(pair, list) and list(map(type, pair)) == [str, str, bool] for pair in pairs):
        raise ValueError("has pairs that are not an attribute, an object and a flag")
    if not len(images) == len(true) == len(predicted):
        lengths = f"{len(images)} images, {len(true)} true and {len(predicted)} predicted pairs"
        raise ValueError(f"has {lengths}, expected as many of each")
    if not all(type(number) is int and 0 <= number < len(pairs) for number in (*true, *predicted)):
        raise ValueError(f"has numbers of pairs outside 0 to {len(pairs) - 1}")
