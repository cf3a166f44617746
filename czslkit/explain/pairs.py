"""Find the pairs to explain: pairs that the user names, or pairs that a method ranks highest for the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError, did_you_mean
from ..method import Method, ranked
from ..types import ImageFeatures, PairSpace, Setting

_PAIRS_PER_CHUNK = 2048  # pairs scored at a time, to limit the memory of text features


def parse_pairs(text: str, space: PairSpace) -> Tensor:
    """Return the pairs that a text such as ``"wet dog,dry dog"`` names.

    Args:
        text: pairs with commas between them; a pair is an attribute, a space and an object, or an attribute, ``+`` and
            an object if the words have spaces.
        space: the known attributes and objects; a named pair need not be in ``space.pairs``.

    Returns:
        ``[P, 2]`` long, attribute and object index of each pair, each pair once, in the order of the text.

    Raises:
        ConfigError: a part is not a pair, or a word is unknown; the message lists all such parts and words.

    >>> space = PairSpace(("dry", "wet"), ("cat", "dog"), torch.tensor([[0, 0], [1, 1]]), torch.tensor([True, True]))
    >>> parse_pairs("wet dog,dry dog", space).tolist()
    [[1, 1], [0, 1]]
    """
    problems: list[str] = []
    pairs: dict[tuple[int, int], None] = {}
    for part in text.split(","):
        forms = [words for mark in (None, "+") if len(words := [word.strip() for word in part.split(mark)]) == 2]
        if not forms:
            problems.append(
                f"{part.strip()!r} is not an attribute and an object, such as 'wet dog', or 'wet+tin can' if a word "
                f"has spaces.{_known_pairs(part.split(), space)}"
            )
            continue
        attr, obj = next((form for form in forms if form[0] in space.attrs and form[1] in space.objs), forms[-1])
        unknown = [
            *_unknown_word("attribute", attr, space.attrs, ("", f"+{obj}")),
            *_unknown_word("object", obj, space.objs, (f"{attr}+", "")),
        ]
        problems += unknown
        if not unknown:
            pairs[space.attrs.index(attr), space.objs.index(obj)] = None
    if problems:
        raise ConfigError(problems)
    return torch.tensor(list(pairs))


def _known_pairs(parts: Sequence[str], space: PairSpace) -> str:
    """Return a hint with the pairs of known words with spaces that a text is, without the ``+`` between the two."""
    splits = ((" ".join(parts[:i]), " ".join(parts[i:])) for i in range(1, len(parts)))
    known = [f"'{attr}+{obj}'" for attr, obj in splits if attr in space.attrs and obj in space.objs]
    return f" Did you mean {' or '.join(known)}?" if known else ""


def _unknown_word(kind: str, word: str, known: tuple[str, ...], around: tuple[str, str]) -> list[str]:
    """Return a message in a list if ``word`` is not among the known words, else an empty list.

    Args:
        around: what stands before and after the word in a pair with ``+``.
    """
    if word in known:
        return []
    hint = did_you_mean(word, known)
    spaced = next((name for name in known if " " in name and repr(name) in hint), None)
    form = f" A name with spaces needs a +: {spaced.join(around)!r}" if spaced else ""
    return [f"no {kind} named {word!r} among the {len(known)} {kind}s of the checkpoint.{hint}{form}"]


def highest_ranked_pairs(method: Method, image: ImageFeatures, pairs: Tensor, top: int, setting: Setting) -> Tensor:
    """Return the ``top`` pairs of ``pairs`` ``[P, 2]`` that a method ranks highest for one image, ``[top, 2]``.

    Args:
        image: features of one image.
        setting: split, world and number of candidates, as for ``Method.rank``.

    Raises:
        CzslkitError: the method's texts do not attend to an image; raised before the slow scoring of all pairs.
        ConfigError: the method ranks pairs only in a stream of images.
    """
    if method.streams:
        name = type(method).__name__
        raise ConfigError([f"{name} adapts to a stream of images and ranks no pairs of one image: name the pairs"])
    method.explain(image, method.text(pairs[:1]))
    text = method.text(pairs)
    step = _PAIRS_PER_CHUNK if method.chunkable else len(pairs)
    chunks = [text.rows(slice(start, start + step)) for start in range(0, len(pairs), step)]
    scores = torch.cat([ranked(method, image, chunk, setting)[0] for chunk in chunks])
    return pairs[scores.argsort(descending=True, stable=True)[:top]]
