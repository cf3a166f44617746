"""The heads that several methods share: features into scores, scores into a loss and a ranking."""

from .cosine import CosineHead as CosineHead
from .margin_cosine import MarginCosine as MarginCosine
from .three_branch import ScoreFusion as ScoreFusion
from .three_branch import ThreeBranchHead as ThreeBranchHead
