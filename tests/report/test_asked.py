"""The order in which cells were asked for, and the failed cells that no later command asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from czslkit.cli import main
from czslkit.options import config_id
from czslkit.report.asked import ASKED_FILE, Asked, Command, read_asked, remember
from czslkit.report.paper_names import PaperName, paper_name
from czslkit.report.table import Table
from czslkit.result_store import Store

Make = Callable[..., dict[str, Any]]
ID, MISTYPED = config_id({}), {"options": {"backbone": "dmeo"}}
ERROR = {"type": "DataError", "message": "toys is absent", "traceback": "Traceback ..."}


def command(methods: str, datasets: str = "demo", config: str = ID, seeds: Sequence[int] = (0,)) -> Command:
    rows = tuple((dataset, method, config) for dataset in datasets.split() for method in methods.split())
    return Command(rows, tuple(seeds), ("closed",))


def asked(*commands: Command) -> Asked:
    found = Asked()
    for one in commands:
        found = found.then(one, {})
    return found


def rows(result: Make, commands: Sequence[Command], names: str = "a b c") -> tuple[str, ...]:
    return Table([result(name, config_id=ID) for name in names.split()], asked=asked(*commands)).arrangement.rows


def test_rows_are_in_the_order_asked_for_and_then_by_name(result: Make) -> None:
    assert rows(result, [command("c a")]) == ("c", "a", "b")
    assert rows(result, [command("b a"), command("c b")]) == ("b", "a", "c")
    assert rows(result, []) == ("a", "b", "c")


def test_a_command_takes_the_place_of_those_whose_cells_it_asks_for(result: Make) -> None:
    assert rows(result, [command("b a"), command("c"), command("a b")]) == ("a", "b", "c")
    assert rows(result, [command("b a"), command("c"), command("b a")]) == ("b", "a", "c")
    assert len(asked(command("a"), command("b"), command("b a", seeds=(0, 1))).commands) == 1
    assert len(asked(command("a", seeds=(0, 1)), command("a")).commands) == 2


def test_a_method_keeps_its_place_where_the_first_dataset_lacks_it(result: Make) -> None:
    cells = [("a", "cgqa"), ("c", "cgqa"), ("a", "demo"), ("b", "demo"), ("c", "demo")]
    results = [result(*cell, config_id=ID) for cell in cells]
    table = Table(results, asked=asked(command("a b c", "cgqa demo")))
    assert table.arrangement.rows == ("a", "b", "c")
    assert table.arrangement.columns == (("cgqa", "closed"), ("demo", "closed"))


def test_configurations_of_a_method_are_in_the_order_asked_for(result: Make) -> None:
    configs = {"x": 0.3, "y": 0.1, "z": 0.2}
    results = [result(config={"train": {"lr": lr}}, config_id=name) for name, lr in configs.items()]
    commands = [command("csp", config=name) for name in "zxy"]
    assert Table(results, asked=asked(*commands)).arrangement.rows == ("csp lr=0.2", "csp lr=0.3", "csp lr=0.1")


@pytest.fixture
def runs(tmp_path: Path, result: Make, failed: Make) -> Path:
    """Return a folder with finished results of a and b, and failed ones of a mistyped dataset and setting."""
    store = Store(tmp_path)
    for cell in (("b", "demo"), ("a", "demo"), ("a", "cgqa"), ("b", "cgqa")):
        store.put(result(*cell, config_id=ID))
    store.put(failed(ERROR, method="a", dataset="dmeo", config_id=ID))
    store.put(failed(ERROR, method="a", config=MISTYPED, config_id=config_id(MISTYPED)))
    return tmp_path


def test_failed_cells_that_the_last_command_did_not_ask_for_are_left_out(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", str(runs)]) == 0  # no command is known
    assert "failed" in capsys.readouterr().out
    remember(runs, command("b a", "demo cgqa"), {}, print)
    assert main(["table", str(runs)]) == 0
    shown = capsys.readouterr()
    assert "left out: 2 failed cells that the last czslkit bench did not ask for; --failed shows them" in shown.err
    assert [line.split()[0] for line in shown.out.splitlines()[:9] if line] == [
        *("demo", "method", "b", "a"),
        *("cgqa", "method", "b", "a"),
    ]
    assert main(["table", str(runs), "--failed"]) == 0
    everything = capsys.readouterr()
    assert "dmeo" in everything.out and "a backbone=dmeo" in everything.out and not everything.err
    assert main(["report", str(runs)]) == 0
    assert "left out: 2 failed cells" in capsys.readouterr().err
    assert "dmeo" not in (runs / "report.html").read_text()


def test_a_failed_cell_of_the_last_command_is_shown(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remember(runs, command("a", "dmeo"), {}, print)
    assert main(["table", str(runs)]) == 0
    shown = capsys.readouterr()
    assert "dmeo" in shown.out and "left out: 1 failed cell that" in shown.err


def test_only_failed_cells_that_nobody_asked_for_are_an_error(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remember(runs, command("a"), {}, print)
    assert main(["table", str(runs), "--datasets", "dmeo"]) == 1
    assert "there are only 1 failed cell that the last czslkit bench did not ask for" in capsys.readouterr().err


def test_cells_that_were_asked_for_and_have_no_result_are_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = "asked for, but without a result: b on demo (1 of 2 cells), c on demo (2 of 2 cells)"
    remember(runs, command("b c", seeds=(0, 1)), {}, print)
    assert main(["table", str(runs)]) == 0
    assert note in " ".join(capsys.readouterr().out.split())
    assert main(["table", str(runs), "--methods", "c", "a", "--format", "markdown"]) == 2
    assert main(["table", str(runs), "--methods", "a", "--format", "markdown"]) == 0
    assert "without a result" not in capsys.readouterr().out
    remember(runs, command("b a", "demo cgqa"), {}, print)
    assert main(["table", str(runs), "--format", "markdown"]) == 0
    assert "without a result" not in capsys.readouterr().out


def test_selected_names_are_in_the_order_of_the_selection(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remember(runs, command("b a", "demo cgqa"), {}, print)
    assert main(["table", str(runs), "--methods", "a, b", "--datasets", "cgqa,demo", "--format", "csv"]) == 0
    lines = [line.split(",")[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines == [["a", "cgqa"], ["b", "cgqa"], ["a", "demo"], ["b", "demo"]]


DAMAGED: list[Any] = [
    "",
    "[]",
    "{}",
    '{"format": 2}',
    '{"format": 1, "commands": [], "last": 0, "names": {}}',
    '{"format": 1, "commands": [{"rows": [["a", "b"]], "seeds": [0], "worlds": []}], "last": 0, "names": {}}',
    '{"format": 1, "commands": [{"rows": [["a", "b", 3]], "seeds": [0], "worlds": []}], "last": 0, "names": {}}',
    '{"format": 1, "commands": [], "last": ' + "9" * 5000 + ', "names": {}}',
    "[" * 100_000,
]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_record_is_told_and_replaced(content: str, tmp_path: Path) -> None:
    (tmp_path / ASKED_FILE).write_text(content)
    lines: list[str] = []
    assert read_asked(tmp_path, lines.append) == Asked()
    assert len(lines) == 1 and f"{tmp_path / ASKED_FILE} cannot be used" in lines[0]
    remember(tmp_path, command("a"), {}, lines.append)
    assert read_asked(tmp_path, print) == asked(command("a")).then(command("a"), {})


def test_a_folder_in_place_of_the_record_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / ASKED_FILE).mkdir()
    lines: list[str] = []
    assert remember(tmp_path, command("a"), {}, lines.append).last == command("a")
    assert "cannot be kept in" in lines[-1]


def test_names_in_papers_are_kept(tmp_path: Path) -> None:
    names = {"method": {"csp": PaperName("CSP", "@article{k, title = {x}}")}, "dataset": {"cgqa": PaperName("C-GQA")}}
    remember(tmp_path, command("csp"), names, print)
    remember(tmp_path, command("mine"), {"method": {"mine": PaperName("Mine")}}, print)
    found = read_asked(tmp_path, print)
    assert [found.name("method", name).display_name for name in ("csp", "mine", "clip")] == ["CSP", "Mine", "clip"]
    assert found.name("method", "csp").key == "k" and found.name("dataset", "cgqa").display_name == "C-GQA"
    assert json.loads((tmp_path / ASKED_FILE).read_text())["format"] == 1


class Named:
    display_name = "CSP"
    citation = "nayak2023csp"


class Derived(Named):
    pass


def test_a_subclass_has_no_name_of_its_base() -> None:
    assert paper_name(Named, "csp") == PaperName("CSP", "nayak2023csp")
    assert paper_name(Derived, "mine") == PaperName("mine", "")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"display_name": 3}, r"display_name of .*Wrong.* is 3, expected a text"),
        ({"citation": "@article{}"}, r"citation of .*Wrong.* starts with '@article\{\}', expected a BibTeX entry"),
        ({"citation": "two words"}, r"starts with 'two words'"),
        ({"citation": r"a}\input{b"}, r"starts with 'a}\\\\input\{b'"),
    ],
)
def test_a_wrong_name_is_told(attributes: dict[str, Any], message: str) -> None:
    from czslkit.errors import PluginError

    with pytest.raises(PluginError, match=message):
        paper_name(type("Wrong", (), attributes), "wrong")
