"""The metrics of compositional zero-shot learning, computed only from scores.

No module here depends on methods, datasets or files. :mod:`.sweep` holds the public entry points ``evaluate`` and
``Sweep``. A sweep passes chunks of scores through these modules, from the first to the last:

- :mod:`.candidates`: the pair of each column of a score matrix, and the pairs that may be predicted.
- :mod:`.coverage`: a record of which scores have been received.
- :mod:`.ranking`: the best few columns of each image.
- :mod:`.sweep_state`: the numbers per image that a sweep keeps, and how a chunk of scores is reduced to them.
- :mod:`.top_scores`: the best candidates of each image at each feasibility threshold.
- :mod:`.curves`: seen and unseen accuracy as a function of the bias, and the metrics of that curve.
- :mod:`.metrics`: the results.

In addition, :mod:`.outcomes` holds the numbers per image that determine both curves, :mod:`.bootstrap` resamples them,
and :mod:`.feasibility` has the formula of feasibility for the open world.
"""
