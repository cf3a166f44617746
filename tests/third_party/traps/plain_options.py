"""Trap: a class of options that is no dataclass."""

from czslkit import METHODS
from czslkit_plugins.csp import Csp


class PlainOptions:
    backbone: str = "demo"
    context: str = "a photo of"
    context_length: int = 8
    word_dropout: float = 0.3


@METHODS.register("plain-options")
class PlainOptionsMethod(Csp):
    version = 1
    Options = PlainOptions
