"""Exported programs give the scores of PyTorch, or there is no file and a reason."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import czslkit
from czslkit import export
from czslkit.checkpoints.trained import save
from czslkit.cli import main
from czslkit.errors import ConfigError, CzslkitError
from czslkit.export import DESCRIPTION, export_method
from czslkit.method import METHODS, Method

PAGE = Path(__file__).parents[1] / "docs" / "export.md"
#: Methods that cannot be exported, with the reason; every other one can.
REFUSED = {"tomcat": "adapts to the images that it has seen"}


def built(name: str, **options: Any) -> Method:
    torch.manual_seed(0)
    space = czslkit.PairSpace(
        ("dry", "wet"), ("cat", "dog"), torch.tensor([[0, 0], [0, 1], [1, 1]]), torch.tensor([True, False, True])
    )
    return czslkit.build(name, space, **{"backbone": "demo", **options}).eval()


@pytest.fixture(scope="module")
def csp() -> Method:
    return built("csp")


def pixels(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(9))


def scores(method: Method, images: torch.Tensor, pairs: torch.Tensor, columns: int) -> torch.Tensor:
    with torch.no_grad():
        return method.rank(images, method.text(pairs), czslkit.Setting("test", "closed", columns))


def loaded(file: Path, format: str) -> tuple[Any, dict[str, Any]]:
    """Return the program and the description of a file, read as the page tells."""
    extra: dict[str, Any] = {DESCRIPTION: ""}
    if format == "pt2":
        program: Any = torch.export.load(io.BytesIO(file.read_bytes()), extra_files=extra).module()
    else:
        program = torch.jit.load(str(file), _extra_files=extra)
    return program, json.loads(extra[DESCRIPTION])


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.* is deprecated:FutureWarning", "ignore:`torch.jit.* is deprecated:DeprecationWarning"
)
@pytest.mark.parametrize("format", ["torchscript", "pt2"])  # the code of the page reads ONNX
def test_another_program_computes_the_scores_of_the_pairs_in_the_description(csp, format, tmp_path):
    made = export_method(csp, tmp_path / "csp", format)
    program, description = loaded(made.file, format)
    assert description == made.description
    expected = scores(csp, pixels(), csp.space.pairs, 3)
    torch.testing.assert_close(program(pixels()), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(program(pixels(1)), scores(csp, pixels(1), csp.space.pairs, 3), rtol=1e-4, atol=1e-4)
    assert description["pairs"] == [["dry", "cat"], ["dry", "dog"], ["wet", "dog"]]
    assert description["seen"] == [True, False, True]
    assert description["input"]["shape"] == ["batch", 3, 64, 64]
    assert description["input"]["preprocessing"]["mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert made.difference < 1e-3


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_is_exported_or_refused_with_its_reason(name, tmp_path):
    file = tmp_path / "program"
    if reason := REFUSED.get(name):
        with pytest.raises(CzslkitError, match=reason):
            export_method(built(name), file, "torchscript")
        assert not list(tmp_path.iterdir())
        return
    assert export_method(built(name), file, "torchscript").file.stat().st_size


def test_a_method_with_graph_features_becomes_a_graph_of_torch_export(tmp_path):
    assert export_method(built("cge"), tmp_path / "program", "pt2").difference < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "pt2"])
@pytest.mark.parametrize("name", sorted({*METHODS} - REFUSED.keys()))
def test_every_method_is_exported_in_every_format(name, format, tmp_path):
    assert export_method(built(name), tmp_path / "program", format).file.stat().st_size


def test_the_inductive_form_of_a_method_that_adapts_is_exported(tmp_path):
    assert export_method(built("tomcat", adapt=False), tmp_path / "program", "torchscript").file.is_file()


def test_a_method_that_mixes_the_images_of_a_batch_is_refused(tmp_path):
    with pytest.raises(CzslkitError, match="dfsp-i2t cannot be exported: it mixes the images of a batch"):
        export_method(built("dfsp-i2t", batch_mixing="original"), tmp_path / "program", "pt2")


def test_the_method_and_its_pairs_are_not_changed(csp, tmp_path):
    before = {name: value.clone() for name, value in csp.state_dict().items()}
    pairs, trains = csp.space.pairs.clone(), [p.requires_grad for p in csp.parameters()]
    export_method(csp, tmp_path / "program", "torchscript")
    assert all(torch.equal(value, before[name]) for name, value in csp.state_dict().items())
    assert torch.equal(csp.space.pairs, pairs)
    assert [p.requires_grad for p in csp.parameters()] == trains


def test_the_file_has_no_text_tower(csp, tmp_path):
    whole = sum(p.nbytes for p in csp.parameters())
    assert export_method(csp, tmp_path / "program", "torchscript").file.stat().st_size < whole / 2


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.* is deprecated:FutureWarning", "ignore:`torch.jit.* is deprecated:DeprecationWarning"
)
@pytest.mark.parametrize(("name", "options"), [("csp", {}), ("tomcat", {"adapt": False})])
def test_named_pairs_have_the_scores_of_a_prediction(name, options, tmp_path):
    method = built(name, **options)
    assert method.chunkable == (name == "csp")  # the other one scores all pairs
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    made = export_method(method, tmp_path / "program", "torchscript", "wet cat,dry dog")
    description = made.description
    mean, std = (torch.tensor(description["input"]["preprocessing"][key])[:, None, None] for key in ("mean", "std"))
    images = ((torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255 - mean) / std)[None]
    program, _ = loaded(made.file, "torchscript")
    found = dict(zip(map(tuple, description["pairs"]), program(images)[0].tolist(), strict=True))
    (expected,) = method.predict(photo, "wet cat,dry dog", bias=0.0)
    assert found == pytest.approx({(pair.attr, pair.obj): pair.score for pair in expected.pairs}, abs=1e-4)


def test_products_of_onednn_stay_out_of_the_file(csp, tmp_path, monkeypatch):
    from czslkit import linear

    if not linear._ONEDNN:
        pytest.skip("needs a CPU with AVX-512 and torch with oneDNN")
    monkeypatch.setattr(linear, "LEAST_CHANNELS", 1)
    export_method(csp, tmp_path / "program", "pt2")
    program = torch.export.load(io.BytesIO((tmp_path / "program").read_bytes()))
    assert not [node for node in program.graph.nodes if "czslkit" in str(node.target)]
    assert linear._ONEDNN


class Deciding(torch.nn.Module):
    """A head that decides on the host by the values of scores."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    def forward(self, image: Any, text: Any) -> Any:
        return self.head(image, text)

    def rank(self, scores: Any, pairs: Any, setting: Any) -> Any:
        return scores.pair if scores.pair.sum() > 1e9 else scores.pair.flip(1)


def test_a_method_that_decides_by_values_is_refused_with_what_to_change(tmp_path, capfd):
    method = built("csp")
    method.head = Deciding(method.head)
    with pytest.raises(CzslkitError, match=r"csp cannot be exported as pt2: .* no Python decisions by their values"):
        export_method(method, tmp_path / "program", "pt2")
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_batch_size_that_was_fixed_is_found_when_the_file_is_run(tmp_path):
    method = built("csp")
    method.head.rank = lambda scores, pairs, setting: scores.pair + torch.zeros(len(scores.pair), 1)
    with pytest.raises(CzslkitError, match=r"csp: the exported torchscript program does not run: .* x\.shape\[0\]"):
        export_method(method, tmp_path / "program", "torchscript")
    assert not list(tmp_path.iterdir())


def test_a_file_whose_scores_differ_is_removed(csp, tmp_path, monkeypatch):
    def wrong(file: Path) -> Any:
        return lambda images: torch.jit.load(str(file))(images) * 1.001

    monkeypatch.setitem(export._READERS, "torchscript", wrong)
    (tmp_path / "program").write_text("an earlier file")
    with pytest.raises(
        CzslkitError, match=r"csp as torchscript: a score differs from PyTorch's by .* expected at most"
    ):
        export_method(csp, tmp_path / "program", "torchscript")
    assert (tmp_path / "program").read_text() == "an earlier file"
    assert len(list(tmp_path.iterdir())) == 1


def test_scores_of_another_shape_are_refused(csp, tmp_path, monkeypatch):
    monkeypatch.setitem(export._READERS, "torchscript", lambda file: lambda images: torch.zeros(len(images), 7))
    with pytest.raises(CzslkitError, match=r"scores of shape \[1, 7\], PyTorch's have \[1, 3\]"):
        export_method(csp, tmp_path / "program", "torchscript")


def test_a_missing_package_is_named_with_the_extra(csp, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r'needs onnxscript .*pip install "czslkit\[onnx\]"'):
        export_method(csp, tmp_path / "program", "onnx")


def test_a_method_that_is_too_large_for_onnx_is_refused(csp, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_ONNX_LIMIT", 1000)
    with pytest.raises(ConfigError, match=r"csp needs .*, but an ONNX file holds at most 2 GB: use the format pt2"):
        export_method(csp, tmp_path / "program", "onnx")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "tflite"}, "format is 'tflite', expected onnx, torchscript, pt2"),
        ({"format": "pt2", "world": "new"}, "world is 'new', expected closed or open"),
        ({"format": "pt2", "pairs": "wet cow"}, "no object named 'cow'"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(csp, tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        export_method(csp, tmp_path / "program", **arguments)


def test_a_method_on_the_hub_can_be_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "hf:USER/NAME" in capsys.readouterr().out
    assert main(["export", "hf:ann", "--format", "pt2", "--out", str(tmp_path / "csp.pt2")]) == 2
    assert "hf:ann names no repository of the hub" in capsys.readouterr().err


def test_the_commands_and_the_code_of_the_page_run(csp, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save("runs/mine/csp/seed0-3f2a91bc", "csp", csp, {"backbone": "demo"})
    Image.new("RGB", (80, 70), "red").save("photo.jpg")
    text = PAGE.read_text(encoding="utf-8")
    for line in re.findall(r"^czslkit .*$", text, re.MULTILINE):
        assert main(shlex.split(line.partition("  #")[0])[1:]) == 0, line
    assert "scores [batch, 3]" in capsys.readouterr().out
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, {})
    (line,) = capsys.readouterr().out.splitlines()[-1:]
    (best,) = csp.predict("photo.jpg", top=1, bias=0.0)
    assert line.split()[:2] == [best.pairs[0].attr, best.pairs[0].obj]
    assert onnx.load("csp.onnx").graph.input[0].name == "images"
