from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import save_file

import czslkit
from czslkit.checkpoints.trained import TrainedMethod, load, save
from czslkit.cli import main
from czslkit.errors import ConfigError
from czslkit.json_digest import content_digest
from czslkit.runner.plan import plan
from czslkit.training_files import BACKBONE_FILE, METADATA_FILE, WEIGHTS_FILE
from czslkit.types import PairSpace
from czslkit.weights import read_tensors

OPTIONS = {"adapter_dim": 4, "low_layers": 2, "high_layers": 2, "heads": [2, 2]}


@pytest.fixture
def method(clip_file, space):
    torch.manual_seed(0)
    method = czslkit.build("msci", space, backbone=str(clip_file), **OPTIONS)
    with torch.no_grad():
        for p in method.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    return method.eval()


def scores(method, images):
    with torch.no_grad():
        return method.rank(images, method.text(method.space.pairs))


def test_a_saved_method_is_loaded_unchanged(method, clip_file, images, tmp_path):
    save(tmp_path / "a", "msci", method, {"backbone": str(clip_file), **OPTIONS}, seed=3)
    back = load(tmp_path / "a")
    assert not back.training
    assert (back.space.attrs, back.space.pairs.tolist()) == (method.space.attrs, method.space.pairs.tolist())
    assert torch.equal(scores(back, images), scores(method, images))
    assert json.loads((tmp_path / "a" / METADATA_FILE).read_text())["seed"] == 3


def test_a_folder_with_its_backbone_needs_nothing_else(method, images, tmp_path, openai_state):
    save(tmp_path / "a", "msci", method, {"backbone": "gone", **OPTIONS}, backbone=openai_state())
    (tmp_path / "a").rename(tmp_path / "b")
    assert torch.equal(scores(load(tmp_path / "b"), images), scores(method, images))


def test_free_options_may_be_chosen_when_it_is_built(method, clip_file, tmp_path):
    save(tmp_path / "a", "msci", method, {"backbone": str(clip_file), **OPTIONS})
    assert TrainedMethod.read(tmp_path / "a").build(score_weights=[1, 0, 0]).head.fusion.weights == (1, 0, 0)


@pytest.mark.parametrize("lost", [WEIGHTS_FILE, BACKBONE_FILE])
def test_a_file_that_is_lost_is_not_replaced_by_a_default(method, tmp_path, openai_state, lost):
    save(tmp_path / "a", "msci", method, OPTIONS, backbone=openai_state())
    (tmp_path / "a" / lost).unlink()
    with pytest.raises(ConfigError, match=rf"a lacks {lost}, which method\.json requires"):
        load(tmp_path / "a")


def test_the_digest_is_of_the_contents(method, clip_file, tmp_path):
    for folder, adapter in (("a", 4), ("b", 4), ("c", 8)):
        save(tmp_path / folder, "msci", method, {"adapter_dim": adapter})
    a, b, c = (TrainedMethod.read(tmp_path / folder).digest for folder in "abc")
    assert a == b != c


def test_other_words_are_refused(method, clip_file, tmp_path):
    save(tmp_path / "a", "msci", method, {"backbone": str(clip_file), **OPTIONS})
    space = method.space
    swapped = PairSpace(("dotted", "wet", "Faux.Fur"), space.objs, space.pairs, space.seen)
    with pytest.raises(
        ConfigError, match=r"trained on 3 attrs, the label space has 3; the first difference is 'Faux\.Fur', here 'wet'"
    ):
        TrainedMethod.read(tmp_path / "a").build(swapped)
    more = PairSpace(space.attrs, (*space.objs, "tree"), space.pairs, space.seen)
    with pytest.raises(
        ConfigError, match="trained on 4 objs, the label space has 5; the first difference is their number"
    ):
        TrainedMethod.read(tmp_path / "a").build(more)


def test_options_that_the_tensors_do_not_fit_are_refused(method, clip_file, tmp_path):
    save(tmp_path / "a", "msci", method, {"backbone": str(clip_file), **OPTIONS})
    with pytest.raises(ConfigError, match=r"do not fit:(.|\n)*adapters\.0\.down\.bias is \[4\], expected \[8\]"):
        TrainedMethod.read(tmp_path / "a").build(adapter_dim=8)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, BACKBONE_FILE])
def test_changed_tensors_are_refused_with_both_digests_and_the_remedy(method, tmp_path, openai_state, name):
    folder = tmp_path / "a"
    save(folder, "msci", method, OPTIONS, backbone=openai_state())
    content = (folder / name).read_bytes()
    expected, changed = content_digest(content), content[:-1] + bytes([content[-1] ^ 1])
    (tmp_path / "changed").write_bytes(changed)
    (tmp_path / "changed").replace(folder / name)
    message = f"{folder / name} was changed after it was written: it has the digest {content_digest(changed)}, "
    remedy = r"\. Copy the whole folder again from its source, or train the method again in another folder\."
    with pytest.raises(ConfigError, match=re.escape(f"{message}expected {expected}") + remedy):
        load(folder)


def test_weights_of_another_training_are_refused(method, clip_file, tmp_path):
    save(tmp_path / "a", "msci", method, {"backbone": str(clip_file), **OPTIONS})
    with torch.no_grad():
        next(p for p in method.parameters() if p.requires_grad).add_(1)
    save(tmp_path / "b", "msci", method, {"backbone": str(clip_file), **OPTIONS})
    (tmp_path / "b" / WEIGHTS_FILE).replace(tmp_path / "a" / WEIGHTS_FILE)
    with pytest.raises(
        ConfigError, match=r"a.weights\.safetensors was changed after it was written: it has the digest"
    ):
        load(tmp_path / "a")


def test_a_description_that_was_edited_is_refused(method, clip_file, tmp_path):
    save(tmp_path / "a", "msci", method, {"backbone": str(clip_file), **OPTIONS})
    file = tmp_path / "a" / METADATA_FILE
    file.write_text(file.read_text().replace('"heads": [2, 2]', '"heads": [4, 2]'))
    with pytest.raises(ConfigError, match=r"method\.json was changed after it was written: its content has the digest"):
        load(tmp_path / "a")


def test_a_folder_of_an_earlier_version_has_no_digests_and_is_loaded(method, clip_file, images, tmp_path):
    save(tmp_path / "a", "msci", method, {"backbone": str(clip_file), **OPTIONS})
    file, weights = tmp_path / "a" / METADATA_FILE, tmp_path / "a" / WEIGHTS_FILE
    content = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in content.items() if k not in ("digest", "digests")} | {"format": 1}))
    save_file(read_tensors(weights), weights)
    assert torch.equal(scores(load(tmp_path / "a"), images), scores(method, images))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no .*method\.json; expected the folder of a run, RUNS/DATASET"),
        ("{", r"method\.json cannot be read: JSONDecodeError"),
        ("[]", r"method\.json cannot be read: TypeError"),
        ('{"format": 1}', r"method\.json cannot be read: KeyError: 'space'"),
        ('{"format": 2}', r"method\.json was changed after it was written: it does not start with its digest"),
        ('{"format": 1, "digest": "0"}', r"method\.json was changed after it was written: it does not start with its"),
        ('{"format": 9}', r"method\.json is of format 9, this czslkit reads formats up to 2"),
    ],
)
def test_a_folder_that_holds_no_method_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / METADATA_FILE).write_text(content)
    with pytest.raises(ConfigError, match=message):
        load(tmp_path)


def test_a_training_leaves_a_folder_that_evaluates_to_the_same_numbers(toys, clip_file, tmp_path):
    settings = {"backbone": str(clip_file), "train.epochs": 1, "train.batch_size": 8}
    runs = {"data": toys, "runs": tmp_path / "runs", "log": lambda line: None}
    trained = czslkit.bench("csp", "toys", settings=settings, **runs)
    (folder,) = (tmp_path / "runs").glob("toys/csp/*/training")
    again = czslkit.bench(None, "toys", checkpoints=[folder], settings={"eval.batch_size": 8}, **runs)
    assert (trained.failed, again.failed) == (0, 0)
    for first, second in zip(trained.results, again.results, strict=True):
        assert first["metrics"] == second["metrics"]
        assert second["training"]["epochs"] == 0
        assert second["config"]["checkpoint"]["digest"] == TrainedMethod.read(folder).digest
    assert isinstance(load(folder), type(czslkit.build("csp", load(folder).space, backbone=str(clip_file))))


def test_other_methods_are_trained_in_the_same_call_as_a_checkpoint(toys, clip_file, tmp_path):
    settings = {"backbone": str(clip_file), "train.epochs": 1, "train.batch_size": 8}
    runs = {"data": toys, "runs": tmp_path / "runs", "worlds": "closed", "log": lambda line: None}
    czslkit.bench("csp", "toys", settings=settings, **runs)
    (folder,) = (tmp_path / "runs").glob("toys/csp/*/training")
    both = czslkit.bench("csp,coop", "toys", checkpoints=[folder], settings=settings, **runs)
    assert [result["training"]["epochs"] for result in both.results] == [0, 1]
    with pytest.raises(ConfigError, match="holds csp, but it is not among the methods"):
        czslkit.bench("coop", "toys", checkpoints=[folder], **runs)
    with pytest.raises(ConfigError, match="holds csp, but another checkpoint holds it too"):
        czslkit.bench("csp", "toys", checkpoints=[folder, folder], **runs)
    with pytest.raises(ConfigError, match="a checkpoint is evaluated for one seed, not for 2 seeds"):
        czslkit.bench("csp", "toys", checkpoints=[folder], seeds=(0, 1), **runs)
    message = r"csp\.train\.epochs does nothing: no method is trained, because all come from checkpoints"
    with pytest.raises(ConfigError, match=message):
        czslkit.bench("csp", "toys", checkpoints=[folder], settings={"csp.train.epochs": 2}, **runs)


def test_a_folder_that_is_written_again_holds_the_new_method_alone(method, clip_file, tmp_path, openai_state):
    save(tmp_path / "a", "msci", method, OPTIONS, backbone=openai_state())
    save(tmp_path / "a", "msci", method, {"backbone": str(clip_file), **OPTIONS})
    assert {path.name for path in (tmp_path / "a").iterdir()} == {METADATA_FILE, WEIGHTS_FILE}
    assert TrainedMethod.read(tmp_path / "a").fixed_options["backbone"] == str(clip_file)


def test_a_folder_half_written_holds_no_method(method, tmp_path, monkeypatch, openai_state):
    save(tmp_path / "a", "msci", method, OPTIONS, backbone=openai_state())
    monkeypatch.setattr("czslkit.checkpoints.trained.write_text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "a", "msci", method, OPTIONS, backbone=openai_state())
    with pytest.raises(ConfigError, match=r"no .*method\.json"):
        load(tmp_path / "a")


def test_the_same_checkpoint_elsewhere_is_the_same_cell(method, tmp_path, openai_state):
    save(tmp_path / "a", "msci", method, OPTIONS, backbone=openai_state())
    first, here = plan(["msci"], ["toys"], checkpoints=[TrainedMethod.read(tmp_path / "a")])[0].config, tmp_path / "b"
    (tmp_path / "a").rename(here)
    spec = plan(["msci"], ["toys"], checkpoints=[TrainedMethod.read(here)])[0]
    assert spec.config == first
    assert spec.options.backbone == str(here / BACKBONE_FILE)


def test_a_checkpoint_of_the_authors_is_converted_and_evaluated(toys, openai_state, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = czslkit.load_dataset("toys", toys).space
    words = torch.randn(len(space.attrs) + len(space.objs), 64, generator=torch.Generator().manual_seed(0))
    torch.save(openai_state(), "clip.pt")
    torch.save({"soft_embeddings": words}, "csp.pt")
    (tmp_path / "csp.yml").write_text("attr_dropout: 0.2\nlr: 5.0e-05\n")
    arguments = ["--method", "csp", "--dataset", "toys", "--data", str(toys)]
    assert main(["convert", "csp.pt", "out", *arguments, "--config", "csp.yml", "--backbone", "clip.pt"]) == 0
    said = capsys.readouterr()
    assert said.out == "out\n"
    assert "csp: 3 attributes and 3 objects, sorted by name; fixed options: word_dropout=0.2" in said.err
    head = json.loads((tmp_path / "out" / METADATA_FILE).read_text())
    assert (head["method"], head["options"]["word_dropout"]) == ("csp", 0.2)
    assert head["source"]["checkpoint"] == "csp.pt"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {METADATA_FILE, WEIGHTS_FILE, BACKBONE_FILE}
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1
    assert main(["convert", "csp.pt", "out", *arguments, "--backbone", "clip.pt"]) == 2
    assert "out already contains a method" in capsys.readouterr().err
    (tmp_path / "clip.pt").unlink()
    assert torch.equal(load("out").prompt.words, words)
    assert main(["bench", "--checkpoint", "out", "--datasets", "toys", "--data", str(toys), "--runs", "runs"]) == 0
    assert "csp" in capsys.readouterr().out


def test_a_checkpoint_that_cannot_be_converted_is_an_error(toys, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"soft_embeddings": torch.zeros(1, 64)}, "csp.pt")
    arguments = ["--method", "csp", "--dataset", "toys", "--data", str(toys)]
    assert main(["convert", "csp.pt", "out", *arguments]) == 2
    assert "the checkpoint has no CLIP" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["bench"]) == 2
    assert "nothing to run: give --methods, SUITE.yaml or --checkpoint" in capsys.readouterr().err


def test_files_of_word_vectors_are_named_by_their_table(capsys):
    arguments = ["--method", "cge", "--dataset", "tiny", "--word-vectors"]
    with pytest.raises(SystemExit):
        main(["convert", "cge.t7", "out", *arguments, "GoogleNews-vectors-negative300.bin"])
    assert "'GoogleNews-vectors-negative300.bin', expected glove=FILE, word2vec=FILE or" in capsys.readouterr().err
