"""The training loop, its settings, its optimisers and the state that it resumes from."""

#: Raise it when the numbers of a training change: stored results are then stale, and are trained again.
VERSION = 1
