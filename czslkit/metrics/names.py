"""Names of the four metrics that papers print, and of the two worlds."""

from __future__ import annotations

#: Letter that papers print for a metric -> key of the metric in results.
METRICS = {"S": "best_seen", "U": "best_unseen", "H": "best_hm", "AUC": "auc"}

#: Names of the closed and the open world in results and on the command line.
WORLDS = ("closed", "open")
