"""The training loop, its settings, its optimisers and the state that it resumes from."""

#: Raise it when the numbers of a training change: stored results are then trained again, beside the old ones.
VERSION = 1
