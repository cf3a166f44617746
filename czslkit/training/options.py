"""The settings of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..options import option
from ..precision import Precision
from ..sizes import parse_bytes


@dataclass(frozen=True)
class TrainOptions:
    """The settings of a training."""

    epochs: int = option(20, "number of passes over the training images", minimum=0)
    batch_size: int = option(64, "number of images in a batch", minimum=2)
    accumulation: int = option(1, "number of batches whose gradients are added up before a step", minimum=1)
    rescale_short_groups: bool = option(
        True,
        "true gives each image of a step the same weight; false divides the mean loss of every batch by accumulation",
    )
    optimizer: Literal["adam", "adamw", "adamw_bert", "sgd"] = option(
        "adam",
        "adam adds weight decay to the gradient, adamw decays the weights, adamw_bert is AdamW as in BERT's first "
        "PyTorch port, sgd has momentum 0.9",
    )
    lr: float = option(1e-4, "learning rate", minimum=0)
    weight_decay: float = option(1e-5, "weight decay", minimum=0)
    schedule: Literal["step", "cosine", "constant"] = option("step", "change of the learning rate from epoch to epoch")
    step_size: int = option(5, "number of epochs between two steps of the step schedule", minimum=1)
    gamma: float = option(0.5, "factor of the learning rate at each step of the step schedule", minimum=0)
    schedule_by: Literal["epoch", "step"] = option(
        "epoch", "epoch changes the learning rate after each epoch, step after each step", added_later=True
    )
    warmup_epochs: float = option(
        0.0,
        "number of epochs, such as 0.5, in which the learning rate rises from 0 to that of the schedule, step by step",
        minimum=0,
        added_later=True,
    )
    clip_norm: float | None = option(
        None,
        "largest norm of the gradient over all parameters; a larger gradient is scaled down, null scales none",
        minimum=0,
        added_later=True,
    )
    augment: bool = option(True, "true flips, tilts and rotates the training images at random")
    augment_on: Literal["cpu", "device"] = option(
        "cpu",
        "cpu augments each image where it is read, device whole batches on the device; the random numbers are the same",
        added_later=True,
    )
    precision: Precision = option(
        "fp32",
        "number format of a step: fp32; tf32, faster matrix products on GPUs that have them, and fp32 on other "
        "devices; bf16, bfloat16 in the forward pass; weights stay fp32",
    )
    compile: bool = option(
        False,
        "true compiles the loss with torch.compile, which takes minutes and then makes steps faster, above all on GPUs",
        added_later=True,
    )
    memory: str | None = option(
        None,
        "memory that a training may take with its weights, such as 24GB, or auto for what is free on its device; a "
        "step recomputes as much as it needs to fit, and the numbers stay the same within rounding, apart from the "
        "random numbers of dropout where texts attend in parts; null sets no limit",
        added_later=True,
        recorded=False,
    )
    checkpoint_text: bool = option(
        False,
        "true recomputes the text tower for the gradients, in whatever memory, and the numbers stay the same within "
        "rounding",
        added_later=True,
        recorded=False,
    )
    eval_mode_after_first_epoch: bool = option(
        False,
        "true trains without dropout from the second epoch on, and with the batch statistics of the first epoch",
    )
    select: Literal["auc", "loss", "last"] = option(
        "auc",
        "the epoch to keep: the highest validation AUC (or accuracy, if no validation image shows a seen or no one an "
        "unseen pair), the lowest validation loss, or the last epoch",
    )
    select_world: Literal["closed", "open"] = option(
        "closed", "the world of the validation AUC that select=auc compares", added_later=True
    )
    fused_validation_loss: bool = option(
        False, "true computes the validation loss from the fused scores that pairs are ranked by"
    )

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory != "auto":
            try:
                parse_bytes(self.memory)
            except ValueError as error:
                raise ValueError(f"memory: {error}, or auto") from None
        if self.augment_on == "device" and not self.augment:
            raise ValueError(
                "augment_on is 'device', but images are not augmented while augment is false; "
                "set augment to true or augment_on to 'cpu'"
            )
        if self.select_world == "open" and self.select != "auc":
            raise ValueError(
                f"select_world is 'open', but no AUC selects the epoch while select is {self.select!r}; "
                "set select to 'auc' or select_world to 'closed'"
            )
        if self.fused_validation_loss and self.select != "loss":
            raise ValueError(
                f"fused_validation_loss is true, but no validation loss is computed while select is {self.select!r}; "
                "set select to 'loss' or fused_validation_loss to false"
            )
