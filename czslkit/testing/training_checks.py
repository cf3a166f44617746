"""The checks of a method's training: real epochs, a resume after a kill, the checkpoint and a benchmark."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..evaluation.feasibility_source import method_feasibility
from ..evaluation.validation import plan_validation
from ..method import Method
from ..metrics.names import WORLDS
from ..options import parse
from ..runner.bench import bench
from ..runner.train import training_folder
from ..training.losses import loss_parts
from ..training.options import TrainOptions
from ..training.split import SAMPLE, sampled, undivided
from .evaluation_checks import SPLITS, evaluated
from .method_checks import a_training_runs
from .report import Check, CheckFailed, CheckSkipped, check
from .scores import equal_or_fail
from .tiny_data import NAME
from .trial import EPOCHS, MethodTrial, Trained


@check("The method runs in a benchmark like any other; correct the line above.", a_training_runs)
def a_benchmark_runs_and_runs_again(trial: MethodTrial) -> str:
    """``bench`` gives numbers in both worlds, and the same call finds them finished."""
    lines: list[str] = []
    where = {"data": trial.folder / "data", "runs": trial.folder / "runs", "device": "cpu", "progress": False}
    arguments: dict[str, Any] = {"settings": trial.settings(), "log": lines.append, **where}
    first = bench(trial.name, NAME, WORLDS, **arguments)
    for result in first.results:
        if result["status"] != "done":
            error = result["error"]
            raise CheckFailed(
                f"the {result['cell']['world']} world failed with {error.get('type', 'an error')}: {error['message']}"
                "\n" + "\n".join(error.get("traceback", "").splitlines()[-5:])
            )
    lines.clear()
    again = bench(trial.name, NAME, WORLDS, **arguments)
    if [r["metrics"] for r in again.results] != [r["metrics"] for r in first.results] or not any(
        "done before" in line for line in lines
    ):
        raise CheckFailed(
            "the same benchmark ran a second time instead of finding its results: " + "; ".join(lines) + ". Do not "
            "write into the folders that options name, and give classes a fixed version"
        )
    return f"{' and '.join(WORLDS)} world"


@check("A training draws its random numbers from torch.", a_training_runs, a_benchmark_runs_and_runs_again)
def two_trainings_with_one_seed_are_equal(trial: MethodTrial) -> str:
    """The training of the benchmark ends as the same training outside of it, to the last bit."""
    _skip_without_training(trial)
    benchmark = replace(trial.trained, folder=training_folder(trial.job("runs")))
    if difference := _first_difference(benchmark, trial.trained):
        raise CheckFailed(
            f"two trainings with one seed differ in {difference}: draw random numbers with torch only, or seed other "
            "generators from torch; use lists instead of sets, whose order differs; keep nothing in the class or module"
        )
    return f"{EPOCHS} epochs"


@check("Every trainable parameter takes part in the loss of every training step.", a_training_runs)
def learned_parameters_move(trial: MethodTrial) -> str:
    """Every trainable parameter has changed at the end of the training."""
    _skip_without_training(trial)
    before = {name: p.detach().clone() for name, p in trial.build().named_parameters() if p.requires_grad}
    _fail_if_unmoved(trial, before, trial.trained)
    return f"{len(before)} parameters"


@check("The method trains with augmented images and with images as they are.", a_training_runs)
def a_training_with_the_other_augmentation_runs(trial: MethodTrial) -> str:
    """The method also learns if images are augmented and the recipe does not, or the reverse."""
    _skip_without_training(trial)
    augment = not trial.spec().train.augment
    before = {name: p.detach().clone() for name, p in trial.build().named_parameters() if p.requires_grad}
    _fail_if_unmoved(trial, before, trial.train("augmented", augment=augment, epochs=2))
    return f"augment={str(augment).lower()}"


@check("A new method object must be able to resume from the state of another.", two_trainings_with_one_seed_are_equal)
def a_killed_training_ends_with_the_same_weights(trial: MethodTrial) -> str:
    """A training that is killed and resumed after each epoch ends as an uninterrupted one, to the last bit."""
    _skip_without_training(trial)
    resumed = trial.train_killed("killed")
    if difference := _first_difference(resumed, trial.trained):
        raise CheckFailed(
            f"a resumed training differs in {difference}: state was lost when the process ended. Possible causes: a "
            "tensor outside of parameters, buffers and training_state (keep tensors in buffers that __init__ registers "
            "with their final shapes, and return other state from training_state); or a hook that acts in one epoch on "
            "something that is not saved (save it, or derive it from position.epoch in every epoch)"
        )
    return f"{EPOCHS} epochs, killed after each"


@check(
    "validation_loss, by default loss, returns a scalar for a batch without companions and the pairs of all splits: "
    "override it if loss needs more.",
    a_training_runs,
)
def the_validation_loss_is_the_loss_of_the_method(trial: MethodTrial) -> str:
    """With ``train.select=loss``, an epoch is chosen by the loss that the method is trained with."""
    _skip_without_training(trial)
    method, data = trial.trained.method, trial.data
    feed = trial.job("runs").machine.feed(method, data.val, len(data.val))
    settings = {**trial.cls.recipe, "select": "loss", "fused_validation_loss": False}
    options = parse(TrainOptions, settings, where=trial.name)
    found = plan_validation(method, data, feed, options, bins="original")()["val_loss"]
    if trial.cls.validation_loss is not Method.validation_loss:
        return "the method has its own validation loss"
    pairs = data.space.pairs
    with torch.no_grad():
        expected = fmean(
            loss_parts(method.eval(), method.loss(batch, pairs))["loss"].item() for batch in feed.batches()
        )
    if not abs(found - expected) <= 1e-4 * max(1.0, abs(expected)):
        raise CheckFailed(
            f"the validation loss is {found:.6g}, but {type(method).__name__}.loss gives {expected:.6g} for the same "
            "images in evaluation mode: define loss(self, batch, pairs) in the class, not as an attribute of the object"
        )
    return f"{len(data.val)} validation images"


@check("A trained method is built from its options, and then gets its tensors.", a_training_runs)
def a_checkpoint_gives_the_same_scores(trial: MethodTrial) -> str:
    """The method that is built from the checkpoint alone scores as the method that was trained."""
    reloaded = trial.trained.reloaded()
    for split in SPLITS:
        _, expected = evaluated(trial, trial.trained.method, split)
        _, found = evaluated(trial, reloaded, split)
        for world, scores in found.items():
            equal_or_fail(
                scores,
                expected[world],
                f"the method of a checkpoint scores {split} images in the {world} world as the trained method",
                "Keep every tensor that scores depend on in a parameter, or in a buffer that __init__ registers; a "
                "tensor that prepare or a hook assigns to an attribute is not saved. Keep no features from one call to "
                "the next",
            )
    return "the scores of val and test in both worlds"


@check("The validation of an epoch can be repeated with the weights that were kept of it.", a_training_runs)
def a_reported_validation_can_be_repeated(trial: MethodTrial) -> str:
    """The validation AUC that the training reported is the AUC of the method in the checkpoint."""
    _skip_without_training(trial)
    training = trial.trained.training
    assert training.best_epoch is not None
    reported = training.history[training.best_epoch - 1]["val_auc"]
    spec, method = trial.spec(), trial.trained.reloaded()
    feed = trial.job("runs").machine.feed(method, trial.data.val, spec.train.batch_size)
    options = replace(spec.train, select="auc", fused_validation_loss=False)
    validate = plan_validation(
        method, trial.data, feed, options, bins=spec.evaluation.bins, stream_seed=spec.evaluation.stream_seed
    )
    found = validate()["val_auc"]
    if not abs(found - reported) <= 1e-6:
        raise CheckFailed(
            f"the training reported a validation AUC of {100 * reported:.2f} for epoch {training.best_epoch}, but the "
            f"weights of this epoch have {100 * found:.2f}: the images were encoded by an encoder that changed later, "
            "or scores depend on state that is not saved. Let gradients reach the encoder, or set "
            "caches_features = False if a hook changes it"
        )
    return f"epoch {training.best_epoch}"


@check("feasibility() returns a number from -1 to 1 for each combination, [A * O].", a_training_runs)
def a_feasibility_of_its_own_has_a_number_for_each_pair(trial: MethodTrial) -> str:
    """``feasibility`` of the trained method has a number from -1 to 1 for each attribute and object."""
    if trial.cls.feasibility is Method.feasibility:
        raise CheckSkipped("the method has no feasibility of its own")
    return f"{len(method_feasibility(trial.trained.method).values)} pairs"


@check("loss is called with a batch of a few images.", a_training_runs)
def several_processes_can_divide_a_batch(trial: MethodTrial) -> str:
    """The loss of some images is the mean of the losses of their halves, so that processes can divide a batch."""
    _skip_without_training(trial)
    method, split = trial.build(), trial.data.train
    batch = sampled(trial.job("built").machine.feed(method, split, SAMPLE))
    if reason := undivided(method, batch, split.pairs):
        raise CheckSkipped(f"with several processes, each will compute whole batches, since {reason}")
    return f"{SAMPLE} images"


def _skip_without_training(trial: MethodTrial) -> None:
    """Skip a check of a method that has nothing to learn.

    Raises:
        CheckSkipped: the method has no trainable parameters.
    """
    if not trial.trained.training.epochs:
        raise CheckSkipped("the method has no trainable parameters")


def _fail_if_unmoved(trial: MethodTrial, before: dict[str, Tensor], trained: Trained) -> None:
    """Check that every trainable parameter has changed in a training, unless it may lack a gradient."""
    after, patterns = trained.learned, trained.method.may_lack_gradient
    still = [
        name
        for name, value in before.items()
        if torch.equal(value, after[name]) and not any(fnmatch(name, pattern) for pattern in patterns)
    ]
    if still:
        raise CheckFailed(
            f"learned parameters move: {', '.join(still)} did not change in {trained.training.epochs} epochs. A "
            "gradient must reach them in every step: use them outside torch.no_grad and without detach, put them into "
            "parameter_groups, freeze them with requires_grad_(False), or name them in may_lack_gradient"
        )


def _first_difference(found: Trained, expected: Trained) -> str:
    """Return what differs first between two trainings, empty if they are equal to the last bit."""
    for epoch, (row, other) in enumerate(zip(found.history, expected.history, strict=False), 1):
        if row != other:
            key = next(key for key in other if row.get(key) != other[key])
            return f"{key} of epoch {epoch} ({row.get(key)} instead of {other[key]})"
    state, wanted = found.state, expected.state
    if state.keys() != wanted.keys():
        return f"the names of saved tensors ({', '.join(sorted(state.keys() ^ wanted.keys())[:3])})"
    if differing := next((name for name, value in wanted.items() if not torch.equal(state[name], value)), ""):
        return differing
    tensors, others = found.method.state_dict(), expected.method.state_dict()
    if tensors.keys() != others.keys():
        return f"the names of tensors of the method ({', '.join(sorted(tensors.keys() ^ others.keys())[:3])})"
    if differing := next((name for name, value in others.items() if not torch.equal(tensors[name], value)), ""):
        return f"{differing} of the method"
    learns = {name: parameter.requires_grad for name, parameter in expected.method.named_parameters()}
    flags = ((name, parameter.requires_grad) for name, parameter in found.method.named_parameters())
    return next((f"requires_grad of {name} ({flag})" for name, flag in flags if flag != learns[name]), "")


TRAINING_CHECKS: tuple[Check[MethodTrial], ...] = (
    a_training_runs,
    a_benchmark_runs_and_runs_again,
    learned_parameters_move,
    a_training_with_the_other_augmentation_runs,
    two_trainings_with_one_seed_are_equal,
    a_killed_training_ends_with_the_same_weights,
    the_validation_loss_is_the_loss_of_the_method,
    a_checkpoint_gives_the_same_scores,
    a_reported_validation_can_be_repeated,
    a_feasibility_of_its_own_has_a_number_for_each_pair,
    several_processes_can_divide_a_batch,
)
