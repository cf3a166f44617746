"""Results that were not measured alike."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest

from czslkit.errors import CzslkitError
from czslkit.report.comparability import data_digests
from czslkit.report.table import Table

Make = Callable[..., dict[str, Any]]
MISSING_DATA = {
    "type": "DataError",
    "message": "cgqa: 2 problems\nimages/ is not there\ntest_pairs.txt is not there",
    "traceback": "Traceback (most recent call last): ...",
}


def test_results_of_two_curves_are_not_put_into_one_table(result: Make) -> None:
    message = (
        r"msci on cgqa \(open, seed 0\) has the AUC of bins='exact', csp on demo \(closed, seed 0\) has the "
        r"AUC of bins='original'\. Run one of them again, select results with --methods or --datasets, or allow both "
        r"with --mixed\."
    )
    with pytest.raises(CzslkitError, match=message):
        Table([result("csp"), result("msci", dataset="cgqa", world="open", bins="exact")])


def test_results_on_different_data_are_not_put_into_one_table(result: Make) -> None:
    message = (
        r"msci on demo \(open, seed 0\) was measured on different data than csp on demo \(closed, seed 0\) "
        r"\(data: test_pairs\.txt changed; data: x\.txt added\)\. Run one of them again, select results with "
        r"--methods or --datasets, or allow both with --mixed\."
    )
    with pytest.raises(CzslkitError, match=message):
        Table([result("csp"), result("msci", world="open", data={"test_pairs.txt": "d2", "x.txt": "d1"})])


def test_results_not_measured_alike_are_allowed_on_request_and_named_in_the_caption(result: Make) -> None:
    table = Table([result("csp"), result("msci", bins="exact")], mixed=True)
    difference = "Not all results were measured alike: msci on demo (closed, seed 0) has the AUC of bins='exact'"
    assert difference in " ".join(table.caption())
    assert "measured alike" not in " ".join(Table([result("csp")], mixed=True).caption())


def test_thresholds_found_in_the_same_way_may_differ_and_rules_may_not(result: Make, open_result: Make) -> None:
    closed = [result(), result("msci")]
    Table([*closed, open_result(threshold=0.1), open_result("msci", threshold=0.2)])
    Table([open_result(threshold=0.1), open_result("msci", "cgqa")])  # other datasets are other columns
    excluded, original = "infeasible pairs are excluded", "infeasible pairs score 0 as in the original evaluator"
    file, clip = (
        f"feasibility from {source}" for source in ("file.pt with digest abababab", "clip with digest cdcdcdcd")
    )
    rules = {
        "no pair is infeasible": {},
        "no pair is infeasible, the candidates have digest 0123abcd": {"candidates_sha256": "0123abcd" * 8},
        f"{excluded} (threshold searched, {file})": {"threshold": 0.1},
        f"{original} (threshold searched, {file})": {"threshold": 0.1, "infeasible": "original"},
        f"{excluded} (threshold searched, {clip})": {
            "threshold": 0.1,
            "feasibility": "clip",
            "feasibility_sha256": "cd" * 32,
        },
        f"{excluded} (threshold 0.1 given, {file})": {"threshold": 0.1, "threshold_from": "given"},
        f"{excluded} (threshold 0.2 given, {file})": {"threshold": 0.2, "threshold_from": "given"},
    }
    for (rule, protocol), (other_rule, other) in itertools.permutations(rules.items(), 2):
        pair = [*closed, open_result(**other), open_result("msci", **protocol)]
        message = f"in msci on demo (open, seed 0), {rule}; in csp on demo (open, seed 0), {other_rule}"
        with pytest.raises(CzslkitError, match=re.escape(f"{message}. Run one of them again, select results ")):
            Table(pair)
        assert f"Not all results were measured alike: {message}." in Table(pair, mixed=True).caption()


def test_each_dataset_has_its_own_data_and_a_failure_has_none(result: Make, failed: Make) -> None:
    other = {"test_pairs.txt": "d2"}
    Table([result("csp"), result("csp", dataset="cgqa", data=other), failed(MISSING_DATA, method="msci")])


def test_results_of_both_formats_are_compared_by_the_digests_of_their_data(result: Make) -> None:
    old, new, other = result(), result("msci"), result("clip")
    for made, digest in ((new, "d1"), (other, "d2")):
        made["depends"] = {"training": {"data": {"test_pairs.txt": digest}, "weights": "w"}, "evaluation": {}}
    assert data_digests(old) == data_digests(new) == {"test_pairs.txt": "d1"}
    Table([old, new])
    with pytest.raises(CzslkitError, match=r"clip on demo .* was measured on different data than csp on demo"):
        Table([old, other])


STREAM = {"transductive": {"images": "one by one", "stream_seed": 0}}


def adapted(made: dict[str, Any], **protocol: Any) -> dict[str, Any]:
    return {**made, "protocol": {**made["protocol"], **STREAM, **protocol}}


def test_results_that_adapted_to_the_test_images_are_not_put_beside_others(result: Make, open_result: Make) -> None:
    message = "drift (transductive) on demo (closed, seed 0) has adapted to the test images, csp on demo (closed, seed"
    pair = [result("csp"), adapted(result("drift"))]
    for results in (pair, pair[::-1]):
        with pytest.raises(CzslkitError, match=re.escape(message)):
            Table(results)
    table = Table(pair, mixed=True)
    assert any(f"Not all results were measured alike: {message}" in sentence for sentence in table.caption())
    for kind in ("text", "markdown", "latex", "csv", "json", "html"):
        assert "drift (transductive)" in table.render(kind)
        assert "csp (transductive)" not in table.render(kind)
    Table([adapted(result("drift")), adapted(result("wander")), result("csp", dataset="cgqa")])


def test_the_caption_says_that_rows_adapt_to_the_test_images(result: Make, failed: Make) -> None:
    table = Table([adapted(result("drift")), failed(MISSING_DATA, method="drift", seed=1)])
    assert table.arrangement.rows == ("drift (transductive)",)
    assert table.labels == ["drift (transductive)"] * 2
    assert (
        "Rows marked (transductive) adapt to the test images, which they get one by one in a random order (seed 0)."
    ) in table.caption()
    other = {"images": "one by one", "stream_seed": 1}
    configs: list[dict[str, Any]] = [{"eval": {}}, {"eval": {"stream_seed": 1}}]
    rows = [result("drift", config=config, config_id=str(n)) for n, config in enumerate(configs)]
    table = Table([adapted(rows[0]), adapted(rows[1], transductive=other)])
    assert table.arrangement.rows == ("drift (transductive)", "drift (transductive) stream_seed=1")
    assert any(sentence.endswith("in a random order (seeds 0, 1).") for sentence in table.caption())
    assert "transductive" not in " ".join(Table([result()]).caption())


def test_the_caption_names_the_pairs_that_a_method_masks(result: Make) -> None:
    masking = result("mask")
    masking["protocol"] = {**masking["protocol"], "masks_pairs": "pairs of\nan unseen word"}
    caption = Table([result(), masking, {**masking, "cell": {**masking["cell"], "seed": 1}}]).caption()
    assert [sentence for sentence in caption if "never" in sentence] == [
        "mask itself never predicts pairs of an unseen word."
    ]


def measured_in(result: dict[str, Any], **precision: str) -> dict[str, Any]:
    """A result whose training or evaluation used another number format than fp32."""
    return {**result, "protocol": {**result["protocol"], "precision": precision}}


def test_results_that_were_measured_in_other_number_formats_are_not_compared(result: Make) -> None:
    pair = [result(), measured_in(result("msci"), eval="bf16")]
    message = "msci on .* was measured in bf16, csp on .* in fp32"
    with pytest.raises(CzslkitError, match=message):
        Table(pair)
    assert any("were measured alike: msci" in sentence for sentence in Table(pair, mixed=True).caption())
    Table([measured_in(result(), eval="tf32"), measured_in(result("msci"), eval="tf32")])


def test_the_caption_names_rows_of_other_number_formats(result: Make) -> None:
    trained = [measured_in(result(name), train="bf16") for name in ("csp", "coop")]
    both = measured_in(result("msci"), train="tf32", eval="bf16")
    caption = Table([*trained, both, result("clip")], mixed=True).caption()
    assert "Not in fp32: trained in bf16: csp, coop." in caption
    assert "Not in fp32: trained in tf32 and measured in bf16: msci." in caption
    assert "fp32" not in " ".join(Table([result()]).caption())


def test_feasibility_of_the_methods_themselves_may_differ(open_result: Make) -> None:
    own = {"threshold": 0.1, "threshold_from": "given", "feasibility": "method"}
    Table([open_result(**own), open_result("msci", **own, feasibility_sha256="cd" * 32)])
    message = r"infeasible pairs are excluded \(threshold 0\.1 given, feasibility from the method itself\); in csp"
    with pytest.raises(CzslkitError, match=message):
        Table([open_result(**{**own, "feasibility": "clip"}), open_result("msci", **own)])


def test_a_row_of_tomcat_beside_an_inductive_row_is_marked(result: Make) -> None:
    base = result("tomcat", config={"options": {"adapt": False}}, config_id="base")
    rows = [result("csp"), base, adapted(result("tomcat", config={"options": {"adapt": True}}, config_id="adapt"))]
    with pytest.raises(CzslkitError, match=r"tomcat \(transductive\) adapt=true on demo .* has adapted to the test"):
        Table(rows)
    table = Table(rows, mixed=True)
    assert table.arrangement.rows == ("csp", "tomcat adapt=false", "tomcat (transductive) adapt=true")
