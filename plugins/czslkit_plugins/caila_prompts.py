"""The fixed sentences of CAILA for pairs, attributes and objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from czslkit.backbones.adapters import adapter_mode
from czslkit.components import Backbone
from czslkit.prompts import in_parts
from czslkit.types import PairSpace, TextFeatures

#: The modes of the text tower: one for the sentences of attributes, objects and pairs each.
ATTR, OBJ, PAIR = "attr", "obj", "pair"
#: Words of the prompts for names of datasets; every other name is written in lower case.
SPELLINGS = {
    "Faux.Fur": "fake fur",
    "Faux.Leather": "fake leather",
    "Full.grain.leather": "thick leather",
    "Hair.Calf": "hairy leather",
    "Patent.Leather": "shiny leather",
    "Boots.Ankle": "ankle boots",
    "Boots.Knee.High": "kneehigh boots",
    "Boots.Mid-Calf": "midcalf boots",
    "Shoes.Boat.Shoes": "boatshoes",
    "Shoes.Clogs.and.Mules": "clogs shoes",
    "Shoes.Flats": "flats shoes",
    "Shoes.Heels": "heels",
    "Shoes.Loafers": "loafers",
    "Shoes.Oxfords": "oxford shoes",
    "Shoes.Sneakers.and.Athletic.Shoes": "sneakers",
    "traffic_light": "traficlight",
    "trash_can": "trashcan",
    "dry-erase_board": "dry_erase_board",
    "black_and_white": "black_white",
    "eiffel_tower": "tower",
}


class Words(nn.Module):
    """The token ids of some texts, without marks.

    Args:
        backbone: encoder whose tokens they are.
        texts: the texts; each has a token.
    """

    version = 1

    def __init__(self, backbone: Backbone, texts: Sequence[str]) -> None:
        super().__init__()
        backbone.check_words(texts)
        ids = backbone.tokenize(texts, backbone.text_length)
        length = backbone.end_of_text(ids) - backbone.start_marks
        self.register_buffer("ids", ids[:, backbone.start_marks :][:, : int(length.max())].clone(), persistent=False)
        self.register_buffer("length", length, persistent=False)
        self.ids: Tensor  # [N, n] long; what follows the tokens of a text has no meaning
        self.length: Tensor  # [N]


def joined(first: Words, second: Words, a: Tensor | None = None, b: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the token ids ``[N, n]`` and the lengths ``[N]`` of texts that are followed by other texts.

    Args:
        a: rows of ``first``, ``[N]``; by default all.
        b: rows of ``second``, ``[N]``; by default its first for every text.
    """
    a = torch.arange(len(first.ids), device=first.ids.device) if a is None else a
    b = torch.zeros_like(a) if b is None else b
    ids = F.pad(first.ids[a], (0, second.ids.shape[1]))
    place = torch.arange(ids.shape[1], device=ids.device) - first.length[a, None]  # in the second text
    follow = second.ids[b].gather(1, place.clamp(0, second.ids.shape[1] - 1))
    return torch.where(place < 0, ids, follow), first.length[a] + second.length[b]


class ConceptPrompts(nn.Module):
    """Fixed sentences for pairs, attributes and objects, each encoded in a mode of its own.

    The feature of a pair is the mean of the features of the sentences of the pair, of its attribute and of its object.

    Args:
        backbone: encoder of the sentences; its token embeddings learn from all tokens after the start.
        space: label space with the words.

    Raises:
        ValueError: the text tower is not causal, or a word has no token.
    """

    version = 1

    def __init__(self, backbone: Backbone, space: PairSpace) -> None:
        super().__init__()
        if not backbone.causal:
            raise ValueError(
                f"{type(backbone).__name__} is not causal, so padding would change the texts; CAILA needs a causal "
                "text tower, with causal = True"
            )
        names = [[SPELLINGS.get(name, name.lower()) for name in names] for names in (space.attrs, space.objs)]
        marks = backbone.tokenize(["a photo of a"], backbone.text_length)[0]
        end = int(backbone.end_of_text(marks[None]))
        self.room = backbone.text_length - end - 1  # most tokens between the start and the end mark
        self.register_buffer("start", marks[:end].clone(), persistent=False)
        self.start: Tensor  # token ids that all sentences begin with, [S]
        self.end = int(marks[end])  # id of the end mark
        self.attrs, self.objs, self.noun = (Words(backbone, texts) for texts in (*names, ["object"]))

    def forward(self, backbone: Backbone, pairs: Tensor) -> TextFeatures:
        """Return the features of ``pairs`` ``[P, 2]``, and of all attributes and objects."""
        attr = self.encode(backbone, ATTR, *joined(self.attrs, self.noun))
        obj = self.encode(backbone, OBJ, self.objs.ids, self.objs.length)

        def averaged(rows: slice) -> Tensor:  # [n, D]
            a, o = pairs[rows].T
            own = self.encode(backbone, PAIR, *joined(self.attrs, self.objs, a, o))
            return (own + attr[a] + obj[o]) / 3

        return TextFeatures(pairs, in_parts(len(pairs), averaged), attr, obj)

    def encode(self, backbone: Backbone, mode: str, ids: Tensor, length: Tensor) -> Tensor:
        """Return the features of sentences in a mode, not normalised, ``[N, D]``.

        Args:
            ids: token ids of each sentence after the start, ``[N, n]``.
            length: number of these tokens in each sentence, ``[N]``.
        """
        length = length.clamp(max=self.room)
        ids = F.pad(ids[:, : self.room], (0, 1)).scatter(1, length[:, None], self.end)
        # the program learns no embedding from the start of its prompts
        start = backbone.embed_tokens(self.start).detach()

        def features(rows: slice) -> Tensor:
            hidden = backbone.encode_text_after(start, backbone.embed_tokens(ids[rows]))
            return backbone.pool_text(hidden, len(start) + length[rows])

        with adapter_mode(mode):
            return in_parts(len(ids), features)
