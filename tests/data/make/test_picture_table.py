from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from czslkit.data.layout import metadata_file
from czslkit.data.make.dataset_import import import_dataset
from czslkit.data.metadata import read_metadata

Table = Callable[..., Path]
Refused = Callable[[Path, str], str]


def test_splits_of_a_table_are_kept(tmp_path: Path, table: Table, all_rows: list[str]) -> None:
    rows = [f"{row},{('train', 'val', 'test', 'train')[n % 4]}" for n, row in enumerate(all_rows)]
    folder = import_dataset(table(*rows, header="image,attr,obj,split"), "mine", tmp_path)
    assert {i.image[-5]: i.set for i in read_metadata(metadata_file(folder))} == {
        "0": "train",
        "1": "val",
        "2": "test",
        "3": "train",
    }


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("wet_dog/0.png,wet", "line 2: the row has more or fewer cells than the first line"),
        ("wet_dog/0.png,wet,dog,train", "line 2: the row has more or fewer cells than the first line"),
        ("wet_dog/9.png,wet,dog", "line 2: there is no image '.*wet_dog/9.png'"),
        ("wet_dog/0.png,,dog", "line 2: attr is '', which means that the label is missing"),
        ("wet_dog/0.png,wet,NaN", "line 2: obj is 'NaN', which means that the label is missing"),
        ("wet_dog/0.png,NA,dog", "line 2: attr is 'NA', which means that the label is missing"),
        ("wet_dog/0.png,../wet,dog", r"line 2: attr is '../wet', expected printable characters without '/' and '\\'$"),
        ("table.csv,wet,dog", "line 2: 'table.csv' has no image suffix; expected .avif, .bmp, .gif"),
        (f"{'x' * 5000}.png,wet,dog", "line 2: there is no image '.{300}'$"),
        ("wet_dog/1.png,wet,dog\nwet_dog/./1.png,old,dog", "line 3: 'wet_dog/./1.png' is also the image of line 2"),
    ],
)
def test_mistakes_in_rows_are_named_by_their_lines(row: str, said: str, table: Table, refused: Refused) -> None:
    refused(table(row), said)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("image,attribute,obj", "has no column attr; the first line has 'image', 'attribute', 'obj'"),
        ("image,attr,obj,attr", "has more than one column attr"),
        ("image,attr,obj,split,set", "has two columns of splits: split and set"),
        ("image,attr,obj", "has no rows after its first line"),
    ],
)
def test_a_table_with_wrong_columns_or_no_rows_is_refused(
    header: str, said: str, table: Table, refused: Refused
) -> None:
    refused(table(header=header), said)


def test_an_unknown_split_is_refused(table: Table, refused: Refused) -> None:
    file = table("wet_dog/0.png,wet,dog,dev", header="image,attr,obj,split")
    refused(file, "line 2: split is 'dev', expected train, val, test")


def test_a_table_that_is_not_text_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "table.csv").write_bytes(b"image,attr,obj\n\xff,wet,dog\n")
    refused(tmp_path / "table.csv", "table.csv is not a readable table: .*0xff")


def test_tabs_separate_the_columns_of_a_tsv(photos: Path, tmp_path: Path, all_rows: list[str]) -> None:
    file = photos / "table.tsv"
    file.write_text("\n".join(("image\tattr\tobj", *(row.replace(",", "\t") for row in all_rows))))
    assert len(read_metadata(metadata_file(import_dataset(file, "mine", tmp_path)))) == 36
