"""Plugins with common mistakes fail the check that is meant for them, with a message that says what to change."""

from __future__ import annotations

import pytest

from czslkit.registry import load_unpackaged
from czslkit.testing.conformance import kind_of, report_of

from .conftest import THIRD_PARTY

FOLDER = THIRD_PARTY / "traps"
#: File -> the check that fails first, and words of its message.
TRAPS = {
    "batch_statistics": ("a score does not depend on the batch", "set self.independent = False"),
    "candidate_softmax": ("chunks of pairs agree", "set chunkable = False"),
    "detached_head": ("a loss reaches every parameter", "image_head.weight got none from the loss. Use them outside"),
    "forgotten_file": ("files has every file that is read", "colours.json, which files() does not return"),
    "forgotten_boxes": ("files has every file that is read", "boxes.txt, which files() does not return"),
    "forgotten_tokens": ("tokens are declared", "set reads_tokens = True on the interaction"),
    "function_prompt": ("the method can be built", "expected a torch.nn.Module"),
    "idle_adapters": ("a loss reaches every parameter", "adapters.up.weight got none from the loss"),
    "ignored_loss": ("the validation loss is the loss of the method", "define loss(self, batch, pairs) in the class"),
    "kept_text": ("a checkpoint gives the same scores", "Keep no features from one call to the next"),
    "leaking_stream": ("a second evaluation is equal", "forgets in begin everything that it learned from images"),
    "lost_decision": ("a killed training ends with the same weights", "a hook that acts in one epoch on something"),
    "lost_prior": ("a checkpoint gives the same scores", "in a buffer that __init__ registers"),
    "lost_queue": ("a killed training ends with the same weights", "return other state from training_state"),
    "lost_rows": ("chunks of pairs agree", "return every field of the text features that has a row for each pair"),
    "moving_encoder": ("a training runs", "set caches_features = False on MovingEncoder"),
    "mutating_rank": ("ranking changes nothing", "Write MutatingHead.rank without in-place operations"),
    "other_generator": ("two trainings with one seed are equal", "draw random numbers with torch only"),
    "plain_options": ("options are a dataclass", "@dataclass(frozen=True)"),
    "random_boxes": ("a second load is equal", "draw no random numbers in listing and extra"),
    "random_evaluation": ("a second pass gives the same scores", "Use randomness only if self.training is true"),
    "raw_tensor": ("images give features of the declared shapes", "returned a Tensor, expected ImageFeatures"),
    "scores_of_nothing": ("one column for each pair", "rank of ScoresOfNothing returned a NoneType, expected a tensor"),
    "swallowed_adapters": ("adapters are added or refused", "add_adapters"),
    "wrong_recipe": ("the recipe has training settings", "learning_rate is not an option"),
}


def test_every_trap_has_a_test():
    assert {file.stem for file in FOLDER.glob("*.py")} == set(TRAPS)


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_fails_with_a_message_that_says_what_to_change(trap, clip_file):
    check, words = TRAPS[trap]
    load_unpackaged(str(FOLDER / f"{trap}.py"))
    name = trap.replace("_", "-")
    kind = kind_of(name)
    report = report_of(name, kind, {"backbone": str(clip_file)} if kind == "method" else {})
    assert not report.passed
    assert report.failed[0].name == check, report.to_text()
    assert words in report.failed[0].message


def test_features_of_a_wrong_type_are_one_failure():
    load_unpackaged(str(FOLDER / "raw_tensor.py"))
    assert len(report_of("raw-tensor", "backbone", {}).failed) == 1


def test_an_exception_of_the_checked_code_is_shown_with_its_line(clip_file):
    load_unpackaged(str(FOLDER / "lost_rows.py"))
    message = report_of("lost-rows", "method", {"backbone": str(clip_file)}).failed[0].message.splitlines()
    assert message[0].startswith("RuntimeError: The size of tensor a (5) must match the size of tensor b (12)")
    assert f"at {FOLDER / 'lost_rows.py'}:" in message[1]
    assert "in rank: return super().rank(images" in message[1]
