"""What Slurm says about jobs: those in its queue, and those that have ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from ..errors import CzslkitError

#: States of jobs that wait, run, or will run again. All other states are ends.
_ACTIVE = {
    "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING",
    "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT",
}  # fmt: skip
_SECONDS = 60.0  # after which a command of Slurm counts as failed
_NO_REASONS = {"", "None", "Resources", "Priority", "BeginTime", "JobArrayTaskLimit"}  # jobs that just wait


@dataclass(frozen=True)
class JobState:
    """The state of a job; without a name, Slurm does not know the job any more."""

    name: str = ""
    reason: str = ""  # why it waits, or why it ended; empty if there is nothing to say
    exit_code: str = ""  # CODE:SIGNAL
    node: str = ""  # the nodes that it runs or ran on

    @property
    def is_active(self) -> bool:
        """True if the job waits or runs."""
        return self.name in _ACTIVE

    @property
    def runs(self) -> bool:
        """True if the job is running or about to."""
        return self.is_active and self.name not in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED")

    def __str__(self) -> str:
        """Return the end of the job in words, such as ``ended as FAILED (exit code 3) on node7``."""
        if not self.name:
            return "is over, and Slurm does not know it any more"
        code, _, by = self.exit_code.partition(":")
        details = [self.reason, code.strip("0") and f"exit code {code}", _signal_name(by)]
        shown = ", ".join(filter(None, details))
        return f"ended as {self.name}{f' ({shown})' if shown else ''}{f' on {self.node}' if self.node else ''}"


def job_states(jobs: Collection[str]) -> dict[str, JobState]:
    """Return the state of each job by its id, such as ``12_3``.

    The queue is asked first, which also knows jobs that ended minutes ago, and then the accounting, if there is one.

    Raises:
        CzslkitError: Slurm does not answer.
    """
    states = {}
    queue = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}"]
    for line in _output([*queue, "--Format=JobArrayID:|,State:|,Reason:|,exit_code:|,NodeList:"]).splitlines():
        if len(parts := line.strip().split("|")) == 5:
            number, name, reason, status, node = parts
            states[number] = JobState(name, "" if reason in _NO_REASONS else reason, _exit_code(status), node)
    if lost := sorted({job.partition("_")[0] for job in jobs if job not in states}):
        with suppress(CzslkitError):  # a cluster without accounting
            states = {**_accounted(lost), **states}
    return {job: states.get(job, JobState()) for job in jobs}


def _accounted(jobs: Collection[str]) -> Mapping[str, JobState]:
    """Return the states of jobs that have left the queue."""
    states = {}
    command = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(jobs)}"]
    for line in _output([*command, "--format=JobID,State,ExitCode,NodeList"]).splitlines():
        if len(parts := line.split("|")) == 4:
            number, name, exit_code, node = parts
            name = name.partition(" ")[0]  # CANCELLED by 1000
            states[number] = JobState(name, "", exit_code, "" if node == "None assigned" else node)
    return states


def _output(command: list[str]) -> str:
    """Return what a command of Slurm prints.

    Raises:
        CzslkitError: it cannot be run, or fails.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CzslkitError(f"{command[0]} cannot be run: {error}") from None
    if done.returncode:
        raise CzslkitError(f"{command[0]} failed: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout


def _exit_code(status: str) -> str:
    """Return the exit code and the signal that the status of a process stands for.

    >>> _exit_code("768"), _exit_code("9"), _exit_code("")
    ('3:0', '0:9', '')
    """
    if not status.isdecimal():
        return ""
    by = int(status) & 127
    return f"0:{by}" if by else f"{int(status) >> 8}:0"


def _signal_name(number: str) -> str:
    """Return the name of a signal; an empty text for 0 and for what is no signal of this system."""
    with suppress(ValueError):
        return signal.Signals(int(number or 0)).name
    return ""
