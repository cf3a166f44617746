"""Runs of ``czslkit bench`` on a small dataset."""

from __future__ import annotations

import pytest

from czslkit.cli import main


@pytest.fixture
def bench(toys, clip_file, tmp_path, capsys):
    """Run ``czslkit bench`` on the toys; returns exit status, standard output and standard error.

    Options and settings that are given take the place of those of the fixture.
    """

    def go(*arguments: str) -> tuple[int, str, str]:
        fixed = {
            "--methods": ["clip,csp"],
            "--datasets": ["toys"],
            "--data": [str(toys)],
            "--runs": [str(tmp_path / "runs")],
            "--set": [f"backbone={clip_file}", "train.epochs=1"],
        }
        given: list[str] = []
        keys = {argument.partition("=")[0] for argument in arguments}
        for option, values in fixed.items():
            kept = [value for value in values if not keys & {value.partition("=")[0], option} - {"--set"}]
            given += [option, *kept] if kept else []
        status = main(["bench", *given, *arguments])
        return status, *capsys.readouterr()

    return go
