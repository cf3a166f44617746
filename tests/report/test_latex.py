"""LaTeX that fits the text of an article, compiled by pdfLaTeX where it is installed."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from czslkit.report.asked import Asked
from czslkit.report.paper_names import PaperName
from czslkit.report.table import Table

Make = Callable[..., dict[str, Any]]
HOSTILE = "\x1b[31m<script>a_b&c|50%#$~^\\{x}\x1b[0m"
LONG = "/a/very/long/path/without/any/space/" + "x" * 90
PAPERS = ("mit-states", "ut-zappos", "cgqa")
NAMES = Asked(
    names={
        "method": {
            "csp": PaperName("CSP", "@inproceedings{nayak2023csp, title = {Soft Prompts}, year = {2023}}"),
            "clip": PaperName("CLIP", "@misc{radford2021clip, title = {CLIP}, year = {2021}}"),
            "mine": PaperName("α-Mïne & Łukasz_50%", "someone2026"),
        },
        "dataset": {
            "cgqa": PaperName("C-GQA", "@misc{naeem2021, title = {C-GQA}}"),
            "ut-zappos": PaperName("UT-Zappos"),
        },
    }
)


def grid_table(
    result: Make,
    methods: Sequence[str] = ("clip", "csp", "mine"),
    datasets: Sequence[str] = PAPERS,
    seeds: int = 2,
    attached: Any = None,
    more: Sequence[Any] = (),
    stale: str = "",
) -> Table:
    cells = itertools.product(methods, datasets, ("closed", "open"), range(seeds))
    results = [result(*cell, auc=0.1 + 0.03 * cell[3] + 0.01 * len(cell[0])) for cell in cells]
    results = [{**one, "stale": stale} if stale else one for one in results]
    intervals = attached is not None
    return Table([*results, *more], mixed=True, asked=NAMES, attached=attached, intervals=intervals)


def test_there_is_a_float_for_each_world_with_a_label_and_the_protocol_in_a_note(result: Make) -> None:
    text = grid_table(result).to_latex()
    assert re.findall(r"\\label\{(.*?)\}", text) == ["tab:results-closed", "tab:results-open"]
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    closed, opened = text.split(r"\begin{table}")[1:]
    assert r"\caption{Results in the closed world. In each column" in closed
    assert closed.count(r"\parbox{\linewidth}{\footnotesize\raggedright All numbers are percentages.") == 1
    assert r"{\footnotesize\raggedright Numbers as in Table~\ref{tab:results-closed}.}" in opened
    assert r"CSP~\cite{nayak2023csp} & \textbf{70.0 $\pm$ 0.0} & \textbf{60.0 $\pm$ 0.0} & " in closed
    assert closed.index(r"\toprule") < closed.index(r"\cmidrule") < closed.index(r"\midrule")


def test_as_many_datasets_are_side_by_side_as_fit(result: Make) -> None:
    def columns(table: Table, wide: bool = False) -> list[int]:
        return [len(found) // 4 for found in re.findall(r"\{tabular\}\{l(r+)\}", table.to_latex(wide))]

    assert columns(grid_table(result, ("clip", "csp"), seeds=1)) == [3, 3]
    assert columns(grid_table(result)) == [1, 1, 1] * 2
    assert columns(grid_table(result, ("clip", "csp")), wide=True) == [3, 3]
    assert columns(grid_table(result, datasets=("demo",))) == [1, 1]


def test_a_wide_table_is_small_and_has_spreads_below_the_means(result: Make) -> None:
    text = grid_table(result).to_latex(wide=True)
    assert r"\begin{table*}" in text and r"\begin{table}" not in text
    assert re.search(r"\\(small|footnotesize)\\setlength\{\\tabcolsep\}\{\dpt\}", text)
    assert (
        r"CLIP~\cite{radford2021clip} & \textbf{70.0}" in text or r"CLIP~\cite{radford2021clip} & 70.0 & 60.0" in text
    )
    assert r" & {\scriptsize $\pm$0.0} & {\scriptsize $\pm$0.0}" in text


def test_names_in_papers_stand_before_the_settings_of_a_row(result: Make) -> None:
    results = [result(config={"train": {"lr": lr}}, config_id=str(lr)) for lr in (0.1, 0.2)]
    text = Table(results, asked=NAMES).to_latex()
    assert r"CSP~\cite{nayak2023csp} lr=0.1 & " in text
    assert r"\multicolumn{4}{c}{demo}" in text


def test_the_bibliography_has_the_entries_that_are_cited_and_no_others(result: Make) -> None:
    text = grid_table(result, methods=("csp", "mine"), datasets=("cgqa",)).to_bibtex()
    assert re.findall(r"@\w+\{(\w+)", text) == ["nayak2023csp", "naeem2021"]


def test_hostile_names_are_shown_as_they_are(result: Make) -> None:
    text = Table([result(HOSTILE), result("[x]"), result("*y"), result("mine")], asked=NAMES).to_latex()
    shown = text.replace(r"\allowbreak{}", "")
    name = r"\textless{}script\textgreater{}a\_b\&c\textbar{}50\%\#\$\textasciitilde{}\textasciicircum{}"
    assert name + r"\textbackslash{}\{x\}" in shown
    assert "\n{[}x] & " in text  # after the \\ of the line before, a bare bracket or star would be read as its argument
    assert "\n{*}y & " in text
    assert r"U+03B1-M\"{i}ne \& \L{}ukasz\_50\%~\cite{someone2026}" in shown


def test_an_error_cannot_leave_its_latex_comment(failed: Make) -> None:
    text = Table([failed({"type": "DataError", "message": "a\nb\r\\input{x}\x0b\u2028c"})]).to_latex()
    after = text.split("\\end{table}\n")[1]
    assert all(line.startswith("% ") for line in after.splitlines())


def printed_note(text: str) -> str:
    """Return what is printed below the first table."""
    note = text.split(r"\parbox{\linewidth}")[1].split("\n")[0]
    return note.replace(r"\allowbreak{}", "")


def test_notes_on_the_numbers_are_printed_and_errors_are_comments(result: Make, failed: Make) -> None:
    error = {"type": "DataError", "message": "no images", "traceback": ""}
    made = {**result(), "left_out": {"test": {"images": 3, "of": 40}}, "stale": "code: changed"}
    other = {**result("clip"), "recipe": {"name": "a/b", "changed": []}}
    text = Table([made, other, failed(error, seed=1)]).to_latex()
    for note in (
        "csp on demo (closed): 1 of 2 seeds finished.",
        "demo: left out, because their pair is in no list: 3 of 40 test images.",
        "csp on demo: no recipe; ",
        "csp on demo (closed, seed 0): kept although it is stale: code: changed.",
    ):
        assert note in printed_note(text)
    assert "no images" not in printed_note(text)
    assert "% failed: csp on demo (closed, seed 1): DataError: no images\n" in text


def test_long_notes_are_shortened_and_many_counted_but_whole_in_the_source(result: Make) -> None:
    many = [{**result(seed=seed), "stale": f"code: {'x ' * 400}"} for seed in range(9)]
    text = Table(many).to_latex()
    assert printed_note(text).count(r" x \ldots{}") == 4
    assert "5 more notes are in the source of this table." in printed_note(text)
    assert text.count(f"% csp on demo (closed, seed 8): kept although it is stale: code: {'x ' * 400}\n") == 1


def problems(text: str, bibliography: str, folder: Path) -> list[str]:
    """Compile a table in an article; return the errors, the boxes that are too wide and the undefined references."""
    (folder / "table.tex").write_text(text, encoding="utf-8")
    (folder / "table.bib").write_text(bibliography, encoding="utf-8")
    (folder / "article.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table}"
        r"\bibliographystyle{plain}\bibliography{table}\end{document}"
    )
    latex = ("pdflatex", "-interaction=nonstopmode", "-no-shell-escape", "article")
    for program in (latex, ("bibtex", "article"), latex, latex):
        subprocess.run(program, cwd=folder, capture_output=True, timeout=60)
    log = (folder / "article.log").read_text(encoding="utf-8", errors="replace")
    assert (folder / "article.pdf").is_file()
    found = re.findall(r"^(?:!|Overfull|LaTeX Warning: (?:Float|Reference|Label)).*", log, re.MULTILINE)
    return found + re.findall(r"LaTeX Warning: Citation `(?!someone).*", log)


TABLES: dict[str, dict[str, Any]] = {
    "papers": {},
    "one seed": {"seeds": 1},
    "five datasets": {
        "datasets": (*PAPERS, "demo", "a-dataset-with-a-name-that-is-much-too-long-for-a-column-of-numbers")
    },
    "long names": {"methods": ("csp", LONG, HOSTILE, "x y" * 40, "MWMWMWMWMWMWMWMWMWMWMWMWMWMW")},
    "many rows": {"methods": [f"method-{n}" for n in range(60)], "datasets": PAPERS[:2]},
    "many notes": {"methods": [f"method-{n}" for n in range(60)], "datasets": PAPERS[:2], "stale": f"{LONG} {HOSTILE}"},
    "ties": {"methods": ("best", "tied", "poor")},
}


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex, from Debian's texlive-latex-recommended")
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("kind", TABLES)
def test_a_table_compiles_and_fits_the_text_of_an_article(
    kind: str, wide: bool, result: Make, attached: Any, failed: Make, tmp_path: Path
) -> None:
    error = {"type": "DataError", "message": HOSTILE, "traceback": ""}
    options = TABLES[kind] | ({"attached": attached} if kind == "ties" else {})
    table = grid_table(result, more=[failed(error, method="clip", dataset="mit-states", seed=7)], **options)
    assert problems(table.to_latex(wide), table.to_bibtex(), tmp_path) == []


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex, from Debian's texlive-latex-recommended")
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("changed", [False, True])
def test_published_numbers_fit_the_text_of_an_article(changed: bool, wide: bool, result: Make, tmp_path: Path) -> None:
    numbers = {"S": 49.1, "U": 48.25, "H": 35.4, "AUC": 19.03, "source": "Table 1 of a paper_with & signs 50%"}
    spread = {"spread": {"S": 0.25, "U": 0.31, "H": 0.18, "AUC": 0.11, "what": "standard error over 5 seeds"}}
    more = [
        {
            **result("dfsp-t2i", dataset, world, seed),
            "published": numbers | spread,
            "recipe": {"name": "a/b", "changed": ["train.lr", "a.long_setting_with_a_path/" + LONG] if changed else []},
        }
        for dataset, world, seed in itertools.product(PAPERS, ("closed", "open"), (0, 1))
    ]
    table = grid_table(result, more=more)
    text = table.to_latex(wide)
    assert r"\label{tab:published-open}" in text
    assert problems(text, table.to_bibtex(), tmp_path) == []
