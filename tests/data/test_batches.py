import pytest
import torch

import czslkit
from czslkit.data.batches import Feed
from czslkit.types import ImageFeatures


@pytest.fixture
def toy(toys):
    return czslkit.load_dataset("toys", toys)


@torch.no_grad()
def test_kept_features_are_those_of_the_pixels(toy, clip_file):
    method = czslkit.build("csp", toy.space, backbone=str(clip_file)).train()
    order = torch.tensor([4, 0, 7])
    kept = list(Feed(method, toy.val, 2).batches(order))
    pixels = list(Feed(method, toy.val, 2)._read(order.split(2), 0))
    assert [len(batch.attr) for batch in kept] == [2, 1]
    for a, b in zip(kept, pixels, strict=True):
        assert isinstance(a.images, ImageFeatures)
        torch.testing.assert_close(a.images.pooled, method.encode(b).pooled)
    for name in ("attr", "obj"):
        assert torch.cat([getattr(batch, name) for batch in kept]).tolist() == getattr(toy.val, name)[order].tolist()
    assert torch.cat([batch.index for batch in kept]).tolist() == order.tolist()


def test_every_image_is_encoded_once(toy, clip_file, monkeypatch):
    method = czslkit.build("csp", toy.space, backbone=str(clip_file))
    encoded = []
    real = type(method).encode
    monkeypatch.setattr(type(method), "encode", lambda self, images: encoded.append(len(images)) or real(self, images))
    feed = Feed(method, toy.val, 4)
    for _ in range(2):
        list(feed.batches())
    assert [size for size in encoded if size > 3] == [4, 4]  # smaller ones are a sample


@pytest.mark.parametrize(("name", "augment"), [("csp", True), ("msci", False)])
def test_what_changes_is_read_again(toy, clip_file, name, augment):
    options = {"low_layers": 2, "high_layers": 2, "heads": (2, 2)} if name == "msci" else {}
    method = czslkit.build(name, toy.space, backbone=str(clip_file), **options)
    feed = Feed(method, toy.val, 8, augment=augment)
    first, again, later = (next(feed.batches(epoch=epoch)).images for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, later) != augment


def test_length_counts_batches(toy, clip_file):
    feed = Feed(czslkit.build("csp", toy.space, backbone=str(clip_file)), toy.val, 3)
    assert len(feed) == len(list(feed.batches())) == 3
