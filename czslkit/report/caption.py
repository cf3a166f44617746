"""The sentences below a table that explain its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics.names import METRICS
from ..result_store import Result
from .arrangement import Arrangement
from .escaping import printable
from .labels import MORE, TRANSDUCTIVE
from .open_world import open_world_sentences
from .significance import Significance

_CURVES = {
    "original": "the area under the original ~20-bias curve",
    "exact": "the area under the curve through every breakpoint",
}


def table_caption(
    arrangement: Arrangement,
    significance: Significance,
    results: Sequence[Result],
    *,
    difference: str = "",
    intervals: bool = False,
) -> list[str]:
    """Return the caption of a table, sentence by sentence.

    Args:
        arrangement: the entries.
        significance: intervals and tie marks.
        results: the result of each row of ``arrangement.frame``.
        difference: the first difference in how the results were measured; empty if all were measured alike.
        intervals: whether the table prints intervals.
    """
    sentences = [
        "All numbers are percentages. S, U and H are the best seen, best unseen and best harmonic-mean accuracy."
    ]
    done = [result for result in results if result["status"] == "done"]
    if done:
        bins = str(done[0]["protocol"].get("bins"))
        sentences.append(f"AUC is {_CURVES.get(bins, f'the area of bins={printable(bins)!r}')}.")
    if difference:
        sentences.append(f"Not all results were measured alike: {difference}.")
    labels = list(arrangement.frame["label"])
    if any(label.endswith(MORE) for label in labels):
        sentences.append(f"Rows whose name ends with '{MORE}' also differ in other settings, which are columns in CSV.")
    sentences += _precision_sentences(labels, results)
    sentences += _method_sentences(labels, results)
    sentences += open_world_sentences(labels, results)
    counts = sorted({len(finished) for finished in arrangement.finished.values() if finished})
    if counts and counts[-1] > 1:
        seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else counts[0]
        sentences.append(f"Numbers are mean ± sample standard deviation (ddof=1) over {seeds} seeds.")
    return sentences + significance.caption(intervals, list(METRICS.values()))


def _precision_sentences(labels: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Return a sentence for each row that was trained or measured in another number format than fp32."""
    used: dict[str, dict[str, None]] = {}
    for label, result in zip(labels, results, strict=True):
        precision = (result.get("protocol") or {}).get("precision") or {}
        uses = {"trained": precision.get("train"), "measured": precision.get("eval")}
        if words := " and ".join(f"{use} in {printable(str(found))}" for use, found in uses.items() if found):
            used.setdefault(words, {})[label] = None
    return [f"Not in fp32: {words}: {', '.join(rows)}." for words, rows in used.items()]


def _method_sentences(labels: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Return a sentence on the rows that adapt to the test images, and one for each row that masks pairs itself."""
    done = [(label, r["protocol"]) for label, r in zip(labels, results, strict=True) if r["status"] == "done"]
    seeds = {protocol["transductive"]["stream_seed"] for _, protocol in done if protocol.get("transductive")}
    order = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"
    sentences = [
        f"Rows marked ({TRANSDUCTIVE}) adapt to the test images, which they get one by one in a random order ({order})."
    ]
    masks = {(label, printable(str(mask))): None for label, protocol in done if (mask := protocol.get("masks_pairs"))}
    return (sentences if seeds else []) + [f"{label} itself never predicts {mask}." for label, mask in masks]
