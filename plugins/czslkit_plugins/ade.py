"""ADE: attribute, object and pair of an image by attention, disentangled by attention between images that share one.

Hao, Han and Wong, "Learning Attention as Disentangler for Compositional Zero-shot Learning", CVPR 2023.
https://arxiv.org/abs/2303.15111
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from czslkit.aggregators import ImageMlp
from czslkit.backbones import load_backbone
from czslkit.backbones.timm import attention_heads
from czslkit.components import Head, cosine
from czslkit.loss_parts import report
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.training_hooks import TrainingData
from czslkit.translation import State, Translation
from czslkit.types import VALIDATION, Batch, ImageFeatures, PairSpace, Scores, Setting, TextFeatures, pair_targets
from czslkit.word_prompts import ComposedWords, FromWordVectors, WordTable, WordVectorOptions

from .ade_attention import AdeImage, AttentionBlocks, check_solver, similarity, transported
from .compcos import UNUSED_KEYS, mlp_sizes

#: Words for labels whose own name the tables do not have, or not with the meaning in the datasets.
SPELLINGS = {
    "glove": {"selfie": "photo"},
    "word2vec": {
        "selfie": "photo",
        "chain-link": "chain_link",
        "in_a_costume": "in_costume",
        "t_shirt": "t-shirt",
        "long-sleeved": "long_sleeved",
        "short-sleeved": "short_sleeved",
    },
}


def _sizes(state: State) -> dict[str, Any]:
    pair, attr, obj = (mlp_sizes(state, f"image_embedder{branch}.mod.") for branch in ("", "_attr", "_obj"))
    hidden = {"attr_hidden": attr["hidden"], "obj_hidden": obj["hidden"]}
    return {**pair, **hidden, "dim": int(state["attr_embedder.weight"].shape[1])}


@dataclass(frozen=True)
class AdeOptions(WordVectorOptions):
    """The options of ADE."""

    backbone: str = option("ViT-L-14-quickgelu/openai", "image tower, which is frozen; a CLIP model, or timm/MODEL")
    dim: int | None = option(
        None, "width of the space of images and pairs; that of the vectors of words if not set", minimum=1
    )
    heads: int | None = option(
        None, "heads of the attention between images; one for every 64 channels if not set", minimum=1
    )
    hidden: tuple[int, ...] = option((768,), "widths of the hidden layers on the image features for pairs", minimum=1)
    attr_hidden: tuple[int, ...] = option((768,), "the same for attributes", minimum=1)
    obj_hidden: tuple[int, ...] = option((1024,), "the same for objects", minimum=1)
    norm: bool = option(True, "true puts a layer norm into each hidden layer")
    dropout: bool = option(True, "true drops half of the numbers after each hidden layer in training")
    relu: bool = option(False, "true ends the layers on the image features with a ReLU")
    static_words: bool = option(False, "true does not train the vectors of words")
    scale: float = option(50.0, "factor of the cosines in the loss", minimum=0)
    open_world: bool = option(
        False, "true trains with every combination as a candidate; false with the pairs of all splits"
    )
    beta: float = option(1.0, "weight of the product of attribute and object cosine in a score", minimum=0)
    closed_beta: float | None = option(None, "the same for the test images of the closed world; beta if not set")
    open_beta: float | None = option(None, "the same for the test images of the open world; beta if not set")


class CosineProduct(Head):
    """A head with the score ``cos(pair) + beta * cos(attribute) * cos(object)``.

    Args:
        scale: factor of the cosines in the loss.
        beta: weight of the product.
        closed: weight on the test split of the closed world; None for ``beta``.
        open: weight on the test split of the open world; None for ``beta``.
    """

    version = 1

    def __init__(self, scale: float, beta: float, closed: float | None = None, open: float | None = None) -> None:
        super().__init__()
        self.scale, self.beta, self.test = scale, beta, {"closed": closed, "open": open}
        self.register_buffer("one", torch.zeros(()), persistent=False)  # log of the scale of the scores
        self.one: Tensor

    def forward(self, image: ImageFeatures, text: TextFeatures) -> Scores:
        scores = self.cosines(image, text)
        return replace(scores, pair=scores.pair + self.beta * _product(scores, text.pairs))

    def cosines(self, image: ImageFeatures, text: TextFeatures) -> Scores:
        """Return the cosines of pair, attribute and object."""
        assert isinstance(image, AdeImage) and image.attr is not None and image.obj is not None
        assert text.pair is not None and text.attr is not None and text.obj is not None
        features = (image.pooled, text.pair), (image.attr, text.attr), (image.obj, text.obj)
        return Scores(*(cosine(found, words, self.one) for found, words in features))

    def rank(self, scores: Scores, pairs: Tensor, setting: Setting = VALIDATION) -> Tensor:
        beta = self.test[setting.world] if setting.split == "test" else None
        if beta is None or beta == self.beta:
            return scores.pair
        return scores.pair + (beta - self.beta) * _product(scores, pairs)

    def loss(self, scores: Scores, batch: Batch, pairs: Tensor) -> Tensor:
        """Return the sum of the cross-entropies of pair, attribute and object, a scalar.

        Args:
            scores: what ``cosines`` returns.
            batch: labels of the images.
            pairs: candidates, ``[P, 2]``.
        """
        pair = F.cross_entropy(self.scale * scores.pair, pair_targets(batch, pairs))
        return report("pair", pair) + self.word_loss(scores, batch)

    def score_scale(self) -> float:
        return self.scale

    def word_loss(self, scores: Scores, batch: Batch) -> Tensor:
        """Return the sum of the cross-entropies of attribute and object, a scalar."""
        assert scores.attr is not None and scores.obj is not None
        attr, obj = self.scale * scores.attr, self.scale * scores.obj
        attr_loss, obj_loss = F.cross_entropy(attr, batch.attr), F.cross_entropy(obj, batch.obj)
        return report("attr", attr_loss) + report("obj", obj_loss)


def _product(scores: Scores, pairs: Tensor) -> Tensor:
    """Return the product of attribute and object cosine for each of ``pairs``, ``[B, P]``."""
    assert scores.attr is not None and scores.obj is not None
    return scores.attr[:, pairs[:, 0]] * scores.obj[:, pairs[:, 1]]


@METHODS.register("ade")
class Ade(FromWordVectors, Method):
    """ADE: attention blocks for pair, attribute and object, which training shows two images that share a word.

    A training image attends to ``batch.companions`` of the names ``same_attr`` and ``same_obj``. Without companions, as
    in validation, it is its own companion.
    """

    version = 1
    display_name = "ADE"
    citation = """
@inproceedings{hao2023ade,
  author = {Hao, Shaozhe and Han, Kai and Wong, Kwan-Yee K.},
  title = {Learning Attention as Disentangler for Compositional Zero-shot Learning},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year = {2023}
}
"""
    Options = AdeOptions
    translation = Translation(
        names={
            r"aggregator\.pair_layers\.": "image_embedder.",
            r"aggregator\.(attr|obj)_layers\.": r"image_embedder_\1.",
            r"aggregator\.pair\.": "cross_attn.",
            r"aggregator\.(attr|obj)\.": r"cross_attn_\1.",
            r"(cross_attn\w*)\.query": r"\1.attn.q",
            r"(cross_attn\w*)\.key_value": r"\1.attn.kv",
            r"(cross_attn\w*)\.projection": r"\1.attn.proj",
            r"(cross_attn\w*)\.mlp\.0": r"\1.mlp.fc1",
            r"(cross_attn\w*)\.mlp\.2": r"\1.mlp.fc2",
            r"prompt\.words\.(attr|obj)": r"\1_embedder.weight",
            r"prompt\.projection": "projection",
        },
        settings={
            "aow": "beta",
            "cosine_scale": "scale",
            "dropout": "dropout",
            "emb_dim": "dim",
            "emb_init": "word_vectors",
            "norm": "norm",
            "num_heads": "heads",
            "open_world": "open_world",
            "relu": "relu",
            "static_inp": "static_words",
        },
        fixed={"train_only": False},
        sizes=_sizes,
        sections={"net": "", "image_extractor": "image_extractor."},
        encoder="image_extractor.",
        encoder_heads="heads",
        features=lambda state: int(state["cross_attn.norm1.weight"].shape[0]),
        ignored=(
            *UNUSED_KEYS,
            "epoch_max_margin",
            "fc_emb",
            "gcn_type",
            "gr_emb",
            "graph_init",
            "margin",
            "nlayers",
            "update_features",
        ),
    )
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 5e-5, "weight_decay": 5e-5, "batch_size": 128, "schedule": "constant"}

    prompt: ComposedWords
    aggregator: AttentionBlocks
    head: CosineProduct

    def __init__(self, options: AdeOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        width, dim = backbone.dim, options.dim or options.width(backbone)
        dropout = 0.5 if options.dropout else None
        pair, attr, obj = (
            ImageMlp(width, dim, hidden, norm=options.norm, dropout=dropout, relu=options.relu)
            for hidden in (options.hidden, options.attr_hidden, options.obj_hidden)
        )
        words = WordTable(space, dim, learned=not options.static_words, spellings=SPELLINGS)
        super().__init__(
            space=space,
            backbone=backbone,
            prompt=ComposedWords(words, normalised=False),
            aggregator=AttentionBlocks(width, options.heads or attention_heads(width), (pair, attr, obj)),
            head=CosineProduct(options.scale, options.beta, options.closed_beta, options.open_beta),
        )
        self.options = options
        candidates = space.open().pairs if options.open_world else space.pairs
        self.register_buffer("candidates", candidates, persistent=False)  # in training
        self.candidates: Tensor

    def prepare(self, data: TrainingData) -> None:
        check_solver()
        super().prepare(data)

    def text(self, pairs: Tensor) -> TextFeatures:
        return replace(super().text(pairs), attr=self.prompt.words.attr, obj=self.prompt.words.obj)

    def companions(self, data: TrainingData, index: Tensor, generator: Generator) -> Mapping[str, Tensor]:
        return {
            "same_attr": partners(data.attr, data.obj, index, generator),
            "same_obj": partners(data.obj, data.attr, index, generator),
        }

    def loss(self, batch: Batch, pairs: Tensor) -> Tensor:
        """Return the training loss, whose candidates are the pairs of all splits, or all of the open world."""
        text = self.text(self.candidates)
        image, partner, distance = self.compare(batch)
        words = self.head.word_loss(self.head.cosines(partner, text), batch)
        pairs_and_words = self.head.loss(self.head.cosines(image, text), batch, self.candidates)
        return pairs_and_words + words + report("distance", distance)

    def compare(self, batch: Batch) -> tuple[AdeImage, AdeImage, Tensor]:
        """Return features of images that attend to their companions, of companions that attend to them, and a distance.

        The distance, a scalar, is small if attention for a word joins images that share the word.
        """
        batches = batch, batch.companions.get("same_attr", batch), batch.companions.get("same_obj", batch)
        blocks, encoded = self.aggregator, (part.images for part in batches)
        x, x_attr, x_obj = (
            (image if isinstance(image, ImageFeatures) else self.encode(image)).layers[0] for image in encoded
        )
        pair, _ = blocks.pair(x[:, :1], x)
        (attr, *forth), (attr_back, *back) = blocks.attr(x, x_attr), blocks.attr(x_attr, x)
        same = transported(*similarity(*forth, *back))
        (obj, *forth), (obj_back, *back) = blocks.obj(x, x_obj), blocks.obj(x_obj, x)
        same = same + transported(*similarity(*forth, *back))
        other = torch.zeros_like(same)
        for block, companion in ((blocks.attr, x_obj), (blocks.obj, x_attr)):
            attention = block.attend(x, companion)[0], block.attend(companion, x)[0]
            other = other + transported(*similarity(*attention))
        return blocks.project(pair, attr, obj), blocks.project(pair, attr_back, obj_back), other - same


def partners(label: Tensor, other: Tensor, index: Tensor, generator: Generator) -> Tensor:
    """Return for each of some images a random image with the same label and, if there is one, another other label.

    Args:
        label: label that images share, ``[N]`` long.
        other: label that they do not share, ``[N]`` long.
        index: the images, ``[B]`` long.
        generator: generator of random numbers.

    Returns:
        ``[B]`` long. An image whose label has only one other label may be its own partner.
    """
    key = label * (int(other.max()) + 1) + other
    order = key.argsort(stable=True)  # all images of a label are neighbours, and so are those of a pair
    labels, keys = label[order], key[order]
    start, end = (torch.searchsorted(labels, label[index], right=right) for right in (False, True))
    own_start, own_end = (torch.searchsorted(keys, key[index], right=right) for right in (False, True))
    left_out = torch.where(end - start > own_end - own_start, own_end - own_start, 0)
    draw = torch.rand(len(index), generator=generator, dtype=torch.float64)
    place = start + (draw * (end - start - left_out)).long()
    return order[torch.where(place >= own_start, place + left_out, place)]
