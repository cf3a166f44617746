"""The heads that several methods share: features into scores, scores into a loss and a ranking."""

from .cosine import CosineHead as CosineHead
from .three_branch import ScoreFusion as ScoreFusion
from .three_branch import ThreeBranchHead as ThreeBranchHead
