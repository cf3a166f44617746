"""The compiled loss of a training."""

from __future__ import annotations

import warnings

import pytest
import torch

import czslkit
from czslkit.data.batches import Feed
from czslkit.errors import ConfigError
from czslkit.training import loop
from czslkit.training.compiled import compiled_loss
from czslkit.training.options import TrainOptions
from czslkit.training.state import TrainingState
from czslkit.weights import read_safetensors


@pytest.mark.slow
def test_a_compiled_training_has_the_losses_and_the_names_of_a_plain_one(toy, clip_file, tmp_path):
    losses, names = [], []
    for compiled in (False, True):
        torch.manual_seed(0)
        method = czslkit.build("csp", toy.space, backbone=str(clip_file))
        options = TrainOptions(epochs=2, batch_size=8, lr=1e-2, compile=compiled)
        feed, folder = Feed(method, toy.train, 8, augment=True), tmp_path / str(compiled)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if compiled else "error")  # the compiler has warnings of its own
            try:
                found = loop.train(
                    method, feed, options, lambda: {"val_auc": 0.5}, TrainingState(folder, "k"),
                    data=toy.training_data(), seed=0,
                )  # fmt: skip
            except ConfigError as error:
                pytest.skip(str(error))
        losses.append([row["loss"] for row in found.history])
        names.append(read_safetensors(folder / "last.safetensors")[0].keys())
        assert not [name for name in method.state_dict() if "_orig_mod" in name]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert names[0] == names[1]


def test_a_compiler_that_fails_is_an_error_that_says_what_to_install(toy, clip_file, monkeypatch):
    method = czslkit.build("csp", toy.space, backbone=str(clip_file))

    def no_compiler(*arguments, **options):
        raise RuntimeError("No working C++ compiler found\nin a long list")

    monkeypatch.setattr(torch, "compile", no_compiler)
    message = (
        r"train.compile is true, but torch.compile does not work on cpu: No working C\+\+ compiler found\. It needs a "
        r"C\+\+ compiler on a CPU, and triton on a GPU: install it, or set train.compile to false"
    )
    with pytest.raises(ConfigError, match=message):
        compiled_loss(method)
