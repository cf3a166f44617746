from __future__ import annotations

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
