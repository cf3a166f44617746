"""Every command in a process of its own, which has imported nothing before it, as a shell runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import czslkit
from czslkit.cli import _COMMANDS

#: Each command with its exit status and a part of what it prints. ``TRAINED`` is the training of the only run.
COMMANDS = [
    ("init", 0, ""),
    ("list", 0, "three_branch"),
    *((f"list {name}", 0, f"{kind} {name}") for kind, name in (("method", "csp"), ("backbone", "open_clip"),
      ("aggregator", "low_high"), ("interaction", "two_stage"), ("head", "three_branch"), ("dataset", "mit-states"),
      ("logger", "csv"))),
    ("list mcsi", 2, "Did you mean 'msci'"),
    ("check last_layer", 0, "aggregator last_layer: 10 passed"),
    ("check csv", 2, "csv is a logger, and no checks are known for it"),
    ("check mcsi", 2, "Did you mean 'msci'"),
    ("predict photo.png --checkpoint TRAINED", 0, "photo.png:"),
    ("explain photo.png --checkpoint TRAINED", 0, "explain.png"),
    ("export TRAINED --format torchscript --out model.pt", 0, ""),
    ("push TRAINED me/troika", 2, "there is no token of the hub"),
    ("convert absent.pt out --method msci --dataset toys --data DATA", 2, "absent.pt is not a readable weight file"),
    ("evaluate scores.npz --pairs pairs.txt --seen seen.txt", 0, "1 images of unseen pairs"),
    ("new-plugin mine", 0, ""),
    ("table runs", 0, "troika"),
    ("plot runs --what bars", 0, ""),
    ("report runs --out report.html", 0, ""),
    ("runs runs list", 0, "troika"),
    ("runs runs prune --dry-run", 0, ""),
    ("runs runs remove --failed --dry-run", 0, ""),
    ("data status --data DATA", 0, "toys"),
    ("data verify toys --data DATA", 0, "toys"),
    ("data download mit-state", 2, "Did you mean 'mit-states'"),
    ("data mini ut-zappos --out mini", 0, ""),
    ("data import DATA/toys/images --name mine --data mine-data", 0, ""),
    ("data remove old --data old-data", 0, ""),
    ("doctor", 0, "does not exist yet"),
    ("completion bash", 0, "complete"),
]  # fmt: skip


#: Variables of the environment that would change what the commands do.
OF_THE_USER = ("CZSLKIT_DATA", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@pytest.fixture(scope="module")
def folder(toys: Path, clip_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of Troika on the toys, a dataset ``old``, a photo and the scores of three images."""
    folder = tmp_path_factory.mktemp("fresh")
    (folder / "photo.png").write_bytes(next((toys / "toys" / "images" / "red_left").glob("*.png")).read_bytes())
    np.savez(folder / "scores.npz", scores=np.eye(3, dtype="f4"), attr=np.array([0, 0, 1]), obj=np.array([0, 1, 0]))
    (folder / "pairs.txt").write_text("red cat\nred dog\nwet cat\n")
    (folder / "seen.txt").write_text("red cat\nred dog\n")
    for command in (
        "data import DATA/toys/images --name old --data old-data",
        "bench --methods troika --datasets toys --data DATA --set backbone=CLIP heads=4 train.epochs=1",
    ):
        done = run(command, folder, DATA=toys, CLIP=clip_file)
        assert done.returncode == 0, done.stderr
    return folder


def run(command: str, folder: Path, **places: object) -> subprocess.CompletedProcess[str]:
    """Run a command of czslkit in ``folder``, with warnings as errors; ``places`` are put in for their names."""
    for name, place in places.items():
        command = command.replace(name, str(place))
    environment = {
        **{name: value for name, value in os.environ.items() if name not in OF_THE_USER},
        "HF_TOKEN_PATH": str(folder / "no-token"),
        "PYTHONPATH": str(Path(czslkit.__file__).parents[1]),
    }
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "czslkit", *command.split()],
        capture_output=True, text=True, cwd=folder, env=environment,
    )  # fmt: skip


@pytest.mark.parametrize(("command", "status", "printed"), COMMANDS, ids=[command for command, *_ in COMMANDS])
def test_a_command_works_in_a_process_of_its_own(command, status, printed, folder, toys):
    trained = next((folder / "runs" / "toys" / "troika").glob("seed0-*"))
    done = run(command, folder, TRAINED=trained, DATA=toys)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
    assert printed in done.stdout + done.stderr


def test_every_command_is_run():
    modules = {command.partition(" ")[0].replace("-", "_") for command, *_ in COMMANDS} | {"bench"}
    assert {module.__name__.rpartition(".")[2] for module in _COMMANDS} == {*modules} - {"list"} | {"list_names"}
