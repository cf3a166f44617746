"""A check, its outcome, and the report of all checks of one registered name."""

from __future__ import annotations

import json
import sysconfig
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from ..errors import CzslkitError

T = TypeVar("T")
#: Packages whose lines are not shown as the place of an error: the error is in the code that calls them.
_CALLED_PACKAGES = ("czslkit", "torch", "torchvision", "numpy", "PIL", "open_clip", "timm")


class CheckFailed(AssertionError):
    """A check that does not hold; the message says what was found and what to change."""


class CheckSkipped(Exception):
    """A check that does not apply; the message has the reason."""


class ConformanceError(AssertionError):
    """The failed checks of a report.

    Attributes:
        report: the whole report.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(report.to_text(failed_only=True))
        self.report = report


@dataclass(frozen=True)
class Check(Generic[T]):
    """A check of a subject. Its name is the name of its function, and its description is the first docstring line."""

    run: Callable[[T], str | None]  # returns what was run, in words; raises CheckFailed or CheckSkipped
    remedy: str  # what to change if the check ends with an exception of the checked code
    needs: tuple[str, ...] = ()  # names of checks without which this check cannot run

    @property
    def name(self) -> str:
        """The name of the check, in words."""
        return self.run.__name__.replace("_", " ")

    @property
    def claim(self) -> str:
        """The claim that the check tests, in a sentence."""
        return (self.run.__doc__ or "").strip().split("\n")[0]


def check(remedy: str, *needs: Check[Any]) -> Callable[[Callable[[T], str | None]], Check[T]]:
    """Return a decorator that makes a check of a function.

    Args:
        remedy: what to change if the function ends with an exception of the checked code.
        needs: checks without which this check cannot run; it is skipped if one of them fails.
    """
    return lambda function: Check(function, remedy, tuple(needed.name for needed in needs))


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check."""

    name: str
    claim: str  # what the check tests
    outcome: Literal["passed", "failed", "skipped"]
    ran: str = ""  # what was run, in words
    message: str = ""  # what was found and what to change, or why the check was skipped

    def to_text(self) -> str:
        """Return the result as a line, with the message below if the check failed."""
        if self.outcome == "failed":
            return "\n    ".join([f"FAILED   {self.name}", *self.message.splitlines()])
        detail = self.ran if self.outcome == "passed" else self.message
        return f"{self.outcome:8} {self.name}" + (f" ({detail})" if detail else "")


@dataclass(frozen=True)
class Report:
    """The results of all checks of one registered name."""

    kind: str  # method, backbone, dataset, aggregator, interaction or head
    name: str
    options: Mapping[str, Any]  # the options of the request
    results: tuple[CheckResult, ...]

    @property
    def count(self) -> int:
        """The number of checks that ran, passed or failed."""
        return sum(result.outcome != "skipped" for result in self.results)

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that failed."""
        return tuple(result for result in self.results if result.outcome == "failed")

    @property
    def passed(self) -> bool:
        """True if at least one check ran and none failed."""
        return self.count > 0 and not self.failed

    def to_text(self, *, failed_only: bool = False) -> str:
        """Return a line for each check and a summary, or the same for failed checks only."""
        shown = self.failed if failed_only else self.results
        return "\n".join([*(result.to_text() for result in shown), self.summary()])

    def summary(self) -> str:
        """Return the numbers of passed, failed and skipped checks, in a line."""
        if not self.count:
            return f"{self.kind} {self.name}: no check ran, so nothing is known about it"
        numbers = {outcome: sum(r.outcome == outcome for r in self.results) for outcome in ("passed", "failed")}
        skipped = len(self.results) - self.count
        return f"{self.kind} {self.name}: {numbers['passed']} passed, {numbers['failed']} failed, {skipped} skipped"

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values, ready for JSON."""
        options = {key: json.loads(json.dumps(value, default=str)) for key, value in self.options.items()}
        return {
            "kind": self.kind,
            "name": self.name,
            "options": options,
            "passed": self.passed,
            "count": self.count,
            "checks": [asdict(result) for result in self.results],
        }

    def raise_if_failed(self) -> Report:
        """Return the report if it passed.

        Raises:
            ConformanceError: a check failed, or no check ran.
        """
        if not self.passed:
            raise ConformanceError(self)
        return self


def run_checks(kind: str, name: str, options: Mapping[str, Any], checks: Sequence[Check[T]], subject: T) -> Report:
    """Run checks in their order and return their report; a check is skipped if a check that it needs failed."""
    results: list[CheckResult] = []
    broken: set[str] = set()  # checks that failed, and checks that need one of them
    for one in checks:
        if lacking := [name for name in one.needs if name in broken]:
            results.append(CheckResult(one.name, one.claim, "skipped", message=f"it needs: {', '.join(lacking)}"))
        else:
            results.append(_run(one, subject))
        if lacking or results[-1].outcome == "failed":
            broken.add(one.name)
    return Report(kind, name, options, tuple(results))


def _run(one: Check[T], subject: T) -> CheckResult:
    """Run a check. An exception of the checked code is a failure with the line of this code and the remedy."""
    try:
        return CheckResult(one.name, one.claim, "passed", ran=one.run(subject) or "")
    except CheckSkipped as reason:
        return CheckResult(one.name, one.claim, "skipped", message=str(reason))
    except CheckFailed as failure:
        return CheckResult(one.name, one.claim, "failed", message=str(failure))
    except CzslkitError as error:  # its message says what to change
        return CheckResult(one.name, one.claim, "failed", message=f"{type(error).__name__}: {error}")
    except (Exception, SystemExit) as error:
        return CheckResult(one.name, one.claim, "failed", message=f"{describe(error)}\n{one.remedy}")


def describe(error: BaseException) -> str:
    """Return the type and the message of an exception, and the line of the checked code that led to it."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_called(frame.filename)]
    if not frames:
        return text
    return f"{text}\nat {frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}: {frames[-1].line}"


def _is_called(file: str) -> bool:
    """Return whether a file belongs to Python or to a package that checked code calls."""
    specs = (find_spec(name) for name in _CALLED_PACKAGES)
    folders = [Path(spec.origin).parent for spec in specs if spec and spec.origin]
    path, standard = Path(file), Path(sysconfig.get_path("stdlib"))
    in_standard = standard in path.parents and "site-packages" not in path.parts
    return file.startswith("<") or in_standard or any(folder in path.parents for folder in folders)
