import pytest
import torch
import torch.nn.functional as F

import czslkit
from czslkit.data.fixed_features import has_fixed_features
from czslkit.types import Batch

OPTIONS = {"backbone": "timm/resnet10t/random", "image_size": 32}


@torch.no_grad()
def test_a_pair_scores_the_log_of_both_probabilities(space, images):
    torch.manual_seed(0)
    method = czslkit.build("visprod", space, **OPTIONS).eval()
    found = method(images, method.text(space.pairs))
    features = method.backbone.tower(images)
    attr = method.head.attr[1](features).softmax(1)
    obj = method.head.obj[1](features).softmax(1)
    for column, (a, o) in enumerate(space.pairs.tolist()):
        torch.testing.assert_close(found.pair[:, column].exp(), attr[:, a] * obj[:, o])


def test_the_loss_is_one_cross_entropy_for_each_classifier(space, images):
    torch.manual_seed(0)
    method = czslkit.build("visprod", space, **OPTIONS).eval()
    batch = Batch(images, torch.tensor([0, 1, 2, 0, 1]), torch.tensor([3, 2, 1, 0, 0]))
    scores = method(images, method.text(space.pairs))
    expected = F.cross_entropy(scores.attr, batch.attr) + F.cross_entropy(scores.obj, batch.obj)
    torch.testing.assert_close(method.loss(batch, space.pairs), expected)


@pytest.mark.parametrize(("tune", "frozen"), [("head", True), ("all", False)])
def test_the_tower_learns_only_when_asked_to(space, tune, frozen):
    method = czslkit.build("visprod", space, tune=tune, **OPTIONS).train()
    assert has_fixed_features(method) == frozen
    assert method.backbone.training == (not frozen)
    assert any(name.startswith("backbone") for name, p in method.named_parameters() if p.requires_grad) != frozen


def test_any_image_tower_will_do(space, clip_file, images):
    method = czslkit.build("visprod", space, backbone=str(clip_file), hidden=8).eval()
    assert method.rank(images, method.text(space.pairs)).shape == (5, 12)
    assert method.head.attr[1].out_features == 8
