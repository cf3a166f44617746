"""CGE: pairs as nodes of a graph network over the words and pairs of the label space.

Naeem, Xian, Tombari and Akata, "Learning Graph Embeddings for Compositional Zero-shot Learning", CVPR 2021.
https://arxiv.org/abs/2102.01987
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from czslkit.aggregators import ImageMlp, Pooled
from czslkit.backbones import load_backbone
from czslkit.components import HEADS, Aggregator, Backbone, Head
from czslkit.graph_prompts import GraphPrompt
from czslkit.graphs import Gcnii, GraphConvolution, hidden_layers
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.precision import at_least_fp32, unrounded
from czslkit.translation import Names, State, Translation, distinct_numbers
from czslkit.types import Batch, ImageFeatures, PairSpace, Scores, TextFeatures, pair_targets
from czslkit.word_prompts import FromWordVectors, WordTable, WordVectorOptions

from .compcos import UNUSED_KEYS, mlp_sizes

NETWORK_NAMES: Names = {
    r"prompt\.network\.hidden\.(\d+)": lambda match: f"gcn.conv{int(match[1]) + 1}.layer",
    r"prompt\.network\.last": "gcn.conv-last.layer",
    r"prompt\.network\.enter": "gcn.fc_dim",
    r"prompt\.network\.leave": "gcn.fc_out",
    r"prompt\.network\.layers\.(\d+)": r"gcn.layers.\1.layer",
}
NAMES: Names = {
    r"aggregator\.mod": "image_embedder.mod",
    r"backbone\.tower": "image_extractor",
    **NETWORK_NAMES,
}
SETTINGS = {
    "cosine_scale": "scale",
    "dropout": "dropout",
    "gr_emb": "graph_layers",
    "norm": "norm",
    "update_features": "train_backbone",
}
IGNORED = (
    *UNUSED_KEYS,
    "closed_eval",
    "emb_dim",
    "emb_init",
    "fast_eval",
    "fc_emb",
    "gcn_type",
    "hidden_dim",
    "gcn_nlayers",
    "graph_init",
)


def network_sizes(state: State) -> dict[str, Any]:
    """Return the options of the graph network that the shapes of the authors' tensors determine."""
    if "gcn.fc_dim.weight" not in state:
        return {"network": "gcn"}
    depth, width = distinct_numbers(state, r"gcn\.layers\.(\d+)\."), int(state["gcn.fc_dim.weight"].shape[0])
    return {"network": "gcnii", "gcnii_depth": depth, "gcnii_width": width}


def graph_sizes(state: State) -> dict[str, Any]:
    """Return the options that the shapes of the authors' tensors determine."""
    if "gcn.fc_dim.weight" in state:
        first, last = state["gcn.fc_dim.weight"], state["gcn.fc_out.weight"]
    else:
        first, last = (
            state.get("gcn.conv1.layer.weight", state["gcn.conv-last.layer.weight"]),
            state["gcn.conv-last.layer.weight"],
        )
    has_layers = any(key.startswith("image_embedder.") for key in state)
    sizes = {"word_width": int(first.shape[1]), "dim": int(last.shape[0]), "image_layers": has_layers}
    return sizes | network_sizes(state) | (mlp_sizes(state) if has_layers else {})


def graph_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options for a graph file, whose words have vectors of word2vec, and whose pairs have no self loops."""
    from_file = config.get("graph_init") is not None
    return {"word_vectors": config.get("emb_init") or "word2vec", "pair_self_loops": not from_file}


def feature_width(state: State) -> int:
    """Return the width of the image features that the authors' tensors are for."""
    if "image_embedder.mod.0.weight" in state:
        return int(state["image_embedder.mod.0.weight"].shape[1])
    return int(state["gcn.fc_out.weight" if "gcn.fc_out.weight" in state else "gcn.conv-last.layer.weight"].shape[0])


@dataclass(frozen=True)
class NetworkOptions:
    """The options of a graph network."""

    network: Literal["gcn", "gcnii"] = option("gcn", "graph network: convolutions, or the deeper GCNII")
    graph_layers: str = option(
        "d4096,d", "widths of the hidden graph convolutions; d before one, or at the end, drops half of its inputs"
    )
    gcnii_width: int = option(512, "width of the hidden layers of GCNII", minimum=1)
    gcnii_depth: int = option(4, "number of hidden layers of GCNII", minimum=1)

    def __post_init__(self) -> None:
        hidden_layers(self.graph_layers)

    def graph_network(self, inputs: int, outputs: int) -> nn.Module:
        """Build the network for node inputs and results of some widths."""
        if self.network == "gcnii":
            return Gcnii(inputs, outputs, self.gcnii_width, self.gcnii_depth)
        return GraphConvolution(inputs, outputs, self.graph_layers)


@dataclass(frozen=True)
class GraphOptions(NetworkOptions, WordVectorOptions):
    """The options of CGE and Co-CGE."""

    backbone: str = option("ViT-L-14-quickgelu/openai", "image tower: a CLIP model, or timm/MODEL")
    train_backbone: bool = option(False, "true trains the image tower as well")
    backbone_lr_scale: float = option(0.1, "factor of the learning rate for the image tower", minimum=0)
    word_width: int | None = option(None, "numbers in the vector of a word; those of the tables if not set", minimum=1)
    dim: int | None = option(None, "width of the space of images and pairs; that of the tower if not set", minimum=1)
    image_layers: bool = option(False, "true puts layers on the image features: the hidden ones, then a linear one")
    hidden: tuple[int, ...] = option((), "widths of the hidden layers on the image features", minimum=1)
    norm: bool = option(True, "true puts a layer norm into each hidden layer on the image features")
    dropout: bool = option(True, "true drops half of the numbers after each hidden layer on the image features")
    pair_self_loops: bool = option(
        True, "in the graph of the closed world, a pair also takes from itself; false is the published UT-Zappos graph"
    )

    def parts(self, space: PairSpace, *, weighted: bool = False) -> tuple[Backbone, GraphPrompt, Aggregator]:
        """Build backbone, prompt and aggregator of a label space."""
        backbone = load_backbone(self.backbone, trainable=self.train_backbone)
        dim, width = self.dim or backbone.dim, self.word_width or self.width(backbone)
        if not self.image_layers and dim != backbone.dim:
            raise ValueError(
                f"dim is {dim}, but the image features have {backbone.dim} numbers: set image_layers to true, or leave "
                "dim out"
            )
        words = WordTable(space, width, learned=False)
        network = self.graph_network(width, dim)
        prompt = GraphPrompt(words, space, network, pair_self_loops=self.pair_self_loops, weighted=weighted)
        dropout = 0.5 if self.dropout else None
        layers = ImageMlp(backbone.dim, dim, self.hidden, norm=self.norm, dropout=dropout, relu=True)
        return backbone, prompt, layers if self.image_layers else Pooled()


@HEADS.register("dot_product")
class DotProduct(Head):
    """A head with the dot product of image and pair, and a cross-entropy over the candidates."""

    version = 1

    def forward(self, image: ImageFeatures, text: TextFeatures) -> Scores:
        assert text.pair is not None
        with unrounded(image.pooled.device):  # bfloat16 would leave 2 or 3 digits of a score
            return Scores(at_least_fp32(image.pooled) @ at_least_fp32(text.pair).T)

    def loss(self, scores: Scores, batch: Batch, pairs: Tensor) -> Tensor:
        return F.cross_entropy(scores.pair, pair_targets(batch, pairs))


class GraphMethod(FromWordVectors, Method):
    """What CGE and Co-CGE share: the features of pairs come from the graph of a world.

    Args:
        options: options of the method.
        space: label space.
        head: head of the method.
        weighted: see :class:`czslkit.graph_prompts.GraphPrompt`.
    """

    version = 1
    options: GraphOptions
    prompt: GraphPrompt

    def __init__(self, options: GraphOptions, space: PairSpace, head: Head, *, weighted: bool = False) -> None:
        backbone, prompt, aggregator = options.parts(space, weighted=weighted)
        super().__init__(space=space, backbone=backbone, prompt=prompt, head=head, aggregator=aggregator)
        self.options = options

    def text_in(self, world: str, pairs: Tensor) -> TextFeatures:
        return self.prompt(self.backbone, pairs, world)

    def parameter_groups(self) -> Sequence[Mapping[str, Any]]:
        tower = {id(parameter) for parameter in self.backbone.parameters()}
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": [parameter for parameter in trained if id(parameter) not in tower]}]
        if self.options.train_backbone:
            own = [parameter for parameter in trained if id(parameter) in tower]
            groups.append({"params": own, "lr_scale": self.options.backbone_lr_scale})
        return groups


@METHODS.register("cge")
class Cge(GraphMethod):
    """CGE: dot products of image features with the nodes of pairs in a graph network."""

    version = 1
    display_name = "CGE"
    citation = """
@inproceedings{naeem2021cge,
  author = {Naeem, Muhammad Ferjad and Xian, Yongqin and Tombari, Federico and Akata, Zeynep},
  title = {Learning Graph Embeddings for Compositional Zero-shot Learning},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year = {2021}
}
"""
    Options = GraphOptions
    translation = Translation(
        names=NAMES,
        settings={key: value for key, value in SETTINGS.items() if value != "scale"},
        from_settings=graph_settings,
        sizes=graph_sizes,
        sections={"net": "", "image_extractor": "image_extractor."},
        encoder="image_extractor.",
        features=feature_width,
        not_saved=r"prompt\.words\..*",
        ignored=(
            *IGNORED,
            "cosine_scale",
            "epoch_max_margin",
            "margin",
            "nlayers",
            "open_world",
            "relu",
            "static_inp",
            "train_only",
        ),
    )
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 5e-5, "weight_decay": 5e-5, "batch_size": 128, "schedule": "constant"}

    def __init__(self, options: GraphOptions, space: PairSpace) -> None:
        super().__init__(options, space, DotProduct())

    def loss(self, batch: Batch, pairs: Tensor) -> Tensor | Mapping[str, Tensor]:
        return self.head.loss(self(batch.images, self.text_in("closed", pairs)), batch, pairs)
