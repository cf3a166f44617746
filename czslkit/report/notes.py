"""Notes below a table: entries with missing seeds, results that are stale, and errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ..errors import first_ten
from ..metrics.names import METRICS, undefined_metrics
from ..result_store import Result
from .arrangement import Arrangement
from .escaping import printable
from .labels import cell_name

_MOST_LINES, _LONGEST_LINE = 12, 1000  # largest number of lines of a printed error, and of characters in a line


def unfinished_notes(arrangement: Arrangement) -> list[str]:
    """Return a note for each entry of which only some seeds finished."""
    notes = []
    for (label, dataset, world), finished in arrangement.finished.items():
        failed = arrangement.failed[label, dataset, world]
        if finished and failed:
            total = len(finished) + len(failed)
            notes.append(f"{label} on {dataset} ({world}): {len(finished)} of {total} seeds finished")
    return notes


def missing_notes(missing: Sequence[str]) -> list[str]:
    """Return a note on cells that were asked for and have no result, empty if there are none."""
    return [f"asked for, but without a result: {first_ten(list(map(printable, missing)))}"] if missing else []


def undefined_notes(labels: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Return a note for each dataset with undefined metrics, and for each epoch that no AUC could select."""
    notes: dict[str, None] = {}
    for label, result in zip(labels, results, strict=True):
        protocol = result.get("protocol") or {}
        undefined = undefined_metrics(result.get("metrics") or {}, str(protocol.get("bins")))
        names = [name for name, metric in METRICS.items() if metric in undefined]
        if names:
            reason = " and ".join(dict.fromkeys(undefined.values()))
            notes[f"{result['cell']['dataset']}: {', '.join(names)} undefined (-): {reason}"] = None
        selected_by = str(protocol.get("selected_by"))
        if "undefined" in selected_by and (result.get("training") or {}).get("best_epoch"):
            notes[f"{label} on {result['cell']['dataset']}: epoch selected by {printable(selected_by)}"] = None
    return list(notes)


def left_out_notes(results: Sequence[Result]) -> list[str]:
    """Return a note for each dataset of which images are left out."""
    notes = {
        f"{result['cell']['dataset']}: left out, because their pair is in no list: "
        + ", ".join(f"{n['images']} of {n['of']} {split} images" for split, n in result["left_out"].items()): None
        for result in results
        if result.get("left_out")
    }
    return list(map(printable, notes))


def stale_notes(labels: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Return a note for each result that was kept although it is stale."""
    return [
        f"{cell_name(label, result['cell'])}: kept although it is stale: {printable(str(result['stale']))}"
        for label, result in zip(labels, results, strict=True)
        if result.get("stale")
    ]


def recipe_notes(labels: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Return a note for each dataset on which some results follow a recipe and others do not."""
    with_recipe = {result["cell"]["dataset"] for result in results if result.get("recipe")}
    without: dict[str, dict[str, None]] = defaultdict(dict)
    for label, result in zip(labels, results, strict=True):
        if result["cell"]["dataset"] in with_recipe and not result.get("recipe"):
            without[result["cell"]["dataset"]][label] = None
    return [
        f"{', '.join(names)} on {dataset}: no recipe; the defaults of the method, apart from settings that were given "
        "or, with the preset paper, evaluation settings that the recipes of the dataset share"
        for dataset, names in without.items()
    ]


def failure_notes(labels: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Return a note for each error of each dataset; it names the cells that failed and then the error."""
    stopped: dict[tuple[str, str], list[tuple[str, str, int]]] = defaultdict(list)
    for label, result in zip(labels, results, strict=True):
        if result["status"] == "failed":
            cell, error = result["cell"], result["error"]
            text = _error_text(error["type"], error["message"])
            stopped[cell["dataset"], text].append((label, cell["world"], cell["seed"]))
    return [f"failed: {_cells_in_words(dataset, cells)}: {text}" for (dataset, text), cells in stopped.items()]


def _cells_in_words(dataset: str, cells: Sequence[tuple[str, str, int]]) -> str:
    """Return the cells of one dataset in words; labels with the same worlds and seeds are named together.

    Args:
        dataset: name of the dataset.
        cells: label, world and seed of each cell.

    >>> _cells_in_words("cgqa", [("clip", "open", 0), ("csp", "open", 0), ("csp", "open", 1)])
    'clip on cgqa (open, seed 0), csp on cgqa (open, seeds 0, 1)'
    """
    seeds: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for label, world, seed in cells:
        seeds[label][world].append(seed)
    labels_by_place: dict[str, list[str]] = defaultdict(list)
    for label, worlds in seeds.items():
        places = [
            f"{world}, seed{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
            for world, numbers in worlds.items()
        ]
        labels_by_place["; ".join(places)].append(label)
    return ", ".join(f"{', '.join(labels)} on {dataset} ({place})" for place, labels in labels_by_place.items())


def _error_text(kind: str, message: str) -> str:
    """Return the lines of an error; of long ones, the middle is left out, since the remedy is at the end."""
    lines = [_shortened(printable(line)) for line in message.splitlines() if line.strip()] or [""]
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], f"... and {len(lines) - _MOST_LINES} more lines ...", lines[-1]]
    return f"{printable(kind)}: " + "\n  ".join(lines)


def _shortened(line: str) -> str:
    """Return a line without its middle if it is too long.

    >>> len(_shortened("x" * 5000)), _shortened("x")
    (1000, 'x')
    """
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[: half - 1]}…{line[-half:]}"
