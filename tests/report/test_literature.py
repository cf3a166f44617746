"""Published rows beside ours, and the recipes' numbers against them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from czslkit.cli import main
from czslkit.metrics.names import METRICS
from czslkit.report.asked import Asked
from czslkit.report.literature import BACKBONE, published_rows
from czslkit.report.paper_names import PaperName
from czslkit.report.table import Table
from czslkit.result_store import Store

CONFIGS = Path(__file__).parents[2] / "configs"

#: The names in the file, by the names of our recipes.
METHODS = {
    "clip": "CLIP (zero-shot)", "coop": "CoOp", "csp": "CSP", "gipcol": "GIPCOL", "dfsp-t2i": "DFSP(t2i)",
    "dfsp-i2t": "DFSP(i2t)", "dfsp-bif": "DFSP(BiF)", "troika": "Troika", "msci": "MSCI", "caila": "CAILA",
    "tomcat": "TOMCAT",
}  # fmt: skip


@pytest.fixture
def table(result: Any) -> Any:
    """Return a table with published rows of results of CSP on datasets."""

    def make(*datasets: str, asked: tuple[str, ...] = (), config: Any = None) -> Table:
        results = [result(dataset=dataset, config=config) for dataset in datasets]
        return Table(results, asked=Asked(datasets=asked), published=True)

    return make


def test_every_row_has_a_source_and_at_least_one_percentage() -> None:
    rows = published_rows()
    assert len(rows) > 150
    assert len({(row.label, row.dataset, row.world) for row in rows}) == len(rows)
    for row in rows:
        assert row.source and row.numbers and set(row.numbers) <= set(METRICS)
        assert all(0 < value < 100 for value in row.numbers.values())
        assert (row.dataset in ("mit-states", "ut-zappos", "cgqa")) and row.world in ("closed", "open")


def test_rows_of_another_encoder_are_not_shown() -> None:
    closed = {
        row.dataset: row.numbers["AUC"] for row in published_rows() if (row.method, row.world) == ("CAILA", "closed")
    }
    assert closed == {"mit-states": 23.4, "ut-zappos": 44.1, "cgqa": 14.8}  # with ViT-B/32: 16.1, 39.0, 10.4


def test_the_recipes_expect_the_published_numbers() -> None:
    """A difference is an error unless the published rows say what other sources print."""
    rows = {(row.method, row.dataset, row.world): row for row in published_rows()}
    compared, differing = 0, []
    for file in sorted(CONFIGS.glob("*/*.yaml")):
        recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
        for world, expected in (recipe.get("expected") or {}).items():
            row = rows.get((METHODS.get(recipe["method"], ""), file.parent.name, world))
            if row is None:  # of another encoder
                assert "ViT-L-14" not in str(recipe["options"]["backbone"])
                continue
            compared += 1
            unlike = {name for name in METRICS if row.numbers.get(name) != expected[name]}
            differing += [(file.stem, world, name) for name in unlike if f"{name} is" not in row.disagreement]
            assert dict(row.spread) == {name: expected.get("spread", {})[name] for name in row.spread}
            assert bool(row.disagreement) == ("disagreement" in expected)
    assert compared > 50
    assert differing == []


def test_every_disagreement_names_the_shipped_number_and_another_one() -> None:
    rows = [row for row in published_rows() if row.disagreement]
    assert len(rows) == 8
    for row in rows:
        metric, own, other = re.fullmatch(r"(\w+) is ([\d.]+) in .+ ; ([\d.]+) in .+", row.disagreement).groups()  # type: ignore[union-attr]
        assert row.numbers[metric] == float(own) != float(other)


def test_the_rows_stand_below_ours_and_are_marked(table: Any) -> None:
    made = table("cgqa")
    text = made.to_text()
    lines = text.splitlines()
    assert re.fullmatch(r"csp +70\.0 +60\.0 +50\.0 +40\.0", lines[2])
    assert re.fullmatch(r"CSP \(published\) +28\.8 +26\.8 +20\.5 +6\.2", lines[6])
    assert re.search(r"Troika \(published\) +41\.0 ± 0\.2 +35\.7 ± 0\.3 +29\.4 ± 0\.2 +12\.4 ± 0\.1", text)
    assert "Rows marked (published) were not measured here: they are numbers of papers with CLIP ViT-L/14" in text
    assert "The ± of these rows is: Troika: standard error over 5 random seeds; ClusPro: not defined" in text
    assert re.search(r"^published rows are from: CLIP \(zero-shot\), CoOp, .+: arXiv 2303\.15230 Table 2", text, re.M)
    assert "DFSP(t2i) on cgqa (closed) as published: U is 32.0 in" in text and "*" not in text


def test_a_part_of_the_columns_has_the_rows_with_numbers_in_it(result: Any) -> None:
    made = Table(
        [result(dataset="cgqa"), result(dataset="demo")], asked=Asked(datasets=("demo", "cgqa")), published=True
    )
    (grid,) = [grid for grid in made._blocks("world")[0].grids if grid.corner == "closed"]
    demo, cgqa = grid.split()
    assert ([label for label, _ in demo.rows], len(cgqa.rows)) == (["csp"], len(grid.rows))


def test_no_published_number_has_a_rank(result: Any) -> None:
    made = Table([result("csp", "cgqa"), result("msci", "cgqa", auc=0.01)], published=True)
    assert re.search(r"^csp .+ \*40\.0\*$", made.to_text(), re.M)
    assert not re.search(r"\(published\).*[*_]\d", made.to_text())


def test_markdown_html_and_latex_have_the_rows_too(table: Any) -> None:
    made = table("cgqa")
    assert "| CSP (published) | 28.8 | 26.8 | 20.5 | 6.2 |" in made.to_markdown()
    assert '<tr><th scope="row">CSP (published)</th>' in made.to_html()
    assert re.search(r"CSP \(published\).* & 28\.8 & 26\.8 & 20\.5 & 6\.2 \\\\", made.to_latex())


def test_latex_cites_the_methods_that_it_knows(result: Any) -> None:
    names = {"method": {"csp": PaperName("CSP", "@inproceedings{nayak2023csp, title = {C}}")}}
    made = Table([result(dataset="cgqa")], asked=Asked(names=names), published=True)
    assert re.search(r"CSP~\\cite\{nayak2023csp\} \(published\).* & 28\.8", made.to_latex())
    assert "@inproceedings{nayak2023csp, title = {C}}" in made.to_bibtex()


def test_csv_has_fractions_in_the_columns_of_published_numbers(table: Any) -> None:
    lines = list(csv.DictReader(io.StringIO(table("cgqa").to_csv())))
    (line,) = [line for line in lines if line["method"].startswith("Troika (")]
    assert (line["done"], line["auc_mean"], line["auc_published"], line["auc_spread"]) == ("0", "", "0.124", "0.001")
    assert line["published_source"] == "arXiv 2303.15230 Table 2 (author image Troika-SOTA.png)"
    assert (lines[0]["done"], lines[0]["auc_n"], lines[0]["auc_mean"], lines[0]["auc_published"]) == (
        "1",
        "1",
        "0.4",
        "",
    )


def test_json_says_that_they_were_not_measured_here(table: Any) -> None:
    content = json.loads(table("cgqa").to_json())
    (row,) = [row for row in content["literature"] if row["method"] == "MSCI" and row["world"] == "closed"]
    assert row["published"] == {"S": 42.4, "U": 38.2, "H": 31.7, "AUC": 14.2}
    assert (row["measured_here"], row["backbone"], row["source"]) == (False, BACKBONE, "README ltpwy/MSCI")
    assert len(content["rows"]) == 1


def test_without_the_option_there_are_no_rows(result: Any) -> None:
    made = Table([result(dataset="cgqa")])
    assert "published" not in made.to_text() + made.to_csv() + made.to_json()


def test_a_dataset_without_rows_says_so(table: Any) -> None:
    text = table("demo").to_text()
    assert "demo: there are no published rows for it" in text and "Rows marked" not in text


def test_results_that_the_rows_do_not_compare_with_are_named(result: Any, table: Any) -> None:
    text = table("cgqa", config={"options": {"backbone": "demo"}}).to_text()
    assert "csp on cgqa: the backbone is demo, that of the rows is CLIP ViT-L/14" in text
    same = table("cgqa", config={"options": {"backbone": "ViT-L-14-quickgelu/openai"}}).to_text()
    assert "the backbone is" not in same
    mini = result(dataset="cgqa") | {"data_differences": ["train_images: 26920 published, 9 here"]}
    assert "cgqa: the data here are not those of the published rows" in Table([mini], published=True).to_text()


@pytest.mark.parametrize("kind", ["text", "markdown", "latex", "csv", "json", "html"])
def test_a_dataset_without_results_can_be_asked_for(table: Any, kind: str) -> None:
    assert "CSP (published)" in table("demo", asked=("demo", "cgqa")).render(kind) or kind == "json"
    assert "arXiv 2303.15230 Table 2" in table(asked=("cgqa",)).render(kind)


def test_the_command_prints_them(result: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store(tmp_path).put(result() | {"config": {}, "cell": result()["cell"] | {"config_id": "44136fa3"}})
    assert main(["table", str(tmp_path), "--published", "--datasets", "demo", "cgqa"]) == 0
    assert re.search(r"^CSP \(published\)", capsys.readouterr().out, re.M)
    assert main(["table", str(tmp_path), "--published", "--datasets", "cgqa"]) == 0
    assert "demo" not in capsys.readouterr().out
    assert main(["table", str(tmp_path), "--published", "--datasets", "cgq"]) == 2
    assert "has no results of cgq. Known: cgqa, demo, mit-states, ut-zappos." in capsys.readouterr().err
