"""Trap: an interaction that uses the tokens of an image without ``reads_tokens = True``."""

from dataclasses import replace

from czslkit import METHODS, Interaction
from czslkit_plugins.csp import Csp


class MeanToken(Interaction):
    version = 1

    def forward(self, image, text, backbone):
        return replace(image, pooled=image.pooled + backbone.project_image(image.tokens).mean(1)), text


@METHODS.register("forgotten-tokens")
class ForgottenTokens(Csp):
    version = 1
    recipe = {"augment": False}

    def __init__(self, options, space):
        super().__init__(options, space)
        self.interaction = MeanToken()
