"""Notes below a table."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from czslkit.report.table import Table

Make = Callable[..., dict[str, Any]]
ReadAucs = Callable[[Table], list[str]]
MISSING_DATA = {
    "type": "DataError",
    "message": "cgqa: 2 problems\nimages/ is not there\ntest_pairs.txt is not there",
    "traceback": "Traceback (most recent call last): ...",
}
DIVERGED = {"type": "TrainingError", "message": "loss is nan\nat step 3", "traceback": "Traceback ..."}


def test_seeds_that_failed_are_left_out_and_counted(result: Make, failed: Make, printed_aucs: ReadAucs) -> None:
    table = Table(
        [
            result("msci", seed=0, auc=0.4),
            failed(DIVERGED, method="msci", seed=1),
            result("msci", seed=2, auc=0.6),
        ]
    )
    assert printed_aucs(table) == ["50.0 ± 14.1"]  # sqrt(2 * 10^2 / 1)
    assert "msci on demo (closed): 2 of 3 seeds finished\n" in table.to_text()
    assert "failed: msci on demo (closed, seed 1): TrainingError: loss is nan\n  at step 3\n" in table.to_text()


def test_a_dataset_that_is_not_there_is_explained_once(failed: Make) -> None:
    cells = itertools.product(("clip", "csp"), ("cgqa",), ("closed", "open"), (0, 1))
    keys = ("method", "dataset", "world", "seed")
    text = Table([failed(MISSING_DATA, **dict(zip(keys, cell, strict=True))) for cell in cells]).to_text()
    assert text.count(" failed") == 2 * 2 * 4
    assert text.endswith(
        "failed: clip, csp on cgqa (closed, seeds 0, 1; open, seeds 0, 1): DataError: cgqa: 2 problems\n"
        "  images/ is not there\n"
        "  test_pairs.txt is not there\n"
    )
    assert "AUC is" not in text


def test_one_error_on_two_datasets_has_a_note_for_each(failed: Make) -> None:
    notes = Table([failed(DIVERGED, dataset="cgqa"), failed(DIVERGED, dataset="demo")]).notes()
    assert [note.split(":")[1] for note in notes] == [" csp on cgqa (closed, seed 0)", " csp on demo (closed, seed 0)"]


def test_a_long_error_keeps_the_remedy_at_its_end(failed: Make) -> None:
    many = {"type": "DataError", "message": "\n".join(f"line {n}" for n in range(20))}
    assert Table([failed(many)]).notes()[0].splitlines()[-3:] == [
        "  line 10",
        "  ... and 8 more lines ...",
        "  line 19",
    ]
    wide = {"type": "RuntimeError", "message": f"{'x' * 5000}: set train.lr to a smaller number"}
    (note,) = Table([failed(wide)]).notes()
    assert note.startswith("failed: csp on demo (closed, seed 0): RuntimeError: xxx")
    assert note.endswith("x: set train.lr to a smaller number")
    assert len(note) < 1100


def test_a_remedy_is_kept_on_a_narrow_terminal(failed: Make) -> None:
    path = f"/data/{'folder/' * 20}images"
    message = f"{path} is missing, and without it no image of the dataset can be read: run czslkit data download cgqa"
    text = Table([failed({"type": "DataError", "message": message})]).to_text(width=50)
    assert all(len(line) <= 50 or line == f"  {path}" for line in text.splitlines())
    assert message in " ".join(text.split())


def test_a_name_that_is_not_utf_8_can_be_written(failed: Make) -> None:
    error = {"type": "DataError", "message": "photo\udcff.jpg is not readable"}
    table = Table([failed(error)])
    assert table.notes()[0].endswith(r"photo\udcff.jpg is not readable")
    assert table.to_markdown().encode()


def test_a_result_without_a_recipe_names_the_settings_of_a_preset_only_if_it_got_them(result: Make) -> None:
    start = "mine on demo: no recipe; the defaults of the method, apart from settings that were given"
    preset = {"preset": {"name": "paper", "shared": ["eval.bins=original", "eval.threshold=search"]}}
    shared = "and those of the preset paper for the dataset: eval.bins=original, eval.threshold=search"
    assert Table([result("mine") | preset]).notes() == [f"{start} {shared}"]
    assert Table([result("mine"), result() | {"recipe": {"name": "a/b", "changed": []}}]).notes() == [start]
    assert Table([result("mine")]).notes() == []


def test_results_that_were_kept_although_they_are_stale_are_named(result: Make) -> None:
    kept = result() | {"stale": "code: czslkit.method\x1b[31m changed"}
    note = "csp on demo (closed, seed 0): kept although it is stale: code: czslkit.method changed"
    assert Table([kept, result("msci")]).notes() == [note]
    assert note in Table([kept]).to_html()
    assert "stale" not in Table([result()]).to_text()
