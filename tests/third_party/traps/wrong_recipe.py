"""Trap: a recipe with a misspelt key and a value of a wrong type."""

from czslkit import METHODS
from czslkit_plugins.csp import Csp


@METHODS.register("wrong-recipe")
class WrongRecipe(Csp):
    version = 1
    recipe = {"learning_rate": 1e-3, "epochs": "many"}
