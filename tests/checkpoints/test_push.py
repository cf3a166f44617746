"""``czslkit push`` and its model card, against the local stand-in for the hub of ``conftest.py``."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml

import czslkit
from czslkit.checkpoints.calibration import read_calibration, write_calibration
from czslkit.checkpoints.trained import TrainedMethod, save
from czslkit.cli import main
from czslkit.errors import ConfigError
from czslkit.method import METHODS
from czslkit.metrics.names import METRICS
from czslkit.prediction import Calibration
from czslkit.report.model_card import ModelCard, protocol_sentences
from czslkit.report.paper_names import PaperName, paper_name
from czslkit.result_store import Store
from czslkit.runner.recipes import load_recipe
from czslkit.sharing import push
from czslkit.testing import demo_space
from czslkit.training_files import BACKBONE_FILE, CALIBRATION_FILE, METADATA_FILE, WEIGHTS_FILE

NAME = "ann/csp-toys"
# huggingface_hub hands a file to its HTTP library in a way that is deprecated there.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning")


@pytest.fixture(scope="module")
def finished(toys, clip_file, tmp_path_factory):
    """The folder of a run with results in both worlds."""
    runs = tmp_path_factory.mktemp("finished") / "runs"
    settings = {"backbone": str(clip_file), "train.epochs": 1, "train.batch_size": 8}
    where = {"data": toys, "runs": runs, "progress": False, "log": lambda line: None}
    assert czslkit.bench("csp", "toys", settings=settings, **where).failed == 0
    (folder,) = (runs / "toys" / "csp").iterdir()
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the folder of the run, in a folder of results."""
    copy = tmp_path / "runs" / "toys" / "csp" / finished.name
    shutil.copytree(finished, copy)
    return copy


@pytest.fixture
def token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_writer")


@pytest.fixture
def pushed(hub, token, run):
    """Push the run; returns the files of the repository. The log lines are in ``.lines``."""

    def go(**options):
        go.lines = []
        go.name = push(options.pop("folder", run), NAME, log=go.lines.append, **options)
        return hub.repositories[NAME].commits[go.name.partition("@")[2]]

    return go


def head_and_text(card):
    _, head, text = card.decode().split("---\n", 2)
    return yaml.safe_load(head), text


def test_what_was_pushed_can_be_loaded_and_is_the_same_method(pushed, run, clip_file):
    here = TrainedMethod.read(run)
    write_calibration(here.folder, Calibration({"closed": 0.25}), here.space)  # a short training has found none
    files = pushed()
    assert sorted(files) == [".gitattributes", "README.md", CALIBRATION_FILE, METADATA_FILE, WEIGHTS_FILE]
    there = TrainedMethod.read(pushed.name)
    assert there.origin == pushed.name
    assert read_calibration(there.folder, there.space).bias == {"closed": 0.25}
    assert files[CALIBRATION_FILE] == (run / "training" / CALIBRATION_FILE).read_bytes()
    assert (there.folder / CALIBRATION_FILE).read_bytes() == files[CALIBRATION_FILE]
    ours, theirs = (one.build(backbone=str(clip_file)).state_dict() for one in (here, there))
    assert ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours)


def test_the_head_of_the_card_has_the_numbers_of_the_results(pushed, run):
    head, _ = head_and_text(pushed(license="mit")["README.md"])
    assert (head["license"], head["library_name"], head["datasets"]) == ("mit", "czslkit", ["toys"])
    assert "compositional-zero-shot-learning" in head["tags"]
    (index,) = head["model-index"]
    found = {}
    for entry in index["results"]:
        for metric in entry["metrics"]:
            found[entry["dataset"]["config"], metric["name"]] = metric["value"]
    results = {result["cell"]["world"]: result["metrics"] for result in Store(run.parents[2]).results()}
    assert found == {
        (world, name): round(100 * results[world][metric], 1) for world in results for name, metric in METRICS.items()
    }


def test_the_card_holds_the_table_the_protocol_the_recipe_and_the_citation(pushed, run, tmp_path):
    head, text = head_and_text(pushed()["README.md"])
    assert head["license"] == "unknown"
    sections = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=\n## |\Z)", text, re.M | re.S))
    assert list(sections) == ["Results", "Use", "Protocol", "Recipe", "Citation"]
    result = Store(run.parents[2]).results()[0]
    printed = f"{100 * result['metrics']['best_seen']:.1f}"
    assert re.search(rf"\| csp \| \**(<u>)?{re.escape(printed)} ", sections["Results"])
    assert "czslkit bench --checkpoint hf:ann/csp-toys --datasets toys" in sections["Use"]
    assert "- The test split of toys has 4 images of pairs that were seen in training" in sections["Protocol"]
    assert "The training had 1 epochs and the random seed 0." in sections["Protocol"]
    assert re.search(r"validation AUC, closed world; epoch 1 is kept", sections["Protocol"])
    assert "@inproceedings{nayak2023" in sections["Citation"]
    recipe = tmp_path / "toys" / "nayak2023_csp.yaml"
    recipe.parent.mkdir()
    recipe.write_text(re.search(r"```yaml\n(.*)```", sections["Recipe"], re.S)[1])
    assert load_recipe(recipe)["train"]["batch_size"] == 8


def test_no_file_of_the_repository_names_a_folder_of_this_machine(pushed, clip_file, tmp_path):
    files = pushed()
    for name in ("README.md", METADATA_FILE):
        assert str(clip_file.parent).encode() not in files[name] and str(tmp_path).encode() not in files[name]
    assert json.loads(files[METADATA_FILE])["options"]["backbone"] == "clip.pt"
    assert pushed.lines == [
        "not uploaded: clip.pt, a file of this machine; its users give theirs with --set backbone=FILE"
    ]
    assert (
        "DIR --set backbone=FILE\n```\n\nThe repository does not hold clip.pt: FILE is yours."
        in files["README.md"].decode()
    )


def test_a_folder_without_results_has_a_card_that_says_so(pushed, clip_file, openai_state, tmp_path):
    method = czslkit.build("csp", demo_space(), backbone=str(clip_file))
    save(tmp_path / "converted", "csp", method, {}, backbone=openai_state())
    files = pushed(folder=tmp_path / "converted")
    assert BACKBONE_FILE in files and pushed.lines == []
    assert "This repository was pushed without results." in files["README.md"].decode()
    again = pushed()
    assert CALIBRATION_FILE not in files
    assert BACKBONE_FILE not in again  # it belongs to the method that was there before


def test_results_that_are_not_of_the_weights_are_left_out(pushed, run):
    closed = json.loads((run / "closed.json").read_text()) | {"training_key": "another"}
    Store(run.parents[2]).put(closed)
    (run / "open.json").unlink()
    assert "This repository was pushed without results." in pushed()["README.md"].decode()
    assert pushed.lines[:2] == [
        f"left out of the card: {run}/closed.json, which is the result of another training",
        f"left out of the card: there is no {run}/open.json",
    ]


def test_a_failed_result_and_a_file_that_is_none_are_left_out(pushed, run):
    error = {"type": "DataError", "message": "gone"}
    closed = json.loads((run / "closed.json").read_text()) | {"status": "failed", "error": error}
    Store(run.parents[2]).put(closed)
    (run / "open.json").write_text("[]")
    pushed()
    assert pushed.lines[0] == f"left out of the card: {run}/closed.json, which has failed"
    assert pushed.lines[1].startswith(f"left out of the card: {run}/open.json: is not a result of czslkit")


def test_a_branch_a_message_and_privacy_are_as_asked_for(pushed, hub):
    pushed(revision="tried", private=True, message="First try")
    repository = hub.repositories[NAME]
    assert repository.private and repository.messages == ["initial commit", "First try"]
    assert METADATA_FILE not in repository.commits[repository.branches["main"]]
    assert repository.branches["tried"] == pushed.name.partition("@")[2]
    _, text = head_and_text(repository.commits[repository.branches["tried"]]["README.md"])
    assert f"czslkit bench --checkpoint hf:{NAME}@tried --datasets toys --data DIR --set backbone=FILE\n" in text
    assert "czslkit.load(" not in text and "czslkit predict" not in text  # which cannot be given the backbone
    pushed(revision="tried", private=True)
    assert repository.messages[2] == "csp on toys, by czslkit push"


def test_a_card_of_a_whole_method_says_how_to_load_it_and_how_to_train_another():
    csp = METHODS["csp"]
    card = ModelCard("hf:a/b@tried", "csp", paper_name(csp, "csp"), "", PaperName(""), {}, (), None, "mit")
    _, text = head_and_text(card.text().encode())
    assert 'czslkit.load("hf:a/b@tried")' in text and "czslkit predict photo.jpg --checkpoint hf:a/b@tried\n" in text
    assert "`czslkit bench --methods csp --recipe csp=FILE.yaml`" in text


def test_the_way_that_pictures_are_read_is_no_digest(run):
    (result, *_) = [result for result in Store(run.parents[2]).results() if result["status"] == "done"]
    result["protocol"]["split_files"] = {"train_pairs.txt": "0123456789abcdef", "reading": "upright"}
    said = protocol_sentences([result])
    assert "The SHA-256 digests of the lists start with: train_pairs.txt 01234567." in said


def test_a_public_repository_is_not_taken_for_a_private_one(pushed, hub):
    pushed()
    with pytest.raises(
        ConfigError, match=rf"^{NAME} exists and is public, but --private was given: make it private on"
    ):
        pushed(private=True)
    assert len(hub.repositories[NAME].commits) == 2


def test_without_a_token_nothing_is_asked(hub, run):
    message = (
        r"^hf:ann/csp-toys cannot be written: there is no token of the hub\. To write, log in with 'hf auth login'"
    )
    with pytest.raises(ConfigError, match=message):
        push(run, NAME, log=lambda line: None)
    assert hub.requests == []


@pytest.mark.parametrize(("token", "status"), [("hf_wrong", 401), ("hf_reader", 403)])
def test_a_token_that_may_not_write_is_told(hub, run, monkeypatch, token, status):
    hub.readers.add("hf_reader")
    monkeypatch.setenv("HF_TOKEN", token)
    message = (
        rf"^hf:ann/csp-toys cannot be written: the token is refused \({status}\)\. To use one that may, log in with"
    )
    with pytest.raises(ConfigError, match=message):
        push(run, NAME, log=lambda line: None)


def test_without_a_network_the_remedy_is_told(token, hub, run, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"cannot be reached \(.+\)\. Connect to the network, and push again\.$"):
        push(run, NAME, log=lambda line: None)


@pytest.mark.parametrize("name", ["csp", "ann/csp/x", "ann/../x"])
def test_a_name_that_is_none_is_told(token, hub, run, name):
    with pytest.raises(ConfigError, match=rf"^{re.escape(name)} names no repository of the hub; expected USER/NAME"):
        push(run, name, log=lambda line: None)


def test_the_command_prints_what_a_checkpoint_is_called(token, hub, run, capsys):
    assert main(["push", str(run), NAME, "--license", "mit", "--message", "hello"]) == 0
    printed = capsys.readouterr()
    (sha,) = set(hub.repositories[NAME].commits) - {next(iter(hub.repositories[NAME].commits))}
    assert printed.out == f"hf:{NAME}@{sha}\n"
    assert main(["push", str(run / "nothing"), NAME]) == 2
    assert "nothing/method.json; expected the folder of a run" in capsys.readouterr().err
