from __future__ import annotations

from collections import OrderedDict
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from czslkit.errors import ConfigError
from czslkit.weights import STATE_DICT_KEYS, read_tensors

same = partial(torch.testing.assert_close, rtol=0, atol=0)  # of dicts, types and shapes included

TENSORS = {"a.weight": torch.ones(2, 3), "b": torch.arange(4)}


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("wrapper", [None, *STATE_DICT_KEYS])
def test_torch_files_are_read_with_and_without_a_training_run_around(tmp_path, wrapper, modern):
    content = {wrapper: OrderedDict(TENSORS), "epoch": 3} if wrapper else TENSORS
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=modern)
    same(read_tensors(tmp_path / "w.pt"), TENSORS)


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
