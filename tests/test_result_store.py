from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from czslkit.errors import CzslkitError
from czslkit.json_digest import with_digest
from czslkit.options import config_id
from czslkit.result_store import Store, differences

DEPENDS = {
    "training": {"data": {"test_pairs.txt": "d1"}, "code": {"czslkit.method:Method": "version 1"}, "weights": "w1"},
    "evaluation": {"code": {"czslkit.evaluation": "version 1"}},
}
CONFIG: dict[str, Any] = {"options": {"context": "a photo of"}, "train": {"lr": 0.005}}


def depending_on(digest: str) -> dict[str, Any]:
    """``DEPENDS`` with another list of test pairs."""
    return {**DEPENDS, "training": DEPENDS["training"] | {"data": {"test_pairs.txt": digest}}}


def done(auc: float = 0.4, **cell: Any) -> dict[str, Any]:
    named = {"method": "csp", "dataset": "demo", "world": "closed", "seed": 0, "config_id": config_id(CONFIG)}
    return {
        "format": 3,
        "cell": named | cell,
        "status": "done",
        "error": None,
        "config": CONFIG,
        "protocol": {"bins": "original"},
        "depends": DEPENDS,
        "metrics": {"auc": auc},
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_cell_lives_under_its_dataset_method_seed_and_configuration(store: Store) -> None:
    cell = done(seed=2)["cell"]
    assert store.folder(cell) == store.root / "demo" / "csp" / "seed2-c8b05ebe"
    assert store.path(cell) == store.folder(cell) / "closed.json"


@pytest.mark.parametrize("name", ["../evil", "a/b", "a\\b", "", ".hidden", "a\nb", "a b"])
@pytest.mark.parametrize("key", ["dataset", "method", "world"])
def test_a_name_cannot_lead_out_of_the_folder(store: Store, key: str, name: str) -> None:
    message = re.escape(f"{name!r} cannot name a file of results: letters, digits and . _ + - only")
    with pytest.raises(CzslkitError, match=message):
        store.path(done()["cell"] | {key: name})


def test_a_configuration_cannot_lead_out_of_the_folder(store: Store) -> None:
    with pytest.raises(CzslkitError, match=r"'seed0-/\.\./x' cannot name a file of results"):
        store.path(done(config_id="/../x")["cell"])


def test_a_stored_result_is_returned_unchanged(store: Store) -> None:
    result = done()
    path = store.put(result)
    assert path == store.path(result["cell"])
    assert store.get(result["cell"]) == result


def test_a_cell_never_run_has_no_result(store: Store) -> None:
    assert store.get(done()["cell"]) is None
    assert store.results() == []


def test_putting_leaves_the_result_as_it_was(store: Store) -> None:
    result = done(auc=math.nan)
    store.put(result)
    assert math.isnan(result["metrics"]["auc"])


def test_numbers_that_are_not_finite_are_written_as_null(store: Store) -> None:
    result = done(auc=math.nan) | {"training": {"history": [{"loss": math.inf}, {"loss": 0.5}]}}
    text = store.put(result).read_text()
    assert json.loads(text)["metrics"] == {"auc": None}
    assert json.loads(text)["training"] == {"history": [{"loss": None}, {"loss": 0.5}]}
    assert "NaN" not in text
    assert "Infinity" not in text


def test_an_interrupted_put_leaves_the_old_result_and_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.put(done(auc=0.1))

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.put(done(auc=0.2))
    assert store.get(done()["cell"]) == done(auc=0.1)
    assert list(path.parent.iterdir()) == [path]


def test_a_process_that_dies_while_writing_leaves_the_old_result(store: Store) -> None:
    store.put(done(auc=0.1))
    program = (
        "import json, os, sys\nfrom czslkit.result_store import Store\n"
        "os.fsync = lambda _: os._exit(9)\nStore(sys.argv[1]).put(json.loads(sys.argv[2]))"
    )
    died = subprocess.run([sys.executable, "-c", program, str(store.root), json.dumps(done(auc=0.2))], check=False)
    assert died.returncode == 9
    assert store.results() == [done(auc=0.1)]
    assert store.problems == []


def test_a_stale_result_is_kept_next_to_its_replacement(store: Store) -> None:
    for auc, sha in ((0.1, "d1"), (0.2, "d2"), (0.3, "d3")):
        path = store.put(done(auc=auc) | {"depends": depending_on(sha)})
    kept = {file.name: json.loads(file.read_text())["metrics"]["auc"] for file in path.parent.iterdir()}
    assert kept == {"closed.stale.json": 0.1, "closed.stale-2.json": 0.2, "closed.json": 0.3}
    assert [result["metrics"]["auc"] for result in store.results()] == [0.3]
    assert store.problems == []


def test_a_result_of_the_same_data_and_code_is_replaced(store: Store) -> None:
    store.put(done(auc=0.1))
    path = store.put(done(auc=0.2))
    assert list(path.parent.iterdir()) == [path]
    assert store.results() == [done(auc=0.2)]


def test_a_failure_is_replaced_whatever_its_dependencies(store: Store) -> None:
    error = {"type": "DataError", "message": "demo is not there", "traceback": ""}
    store.put(done() | {"status": "failed", "error": error, "metrics": {}, "depends": {}})
    path = store.put(done())
    assert list(path.parent.iterdir()) == [path]
    assert store.results() == [done()]


def test_a_file_that_cannot_be_read_is_kept_too(store: Store) -> None:
    path = store.put(done())
    path.write_text('{"format": 1, "ce')
    store.put(done())
    assert path.with_name("closed.stale.json").read_text() == '{"format": 1, "ce'
    assert store.get(done()["cell"]) == done()


def test_differences_name_changed_added_and_removed_entries() -> None:
    old = {
        "data": {"a.txt": "1", "b.txt": "2"},
        "code": {"czslkit.heads.cosine:CosineHead": "version 1"},
        "weights": "11",
    }
    new = {
        "data": {"a.txt": "3", "c.txt": "4"},
        "code": {"czslkit.heads.cosine:CosineHead": "version 1"},
        "weights": None,
    }
    words = "data: a.txt changed; data: b.txt removed; weights changed; data: c.txt added"
    assert differences(old, new) == words
    assert differences(old, json.loads(json.dumps(old))) == ""


def test_four_differences_are_named_and_the_rest_counted() -> None:
    old, new = {"data": {f"{n}.txt": 0 for n in range(6)}}, {"data": {f"{n}.txt": 1 for n in range(6)}}
    words = "data: 0.txt changed; data: 1.txt changed; data: 2.txt changed; data: 3.txt changed; and 2 more"
    assert differences(old, new) == words


def test_results_come_in_one_order_with_seeds_counted_as_numbers(store: Store) -> None:
    cells: list[dict[str, Any]] = [
        {"dataset": "cgqa"},
        {"seed": 2},
        {"seed": 10, "world": "closed"},
        {"seed": 10, "world": "open"},
        {"method": "msci"},
    ]
    for cell in reversed(cells):
        store.put(done(**cell))
    assert store.results() == [done(**cell) for cell in cells]


def old(**changes: Any) -> str:
    """A result of format 2, which has no digest, with other entries."""
    return json.dumps(done() | {"format": 2} | changes)


def without(key: str) -> str:
    return json.dumps({k: v for k, v in json.loads(old()).items() if k != key})


REMEDY = r"\. Run czslkit bench again to make this result anew, or remove the file\."


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "cannot be read: Expecting value.*" + REMEDY),
        ('{"format": 1, "ce', "cannot be read: Unterminated string.*" + REMEDY),
        ("[]", "is not a result of czslkit"),
        ('{"loss": 1}', "is not a result of czslkit"),
        (old(format=4), "is a result of format 4, this czslkit reads formats up to 3"),
        (without("depends"), "lacks depends"),
        (old(cell={"method": "csp"}), "lacks dataset, world, seed, config_id in cell"),
        (json.dumps(done(seed="0") | {"format": 2}), "has cell.seed='0', expected a whole number of 64 bits"),
        (old(metrics={"auc": "0.4"}), r"has metrics=\{'auc': '0.4'\}, expected numbers by name"),
        (old(metrics={"auc": True}), r"has metrics=\{'auc': True\}, expected numbers by name"),
        (without("metrics"), "is done, but has no metrics"),
        (old(metrics={"auc": 4.966}), r"has auc = 4\.966, expected a fraction from 0 to 1" + REMEDY),
        (old(metrics={"best_hm": -0.1}), r"has best_hm = -0\.1, expected a fraction from 0 to 1"),
        (old(metrics={"attr_acc": math.nan}), "cannot be read: .*NaN"),
        (old(metrics={"n_seen": -1}), "has n_seen = -1, expected a whole number from 0 up" + REMEDY),
        (old(metrics={"n_unseen": 4.5}), r"has n_unseen = 4\.5, expected a whole number from 0 up"),
        (old(config={"train": {"lr": 0.05}}), "has a configuration with the id 69542c67, but its cell has 'c8b05ebe'"),
        (old(status="failed"), "is failed, but its error has no type and message"),
        (old(status="lost"), "has status 'lost', neither 'done' nor 'failed'"),
        (
            json.dumps(done(seed=1) | {"format": 2}),
            r"holds the result of .*seed1-c8b05ebe.*Was the file copied or renamed\?",
        ),
        (json.dumps(done()), "was changed after it was written: it does not start with its digest" + REMEDY),
        (old(digest="0" * 16), "was changed after it was written: it does not start with its digest"),
        (
            with_digest(done(), indent=4).replace("0.4", "0.5"),
            "was changed after it was written: its content has the digest",
        ),
    ],
)
def test_a_file_that_is_no_result_is_named_and_the_others_are_returned(store: Store, content: str, reason: str) -> None:
    path = store.path(done()["cell"])
    store.put(done(world="open"))
    path.write_text(content)
    assert store.results() == [done(world="open")]
    assert len(store.problems) == 1
    assert re.match(re.escape(f"{path}: ") + reason, store.problems[0])
    with pytest.raises(CzslkitError, match=reason):
        store.get(done()["cell"])


@pytest.mark.parametrize("version", [1, 2])
def test_a_result_of_an_older_format_needs_no_digest(store: Store, version: int) -> None:
    path = store.path(done()["cell"])
    path.parent.mkdir(parents=True)
    path.write_text(old(format=version, depends={}))
    assert [result["metrics"] for result in store.results()] == [{"auc": 0.4}]
    assert store.problems == []


def test_a_changed_failure_is_noticed_too(store: Store) -> None:
    error = {"type": "DataError", "message": "demo is not there", "traceback": ""}
    path = store.put(done() | {"status": "failed", "error": error, "metrics": {}, "depends": {}})
    path.write_text(path.read_text().replace("demo is", "data is"))
    with pytest.raises(
        CzslkitError, match=r"closed\.json: was changed after it was written: its content has the digest"
    ):
        store.get(done()["cell"])


def test_a_fraction_may_be_above_one_by_rounding(store: Store) -> None:
    store.put(done(auc=1 + 1e-9))
    assert store.get(done()["cell"]) == done(auc=1 + 1e-9)


def test_a_digest_in_a_result_is_replaced(store: Store) -> None:
    store.put(done() | {"digest": "0" * 16})
    assert store.get(done()["cell"]) == done()


def test_a_changed_file_of_a_result_is_named_with_both_digests(store: Store) -> None:
    result = done()
    result["files"] = store.attach(result["cell"], {"curve.csv": b"0.5,0.5", "details.json": b"{}"})
    store.put(result)
    assert store.changed_files(result) == {}
    curve = store.folder(result["cell"]) / "closed.curve.csv"
    curve.write_bytes(b"0.5,0.6")
    (curve.parent / "closed.details.json").unlink()
    assert store.changed_files(result).keys() == {"curve.csv"}
    reason = (
        r"closed\.curve\.csv is not the file that was written with its result: its content has the digest "
        r"7550bfa7e62f6209, expected c32018f65aa651a[0-9a-f]\. Run czslkit bench again to evaluate its cell anew"
    )
    with pytest.raises(CzslkitError, match=reason):
        store.attached(result, "curve.csv")
    assert store.attached(result, "images.npz") is None
    with pytest.raises(CzslkitError, match=r"closed\.details\.json cannot be read: No such file"):
        store.attached(result, "details.json")


def test_problems_are_those_of_the_last_call(store: Store) -> None:
    path = store.put(done())
    path.write_text("")
    store.results()
    path.unlink()
    assert store.results() == []
    assert store.problems == []


def test_the_store_does_not_import_torch() -> None:
    program = "import sys, czslkit.result_store; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
