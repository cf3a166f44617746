"""Evaluation within a budget: the same numbers, and no more bytes than were given."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import czslkit
from czslkit.data.datasets import Splits
from czslkit.data.mini import write_mini
from czslkit.errors import ConfigError
from czslkit.evaluation.chunks import Chunks, Costs, fit
from czslkit.evaluation.evaluator import sweeps
from czslkit.evaluation.sweep import BLOCK
from czslkit.feed import Feed
from czslkit.memory import Footprint
from czslkit.method import METHODS
from czslkit.types import Setting

OPTIONS = {"visprod": {"backbone": "timm/resnet10t/random", "image_size": 32}, "msci": {"heads": (4, 4)}}
WORLDS = ["closed", "open"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    root = tmp_path_factory.mktemp("data")
    write_mini("mit-states", root)
    return czslkit.load_dataset("mit-states", root)


def built(name: str, data: Splits, clip_file: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    return czslkit.build(name, data.space, **{"backbone": str(clip_file), **OPTIONS.get(name, {}), **options}).eval()


def costs(method: Any, data: Splits) -> Costs:
    return Costs(method, Feed(method, data.test, 16), data.space.open().pairs, Setting("test", "open", 48))


@pytest.mark.parametrize("name", METHODS)
def test_a_small_budget_is_kept_and_changes_no_number(
    name: str, data: Splits, clip_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("czslkit.evaluation.sweep.BLOCK", 100)
    method = built(name, data, clip_file)
    plenty = sweeps(method, data, "test", ["open"], Feed(method, data.test, 16))
    found = costs(method, data)
    taken = found.scoring(2, 8 if method.chunkable else 48)
    least = plenty["open"].footprint(len(data.test)) + Feed(method, data.test, 16).kept_bytes + found.texts(48) + taken
    with Footprint() as footprint:
        filled = sweeps(method, data, "test", ["open"], Feed(method, data.test, 16), memory=least)
    assert 0.5 * least < footprint.peak <= least
    few, many = filled["open"].compute(), plenty["open"].compute()
    assert few.auc == pytest.approx(many.auc, abs=1e-6)
    assert few.best_hm == pytest.approx(many.best_hm, abs=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_what_was_measured_is_what_larger_chunks_take_at_most(name: str, data: Splits, clip_file: Any) -> None:
    found = costs(built(name, data, clip_file), data)
    for images, pairs in ((1, 6), (2, 12), (8, 6)):
        assert found.scoring(2 * images, pairs) <= 2 * found.scoring(images, pairs)
        assert found.scoring(images, 2 * pairs) <= 2 * found.scoring(images, pairs)


def test_texts_that_are_too_many_take_turns(data: Splits, clip_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    method = built("csp", data, clip_file)
    whole = sweeps(method, data, "test", WORLDS, Feed(method, data.test, 16))
    asked: list[int] = []
    text = method.text
    monkeypatch.setattr(method, "text", lambda pairs: (asked.append(len(pairs)), text(pairs))[1])
    monkeypatch.setattr("czslkit.evaluation.chunks.KEPT", 0.0)
    parts = sweeps(method, data, "test", WORLDS, Feed(method, data.test, 16))
    assert asked[1:] == [1] * (int(data.candidates("test").sum()) + 48)
    for world in WORLDS:
        assert parts[world].compute().auc == pytest.approx(whole[world].compute().auc, abs=1e-6)


def test_images_that_see_each_other_stay_in_their_batches(data: Splits, clip_file: Any) -> None:
    method = built("dfsp-i2t", data, clip_file, batch_mixing="original")
    assert not method.independent and built("dfsp-i2t", data, clip_file).independent
    found = costs(method, data)
    least = found.always + found.texts(48) + found.scoring(16, 48)
    assert fit(found, least).images == 16
    with pytest.raises(ConfigError, match=r"are needed to score 16 images against 48 pairs at a time"):
        fit(found, least - 1)


def test_plenty_is_used_up_to_a_batch_and_all_pairs(data: Splits, clip_file: Any) -> None:
    assert fit(costs(built("csp", data, clip_file), data), 10**9) == Chunks(16, 48, 48)


def test_too_little_is_said_with_what_is_needed(data: Splits, clip_file: Any) -> None:
    method = built("csp", data, clip_file)
    with pytest.raises(ConfigError, match=r"memory is 1.0 kB, but .*B are needed to score 1 image against 1 pair at a"):
        sweeps(method, data, "test", ["closed"], Feed(method, data.test, 16), memory=1000)


def test_a_sweep_takes_no_more_than_it_says(data: Splits) -> None:
    space = data.space.open()
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(300, 48, generator=generator)
    with Footprint() as footprint:
        sweep = czslkit.Sweep(
            space.pairs, space.seen, feasibility=torch.rand(48), thresholds=[0.1 * i for i in range(9)]
        )
        before = footprint.live
        for part in torch.arange(300).split(7):
            sweep.update(scores[part], *space.pairs[part % 48].T)
    assert footprint.peak - before <= sweep.footprint(300)
    assert sweep.footprint(300) < 4 * 8 * BLOCK + 300 * 2000
