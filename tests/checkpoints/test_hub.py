"""Checkpoints from the hub, against the local stand-in of ``conftest.py``."""

from __future__ import annotations

import pickle
import re
import shutil

import pytest
import torch
from huggingface_hub import HfApi

import czslkit
from czslkit.checkpoints.hub import HubName, local_folder
from czslkit.checkpoints.trained import TrainedMethod, save
from czslkit.cli import main
from czslkit.errors import ConfigError
from czslkit.runner.request import Request
from czslkit.testing import demo_space
from czslkit.training_files import BACKBONE_FILE, METADATA_FILE, WEIGHTS_FILE

NAME = "hf:ann/csp"


@pytest.fixture(scope="module")
def trained(clip_file, openai_state, tmp_path_factory):
    """The folder of a trained method with its backbone."""
    torch.manual_seed(0)
    method = czslkit.build("csp", demo_space(), backbone=str(clip_file))
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    folder = tmp_path_factory.mktemp("csp") / "trained"
    save(folder, "csp", method, {"backbone": "gone"}, backbone=openai_state())
    return folder


@pytest.fixture
def files(trained):
    return {path.name: path.read_bytes() for path in trained.iterdir()}


@pytest.fixture
def commit(hub, files):
    """The hash of the only commit of the repository ``ann/csp``."""
    return hub.repositories["ann/csp"].commit(files | {"README.md": b"---\nlicense: mit\n---\n"})


def test_a_method_of_the_hub_scores_as_the_one_that_was_pushed(commit, trained, images):
    here, there = (czslkit.load(source) for source in (trained, NAME))
    with torch.no_grad():
        pairs = here.space.pairs
        assert torch.equal(there.rank(images, there.text(pairs)), here.rank(images, here.text(pairs)))


def test_the_commit_is_known_afterwards(commit, trained):
    assert TrainedMethod.read(NAME).origin == f"{NAME}@{commit}"
    assert TrainedMethod.read(trained).origin == ""
    assert TrainedMethod.read(NAME).digest == TrainedMethod.read(trained).digest


def test_a_branch_and_a_commit_can_be_asked_for(commit, hub, files):
    other = hub.repositories["ann/csp"].commit(files | {"README.md": b"other"}, branch="v1/tried")
    assert [local_folder(f"{NAME}@{revision}").name for revision in (commit, "v1/tried", "main")] == [
        commit, other, commit,
    ]  # fmt: skip


def test_a_folder_stays_a_folder(tmp_path):
    assert local_folder(tmp_path) == tmp_path
    assert local_folder(str(tmp_path)) == tmp_path


def test_files_are_downloaded_once_and_a_commit_is_not_even_asked_for(commit, hub):
    first = local_folder(NAME)
    downloads = hub.downloads()
    assert sorted(downloads) == sorted(["README.md", BACKBONE_FILE, METADATA_FILE, WEIGHTS_FILE])
    assert local_folder(NAME) == first
    assert hub.downloads() == downloads
    hub.requests.clear()
    assert local_folder(f"{NAME}@{commit}") == first
    assert hub.requests == []


def test_without_a_network_the_last_known_state_of_a_branch_is_used(commit, hub, monkeypatch):
    first = local_folder(NAME)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert local_folder(NAME) == first
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert local_folder(NAME) == first


def test_without_a_network_an_unknown_repository_is_an_error(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    message = (
        r"^hf:ann/csp cannot be downloaded: http://127\.0\.0\.1:9 cannot be reached \(.+\)\. Connect to the network"
    )
    with pytest.raises(ConfigError, match=message):
        local_folder(NAME)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"^hf:ann/csp cannot be downloaded: HF_HUB_OFFLINE is set\. Connect"):
        local_folder(NAME)


def test_a_download_that_is_cut_goes_on_where_it_ended(commit, hub, files, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)
    hub.cut.add(WEIGHTS_FILE)
    assert (local_folder(NAME) / WEIGHTS_FILE).read_bytes() == files[WEIGHTS_FILE]
    assert hub.ranges == [f"bytes={len(files[WEIGHTS_FILE]) // 2 // 100 * 100}-"]


def test_a_download_that_was_killed_is_completed_with_the_files_that_lack(commit, hub):
    folder = local_folder(NAME)
    (folder / WEIGHTS_FILE).resolve().unlink()
    (folder / WEIGHTS_FILE).unlink()
    hub.requests.clear()
    assert (local_folder(f"{NAME}@{commit}") / WEIGHTS_FILE).is_file()
    assert hub.downloads() == [WEIGHTS_FILE]


def test_a_folder_with_weights_lacks_no_other_file_after_a_download_was_killed(commit, hub, monkeypatch):
    download = HfApi.snapshot_download

    def killed(*arguments, **options):
        download(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(HfApi, "snapshot_download", killed)
    with pytest.raises(KeyboardInterrupt):
        local_folder(NAME)
    assert BACKBONE_FILE in hub.downloads() and WEIGHTS_FILE not in hub.downloads()
    monkeypatch.setattr(HfApi, "snapshot_download", download)
    assert (local_folder(f"{NAME}@{commit}") / WEIGHTS_FILE).is_file()


def test_a_private_repository_needs_a_token_that_may_read_it(commit, hub, monkeypatch):
    hub.repositories["ann/csp"].private = True
    message = (
        r"^hf:ann/csp cannot be downloaded: the hub has no repository ann/csp that you may use\. Check the name; if it "
        rf"is private, log in with 'hf auth login', or set HF_TOKEN to a token from {hub.address}/settings/tokens\.$"
    )
    with pytest.raises(ConfigError, match=message):
        local_folder(NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    with pytest.raises(ConfigError, match=message):
        local_folder(NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    assert local_folder(NAME).name == commit


def test_a_gated_repository_is_told(commit, hub):
    hub.repositories["ann/csp"].gated = True
    with pytest.raises(ConfigError, match=rf"it is gated: ask for access on {hub.address}/ann/csp, and log in with"):
        local_folder(NAME)


def test_a_repository_that_is_absent_is_told(hub):
    with pytest.raises(
        ConfigError, match=r"^hf:ann/none cannot be downloaded: the hub has no repository ann/none that"
    ):
        local_folder("hf:ann/none")


def test_a_revision_that_is_absent_is_told(commit, hub):
    message = rf"ann/csp has no branch, tag or commit 'v9'\. {hub.address}/ann/csp/tree/main lists them\.$"
    with pytest.raises(ConfigError, match=message):
        local_folder(f"{NAME}@v9")


@pytest.mark.parametrize(
    "name", ["hf:csp", "hf:", "hf:a/b/c", "hf:../b", "hf:a/..", "hf:a--b/c", "hf:ann/c sp", "hf:a/"]
)
def test_a_text_that_names_no_repository_is_told(name):
    with pytest.raises(ConfigError, match=rf"^{re.escape(name)} names no repository of the hub; expected USER/NAME"):
        local_folder(name)


@pytest.mark.parametrize("revision", ["", "../x", "a b", "-x", "/etc"])
def test_a_revision_that_could_be_a_path_is_refused(revision):
    with pytest.raises(ConfigError, match=r"has no usable revision after the @; expected a branch, a tag or a commit"):
        local_folder(f"{NAME}@{revision}")


@pytest.mark.parametrize("file", ["best.pt", "old/Model.BIN", "state.pkl", "x.ckpt"])
def test_a_repository_with_pickles_is_not_read(hub, files, file):
    hub.repositories["ann/csp"].commit(files | {file: pickle.dumps({})})
    message = (
        rf"^hf:ann/csp is not read, because it holds '{re.escape(file)}', which may run code: expected safetensors"
    )
    with pytest.raises(ConfigError, match=message):
        local_folder(NAME)
    assert hub.downloads() == []


@pytest.mark.parametrize("lost", [METADATA_FILE, WEIGHTS_FILE])
def test_a_repository_without_a_trained_method_is_told(hub, files, lost):
    hub.repositories["ann/csp"].commit({name: content for name, content in files.items() if name != lost})
    with pytest.raises(ConfigError, match=rf"^hf:ann/csp holds no trained method: it has no {lost}\. Expected"):
        local_folder(NAME)
    assert hub.downloads() == []


def test_nothing_is_downloaded_but_plain_names_at_the_top(hub, files, tmp_path):
    hostile = ["../../evil.json", "/etc/evil.json", "sub/x.json", "..\\evil.md", ".hidden.json", "a*.json", "run.py",
               "last.safetensors", "big.csv"]  # fmt: skip
    hub.repositories["ann/csp"].commit(files | dict.fromkeys(hostile, b"{}") | {"notes.yaml": b"a: 1"})
    folder = local_folder(NAME)
    assert sorted(path.name for path in folder.rglob("*")) == sorted([*files, "notes.yaml"])
    assert not list(tmp_path.rglob("*evil*"))


def test_a_file_that_was_changed_on_the_hub_is_noticed(hub, files):
    changed = files[WEIGHTS_FILE][:-1] + bytes([files[WEIGHTS_FILE][-1] ^ 1])
    hub.repositories["ann/csp"].commit(files | {WEIGHTS_FILE: changed})
    with pytest.raises(ConfigError, match=r"weights\.safetensors was changed after it was written"):
        TrainedMethod.read(NAME)


def test_an_error_of_the_hub_is_told_in_one_line(commit, hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(type(hub), "repositories", property(lambda _: 1 / 0), raising=False)
    with pytest.raises(
        ConfigError, match=r"^hf:ann/csp cannot be downloaded: .+\. Try again; finished files are kept\.$"
    ):
        local_folder(NAME)


def test_the_command_line_takes_the_name_and_prints_one_line(hub, capsys, tmp_path):
    image = tmp_path / "wet.png"
    image.write_bytes(b"")
    assert main(["explain", str(image), "--checkpoint", "hf:ann/none"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("czslkit: hf:ann/none cannot be downloaded: the hub has no repository ann/none")
    assert error.count("\n") == 1


def test_a_benchmark_records_the_commit_and_says_that_the_weights_are_from_there(
    hub, toys, clip_file, tmp_path, monkeypatch
):
    quick = {"backbone": str(clip_file), "train.epochs": 1}
    where = {"data": toys, "worlds": "closed", "progress": False, "log": lambda line: None}
    own = czslkit.bench("csp", "toys", runs=tmp_path / "runs", settings=quick, **where)
    (folder,) = (tmp_path / "runs").glob("toys/csp/*/training")
    kept = [METADATA_FILE, WEIGHTS_FILE]
    sha = hub.repositories["ann/csp"].commit({name: (folder / name).read_bytes() for name in kept})
    shutil.rmtree(tmp_path / "runs")
    result = czslkit.bench(datasets="toys", checkpoints=[NAME], runs=tmp_path / "runs", **where)
    (cell,) = result.results
    assert cell["protocol"]["checkpoint"] == f"{NAME}@{sha}"
    assert cell["metrics"] == own.results[0]["metrics"]
    assert f"csp on toys: the weights are those of {NAME}@{sha}, not trained here" in result.to_markdown()


def test_all_processes_of_a_benchmark_get_the_same_commit(commit, tmp_path):
    asked = Request(["clip", czslkit.Variant("csp", checkpoint=NAME)], checkpoints=[NAME, tmp_path])
    request = asked.with_local_checkpoints()
    assert [folder.name for folder in request.checkpoints] == [commit, tmp_path.name]
    name, variant = request.methods
    assert (name, variant.checkpoint) == ("clip", request.checkpoints[0])
    assert asked.checkpoints == [NAME, tmp_path]


def test_a_name_reads_as_it_is_written():
    for text in ("hf:ann/csp", "hf:ann/csp@v1"):
        assert str(HubName.parse(text)) == text
