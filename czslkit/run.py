"""One training and its evaluations, from what was asked to results on disk."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from . import provenance
from .backbones import resolve
from .components import BACKBONES
from .config import Spec
from .data.datasets import Splits
from .errors import ConfigError, CzslkitError
from .evaluation.evaluator import sweeps
from .evaluation.sweep import Metrics, Sweep
from .feed import Feed
from .method import METHODS, build
from .options import as_dict
from .store import Store, config_id
from .train import train


@dataclass(frozen=True)
class Machine:
    """Where and how visibly things run; no number depends on it."""

    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    workers: int = 0  # processes that read images
    progress: bool = True

    def torch_device(self) -> torch.device:
        """The device, found if it is ``auto``.

        Raises:
            ConfigError: torch knows no such device, or has none here.
        """
        name = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        try:
            return torch.zeros((), device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).split("\n")[0]
            raise ConfigError([f"device {name!r} cannot be used: {reason}"]) from None


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
        self, data: Mapping[str, str], load: Callable[[], Splits], say: Callable[[str], None]
    ) -> list[dict[str, Any]]:
        """The result of every world: finished ones as they are, the others run now and stored.

        An error ends up in the results of the worlds it kept from finishing; one of ``load`` is raised.

        Args:
            data: digests of the dataset's parts.
            load: gives the dataset; called only if something is to be run.
            say: called with a line for every step.
        """
        depends = self.depends(data)
        folder = self.store.folder(self.cell("closed"))
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / ".lock", say):
            standing = self._standing(depends, say)
            missing = tuple(world for world in self.spec.worlds if world not in standing)
            if not missing:
                say("done before")
            else:
                data_now = load()  # raises before any finished result is superseded
                say("running")
                try:
                    job = replace(self, spec=replace(self.spec, worlds=missing))
                    new = job._compute(data_now, folder / "training", depends, say)
                except Exception as error:
                    new = {world: failure(error) for world in missing}
                    say(f"failed: {type(error).__name__}: {error}")
                standing |= {result["cell"]["world"]: result for result in self._record(new, depends)}
        return [standing[world] for world in self.spec.worlds]

    def keep(self, error: Exception, say: Callable[[str], None]) -> list[dict[str, Any]]:
        """Finished results as they are, and ``error`` for the others: data or weights cannot be had."""
        done = {world: result for world in self.spec.worlds if (result := self._finished(world, say))}
        say(f"{error}" + (f"\nkept as they were: {', '.join(done)}" if done else ""))
        failed = self._record({world: failure(error) for world in self.spec.worlds if world not in done}, {})
        done |= {result["cell"]["world"]: result for result in failed}
        return [done[world] for world in self.spec.worlds]

    def _record(self, contents: Mapping[str, Mapping[str, Any]], depends: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Store what came of some worlds; the results as stored, and failures even where nothing can be stored."""
        results = []
        for world, content in contents.items():
            result = {"cell": self.cell(world), "config": self.spec.config, "depends": dict(depends), **content}
            try:
                self.store.put(result)
            except OSError as error:
                results.append({**result, **failure(error)})
            else:
                results.append(self.store.get(result["cell"]) or result)
        return results

    def _standing(self, depends: Mapping[str, Any], say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
        """Finished results that still stand, by world."""
        standing = {}
        for world in self.spec.worlds:
            result = self._finished(world, say)
            if result is None:
                continue
            if reason := self.store.stale(result, depends):
                say(f"{world} world {reason}")
            else:
                standing[world] = result
        return standing

    def _finished(self, world: str, say: Callable[[str], None]) -> dict[str, Any] | None:
        """The stored result of a world, if it has numbers."""
        try:
            result = self.store.get(self.cell(world))
        except CzslkitError as error:  # a file that is not a result; it is kept beside the new one
            say(str(error))
            return None
        return result if result and result["status"] == "done" else None

    def _compute(
        self, data: Splits, folder: Path, depends: Mapping[str, Any], say: Callable[[str], None]
    ) -> dict[str, dict[str, Any]]:
        """Train, then evaluate every world of the spec on the test split."""
        spec, machine = self.spec, self.machine
        device = machine.torch_device()
        torch.manual_seed(spec.seed)
        method = build(spec.method, data.space, **as_dict(spec.options)).to(device)
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
            progress=machine.progress,
            say=say,
        )
        start = time.monotonic()
        feed = Feed(method, data.test, spec.train.batch_size, workers=machine.workers)
        filled = sweeps(method, data, "test", spec.worlds, feed)
        timing = {"train_s": training.seconds, "eval_s": time.monotonic() - start}
        common = {
            "status": "done",
            "error": None,
            "training": asdict(training),
            "timing": timing,
            "versions": provenance.versions(str(device)),
            "components": provenance.plugins(type(module) for module in method.modules()),
            "finished": _now(),
        }
        return {
            world: {**common, "metrics": metrics(sweep, spec.evaluation.bins), "protocol": protocol(data, world, spec)}
            for world, sweep in filled.items()
        }


@contextmanager
def _alone(lock: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Wait, and say so, while another process has the lock."""
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another process that holds {lock}")
        held.acquire()
    try:
        yield
    finally:
        held.release()


def metrics(sweep: Sweep, bins: str) -> dict[str, float]:
    """Numbers of one evaluation; ``auc`` and the rest follow ``bins``, both areas are there."""
    by_bins: dict[str, Metrics] = {kind: sweep.compute_all(kind)[0] for kind in ("original", "exact")}
    chosen = by_bins[bins]
    names = ("auc", "best_seen", "best_unseen", "best_hm", "attr_acc", "obj_acc", "n_seen", "n_unseen")
    areas = {f"auc_{kind}": found.auc for kind, found in by_bins.items()}
    return {name: getattr(chosen, name) for name in names} | areas


def protocol(data: Splits, world: str, spec: Spec) -> dict[str, Any]:
    """How the numbers came about; results of different protocols are not compared."""
    space = data.space.open() if world == "open" else data.space
    candidates = len(space.pairs) if world == "open" else int(data.candidates("test").sum())
    return {
        "bins": spec.evaluation.bins,
        "split": "test",
        "columns": len(space.pairs),
        "candidates": candidates,
        "threshold": None,
        "selected_by": "validation AUC, closed world",
    }


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
