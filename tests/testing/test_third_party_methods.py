"""Third-party methods that train in unusual ways pass every check."""

from __future__ import annotations

import sys

import pytest

from czslkit.registry import load_unpackaged
from czslkit.testing import check_backbone, check_dataset, check_method

from .conftest import THIRD_PARTY

METHODS = ("learned-head", "visual-adapters", "graph-words", "ema-teacher", "balanced", "prototype-stream")


@pytest.fixture(scope="module", autouse=True)
def third_party(registries):
    """Register everything of the third party."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(THIRD_PARTY / "src")
        load_unpackaged("czsl_thirdparty")
        yield
    for name in [name for name in sys.modules if name.split(".")[0] == "czsl_thirdparty"]:
        del sys.modules[name]


def outcomes(report):
    return {result.name: result.outcome for result in report.results}


@pytest.mark.parametrize("name", METHODS)
def test_a_third_partys_method_passes_every_check(name, clip_file):
    found = outcomes(check_method(name, backbone=str(clip_file)))
    for check in (
        "learned parameters move",
        "a killed training ends with the same weights",
        "a checkpoint gives the same scores",
        "a reported validation can be repeated",
        "a benchmark runs and runs again",
        "a second evaluation is equal",
    ):
        assert found[check] == "passed", check


def test_a_backbone_with_its_own_tokens_passes_every_check():
    found = outcomes(check_backbone("byte-clip"))
    assert found["shared tokens can be encoded once"] == "passed"


def test_a_method_runs_on_a_backbone_with_its_own_tokens():
    assert check_method("csp", backbone="byte-clip", context_length=20).count >= 24


def test_a_dataset_of_code_passes_every_check():
    assert check_dataset("swatches").count == 9
