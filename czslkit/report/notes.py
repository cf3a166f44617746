"""Notes below a table: entries with missing seeds, results that are stale, and errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from ..errors import first_ten
from ..metrics.names import METRICS, undefined_metrics
from ..result_store import Result
from .arrangement import Arrangement, percent
from .cell_details import pair_accuracy
from .escaping import printable
from .labels import cell_name
from .resamples import Attached

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


def seen_accuracy_notes(labels: Sequence[str], results: Sequence[Result], attached: Attached | None) -> list[str]:
    """Return a note with the accuracy of each entry whose S, U, H and AUC are all undefined; the mean of its seeds.

    Args:
        labels: label of each result.
        results: the results.
        attached: returns the files of a result, as :meth:`Store.attached`; without it there are no notes.
    """
    accuracies: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for label, result in zip(labels, results, strict=True):
        bins = str((result.get("protocol") or {}).get("bins"))
        if set(METRICS.values()) <= undefined_metrics(result.get("metrics") or {}, bins).keys():
            accuracy = pair_accuracy(result, attached)
            entry = label, result["cell"]["dataset"], result["cell"]["world"]
            accuracies[entry] += [] if accuracy is None else [accuracy]
    return [
        f"{label} on {dataset} ({world}): every pair is seen: accuracy {percent(fmean(found))} %, of the pair at bias 0"
        + (f", mean of {len(found)} seeds" if len(found) > 1 else "")
        for (label, dataset, world), found in accuracies.items()
        if found
    ]


def left_out_notes(results: Sequence[Result]) -> list[str]:
    """Return a note for each dataset of which images are left out, or were set aside when it was imported."""
    notes = {
        f"{result['cell']['dataset']}: left out, because their pair is in no list: "
        + ", ".join(f"{n['images']} of {n['of']} {split} images" for split, n in result["left_out"].items()): None
        for result in results
        if result.get("left_out")
    } | {
        f"{result['cell']['dataset']}: could not be read and were set aside when the dataset was imported: "
        f"{result['set_aside']['images']} of {result['set_aside']['of']} pictures": None
        for result in results
        if result.get("set_aside")
    }
    return list(map(printable, notes))


def checkpoint_notes(labels: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Return a note for each row whose weights were downloaded from a repository, with its commit."""
    notes: dict[str, None] = {}
    for label, result in zip(labels, results, strict=True):
        if origin := (result.get("protocol") or {}).get("checkpoint"):
            place = f"{label} on {result['cell']['dataset']}"
            notes[f"{place}: the weights are those of {printable(str(origin))}, not trained here"] = None
    return list(notes)


def stale_notes(labels: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Return a note for each result that was kept although it is stale."""
    return [
        f"{cell_name(label, result['cell'])}: kept although it is stale: {printable(str(result['stale']))}"
        for label, result in zip(labels, results, strict=True)
        if result.get("stale")
    ]


def recipe_notes(labels: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Return notes on the results without a recipe that got settings of a preset, or are beside results with one."""
    with_recipe = {result["cell"]["dataset"] for result in results if result.get("recipe")}
    without: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for label, result in zip(labels, results, strict=True):
        dataset, preset = result["cell"]["dataset"], result.get("preset") or {}
        shared = ", ".join(map(str, preset.get("shared") or ()))
        from_preset = f" and those of the preset {preset.get('name')} for the dataset: {shared}" if shared else ""
        if not result.get("recipe") and (from_preset or dataset in with_recipe):
            without[dataset, from_preset][label] = None
    return [
        f"{', '.join(names)} on {dataset}: no recipe; the defaults of the method, apart from settings that were given"
        + from_preset
        for (dataset, from_preset), names in without.items()
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
