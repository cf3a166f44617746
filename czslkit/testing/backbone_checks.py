"""The checks of a backbone: its features, its text tower, its freezing and its adapters."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..backbones import load_backbone
from ..components import Backbone
from ..errors import ConfigError
from ..types import ImageFeatures
from .report import Check, CheckFailed, CheckSkipped, check
from .scores import equal_or_fail

ADAPTER_DIM = 4
TEXTS = ("a photo of wet dog", "a photo of dry dog", "dry")
LENGTH = 8  # tokens of a prompt


class BackboneTrial:
    """A backbone with a few random images.

    Args:
        setting: as in the option ``backbone`` of a method.
        options: other arguments of ``load_backbone``.
    """

    def __init__(self, setting: str, options: Mapping[str, Any]) -> None:
        self.setting, self.options = setting, options

    def load(self, **options: Any) -> Backbone:
        """Return a new backbone in evaluation mode, built with the seed 0 as all others."""
        torch.manual_seed(0)
        return load_backbone(self.setting, **{**self.options, **options}).eval()

    @cached_property
    def backbone(self) -> Backbone:
        """A backbone that all checks share."""
        return self.load()

    @cached_property
    def images(self) -> Tensor:
        """Three random images, ``[3, 3, H, W]``."""
        size = self.backbone.image_size
        return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))

    def text_tower(self) -> Backbone:
        """Return the backbone if it has a text tower.

        Raises:
            CheckSkipped: its ``token_width`` is 0.
        """
        if not self.backbone.token_width:
            raise CheckSkipped("the backbone declares token_width = 0, no text tower")
        return self.backbone

    def prompts(self) -> Tensor:
        """Return embedded prompts, ``[N, L, W]``."""
        backbone = self.text_tower()
        return backbone.embed_tokens(backbone.tokenize(TEXTS, LENGTH))


@check("load_backbone calls the class as cls(argument, **options) and takes any setting of the form NAME/ARGUMENT.")
def the_backbone_loads(trial: BackboneTrial) -> str:
    """The backbone is built and has the attributes of a backbone."""
    backbone, wrong = trial.backbone, []
    for name in ("dim", "depth", "visual_tokens", "visual_width", "token_width", "image_size"):
        value, least = getattr(backbone, name, None), 1 if name in ("dim", "image_size") else 0
        if not (isinstance(value, int) and value >= least):
            wrong.append(f"{name} is {value!r}, expected a whole number from {least}")
    for name in ("mean", "std"):
        value = getattr(backbone, name, None)
        if not (
            isinstance(value, (tuple, list)) and len(value) == 3 and all(isinstance(x, (int, float)) for x in value)
        ):
            wrong.append(f"{name} is {value!r}, expected a number for each of 3 channels")
    scale = getattr(backbone, "scale", None)
    if not (isinstance(scale, Tensor) and scale.ndim == 0):
        wrong.append(f"scale is {scale!r}, expected a scalar tensor, the log of the logit scale")
    if wrong:
        raise CheckFailed("; ".join(wrong) + f". Set them in {type(backbone).__name__}.__init__")
    return f"{type(backbone).__name__}: joint width {backbone.dim}, {backbone.depth} visual layers"


@check("encode_image(images, layers) takes images [B, 3, H, W] and returns ImageFeatures.", the_backbone_loads)
@torch.no_grad()
def images_give_features_of_the_declared_shapes(trial: BackboneTrial) -> str:
    """Pooled features are ``[B, D]`` and finite; layers are ``[B, T, D]``, in the requested order."""
    backbone, images = trial.backbone, trial.images
    layers = tuple(range(backbone.depth))[-2:][::-1]
    features: Any = backbone.encode_image(images, layers)
    if not isinstance(features, ImageFeatures):
        raise CheckFailed(
            f"encode_image of {type(backbone).__name__} returned a {type(features).__name__}, expected ImageFeatures: "
            "return ImageFeatures(pooled, layers, tokens)"
        )
    expected: dict[str, tuple[Tensor, tuple[int, ...]]] = {"pooled": (features.pooled, (len(images), backbone.dim))}
    shape = (len(images), backbone.visual_tokens, backbone.dim)
    expected |= {f"layer {i}": (layer, shape) for i, layer in zip(layers, features.layers, strict=True)}
    if features.tokens is not None and backbone.depth:
        expected["tokens"] = (features.tokens, (len(images), backbone.visual_tokens, backbone.visual_width))
    _fail_if_shaped_otherwise(backbone, expected)
    for layer in layers:
        (alone,) = backbone.encode_image(images, (layer,)).layers
        found = features.layers[layers.index(layer)]
        remedy = "Return the layers in the order in which they were requested"
        equal_or_fail(found, alone, f"layer {layer} is the same whichever layers are requested", remedy)
    return f"{len(images)} images of {backbone.image_size} pixels, layers {list(layers)}"


@check("encode_image takes any number of images.", images_give_features_of_the_declared_shapes)
@torch.no_grad()
def features_do_not_depend_on_the_batch(trial: BackboneTrial) -> str:
    """An image has the same features in a second call and alone, in evaluation mode."""
    backbone, images = trial.backbone, trial.images
    expected = backbone.encode_image(images).pooled
    remedy = "Use randomness and statistics of the batch only if self.training is true"
    equal_or_fail(backbone.encode_image(images).pooled, expected, "a second call gives the same features", remedy)
    alone = torch.cat([backbone.encode_image(image).pooled for image in images.split(1)])
    equal_or_fail(alone, expected, "the features of an image do not depend on its batch", remedy)
    again = trial.load().encode_image(images).pooled
    remedy = "Load the weights in __init__, or draw random weights from a generator with a fixed seed"
    equal_or_fail(again, expected, "a second backbone gives the same features", remedy)
    return f"{len(images)} images, twice and one by one"


@check("Parameters are made in __init__, and encode_image uses them.", the_backbone_loads)
def the_backbone_is_frozen_unless_asked(trial: BackboneTrial) -> str:
    """No parameter is trainable by default, and ``image_parameters`` are parameters of the backbone."""
    backbone = trial.backbone
    if trainable := [name for name, p in backbone.named_parameters() if p.requires_grad]:
        raise CheckFailed(
            f"a backbone is frozen by default, but {', '.join(trainable[:3])} of {len(trainable)} parameters are "
            "trainable: call self.requires_grad_(False) at the end of __init__"
        )
    own = {id(p) for p in backbone.parameters()}
    if not all(id(p) in own for p in backbone.image_parameters()):
        raise CheckFailed("image_parameters returns parameters that the backbone does not have: keep them in a module")
    return f"{sum(p.numel() for p in backbone.parameters()):,} parameters"


@check("load_backbone(setting, trainable=True) trains image_parameters().",
       images_give_features_of_the_declared_shapes, the_backbone_is_frozen_unless_asked)  # fmt: skip
def the_image_tower_can_be_trained(trial: BackboneTrial) -> str:
    """With ``trainable=True``, the parameters of the image tower learn, and each gets a gradient from an image."""
    backbone = trial.load(trainable=True)
    features = backbone.encode_image(trial.images, tuple(range(backbone.depth)))
    torch.stack([value.square().sum() for value in (features.pooled, *features.layers)]).sum().backward()
    trainable = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    if idle := [name for name, p in trainable.items() if p.grad is None]:
        raise CheckFailed(
            f"{', '.join(idle[:3])} of {len(trainable)} image_parameters get no gradient from encode_image: "
            f"override image_parameters() in {type(backbone).__name__} to return only the parameters that encode_image "
            "uses, and use them without torch.no_grad and detach"
        )
    return f"{len(trainable)} tensors"


@check("add_adapters(make, ...) adds a module to each block, or raises a ValueError.",
       images_give_features_of_the_declared_shapes)  # fmt: skip
def adapters_are_added_or_refused(trial: BackboneTrial) -> str:
    """A request for adapters adds trainable parameters that images reach, or is an error."""
    try:
        backbone = trial.load(adapter_dim=ADAPTER_DIM)
    except ConfigError:  # it takes adapters, but not as it should
        raise
    except ValueError as refusal:
        return f"refused: {refusal}"
    trainable = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    if not trainable:
        raise CheckFailed(
            f"adapter_dim={ADAPTER_DIM} was accepted, but the backbone has no trainable parameter: a method that needs "
            f"adapters would train without them. Add them in {type(backbone).__name__}.add_adapters"
        )
    with torch.no_grad():
        for parameter in trainable.values():
            parameter.add_(0.02 * torch.randn_like(parameter))
    backbone.encode_image(trial.images).pooled.square().sum().backward()
    if idle := [name for name, p in trainable.items() if p.grad is None or not p.grad.any()]:
        raise CheckFailed(
            f"the adapters {', '.join(idle[:3])} have no effect on the pooled features: apply them in encode_image"
        )
    return f"{len(trainable)} trainable tensors"


@check("tokenize(texts, length) and embed_tokens(ids) return one row for each text.", the_backbone_loads)
@torch.no_grad()
def texts_become_tokens_of_the_asked_length(trial: BackboneTrial) -> str:
    """Token ids are ``[N, length]``, long texts are cut with their end mark, and embeddings are ``[N, length, W]``."""
    backbone = trial.text_tower()
    for length in (LENGTH, 5):
        ids = backbone.tokenize([*TEXTS, "wet " * 20], length)
        if ids.shape != (len(TEXTS) + 1, length):
            raise CheckFailed(f"tokenize is {list(ids.shape)}, expected [{len(TEXTS) + 1}, {length}]: pad or cut texts")
        if not (ids.max(1).values == ids.max()).all():
            raise CheckFailed(
                "the end mark is the largest token id of each text; a text that is cut keeps its end mark"
            )
    embedded = backbone.embed_tokens(ids)
    _fail_if_shaped_otherwise(backbone, {"embed_tokens": (embedded, (*ids.shape, backbone.token_width))})
    return f"{len(ids)} texts"


@check("encode_text takes embedded prompts [N, L, W] and returns hidden states of this shape.",
       texts_become_tokens_of_the_asked_length)  # fmt: skip
@torch.no_grad()
def prompts_become_features(trial: BackboneTrial) -> str:
    """Hidden states are ``[N, L, W]``, projected states are ``[N, L, D]``, and no prompt changes another."""
    backbone, prompts = trial.text_tower(), trial.prompts()
    hidden = backbone.encode_text(prompts)
    projected = backbone.project_text(hidden)
    shapes = {"encode_text": (hidden, tuple(prompts.shape)),
              "project_text": (projected, (*prompts.shape[:2], backbone.dim)),
              "encode_sentences": (backbone.encode_sentences(TEXTS), (len(TEXTS), backbone.dim))}  # fmt: skip
    _fail_if_shaped_otherwise(backbone, shapes)
    alone = torch.cat([backbone.encode_text(prompt) for prompt in prompts.split(1)])
    equal_or_fail(alone, hidden, "a prompt does not change another", "Encode each row of the prompts by itself")
    sentences = torch.cat([backbone.encode_sentences([text]) for text in TEXTS])
    remedy = "Set causal = True only if no token attends to later tokens, and find end marks in end_of_text"
    equal_or_fail(backbone.encode_sentences(TEXTS), sentences, "a sentence does not change another", remedy)
    return f"{len(prompts)} prompts of {LENGTH} tokens, and sentences of different lengths"


@check("encode_text_after(start, rest) takes start [S, W] and rest [N, L - S, W].", prompts_become_features)
@torch.no_grad()
def shared_tokens_can_be_encoded_once(trial: BackboneTrial) -> str:
    """``encode_text_after`` equals ``encode_text`` of the whole prompts, for each number of shared tokens."""
    backbone, prompts = trial.text_tower(), trial.prompts()[:2]  # they share the first four tokens
    whole = backbone.encode_text(prompts)
    for shared in (1, 3):
        found = backbone.encode_text_after(prompts[0, :shared], prompts[:, shared:])
        equal_or_fail(
            found,
            whole,
            f"encode_text_after of {shared} shared tokens equals encode_text",
            "In a tower that is not causal, the shared tokens see the others: do not override encode_text_after",
        )
    return "1 and 3 shared tokens"


@check("encode_text depends on the positions of the tokens.", prompts_become_features)
@torch.no_grad()
def the_order_of_words_counts(trial: BackboneTrial) -> str:
    """Prompts with the same words in another order have other features."""
    backbone = trial.text_tower()
    first, second = backbone.encode_sentences(["wet dog dry cat", "dry cat wet dog"])
    if torch.allclose(first, second, atol=1e-6):
        raise CheckFailed(
            "'wet dog dry cat' and 'dry cat wet dog' have the same features: add positions to the tokens in encode_text"
        )
    return "2 sentences of the same words"


@check("encode_text and project_text compute with torch, without torch.no_grad.", prompts_become_features)
def gradients_reach_the_prompts(trial: BackboneTrial) -> str:
    """Learned prompts get a gradient from the text features."""
    backbone = trial.text_tower()
    prompts = trial.prompts().detach().clone().requires_grad_()
    backbone.project_text(backbone.encode_text(prompts)).square().sum().backward()
    if prompts.grad is None or not prompts.grad.any():
        raise CheckFailed("no gradient reaches the embeddings of a prompt: remove torch.no_grad and detach")
    return "the sum of squared features"


def _fail_if_shaped_otherwise(backbone: Backbone, expected: Mapping[str, tuple[Tensor, tuple[int, ...]]]) -> None:
    """Check the shape of each tensor, and that it is finite."""
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise CheckFailed(
                f"{name} of {type(backbone).__name__} is {list(tensor.shape)}, expected {list(shape)} by its attributes"
            )
        if not tensor.isfinite().all():
            raise CheckFailed(f"{name} of {type(backbone).__name__} has values that are not finite")


BACKBONE_CHECKS: tuple[Check[BackboneTrial], ...] = (
    the_backbone_loads,
    images_give_features_of_the_declared_shapes,
    features_do_not_depend_on_the_batch,
    the_backbone_is_frozen_unless_asked,
    the_image_tower_can_be_trained,
    adapters_are_added_or_refused,
    texts_become_tokens_of_the_asked_length,
    prompts_become_features,
    shared_tokens_can_be_encoded_once,
    the_order_of_words_counts,
    gradients_reach_the_prompts,
)
