import math

import pytest
import torch

from czslkit.heads import CosineHead, ScoreFusion, ThreeBranchHead
from czslkit.types import VALIDATION, Batch, ImageFeatures, Scores, Setting, TextFeatures

PAIRS = torch.tensor([[0, 0], [0, 1], [1, 1]])
SCORES = Scores(
    torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[math.log(4.0), 0.0]])
)  # p(attr) = 1/4, 3/4; p(obj) = 4/5, 1/5


def ranked(*weights: float, setting: Setting = VALIDATION, **fusion) -> list[float]:
    head = ThreeBranchHead(4, torch.tensor(0.0), fusion=ScoreFusion(weights, **fusion))
    return [round(x, 6) for x in head.rank(SCORES, PAIRS, setting)[0].tolist()]


def test_scores_add_the_product_of_primitive_probabilities():
    assert ranked(1, 1, 1) == pytest.approx([1 + 0.25 * 0.8, 2 + 0.25 * 0.2, 3 + 0.75 * 0.2])


def test_weights_multiply_their_own_part():
    assert ranked(0.5, 2, 3) == pytest.approx([0.5 + 6 * 0.25 * 0.8, 1 + 6 * 0.25 * 0.2, 1.5 + 6 * 0.75 * 0.2])


def test_a_weight_of_zero_takes_the_factor_out():
    assert ranked(1, 0, 1) == [1.8, 2.2, 3.2]
    assert ranked(1, 0, 0) == [2, 3, 4]


def test_the_test_splits_may_have_weights_of_their_own():
    weights = {"closed": (0.1, 1, 1), "open": (0.2, 1, 1)}
    expected = {None: [1.2, 2.05, 3.15], "closed": [0.3, 0.25, 0.45], "open": [0.4, 0.45, 0.75]}
    assert ranked(1, 1, 1, **weights) == pytest.approx(expected[None])
    for world in ("closed", "open"):
        assert ranked(1, 1, 1, **weights, setting=Setting("val", world, 3)) == pytest.approx(expected[None])
        assert ranked(1, 1, 1, **weights, setting=Setting("test", world, 3)) == pytest.approx(expected[world])
        assert ranked(1, 1, 1, setting=Setting("test", world, 3)) == pytest.approx(expected[None])


@pytest.mark.parametrize(("columns", "chunks"), [(3, 1), (1024, 1), (1025, 2), (28175, 28)])
def test_the_test_divides_each_primitive_probability_by_the_number_of_chunks(columns, chunks):
    expected = [1 + 0.25 * 0.8 / chunks**2, 2 + 0.25 * 0.2 / chunks**2, 3 + 0.75 * 0.2 / chunks**2]
    assert ranked(1, 1, 1, primitive_chunk=1024, setting=Setting("test", "open", columns)) == pytest.approx(
        expected, abs=2e-6
    )
    assert ranked(1, 1, 1, primitive_chunk=1024, setting=Setting("val", "open", columns)) == ranked(1, 1, 1)


def test_the_loss_is_a_weighted_sum_of_three_cross_entropies():
    head = ThreeBranchHead(4, torch.tensor(0.0), loss_weights=(1, 10, 100))
    loss = head.loss(SCORES, Batch(torch.zeros(1), torch.tensor([1]), torch.tensor([1])), PAIRS)
    pair = math.log(math.e + math.e**2 + math.e**3) - 3
    assert math.isclose(loss.item(), pair - 10 * math.log(0.75) - 100 * math.log(0.2), rel_tol=1e-6)


def test_primitive_branches_see_the_image_through_their_own_view():
    torch.manual_seed(0)
    head = ThreeBranchHead(4, torch.tensor(0.0)).eval()
    image = ImageFeatures(torch.randn(2, 4))
    text = TextFeatures(PAIRS, torch.randn(3, 4), torch.randn(2, 4), torch.randn(2, 4))
    scores = head(image, text)
    linear, norm = head.attr_view[0], head.attr_view[1]
    x = (image.pooled @ linear.weight.T + linear.bias) / math.sqrt(1 + norm.eps)  # fresh running statistics
    expected = torch.cosine_similarity(x.relu()[:, None], text.attr[None], dim=-1)
    torch.testing.assert_close(scores.attr, expected)
    torch.testing.assert_close(scores.pair, torch.cosine_similarity(image.pooled[:, None], text.pair[None], dim=-1))


def test_the_cosine_head_is_cross_entropy_over_the_candidates():
    head = CosineHead(torch.tensor(math.log(10.0)))
    image = ImageFeatures(torch.tensor([[3.0, 0.0]]))
    scores = head(image, TextFeatures(PAIRS, torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])))
    assert [round(x, 5) for x in scores.pair[0].tolist()] == [10, 0, -10]
    loss = head.loss(scores, Batch(image, torch.tensor([0]), torch.tensor([1])), PAIRS)
    assert math.isclose(loss.item(), 10 + math.log(1 + math.exp(-10) + math.exp(-20)), rel_tol=1e-6)
