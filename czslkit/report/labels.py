"""Names of cells, table rows and settings, and the settings in which results differ."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..options import flatten
from ..result_store import Result
from .asked import Asked, Row
from .escaping import printable
from .paper_names import PaperName

TRANSDUCTIVE = "transductive"  # mark of a method that adapts to the test images
MORE = ", ..."  # end of a label whose row also differs in settings that the label does not name
_LONGEST_SUFFIX = 40  # characters; if all settings that differ need more, a label has only those that it needs
_LONGEST_VALUES = (20, 60)  # characters of a value: the second only if rows cannot be told apart with the first


def cell_name(label: str, cell: Mapping[str, Any]) -> str:
    """Return the name of one cell for messages.

    >>> cell_name("csp", {"dataset": "demo", "world": "open", "seed": 0})
    'csp on demo (open, seed 0)'
    """
    return f"{label} on {cell['dataset']} ({cell['world']}, seed {cell['seed']})"


def setting_name(key: str) -> str:
    """Return the name that labels give a setting; options of a method need no section.

    >>> setting_name("options.low_layers"), setting_name("train.lr")
    ('low_layers', 'train.lr')
    """
    return key.removeprefix("options.")


def differing_settings(results: Sequence[Result]) -> list[str]:
    """Return the settings that are not the same in all results, as dotted keys of their configurations.

    A setting that only some results have differs, too. Results without a configuration do not count.

    >>> differing_settings([{"config": {"train": {"lr": lr, "epochs": 5}}} for lr in (0.1, 0.2)])
    ['train.lr']
    """
    return _differing([flatten(result["config"]) for result in results if result.get("config") is not None])


def transductive(results: Sequence[Result]) -> list[bool]:
    """Return whether the method of each result adapts to the test images; failed results count like finished ones."""
    keys = [(result["cell"]["method"], result["cell"]["config_id"]) for result in results]
    adapting = {
        key for key, result in zip(keys, results, strict=True) if (result.get("protocol") or {}).get("transductive")
    }
    return [key in adapting for key in keys]


def row_labels(results: Sequence[Result], given: Mapping[Row, str] | None = None) -> list[str]:
    """Return the row label of each result: its method and, for several configurations, the settings that differ.

    A method that adapts to the test images is marked as transductive.

    Args:
        results: results as the store returns them.
        given: labels that users gave to rows. One that another row of the dataset has, too, is followed by the
            ``config_id``.

    >>> cells = [{"method": "csp", "dataset": "demo", "config_id": str(lr)} for lr in (0.01, 0.005)]
    >>> configs = [{"train": {"lr": float(cell["config_id"])}} for cell in cells]
    >>> row_labels([{"cell": cell, "config": config} for cell, config in zip(cells, configs)])
    ['csp lr=0.01', 'csp lr=0.005']
    """
    by_method: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_method[result["cell"]["method"]].append(result)
    suffixes = {method: _configuration_suffixes(same_method) for method, same_method in by_method.items()}
    labels = []
    for result, adapts in zip(results, transductive(results), strict=True):
        method = result["cell"]["method"]
        suffix = suffixes[method][result["cell"]["config_id"]]
        label = (given or {}).get(row_of(result["cell"]))
        mark = f" ({TRANSDUCTIVE})" if adapts else ""
        labels.append(printable(label) + mark if label else method + mark + (f" {suffix}" if suffix else ""))
    return _told_apart(labels, results, given) if given else labels


def _told_apart(labels: Sequence[str], results: Sequence[Result], given: Mapping[Row, str]) -> list[str]:
    """Return labels in which a given label that another row has, too, is followed by the ``config_id``."""
    cells = [result["cell"] for result in results]
    rows: dict[tuple[str, str], set[Row]] = defaultdict(set)
    for label, cell in zip(labels, cells, strict=True):
        rows[cell["dataset"], label].add(row_of(cell))
    return [
        label
        + (f", config {cell['config_id']}" if row_of(cell) in given and len(rows[cell["dataset"], label]) > 1 else "")
        for label, cell in zip(labels, cells, strict=True)
    ]


def row_of(cell: Mapping[str, Any]) -> Row:
    """Return what identifies the row of a cell in its dataset."""
    return cell["dataset"], cell["method"], cell["config_id"]


def paper_label(label: str, cell: Mapping[str, Any], asked: Asked) -> tuple[PaperName, str]:
    """Return how papers write the name that a label starts with, and the rest of the label."""
    name, method = asked.name("method", cell["method"]), cell["method"]
    if own := asked.labels.get(row_of(cell)):
        return PaperName(printable(own), name.citation), label[len(printable(own)) :]
    return name, label[len(method) :]


def _configuration_suffixes(results: Sequence[Result]) -> dict[str, str]:
    """Return the settings that distinguish the configurations of one method, by ``config_id``; empty if there are none.

    Only settings that differ within a dataset count: the recipes of two datasets differ but share a row. If all of them
    are too long for a label, it has the fewest that tell the rows apart. If none do, it has the ``config_id``.
    """
    configs: dict[str, dict[str, str]] = {}
    for result in results:  # a failed result may have no configuration
        configs[result["cell"]["config_id"]] = configs.get(result["cell"]["config_id"]) or flatten(
            result.get("config") or {}
        )
    ids_by_dataset: dict[str, list[str]] = defaultdict(list)
    for dataset, i in dict.fromkeys((r["cell"]["dataset"], r["cell"]["config_id"]) for r in results):
        ids_by_dataset[dataset].append(i)
    rows = [(dataset, i) for dataset, ids in ids_by_dataset.items() for i in ids]
    within = {key for ids in ids_by_dataset.values() for key in _differing([configs[i] for i in ids])}
    differing = [key for key in _differing(list(configs.values())) if key in within]
    texts = _setting_texts(configs, differing)
    keys = differing
    if max(len(_joined(texts[i], differing)) for i in configs) > _LONGEST_SUFFIX:
        keys = _fewest_settings(rows, texts, differing)
    suffixes = {i: _joined(texts[i], keys) for i in configs}
    uses = Counter((dataset, suffixes[i]) for dataset, i in rows)
    for i in {i for dataset, i in rows if uses[dataset, suffixes[i]] > 1}:
        suffixes[i] = ", ".join(filter(None, [suffixes[i], f"config {i}"]))
    return {i: suffix + (MORE if suffix and keys != differing else "") for i, suffix in suffixes.items()}


def _fewest_settings(
    rows: Sequence[tuple[str, str]], texts: Mapping[str, Mapping[str, str]], keys: Sequence[str]
) -> list[str]:
    """Return a few settings that tell as many rows apart as all of them do, in the order of ``keys``.

    Args:
        rows: dataset and ``config_id`` of each row.
        texts: the text of each setting by ``config_id`` and key.
        keys: the settings in which rows differ.
    """

    def groups(before: Sequence[int], key: str) -> list[int]:
        """Return the group of each row if rows of one group may also differ in ``key``."""
        numbers: dict[tuple[int, str | None], int] = {}
        return [
            numbers.setdefault((group, texts[i].get(key)), len(numbers))
            for group, (_, i) in zip(before, rows, strict=True)
        ]

    numbers = {dataset: n for n, dataset in enumerate(dict(rows))}
    found = everything = [numbers[dataset] for dataset, _ in rows]
    for key in keys:
        everything = groups(everything, key)
    length = {key: max(len(text.get(key, "")) for text in texts.values()) for key in keys}
    chosen: set[str] = set()
    while len(set(found)) < len(set(everything)):
        best = max(keys, key=lambda key: (len(set(groups(found, key))), -length[key]))
        found = groups(found, best)
        chosen.add(best)
    return [key for key in keys if key in chosen]


def _setting_texts(configs: Mapping[str, Mapping[str, str]], keys: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the text of each setting, such as ``lr=0.005``, by ``config_id`` and key."""
    names = _short_names(keys)
    texts: dict[str, dict[str, str]] = {i: {} for i in configs}
    for key in keys:
        shown = _short_values({config[key] for config in configs.values() if key in config})
        for i, config in configs.items():
            if key in config:
                texts[i][key] = f"{names[key]}={shown[config[key]]}"
    return texts


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the name of each setting in labels: without section and outer dicts, unless two would be called alike.

    >>> list(_short_names(["train.lr", "options.image.size", "train.batch_size", "eval.batch_size"]).values())
    ['lr', 'size', 'train.batch_size', 'eval.batch_size']
    """
    short = {key: key.rpartition(".")[2] if key.split(".")[0] in ("options", "train", "eval") else key for key in keys}
    uses = Counter(short.values())
    return {key: printable(name if uses[name] == 1 else setting_name(key)) for key, name in short.items()}


def _short_values(values: set[str]) -> dict[str, str]:
    """Return a short text for each value, given as JSON; different values have different texts if that is possible.

    >>> sorted(_short_values({'"adam"', '"sgd"', "null"}).values())
    ['adam', 'null', 'sgd']
    >>> sorted(_short_values({'"/home/someone/weights/a.pt"', '"/home/someone/weights/b.pt"'}).values())
    ['a.pt', 'b.pt']
    >>> sorted(_short_values({"[0,1,2,3,4,5,6,7,8,9,11]", "[0,1,2,3,4,5,6,7,8,9,12,13]"}).values())
    ['...11]', '...12,13]']
    """
    shown: dict[str, str] = {}
    for longest in _LONGEST_VALUES:
        for form in _forms(sorted(values)):
            shown = {value: text if len(text) <= longest else f"{text[: longest - 3]}..." for value, text in form}
            if len(set(shown.values())) == len(values):
                return shown
    return shown


def _forms(values: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
    """Yield ways to write values: without quotes, with quotes, as names of files, without their common beginning."""
    texts = [printable(value) for value in values]
    plain = [text.replace('"', "") for text in texts]
    shared = os.path.commonprefix(plain)  # noqa: RUF071 (character by character)
    start = len(re.sub(r"[\w.+-]*$", "", shared))
    names = [text.rstrip("/").rpartition("/")[2] for text in plain]
    for form in (plain, texts, names, [f"...{text[start:]}" for text in plain]):
        yield list(zip(values, form, strict=True))


def _joined(texts: Mapping[str, str], keys: Sequence[str]) -> str:
    return ", ".join(texts[key] for key in keys if key in texts)


def _differing(configs: Sequence[Mapping[str, str]]) -> list[str]:
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({config.get(key) for config in configs}) > 1]
