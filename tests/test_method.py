"""Classes of methods that cannot be built or used, with the message that says what to change."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import czslkit
from czslkit import Batch, PairSpace, load_backbone
from czslkit.errors import ConfigError, PluginError
from czslkit.heads import CosineHead
from czslkit.method import Method, construct, ranked
from czslkit.prompts import FixedPrompt
from czslkit.runner.settings import method_problems
from czslkit.types import VALIDATION, ImageFeatures, TextFeatures


class Mine(Method):
    """A correct method, from which the others are made."""

    prompt_class: ClassVar[Callable[..., nn.Module]] = FixedPrompt
    head_class: ClassVar[Callable[..., Any]] = CosineHead

    def __init__(self, options: Any, space: PairSpace) -> None:
        backbone = load_backbone("demo")
        super().__init__(
            space=space,
            backbone=backbone,
            prompt=type(self).prompt_class(space),
            head=type(self).head_class(backbone.scale),
        )


class WithoutSuper(Mine):
    def __init__(self, options: Any, space: PairSpace) -> None:
        self.options = options


class ModuleBeforeSuper(Mine):
    def __init__(self, options: Any, space: PairSpace) -> None:
        self.layer = nn.Linear(2, 2)
        super().__init__(options, space)


class SuperWithoutParts(Mine):
    def __init__(self, options: Any, space: PairSpace) -> None:
        super(Mine, self).__init__()  # type: ignore[call-arg]


class ModuleSuper(Mine):
    def __init__(self, options: Any, space: PairSpace) -> None:
        nn.Module.__init__(self)


class OtherError(Mine):
    def __init__(self, options: Any, space: PairSpace) -> None:
        options.nowhere  # noqa: B018


def build(cls: type[Method], space: PairSpace) -> Method:
    return construct(cls, None, space, where="mine")


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (WithoutSuper, "does not call Method.__init__"),
        (ModuleSuper, "does not call Method.__init__"),
        (ModuleBeforeSuper, "cannot assign module before Module.__init__() call"),
        (SuperWithoutParts, "Method.__init__() missing 4 required keyword-only arguments"),
    ],
)
def test_a_method_that_does_not_call_super_is_told_how(cls: type[Method], reason: str, space: PairSpace) -> None:
    with pytest.raises(PluginError, match=re.escape(reason)) as caught:
        build(cls, space)
    assert str(caught.value).startswith(f"mine: {cls.__name__} ({__file__})")
    assert "Call super().__init__(space=space, backbone=..., prompt=..., head=...) before" in str(caught.value)


def test_other_errors_of_a_constructor_stay_as_they_are(space: PairSpace) -> None:
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'nowhere'"):
        build(OtherError, space)


@pytest.mark.parametrize("arguments", ["space, options", "options", "options, space, size", "*, options, space"])
def test_a_constructor_with_other_arguments_is_an_error(arguments: str, space: PairSpace) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def __init__(self, {arguments}): pass", namespace)
    cls = type("Other", (Mine,), {"__init__": namespace["__init__"], "__module__": __name__})
    message = (
        f"mine: Other ({__file__}) takes ({arguments}), but a method is built as Other(options, space): "
        "write def __init__(self, options, space)"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        build(cls, space)


class TensorPrompt(FixedPrompt):
    def forward(self, backbone: nn.Module, pairs: torch.Tensor) -> Any:
        return super().forward(backbone, pairs).pair  # type: ignore[arg-type]


class TensorHead(CosineHead):
    def forward(self, image: ImageFeatures, text: TextFeatures) -> Any:
        return super().forward(image, text).pair


class WithTensorPrompt(Mine):
    prompt_class = TensorPrompt


class WithTensorHead(Mine):
    head_class = TensorHead


class WithTensorForward(Mine):
    def forward(self, *arguments: Any) -> Any:
        return super().forward(*arguments).pair


@pytest.mark.parametrize(
    ("cls", "owner", "remedy"),
    [
        (WithTensorPrompt, "TensorPrompt", "czslkit.TextFeatures: return TextFeatures(pairs, ...)"),
        (WithTensorHead, "TensorHead", "czslkit.Scores: return Scores(...)"),
        (WithTensorForward, "WithTensorForward", "czslkit.Scores: return Scores(...)"),
    ],
)
def test_a_tensor_in_place_of_a_value_is_an_error_that_names_both(
    cls: type[Method], owner: str, remedy: str, space: PairSpace
) -> None:
    method = build(cls, space)
    batch = Batch(torch.zeros(2, 3, 64, 64), *space.pairs[:2].T)
    message = f"mine: the call of {owner} ({__file__}) returned a Tensor, expected {remedy}"
    with pytest.raises(PluginError, match=re.escape(message)):
        method.loss(batch, space.pairs)
    with pytest.raises(PluginError, match=re.escape(message)):
        method.rank(batch.images, method.text(space.pairs))


def test_a_built_method_can_be_copied_and_pickled(space: PairSpace) -> None:
    method = build(Mine, space)
    for copied in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        assert torch.equal(copied.text(space.pairs).pair, method.text(space.pairs).pair)


class WrongOptions:
    pass


@pytest.mark.parametrize(
    ("members", "messages"),
    [
        ({"Options": None}, ["mine: Options is None, expected a class with @dataclass(frozen=True) above it"]),
        ({"Options": WrongOptions}, ["mine: WrongOptions ({file}) is not a dataclass: write @dataclass(frozen=True)"]),
        (
            {"recipe": {"epohs": 3, "lr": "fast"}},
            [
                "mine: recipe of Wrong ({file}): epohs is not an option. Did you mean 'epochs'?",
                "mine: recipe of Wrong ({file}): lr is 'fast', expected a number",
            ],
        ),
        (
            {"recipe": [1e-3]},
            ["mine: recipe of Wrong ({file}) is [0.001], expected training settings such as {{'lr': 1e-3}}"],
        ),
    ],
)
def test_mistakes_in_the_class_are_found_before_anything_is_run(
    members: dict[str, Any], messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(czslkit.METHODS._items, "mine", type("Wrong", (Mine,), {"__module__": __name__, **members}))
    with pytest.raises(ConfigError) as caught:
        czslkit.bench("csp,mine", "demo", settings={"word_dropout": 0.1}, runs="nowhere")
    assert caught.value.problems == tuple(method_problems("mine", czslkit.METHODS["mine"]))
    assert len(caught.value.problems) == len(messages)
    for message in messages:
        assert message.format(file=__file__) in str(caught.value)


def test_a_mask_of_pairs_is_described_in_words(space: PairSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mine, "masks_pairs", True)
    with pytest.raises(PluginError, match=r"^mine: masks_pairs of Mine .* is True, expected words for the caption"):
        construct(Mine, Mine.Options(), space, where="mine")


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        (None, "a NoneType"),
        (torch.zeros(2, 4), r"a tensor \[2, 4\]"),
        (torch.tensor([[0, torch.nan, 0], [0, 0, 0]]), "scores that are NaN or infinite"),
        (torch.full((2, 3), torch.inf), "scores that are NaN or infinite"),
    ],
)
def test_scores_that_are_no_numbers_are_an_error_that_names_the_method(scores: Any, found: str) -> None:
    class Odd(Mine):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def rank(self, images: Any, text: Any, setting: Any = VALIDATION) -> Any:
            return scores

    text = TextFeatures(torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, 8))
    with pytest.raises(
        PluginError, match=rf"^rank of .*Odd \(.*test_method\.py\) returned {found}, expected .*\[2, 3\]"
    ):
        ranked(Odd(), torch.zeros(2, 3, 8, 8), text, VALIDATION)


def test_pairs_may_have_the_score_of_minus_infinity() -> None:
    class Masking(Mine):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def rank(self, images: Any, text: Any, setting: Any = VALIDATION) -> Any:
            return torch.full((len(images.pooled), 3), -torch.inf)

    text = TextFeatures(torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, 8))
    assert ranked(Masking(), ImageFeatures(torch.zeros(2, 8)), text, VALIDATION).shape == (2, 3)
