"""GIPCOL: a soft prompt whose words come from a graph network over the words and pairs of the label space.

Xu, Chai and Kordjamshidi, "GIPCOL: Graph-Injected Soft Prompting for Compositional Zero-Shot Learning", WACV 2024.
https://arxiv.org/abs/2311.05729
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from czslkit.backbones import load_backbone
from czslkit.errors import ConfigError
from czslkit.feasibility_files import feasibility_problem, published_files, read_feasibility, text_feasibility
from czslkit.graph_prompts import GraphSoftPrompt
from czslkit.heads import CosineHead
from czslkit.method import METHODS, Method
from czslkit.options import option, user_path
from czslkit.prompts import SoftPromptOptions
from czslkit.training_hooks import TrainingData
from czslkit.translation import State, Translation
from czslkit.types import PairSpace, TextFeatures

from .cge import NETWORK_NAMES, NetworkOptions, network_sizes

SETTINGS = {
    "gcn_nlayers": "gcnii_depth",
    "gcn_type": "network",
    "gr_emb": "graph_layers",
    "hidden_dim": "gcnii_width",
    "soft_emb_dropout": "word_dropout",
}
#: Keys of the authors' files for the graph; their program reads them with the prefix ``graph_``.
GRAPH_KEYS = ("dropout", "emb_dim", "image_extractor", "init", "lr", "model", "nlayers", "norm", "train_only")


@dataclass(frozen=True)
class GipcolOptions(NetworkOptions, SoftPromptOptions):
    """The options of GIPCOL."""

    word_dropout: float = option(0.3, "dropout on the words that the graph network returns", minimum=0, maximum=1)
    graph_lr_scale: float = option(1.0, "factor of the learning rate for the graph network", minimum=0)
    graph_weight_decay: float = option(5e-5, "weight decay of the graph network", minimum=0)
    feasibility: Literal["file", "clip"] | Path = option(
        "file",
        "feasibility that weighs unseen pairs in the graph of the open world: file is the published file beside the "
        "dataset, or clip without such a file; clip computes it with the backbone; otherwise the path of feasibility "
        "scores or of word vectors",
    )


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the factor of the learning rate; the authors have a rate of its own for the graph network."""
    own, rate = config.get("graph_lr"), config.get("lr")
    return {"graph_lr_scale": float(own) / float(rate)} if own and rate else {}


def _sizes(state: State) -> dict[str, Any]:
    return network_sizes({key.removeprefix("graph_model."): value for key, value in state.items()})


@METHODS.register("gipcol")
class Gipcol(Method):
    """GIPCOL: a learned context, and words from a graph network over words and pairs."""

    version = 1
    display_name = "GIPCOL"
    citation = """
@inproceedings{xu2024gipcol,
  author = {Xu, Guangyue and Chai, Joyce and Kordjamshidi, Parisa},
  title = {{GIPCOL}: Graph-Injected Soft Prompting for Compositional Zero-Shot Learning},
  booktitle = {Winter Conference on Applications of Computer Vision},
  year = {2024}
}
"""
    Options = GipcolOptions
    translation = Translation(
        names={
            **NETWORK_NAMES,
            r"^gcn\.": "graph_model.gcn.",
            r"prompt\.context\.0": "soft_prompt_embeddings",
        },
        settings={**SETTINGS, "graph_gr_emb": "graph_layers", "graph_gcn_type": "network"},
        from_settings=_settings,
        sizes=_sizes,
        sections={"soft_prompt": "soft_prompt_embeddings", "gcn": "graph_model."},
        not_saved=r"prompt\.graphs\.weights",
        ignored=(*GRAPH_KEYS, *(f"graph_{key}" for key in GRAPH_KEYS), "prompt_len", "prompt_position"),
    )
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 5e-5, "epochs": 10, "batch_size": 64, "schedule": "constant"}

    prompt: GraphSoftPrompt

    def __init__(self, options: GipcolOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        prompt = GraphSoftPrompt(
            backbone,
            space,
            options.graph_network(backbone.token_width, backbone.token_width),
            context=options.context,
            context_length=options.context_length,
            dropout=options.word_dropout,
        )
        super().__init__(space=space, backbone=backbone, prompt=prompt, head=CosineHead(backbone.scale))
        self.options = options

    def text(self, pairs: Tensor) -> TextFeatures:
        # A training has the graph of the closed world, and needs no look at the values of pairs.
        return self.prompt(self.backbone, pairs, "closed" if self.training else "")

    def text_in(self, world: str, pairs: Tensor) -> TextFeatures:
        return self.prompt(self.backbone, pairs, world)

    def prepare(self, data: TrainingData) -> None:
        source = self.options.feasibility
        if source == "file":
            source = next((file for file in published_files(data.name, data.root) if file.is_file()), "clip")
        self.load_feasibility(source if isinstance(source, Path) else text_feasibility(self.backbone, self.space))

    def load_feasibility(self, feasibility: str | Path | Sequence[float] | Tensor) -> None:
        """Weigh the unseen pairs in the graph of the open world by their feasibility.

        Args:
            feasibility: numbers from -1 to 1 in ``product(attrs, objs)`` order, ``[A * O]``; or a file of feasibility
                scores or of word vectors.

        Raises:
            ConfigError: it is not one number from -1 to 1 for each combination.
            DataError: the file cannot be read, or does not fit the label space.
        """
        if isinstance(feasibility, (str, Path)):
            feasibility = read_feasibility(user_path(feasibility), self.space)
        values = torch.as_tensor(feasibility, dtype=torch.float32)
        if problem := feasibility_problem("feasibility", values, self.space):
            raise ConfigError([problem])
        self.prompt.graphs.set_feasibility(values)

    def parameter_groups(self) -> Sequence[Mapping[str, Any]]:
        network = {"lr_scale": self.options.graph_lr_scale, "weight_decay": self.options.graph_weight_decay}
        return [
            {"params": list(self.prompt.context)},
            {"params": list(self.prompt.network.parameters()), **network},
        ]
