from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import nn

from czslkit import torchscript
from czslkit.backbones import load_backbone
from czslkit.errors import ConfigError
from czslkit.torchscript import STORAGES
from czslkit.weights import read_tensors

script = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
same = partial(torch.testing.assert_close, rtol=0, atol=0)  # of dicts, types and shapes included


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.register_buffer("count", torch.arange(5))
        self.register_buffer("empty", torch.empty(0, 3))
        self.sizes, self.names, self.where, self.none = [1, 2], {"a": "b"}, torch.device("cpu"), None

    def forward(self, x):
        return self.linear(x) * self.sizes[0]


class Outer(nn.Module):
    """A module with submodules of three kinds, and with half, transposed, shared, sliced and expanded tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.blocks = Inner(), nn.Sequential(nn.Linear(3, 3).half(), nn.ReLU(), nn.Linear(3, 3).bfloat16())
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.turned = nn.Parameter(torch.randn(4, 3).T)
        self.tied = self.inner.linear.weight
        self.rows = nn.Parameter(torch.randn(10, 3)[2:4])
        self.same = nn.Parameter(torch.randn(1, 3).expand(5, 3))

    def forward(self, x):
        return self.inner(x) * self.scale


def tree(tensors: dict[str, torch.Tensor]) -> nn.Module:
    """Return a module without a function that holds ``tensors`` under their names, integers as buffers."""
    root = nn.Identity()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Identity())
            module = getattr(module, part)
        if tensor.is_floating_point():
            module.register_parameter(last, nn.Parameter(tensor))
        else:
            module.register_buffer(last, tensor)
    return root


@script
@pytest.mark.parametrize("compile_", [torch.jit.script, lambda m: torch.jit.trace(m, torch.ones(2, 3))])
def test_torchscript_reads_as_torch_itself_does(tmp_path, compile_):
    torch.jit.save(compile_(Outer()), tmp_path / "outer.pt")
    found = read_tensors(tmp_path / "outer.pt")
    same(found, torch.jit.load(tmp_path / "outer.pt").state_dict())
    (tmp_path / "outer.pt").unlink()
    found["rows"].zero_()  # nothing is left that hangs on the file
    assert found["inner.linear.weight"].data_ptr() == found["tied"].data_ptr()


@script
def test_every_kind_of_number_is_read(tmp_path):
    module = nn.Identity()
    for name, dtype in STORAGES.items():
        module.register_buffer(name, torch.tensor([[1, 0, 1]]).to(dtype))
    torch.jit.save(torch.jit.trace(module, torch.ones(1)), tmp_path / "kinds.pt")
    found = read_tensors(tmp_path / "kinds.pt")
    assert {name: tensor.dtype for name, tensor in found.items()} == STORAGES
    same(found, torch.jit.load(tmp_path / "kinds.pt").state_dict())


@script
def test_the_program_is_never_read(tmp_path):
    torch.jit.save(torch.jit.script(Outer()), tmp_path / "outer.pt")
    with zipfile.ZipFile(tmp_path / "outer.pt") as whole, zipfile.ZipFile(tmp_path / "bare.pt", "w") as bare:
        for name in whole.namelist():
            bare.writestr(name, "not a program" if "/code/" in name else whole.read(name))
    same(read_tensors(tmp_path / "bare.pt"), read_tensors(tmp_path / "outer.pt"))


@script
@torch.no_grad()
def test_a_clip_in_torchscript_is_the_clip_of_its_tensors(tmp_path, openai_state, images):
    state = openai_state(depth=2)
    state = {name: tensor.half() if tensor.ndim else tensor for name, tensor in state.items()}  # as OpenAI's are
    notes = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    module = tree(state | {name: torch.tensor(number) for name, number in notes.items()})
    torch.jit.save(torch.jit.trace(module, torch.ones(1)), tmp_path / "script.pt")
    torch.save(state, tmp_path / "plain.pt")
    found, expected = (load_backbone(str(tmp_path / f"{name}.pt")).eval() for name in ("script", "plain"))
    assert found.scale.dtype == found.clip.visual.proj.dtype == torch.float32
    assert torch.equal(found.encode_image(images).pooled, expected.encode_image(images).pooled)
    assert torch.equal(found.encode_sentences(["wet dog"]), expected.encode_sentences(["wet dog"]))


@script
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_a_truncated_archive_is_refused(tmp_path, keep):
    torch.jit.save(torch.jit.script(Outer()), tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(ConfigError, match=r"w\.pt is not a .*: it is a zip archive without its end, cut short$"):
        read_tensors(tmp_path / "w.pt")


class Hostile:
    """An object that creates a file when it is unpickled."""

    def __init__(self, file) -> None:
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def archive(path, pickled: bytes, numbers: bytes = bytes(range(48)), byteorder: str = "little"):
    """Write a zip file with the folders of a TorchScript archive."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("w/data.pkl", pickled)
        file.writestr("w/constants.pkl", b"\x80\x02).")
        file.writestr("w/byteorder", byteorder)
        file.writestr("w/data/0", numbers)
    return path


@pytest.mark.parametrize("kind", ["torch", "legacy", "TorchScript"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, kind):
    hostile = {"a": Hostile(tmp_path / "ran")}
    file = tmp_path / "w.pt"
    if kind == "TorchScript":
        archive(file, pickle.dumps(hostile, protocol=2))
    else:
        torch.save(hostile, file, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(ConfigError, match=r"w\.pt is not a readable weight file .*io\.open"):
        read_tensors(file)
    assert not (tmp_path / "ran").exists()
    if kind == "TorchScript":  # the same bytes do harm where nobody looks
        pickle.loads(pickle.dumps(hostile, protocol=2))["a"].close()
        assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"cos\nsystem\n(X\x04\x00\x00\x00truetR.", r"it asks for os\.system, which no tensor needs$"),
        (b"cbuiltins\neval\n.", r"it asks for builtins\.eval,"),
        (b"ctorch\nload\n.", r"it asks for torch\.load,"),
        (b"ctorch.jit._pickle\nbuild_tensor_from_id\n.", r"it asks for torch\.jit\._pickle\.build_tensor_from_id,"),
        (b"ctorch._utils\n_rebuild_qtensor\n.", r"it asks for torch\._utils\._rebuild_qtensor,"),
        (b"c__torch__x\nA\n.", r"it asks for __torch__x\.A,"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"its pickle has operation 0x8c, which tensors and plain"),
        (b"cbuiltins\ngetattr\n.", r"it asks for builtins\.getattr,"),
        (b"\x80\x02}.", r"it contains a dict, not a module$"),
        (b"c__torch__\nA\n.", r"it contains a type, not a module$"),
        (
            b"(X\x01\x00\x00\x00aX\x01\x00\x00\x00bX\x01\x00\x00\x00ctQ.",
            "it names a storage in another way than torch",
        ),
        (b"\x80\x02c__torch__\nA\n)\x81", r"\S"),  # it ends too soon
    ],
)
def test_what_no_tensor_needs_is_refused_by_name(tmp_path, pickled, message):
    with pytest.raises(ConfigError, match=r"w\.pt is not a readable weight file .*: " + message):
        read_tensors(archive(tmp_path / "w.pt", pickled))


def test_a_pickle_changes_nothing_that_outlives_it(tmp_path):
    for target in (b"c__torch__\nA\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n"):
        pickled = target + b"(N}X\x04\x00\x00\x00evilK\x01stb."  # sets .evil
        with pytest.raises(ConfigError):
            read_tensors(archive(tmp_path / "w.pt", pickled))
    live = (
        *(torchscript.ArchiveModule, torchscript.ArchiveUnpickler, torchscript.StorageKey, torchscript.StorageView),
        *(OrderedDict, list, str),
    )
    assert not any(hasattr(thing, "evil") for thing in live)


class Numbers:
    """A view of storage 0 that is pickled as in TorchScript."""

    def __init__(self, *view) -> None:
        self.view = view

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (0.5, *self.view, False, OrderedDict())


@pytest.fixture
def view_file(tmp_path, monkeypatch):
    """Return a function that writes an archive of one module, whose ``weight`` is a view of 12 floats.

    In the pickled view, 0.5 stands for the storage.
    """
    module = type("A", (), {"__module__": "__torch__", "__qualname__": "A"})
    monkeypatch.setitem(sys.modules, "__torch__", types.SimpleNamespace(A=module))

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cuda:0", 12) if value == 0.5 else None

    def write(*view, **options):
        holder, pickled = module(), io.BytesIO()
        holder.weight = Numbers(*view)
        Pickler(pickled, protocol=2).dump(holder)
        return archive(tmp_path / "w.pt", pickled.getvalue(), **options)

    return write


def test_a_view_within_its_storage_is_read(view_file):
    file = view_file(2, (2, 3), (5, 1), numbers=torch.arange(12.0).numpy().tobytes())
    assert read_tensors(file)["weight"].tolist() == [[2, 3, 4], [7, 8, 9]]


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ((0, (13,), (1,)), "weight reads number 12 of a storage of 12"),
        ((1, (3, 4), (4, 1)), "weight reads number 12 of a storage of 12"),
        ((0, (3, 4), (5, 1)), "weight reads number 13 of a storage of 12"),
        ((12, (), ()), "weight reads number 12 of a storage of 12"),
        ((0, (2**40, 2**40), (2**40, 1)), r"weight reads number \d+ of a storage of 12"),
        ((-1, (2,), (1,)), r"weight has size \(2,\), stride \(1,\) and offset -1"),
        ((11, (2,), (-1,)), r"weight has size \(2,\), stride \(-1,\) and offset 11"),
        ((0, (-1,), (1,)), r"weight has size \(-1,\), stride \(1,\) and offset 0"),
        ((0, (2, 2), (1,)), r"weight has size \(2, 2\), stride \(1,\) and offset 0"),
        ((0, ("2",), (1,)), r"weight has size \('2',\), stride \(1,\) and offset 0"),
        ((0, None, (1,)), r"object of type 'NoneType' has no len\(\)"),
    ],
)
def test_a_view_past_its_storage_is_refused(view_file, view, message):
    with pytest.raises(ConfigError, match=rf"w\.pt is not a readable weight file .*: {message}$"):
        read_tensors(view_file(*view))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numbers": bytes(20)}, "weight reads number 11 of a storage of 5"),
        ({"numbers": bytes(47)}, r"storage 0 has 47 bytes, no whole number of torch\.float32"),
        ({"byteorder": "big"}, "its numbers are big-endian, this machine is little"),
    ],
)
def test_numbers_that_are_not_what_was_announced_are_refused(view_file, options, message):
    with pytest.raises(ConfigError, match=message):
        read_tensors(view_file(0, (3, 4), (4, 1), **options))


def test_damaged_numbers_are_refused(view_file):
    file = view_file(0, (3, 4), (4, 1))
    whole = file.read_bytes()
    assert whole.count(bytes(range(48))) == 1
    file.write_bytes(whole.replace(bytes(range(48)), bytes(range(1, 49))))
    with pytest.raises(ConfigError, match=r"Bad CRC-32 for file 'w/data/0'"):
        read_tensors(file)


def test_a_view_that_repeats_its_numbers_without_end_is_refused(view_file):
    file = view_file(0, (10**9,), (0,), numbers=bytes(48))
    with pytest.raises(ConfigError, match=r"its tensors claim 4\.0 GB in a file of \d\.\d kB"):
        read_tensors(file)


def test_modules_that_share_modules_are_visited_a_bounded_number_of_times(tmp_path):
    pickled = b"\x80\x02c__torch__\nA\nq\x00)\x81q\x01"
    for number in range(1, 40):  # each module holds the one before twice
        names = [b"X\x01\x00\x00\x00" + name + b"h" + bytes([number]) for name in (b"a", b"b")]
        pickled += b"h\x00)\x81q" + bytes([number + 1]) + b"}(" + b"".join(names) + b"ub"
    with pytest.raises(ConfigError, match="it has more than 100,000 modules"):
        read_tensors(archive(tmp_path / "w.pt", pickled + b"."))
