"""Pairs that a user names, such as ``"wet dog,dry dog"``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError, did_you_mean
from .types import PairSpace

_FORMS = "names such as 'wet dog', in a list or with commas between them, or whole numbers [P, 2]"


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
        words = _words(part, space)
        if not words:
            problems.append(
                f"{part.strip()!r} is not an attribute and an object, such as 'wet dog', or 'wet+tin can' if a word "
                f"has spaces.{_known_pairs(part.split(), space)}"
            )
            continue
        attr, obj = words
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


def _words(part: str, space: PairSpace) -> tuple[str, str] | None:
    """Return the attribute and the object that a text names, known or not; None if it is not two words."""
    split = ([word.strip() for word in part.split(mark)] for mark in (None, "+"))
    forms = [(words[0], words[1]) for words in split if len(words) == 2 and all(words)]
    known = (form for form in forms if form[0] in space.attrs and form[1] in space.objs)
    return next(known, forms[-1] if forms else None)


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


def named_candidates(pairs: Any, space: PairSpace, *, new_words: bool = False) -> tuple[PairSpace, Tensor]:
    """Return a label space with the pairs that a user names, and which of its pairs these are, ``[K]`` bool.

    Args:
        pairs: names of pairs, as in :func:`parse_pairs`, attributes or objects, in a list or with commas between them;
            or pairs ``[P, 2]`` long. An attribute or object alone stands for its pairs in ``space``.
        space: the known words and pairs. Named pairs that it lacks are added as unseen pairs.
        new_words: also add words of named pairs that ``space`` lacks, after its own.

    Raises:
        ConfigError: a part is not known, or nothing is named; the message lists all such parts.
    """
    if isinstance(pairs, Tensor) or (hasattr(pairs, "dtype") and pairs.dtype.kind not in "OU"):
        chosen = _given_rows(pairs)
    else:
        if not isinstance(pairs, Iterable) or not all(isinstance(text, str) for text in pairs):
            raise ConfigError([f"pairs are {pairs!r}, expected {_FORMS}"])
        parts = [part for text in ([pairs] if isinstance(pairs, str) else pairs) for part in text.split(",")]
        space = _with_words(parts, space) if new_words else space
        chosen = _named_rows(parts, space)
    sizes = torch.tensor([len(space.attrs), len(space.objs)])
    if not len(chosen) or ((chosen < 0) | (chosen >= sizes)).any():
        raise ConfigError(
            [
                f"pairs are {chosen.tolist()}, expected at least one pair of indices below {len(space.attrs)} and "
                f"{len(space.objs)}"
            ]
        )
    keys = chosen[:, 0] * len(space.objs) + chosen[:, 1]
    new = chosen[~torch.isin(keys, space.flat())].unique(dim=0)
    seen = torch.cat([space.seen, torch.zeros(len(new), dtype=torch.bool)])
    whole = PairSpace(space.attrs, space.objs, torch.cat([space.pairs, new]), seen)
    return whole, torch.isin(whole.flat(), keys)


def _given_rows(pairs: Any) -> Tensor:
    """Return pairs that are given by their indices, ``[P, 2]`` long.

    Raises:
        ConfigError: they are no whole numbers of this shape.
    """
    given = torch.as_tensor(pairs) if isinstance(pairs, Tensor) or pairs.dtype.kind in "iu" else None
    if given is None or given.dtype.is_floating_point or given.dim() != 2 or given.shape[1] != 2:
        raise ConfigError([f"pairs are {pairs.dtype} {list(pairs.shape)}, expected {_FORMS}"])
    return given.long().cpu()


def _with_words(parts: Sequence[str], space: PairSpace) -> PairSpace:
    """Return a label space with the words of named pairs that it lacks."""
    named = [words for part in parts if " ".join(part.split()) not in (*space.attrs, *space.objs)
             and (words := _words(part, space))]  # fmt: skip
    attrs, objs = ({**dict.fromkeys(known), **dict.fromkeys(found)} for known, found in
                   ((space.attrs, [attr for attr, _ in named]), (space.objs, [obj for _, obj in named])))  # fmt: skip
    return PairSpace(tuple(attrs), tuple(objs), space.pairs, space.seen)


def _named_rows(parts: Sequence[str], space: PairSpace) -> Tensor:
    """Return the pairs that names of pairs, attributes and objects stand for, ``[P, 2]``."""
    rows: list[Tensor] = [torch.empty(0, 2, dtype=torch.long)]
    others = []
    for part in parts:
        word = " ".join(part.split())
        kinds = [kind for kind, words in enumerate((space.attrs, space.objs)) if word in words]
        for kind in kinds:
            index = (space.attrs, space.objs)[kind].index(word)
            rows.append(space.pairs[space.pairs[:, kind] == index])
        others += [] if kinds else [part]
    return torch.cat([*rows, *([parse_pairs(",".join(others), space)] if others else [])])
