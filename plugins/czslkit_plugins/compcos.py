"""CompCos: cosines of image features with composed vectors of words, and margins by feasibility in the open world.

Mancini, Naeem, Xian and Akata, "Open World Compositional Zero-Shot Learning", CVPR 2021.
https://arxiv.org/abs/2101.12609
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from czslkit.aggregators import ImageMlp
from czslkit.backbones import load_backbone
from czslkit.heads import MarginCosine
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.pair_feasibility import feasibility
from czslkit.training_hooks import TrainingPosition
from czslkit.translation import State, Translation
from czslkit.types import Batch, PairSpace
from czslkit.word_prompts import ComposedWords, FromWordVectors, WordTable, WordVectorOptions

#: Keys of the authors' YAML that change no function of a checkpoint, which CompCos, CGE, Co-CGE and ADE share.
UNUSED_KEYS = tuple(
    """
    batch_size beta clean_only clf_init code_level code_voc composition config config_name cpu_eval cutmix
    cutmix_prob cv_dir data_dir drop drop_out embed_rank eval_type eval_val_every freeze_featues freeze_features
    graph hard_masking hardk image_extractor img_feature_dim img_feature_type lambda_ant lambda_attr lambda_aux
    lambda_axiom lambda_cls_attr lambda_cls_obj lambda_comm lambda_inv lambda_obj lambda_sub lambda_sym lambda_trip
    load logpath loss_type lrg max_epochs max_img_seq_length max_seq_length model model_name_or_path name nmods
    norm_family num_negs pair_dropout save_every splitname subset task_name test_batch_size test_set tokenizer_name
    update_feasibility_every use_layernorm wd workers
    """.split()  # noqa: SIM905
)


def mlp_sizes(state: State, prefix: str = "image_embedder.mod.") -> dict[str, Any]:
    """Return the options of an :class:`ImageMlp` that the names and shapes of the authors' tensors determine."""
    matches = ((re.fullmatch(rf"{re.escape(prefix)}(\d+)\.weight", key), value) for key, value in state.items())
    found = sorted((int(match[1]), value.ndim, int(value.shape[0])) for match, value in matches if match)
    linear = [(number, width) for number, dims, width in found if dims == 2]
    if len(linear) < 2:
        return {"hidden": ()}
    norm, block = len(linear) < len(found), linear[1][0]  # a hidden layer has Linear, ReLU, and perhaps two more parts
    return {"hidden": tuple(width for _, width in linear[:-1]), "norm": norm, "dropout": block - 2 - norm == 1}


def _sizes(state: State) -> dict[str, Any]:
    return {**mlp_sizes(state), "dim": int(state["attr_embedder.weight"].shape[1])}


@dataclass(frozen=True)
class CompCosOptions(WordVectorOptions):
    """The options of CompCos."""

    backbone: str = option("ViT-L-14-quickgelu/openai", "image tower, which is frozen; a CLIP model, or timm/MODEL")
    dim: int | None = option(
        None, "width of the space of images and pairs; that of the vectors of words if not set", minimum=1
    )
    hidden: tuple[int, ...] = option((768,), "widths of the hidden layers on the image features", minimum=1)
    norm: bool = option(True, "true puts a layer norm into each hidden layer")
    dropout: bool = option(True, "true drops half of the numbers after each hidden layer in training")
    relu: bool = option(False, "true ends the layers on the image features with a ReLU")
    static_words: bool = option(False, "true does not train the vectors of words")
    scale: float = option(20.0, "factor of the cosines in the loss", minimum=0)
    open_world: bool = option(
        False, "true trains with every combination as a candidate, with margins by feasibility; false with seen pairs"
    )
    margin: float = option(0.4, "factor of the margins; only with open_world", minimum=0)
    margin_epochs: int = option(15, "number of epochs in which the margins grow; only with open_world", minimum=1)


@METHODS.register("compcos")
class CompCos(FromWordVectors, Method):
    """CompCos: cosines of image features with pairs composed of word vectors, without a text tower."""

    version = 1
    display_name = "CompCos"
    citation = """
@inproceedings{mancini2021compcos,
  author = {Mancini, Massimiliano and Naeem, Muhammad Ferjad and Xian, Yongqin and Akata, Zeynep},
  title = {Open World Compositional Zero-Shot Learning},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year = {2021}
}
"""
    Options = CompCosOptions
    translation = Translation(
        names={
            r"aggregator\.mod": "image_embedder.mod",
            r"prompt\.words\.(attr|obj)": r"\1_embedder.weight",
            r"prompt\.projection": "projection",
        },
        settings={
            "cosine_scale": "scale",
            "dropout": "dropout",
            "emb_dim": "dim",
            "emb_init": "word_vectors",
            "epoch_max_margin": "margin_epochs",
            "margin": "margin",
            "norm": "norm",
            "open_world": "open_world",
            "relu": "relu",
            "static_inp": "static_words",
        },
        sizes=_sizes,
        sections={"net": "", "image_extractor": "image_extractor."},
        encoder="image_extractor.",
        features=lambda state: int(state["image_embedder.mod.0.weight"].shape[1]),
        not_saved=r"head\.(margins|hidden)",
        ignored=(
            *UNUSED_KEYS,
            "fc_emb",
            "gcn_type",
            "gr_emb",
            "graph_init",
            "nlayers",
            "train_only",
            "update_features",
        ),
    )
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 5e-5, "weight_decay": 5e-5, "batch_size": 128, "schedule": "constant"}

    options: CompCosOptions

    def __init__(self, options: CompCosOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        dim = options.dim or options.width(backbone)
        words = WordTable(space, dim, learned=not options.static_words)
        margin = options.margin if options.open_world else None
        super().__init__(
            space=space,
            backbone=backbone,
            prompt=ComposedWords(words),
            aggregator=ImageMlp(
                backbone.dim,
                dim,
                options.hidden,
                norm=options.norm,
                dropout=0.5 if options.dropout else None,
                relu=options.relu,
            ),
            head=MarginCosine(space, options.scale, margin, options.margin_epochs),
        )
        self.options = options
        self.register_buffer("every_pair", space.open().pairs, persistent=False)
        self.every_pair: Tensor

    def loss(self, batch: Batch, pairs: Tensor) -> Tensor | Mapping[str, Tensor]:
        return super().loss(batch, self.every_pair if self.options.open_world else pairs)

    def after_epoch(self, position: TrainingPosition) -> None:
        if self.options.open_world:
            assert isinstance(self.head, MarginCosine)
            self.head.update(self.feasibility().to(self.device), position.epoch)

    def feasibility(self) -> Tensor:
        return feasibility(self.space, self.words.attr, self.words.obj)
