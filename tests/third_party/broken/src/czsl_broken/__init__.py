"""A plugin that registers an aggregator and then imports a module that does not exist."""

from czslkit.components import AGGREGATORS, Aggregator
from czslkit.types import ImageFeatures


@AGGREGATORS.register("half_done")
class HalfDone(Aggregator):
    """An aggregator whose name is removed when the import below fails."""

    def forward(self, image: ImageFeatures) -> ImageFeatures:
        return image


import foo_that_is_not_there  # noqa: E402, F401
