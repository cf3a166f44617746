"""What tables and reports read from a result, checked once when the result is read. It does not import torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import shortened
from .json_digest import change_since_written
from .options import config_id
from .report.expected import world_problems

#: Format of the files that are written; files of this format and of lower formats are read.
FORMAT = 3
_FIRST_WITH_DIGEST = 3  # first format whose files must hold a digest of their content
_ROUNDING = 1e-6  # largest error of a fraction
_LARGEST = 10**15  # of a number that is printed or averaged
_MOST_COLUMNS, _MOST_SETTINGS = 100, 1000  # entries of a section that become columns of a frame
#: A name of a number or version: none of the columns of a frame that are not numbers.
_NAME = re.compile(r"(?!(method|label|dataset|world|seed|status|best_epoch|transductive|error|stale)$)[\w.-]{1,100}")

Check = Callable[[Any], bool]


def fault(content: Any, file: bytes) -> str | None:
    """Return the reason why a file is not a result that tables and reports can read, None if it is one.

    Args:
        content: what the file holds.
        file: the bytes of the file.
    """
    if not isinstance(content, dict) or "format" not in content:
        return "is not a result of czslkit"
    if type(content["format"]) is not int or not 1 <= content["format"] <= FORMAT:
        return f"is a result of format {shortened(content['format'])}, this czslkit reads formats up to {FORMAT}"
    if change := change_since_written(file, required="digest" in content or content["format"] >= _FIRST_WITH_DIGEST):
        return change
    for section, keys in _SECTIONS.items():
        asked = section in _REQUIRED or content.get(section) is not None
        if asked and (reason := _section_fault(content, section, keys)):
            return reason
    if (found := config_id(content["config"])) != content["cell"]["config_id"]:
        return f"has a configuration with the id {found}, but its cell has {shortened(content['cell']['config_id'])}"
    return _status_fault(content) or next(iter(_published_problems(content)), None)


def _section_fault(content: Mapping[str, Any], section: str, keys: Mapping[str, tuple[Check, str]]) -> str | None:
    """Return the first reason why a section of a result is wrong, None if it is right."""
    values = content.get(section)
    if section not in content:
        return f"lacks {section}"
    if not isinstance(values, dict):
        return f"has {section}={shortened(values)}, expected a dict"
    if section == "cell" and (lacking := [key for key in keys if key not in values]):
        return f"lacks {', '.join(lacking)} in cell"
    for key, (check, expected) in keys.items():
        value = values if key == "" else values.get(key)
        if not (check(value) or (value is None and section != "cell")):
            return f"has {section}{key and '.'}{key}={shortened(value)}, expected {expected}"
    return None


def _status_fault(content: Mapping[str, Any]) -> str | None:
    """Return the reason why the entries of a finished or of a failed result are wrong, None if they are right."""
    stale, key, error = content.get("stale"), content.get("training_key"), content.get("error")
    if wrong := [name for name, text in (("stale", stale), ("training_key", key)) if not _is_optional_text(text)]:
        return f"has {wrong[0]}={shortened(content[wrong[0]])}, expected a text"
    if content.get("status") not in ("done", "failed"):
        return f"has status {shortened(content.get('status'))}, neither 'done' nor 'failed'"
    if content["status"] == "done":
        if not isinstance(content.get("metrics"), dict):
            return "is done, but has no metrics"
        if reason := _metrics_fault(content["metrics"]):
            return reason
    if (error or content["status"] == "failed") and not _is_error(error):
        return f"is {content['status']}, but its error has no type and message"
    return None


def _metrics_fault(metrics: Mapping[str, Any]) -> str | None:
    """Return the reason why ``metrics`` are not those of a finished result, None if they are.

    Numbers of images (``n_seen``, ``n_unseen``) are whole, all other metrics are fractions of one; None is undefined.
    """
    for name, value in metrics.items():
        if value is None:
            continue
        if name.startswith("n_"):
            if type(value) is float or value < 0:
                return f"has {name} = {value}, expected a whole number from 0 up"
        elif not 0 <= value <= 1 + _ROUNDING:
            return f"has {name} = {value}, expected a fraction from 0 to 1"
    return None


def _published_problems(content: Mapping[str, Any]) -> list[str]:
    published = content.get("published")
    return [f"has {problem}" for problem in world_problems("published", published)] if published else []


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_optional_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_error(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key), str) for key in ("type", "message"))
        and _is_optional_text(value.get("traceback"))
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST  # a bool is no number


def _is_seed(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _are_numbers(value: Any) -> bool:
    """Return whether a value is a dict of at most ``_MOST_COLUMNS`` numbers, or None for each that is unknown."""
    return (
        isinstance(value, dict)
        and len(value) <= _MOST_COLUMNS
        and all(_NAME.fullmatch(name) and (item is None or _is_number(item)) for name, item in value.items())
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and len(value) <= _MOST_SETTINGS and all(map(_is_optional_text, value.values()))


def _are_versions(value: Any) -> bool:
    return _are_texts(value) and len(value) <= _MOST_COLUMNS and all(map(_NAME.fullmatch, value))


def _are_settings(value: Any) -> bool:
    """Return whether a value is a dict of sections with at most ``_MOST_SETTINGS`` settings in all."""
    if not all(isinstance(section, dict) for section in value.values()):
        return False
    waiting, settings = [value], 0
    while waiting and settings <= _MOST_SETTINGS:
        items = waiting.pop().values()
        waiting += [item for item in items if isinstance(item, dict)]
        settings += len(items)
    return settings <= _MOST_SETTINGS


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_training(value: Any) -> bool:
    """Return whether the epoch that a training kept has numbers; the other epochs are shown as they are."""
    epoch, history = value.get("best_epoch"), value.get("history")
    if not isinstance(history, (list, type(None))) or not (epoch is None or _is_count(epoch)):
        return False
    if not epoch or not history or epoch > len(history):
        return True
    row = history[epoch - 1]  # parts of a loss have any name
    return isinstance(row, dict) and _are_numbers({key: row[key] for key in row if key.startswith("val_")})


def _are_left_out(value: Any) -> bool:
    return all(map(_are_counts, value.values()))


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and _is_count(value.get("images")) and _is_count(value.get("of"))


def _are_data_digests(value: Any) -> bool:
    """Return whether the sections of the dependencies that are compared are dicts of texts."""
    training = value.get("training", value)
    return isinstance(training, dict) and _are_texts(training.get("data") or {})


def _is_stream(value: Any) -> bool:
    return not value or (isinstance(value, dict) and _is_seed(value.get("stream_seed")))


_TEXT, _NUMBERS = (_is_text, "a text"), (_are_numbers, "numbers by name")
_REQUIRED = ("cell", "config", "protocol", "depends")
#: Section of a result -> key -> its check and what is expected; the key "" is the section itself.
_SECTIONS: dict[str, dict[str, tuple[Check, str]]] = {
    "cell": {
        **dict.fromkeys(("method", "dataset", "world"), _TEXT),
        "seed": (_is_seed, "a whole number of 64 bits"),
        "config_id": _TEXT,
    },
    "config": {"": (_are_settings, f"sections with at most {_MOST_SETTINGS} settings")},
    "protocol": {
        **dict.fromkeys(("bins", "threshold_from", "feasibility", "feasibility_sha256", "candidates_sha256"), _TEXT),
        **dict.fromkeys(("infeasible", "selected_by", "masks_pairs"), _TEXT),
        "threshold": (_is_number, "a number"),
        "precision": (_are_texts, "texts by name"),
        "transductive": (_is_stream, "a dict with stream_seed"),
    },
    "depends": {
        "": (_are_data_digests, "digests of the data by name"),
        **dict.fromkeys(("code", "plugins"), (lambda value: isinstance(value, dict), "a dict")),
    },
    "metrics": {"": _NUMBERS},
    "training": {"": (_is_training, "a whole number best_epoch, and a list history with numbers in this epoch")},
    "timing": {"": _NUMBERS},
    "versions": {"": (_are_versions, "texts by name")},
    "recipe": {"name": _TEXT, "changed": (_is_list_of_texts, "a list of texts")},
    "preset": {"name": _TEXT, "shared": (_is_list_of_texts, "a list of texts")},
    "left_out": {"": (_are_left_out, "for each split the counts images and of")},
    "set_aside": {"": (_are_counts, "the counts images and of")},
    "files": {"": (_are_texts, "digests by name")},
}
