from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import czslkit
from czslkit.backbones import load_backbone
from czslkit.data.make.mini import write_mini
from czslkit.data.splits import Splits
from czslkit.errors import ConfigError, DataError
from czslkit.evaluation.feasibility_source import (
    FeasibilityScores,
    clip_feasibility,
    load_feasibility,
    source_file,
)
from czslkit.feasibility_files import (
    published_files,
    read_feasibility,
    read_feasibility_vector,
    word_feasibility,
)
from czslkit.types import PairSpace
from czslkit.word_vectors import word_vectors

SPACE = PairSpace(("dry", "wet"), ("cat", "dog", "owl"), torch.tensor([[0, 0], [1, 1]]), torch.tensor([True, True]))
VALUES = torch.tensor([0.0, 0.5, -0.25, 1.0, 0.0, -1.0])


@pytest.fixture(scope="module")
def cgqa(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    root = tmp_path_factory.mktemp("data")
    write_mini("cgqa", root)
    return czslkit.load_dataset("cgqa", root)


def lines(file: Path, vectors: dict[str, Any]) -> Path:
    file.write_text("".join(f"{word} {' '.join(map(str, vector))}\n" for word, vector in vectors.items()))
    return file


WRITTEN: dict[str, Callable[[Path], Any]] = {
    "tensor.pt": functools.partial(torch.save, VALUES),
    "double.pt": functools.partial(torch.save, VALUES.double()),
    "published.pt": functools.partial(torch.save, {"feasibility": VALUES, "thresholds": torch.zeros(50)}),
    "other.pt": functools.partial(torch.save, {"scores": VALUES, "made": "by hand"}),
    "array.npy": lambda file: np.save(file, VALUES.double().numpy()),
    "tensors.safetensors": lambda file: save_file({"feasibility": VALUES}, file),
    "TENSOR.PT": functools.partial(torch.save, VALUES),
    "TENSORS.SAFETENSORS": lambda file: save_file({"feasibility": VALUES}, file),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_vector_is_the_same_in_every_format(tmp_path: Path, name: str) -> None:
    WRITTEN[name](tmp_path / name)
    found = read_feasibility_vector(tmp_path / name, SPACE)
    assert found.dtype == torch.float32
    assert torch.equal(found, VALUES)
    assert torch.equal(read_feasibility(tmp_path / name, SPACE), VALUES)
    assert FeasibilityScores(found, name).digest == hashlib.sha256(struct.pack("<6f", *VALUES.tolist())).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (VALUES[:5], r"holds float32 \[5\], expected floats \[6\]: one for each of 2 attributes x 3 objects"),
        (VALUES.reshape(2, 3), r"holds float32 \[2, 3\], expected floats \[6\]"),
        (VALUES.long(), r"holds int64 \[6\], expected floats \[6\]"),
        (VALUES + torch.tensor([0, 0, 0, torch.nan, 0, 0]), r"number 3 \(wet cat\) is nan, expected -1 to 1"),
        (VALUES * 1.5, r"number 3 \(wet cat\) is 1\.5, expected -1 to 1"),
        (VALUES - torch.inf, r"number 0 \(dry cat\) is -inf, expected -1 to 1"),
        ({"a": VALUES, "b": VALUES}, "holds tensors a, b, expected one tensor, or one named feasibility"),
        ({"a": 1}, "holds no tensor, expected one tensor, or one named feasibility"),
        ([VALUES], "holds a list, expected a tensor, or a dict with one"),
        (Path("x"), "is refused, and nothing in it was run: UnpicklingError"),
    ],
)
def test_what_is_not_a_vector_for_the_dataset_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "feasibility_pets.pt"
    torch.save(content, file)
    with pytest.raises(DataError, match=f"^{file}:? {message}"):
        read_feasibility_vector(file, SPACE)


@pytest.mark.parametrize("suffix", [".pt", ".npy", ".safetensors"])
def test_a_damaged_vector_is_refused(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"x{suffix}"
    file.write_bytes(b"12345678 not one")
    with pytest.raises(DataError, match=f"^{file} is refused, and nothing in it was run"):
        read_feasibility_vector(file, SPACE)


def test_numpy_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(
        DataError, match="nothing in it was run: ValueError: Array can't be memory-mapped: Python objects"
    ):
        read_feasibility_vector(tmp_path / "x.npy", SPACE)


def test_cosines_may_be_a_rounding_error_beyond_one(tmp_path: Path) -> None:
    torch.save(VALUES * (1 + 1e-6), tmp_path / "x.pt")
    assert float(read_feasibility_vector(tmp_path / "x.pt", SPACE).max()) > 1


def test_the_published_file_is_looked_for_in_the_folder_then_next_to_it(cgqa: Splits, tmp_path: Path) -> None:
    home = tmp_path / "cgqa"
    home.mkdir()
    expected = [
        folder / f"feasibility_cgqa{end}" for folder in (home, tmp_path) for end in (".pt", ".npy", ".safetensors")
    ]
    assert list(published_files("cgqa", home)) == expected
    data = Splits(**{**vars(cgqa), "root": home})
    for file in reversed(expected):
        assert source_file("file", data) != file
        file.touch()
        assert source_file("file", data) == file
    assert source_file("clip", data) is None
    assert source_file("~/x.npy", data) == Path.home() / "x.npy"


def test_every_source_gives_its_scores(cgqa: Splits, tmp_path: Path) -> None:
    backbone = load_backbone("demo")
    data = Splits(**{**vars(cgqa), "root": tmp_path / "cgqa"})
    assert load_feasibility("file", data, backbone) is None
    values = torch.linspace(-1, 1, 48)
    torch.save({"feasibility": values}, tmp_path / "feasibility_cgqa.pt")
    for source, name in (("file", "feasibility_cgqa.pt"), *[(str(tmp_path / "feasibility_cgqa.pt"),) * 2]):
        found = load_feasibility(source, data, backbone)
        assert found is not None and torch.equal(found.values, values) and found.source == name
    found = load_feasibility("clip", data, backbone)
    assert found is not None and torch.equal(found.values, clip_feasibility(backbone, data.space).values)
    words = (
        "black white brown leafy metal striped wet wooden woven bench dry erase board tower fence teddy bear trashcan"
    )
    random = np.random.default_rng(0)
    glove = lines(tmp_path / "glove.txt", {word: random.normal(size=5) for word in words.split()})
    found = load_feasibility(str(glove), data, backbone)
    assert found is not None and torch.equal(found.values, word_feasibility(data.space, glove))
    assert found.source == str(glove)


def test_a_label_of_several_words_has_their_mean(tmp_path: Path) -> None:
    vectors = {"fake": [1.0, 0.0], "fur": [0.0, 1.0], "wet": [3.0, 4.0], "sneakers": [5.0, 6.0], "tower": [7.0, 8.0]}
    names = ("Wet", "Faux.Fur", "wet_fur", "Shoes.Sneakers.and.Athletic.Shoes", "eiffel_tower")
    found = word_vectors(lines(tmp_path / "glove.txt", vectors), names)
    assert found.tolist() == [[3, 4], [0.5, 0.5], [1.5, 2.5], [5, 6], [7, 8]]


def drawn(*words: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {word: random.normal(size=4).astype(np.float32) for word in words}


def test_word_vectors_give_the_same_from_every_source(tmp_path: Path) -> None:
    vectors = drawn("dry", "wet", "cat", "dog", "owl", "feasibility")
    attrs, objs = (np.stack([vectors[name] for name in names]) for names in (SPACE.attrs, SPACE.objs))
    expected = czslkit.feasibility(SPACE, attrs, objs)
    glove, tensors = lines(tmp_path / "glove.txt", vectors), tmp_path / "glove.safetensors"
    save_file({word: torch.tensor(vector) for word, vector in vectors.items()}, tensors)
    trained = {word: torch.tensor(vector, requires_grad=True) for word, vector in vectors.items()}
    sources: list[Any] = [glove, str(glove), tensors, vectors.get, vectors.__getitem__, trained.__getitem__]
    for source in sources:
        assert torch.allclose(czslkit.word_feasibility(SPACE, source), expected, atol=1e-6)
    capitals = tensors.rename(tmp_path / "GLOVE.SAFETENSORS")
    assert torch.allclose(czslkit.word_feasibility(SPACE, capitals), expected, atol=1e-6)
    for file in (glove, capitals):
        assert torch.allclose(read_feasibility(file, SPACE), expected, atol=1e-6)


def test_safetensors_of_labels_hold_word_vectors_and_others_the_feasibility(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    for held in ({"feasibility": VALUES, "thresholds": torch.zeros(50)}, {"feasibility": VALUES}, {"dry": VALUES}):
        save_file(held, file)
        assert torch.equal(read_feasibility(file, SPACE), VALUES)
    words = {word: torch.tensor(vector) for word, vector in drawn("dry", "wet", "cat", "dog").items()}
    save_file(words, file)  # a word is lacking, but these are words
    with pytest.raises(DataError, match=r"x\.safetensors has no vector for owl \(owl\); expected a tensor named like"):
        read_feasibility(file, SPACE)
    save_file({"un": VALUES, "deux": VALUES.clone()}, file)
    with pytest.raises(
        DataError,
        match=r"deux, un, expected one tensor, or one named feasibility, or one tensor for each word of the labels",
    ):
        read_feasibility(file, SPACE)
    file.write_bytes(b"12345678 not one")
    for read in (read_feasibility, lambda file, space: word_feasibility(space, file)):
        with pytest.raises(DataError, match=f"^{file} is refused, and nothing in it was run"):
            read(file, SPACE)


def test_a_label_called_feasibility_is_not_mistaken(tmp_path: Path) -> None:
    space = PairSpace(("dry", "wet"), ("feasibility",), torch.tensor([[0, 0]]), torch.tensor([True]))
    save_file({"feasibility": VALUES[:2], "thresholds": torch.zeros(2)}, tmp_path / "values.safetensors")
    assert torch.equal(read_feasibility(tmp_path / "values.safetensors", space), VALUES[:2])
    vectors = drawn("dry", "wet", "feasibility")
    save_file({word: torch.tensor(vector) for word, vector in vectors.items()}, tmp_path / "words.safetensors")
    found = read_feasibility(tmp_path / "words.safetensors", space)
    assert torch.allclose(found, word_feasibility(space, vectors.get), atol=1e-6)


def test_a_callable_is_asked_for_each_word_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def vector(word: str) -> list[float]:
        asked.append(word)
        return [1.0, 2.0]

    assert word_vectors(vector, ["dry-erase_board", "Dry", "Faux.Fur"]).tolist() == [[1, 2]] * 3
    assert asked == ["board", "dry", "erase", "fake", "fur"]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"dog": [1.0]}.get, r"^the callable has no vector for wet \(wet\); expected a vector for each$"),
        ({"dog": [1.0]}.__getitem__, r"^the callable has no vector for wet \(wet\)"),
        (lambda word: "one", r"^the callable gave 'one' for 'dog', expected numbers$"),
        (
            lambda word: [[1.0]],
            r"^the callable: expected a vector \[D\] for each word, found dog \[1, 1\], wet \[1, 1\]$",
        ),
        ({"dog": [1.0], "wet": [1.0, 2.0]}.get, "^the callable: the vectors have 1 or 2 numbers, expected one width$"),
        (lambda word: [np.inf], "^the callable: the vector of dog, wet is not finite$"),
    ],
)
def test_a_callable_that_gives_no_vectors_is_named(vectors: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        word_vectors(vectors, ["wet", "dog"])


def test_an_error_of_the_callable_itself_is_not_hidden() -> None:
    def fail(word: str) -> Any:
        raise ZeroDivisionError(word)

    with pytest.raises(ZeroDivisionError, match="dog"):
        word_vectors(fail, ["dog"])


def test_the_first_vector_of_a_word_counts_and_words_with_a_space_do_not(tmp_path: Path) -> None:
    file = tmp_path / "glove.txt"
    file.write_bytes(b"400000 2\nat name@domain.com 9 9\n\xff\xfe 0 0\nat 1 2\nat 3 4\n")
    assert word_vectors(file, ["at"]).tolist() == [[1, 2]]


def test_all_words_without_a_vector_are_named(tmp_path: Path) -> None:
    file = lines(tmp_path / "glove.txt", {"dry": [1.0], "board": [1.0]})
    lacking = r"dry-erase_board \(erase\), Faux\.Fur \(fake, fur\)"
    message = rf"^{file} has no vector for {lacking}; expected 'word v1 v2 \.\.\.' a line"
    with pytest.raises(DataError, match=message):
        word_vectors(file, ["dry-erase_board", "Faux.Fur", "dry"])


def test_word_vectors_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{tmp_path} cannot be read: "):
        word_vectors(tmp_path, ["wet"])
    (tmp_path / "long.txt").write_bytes(b"wet " + b"1 " * (1 << 19))
    with pytest.raises(DataError, match=r"long\.txt has a line of more than 1,048,576 bytes, expected 'word v1 v2"):
        word_vectors(tmp_path / "long.txt", ["dog"])
    with pytest.raises(DataError, match="the vectors have 2 or 3 numbers, expected one width"):
        word_vectors(lines(tmp_path / "a.txt", {"wet": [1, 2], "dog": [1, 2, 3]}), ["wet", "dog"])
    with pytest.raises(DataError, match="the vector of dog is not finite"):
        word_vectors(lines(tmp_path / "b.txt", {"wet": [1, 2], "dog": [1, "nan"]}), ["wet", "dog"])


def test_clip_compares_the_words_as_prompts() -> None:
    space = PairSpace(("Wet", "dotted"), ("heart", "star.fish"), torch.tensor([[0, 0]]), torch.tensor([True]))
    backbone = load_backbone("demo")
    assert backbone.training
    found = clip_feasibility(backbone, space)
    assert backbone.training
    prompts = ["a photo of wet", "a photo of dotted", "a photo of heart", "a photo of star fish"]
    with torch.no_grad():
        wet, dotted, heart, star = torch.nn.functional.normalize(backbone.eval().encode_sentences(prompts), dim=1)
    expected = [0.0, (heart @ star - 1) / 2, (wet @ dotted - 1) / 2, -1.0]
    assert found.values.tolist() == pytest.approx([float(value) for value in expected], abs=1e-6)
    assert found.source == "clip"


def test_clip_needs_a_text_tower_that_reads_words() -> None:
    with pytest.raises(
        ConfigError, match=r"feasibility is clip, but Timm has no text tower; set eval\.feasibility to file"
    ):
        clip_feasibility(load_backbone("timm/resnet10t/random"), SPACE)
    backbone = load_backbone("demo")

    def refuse(texts: Any) -> Any:
        raise ValueError("this CLIP was cut to 4 text positions")

    backbone.encode_sentences = refuse  # type: ignore[method-assign]
    with pytest.raises(
        ConfigError, match="feasibility is clip, but the backbone cannot read 'a photo of': this CLIP was"
    ):
        clip_feasibility(backbone, SPACE)
