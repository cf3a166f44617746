"""Files of tensors and of plain values that would cost far more than their size."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from czslkit.errors import ConfigError
from czslkit.pickle_scan import scan_pickle
from czslkit.torch_files import load_plain
from czslkit.weights import read_tensors


def archive(file: Path, pickled: bytes, storages: Mapping[str, bytes] = {}, method: int = zipfile.ZIP_STORED) -> None:
    """Write a torch file around a pickle."""
    with zipfile.ZipFile(file, "w", method) as out:
        for name, data in {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little"}.items():
            out.writestr(f"x/{name}", data)
        for key, data in storages.items():
            out.writestr(f"x/data/{key}", data)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(numel: int, *size: int, stride: int = 1, key: str = "0") -> bytes:
    """Return the pickle of a tensor of one size in a storage."""
    count, shape = (b"J" + struct.pack("<i", n) for n in (numel, *size))
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + (text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + count + b"tQK\0")
        + (shape + b"\x85K" + bytes([stride]) + b"\x85\x89ccollections\nOrderedDict\n)RtR")
    )


def in_dict(value: bytes) -> bytes:
    return b"\x80\x02}" + text("a") + value + b"s."


NESTED = b"(" * 10_000 + b"t" * 10_000
DOUBLED = b"N" + b"q\x00h\x00\x86" * 60  # a tuple twice in a tuple, sixty times: 2^60 values
TWICE = in_dict(b"]")

PICKLES: dict[str, tuple[bytes, str]] = {
    "marks": (b"\x80\x02" + NESTED + b".", "it has values in more than 200 others"),
    "tuples": (b"\x80\x02}N" + b"\x85" * 100_000 + b"Ns.", "it has tuples in too many or too large tuples"),
    "doubled key": (b"\x80\x02}" + DOUBLED + b"Ns.", "it has tuples in too many or too large tuples"),
    "tuple key": (b"\x80\x02}K\x01K\x02\x86Ns.", "it has a dict whose keys are tuples, expected texts or numbers"),
    "tuple keys": (b"\x80\x02}(K\x01K\x02\x86Nu.", "it has a dict whose keys are tuples"),
    "lists": (b"\x80\x02" + b"]" * 10**6 + b".", "it has 133,3.. lists, dicts or tuples in 133,3.. bytes"),
    "memo": (b"\x80\x02Nr\xff\xff\xff\x7f.", "it asks for room for 2,147,483,647 values"),
    "long text": (b"\x80\x02X\xff\xff\xff\x7fa.", "it has a text of 2,147,483,647 bytes, more than the file"),
    "long name": (b"\x80\x02c" + b"a" * 2000 + b"\nb\n.", "it has a name of a function of more than 1,000 characters"),
    "byte array": (in_dict(b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R"), "it calls builtins.bytearray, which no"),
    "empty tensor": (
        in_dict(b"ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85\x81"),
        "it calls torch.FloatTensor, which no",
    ),
    "no numbers": (
        in_dict(b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n)R"),
        "it calls torch._utils._rebuild_meta_tensor_no_storage, which no",
    ),
    "inner call": (
        in_dict(b"ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\nbytearray\nNJ\xff\xff\xff\x7f\x85NtR"),
        "it calls builtins.bytearray, which no tensor needs",
    ),
    "keys of a call": (
        b"\x80\x02ccollections\nOrderedDict\n](N" + b"\x85" * 12 + b"Ne\x85R.",
        "it calls collections.OrderedDict beside large tuples, which may be its keys",
    ),
    "negative": (in_dict(tensor(-1, 1)), "it has a storage of -1 values"),
    "no storage": (b"\x80\x02K\x01\x85Q.", "it names a storage in another way than torch does"),
    "operation": (b"\x80\x02I1\n.", "its pickle has operation 0x49, which tensors and plain values do not need"),
    "cut": (b"\x80\x02}(", "its pickle is damaged at byte 4"),
    "underflow": (b"\x80\x02s.", "its pickle is damaged at byte 2"),
}


@pytest.mark.parametrize("case", PICKLES)
def test_a_pickle_that_costs_more_than_its_size_is_refused_unbuilt(case: str) -> None:
    pickled, message = PICKLES[case]
    with pytest.raises(ValueError, match=message):
        scan_pickle(pickled)


def test_usual_pickles_are_read_through_to_their_end() -> None:
    ordered = OrderedDict(a=torch.zeros(3, 4).half(), b=torch.nn.Parameter(torch.ones(2)))
    for content in (ordered, {"epoch": 3, "lr": 1e-3, "names": [("wet", "dog")] * 3000, 7: None, "n": 2**70}):
        out = io.BytesIO()
        torch.save(content, out)
        with zipfile.ZipFile(out) as file:
            pickled = file.read("archive/data.pkl")
        end, storages = scan_pickle(pickled)
        assert end == len(pickled)
        assert sorted(storages.values()) == ([8, 24] if content is ordered else [])


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "claim.pt": (
        lambda f: archive(f, in_dict(tensor(10**9, 10**9)), {"0": bytes(40)}),
        r"claims 4,000,000,000 bytes, f",
    ),
    "expanded.pt": (
        lambda f: archive(f, in_dict(tensor(10, 10**9, stride=0)), {"0": bytes(40)}),
        r"its tensors claim 4.0 GB in a file of 0\.\d kB",
    ),
    "compressed.pt": (
        lambda f: archive(f, b"\x80\x02]" + b"N0" * 10**7 + b".", method=zipfile.ZIP_DEFLATED),
        r"its member x/data\.pkl is compressed, expected a file as torch\.save writes it",
    ),
    "none.pt": (
        lambda f: zipfile.ZipFile(f, "w").writestr("x/version", "3"),
        "an archive|members data.pkl|without its",
    ),
    "cut.pt": (lambda f: f.write_bytes(b"PK\x03\x04 and no more"), "it is a zip archive without its end, cut short"),
    "other.pt": (lambda f: f.write_bytes(b"words"), "no torch file starts with b'wo'"),
    "old.pt": (
        lambda f: f.write_bytes(b"".join(pickle.dumps(v, 2) for v in (1, 2, {})) + in_dict(tensor(10**9, 1))),
        r"its storage b'0' claims 4,000,000,000 bytes, found \d+",
    ),
    "old storages.pt": (
        lambda f: f.write_bytes(
            b"".join(pickle.dumps(v, 2) for v in (1, 2, {}))
            + in_dict(tensor(250, 1)).replace(b"s.", b"s" + text("b") + tensor(250, 1, key="1") + b"s.")
            + bytes(800)
        ),
        r"its storages have 2\.0 kB, more than the file",
    ),
    "number.pt": (lambda f: torch.save({3: torch.zeros(1)}, f), "it has the key 3, expected names"),
    "name.pt": (lambda f: torch.save({"a" * 10**6: torch.zeros(1)}, f), "a tensor with a name of 1,000,000 characters"),
    "sparse.pt": (lambda f: torch.save({"a": torch.eye(3).to_sparse()}, f), "_rebuild_sparse_tensor, which no tensor"),
    "pipe.pt": (os.mkfifo, "it is a pipe, expected a regular file"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_weights_that_costs_more_than_its_size_is_refused(tmp_path: Path, name: str) -> None:
    make, message = FILES[name]
    make(tmp_path / name)
    with pytest.raises(ConfigError, match=rf"{name} is not a readable weight file \(.*\): .*{message}"):
        read_tensors(tmp_path / name)


def test_members_that_occur_twice_or_overlap_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        file.writestr("x/data.pkl", TWICE)
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("x/data.pkl", TWICE)
    with pytest.raises(ValueError, match=r"its member x/data\.pkl occurs twice"):
        load_plain(tmp_path / "a.pt")
    archive(tmp_path / "b.pt", TWICE, {"0": bytes(999)})
    content = (tmp_path / "b.pt").read_bytes()
    directory = content.index(b"PK\x01\x02")
    claimed = content[directory:].replace(struct.pack("<II", 999, 999), struct.pack("<II", 9999, 9999))
    (tmp_path / "b.pt").write_bytes(content[:directory] + claimed)
    with pytest.raises(ValueError, match="its members have 10 kB, more than the file"):
        load_plain(tmp_path / "b.pt")


def clip_of(width: int) -> dict[str, Tensor]:
    """Return vectors that claim a CLIP of some width."""
    names = ("transformer.resblocks.0.ln_1.weight", "visual.transformer.resblocks.0.ln_1.weight", "ln_final.weight")
    return {name: torch.zeros(width, dtype=torch.int8) for name in (*names, "visual.class_embedding")}


def entries(**parts: Any) -> list[dict[str, Any]]:
    return [{"image": "a", "attr": "b", "obj": "c", "set": "train", **parts}]


CHILD = """
import json, resource, sys, time
from pathlib import Path
from czslkit import PairSpace
from czslkit.backbones.weight_files import model_of_file
from czslkit.data.metadata import read_metadata
from czslkit.evaluation.score_file import open_scores
from czslkit.feasibility_files import read_feasibility
from czslkit.checkpoints.trained import TrainedMethod
import open_clip, torch
space = PairSpace(("wet",), ("dog",), torch.tensor([[0, 0]]), torch.tensor([True]))
readers = {"weights": model_of_file, "metadata": read_metadata, "scores": open_scores, "trained": TrainedMethod.read,
           "feasibility": lambda file: read_feasibility(file, space)}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for file in sorted(Path(sys.argv[1]).iterdir()):
    before, started = peak(), time.process_time()
    try:
        readers[file.name.split("-")[0]](file)
        found = "it was read"
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    print(json.dumps([file.name, found, time.process_time() - started, peak() - before]))
"""


def test_every_reader_refuses_a_hostile_file_in_a_second_and_300_mb(tmp_path: Path) -> None:
    home = tmp_path / "files"
    home.mkdir()
    save_file(clip_of(32_768), home / "weights-wide.safetensors")
    torch.save(clip_of(32_768), home / "weights-wide.pt")
    empty = {"visual.conv1.weight": torch.zeros(32_768, 0, 14, 14), "ln_final.weight": torch.zeros(0)}
    blocks = dict.fromkeys(("transformer.resblocks.999999.x", "visual.transformer.resblocks.0.x"), torch.zeros(1))
    save_file({name: value.clone() for name, value in (empty | blocks).items()}, home / "weights-blocks.safetensors")
    archive(home / "weights-shared.pt", in_dict(tensor(10, 10**9, stride=0)), {"0": bytes(40)})
    archive(home / "metadata-key.t7", PICKLES["doubled key"][0])
    archive(home / "metadata-tuples.t7", PICKLES["tuples"][0])
    archive(home / "metadata-lists.t7", b"\x80\x02]" + b"]" * 10**7 + b"a" * 10**7 + b".")
    archive(home / "metadata-deep.t7", b"\x80\x02]" + b"]" * 90_000 + b"a" * 90_000 + b".")
    torch.save(entries(set="x" * 10**7), home / "metadata-text.t7")
    archive(home / "feasibility-key.pt", PICKLES["doubled key"][0])
    np.save(home / "feasibility-large.npy", np.zeros(1, np.float32))
    with (home / "feasibility-large.npy").open("r+b") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**33,)})
        file.truncate(2**35 + 128)
    np.savez_compressed(home / "scores-zeros.npz", scores=np.zeros((1 << 24, 2), np.float16))
    (home / "trained-deep").mkdir()
    (home / "trained-deep" / "method.json").write_bytes(b"[" * 10**6)
    (home / "trained-digits").mkdir()
    (home / "trained-digits" / "method.json").write_bytes(b'{"format": 1' + b"0" * 4000 + b"}")
    done = subprocess.run([sys.executable, "-c", CHILD, str(home)], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, *_ in lines] == sorted(file.name for file in home.iterdir())
    wrong = [line for line in lines if not line[1].startswith(("ConfigError", "DataError")) or "\n" in line[1]]
    wrong += [line for line in lines if line[2] > 2 or line[3] > 300 or len(line[1]) > 1000]
    assert not wrong
    messages = {name: message for name, message, *_ in lines}
    assert "a CLIP of width 32768 and 32768 has 2" in messages["weights-wide.pt"]
    assert "it has block 999,999, but only 4 tensors" in messages["weights-blocks.safetensors"]
