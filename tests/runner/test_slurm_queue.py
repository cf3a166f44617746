"""States of Slurm jobs, read from what commands like those of Slurm print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from czslkit.errors import CzslkitError
from czslkit.runner.slurm_queue import JobState, job_states


@pytest.fixture
def prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the commands of Slurm print texts: ``prints(squeue="...")``."""
    for name in ("sh", "echo"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(**texts: str) -> None:
        for name, text in texts.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)

    return write


def test_the_queue_and_the_accounting_are_asked_for_states(prints: Any) -> None:
    prints(
        squeue="echo '12_0|RUNNING|None|0|node7'; echo '12_1|PENDING|QOSMaxJobsPerUserLimit|0|'; "
        "echo '12_2|FAILED|NonZeroExitCode|768|node7'",
        sacct="echo '12_3|CANCELLED by 1000|0:15|None assigned'; echo '12_4|OUT_OF_MEMORY|0:9|node8'",
    )
    states = job_states(["12_0", "12_1", "12_2", "12_3", "12_4", "12_5"])
    assert [state.is_active for state in states.values()] == [True, True, False, False, False, False]
    assert [state.runs for state in states.values()] == [True, False, False, False, False, False]
    assert states["12_1"].reason == "QOSMaxJobsPerUserLimit"
    assert [str(states[f"12_{i}"]) for i in (2, 3, 4, 5)] == [
        "ended as FAILED (NonZeroExitCode, exit code 3) on node7",
        "ended as CANCELLED (SIGTERM)",
        "ended as OUT_OF_MEMORY (SIGKILL) on node8",
        "is over, and Slurm does not know it any more",
    ]


def test_a_cluster_without_accounting_does_not_know_jobs_that_left_the_queue(prints: Any) -> None:
    prints(squeue="echo '12|COMPLETED|None|0|node7'", sacct="echo 'accounting is disabled' >&2; exit 1")
    assert job_states(["12", "13"]) == {"12": JobState("COMPLETED", "", "0:0", "node7"), "13": JobState()}


def test_slurm_that_does_not_answer_is_an_error(prints: Any) -> None:
    prints(squeue="echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(CzslkitError, match="squeue failed: Unable to contact slurm controller"):
        job_states(["12"])


def test_a_missing_command_is_an_error(prints: Any) -> None:
    with pytest.raises(CzslkitError, match=r"squeue cannot be run: .*No such file"):
        job_states(["12"])
