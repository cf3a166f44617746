"""A method's scores on a split, through the metrics."""

#: Raise it when the numbers of an evaluation change: stored results are then evaluated again, without training.
VERSION = 1
