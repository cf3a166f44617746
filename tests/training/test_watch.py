"""The values of a training on their way to loggers, and loggers that fail."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from czslkit.errors import CzslkitError
from czslkit.loggers import Logger, Run
from czslkit.training import watch
from czslkit.training.losses import MeanLosses
from czslkit.training.watch import Watch
from czslkit.training_hooks import TrainingPosition

CPU = torch.device("cpu")
GROUPS = [{"lr": 0.1}, {"lr": 0.01}]


class Kept(Logger):
    """Keeps what it is told, and fails where it is told to; it also uses random numbers."""

    fails_at = ""
    error: BaseException = RuntimeError("the disk is full\nat /dev/full")
    calls: list[Any]

    def _called(self, name: str, *values: Any) -> None:
        random.random()
        torch.rand(1)
        if self.fails_at == name:
            raise self.error
        type(self).calls.append((name, *values))

    def start(self, run: Run, settings: Any) -> str:
        self._called("start", run, settings)
        return "here"

    def log(self, step: int, values: Any) -> None:
        self._called("log", step, values)

    def finish(self, status: str) -> None:
        self._called("finish", status)


def logger(**attributes: Any) -> type[Kept]:
    return type("Own", (Kept,), {"calls": [], **attributes})


def watching(lines: list[str], folder: Path, **loggers: type[Logger]) -> Watch:
    runs = {name: (cls, Run("toys", "csp", 0, "3f", name, folder, folder)) for name, cls in loggers.items()}
    return Watch(runs, {"train.lr": 0.1}, lines.append)


def epoch(watched: Watch, losses: tuple[float, ...]) -> None:
    """Watch an epoch with a step of two images for each loss."""
    means = MeanLosses()
    watched.before_steps(means)
    for n, loss in enumerate(losses):
        position = TrainingPosition(0, 1, n, len(losses))
        means.add({"loss": torch.tensor(loss), "loss/attr": torch.tensor(loss / 2)}, 2, position, 0.1)
        watched.after_step(n + 1, n + 1, 0.1, GROUPS)
    watched.after_steps()
    watched.after_epoch(1, len(losses), {**means.means(), "lr": 0.1, "val_auc": float("nan")}, GROUPS)


def test_a_logger_receives_steps_epochs_and_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "EVERY", 2)
    lines: list[str] = []
    cls = logger()
    watched = watching(lines, tmp_path, own=cls)
    watched.begin(0, CPU)
    epoch(watched, (1.0, 2.0, 3.0, 5.0, 8.0))
    watched.results("closed", {"auc": 0.5, "best_seen": None}, 5, CPU)
    watched.finish("done")
    watched.finish("failed")  # only the first end counts
    (_, run, settings), *logged, end = cls.calls
    assert (run.step, run.name, run.group, settings) == (0, "toys/csp/seed0-3f", "toys/csp/3f", {"train.lr": 0.1})
    assert lines == ["values go to own: here"] and end == ("finish", "done")
    assert [step for _, step, _ in logged] == [2, 4, 5, 5]
    first, second, whole, tested = ({**values} for _, _, values in logged)
    rates = {"lr": 0.1, "lr/1": 0.1, "lr/2": 0.01}
    for values, section, expected in (
        (first, "step", {"loss": 1.5, "loss/attr": 0.75, **rates}),
        (second, "step", {"loss": 4.0, "loss/attr": 2.0, **rates}),
        (
            whole,
            "epoch",
            {"number": 1.0, "loss": 3.8, "loss/attr": 1.9, **rates},
        ),  # no AUC, which is no number
    ):
        assert values.pop(f"{section}/images_per_second") > 0
        assert values.pop(f"{section}/peak_memory_gb") > 0.05
        assert values == pytest.approx({f"{section}/{name}": value for name, value in expected.items()})
    assert tested == {"test/closed/auc": 0.5}


@pytest.mark.parametrize("place", ["start", "log", "finish"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (RuntimeError("no answer\nfrom 10.0.0.1"), "RuntimeError: no answer"),
        (CzslkitError("no API key"), "no API key"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_a_logger_that_fails_is_left_out_with_one_line(
    place: str, error: BaseException, reason: str, tmp_path: Path
) -> None:
    lines: list[str] = []
    broken, sound = logger(fails_at=place, error=error), logger()
    watched = watching(lines, tmp_path, broken=broken, sound=sound)
    watched.begin(0, CPU)
    epoch(watched, (1.0,))
    watched.results("closed", {"auc": 0.5}, 1, CPU)
    watched.finish("done")
    failed = [line for line in lines if "broken has failed" in line]
    assert failed == [f"the logger broken has failed, and the training goes on without it: {reason}"]
    assert [name for name, *_ in sound.calls] == ["start", "log", "log", "finish"]
    assert len(broken.calls) == ["start", "log", "", "finish"].index(place)


def test_random_numbers_do_not_depend_on_loggers(tmp_path: Path) -> None:
    drawn = []
    for loggers in ({}, {"own": logger()}):
        random.seed(0)
        torch.manual_seed(0)
        watched = watching([], tmp_path, **loggers)
        watched.begin(0, CPU)
        epoch(watched, (1.0,))
        drawn.append((random.random(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]


def test_a_user_who_interrupts_is_obeyed(tmp_path: Path) -> None:
    watched = watching([], tmp_path, own=logger(fails_at="log", error=KeyboardInterrupt()))
    watched.begin(0, CPU)
    with pytest.raises(KeyboardInterrupt):
        epoch(watched, (1.0,))
