from __future__ import annotations

import numpy as np
from PIL import Image

from czslkit.cli import main


def test_minis_are_written(tmp_path, capsys):
    assert main(["data", "mini", "ut-zappos", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'ut-zappos'}\n"
    assert main(["data", "mini", "ut-zapos", "--out", str(tmp_path)]) == 2
    assert "Did you mean 'ut-zappos'" in capsys.readouterr().err


def test_replicas_that_exist_stay_unchanged(tmp_path, capsys):
    kept = tmp_path / "cgqa" / "kept.txt"
    kept.parent.mkdir()
    kept.touch()
    assert main(["data", "mini", "all", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert sorted(out.splitlines()) == [str(tmp_path / "mit-states"), str(tmp_path / "ut-zappos")]
    assert err == f"{tmp_path / 'cgqa'} exists already and stays unchanged\n"
    assert list(kept.parent.iterdir()) == [kept]


def test_an_import_warns_of_a_split_without_unseen_pairs(tmp_path, capsys):
    lines = ["image,attr,obj,split"]
    for attr, obj in (("wet", "cat"), ("dry", "dog")):
        for split in ("train", "val", "test"):
            name = f"{attr}{obj}{split}.png"
            Image.fromarray(np.full((8, 8, 3), len(lines), np.uint8)).save(tmp_path / name)
            lines.append(f"{name},{attr},{obj},{split}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    assert main(["data", "import", str(tmp_path / "table.csv"), "--name", "mine", "--data", str(tmp_path)]) == 0
    err = capsys.readouterr().err
    assert "warning: val_pairs.txt lists no unseen pair\n" in err
    assert "the epoch is selected by the validation accuracy\n" in err
