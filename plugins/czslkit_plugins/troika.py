"""Troika: pair, attribute and object each have a prompt and a view of the image.

Huang et al., "Troika: Multi-Path Cross-Modal Traction for Compositional Zero-Shot
Learning", CVPR 2024. https://arxiv.org/abs/2303.15230

This module adds the cross-modal traction. Troika shares the adapters, the three soft prompts and the three-branch head
with MSCI.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from czslkit.aggregators import LastLayer
from czslkit.backbones import load_backbone
from czslkit.components import INTERACTIONS, Aggregator, Backbone, Interaction
from czslkit.heads import ScoreFusion, ThreeBranchHead
from czslkit.interactions import CrossAttention, attended, contributions
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.prompts import LearnedWordOptions, SoftPrompt
from czslkit.recompute import recomputed_texts
from czslkit.translation import Names, State, Translation, distinct_numbers
from czslkit.types import AttentionMaps, ImageFeatures, PairSpace, TextFeatures


@INTERACTIONS.register("traction")
class Traction(Interaction):
    """An interaction in which every text ``t`` attends to the image's tokens and becomes ``t + weight * attended(t)``.

    One layer norm is applied to the tokens for pairs, to its own output for attributes, and again to its own output
    for objects, as in the released program.

    Args:
        dim: joint width ``D``.
        heads, layers, dropout: sizes of the cross-attention, and its dropout.
        init: initial weight of the attended texts, for every channel.
    """

    version = 1

    def __init__(self, dim: int, heads: int, layers: int = 3, dropout: float = 0.1, init: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(CrossAttention(dim, heads, dropout) for _ in range(layers))
        self.weight = nn.Parameter(torch.full((dim,), init))

    def forward(
        self, image: ImageFeatures, text: TextFeatures, backbone: Backbone
    ) -> tuple[ImageFeatures, TextFeatures]:
        assert text.pair is not None and text.attr is not None and text.obj is not None
        (tokens,) = image.levels
        moved = []
        for branch in (text.pair, text.attr, text.obj):
            tokens = self.norm(tokens)
            moved.append(recomputed_texts(self._moved, F.normalize(branch, dim=-1), tokens))
        pair, attr, obj = moved
        return image, replace(text, pair=pair, attr=attr, obj=obj)

    def explain(
        self, image: ImageFeatures, text: TextFeatures, backbone: Backbone
    ) -> tuple[ImageFeatures, TextFeatures, AttentionMaps]:
        """Return the features of ``forward`` and the attention of its only stage, ``traction`` (contribution 1)."""
        assert text.pair is not None and text.attr is not None and text.obj is not None
        (tokens,) = image.levels
        attention, weights, contribution, moved = {}, {}, {}, {}
        for name, branch in {"pair": text.pair, "attr": text.attr, "obj": text.obj}.items():
            tokens, query = self.norm(tokens), F.normalize(branch, dim=-1)
            attended_text, attention[name] = attended(self.layers, query, tokens)
            weights[name] = self.weight.detach().expand_as(attended_text)
            moved[name] = query + self.weight * attended_text
            contribution[name] = contributions({"traction": self.weight * (attended_text - query)})["traction"]
        maps = AttentionMaps({"traction": attention}, {"traction": weights}, {"traction": contribution})
        return image, replace(text, **moved), maps

    def _moved(self, text: Tensor, tokens: Tensor) -> Tensor:
        """Return texts ``[B, N, D]`` from texts ``[N, D]`` and tokens ``[B, T, D]``."""
        query = text
        for layer in self.layers:
            query = layer(query, tokens)
        return text + self.weight * query


@dataclass(frozen=True)
class ThreeBranchOptions(LearnedWordOptions):
    """The options that Troika and MSCI share."""

    adapter_dim: int = option(64, "bottleneck width of the adapters", minimum=1)
    adapter_dropout: float = option(0.1, "dropout inside the adapters", minimum=0, maximum=1)
    fusion_init: float = option(0.1, "initial weight of the attended texts", minimum=1e-3, maximum=0.999)
    loss_weights: tuple[float, float, float] = option(
        (1.0, 1.0, 1.0), "weights of the pair, attribute and object cross-entropies", minimum=0
    )
    score_weights: tuple[float, float, float] = option(
        (1.0, 1.0, 1.0), "weights of the pair, attribute and object scores", minimum=0
    )
    closed_score_weights: tuple[float, float, float] | None = option(
        None, "score weights in the closed-world test; score_weights if not set", minimum=0
    )
    open_score_weights: tuple[float, float, float] | None = option(
        None, "score weights in the open-world test; score_weights if not set", minimum=0
    )
    primitive_chunk: int = option(
        0, "pairs per chunk; the number of chunks divides primitive probabilities in the test; 0: no chunks", minimum=0
    )


class ThreeBranch(Method):
    """A method with adapters, three soft prompts and three branches.

    Subclasses choose the aggregator and the interaction.
    """

    version = 1
    Options = ThreeBranchOptions

    def __init__(self, options: ThreeBranchOptions, space: PairSpace) -> None:
        backbone = load_backbone(
            options.backbone, adapter_dim=options.adapter_dim, adapter_dropout=options.adapter_dropout
        )
        aggregator, interaction = self.own_parts(options, backbone)
        prompt = SoftPrompt(
            backbone,
            space,
            context=options.context,
            learn_context=True,
            primitives=True,
            dropout=options.word_dropout,
            context_length=options.context_length,
        )
        fusion = ScoreFusion(
            options.score_weights, options.closed_score_weights, options.open_score_weights, options.primitive_chunk
        )
        super().__init__(
            space=space,
            backbone=backbone,
            prompt=prompt,
            aggregator=aggregator,
            interaction=interaction,
            head=ThreeBranchHead(backbone.dim, backbone.scale, options.loss_weights, fusion),
        )

    def own_parts(self, options: ThreeBranchOptions, backbone: Backbone) -> tuple[Aggregator, Interaction]:
        """Return the aggregator and the interaction of the method."""
        raise NotImplementedError


@dataclass(frozen=True)
class TroikaOptions(ThreeBranchOptions):
    """The options of Troika."""

    heads: int | None = option(None, "number of attention heads; one for every 64 channels if not set", minimum=1)
    layers: int = option(3, "number of cross-attention layers", minimum=1)
    dropout: float = option(0.1, "dropout in the cross-attention", minimum=0, maximum=1)


#: Tensor names that the program of Troika shares with the program of MSCI, which extends it.
SHARED_NAMES: Names = {
    r"prompt\.words": "soft_att_obj",
    r"prompt\.context\.0": "comp_ctx_vectors",
    r"prompt\.context\.1": "attr_ctx_vectors",
    r"prompt\.context\.2": "obj_ctx_vectors",
    r"backbone\.adapters\.(\d+)\.(down|up)": r"additional_visual_params.\1.\2_proj",
    r"head\.(attr|obj)_view\.0": r"\1_disentangler.fc1",
    r"head\.(attr|obj)_view\.1": r"\1_disentangler.bn1_fc",
    r"\.layers\.(\d+)\.(query|key|value)\.": lambda m: f".layers.{m[1]}.cross_attn.{m[2][0]}_proj.",
    r"\.layers\.(\d+)\.out\.0": r".layers.\1.cross_attn.proj",
}
#: Configuration keys that both programs share, with our option for each.
SHARED_SETTINGS = {
    "ctx_init": "context",
    "attr_dropout": "word_dropout",
    "adapter_dim": "adapter_dim",
    "adapter_dropout": "adapter_dropout",
    "pair_loss_weight": "loss_weights.0",
    "attr_loss_weight": "loss_weights.1",
    "obj_loss_weight": "loss_weights.2",
    "pair_inference_weight": "score_weights.0",
    "attr_inference_weight": "score_weights.1",
    "obj_inference_weight": "score_weights.2",
    "text_encoder_batch_size": "primitive_chunk",
}
#: Configuration keys of both programs that have an effect only if another key is true.
SHARED_NEEDS = {"text_encoder_batch_size": "text_first"}


def shared_sizes(state: State) -> dict[str, int]:
    """Return the options that the shapes determine in checkpoints of both programs."""
    down = state.get("additional_visual_params.0.down_proj.weight")
    return {"adapter_dim": len(down)} if down is not None and down.ndim == 2 else {}


def _sizes(state: State) -> dict[str, int]:
    """Return the options that the shapes of a checkpoint determine."""
    layers = distinct_numbers(state, r"cmt\.(\d+)\.")
    return shared_sizes(state) | ({"layers": layers} if layers else {})


@METHODS.register("troika")
class Troika(ThreeBranch):
    """Troika: adapters, three soft prompts, cross-modal traction, three branches."""

    version = 1
    display_name = "Troika"
    citation = """
@inproceedings{huang2024troika,
  author = {Huang, Siteng and Gong, Biao and Feng, Yutong and Zhang, Min and Lv, Yiliang and Wang, Donglin},
  title = {{Troika}: Multi-Path Cross-Modal Traction for Compositional Zero-Shot Learning},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year = {2024}
}
"""
    Options = TroikaOptions
    translation = Translation(
        names={
            **SHARED_NAMES,
            r"interaction\.norm": "patch_norm",
            r"interaction\.weight": "lamda",
            r"interaction\.layers\.": "cmt.",
        },
        settings=SHARED_SETTINGS | {"cmt_layers": "layers", "cross_attn_dropout": "dropout"},
        needs=SHARED_NEEDS,
        sizes=_sizes,
    )

    def own_parts(self, options: TroikaOptions, backbone: Backbone) -> tuple[Aggregator, Interaction]:  # type: ignore[override]
        heads = options.heads or max(1, backbone.dim // 64)
        return LastLayer(), Traction(backbone.dim, heads, options.layers, options.dropout, options.fusion_init)
