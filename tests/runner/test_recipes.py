"""The recipes of ``configs/``: every method has one for every dataset, with the published settings and numbers."""

from __future__ import annotations

import csv
import dataclasses
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

import czslkit
from czslkit.checkpoints.trained import TrainedMethod
from czslkit.data.check.counts import count_splits
from czslkit.data.make.mini import write_mini
from czslkit.data.published import BENCHMARKS as DATASETS
from czslkit.data.published import MitStates
from czslkit.errors import ConfigError
from czslkit.method import METHODS
from czslkit.metrics.names import METRICS
from czslkit.options import config_id
from czslkit.result_store import Store
from czslkit.runner import recipes as recipe_files
from czslkit.runner import run_job as running
from czslkit.runner.plan import plan
from czslkit.runner.recipes import load_recipe, recipes
from czslkit.testing import demo_space
from czslkit.training.options import TrainOptions

#: Everything of this package but the classical baseline, which nobody published on these splits.
NAMES = [n for n in METHODS if METHODS[n].__module__.startswith("czslkit_plugins.") and n != "visprod"]
PROMPTED = ("clip", "coop", "csp", "gipcol")
FUSED = ("dfsp-i2t", "dfsp-t2i", "dfsp-bif", "dfsp-spm")
BRANCHED = ("troika", "msci")
WORD_VECTORS = ("compcos", "cge", "cocge", "ade")
ADAPTED = ("caila",)
#: Methods and datasets without a published recipe.
NOT_PUBLISHED = {("ade", "mit-states")}

with (Path(__file__).parent / "published.csv").open(newline="") as file:
    PUBLISHED = {(row["method"], row["dataset"], row["world"]): row for row in csv.DictReader(file)}


def spec(method: str, dataset: str, **arguments):
    (found,) = plan([method], [dataset], preset="paper", **arguments)
    return found


def settled(method: str, dataset: str) -> dict:
    sections = spec(method, dataset).config
    return sections["options"] | {f"{s}.{k}": v for s in ("train", "eval") for k, v in sections[s].items()}


def of(methods):
    """Every one of some methods on every dataset on which it was published."""
    published = [(m, d) for m in methods for d in DATASETS if (m, d) not in NOT_PUBLISHED]
    return pytest.mark.parametrize(("method", "dataset"), published)


every = of(NAMES)


def test_all_methods_of_the_package_are_here():
    assert sorted(NAMES) == sorted((*PROMPTED, *FUSED, *BRANCHED, *WORD_VECTORS, *ADAPTED, "tomcat"))


@every
def test_every_method_has_one_recipe_on_every_dataset(method, dataset):
    (path,) = recipes(dataset, method)
    found = spec(method, dataset)
    assert (found.recipe, found.changed) == (f"{dataset}/{path.stem}", ())
    for section in ("options", "train", "eval"):
        for key, value in load_recipe(path)[section].items():
            assert found.config[section][key] == value, key


@every
def test_a_recipe_depends_on_no_default(method, dataset):
    (path,) = recipes(dataset, method)
    recipe = load_recipe(path)
    left = {f.name for f in dataclasses.fields(METHODS[method].Options)} - set(recipe["options"])
    assert left <= {"closed_score_weights", "open_score_weights", "glove", "word2vec", "fasttext"}
    if method != "clip":
        steps = {"step_size", "gamma"} if recipe["train"]["schedule"] == "constant" else set()
        late = {"eval_mode_after_first_epoch", "fused_validation_loss"}  # quirks that are off unless said
        options = {f.name for f in dataclasses.fields(TrainOptions) if not f.metadata["added_later"]}
        assert options - set(recipe["train"]) <= steps | late
    assert set(recipe["eval"]) >= {"bins", "threshold", "feasibility", "infeasible"}


@every
def test_expected_numbers_are_those_that_were_published(method, dataset):
    expected = spec(method, dataset).published
    if method == "dfsp-spm":
        assert not expected
        return
    assert list(expected) == [world for world in ("closed", "open") if (method, dataset, world) in PUBLISHED]
    for world, numbers in expected.items():
        row = PUBLISHED[method, dataset, world]
        assert {name: numbers[name] for name in METRICS} == {
            name: float(row[name]) if row[name] else None for name in METRICS
        }
        assert numbers["source"] == row["source"]
        spread = {name: float(row[f"{name}_pm"]) for name in METRICS} | {"what": row["pm_is"]} if row["pm_is"] else None
        assert numbers.get("spread") == spread


def test_disagreeing_published_numbers_are_recorded():
    disagreements = {
        (method, dataset, world): numbers["disagreement"]
        for method in NAMES
        for dataset in DATASETS
        if (method, dataset) not in NOT_PUBLISHED
        for world, numbers in spec(method, dataset).published.items()
        if "disagreement" in numbers
    }
    assert {key: text.split(" in ")[0] for key, text in disagreements.items()} == {
        ("dfsp-t2i", "ut-zappos", "closed"): "AUC is 36.9",
        ("dfsp-t2i", "cgqa", "closed"): "U is 32.9",
        ("dfsp-t2i", "cgqa", "open"): "S is 38.2",
        ("dfsp-i2t", "cgqa", "open"): "U is 5.6",
        ("dfsp-bif", "cgqa", "open"): "S is 36.5",
        ("troika", "mit-states", "open"): "U is 18.4",
        ("ade", "ut-zappos", "open"): "H and AUC are those of a model that is trained with ade.open_world=true",
        ("ade", "cgqa", "open"): "H and AUC are those of a model that is trained with ade.open_world=true",
    }


MSCI = {
    "train.optimizer": ("adam", "adamw_bert", "adam"),
    "train.lr": (1e-4, 2.5e-4, 1.25e-5),
    "train.schedule": ("step", "step", "step"),
    "train.step_size": (5, 5, 5),
    "train.gamma": (0.5, 0.5, 0.5),
    "train.weight_decay": (1e-5, 1e-5, 1e-5),
    "train.batch_size": (64, 48, 48),
    "train.epochs": (20, 15, 15),
    "train.select": ("auc", "auc", "auc"),
    "train.eval_mode_after_first_epoch": (True, True, True),
    "low_layers": (4, 3, 4),
    "high_layers": (4, 3, 4),
    "heads": ([12, 12], [12, 12], [12, 12]),
    "layers": ([1, 1], [1, 1], [1, 1]),
    "dropout": ([0.1, 0.1], [0.1, 0.1], [0.1, 0.1]),
    "word_dropout": (0.3, 0.3, 0),
    "adapter_dim": (64, 64, 64),
    "adapter_dropout": (0.1, 0.1, 0.1),
    "loss_weights": ([1, 1, 1], [1, 1, 1], [1, 0.1, 0.1]),
    "score_weights": ([1, 1, 1], [1, 1, 1], [1, 1, 1]),
    "closed_score_weights": ([0.1, 0.9, 0.9], [1, 1, 1], [0.1, 0.9, 0.9]),
    "open_score_weights": ([0.3, 0.7, 0.7], [1, 1, 1], [0.3, 0.7, 0.7]),
    "primitive_chunk": (1024, 1024, 1024),
    "eval.threshold": (0.36183673469387756, 0.4631293780949651, 0.4061361697255348),
}
OTHERS = {
    "ade": {
        "word_vectors": (None, "word2vec", "word2vec"),
        "closed_beta": (None, 0.9, 1.0),
        "open_beta": (None, 0.9, 0.7),
        "train.lr": (None, 5e-6, 5e-5),
        "train.epochs": (None, 301, 301),
    },
    "cge": {
        "word_vectors": ("word2vec", "word2vec", "word2vec"),
        "dim": (None, 300, None),
        "image_layers": (False, True, False),
        "graph_layers": ("d4096,d", "d4096,d", "d4096,d"),
        "pair_self_loops": (True, False, True),
        "backbone_lr_scale": (0.1, 0.1, 0.1),
        "train.batch_size": (128, 128, 256),
        "train.epochs": (201, 2001, 2001),
    },
    "cocge": {
        "word_vectors": ("ft+w2v", "word2vec", "word2vec"),
        "word_width": (600, 300, 300),
        "graph_layers": ("d600", "d300", "d300"),
        "scale": (20, 50, 50),
        "margin": (0.4, 1.0, 0.1),
        "margin_epochs": (15, 15, 15),
        "train.batch_size": (128, 128, 256),
        "train.epochs": (151, 2001, 2001),
    },
    "compcos": {
        "word_vectors": ("ft+w2v", "word2vec", "word2vec"),
        "dim": (600, 300, 300),
        "hidden": ([768], [768], [768]),
        "scale": (20, 50, 50),
        "margin": (0.4, 1.0, 0.1),
        "margin_epochs": (15, 100, 15),
        "train.lr": (5e-5, 5e-5, 5e-5),
        "train.weight_decay": (5e-5, 5e-5, 5e-5),
        "train.batch_size": (128, 128, 128),
        "train.epochs": (301, 301, 301),
    },
    "csp": {
        "train.lr": (5e-5, 5e-4, 5e-5),
        "word_dropout": (0.3, 0.2, 0.3),
        "eval.threshold": (0.4069159426, 0.5299109123, 0.49937106273612186),
    },
    "gipcol": {
        "train.lr": (5e-5, 5e-4, 5e-5),
        "train.weight_decay": (1e-5, 1e-5, 5e-5),
        "train.batch_size": (64, 64, 64),
        "train.epochs": (10, 10, 10),
        "train.select": ("last", "last", "last"),
        "word_dropout": (0.3, 0.2, 0.3),
        "graph_layers": ("d4096,d", "d4096,d", "d4096,d"),
        "graph_lr_scale": (1, 0.1, 1),
        "graph_weight_decay": (5e-5, 5e-5, 5e-5),
        "feasibility": ("file", "file", "file"),
        "eval.threshold": (0.40691, 0.51878, 0.4994),
    },
    "caila": {
        "fusion_start": (12, 12, 12),
        "reduction": (4, 4, 4),
        "dropout": (0.5, 0.1, 0.5),
        "shift": (0.1, 0.1, 0.1),
        "train.lr": (1e-5, 2e-5, 1e-5),
        "train.weight_decay": (5e-5, 5e-5, 5e-5),
        "train.batch_size": (16, 32, 16),
        "train.epochs": (21, 21, 21),
        "eval.threshold": (None, None, None),
    },
    "coop": {"train.lr": (5e-5, 5e-4, 5e-5)},
    "troika": {
        "train.lr": (1e-4, 5e-4, 3.125e-6),
        "train.epochs": (10, 15, 15),
        "train.batch_size": (64, 128, 16),
        "train.select": ("loss", "auc", "auc"),
        "train.fused_validation_loss": (True, False, False),
        "layers": (3, 2, 2),
        "dropout": (0.1, 0, 0),
        "word_dropout": (0.3, 0.3, 0),
        "loss_weights": ([1, 1, 1], [1, 1, 1], [1, 0.1, 0.1]),
        "primitive_chunk": (1024, 1024, 1024),
        "train.eval_mode_after_first_epoch": (True, True, True),
    },
} | {
    variant: {
        "train.lr": (1e-4, 5e-4, 5e-5),
        "train.batch_size": (128, 128, 256),
        "train.accumulation": (2, 2, 1),
        "train.step_size": (3, 3, 3),
        "eval.threshold": (0.4, 0.4, 0.4),
    }
    for variant in FUSED
}
TABLE = [
    (method, key, dataset, value)
    for method, settings in ({"msci": MSCI} | OTHERS).items()
    for key, values in settings.items()
    for dataset, value in zip(DATASETS, values, strict=True)
    if (method, dataset) not in NOT_PUBLISHED
]


@pytest.mark.parametrize(("method", "key", "dataset", "value"), TABLE)
def test_hyperparameters_are_the_published_ones(method, key, dataset, value):
    assert settled(method, dataset)[key] == value


@of((*PROMPTED, *FUSED, *BRANCHED))
def test_what_the_authors_programs_do_is_switched_on(method, dataset):
    found = settled(method, dataset)
    assert found["backbone"] == "ViT-L-14-quickgelu/openai"
    assert (found["eval.bins"], found["eval.infeasible"]) == ("original", "original")
    assert found["eval.feasibility"] == "file"
    if method in ("clip", "coop", "troika"):
        assert found["eval.threshold"] == "search"
    if method != "clip":
        assert found["train.augment"]
        assert not found["train.rescale_short_groups"]
    if method in ("coop", "csp"):
        assert (found["train.select"], found["train.schedule"]) == ("last", "constant")
        assert (found["train.batch_size"], found["train.accumulation"], found["train.epochs"]) == (64, 2, 20)
    if method in FUSED:
        assert found["train.select"] == "loss"
    if method in ("dfsp-i2t", "dfsp-bif"):
        assert found["batch_mixing"] == "original"


@pytest.mark.parametrize(
    "path", sorted(recipe_files.configs().rglob("*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_every_recipe_names_paper_and_year(path):
    paper, method = path.stem.split("_", 1)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content["method"] == method
    assert paper[-4:] in content["source"]
    if path.parent.name != "demo":
        assert "arXiv" in content["source"] and "github.com/" in content["source"]


WORLD = "{S: 1, U: 2, H: 3, AUC: 4, source: a table%s}"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("options: {word_droput: 1}", [": word_droput is not an option. Did you mean 'word_dropout'?"]),
        ("train: {epohs: 2}", [": train: epohs is not an option. Did you mean 'epochs'?"]),
        ("eval: {bins: all}", [": eval: bins is 'all', expected one of original, exact."]),
        (
            "train: {augment: false, augment_on: device}",
            [": train: augment_on is 'device', but images are not augmented while augment is false"],
        ),
        ("train: {fused_validation_loss: true}", [": train: fused_validation_loss is true, but no validation loss"]),
        ("options: 3", [": options is 3, expected settings"]),
        ("train: [1]", [": train is [1], expected settings"]),
        ("expected: 40.2", [": expected is 40.2, expected the worlds with their numbers"]),
        (
            f"expected: {{clsed: {WORLD % ''}}}",
            [": expected has no key clsed. Did you mean 'closed'? Known: closed, open."],
        ),
        ("expected: {open: 3}", [": expected.open is 3, expected S, U, H, AUC and source"]),
        ("expected: {open: {S: 1, H: 2}}", [": expected.open lacks U, AUC, source"]),
        (
            "expected: {open: {S: null, U: null, H: null, AUC: null, source: a table}}",
            [": expected.open has no number; leave it out"],
        ),
        (
            f"expected: {{open: {WORLD % ', spreat: {}'}}}",
            [": expected.open has no key spreat. Did you mean 'spread'? Known: S, U, H, AUC, source, spread"],
        ),
        (
            "expected: {open: {S: 101, U: -1, H: .nan, AUC: '4', source: ''}}",
            [
                ": expected.open: S is 101, expected a percentage from 0 to 100",
                ": expected.open: U is -1, expected a percentage from 0 to 100",
                ": expected.open: H is nan, expected a percentage from 0 to 100",
                ": expected.open: AUC is '4', expected a percentage from 0 to 100",
                ": expected.open: source is '', expected a text",
            ],
        ),
        (
            "expected: {open: {S: true, U: 2, H: 3, AUC: 4, source: 7}}",
            [": expected.open: S is True, expected a percentage", ": expected.open: source is 7, expected a text"],
        ),
        (f"expected: {{open: {WORLD % ', disagreement: 3'}}}", [": expected.open: disagreement is 3, expected a text"]),
        (
            f"expected: {{open: {WORLD % ', spread: 0.1'}}}",
            [": expected.open.spread is 0.1, expected S, U, H, AUC and what"],
        ),
        (
            f"expected: {{open: {WORLD % ', spread: {S: 1, U: 1, H: 1, AUC: 200}'}}}",
            [": expected.open.spread: AUC is 200, expected a percentage", ": expected.open.spread lacks what"],
        ),
        (
            "trian: {}\noptions: {word_droput: 1}\nexpected: {open: 3}",
            [": trian is not part of a recipe", ": word_droput is not an option", ": expected.open is 3"],
        ),
    ],
)
def test_every_mistake_in_a_recipe_is_named_with_its_file(tmp_path, text, messages):
    path = tmp_path / "nayak2023_csp.yaml"
    path.write_text(f"method: csp\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert len(caught.value.problems) == len(messages)
    for message in messages:
        assert f"{path}{message}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x_coop.yaml", ": its method is 'csp', but its file name says 'coop'"),
        ("x_cps.yaml", ": its method is 'csp', but its file name says 'cps'"),
    ],
)
def test_a_recipe_under_the_name_of_another_method_is_refused(tmp_path, name, message):
    (tmp_path / name).write_text("method: csp\n")
    with pytest.raises(ConfigError, match=message):
        load_recipe(tmp_path / name)


def test_a_recipe_of_no_method_is_refused(tmp_path):
    (tmp_path / "x_cps.yaml").write_text("method: cps\n")
    with pytest.raises(ConfigError, match=r"x_cps\.yaml: no method named 'cps'\. Did you mean 'csp' or 'compcos'\?"):
        load_recipe(tmp_path / "x_cps.yaml")


def test_an_unreadable_recipe_is_named(tmp_path):
    (tmp_path / "x_csp.yaml").write_bytes(b"method: \xff\xfe")
    with pytest.raises(ConfigError, match=r"x_csp\.yaml: cannot be read as YAML"):
        load_recipe(tmp_path / "x_csp.yaml")
    (tmp_path / "x_csp.yaml").write_text("method: csp\noptions: &a {context: 3}\ntrain: *a\n")
    with pytest.raises(
        ConfigError, match=r"x_csp\.yaml: cannot be read as YAML: it has the alias \*a; write the value"
    ):
        load_recipe(tmp_path / "x_csp.yaml")


def test_a_broken_recipe_stops_the_plan_with_its_name(tmp_path, monkeypatch):
    copy = shutil.copytree(recipe_files.configs(), tmp_path / "configs")
    (path,) = (copy / "cgqa").glob("*_csp.yaml")
    path.write_text(path.read_text().replace("word_dropout", "word_droput"))
    monkeypatch.setattr(recipe_files, "configs", lambda: copy)
    with pytest.raises(ConfigError, match=r"cgqa/nayak2023_csp\.yaml: word_droput is not an option"):
        plan(["clip", "csp"], ["cgqa"], preset="paper")


def test_settings_that_are_not_the_recipes_are_named():
    settings = {"backbone": "demo", "train.epochs": 0, "csp.word_dropout": 0.3, "eval.bins": "exact"}
    found = spec("csp", "mit-states", settings=settings)
    assert found.changed == ("backbone", "train.epochs", "eval.bins")  # the dropout is the recipe's


def test_a_method_that_is_not_trained_changes_nothing_of_the_training():
    saved = TrainedMethod(Path("nowhere"), "csp", {"backbone": "demo"}, demo_space())
    weights = "weights (those in nowhere, not trained here)"
    assert spec("csp", "mit-states", checkpoints=[saved]).changed == ("backbone", weights)


def test_without_a_preset_nothing_was_published():
    (plain,) = plan(["csp"], ["mit-states"])
    assert (plain.recipe, plain.changed, plain.published) == (None, (), {})
    (demo,) = plan(["csp"], ["demo"], settings={"train.lr": 1.0})
    assert (demo.recipe, demo.changed, demo.published) == ("demo/nayak2023_csp", ("train.lr",), {})


def test_the_recipe_is_no_part_of_the_configuration():
    told = spec("csp", "cgqa")
    plain = dataclasses.replace(told, recipe=None, changed=(), published={})
    assert config_id(told.config) == config_id(plain.config)


@pytest.fixture
def replica(tmp_path):
    """Benchmark on a small MIT-States with the preset of the papers."""
    write_mini("mit-states", tmp_path / "data")
    settings = {"backbone": "demo", "train.epochs": 0}

    def go(methods="clip,csp", **arguments):
        where = {"data": tmp_path / "data", "runs": tmp_path / "runs", "log": lambda line: None}
        return czslkit.bench(
            methods, "mit-states", preset="paper", settings=settings, progress=False, **where, **arguments
        )

    return go


def test_results_of_a_replica_are_shown_beside_published_numbers_but_not_compared(replica, tmp_path):
    result = replica()
    assert result.failed == 0
    for stored in (result.results, Store(tmp_path / "runs").results()):
        csp = next(r for r in stored if r["cell"]["method"] == "csp" and r["cell"]["world"] == "open")
        assert csp["recipe"] == {"name": "mit-states/nayak2023_csp", "changed": ["backbone", "train.epochs"]}
        assert (csp["published"]["S"], csp["published"]["AUC"]) == (46.3, 5.7)
        assert csp["data_differences"][:2] == ["attributes 8 instead of 115", "objects 6 instead of 245"]
        assert "train images 144 instead of 30,338" in csp["data_differences"]
    lines = defaultdict(list)  # the closed and the open world, which do not fit side by side
    for line in result.table().to_text().splitlines():
        label, *cells = re.split("  +", line)
        lines[label] += cells
    for method in ("clip", "csp"):
        expected = [PUBLISHED[method, "mit-states", world][name] for world in ("closed", "open") for name in METRICS]
        assert lines[f"{method}: published"] == expected
        assert lines[f"{method}: difference"] == ["other data"] * 2
        assert lines[f"{method}: verdict, 1 seed"] == ["NOT COMPARABLE"] * 2
    text = result.table().to_text()
    assert "mit-states: the data are not the published ones: attributes 8 instead of 115, objects" in text
    assert "csp on mit-states: backbone, train.epochs changed from recipe mit-states/nayak2023_csp" in text


def test_results_on_the_published_data_are_compared(replica, tmp_path, monkeypatch):
    counts = count_splits(czslkit.load_dataset("mit-states", tmp_path / "data"))
    monkeypatch.setattr(MitStates, "counts", counts)
    result = replica("csp")
    assert all("data_differences" not in found for found in result.results)
    closed, opened = result.table().comparisons
    assert (closed.obstacle.words, opened.obstacle.words) == ("other backbone", "no threshold")
    copy = shutil.copytree(recipe_files.configs(), tmp_path / "configs")
    (path,) = (copy / "mit-states").glob("*_csp.yaml")
    path.write_text(path.read_text().replace("ViT-L-14-quickgelu/openai", "demo"))
    monkeypatch.setattr(recipe_files, "configs", lambda: copy)
    closed, opened = replica("csp").table().comparisons
    assert closed.obstacle is None and closed.verdict("S") in ("above (changed)", "below (changed)")
    assert closed.difference("S") == pytest.approx(closed.ours["S"] - closed.published["S"])
    assert (opened.obstacle.words, opened.verdict("S")) == ("no threshold", "NOT COMPARABLE")


def test_a_finished_result_of_other_data_gets_the_reason_when_it_is_asked_for_again(replica, tmp_path, monkeypatch):
    (found,) = replica("clip", worlds="closed").results
    store = Store(tmp_path / "runs")
    store.put({key: value for key, value in found.items() if key != "data_differences"})
    monkeypatch.setattr(running, "make_results", lambda *a: pytest.fail("run again"))
    assert replica("clip", worlds="closed").results == (found,)
    assert store.results() == [found]


def test_finished_results_get_a_recipe_that_is_added_later(replica, tmp_path, monkeypatch):
    copy = shutil.copytree(recipe_files.configs(), tmp_path / "configs")
    (path,) = (copy / "mit-states").glob("*_clip.yaml")
    text = path.read_text()
    path.write_text(text[: text.index("expected:")])
    monkeypatch.setattr(recipe_files, "configs", lambda: copy)
    (before,) = replica("clip", worlds="closed").results
    assert "published" not in before
    path.write_text(text)
    monkeypatch.setattr(running, "make_results", lambda *a: pytest.fail("run again"))
    (after,) = replica("clip", worlds="closed").results
    assert after["published"]["S"] == 30.2
    assert after["metrics"] == before["metrics"]
    assert Store(tmp_path / "runs").results() == [after]
