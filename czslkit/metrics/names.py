"""Names of the four metrics that papers print and of the two worlds, and which metrics are undefined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Letter that papers print for a metric -> key of the metric in results.
METRICS = {"S": "best_seen", "U": "best_unseen", "H": "best_hm", "AUC": "auc"}

#: Names of the closed and the open world in results and on the command line.
WORLDS = ("closed", "open")


def undefined_metrics(metrics: Mapping[str, Any], bins: str) -> dict[str, str]:
    """Return the reason for each metric that is undefined, because one kind of images is missing.

    Args:
        metrics: metrics by name, with ``n_seen`` and ``n_unseen``, the numbers of images of seen and of unseen pairs;
            without these numbers, no metric counts as undefined.
        bins: the curve of the metrics. Images of unseen pairs propose the biases of the ``"original"`` curve, so that
            it has no highest seen accuracy without them.

    >>> undefined_metrics({"best_seen": 0.5, "auc": 0.0, "n_seen": 3, "n_unseen": 0}, "exact")
    {'auc': 'no image shows an unseen pair'}
    """
    found: dict[str, str] = {}
    for kind, article in (("seen", "a"), ("unseen", "an")):
        if metrics.get(f"n_{kind}") == 0:
            accuracies = {f"best_{kind}", *(["best_seen"] if bins == "original" else [])}
            undefined = (n for n in metrics if n in accuracies or n.startswith(("auc", "hm_", "best_hm")))
            found |= dict.fromkeys(undefined, f"no image shows {article} {kind} pair")
    return found


def defined_metrics(metrics: Mapping[str, Any], bins: str) -> dict[str, Any]:
    """Return metrics by name with None for those that are undefined.

    >>> defined_metrics({"best_seen": 0.5, "auc": 0.0, "n_seen": 3, "n_unseen": 0}, "exact")
    {'best_seen': 0.5, 'auc': None, 'n_seen': 3, 'n_unseen': 0}
    """
    undefined = undefined_metrics(metrics, bins)
    return {name: None if name in undefined else value for name, value in metrics.items()}
