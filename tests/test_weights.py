from __future__ import annotations

import socket
from collections import OrderedDict
from functools import partial

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from czslkit.backbones import load_backbone
from czslkit.errors import ConfigError
from czslkit.weights import (
    DIGEST_KEY,
    STATE_DICT_KEYS,
    download_or_raise,
    read_safetensors,
    read_tensors,
    write_tensors,
)

same = partial(torch.testing.assert_close, rtol=0, atol=0)  # of dicts, types and shapes included

TENSORS = {"a.weight": torch.ones(2, 3), "b": torch.arange(4)}


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("wrapper", [None, *STATE_DICT_KEYS])
def test_torch_files_are_read_with_and_without_a_training_run_around(tmp_path, wrapper, modern):
    content = {wrapper: OrderedDict(TENSORS), "epoch": 3} if wrapper else TENSORS
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=modern)
    same(read_tensors(tmp_path / "w.pt"), TENSORS)


def test_tensors_of_every_type_and_their_metadata_are_read_as_written(tmp_path):
    kinds = (torch.float64, torch.bfloat16, torch.float16, torch.int8, torch.bool, torch.complex64, torch.float8_e5m2)
    tensors = {str(kind): torch.ones(2, 3).to(kind) for kind in kinds} | {"scalar": torch.tensor(3)}
    tensors |= {"none": torch.zeros(0, 2), "transposed": torch.arange(6).view(2, 3).T}
    write_tensors(tensors, tmp_path / "w.safetensors", {"key": "k"})
    found, metadata = read_safetensors(tmp_path / "w.safetensors")
    assert {name: (t.dtype, t.tolist()) for name, t in found.items()} == {
        name: (t.dtype, t.tolist()) for name, t in tensors.items()
    }
    assert metadata == {"key": "k"}


@pytest.mark.parametrize(
    "damaged",
    [
        lambda tensors, metadata: (tensors | {"b": tensors["b"] + 1}, metadata),
        lambda tensors, metadata: (tensors | {"b": tensors["b"].view(2, 2)}, metadata),
        lambda tensors, metadata: (tensors | {"b": tensors["b"].view(torch.float64)}, metadata),
        lambda tensors, metadata: ({"a.weight": tensors["a.weight"], "c": tensors["b"]}, metadata),
        lambda tensors, metadata: ({"b": tensors["b"]}, metadata),
        lambda tensors, metadata: (tensors, metadata | {"key": "l"}),
    ],
    ids=["value", "shape", "type", "name", "tensor missing", "metadata"],
)
def test_a_written_file_that_was_changed_is_refused_with_both_digests(tmp_path, damaged):
    file = tmp_path / "w.safetensors"
    write_tensors(TENSORS, file, {"key": "k"})
    with safe_open(file, "pt") as content:
        metadata = content.metadata()
    save_file(*damaged(TENSORS, metadata)[:1], file, damaged(TENSORS, metadata)[1])
    expected = metadata[DIGEST_KEY]
    message = rf"it is damaged: its content has the digest (?!{expected})[0-9a-f]{{16}}, expected {expected}$"
    with pytest.raises(ConfigError, match=message):
        read_tensors(file)


def test_a_file_of_another_program_needs_no_digest(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors", {"format": "pt"})
    same(read_tensors(tmp_path / "w.safetensors"), TENSORS)


def test_the_case_of_a_suffix_does_not_matter(tmp_path):
    save_file(TENSORS, tmp_path / "W.SafeTensors")
    same(read_tensors(tmp_path / "W.SafeTensors"), TENSORS)


@pytest.mark.parametrize("save", [torch.save, save_file])
def test_the_prefix_of_data_parallel_is_dropped_only_where_all_have_it(tmp_path, save):
    file = tmp_path / ("w.safetensors" if save is save_file else "w.pt")
    save({f"module.{name}": tensor for name, tensor in TENSORS.items()}, file)
    same(read_tensors(file), TENSORS)
    save(some := TENSORS | {"module.b": torch.zeros(2)}, file)
    same(read_tensors(file), some)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"a": torch.ones(1), "epoch": 3, "name": "x"},
            r"it contains more than tensors: 'epoch' \(int\), 'name' \(str\)$",
        ),
        ({"state_dict": {"a": None}}, r"it contains more than tensors: 'a' \(NoneType\)$"),
        ([torch.ones(1)], r"it contains a list, not a dict of tensors$"),
        (torch.ones(1), r"it contains a Tensor, not a dict of tensors$"),
    ],
)
def test_a_torch_file_of_something_else_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"w\.pt is not a readable weight file .*: " + message):
        read_tensors(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pt", b"version https://git-lfs.github.com/spec/v1", r"no torch file starts with b've'$"),
        ("w.pt", b"", r"no torch file starts with b''$"),
        ("w.pt", b"PK\x03\x04 and no more", r"a zip archive without its end, cut short$"),
        ("w.safetensors", b"\xff" * 64, r"[Hh]eader"),
        ("absent.pt", None, r"there is no such file"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{name} is not a readable weight file .*{message}"):
        read_tensors(tmp_path / name)


@pytest.fixture
def closed_hub(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a hub where nothing answers."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/{filename}")
    return address


@pytest.mark.parametrize("setting", ["ViT-B-32/laion2b_s34b_b79k", "hf-hub:someone/something", "timm/resnet10t"])
def test_a_hub_that_does_not_answer_is_said_once_with_the_remedy(setting, closed_hub, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = (
        rf"^the weights of {setting} could not be loaded: {closed_hub} cannot be reached \(.+\), and the files were "
        "not downloaded before; a file works as well: [^;]+/path/to/weights; HF_HUB_OFFLINE=1 uses files of an earlier"
    )
    with pytest.raises(ConfigError, match=message):
        load_backbone(setting)
    assert "Retrying" not in caplog.text and closed_hub not in caplog.text


def test_files_of_an_earlier_download_are_used_if_the_hub_does_not_answer(closed_hub):
    from huggingface_hub import constants

    assert download_or_raise("ViT-B-32/openai", lambda: constants.HF_HUB_OFFLINE) is True
    assert constants.HF_HUB_OFFLINE is False
