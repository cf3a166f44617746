"""Trained methods on the Hugging Face hub: ``hf:USER/NAME[@REVISION]`` becomes a folder, and files are uploaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import ConfigError, CzslkitError, first_ten
from ..options import user_path
from ..training_files import BACKBONE_FILE, CALIBRATION_FILE, METADATA_FILE, WEIGHTS_FILE
from ..weights import why_hub_is_unreachable

SCHEME = "hf:"
MAIN = "main"  # the branch that is used if no revision is given
_REQUIRED = (METADATA_FILE, WEIGHTS_FILE)
_TEXTS = (".json", ".yaml", ".md")  # endings of further files that are downloaded
#: Endings of files that may be pickles, which can run code when they are read.
_PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".t7")
_LONGEST_REASON = 300  # characters of an error of the hub
_LOGIN = "log in with 'hf auth login', or set HF_TOKEN to a token from {endpoint}/settings/tokens"


class HubName(NamedTuple):
    """A repository of the hub, and a branch, a tag or a commit of it."""

    repository: str  # USER/NAME
    revision: str = MAIN

    @classmethod
    def parse(cls, text: str) -> HubName:
        """Read ``hf:USER/NAME`` or ``hf:USER/NAME@REVISION``.

        Raises:
            ConfigError: the text has another form.

        >>> HubName.parse("hf:ann/csp-mit@v1")
        HubName(repository='ann/csp-mit', revision='v1')
        """
        repository, at, revision = text.removeprefix(SCHEME).partition("@")
        _check_repository(repository, text)
        if at and (not re.fullmatch(r"[\w.][\w./-]*", revision, re.ASCII) or ".." in revision):
            raise ConfigError([f"{text} has no usable revision after the @; expected a branch, a tag or a commit"])
        return cls(repository, revision or MAIN)

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}" + (f"@{self.revision}" if self.revision != MAIN else "")

    @property
    def is_fixed(self) -> bool:
        """True if the revision is the hash of a commit, which never changes."""
        return bool(re.fullmatch(r"[0-9a-f]{40}", self.revision))


def _check_repository(repository: str, asked: str) -> None:
    """Check the name of a repository.

    Raises:
        ConfigError: it is not ``USER/NAME``.
    """
    part = r"[A-Za-z0-9_](?:[\w.-]{0,94}\w)?"
    if not re.fullmatch(rf"{part}/{part}", repository, re.ASCII) or "--" in repository or ".." in repository:
        raise ConfigError([f"{asked} names no repository of the hub; expected USER/NAME, as in hf:ann/csp-mit"])


def local_folder(checkpoint: str | Path) -> Path:
    """Return the folder of a checkpoint on this machine; ``hf:USER/NAME[@REVISION]`` is downloaded first.

    Only safetensors, JSON, YAML and Markdown are downloaded, and only from the top of the repository. Files that were
    downloaded before are not downloaded again. A commit is then used without asking the hub, and so is the last known
    state of a branch if the hub cannot be reached.

    Args:
        checkpoint: a folder, or ``hf:USER/NAME`` with an optional branch, tag or commit after an ``@``.

    Raises:
        ConfigError: there is no such repository or revision, it may not be read, it holds no trained method or holds
            files that may run code, or the hub cannot be reached.
    """
    if not str(checkpoint).startswith(SCHEME):
        return user_path(checkpoint)
    name = HubName.parse(str(checkpoint))
    if name.is_fixed and (folder := _downloaded(name)):
        return folder
    if reason := _unreachable():
        if folder := _downloaded(name):
            return folder
        raise ConfigError(
            [f"{name} cannot be downloaded: {reason}. Connect to the network, or give a folder that holds the method."]
        )
    return _download(name)


def origin(folder: Path) -> str:
    """Return the repository and the commit that a folder was downloaded from; empty for any other folder.

    >>> commit = "0123456789abcdef0123456789abcdef01234567"
    >>> origin(Path(f"/cache/models--ann--csp-mit/snapshots/{commit}"))
    'hf:ann/csp-mit@0123456789abcdef0123456789abcdef01234567'
    """
    found = re.search(r"/models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})$", folder.as_posix())
    return str(HubName(f"{found[1]}/{found[2]}", found[3])) if found else ""


def upload(files: Mapping[str, Path | bytes], name: HubName, *, private: bool, message: str) -> HubName:
    """Write files to a repository as one commit; the repository and the branch are made if there are none.

    What an earlier commit has of another method, such as its backbone, is removed.

    Args:
        files: a file on this machine or its content, by its name in the repository.
        name: the repository and the branch.
        private: only its owners may read the repository.
        message: the message of the commit.

    Returns:
        The repository with the new commit.

    Raises:
        ConfigError: there is no token, or it may not write there, the repository is public although ``private`` is
            asked for, or the hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token

    _check_repository(name.repository, name.repository)
    if not get_token():
        login = _LOGIN.format(endpoint=constants.ENDPOINT)
        raise ConfigError([f"{name} cannot be written: there is no token of the hub. To write, {login}."])
    if reason := _unreachable():
        raise ConfigError([f"{name} cannot be written: {reason}. Connect to the network, and push again."])
    api = HfApi(endpoint=constants.ENDPOINT)
    with _errors_told(name, "written"):
        api.create_repo(name.repository, private=private, exist_ok=True)
        if private and not api.model_info(name.repository).private:
            raise ConfigError(
                [
                    f"{name.repository} exists and is public, but --private was given: make it private on "
                    f"{constants.ENDPOINT}/{name.repository}/settings, or choose another name"
                ]
            )
        if name.revision != MAIN:
            api.create_branch(name.repository, branch=name.revision, exist_ok=True)
        there = api.list_repo_files(name.repository, revision=name.revision)
        outdated = {BACKBONE_FILE, CALIBRATION_FILE}.intersection(there).difference(files)
        commit = api.create_commit(
            name.repository,
            [
                *(CommitOperationAdd(path, content) for path, content in files.items()),
                *(CommitOperationDelete(path) for path in outdated),
            ],
            commit_message=message,
            revision=name.revision,
        )
    return HubName(name.repository, commit.oid)


def _download(name: HubName) -> Path:
    """Download a trained method and return its folder.

    The weights come last: a folder that has them lacks no other file, such as the bias for predictions.

    Raises:
        ConfigError: as :func:`local_folder`.
    """
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=constants.ENDPOINT)
    with _errors_told(name, "downloaded"):
        info = api.model_info(name.repository, revision=name.revision)
        wanted = _wanted(name, [file.rfilename for file in info.siblings or ()])
        others = [file for file in wanted if file != WEIGHTS_FILE]
        api.snapshot_download(name.repository, revision=name.revision, allow_patterns=others)
        return Path(api.snapshot_download(name.repository, revision=name.revision, allow_patterns=wanted))


def _wanted(name: HubName, listed: Sequence[str]) -> list[str]:
    """Return the files of a repository that are downloaded: plain names at its top that cannot lead elsewhere.

    Raises:
        ConfigError: the repository holds files that may run code, or no trained method.
    """
    if pickles := sorted(file for file in listed if PurePosixPath(file).suffix.lower() in _PICKLES):
        raise ConfigError(
            [
                f"{name} is not read, because it holds {first_ten(list(map(ascii, pickles)))}, which may run code: "
                "expected safetensors only. Ask its owner to remove it, or convert a download with czslkit convert."
            ]
        )
    if lacking := [file for file in _REQUIRED if file not in listed]:
        raise ConfigError(
            [f"{name} holds no trained method: it has no {lacking[0]}. Expected a repository of czslkit push."]
        )
    plain = [file for file in listed if re.fullmatch(r"\w[\w.-]*", file, re.ASCII)]
    return [file for file in plain if file in (*_REQUIRED, BACKBONE_FILE) or file.endswith(_TEXTS)]


def _downloaded(name: HubName) -> Path | None:
    """Return the folder of an earlier download, None if there is none or if it is not complete."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(
            name.repository, revision=name.revision, allow_patterns=list(_REQUIRED), local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    folder = Path(found)
    return folder if all((folder / file).is_file() for file in _REQUIRED) else None


def _unreachable() -> str:
    """Return why the hub cannot be asked; empty if it answers."""
    from huggingface_hub import constants

    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else why_hub_is_unreachable()


@contextmanager
def _errors_told(name: HubName, done: str) -> Iterator[None]:
    """Turn what the hub answers within the ``with`` block into an error of one line with the remedy.

    Args:
        name: what was asked for.
        done: ``downloaded`` or ``written``.

    Raises:
        ConfigError: the hub refused or the connection ended.
    """
    from huggingface_hub import constants, errors

    login = _LOGIN.format(endpoint=constants.ENDPOINT)
    page = f"{constants.ENDPOINT}/{name.repository}"
    try:
        yield
    except CzslkitError:
        raise
    except errors.GatedRepoError as error:
        remedy = f"it is gated: ask for access on {page}, and {login}"
        raise ConfigError([f"{name} cannot be {done}: {remedy}."]) from error
    except errors.RepositoryNotFoundError as error:
        remedy = (
            f"the hub has no repository {name.repository} that you may use. Check the name; if it is private, {login}"
        )
        raise ConfigError([f"{name} cannot be {done}: {remedy}."]) from error
    except errors.RevisionNotFoundError as error:
        remedy = f"{name.repository} has no branch, tag or commit {name.revision!r}. {page}/tree/{MAIN} lists them"
        raise ConfigError([f"{name} cannot be {done}: {remedy}."]) from error
    except Exception as error:  # of the HTTP library that this version of huggingface_hub uses
        status = getattr(getattr(error, "response", None), "status_code", None)
        words = [" ".join(str(each).split()).rstrip(".") for each in (error, error.__cause__) if each]
        reason = ": ".join(words)[:_LONGEST_REASON] or type(error).__name__
        if status in (401, 403):
            reason = f"the token is refused ({status}). To use one that may, {login}"
            raise ConfigError([f"{name} cannot be {done}: {reason}."]) from error
        raise ConfigError([f"{name} cannot be {done}: {reason}. Try again; finished files are kept."]) from error
