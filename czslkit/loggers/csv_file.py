"""Values of a training in a CSV file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..files import write_text
from . import LOGGERS, Logger, Run

_COLUMNS = ("step", "name", "value")
_Key = tuple[int, str]


@LOGGERS.register("csv")
class CsvFile(Logger):
    """A CSV file with a line for each value, beside a JSON file of the settings."""

    def start(self, run: Run, settings: Mapping[str, Any]) -> str:
        """Write the settings, and the values up to ``run.step`` that the file holds."""
        self.file = run.folder / "values.csv"
        self.values = {key: value for key, value in _read(self.file).items() if key[0] <= run.step}
        write_text(run.folder / "settings.json", json.dumps(settings, indent=1))
        self._write_anew()
        return str(self.file)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line for each value; a value that the file has for this step already is replaced."""
        new = {(step, name): repr(value) for name, value in values.items()}
        repeated = self.values.keys() & new.keys()
        self.values |= new
        if repeated:
            self._write_anew()
        else:
            with self.file.open("a", encoding="utf-8", newline="") as file:
                file.write(_lines((*key, value) for key, value in new.items()))

    def finish(self, status: str) -> None:
        """Do nothing: every value is in the file already."""

    def _write_anew(self) -> None:
        rows = ((*key, value) for key, value in self.values.items())
        write_text(self.file, _lines([_COLUMNS]) + _lines(rows))


def _lines(rows: Iterable[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _read(file: Path) -> dict[_Key, str]:
    """Return the values of a file by step and name; a last line that was not written whole is left out."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    found: dict[_Key, str] = {}
    for row in csv.reader(text[: text.rfind("\n") + 1].splitlines()):
        if len(row) == len(_COLUMNS) and row[0].isdecimal():
            found[int(row[0]), row[1]] = row[2]
    return found
