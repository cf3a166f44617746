"""``czslkit plot`` writes one figure, and says why if there is nothing to draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from czslkit.cli import main
from czslkit.cli.plot import FIGURES

from ..report.many_cells import write_many_cells

Plot = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One method on five datasets, in both worlds, with one seed; without curves."""
    folder = tmp_path_factory.mktemp("runs")
    write_many_cells(folder, 100)
    for path in folder.rglob("seed[1-9]*"):
        for file in path.iterdir():
            file.unlink()
    return folder


@pytest.fixture
def plotted(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Plot:
    """Run ``czslkit plot``; returns exit status, standard output and standard error."""

    def go(*arguments: object) -> tuple[int, str, str]:
        status = main(["plot", str(runs), *map(str, arguments)])
        return status, *capsys.readouterr()

    return go


def inches(file: Path) -> float:
    with Image.open(file) as picture:
        return round(picture.width / 300, 2)


@pytest.mark.parametrize(("options", "width"), [([], 3.3), (["--wide"], 6.9)])
def test_a_figure_has_a_panel_for_each_dataset_and_the_width_of_a_column_or_of_the_text(
    plotted: Plot, tmp_path: Path, options: list[str], width: float
) -> None:
    file = tmp_path / "training.png"
    assert plotted("--what", "training", "--out", file, *options) == (0, f"{file}\n", "")
    assert inches(file) == width
    with Image.open(file) as picture:
        five = picture.height
    plotted("--what", "training", "--out", file, "--datasets", "data0", "--metric", "loss", *options)
    with Image.open(file) as picture:
        assert picture.height < five


def test_a_figure_without_a_name_is_a_pdf_in_the_folder_of_results(plotted: Plot, runs: Path) -> None:
    assert plotted("--what", "bars", "--world", "open", "--metric", "H") == (0, f"{runs / 'bars.pdf'}\n", "")
    assert (runs / "bars.pdf").read_bytes().startswith(b"%PDF")


def test_words_are_drawn_of_one_dataset(plotted: Plot, tmp_path: Path) -> None:
    file = tmp_path / "a.svg"
    status, _, err = plotted("--what", "objects", "--out", file)
    assert (status, file.exists()) == (2, False)
    assert "results are of several datasets: data0, data1, data2, data3, data4. Choose one of them" in err
    assert plotted("--what", "objects", "--out", file, "--datasets", "data1", "--most", 3)[0] == 0
    assert file.read_text().count(" (12)") == 3


def test_a_figure_without_a_number_is_written_and_ends_with_the_reason(plotted: Plot, tmp_path: Path) -> None:
    file = tmp_path / "a.svg"
    status, out, err = plotted("--what", "curve", "--datasets", "data0", "--out", file)
    assert (status, out) == (1, "")
    assert err.startswith(f"czslkit: there is nothing to draw in {file}: accuracy on unseen pairs, %")
    assert "no curve.csv is stored" in err and "no curve.csv is" in file.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--what", "curve", "--metric", "H"), "--metric is for --what training and bars, not curve"),
        (("--what", "bars", "--most", "3"), "--most is for --what attributes and objects and confusion, not bars"),
        (("--what", "bars", "--metric", "h"), "the metric is 'h', expected one of S, U, H, AUC"),
        (("--what", "bars", "--out", "a.jpg"), "a figure cannot be written to 'a.jpg': expected a name that ends in"),
        (("--what", "bars", "--methods", "cps"), "has no results of cps. Known: method0."),
    ],
)
def test_a_wrong_option_ends_with_two_and_what_it_may_be(plotted: Plot, arguments: tuple[str], message: str) -> None:
    status, out, err = plotted(*arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_figures_have_no_option_for_published_numbers_which_they_do_not_draw(plotted: Plot) -> None:
    with pytest.raises(SystemExit):
        plotted("--what", "bars", "--published")


def test_every_figure_has_its_function() -> None:
    from czslkit import plot

    assert set(FIGURES) <= set(plot.__all__)
