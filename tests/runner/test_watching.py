"""Benchmarks whose trainings are watched: failures, plugins, other processes, and what does not depend on loggers."""

from __future__ import annotations

import json
import pickle
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from czslkit import LOGGERS, Logger
from czslkit.cli import main
from czslkit.loggers import Run
from czslkit.runner.request import Request
from czslkit.training.epoch import Trainer

PAGE = Path(__file__).parents[2] / "docs" / "tracking.md"


class Ends(Logger):
    """Keeps how runs start and end."""

    seen: list[Any]

    def start(self, run: Run, settings: Any) -> str:
        self.seen.append((run.method, run.step))
        return "nowhere"

    def log(self, step: int, values: Any) -> None:
        self.seen.append((step, *values)[:2])

    def finish(self, status: str) -> None:
        self.seen.append(status)


@pytest.fixture
def seen(own_registrations: None) -> list[Any]:
    """What the logger ``ends`` has seen."""
    Ends.seen = []
    LOGGERS.register("ends")(Ends)
    return Ends.seen


def test_the_start_of_a_logger_is_no_time_of_the_training(
    bench_toys: Any, seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = [0.0]  # seconds that the clock of the training is ahead

    def start(self: Ends, run: Run, settings: Any) -> str:
        late[0] += 1000
        return "nowhere"

    monkeypatch.setattr(Ends, "start", start)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + late[0])
    monkeypatch.setattr("czslkit.training.loop.time", clock)
    result = bench_toys(loggers="ends").results[0]
    assert late[0] >= 1000 and 0 < result["timing"]["train_s"] < 1000


def test_a_finished_cell_is_not_run_again_for_a_logger(bench_toys: Any, trainings: list[int], tmp_path: Path) -> None:
    first = bench_toys().results
    assert bench_toys(loggers="csv").results == first
    assert len(trainings) == 2 and not (tmp_path / "runs" / "logs").exists()


def test_a_run_ends_as_its_training_does(bench_toys: Any, seen: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(error: BaseException) -> list[Any]:
        def run(self: Trainer, epoch: int) -> Any:
            raise error

        seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "run", run)
            assert bench_toys(loggers="ends").failed == 1
        return list(seen)

    assert ended(RuntimeError("no memory")) == [("csp", 0), "failed"]
    with pytest.raises(KeyboardInterrupt):
        ended(KeyboardInterrupt())
    assert seen == [("csp", 0), "killed"]
    seen.clear()
    bench_toys(loggers="ends")
    assert seen == [("csp", 0), (2, "epoch/number"), (4, "epoch/number"), (4, "test/closed/auc"), "done"]


def test_a_world_that_is_added_is_logged_at_the_end_of_the_training(bench_toys: Any, seen: list[Any]) -> None:
    bench_toys(loggers="ends")
    seen.clear()
    bench_toys(worlds="closed,open", loggers="ends")
    assert seen == [("csp", 4), (4, "test/open/auc"), "done"]


def test_a_method_without_training_has_results_to_log(bench_toys: Any, seen: list[Any]) -> None:
    bench_toys("clip", loggers="ends", settings={"train.lr": 1e-4})
    assert seen == [("clip", 0), (0, "test/closed/auc"), "done"]


def test_a_logger_that_fails_ends_no_training(bench_toys: Any, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "logs").write_text("a file in the place of the folder")
    assert bench_toys(loggers="csv,tensorboard").failed == 0
    failed = [line for line in bench_toys.log_lines if "has failed, and the training goes on without it" in line]
    assert [re.search(r"logger (\w+)", line)[1] for line in failed] == ["csv", "tensorboard"]  # type: ignore[index]


def test_the_file_in_the_docs_is_a_logger(
    toys: Path, clip_file: Path, tmp_path: Path, own_registrations: None, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    file = tmp_path / "jsonl.py"
    file.write_text(next(block for block in blocks if "LOGGERS.register" in block))
    where = ["--data", str(toys), "--runs", str(tmp_path / "runs"), "--worlds", "closed"]
    settings = ["--set", f"backbone={clip_file}", "train.epochs=2", "train.batch_size=8"]
    log = ["--plugins", str(file), "--log", "jsonl", "csv"]
    assert main(["bench", "--methods", "csp", "--datasets", "toys", *where, *settings, *log]) == 0
    (lines,) = (tmp_path / "runs").glob("logs/jsonl/toys/csp/seed0-*/values.jsonl")
    (table,) = (tmp_path / "runs").glob("logs/csv/toys/csp/seed0-*/values.csv")
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    found = [(row["step"], name, value) for row in rows for name, value in row.items() if name != "step"]
    assert found == [*pd.read_csv(table).itertuples(index=False, name=None)]
    assert f"values go to jsonl: {lines}" in capsys.readouterr().err
    capsys.readouterr()
    assert main(["list", "--plugins", str(file)]) == 0
    listed = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
    assert ["logger", "jsonl", str(file), "A file with a line of JSON for each record."] in listed
    assert [row[1] for row in listed if row[0] == "logger"] == ["csv", "jsonl", "mlflow", "tensorboard", "wandb"]


def test_other_processes_have_the_same_loggers(toys: Path, clip_file: Path, tmp_path: Path) -> None:
    settings = {"backbone": str(clip_file)}
    request = Request("csp", "toys", data=toys, runs=tmp_path, settings=settings, loggers="csv, tensorboard,csv")
    for one in (request, pickle.loads(pickle.dumps(request))):
        assert [job.loggers for job in one.jobs(lambda line: None)] == [("csv", "tensorboard")]
