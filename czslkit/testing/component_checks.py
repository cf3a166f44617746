"""The checks of an aggregator, an interaction or a head, in a small method on the demo backbone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..backbones import load_backbone
from ..components import AGGREGATORS, HEADS, INTERACTIONS, Backbone, Interaction
from ..data.batches import Feed
from ..data.loading import load_dataset
from ..data.splits import Splits
from ..method import Method
from ..prompts import SoftPrompt
from ..registry import Registry
from ..types import ImageFeatures, TextFeatures
from .report import Check, CheckFailed, check
from .scores import SCORE_CHECKS, Scoring, add_noise, check_gradients
from .tiny_data import NAME, write_tiny
from .trial import BATCH_SIZE

REGISTRIES: Mapping[str, Registry[Any]] = {"aggregator": AGGREGATORS, "interaction": INTERACTIONS, "head": HEADS}
#: Other components of the small method, unless the check is asked for others.
DEFAULTS = {"aggregator": "last_layer", "interaction": "none", "head": "cosine"}


class AddLevels(Interaction):
    """An interaction that adds the mean token of every level to the pooled image, so that each level has an effect."""

    def forward(
        self, image: ImageFeatures, text: TextFeatures, backbone: Backbone
    ) -> tuple[ImageFeatures, TextFeatures]:
        means = [level.mean(1) for level in image.levels]
        return replace(image, pooled=sum(means, image.pooled)), text


class ComponentTrial:
    """A component in a small method with a soft prompt, on the demo backbone and the tiny dataset.

    Args:
        name: registered name of the component.
        kind: kind of the component.
        options: arguments of the component's class, and registered names of the other components by their kind.
        folder: an empty folder.
    """

    def __init__(self, name: str, kind: str, options: Mapping[str, Any], folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.options = {key: value for key, value in options.items() if key not in REGISTRIES}
        others = {key: str(value) for key, value in options.items() if key in REGISTRIES}
        self.names = {**DEFAULTS, **others, kind: name}

    @cached_property
    def data(self) -> Splits:
        """The tiny dataset."""
        write_tiny(self.folder)
        return load_dataset(NAME, self.folder)

    def build(self) -> Method:
        """Return the small method; two calls return equal methods."""
        torch.manual_seed(0)
        backbone, space = load_backbone("demo"), self.data.space
        prompt = SoftPrompt(backbone, space, learn_context=True, primitives=True, keep_tokens=True)
        parts = {kind: self._part(kind, backbone) for kind in REGISTRIES}
        return Method(space=space, backbone=backbone, prompt=prompt, **parts)

    def _part(self, kind: str, backbone: Backbone) -> Any:
        """Return the component of a kind."""
        if (self.kind, kind, self.names[kind]) == ("aggregator", "interaction", DEFAULTS["interaction"]):
            return AddLevels()
        cls, space = REGISTRIES[kind][self.names[kind]], self.data.space
        known = {"dim": backbone.dim, "scale": backbone.scale, "backbone": backbone, "space": space}
        known |= {"attrs": len(space.attrs), "objs": len(space.objs)}
        given = self.options if kind == self.kind else {}
        parameters = inspect.signature(cls).parameters.values() if cls.__init__ is not torch.nn.Module.__init__ else ()
        needed = {
            p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        if lacking := sorted(needed - known.keys() - given.keys()):
            raise CheckFailed(
                f"{cls.__name__} needs {', '.join(lacking)}: give them to the check, as in "
                f"check_component({self.names[kind]!r}, {lacking[0]}=...) or --set {lacking[0]}=..."
            )
        return cls(**{name: value for name, value in known.items() if name in needed}, **given)

    @cached_property
    def scoring(self) -> Scoring:
        """The small method with noise on its parameters, images and every pair of the open world."""
        method = self.build()
        add_noise(method)
        images = Feed(method, self.data.test, BATCH_SIZE).sample(BATCH_SIZE).images
        assert isinstance(images, Tensor)
        return Scoring(method.eval(), images, self.data.space.open().pairs)


@check(
    "The component is built from its arguments. An interaction or a head that needs certain levels gets them from the "
    "aggregator that is named with it, as in check_component(NAME, aggregator=...)."
)
def the_component_is_part_of_a_method(trial: ComponentTrial) -> str:
    """A small method is built around the component."""
    trial.build()
    return ", ".join(f"{kind} {name}" for kind, name in trial.names.items())


@check(
    "The component passes gradients on, without torch.no_grad and detach. Levels come from the aggregator that is "
    "named with it, as in check_component(NAME, aggregator=...).",
    the_component_is_part_of_a_method,
)
def its_parameters_get_gradients(trial: ComponentTrial) -> str:
    """The loss of the small method is finite and reaches every parameter of the component."""
    method = trial.build()
    component = getattr(method, trial.kind)
    for parameter in method.prompt.parameters():
        parameter.requires_grad_(trial.kind != "head" and parameter.requires_grad)
    reached = [name for name, p in method.named_parameters() if p.requires_grad]
    for name in reached:
        if not name.startswith(trial.kind):  # other components need not use every branch of the prompt
            method.get_parameter(name).requires_grad_(name == "prompt.words")
    check_gradients(method, trial.scoring.images, trial.data.space)
    return f"{sum(1 for _ in component.parameters())} parameters"


def _on_scoring(one: Check[Scoring]) -> Check[ComponentTrial]:
    """Return a check of a built method as a check of a trial."""

    def run(trial: ComponentTrial) -> str | None:
        with torch.no_grad():
            return one.run(trial.scoring)

    run.__name__, run.__doc__ = one.run.__name__, one.run.__doc__
    return Check(run, one.remedy, (the_component_is_part_of_a_method.name, *one.needs))


def component_checks() -> tuple[Check[ComponentTrial], ...]:
    """Return the checks of a component."""
    return (the_component_is_part_of_a_method, its_parameters_get_gradients, *map(_on_scoring, SCORE_CHECKS))
