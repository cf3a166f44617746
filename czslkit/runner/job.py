"""One training and its evaluations, from what was asked to results on disk."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import provenance
from ..backbones import resolve
from ..checkpoints.trained import save
from ..components import BACKBONES
from ..data.batches import Feed
from ..data.splits import Split, Splits
from ..errors import ConfigError, CzslkitError, DataError
from ..evaluation import details
from ..evaluation.evaluator import Task, searched_threshold, sweeps
from ..evaluation.feasibility_source import FeasibilityScores, load_feasibility, published_files, source_file
from ..files import file_lock
from ..method import METHODS, Method, build
from ..metrics.candidates import UNUSED
from ..metrics.feasibility import threshold_grid
from ..metrics.sweep import Metrics, Sweep
from ..options import as_dict, config_id
from ..sizes import format_duration
from ..store import Store
from ..training.loop import train
from ..types import PairSpace
from . import forecast
from .machine import Machine
from .plan import Spec
from .recipes import load_recipe, recipes


@dataclass(frozen=True, eq=False)
class Cut:
    """The line below which pairs of the open world are no candidates."""

    threshold: float
    chosen: str  # how: given, published or searched on validation
    plausibility: FeasibilityScores


@dataclass(frozen=True)
class Job:
    """A spec, and where its results go."""

    spec: Spec
    store: Store
    machine: Machine = field(default_factory=Machine)

    def cell(self, world: str) -> dict[str, Any]:
        spec = self.spec
        return {
            "method": spec.method,
            "dataset": spec.dataset,
            "world": world,
            "seed": spec.seed,
            "config_id": config_id(spec.config),
        }

    def origin(self, world: str) -> dict[str, Any]:
        """Which recipe is followed, save for what, and what it was published with; empty without a recipe."""
        spec = self.spec
        recipe = {"recipe": {"name": spec.recipe, "changed": list(spec.changed)}} if spec.recipe else {}
        return recipe | ({"published": spec.published[world]} if world in spec.published else {})

    def depends(self, data: Mapping[str, str]) -> dict[str, Any]:
        """What results of this job stand and fall with; ``data`` are digests of the dataset's parts."""
        classes: list[type] = [METHODS[self.spec.method]]
        backbone = self.spec.backbone
        if backbone:
            classes.append(BACKBONES[resolve(backbone)[0]])
        return {
            "data": dict(data),
            "code": provenance.code(*classes),
            "plugins": provenance.plugins(classes),
            "weights": provenance.weights(backbone) if backbone else None,
        }

    def run(
        self,
        data: Mapping[str, str],
        load: Callable[[], Splits],
        check: Callable[[int], None],
        log: Callable[[str], None],
    ) -> list[dict[str, Any]]:
        """The result of every world: finished ones as they are, the others run now and stored.

        An error ends up in the results of the worlds it kept from finishing; one of the data is raised.

        Args:
            data: digests of the dataset's parts.
            load: gives the dataset; called only if something is to be run, or to find its file of feasibility.
            check: finds images that cannot be read, given the side of the squares that are wanted.
            log: called with a line for every step.
        """
        depends = self.depends(data)
        folder = self.store.folder(self.cell("closed"))
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / ".lock", log):
            rests = self._rests(depends, load)
            standing = self._standing(rests, log)
            missing = tuple(world for world in self.spec.worlds if world not in standing)
            if not missing:
                log("done before")
            else:
                data_now = load()
                log("running")
                try:
                    job = replace(self, spec=replace(self.spec, worlds=missing))
                    new = job._compute(data_now, check, folder / "training", depends, log)
                except DataError:  # raised before any finished result is superseded
                    raise
                except Exception as error:
                    new = {world: failure(error) for world in missing}
                    log(f"failed: {type(error).__name__}: {error}")
                standing |= {result["cell"]["world"]: result for result in self._record(new, rests)}
        return [standing[world] for world in self.spec.worlds]

    def estimate(self, data: Mapping[str, str], load: Callable[[], Splits], log: Callable[[str], None]) -> None:
        """Say what ``run`` would take; nothing is trained or stored. Arguments and errors are those of ``run``."""
        standing = self._standing(self._rests(self.depends(data), load), log)
        worlds = tuple(world for world in self.spec.worlds if world not in standing)
        if not worlds:
            log("done before")
            return
        splits, options = load(), self.spec.train
        method = self._method(splits)
        feasible = self._plausibility(method, splits, log)
        for what, feed, task in (task for world in worlds for task in self._tasks(method, splits, world, feasible)):
            log(f"{what}, about: {forecast.evaluation(method, feed, task, self.machine.memory)}")
        if method.trains and options.epochs:
            task = Task.of(method, splits, "val", ["closed"])
            validation = forecast.evaluation(method, self._feed(method, splits.val), task, self.machine.memory)
            seconds = forecast.training(method, splits, options, validation, self.machine.workers)
            log(f"training of {options.epochs} epochs, about: {format_duration(seconds)}")

    def refuse(self, error: Exception, log: Callable[[str], None]) -> list[dict[str, Any]]:
        """``error`` for every world, without storing it."""
        log(str(error))
        return [{"cell": self.cell(world), **failure(error)} for world in self.spec.worlds]

    def keep(self, error: Exception, log: Callable[[str], None]) -> list[dict[str, Any]]:
        """Finished results as they are, and ``error`` for the others: data or weights cannot be had."""
        done = {world: result for world in self.spec.worlds if (result := self._finished(world, log))}
        log(f"{error}" + (f"\nkept as they were: {', '.join(done)}" if done else ""))
        failed = self._record({world: failure(error) for world in self.spec.worlds if world not in done}, {})
        done |= {result["cell"]["world"]: result for result in failed}
        return [done[world] for world in self.spec.worlds]

    def _rests(self, depends: Mapping[str, Any], load: Callable[[], Splits]) -> dict[str, dict[str, Any]]:
        """What the result of each world stands and falls with; no training depends on a file of feasibility."""
        rests = {world: dict(depends) for world in self.spec.worlds}
        evaluation = self.spec.evaluation
        if "open" in rests and evaluation.threshold is not None:
            file = source_file(evaluation.feasibility, load())
            rests["open"]["feasibility"] = provenance.file_digest(file) if file else None
        return rests

    def _record(
        self, contents: Mapping[str, Mapping[str, Any]], rests: Mapping[str, Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Store what came of some worlds; the results as stored, and failures even where nothing can be stored."""
        results = []
        for world, content in contents.items():
            made = {"cell": self.cell(world), "config": self.spec.config, "depends": dict(rests.get(world, {}))}
            result = {**made, **self.origin(world), **content}
            try:
                self.store.put(result)
            except OSError as error:
                results.append({**result, **failure(error)})
            else:
                results.append(self.store.get(result["cell"]) or result)
        return results

    def _standing(
        self, rests: Mapping[str, Mapping[str, Any]], log: Callable[[str], None]
    ) -> dict[str, dict[str, Any]]:
        """Finished results that still stand, by world."""
        standing = {}
        for world in self.spec.worlds:
            result = self._finished(world, log)
            if result is None:
                continue
            if reason := self.store.stale(result, rests[world]):
                log(f"{world} world {reason}")
            else:
                standing[world] = self._told_anew(result)
        return standing

    def _told_anew(self, result: dict[str, Any]) -> dict[str, Any]:
        """A result with its recipe as it is now: the same numbers may have been asked for without one."""
        without = {key: value for key, value in result.items() if key not in ("recipe", "published")}
        told = {**without, **self.origin(result["cell"]["world"])}
        if told != result:
            self.store.put(told)
        return told

    def _finished(self, world: str, log: Callable[[str], None]) -> dict[str, Any] | None:
        """The stored result of a world, if it has numbers."""
        try:
            result = self.store.get(self.cell(world))
        except CzslkitError as error:  # a file that is not a result; it is kept beside the new one
            log(str(error))
            return None
        return result if result and result["status"] == "done" else None

    def _compute(
        self,
        data: Splits,
        check: Callable[[int], None],
        folder: Path,
        depends: Mapping[str, Any],
        log: Callable[[str], None],
    ) -> dict[str, dict[str, Any]]:
        """Train, then evaluate every world of the spec on the test split."""
        spec, machine = self.spec, self.machine
        method = self._method(data)
        check(method.backbone.image_size)
        worlds, feasible, failed = spec.worlds, None, {}
        try:
            feasible = self._plausibility(method, data, log)
        except CzslkitError as error:  # the closed world does without
            log(f"open world failed: {error}")
            worlds, failed = tuple(world for world in worlds if world != "open"), {"open": failure(error)}
            if not worlds:
                return failed
        for world in worlds:
            try:
                for what, feed, task in self._tasks(method, data, world, feasible):
                    found = forecast.evaluation(method, feed, task, machine.memory)
                    if "open" in worlds:
                        log(f"{what}, about: {found}")
            except ConfigError as error:
                log(f"{world} world failed: {error}")
                failed[world] = failure(error)
        if not (worlds := tuple(world for world in worlds if world not in failed)):
            return failed
        key = config_id({"config": spec.config, "seed": spec.seed, "depends": dict(depends)})
        training = train(
            method,
            data,
            spec.train,
            spec.evaluation,
            seed=spec.seed,
            folder=folder,
            key=key,
            workers=machine.workers,
            cache=machine.cache,
            memory=machine.memory,
            progress=machine.progress,
            log=log,
        )
        if spec.checkpoint is None:
            save(folder, spec.method, method, as_dict(spec.options), dataset=spec.dataset, seed=spec.seed)
        start = time.monotonic()
        files = {name: digest for name, digest in depends["data"].items() if name != "images"}
        measured = self._measured(method, data, worlds, feasible, files, log)
        timing = {"train_s": training.seconds, "eval_s": time.monotonic() - start}
        common = {
            "status": "done",
            "error": None,
            "training": asdict(training),
            "timing": timing,
            "versions": provenance.versions(str(method.device)),
            "components": provenance.plugins(type(module) for module in method.modules()),
            "finished": _now(),
        }
        return {world: {**common, **found} for world, found in measured.items()} | failed

    def _method(self, data: Splits) -> Method:
        """As it is before training, on the machine's device."""
        torch.manual_seed(self.spec.seed)
        method = build(self.spec.method, data.space, **as_dict(self.spec.options))
        if self.spec.checkpoint is not None:
            self.spec.checkpoint.fill(method)
        return method.to(self.machine.torch_device())

    def _feed(self, method: Method, split: Split) -> Feed:
        """A split as it is evaluated."""
        batch_size = self.spec.evaluation.batch_size or self.spec.train.batch_size
        return Feed(method, split, batch_size, workers=self.machine.workers, cache=self.machine.cache)

    def _tasks(
        self, method: Method, data: Splits, world: str, feasible: FeasibilityScores | None
    ) -> Iterator[tuple[str, Feed, Task]]:
        """What there is to score for a world, in words and in full; with all pairs where a threshold is yet to find."""
        threshold = self.spec.evaluation.threshold
        cut: dict[str, Any] = {}
        what = f"test, {world} world"
        if feasible and world == "open" and threshold == "search":
            grid = threshold_grid(feasible.values, data.space.open().seen)
            task = Task.of(method, data, "val", [world], feasibility=feasible.values, thresholds=grid)
            yield "search of a threshold", self._feed(method, data.val), task
            what += ", at most"
        elif feasible and world == "open":
            cut = {"feasibility": feasible.values, "thresholds": [threshold]}
        task = Task.of(method, data, "test", [world], **cut, keep=max(details.TOP_K))
        yield what, self._feed(method, data.test), task

    def _measured(
        self,
        method: Method,
        data: Splits,
        worlds: Sequence[str],
        feasible: FeasibilityScores | None,
        files: Mapping[str, str],
        log: Callable[[str], None],
    ) -> dict[str, dict[str, Any]]:
        """Metrics on the test split and how they came about, by world; ``files`` are digests of the split's."""
        spec = self.spec
        cut = self._cut(method, data, feasible) if feasible else None
        fill = partial(
            sweeps,
            *(method, data, "test"),
            feed=self._feed(method, data.test),
            feasibility=cut.plausibility.values if cut else None,
            thresholds=[cut.threshold] if cut else None,
            infeasible=spec.evaluation.infeasible,
            keep=max(details.TOP_K),
            memory=self.machine.memory,
        )
        try:
            filled = fill(worlds)
        except ConfigError:  # too much for the memory together, not one by one
            filled = {world: fill([world])[world] for world in worlds}
        found: dict[str, dict[str, Any]] = {}
        for world, sweep in filled.items():
            how = {"split_files": dict(files), **protocol(sweep, world, spec, data.space, cut)}
            beside = self.store.attach(self.cell(world), details.detail_files(sweep, data.space, spec.evaluation.bins))
            found[world] = {"metrics": metrics(sweep, spec.evaluation.bins), "protocol": how, "files": beside}
        if cut:
            log(_drawn(found["open"]["protocol"]))
        return found

    def _plausibility(self, method: Method, data: Splits, log: Callable[[str], None]) -> FeasibilityScores | None:
        """What the open world's candidates are chosen by; None, loudly, where there is no published vector."""
        evaluation = self.spec.evaluation
        if "open" not in self.spec.worlds or evaluation.threshold is None:
            return None
        found = load_feasibility(evaluation.feasibility, data, method.backbone)
        if found is None:
            files = published_files(data.name, data.root)
            names, folders = dict.fromkeys(f.name for f in files), dict.fromkeys(str(f.parent) for f in files)
            log(
                f"NO FEASIBILITY THRESHOLD in the open world, though threshold is {evaluation.threshold}: there is no "
                f"{' or '.join(names)} in {' or '.join(folders)}. Put the published file there, or set "
                "eval.feasibility to clip or to the path of a vector or of word vectors"
            )
        return found

    def _cut(self, method: Method, data: Splits, feasible: FeasibilityScores) -> Cut:
        """The threshold that was asked for, or the best one on the validation split."""
        spec, evaluation = self.spec, self.spec.evaluation
        if isinstance(evaluation.threshold, (int, float)):
            return Cut(evaluation.threshold, "published" if _published(spec) else "given", feasible)
        threshold = searched_threshold(
            method,
            data,
            feasible.values,
            self._feed(method, data.val),
            bins=evaluation.bins,
            infeasible=evaluation.infeasible,
            memory=self.machine.memory,
        )
        return Cut(threshold, "searched on validation", feasible)


def metrics(sweep: Sweep, bins: str) -> dict[str, float]:
    """Numbers of one evaluation; ``auc`` and the rest follow ``bins``, both areas are there."""
    by_bins: dict[str, Metrics] = {kind: sweep.compute_all(kind)[0] for kind in ("original", "exact")}
    chosen = by_bins[bins]
    names = ("auc", "best_seen", "best_unseen", "best_hm", "attr_acc", "obj_acc", "n_seen", "n_unseen")
    areas = {f"auc_{kind}": found.auc for kind, found in by_bins.items()}
    return {name: getattr(chosen, name) for name in names} | areas


#: What a setting of ``train.select`` chooses the epoch by.
SELECTED = {"auc": "validation AUC, closed world", "loss": "validation loss", "last": "the last epoch"}


def protocol(sweep: Sweep, world: str, spec: Spec, space: PairSpace, cut: Cut | None = None) -> dict[str, Any]:
    """How the numbers came about; results of different protocols are not compared.

    Args:
        cut: of the open world; None where every pair is a candidate.
    """
    kept = sweep.candidates.group != UNUSED
    words = (f"{space.attrs[a]} {space.objs[o]}\n" for a, o in sweep.candidates.pairs[kept].tolist())
    biases = sweep.compute_all("original")[0].curve.biases.tolist()
    found = {
        "bins": spec.evaluation.bins,
        "biases": biases if spec.evaluation.bins == "original" else "every breakpoint",
        "split": "test",
        "columns": len(kept),
        "candidates": int(kept.sum()),
        "candidates_sha256": hashlib.sha256("".join(words).encode()).hexdigest(),
        "threshold": None,
        "selected_by": "a checkpoint" if spec.checkpoint else SELECTED[spec.train.select],
    }
    if world == "closed" or spec.evaluation.threshold is None:
        return found
    if cut is None:
        return found | {"feasibility": f"missing: feasibility_{spec.dataset}.pt"}
    return found | {
        "threshold": cut.threshold,
        "threshold_from": cut.chosen,
        "feasibility": cut.plausibility.source,
        "feasibility_sha256": cut.plausibility.digest,
        "infeasible": spec.evaluation.infeasible,
    }


def _published(spec: Spec) -> bool:
    """Whether the threshold is the one of the method's paper for the dataset, and goes with the published vector."""
    if spec.dataset == "demo" or spec.evaluation.feasibility != "file":
        return False
    found = (load_recipe(path)["eval"].get("threshold") for path in recipes(spec.dataset, spec.method))
    return spec.evaluation.threshold in found


def _drawn(protocol: Mapping[str, Any]) -> str:
    """What a threshold has done, in words."""
    kept = f"{protocol['candidates']} of {protocol['columns']} pairs are candidates"
    return f"open world: threshold {protocol['threshold']:.4g}, {protocol['threshold_from']}: {kept}"


def failure(error: Exception) -> dict[str, Any]:
    """A result that says why there is none."""
    return {
        "status": "failed",
        "error": {
            "type": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
        },
        "protocol": {},
        "metrics": {},
        "training": None,
        "timing": None,
        "versions": provenance.versions("unknown"),
        "finished": _now(),
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
