"""TODO."""

from __future__ import annotations

#: What papers print, and what it is called in results.
METRICS = {"S": "best_seen", "U": "best_unseen", "H": "best_hm", "AUC": "auc"}


WORLDS = ("closed", "open")
