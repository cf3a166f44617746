"""The evaluation of methods and of score files: scores become metrics."""

#: Raise it when the numbers of an evaluation change: stored results are then evaluated again, without training.
VERSION = 1
