"""Trap: a backbone that takes a request for adapters and adds none."""

from czslkit import BACKBONES
from czslkit.backbones.demo import DemoClip


@BACKBONES.register("swallowed-adapters")
class SwallowedAdapters(DemoClip):
    version = 1

    def __init__(self, argument="", **options):
        super().__init__(argument)

    def add_adapters(self, make, **options):
        pass
