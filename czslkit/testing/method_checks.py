"""The checks of a method: what it declares, its scores, its trainings and its results."""

from __future__ import annotations

from dataclasses import fields

import torch

from ..learned_state import learned_state
from ..method import class_problems
from ..runner.settings import method_problems
from .report import Check, CheckFailed, CheckSkipped, check
from .scores import (
    SCORE_CHECKS,
    Scoring,
    a_second_pass_gives_the_same_scores,
    check_loss,
    chunks_of_pairs_agree,
    tokens_are_declared,
)
from .trial import MethodTrial


@check("Write @dataclass(frozen=True) above a class of options, and set Options = ThisClass on the method.")
def options_are_a_dataclass(trial: MethodTrial) -> str:
    """``Options`` is a frozen dataclass whose fields are made with ``option``, and ``__init__`` takes it."""
    if problems := class_problems(trial.cls, where=trial.name):
        raise CheckFailed("\n".join(problems))
    return ", ".join(field.name for field in fields(trial.cls.Options)) or "no options"


@check("Keys of recipe are names of training settings, and its values are of their types.", options_are_a_dataclass)
def the_recipe_has_training_settings(trial: MethodTrial) -> str:
    """``recipe`` has names and values of training settings."""
    if problems := method_problems(trial.name, trial.cls):
        raise CheckFailed("\n".join(problems))
    return ", ".join(trial.cls.recipe) or "no recipe"


@check("The method is built by cls(options, space), with the options of the check.", the_recipe_has_training_settings)
def the_method_can_be_built(trial: MethodTrial) -> str:
    """The method is built from its options and a label space, and a second one with the same seed is equal."""
    method, again = trial.build(), trial.build()
    state, other = learned_state(method), learned_state(again)
    for name, value in state.items():
        if not torch.equal(value, other[name]):
            raise CheckFailed(
                f"two methods that are built with one seed differ in {name}: draw random values with torch, not with "
                "another generator"
            )
    return f"{sum(p.numel() for p in method.parameters() if p.requires_grad):,} trainable parameters"


@check("loss(batch, pairs) returns a scalar tensor that depends on every trainable parameter.", tokens_are_declared)
def a_loss_reaches_every_parameter(trial: MethodTrial) -> str:
    """The loss is finite, and every trainable parameter gets a gradient from it."""
    method, batch = trial.first_batch()
    if not method.trains:
        raise CheckSkipped("the method has no trainable parameters")
    check_loss(method, batch, trial.data.train.pairs)
    return f"a batch of {len(batch.attr)} images"


@check(
    "The training calls the hooks of the method, loss and rank; correct the line above.",
    a_loss_reaches_every_parameter,
    a_second_pass_gives_the_same_scores,
    chunks_of_pairs_agree,
)
def a_training_runs(trial: MethodTrial) -> str:
    """The method is trained for a few epochs with its recipe, and validated after each."""
    epochs = trial.trained.training.epochs
    return f"{epochs} epochs of {len(trial.data.train)} images" if epochs else "no trainable parameters"


def _on_scoring(one: Check[Scoring]) -> Check[MethodTrial]:
    """Return a check of a built method as a check of a trial."""

    def run(trial: MethodTrial) -> str | None:
        if trial.perturbed.streams and trial.perturbed.streams_in_validation:
            raise CheckSkipped("the method declares streams = True, and is checked in the evaluator")
        with torch.no_grad():
            return one.run(trial.scoring)

    run.__name__, run.__doc__ = one.run.__name__, one.run.__doc__
    return Check(run, one.remedy, (the_method_can_be_built.name, *one.needs))


DECLARATION_CHECKS: tuple[Check[MethodTrial], ...] = (
    options_are_a_dataclass,
    the_recipe_has_training_settings,
    the_method_can_be_built,
)
METHOD_SCORE_CHECKS: tuple[Check[MethodTrial], ...] = tuple(map(_on_scoring, SCORE_CHECKS))
