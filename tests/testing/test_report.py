from __future__ import annotations

import pytest

from czslkit.errors import TrainingError
from czslkit.testing.report import CheckFailed, CheckSkipped, ConformanceError, check, run_checks


@check("divide by something else")
def numbers_divide(subject):
    """A number divides one."""
    return f"1 / {subject} = {1 / subject}"


@check("", numbers_divide)
def quotients_are_small(subject):
    """The quotient is below one."""
    if 1 / subject >= 1:
        raise CheckFailed(f"1 / {subject} is not below 1: take a larger number")


@check("")
def numbers_are_odd(subject):
    """The number is odd."""
    raise CheckSkipped("no need")


@check("not shown", numbers_are_odd)
def trainings_end(subject):
    """A training ends."""
    raise TrainingError("the loss is nan: lower the learning rate")


def run(subject, *checks):
    return run_checks("number", "n", {"n": subject}, checks, subject)


def test_a_report_has_every_check_with_its_outcome():
    report = run(2, numbers_divide, quotients_are_small, numbers_are_odd)
    assert report.passed and report.raise_if_failed() is report
    assert report.to_text().splitlines() == [
        "passed   numbers divide (1 / 2 = 0.5)",
        "passed   quotients are small",
        "skipped  numbers are odd (no need)",
        "number n: 2 passed, 0 failed, 1 skipped",
    ]
    assert report.to_json() == {
        "kind": "number",
        "name": "n",
        "options": {"n": 2},
        "passed": True,
        "count": 2,
        "checks": [
            {"name": "numbers divide", "claim": "A number divides one.", "outcome": "passed", "ran": "1 / 2 = 0.5",
             "message": ""},
            {"name": "quotients are small", "claim": "The quotient is below one.", "outcome": "passed", "ran": "",
             "message": ""},
            {"name": "numbers are odd", "claim": "The number is odd.", "outcome": "skipped", "ran": "",
             "message": "no need"},
        ],
    }  # fmt: skip


def test_an_exception_fails_with_its_type_its_line_and_the_remedy_and_what_needs_it_is_skipped():
    report = run(0, numbers_divide, quotients_are_small)
    failed, skipped = report.results
    lines = failed.message.splitlines()
    assert lines[0] == "ZeroDivisionError: division by zero"
    assert lines[1].startswith(f"at {__file__}:")
    assert lines[1].endswith('in numbers_divide: return f"1 / {subject} = {1 / subject}"')
    assert lines[2] == "divide by something else"
    assert (skipped.outcome, skipped.message) == ("skipped", "it needs: numbers divide")


def test_an_error_of_czslkit_says_itself_what_to_change_and_a_skipped_check_blocks_nothing():
    report = run(1, numbers_are_odd, trainings_end)
    assert report.failed[0].message == "TrainingError: the loss is nan: lower the learning rate"


def test_all_failed_checks_are_raised_together():
    report = run(1, numbers_divide, quotients_are_small, trainings_end)
    with pytest.raises(ConformanceError, match="1 / 1 is not below 1: take a larger number") as caught:
        report.raise_if_failed()
    assert isinstance(caught.value, AssertionError)
    assert caught.value.report is report
    assert "the loss is nan" in str(caught.value)
    assert "numbers divide" not in str(caught.value)


@pytest.mark.parametrize("checks", [(), (numbers_are_odd,)])
def test_a_report_in_which_no_check_ran_fails(checks):
    with pytest.raises(ConformanceError, match="number n: no check ran, so nothing is known about it"):
        run(1, *checks).raise_if_failed()
