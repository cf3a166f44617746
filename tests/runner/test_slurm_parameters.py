"""The parameters of Slurm jobs are those of submitit, and mistakes are found before anything is submitted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from czslkit.errors import ConfigError
from czslkit.runner.slurm_parameters import parse_parameters


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine have the commands of Slurm, which do nothing."""
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@pytest.mark.usefixtures("cluster")
def test_parameters_are_handed_on_to_the_executor_and_to_the_jobs_of_submitit() -> None:
    given = {
        "partition": "gpu",
        "slurm_qos": 3,
        "timeout_min": 600,
        "gpus_per_node": 1,
        "max_num_timeout": 9,
        "mem_gb": 8,
    }
    found = parse_parameters({**given, "setup": ["module load cuda"], "array_parallelism": 4})
    assert found.executor == {"slurm_max_num_timeout": 9}
    assert found.jobs == {
        "name": "czslkit",
        "stderr_to_stdout": True,
        "tasks_per_node": 1,
        "timeout_min": 600,
        "gpus_per_node": 1,
        "mem_gb": 8.0,
        "slurm_partition": "gpu",
        "slurm_qos": 3,
        "slurm_setup": ["module load cuda"],
        "slurm_array_parallelism": 4,
        "slurm_additional_parameters": {"requeue": True},
    }
    assert (found.tasks, found.distributed, found.minutes) == (1, False, 600)


@pytest.mark.usefixtures("cluster")
def test_a_distributed_training_has_a_task_for_each_gpu() -> None:
    found = parse_parameters({"nodes": 2, "gpus_per_node": 4, "distributed": True, "srun_args": ["--cpu-bind=none"]})
    assert (found.tasks, found.distributed, found.jobs["tasks_per_node"]) == (8, True, 4)
    assert found.jobs["slurm_srun_args"] == ["--kill-on-bad-exit=1", "--cpu-bind=none"]


@pytest.mark.usefixtures("cluster")
def test_options_of_sbatch_that_submitit_lacks_are_handed_on() -> None:
    found = parse_parameters({"additional_parameters": {"reservation": "paper", "no-requeue": True}})
    assert found.jobs["slurm_additional_parameters"] == {"reservation": "paper", "no-requeue": True}
    assert found.minutes == 5


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"partitoin": "gpu"},
            "slurm: partitoin is not an option. Did you mean 'partition'.*Known: account, array_par",
        ),
        ({"timeout_min": "10h"}, "slurm: timeout_min is '10h', expected a whole number"),
        ({"timeout_min": 0}, "slurm: timeout_min is 0, expected at least 1"),
        ({"setup": [1]}, r"slurm: setup is \[1\], expected a word"),
        ({"distributed": "yes"}, "slurm: distributed is 'yes', expected true or false"),
        ({"nodes": 2}, "nodes x tasks_per_node is 2, but without distributed=true a training has 1 process"),
        ({"distributed": True, "gpus_per_node": 1}, "distributed=true, but nodes x tasks_per_node is 1"),
        (
            {"additional_parameters": "reservation"},
            "additional_parameters is 'reservation', expected options of sbatch",
        ),
    ],
)
def test_a_wrong_parameter_is_told_with_what_is_right(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_parameters(given)


def test_a_machine_without_slurm_is_told_where_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="no sbatch on this machine; run the command on a login node"):
        parse_parameters({})


def test_a_machine_without_submitit_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(
        ConfigError, match=r"slurm needs submitit, which is not installed .*pip install 'czslkit\[slurm\]'"
    ):
        parse_parameters({"partition": "gpu"})
