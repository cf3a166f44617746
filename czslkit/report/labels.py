"""Names of cells, table rows and settings, and the settings in which results differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ..options import flatten
from ..result_store import Result
from .escaping import printable

TRANSDUCTIVE = "transductive"  # mark of a method that adapts to the test images
_LONGEST_LABEL = 30  # characters of settings in a label; longer labels name the configuration by its hash


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


def row_labels(results: Sequence[Result]) -> list[str]:
    """Return the row label of each result: its method and, for several configurations, the settings that differ.

    A method that adapts to the test images is marked as transductive.
    """
    by_method: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_method[result["cell"]["method"]].append(result)
    suffixes = {method: _configuration_suffixes(same_method) for method, same_method in by_method.items()}
    labels = []
    for result, adapts in zip(results, transductive(results), strict=True):
        method = result["cell"]["method"]
        suffix = suffixes[method][result["cell"]["config_id"]]
        labels.append(method + (f" ({TRANSDUCTIVE})" if adapts else "") + (f" [{suffix}]" if suffix else ""))
    return labels


def _configuration_suffixes(results: Sequence[Result]) -> dict[str, str]:
    """Return the settings that distinguish the configurations of one method, by ``config_id``; empty if there are none.

    Only settings that differ within a dataset count: the recipes of two datasets differ but share a row.
    """
    configs = {result["cell"]["config_id"]: flatten(result.get("config") or {}) for result in results}
    ids_by_dataset: dict[str, set[str]] = defaultdict(set)
    for result in results:
        ids_by_dataset[result["cell"]["dataset"]].add(result["cell"]["config_id"])
    differing = {key for ids in ids_by_dataset.values() for key in _differing([configs[i] for i in ids])}
    keys = [key for key in dict.fromkeys(key for config in configs.values() for key in config) if key in differing]
    suffixes = {
        i: ", ".join(_setting_text(key, config[key]) for key in keys if key in config) for i, config in configs.items()
    }
    unique = all(len({suffixes[i] for i in ids}) == len(ids) for ids in ids_by_dataset.values())
    short = max(map(len, suffixes.values())) <= _LONGEST_LABEL
    return suffixes if unique and short else {i: f"config {i}" for i in configs}


def _differing(configs: Sequence[Mapping[str, str]]) -> list[str]:
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({config.get(key) for config in configs}) > 1]


def _setting_text(key: str, value: str) -> str:
    return printable(f"{setting_name(key)}={value}").replace('"', "")
