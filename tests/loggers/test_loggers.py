"""Runs of a training that was killed and resumed, as CSV, TensorBoard, Weights & Biases and MLflow hold them."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

import czslkit
from czslkit import LOGGERS
from czslkit.errors import ConfigError
from czslkit.loggers import Run
from czslkit.loggers.csv_file import CsvFile
from czslkit.loggers.mlflow import Mlflow
from czslkit.loggers.wandb import Wandb
from czslkit.training import watch
from czslkit.training.epoch import Trainer

#: SQLAlchemy 2.1 warns of what the tables of MLflow 3.17 use.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")
NAMES = ("csv", "tensorboard", "wandb", "mlflow")
SECONDS = ("images_per_second", "peak_memory_gb")  # the ends of names whose values differ from run to run
ENVIRONMENT = {
    "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "1",
}


class Killed(BaseException):
    """An exception in place of a signal; no code catches it."""


class Watched(NamedTuple):
    """A run that was killed within its second epoch and resumed, with the result of one that was not."""

    runs: Path
    result: Any
    expected: Any
    lines: list[str]
    connections: list[Any]  # addresses on other machines that this process connected to

    @property
    def history(self) -> list[dict[str, float]]:
        found: list[dict[str, float]] = self.result["training"]["history"]
        return found

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return next(self.runs.glob("toys/troika/seed0-*"))

    def values(self) -> dict[tuple[int, str], float]:
        """The values that every logger should hold, without those of steps and of time: by step and name."""
        found = {}
        for epoch, row in enumerate(self.history, 1):
            found |= {(3 * epoch, f"epoch/{name}"): value for name, value in {"number": epoch, **row}.items()}
        tested = {name: value for name, value in self.result["metrics"].items() if value is not None}
        return found | {(9, f"test/closed/{name}"): value for name, value in tested.items()}


@pytest.fixture(scope="module")
def watched(toys: Path, clip_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder, lines, connections = tmp_path_factory.mktemp("watched"), [], []
    settings = {"backbone": str(clip_file), "train.epochs": 3, "train.batch_size": 8, "train.lr": 1e-3}

    def bench(runs: str, loggers: Any) -> Any:
        where = {"data": toys, "runs": folder / runs, "log": lines.append, "progress": False}
        return czslkit.bench("troika", "toys", "closed", settings=settings, loggers=loggers, **where).results[0]

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_DIR", "WANDB_PROJECT"):
            patch.delenv(name, raising=False)
        import socket

        connect = socket.socket.connect

        def local(self: socket.socket, address: Any) -> Any:
            if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
                connections.append(address)
                raise OSError("no network in tests")
            return connect(self, address)

        patch.setattr(socket.socket, "connect", local)
        patch.setattr(watch, "EVERY", 1)
        expected = bench("plain", ())
        real = Trainer._step

        def step(self: Trainer) -> None:
            if self.steps == 4:  # the second of three steps of the second epoch
                raise Killed
            real(self)

        with pytest.MonkeyPatch.context() as killing:
            killing.setattr(Trainer, "_step", step)
            with pytest.raises(Killed):
                bench("watched", NAMES)
        lines.clear()
        yield Watched(folder / "watched", bench("watched", ",".join(NAMES)), expected, lines, connections)


def test_loggers_change_no_number_and_no_name_of_a_result(watched: Watched) -> None:
    assert not [line for line in watched.lines if "failed" in line]
    for entry in ("metrics", "cell", "config", "depends", "training_key"):
        assert watched.result[entry] == watched.expected[entry]
    assert watched.history == watched.expected["training"]["history"]
    assert [*watched.history[0]][:4] == ["loss", "loss/pair", "loss/attr", "loss/obj"]
    assert watched.result["training"]["steps"] == watched.expected["training"]["steps"] == 9


def test_no_network_is_touched(watched: Watched) -> None:
    assert not watched.connections


def test_a_line_says_where_each_logger_writes(watched: Watched) -> None:
    said = [line.partition("values go to ")[2] for line in watched.lines if "values go to " in line]
    logs = watched.runs / "logs"
    assert [line.partition(": ")[0] for line in said] == [*NAMES]
    assert said[0] == f"csv: {logs}/csv/{watched.folder.relative_to(watched.runs)}/values.csv"
    assert said[1] == f"tensorboard: tensorboard --logdir {logs}/tensorboard"
    assert said[2].startswith(f"wandb: wandb sync {logs}/wandb/wandb/offline-run-")
    assert said[3].endswith(f" in sqlite:///{logs}/mlflow/mlflow.db")


def test_csv_holds_each_value_once(watched: Watched) -> None:
    (file,) = watched.runs.glob("logs/csv/toys/troika/seed0-*/values.csv")
    frame = pd.read_csv(file)
    assert not frame.duplicated(["step", "name"]).any()
    found = {(row.step, row.name): row.value for row in frame.itertuples(index=False)}
    assert found == _with_rest(watched.values(), found)  # to the last digit
    assert {step for step, name in found if name == "step/loss"} == set(range(1, 10))
    wide = frame[frame["name"].str.startswith("epoch/")].pivot(index="step", columns="name", values="value")
    assert wide["epoch/loss"].tolist() == [row["loss"] for row in watched.history]
    settings = json.loads(file.with_name("settings.json").read_text())
    assert (settings["method"], settings["dataset"], settings["seed"]) == ("troika", "toys", 0)
    assert settings["train.lr"] == 1e-3 and settings["loss_weights"] == [1.0, 1.0, 1.0]


def test_values_of_steps_are_means_over_the_last_steps(watched: Watched) -> None:
    (file,) = watched.runs.glob("logs/csv/toys/troika/seed0-*/values.csv")
    frame = pd.read_csv(file).pivot(index="step", columns="name", values="value")
    for epoch, row in enumerate(watched.history):
        steps = frame.loc[3 * epoch + 1 : 3 * epoch + 3]
        for name in ("loss", "loss/pair", "loss/attr", "loss/obj"):
            mean = (8 * steps.iloc[0] + 8 * steps.iloc[1] + 5 * steps.iloc[2])[f"step/{name}"] / 21  # 21 images
            assert mean == pytest.approx(row[name])
    assert (frame["step/images_per_second"].dropna() > 0).all() and (frame["step/peak_memory_gb"].dropna() > 0.05).all()
    assert (frame["step/lr"].dropna() == 1e-3).all()


def test_tensorboard_shows_each_value_once(watched: Watched) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = watched.runs.glob("logs/tensorboard/toys/troika/seed0-*")
    assert len([*folder.glob("events.out.tfevents.*")]) == 2  # of the process that was killed, and of the other
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    found = {(point.step, name): point.value for name in events.Tags()["scalars"] for point in events.Scalars(name)}
    assert len(found) == sum(len(events.Scalars(name)) for name in events.Tags()["scalars"])
    assert found == pytest.approx(_with_rest(watched.values(), found), rel=1e-6)  # in 32 bits
    assert {step for step, name in found if name == "step/loss"} == set(range(1, 10))
    assert b"train.lr" in events.PluginTagToContent("hparams")["_hparams_/session_start_info"]


def test_wandb_keeps_files_that_can_be_sent_later(watched: Watched) -> None:
    files = sorted(watched.runs.glob("logs/wandb/wandb/offline-run-*/*.wandb"))
    assert len(files) == 2 and files[0].name == files[1].name  # one run, which goes on
    first, second = ([*_records(file)] for file in files)
    for records in (first, second):
        (run,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
        assert (run.project, run.run_group) == ("czslkit", watched.folder.parent.relative_to(watched.runs).as_posix()
                                                + "/" + watched.folder.name.removeprefix("seed0-"))  # fmt: skip
        assert run.display_name == watched.folder.relative_to(watched.runs).as_posix()
        settings = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert settings["train.lr"] == 1e-3
    found = _history(first) | _history(second)
    assert found == _with_rest(watched.values(), found)


def test_mlflow_goes_on_with_its_run(watched: Watched) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{watched.runs}/logs/mlflow/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("czslkit").experiment_id])
    assert run.info.run_id == json.loads((watched.folder / "training" / "loggers.json").read_text())["mlflow"]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == watched.folder.relative_to(watched.runs).as_posix()
    assert run.data.params["train.lr"] == "0.001" and run.data.tags["seed"] == "0"
    points = [point for name in run.data.metrics for point in client.get_metric_history(run.info.run_id, name)]
    found = {(point.step, point.key): point.value for point in points}
    assert len(found) == len(points)
    assert found == _with_rest(watched.values(), found)


def test_mlflow_goes_on_with_its_run_under_another_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    training = tmp_path / "training"
    training.mkdir()
    for label in ("A", "B"):
        logger = Mlflow()
        logger.start(Run("toys", "csp", 0, "aaaaaaaa", "mlflow", tmp_path / "logs", training), {"label": label})
        logger.finish("done")
    (run,) = logger.client.search_runs([logger.client.get_experiment_by_name("czslkit").experiment_id])
    assert run.data.params == {"label": "A"}


def test_the_ids_of_trackers_stay_where_runs_are_removed(watched: Watched) -> None:
    ids = json.loads((watched.folder / "training" / "loggers.json").read_text())
    assert ids.keys() == {"wandb", "mlflow"}


def _with_rest(expected: dict[tuple[int, str], float], found: dict[tuple[int, str], float]) -> dict[Any, float]:
    """Return the expected values, with the found ones of steps, of groups of parameters, and of time and memory."""
    rest = {key for key in found if key[1].startswith(("step/", "epoch/lr/")) or key[1].endswith(SECONDS)}
    assert {name for _, name in rest} >= {"step/loss", "step/loss/attr", "step/lr", "epoch/images_per_second"}
    return {**{key: found[key] for key in rest}, **expected}


def _records(file: Path) -> Iterator[Any]:
    """Yield the records of a W&B file: a log of LevelDB, whose blocks of 32 KiB hold pieces of messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, message = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        message += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole message, or the last piece of one
            yield Record.FromString(message)
            message = b""


def _history(records: list[Any]) -> dict[tuple[int, str], float]:
    found = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            found |= {(row["_step"], name): value for name, value in row.items() if not name.startswith("_")}
    return found


def test_csv_keeps_what_a_resumed_training_does_not_repeat(tmp_path: Path) -> None:
    def run(step: int) -> Run:
        return Run("toys", "csp", 0, "3f", "csv", tmp_path, tmp_path / "training", step)

    logger = CsvFile()
    file = Path(logger.start(run(0), {"train.lr": 0.1}))
    logger.log(1, {"step/loss": 0.1, "step/lr": 1 / 3})
    logger.log(2, {"step/loss": 2e-17})
    file.write_text(file.read_text() + "3,step/lo")  # a line that a killed process has not finished
    again = CsvFile()
    again.start(run(1), {})
    assert file.read_text() == f"step,name,value\n1,step/loss,0.1\n1,step/lr,{1 / 3!r}\n"
    again.log(1, {"step/lr": 0.5})
    again.finish("done")
    assert file.read_text() == "step,name,value\n1,step/loss,0.1\n1,step/lr,0.5\n"


def test_wandb_does_not_ask_for_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setattr(wandb, "setup", lambda: type("", (), {"settings": wandb.Settings(mode="online")}))
    monkeypatch.setattr(wandb, "login", lambda prompt: False)
    run = Run("toys", "csp", 0, "3f", "wandb", tmp_path, tmp_path / "training")
    with pytest.raises(czslkit.CzslkitError, match="no API key: run wandb login, or set WANDB_API_KEY"):
        Wandb().start(run, {})


def test_a_kept_id_that_mlflow_does_not_know_gives_a_new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/store")
    run = Run("toys", "csp", 0, "3f", "mlflow", tmp_path, tmp_path / "training")
    run.keep_id("gone")
    logger = Mlflow()
    logger.start(run, {"train.lr": 0.1})
    assert run.kept_id() not in (None, "gone")
    logger.log(1, {"step/loss/a→b": 0.5})
    logger.finish("failed")
    found = logger.client.get_run(logger.id)
    assert found.info.status == "FAILED" and found.data.metrics == {"step/loss/a_b": 0.5}


@pytest.mark.parametrize("content", ["", "[]", '{"mlflow": 3}', "{"])
def test_a_file_of_ids_that_is_damaged_holds_no_id(content: str, tmp_path: Path) -> None:
    run = Run("toys", "csp", 0, "3f", "mlflow", tmp_path, tmp_path)
    (tmp_path / "loggers.json").write_text(content)
    assert run.kept_id() is None
    run.keep_id("new")
    assert run.kept_id() == "new"


def test_every_logger_of_the_package_is_tested() -> None:
    own = [name for name, cls in LOGGERS.items() if cls.__module__.startswith("czslkit.")]
    assert own == sorted(NAMES)


@pytest.mark.parametrize(("name", "packages"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow and sqlalchemy")])
def test_a_missing_package_is_an_error_before_the_first_training(
    name: str, packages: str, toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    hidden = packages.split(" and ")
    monkeypatch.setattr("czslkit.loggers.find_spec", lambda found: None if found in hidden else real(found))
    message = rf'the logger {name} needs {packages}, which cannot be imported: pip install "czslkit\[{name}\]"'
    with pytest.raises(ConfigError, match=message):
        czslkit.bench("csp", "toys", data=toys, runs=tmp_path, loggers=[name], log=lambda line: None)


def test_an_unknown_logger_is_an_error_with_similar_names(toys: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no logger named 'tensorbord'\. Did you mean 'tensorboard'\?"):
        czslkit.bench("csp", "toys", data=toys, runs=tmp_path, loggers="tensorbord", log=lambda line: None)
