from __future__ import annotations

import pytest

from czslkit import errors
from czslkit.errors import ConfigError, CzslkitError, UnknownNameError, did_you_mean

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_of_a_user_is_a_czslkit_error(kind: type[Exception]) -> None:
    assert issubclass(kind, CzslkitError)
    assert len(KINDS) > 5


def test_an_unknown_name_reads_as_it_was_written() -> None:
    assert str(UnknownNameError("no method named 'x'")) == "no method named 'x'"


def test_a_config_error_holds_every_problem_and_shows_one_a_line() -> None:
    error = ConfigError(line for line in ("a: too small", "b: too large"))
    assert error.problems == ("a: too small", "b: too large")
    assert str(error) == "a: too small\nb: too large"


def test_two_close_names_are_both_offered() -> None:
    assert did_you_mean("cop", ["csp", "troika", "coop"]) == " Did you mean 'coop' or 'csp'?"


@pytest.mark.parametrize("known", [[], ["troika"]])
def test_no_name_is_offered_if_none_is_close(known: list[str]) -> None:
    assert did_you_mean("csp", known) == ""
