"""Read pictures from a table with the columns ``image``, ``attr`` and ``obj``, and optionally ``split`` or ``set``."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from ...errors import DataError
from ...foreign_files import TEXT_LIMIT, read_text
from ..images import SUFFIXES, is_image
from ..layout import SPLITS
from .labelled_pictures import LabelledPicture, label_problem, normalized_label, refuse_if_any

_COLUMNS = ("image", "attr", "obj")
_SPLIT_COLUMNS = ("split", "set")
_LONGEST_PATH = 300  # characters of a path that a message shows

Row = dict[str, str]


def read_table(source: Path) -> list[LabelledPicture]:
    """Return the picture of every row.

    Raises:
        DataError: the table cannot be read, or columns or values are missing or wrong. The message lists every problem.
    """
    columns, rows = _read_rows(source)
    split_column = _split_column(source, columns)
    problems: list[str] = []
    first_lines: dict[Path, int] = {}
    pictures: list[LabelledPicture] = []
    for line, row in rows:
        picture = _read_picture(source.parent, row, split_column)
        if isinstance(picture, str):
            problems.append(f"line {line}: {picture}")
        elif (first_line := first_lines.setdefault(picture.file.resolve(), line)) != line:
            problems.append(f"line {line}: {row['image']!r} is also the image of line {first_line}")
        else:
            pictures.append(picture)
    refuse_if_any(source, problems)
    if not pictures:
        raise DataError(f"{source} has no rows after its first line")
    return pictures


def _read_rows(source: Path) -> tuple[Sequence[str], list[tuple[int, Row]]]:
    """Return the column names, and every row with its line number."""
    try:
        text = read_text(source, TEXT_LIMIT, "utf-8-sig")
        reader = csv.DictReader(
            io.StringIO(text, newline=""), delimiter="\t" if source.suffix.lower() == ".tsv" else ","
        )
        return list(reader.fieldnames or ()), [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source} is not a readable table: {error}") from error


def _split_column(source: Path, columns: Sequence[str]) -> str:
    """Check the columns and return the name of the column of splits, empty if there is none."""
    split_columns = [column for column in _SPLIT_COLUMNS if column in columns]
    if missing := [column for column in _COLUMNS if column not in columns]:
        found = ", ".join(map(repr, columns)) or "nothing"
        raise DataError(f"{source} has no column {', '.join(missing)}; the first line has {found}")
    if repeated := [column for column in (*_COLUMNS, *split_columns) if columns.count(column) > 1]:
        raise DataError(f"{source} has more than one column {', '.join(repeated)}")
    if len(split_columns) > 1:
        raise DataError(f"{source} has two columns of splits: {' and '.join(split_columns)}")
    return split_columns[0] if split_columns else ""


def _read_picture(folder: Path, row: Row, split_column: str) -> LabelledPicture | str:
    """Return the picture of a row, or a text with all problems of the row."""
    if None in row or None in row.values():
        return "the row has more or fewer cells than the first line"
    attr, obj = normalized_label(row["attr"]), normalized_label(row["obj"])
    problems = [label_problem("attr", attr), label_problem("obj", obj)]
    candidates = (folder / row["image"], folder / row["image"].replace("\\", "/"))
    file = next((file for file in candidates if os.path.isfile(file)), None)
    if file is None:
        problems.append(f"there is no image {str(candidates[0])[:_LONGEST_PATH]!r}")
    elif not is_image(file):
        problems.append(f"{row['image']!r} has no image suffix; expected {', '.join(sorted(SUFFIXES))}")
    split = row[split_column] if split_column else ""
    if split_column and split not in SPLITS:
        problems.append(f"{split_column} is {split!r}, expected {', '.join(SPLITS)}")
    problem = "; ".join(filter(None, problems))
    return problem if problem or file is None else LabelledPicture(file, attr, obj, split)
