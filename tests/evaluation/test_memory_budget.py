"""Evaluations with a memory limit: they give the same numbers and stay within the limit."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

import czslkit
from czslkit.data.batches import Feed
from czslkit.data.make.mini import write_mini
from czslkit.data.splits import Splits
from czslkit.errors import ConfigError
from czslkit.evaluation.evaluator import Evaluation
from czslkit.evaluation.memory_budget import COUNTED, Chunks, Costs, fit_chunks
from czslkit.footprint import Footprint
from czslkit.method import METHODS

OPTIONS = {
    "visprod": {"backbone": "timm/resnet10t/random", "image_size": 32},
    "msci": {"heads": (4, 4)},
    "cge": {"graph_layers": "d16,d"},  # whose network runs as a whole, also for a few pairs
    "cocge": {"graph_layers": "d16,d"},
    "tomcat": {"adapt": False},  # a stream has no limit
    "gipcol": {"graph_layers": "d16,d"},
}
WORLDS = ["closed", "open"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    """A dataset of 36 pairs in the closed world, 48 pairs in the open world, and 48 test images."""
    root = tmp_path_factory.mktemp("data")
    write_mini("mit-states", root)
    return czslkit.load_dataset("mit-states", root)


@pytest.fixture(scope="module")
def many(data: Splits) -> Splits:
    """Ten of the images, in a label space of 600 pairs."""
    attrs, objs = (tuple(f"{kind}{i}" for i in range(n)) for kind, n in (("wet", 20), ("dog", 30)))
    test = replace(data.test, paths=data.test.paths[:10], attr=data.test.attr[:10], obj=data.test.obj[:10])
    return replace(data, space=replace(data.space, attrs=attrs, objs=objs), test=test)


@pytest.fixture
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use small samples of texts and small blocks of scores, so that the memory of a tiny model is visible."""
    monkeypatch.setattr("czslkit.prompts.PROMPTS_PER_CHUNK", 4)
    monkeypatch.setattr("czslkit.evaluation.memory_budget.SAMPLE", 4)
    monkeypatch.setattr("czslkit.metrics.sweep_state.SCORES_PER_BLOCK", 500)


def built(name: str, data: Splits, clip_file: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    return czslkit.build(name, data.space, **{"backbone": str(clip_file), **OPTIONS.get(name, {}), **options}).eval()


def plan(method: Any, data: Splits, worlds: list[str], **memory: int) -> Evaluation:
    return Evaluation.plan(method, data, "test", worlds, Feed(method, data.test, 16), **memory)


def costs(method: Any, data: Splits, worlds: list[str] | None = None) -> Costs:
    planned = plan(method, data, worlds or ["open"])
    return Costs(method, planned.feed, planned.tasks)


@pytest.mark.usefixtures("small_samples")
@pytest.mark.parametrize("name", METHODS)
def test_a_budget_is_kept_and_changes_no_number(name: str, data: Splits, clip_file: Any) -> None:
    method = built(name, data, clip_file)
    plenty = plan(method, data, WORLDS).run()
    everything = costs(method, data, WORLDS).total(84, 16, 48)
    kept = 0
    for memory in (int(share * everything) for share in (0.2, 0.4, 0.7, 1.02)):
        feed = Feed(method, data.test, 16)
        _ = feed.caches_features  # is measured here, with gradients, and not within the memory
        try:
            with Footprint() as footprint:
                filled = Evaluation.plan(method, data, "test", WORLDS, feed, memory=memory).run()
        except ConfigError:
            continue
        kept += 1
        assert footprint.peak <= memory
        for world in WORLDS:
            assert filled[world].compute().auc == pytest.approx(plenty[world].compute().auc, abs=1e-6)
    assert kept > 1


@pytest.mark.usefixtures("small_samples")
def test_texts_that_do_not_fit_are_scored_in_several_passes(
    many: Splits, clip_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = built("csp", many, clip_file)
    asked: list[int] = []
    text = method.text
    monkeypatch.setattr(method, "text", lambda pairs: (asked.append(len(pairs)), text(pairs))[1])
    monkeypatch.setattr("czslkit.data.batches.has_fixed_features", lambda *_: True)  # encodes texts, too
    plenty = plan(method, many, WORLDS).run()
    assert asked == [4, len(many.candidates("test").nonzero()), 600]
    asked.clear()
    with Footprint() as footprint:
        parts = plan(method, many, WORLDS, memory=460_000).run()
    assert footprint.peak <= 460_000
    assert len(asked) > 3 and sum(asked[1:]) == 600 + len(many.candidates("test").nonzero())
    for world in WORLDS:
        assert parts[world].compute().auc == pytest.approx(plenty[world].compute().auc, abs=1e-6)


@pytest.mark.usefixtures("small_samples")
def test_larger_budgets_get_larger_chunks(many: Splits, clip_file: Any) -> None:
    found = costs(built("csp", many, clip_file), many)
    chunks = []
    for memory in (int(2e5 * 1.4**n) for n in range(9)):
        try:
            chunks.append(fit_chunks(found, memory))
        except ConfigError:
            continue
    assert len(set(chunks)) > 3
    assert chunks[-1] == Chunks(10, 600, 600)
    for less, more in pairwise(chunks):
        assert less.images * less.pairs <= more.images * more.pairs and less.texts <= more.texts


def test_images_that_depend_on_each_other_stay_in_their_batches(data: Splits, clip_file: Any) -> None:
    method = built("dfsp-i2t", data, clip_file, batch_mixing="original")
    assert not method.independent and built("dfsp-i2t", data, clip_file).independent
    found = costs(method, data)
    least = found.total(48, 16, 48) / COUNTED
    assert fit_chunks(found, int(least) + 2).images == 16
    with pytest.raises(ConfigError, match="to score 16 x 48 images x pairs at a time"):
        fit_chunks(found, int(least) - 2)


def test_pairs_that_depend_on_each_other_stay_in_their_world(
    data: Splits, clip_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = built("dfsp-spm", data, clip_file)
    measured = costs(method, data, WORLDS)
    assert fit_chunks(measured, 10**9) == Chunks(16, 48, 84)
    monkeypatch.setattr("czslkit.evaluation.memory_budget.TEXT_SHARE", 0)
    assert fit_chunks(measured, 10**9) == Chunks(16, 48, 48)


def test_too_little_memory_is_an_error_that_lists_each_part(data: Splits, clip_file: Any) -> None:
    method = built("csp", data, clip_file)
    message = (
        r"memory is 1.0 kB, but 3. MB are needed: .* for the texts of 1 pairs, "
        r"32 MB for cached features and the best scores of all images, .* to encode texts"
    )
    with pytest.raises(ConfigError, match=message):
        plan(method, data, ["closed"], memory=1000).run()


@pytest.mark.parametrize("width", [48, 5])
def test_a_sweep_takes_at_most_its_footprint(width: int, data: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("czslkit.metrics.sweep_state.SCORES_PER_BLOCK", 100)
    space, generator = data.space.open(), torch.Generator().manual_seed(0)
    scores, labels = torch.randn(300, 48, generator=generator), space.pairs[torch.arange(300) % 48]
    feasibility, thresholds = torch.rand(48, generator=generator), [0.1 * i for i in range(9)]
    with Footprint() as footprint:
        sweep = czslkit.Sweep(space.pairs, space.seen, feasibility=feasibility, thresholds=thresholds)
        for images in torch.arange(300).split(7):
            for columns in torch.arange(48).split(width):
                sweep.update(scores[images][:, columns], *labels[images].T, columns=columns)
    assert footprint.peak <= sweep.footprint(300, -(-48 // width))
