"""MSCI: texts attend first to shallow and then to deep visual layers.

"MSCI: Addressing CLIP's Inherent Limitations for Compositional Zero-Shot Learning",
IJCAI 2025. https://arxiv.org/abs/2505.10289

This module adds the aggregator of low and high layers, the two-stage interaction and the two fusions. MSCI shares the
adapters, the soft prompts and the three-branch head with Troika; its loss is ``ThreeBranchHead.loss`` in
``czslkit/heads/three_branch.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from czslkit.components import AGGREGATORS, INTERACTIONS, Aggregator, Backbone, Interaction
from czslkit.interactions import CrossAttention, attended, contributions
from czslkit.linear import Linear
from czslkit.method import METHODS
from czslkit.options import option
from czslkit.recompute import recomputed_texts
from czslkit.translation import State, Translation, distinct_numbers
from czslkit.types import AttentionMaps, ImageFeatures, TextFeatures

from .troika import SHARED_NAMES, SHARED_NEEDS, SHARED_SETTINGS, ThreeBranch, ThreeBranchOptions, shared_sizes


@AGGREGATORS.register("low_high")
class LowHigh(Aggregator):
    """An aggregator that projects the first ``low`` and the last ``high`` layers to one level each, of width ``dim``.

    A group of one layer is not projected.

    Args:
        dim: joint width ``D``.
        low, high: number of layers in each group. In a shallow backbone the groups may overlap.
        dropout: dropout on the joined tokens.
    """

    version = 1

    def __init__(self, dim: int, low: int = 4, high: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.project_low, self.project_high = (self._project(n, dim, dropout) for n in (low, high))

    def layers(self, depth: int) -> tuple[int, ...]:
        if depth < max(self.low, self.high):
            raise ValueError(f"low_high needs {self.low} low and {self.high} high layers, the backbone has {depth}")
        return (*range(self.low), *range(depth - self.high, depth))

    def forward(self, image: ImageFeatures) -> ImageFeatures:
        low = self.project_low(torch.cat(image.layers[: self.low], -1))  # [B, T, D]
        high = self.project_high(torch.cat(image.layers[self.low :], -1))
        return replace(image, levels=(low, high))

    @staticmethod
    def _project(layers: int, dim: int, dropout: float) -> nn.Module:
        """Return the projection to width ``dim`` of ``layers`` layers that are joined along their width."""
        if layers == 1:
            return nn.Identity()
        return nn.Sequential(Linear(layers * dim, dim), nn.LayerNorm(dim), nn.ReLU(), nn.Dropout(dropout))


class Stage(nn.Module):
    """A stage of cross-attention of texts to the tokens of a level.

    Args:
        dim: joint width ``D``.
        heads, layers, dropout: sizes of the cross-attention, and its dropout.
    """

    def __init__(self, dim: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(CrossAttention(dim, heads, dropout) for _ in range(layers))

    def forward(self, query: Tensor, level: Tensor) -> Tensor:
        """Return texts ``[B, N, D]`` from texts ``[N, D]`` or ``[B, N, D]`` and a level ``[B, T, D]``."""
        level = self.norm(level)
        for layer in self.layers:
            query = layer(query, level)
        return query

    def explain(self, query: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return the texts of ``forward`` and the mean attention of all heads and layers, ``[B, N, T]``."""
        return attended(self.layers, query, self.norm(level))


class WeightedSum(nn.Module):
    """The fusion ``t + a * local + b * global`` with learned weights of channels, equal for all texts and images.

    Args:
        dim: joint width ``D``.
        init: initial value of all weights.
    """

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.local_weight, self.global_weight = (nn.Parameter(torch.full((dim,), init)) for _ in range(2))

    def weights(self, text: Tensor, local_text: Tensor, global_text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the local and the global weights, repeated to ``[B, N, D]`` each."""
        return self.local_weight.expand_as(local_text), self.global_weight.expand_as(global_text)

    def forward(self, text: Tensor, local_text: Tensor, global_text: Tensor) -> Tensor:
        """Return the fused texts ``[B, N, D]``.

        Args:
            text: texts before both stages, ``[N, D]``.
            local_text: texts after the local stage, ``[B, N, D]``.
            global_text: texts after the global stage, ``[B, N, D]``.
        """
        return text + self.local_weight * local_text + self.global_weight * global_text


class Gated(nn.Module):
    """The fusion ``t + a * local + b * global`` with weights from 0 to 1 that depend on text, image and channel.

    This is our reading of the paper's abstract, where the weights of local and global information depend on the
    composition and its elements. We chose the sigmoid of one linear layer, because the paper's equations were not
    available. The released program corresponds to ``WeightedSum``; it has another gate, but never calls it.

    Args:
        dim: joint width ``D``.
        init: initial value of all weights.
    """

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gate = Linear(3 * dim, 2 * dim)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, torch.logit(torch.tensor(init)).item())

    def weights(self, text: Tensor, local_text: Tensor, global_text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the local and the global weights, ``[B, N, D]`` each; arguments as in ``forward``."""
        joined = torch.cat((text.expand_as(local_text), local_text, global_text), -1)
        local_weight, global_weight = self.gate(joined).sigmoid().chunk(2, -1)
        return local_weight, global_weight

    def forward(self, text: Tensor, local_text: Tensor, global_text: Tensor) -> Tensor:
        """Return the fused texts ``[B, N, D]``; arguments as in :meth:`WeightedSum.forward`."""
        local_weight, global_weight = self.weights(text, local_text, global_text)
        return text + local_weight * local_text + global_weight * global_text


def by_branch(joined: Tensor, text: TextFeatures) -> dict[str, Tensor]:
    """Split ``[B, P + A + O, ...]`` into the tensors of pairs, attributes and objects."""
    assert text.pair is not None and text.attr is not None and text.obj is not None
    pair, attr, obj = joined.split([len(text.pair), len(text.attr), len(text.obj)], 1)
    return {"pair": pair, "attr": attr, "obj": obj}


FUSIONS: dict[str, type[WeightedSum] | type[Gated]] = {"weighted_sum": WeightedSum, "gated": Gated}


@INTERACTIONS.register("two_stage")
class TwoStage(Interaction):
    """An interaction in which texts attend to the low and then to the high level, and all three texts are fused.

    Args:
        dim: joint width ``D``.
        heads, layers, dropout: sizes and dropout of the cross-attention, one number for each stage.
        fusion: ``weighted_sum`` (the released program) or ``gated``.
        init: initial weight of the texts after each stage.
    """

    version = 1

    def __init__(
        self,
        dim: int,
        heads: tuple[int, int] = (12, 12),
        layers: tuple[int, int] = (1, 1),
        dropout: tuple[float, float] = (0.1, 0.1),
        fusion: str = "weighted_sum",
        init: float = 0.1,
    ) -> None:
        super().__init__()
        # "overall" is the global stage; this name is in the tensor names of saved checkpoints
        self.local, self.overall = (Stage(dim, *sizes) for sizes in zip(heads, layers, dropout, strict=True))
        self.fusion = FUSIONS[fusion](dim, init)

    def forward(
        self, image: ImageFeatures, text: TextFeatures, backbone: Backbone
    ) -> tuple[ImageFeatures, TextFeatures]:
        fused = recomputed_texts(self._fused, self._joined(text), *image.levels)  # [B, P + A + O, D]
        return image, replace(text, **by_branch(fused, text))

    def _fused(self, texts: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return the fused texts ``[B, N, D]`` from texts ``[N, D]`` and both levels ``[B, T, D]``."""
        local_text = self.local(texts, low)
        fused: Tensor = self.fusion(texts, local_text, self.overall(local_text, high))
        return fused

    def explain(
        self, image: ImageFeatures, text: TextFeatures, backbone: Backbone
    ) -> tuple[ImageFeatures, TextFeatures, AttentionMaps]:
        """Return the features of ``forward``, with the attention of the stages ``local`` and ``global``.

        The fused text ``t + a * local + b * global`` equals ``(1 + a + b) * t + (a + b) * (local - t) + b * (global -
        local)``. The contributions come from the norms of the last two terms, and not of ``a * local`` and
        ``b * global``, because these contain ``t`` even if a stage adds nothing to it.
        """
        joined, (low, high) = self._joined(text), image.levels
        local_text, local_attention = self.local.explain(joined, low)
        global_text, global_attention = self.overall.explain(local_text, high)
        a, b = (weight.detach() for weight in self.fusion.weights(joined, local_text, global_text))
        moved = {"local": (a + b) * (local_text - joined), "global": b * (global_text - local_text)}
        attention = {"local": local_attention, "global": global_attention}
        maps = (
            {stage: by_branch(values, text) for stage, values in stages.items()}
            for stages in (attention, {"local": a, "global": b}, contributions(moved))
        )
        fused = by_branch(self.fusion(joined, local_text, global_text), text)
        return image, replace(text, **fused), AttentionMaps(*maps)

    @staticmethod
    def _joined(text: TextFeatures) -> Tensor:
        """Return the normalised texts of all branches, ``[P + A + O, D]``; texts do not attend to each other."""
        assert text.pair is not None and text.attr is not None and text.obj is not None
        return F.normalize(torch.cat((text.pair, text.attr, text.obj)), dim=-1)


@dataclass(frozen=True)
class MsciOptions(ThreeBranchOptions):
    """The options of MSCI."""

    low_layers: int = option(4, "number of first visual layers, for the local stage", minimum=1)
    high_layers: int = option(4, "number of last visual layers, for the global stage", minimum=1)
    heads: tuple[int, int] = option((12, 12), "attention heads of the two stages", minimum=1)
    layers: tuple[int, int] = option((1, 1), "cross-attention layers of the two stages", minimum=1)
    dropout: tuple[float, float] = option((0.1, 0.1), "dropout in the two stages", minimum=0, maximum=1)
    fusion: Literal["weighted_sum", "gated"] = option(
        "weighted_sum", "weighted_sum learns the weights of the stages, gated computes them from text and image"
    )


#: Names of the two stages in the authors' checkpoint.
STAGES = ("stage1_local_alignment", "stage2_global_fusion")


def _sizes(state: State) -> dict[str, Any]:
    """Return the options that the shapes of a checkpoint determine."""
    sizes: dict[str, Any] = dict(shared_sizes(state))
    layers = [distinct_numbers(state, rf"{stage}\.cross_attn_layers\.(\d+)\.") for stage in STAGES]
    if all(layers):
        sizes["layers"] = layers
    for group in ("low", "high"):
        weight = state.get(f"concat_projection_{group}.0.weight")
        if weight is not None and weight.ndim == 2 and len(weight):
            sizes[f"{group}_layers"] = weight.shape[1] // len(weight)
    return sizes


@METHODS.register("msci")
class Msci(ThreeBranch):
    """MSCI: adapters, three soft prompts, two-stage interaction, three branches."""

    version = 1
    display_name = "MSCI"
    citation = """
@inproceedings{wang2025msci,
  author = {Wang, Yue and Xu, Shuai and Zhu, Xuelin and Li, Yicong},
  title = {{MSCI}: Addressing {CLIP}'s Inherent Limitations for Compositional Zero-Shot Learning},
  booktitle = {International Joint Conference on Artificial Intelligence},
  year = {2025}
}
"""
    Options = MsciOptions
    translation = Translation(
        names={
            **SHARED_NAMES,
            r"aggregator\.project_": "concat_projection_",
            r"interaction\.fusion\.local_weight": "lamda",
            r"interaction\.fusion\.global_weight": "lamda_2",
            r"interaction\.local\.": "stage1_local_alignment.",
            r"interaction\.overall\.": "stage2_global_fusion.",
            r"\.layers\.": ".cross_attn_layers.",
        },
        unused=r"(cmt\.\d+|patch_norm|fusion_module|concat_projection_(low|high)\.[01])\..*",
        settings=SHARED_SETTINGS
        | {
            "selected_low_layers": "low_layers",
            "selected_high_layers": "high_layers",
            "stage_1_num_heads": "heads.0",
            "stage_2_num_heads": "heads.1",
            "stage_1_num_cmt_layers": "layers.0",
            "stage_2_num_cmt_layers": "layers.1",
            "stage_1_dropout": "dropout.0",
            "stage_2_dropout": "dropout.1",
        },
        needs=SHARED_NEEDS,
        required_config=("stage_1_num_heads", "stage_2_num_heads"),
        sizes=_sizes,
    )

    def own_parts(self, options: MsciOptions, backbone: Backbone) -> tuple[Aggregator, Interaction]:  # type: ignore[override]
        aggregator = LowHigh(backbone.dim, options.low_layers, options.high_layers)
        interaction = TwoStage(
            backbone.dim, options.heads, options.layers, options.dropout, options.fusion, options.fusion_init
        )
        return aggregator, interaction
