"""Runs of ``czslkit bench`` on a small dataset."""

from __future__ import annotations

import pytest

from czslkit.cli import main


@pytest.fixture
def bench(toys, clip_file, tmp_path, capsys):
    """Run ``czslkit bench`` on the toys; returns exit status, standard output and standard error."""

    def go(*arguments: str) -> tuple[int, str, str]:
        fixed = ["--data", str(toys), "--runs", str(tmp_path / "runs")]
        settings = ["--set", f"backbone={clip_file}", "train.epochs=1"]
        status = main(["bench", "--methods", "clip,csp", "--datasets", "toys", *fixed, *settings, *arguments])
        return status, *capsys.readouterr()

    return go
