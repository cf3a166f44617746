"""Registers an aggregator, then asks for a module that nobody has."""

from czslkit.components import AGGREGATORS, Aggregator
from czslkit.types import ImageFeatures


@AGGREGATORS.register("half_done")
class HalfDone(Aggregator):
    """Withdrawn when the next line fails."""

    def forward(self, image: ImageFeatures) -> ImageFeatures:
        return image


import foo_that_is_not_there  # noqa: E402, F401
