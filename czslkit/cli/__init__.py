"""The command line. Exit status: 0 all well, 1 something failed, 2 wrong usage."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import ConfigError, CzslkitError, UnknownNameError, did_you_mean
from ..files import write_text
from ..sizes import MEMORY, format_bytes
from .data import add_data

if TYPE_CHECKING:
    from torch import Tensor

    from ..method import Method
    from ..report.table import Table
    from ..types import Explanation, ImageFeatures, PairSpace, Setting

#: Formats that a table is written in, with the suffix of each file.
FILES = {"markdown": "md", "csv": "csv", "latex": "tex", "json": "json"}
_FILES = ("pairs", "seen", "labels", "candidates", "feasibility")  # that evaluate reads beside the scores


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    args = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        return command(args)
    except (ConfigError, UnknownNameError) as error:
        print(f"czslkit: {error}", file=sys.stderr)
        return 2
    except CzslkitError as error:
        print(f"czslkit: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as with | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"czslkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("czslkit: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="czslkit", description="Compositional zero-shot learning.")
    parser.add_argument("--version", action="version", version=f"czslkit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    bench = commands.add_parser("bench", help="train and evaluate methods on datasets, and compare them")
    bench.add_argument("--methods", metavar="NAME,...", help="see czslkit list (default: those of --checkpoint)")
    bench.add_argument(
        "--datasets", default="demo", metavar="NAME,...", help="demo, mit-states, ut-zappos, cgqa; or all three"
    )
    bench.add_argument("--worlds", default="closed,open", metavar="closed,open")
    bench.add_argument("--seeds", default="0", metavar="0,1,...", type=_numbers)
    bench.add_argument("--data", metavar="DIR", help="folder of the datasets (default: $CZSLKIT_DATA, else ./data)")
    bench.add_argument("--runs", default="runs", metavar="DIR", help="folder of the results (default: runs)")
    bench.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="backbone=demo, train.epochs=3, msci.low_layers=2",
    )
    bench.add_argument(
        "--checkpoint", nargs="+", action="extend", default=[], metavar="DIR", help="evaluate what is in DIR as it is"
    )
    bench.add_argument("--preset", choices=("demo", "paper"), help="recipes to start from")
    bench.add_argument("--plugins", nargs="+", default=[], metavar="MODULE|FILE.py", help="unpackaged code to load")
    bench.add_argument("--device", default="auto", metavar="auto|cpu|cuda|...")
    bench.add_argument("--workers", default=0, type=int, metavar="N", help="processes that read images (default: 0)")
    bench.add_argument(
        "--cache", metavar="DIR|off", help="folder of the features of frozen image encoders (default: RUNS/cache)"
    )
    bench.add_argument(
        "--cache-images", action="store_true", help="keep decoded images there, too: 150 KB each at 224 pixels"
    )
    _add_format(bench)
    bench.add_argument(
        "--memory",
        default=format_bytes(MEMORY),
        metavar="SIZE",
        help=f"that an evaluation may take, the method's own weights aside (default: {format_bytes(MEMORY)})",
    )
    bench.add_argument("--estimate", action="store_true", help="say what it would take, and stop")
    bench.set_defaults(command=_bench)

    convert = commands.add_parser("convert", help="a checkpoint of a method's authors into a folder for --checkpoint")
    convert.add_argument("file", metavar="IN.pt", type=Path)
    convert.add_argument("folder", metavar="OUT_DIR", type=Path)
    convert.add_argument("--method", required=True, metavar="NAME")
    convert.add_argument("--dataset", required=True, metavar="NAME", help="whose words it was trained on")
    convert.add_argument("--data", metavar="DIR", help="folder of the datasets (default: $CZSLKIT_DATA, else ./data)")
    convert.add_argument("--config", metavar="FILE.yml", help="the authors' settings")
    convert.add_argument("--backbone", metavar="NAME|FILE", help="the CLIP, if the checkpoint holds none")
    convert.set_defaults(command=_convert)

    explain = commands.add_parser("explain", help="what a trained method reads in an image, as a picture")
    explain.add_argument("image", metavar="IMAGE", type=Path)
    explain.add_argument("--checkpoint", required=True, metavar="DIR", type=Path, help="RUNS/.../training, for one")
    explain.add_argument("--pairs", metavar='"ATTR OBJ,..."', help="these alone (default: all that it knows)")
    explain.add_argument("--top", type=int, metavar="N", help="highest-ranked pairs (default: 3, or all of --pairs)")
    explain.add_argument("--out", metavar="FILE", type=Path, default=Path("explain.png"), help="default: explain.png")
    explain.add_argument("--device", default="auto", metavar="auto|cpu|cuda|...")
    explain.set_defaults(command=_explain)

    _add_evaluate(commands.add_parser("evaluate", help="the metrics of scores that your own code wrote"))

    names = commands.add_parser("list", help="methods, components and datasets, with who ships them")
    names.set_defaults(command=_list)

    table = commands.add_parser("table", help="the comparison table of finished runs")
    _add_selection(table)
    _add_format(table)
    table.add_argument("--intervals", action="store_true", help="with the bootstrap interval of every number")
    table.set_defaults(command=_table)

    report = commands.add_parser("report", help="one HTML page of finished runs")
    _add_selection(report)
    report.add_argument("--out", metavar="FILE", type=Path, help="default: RUNS/report.html")
    report.set_defaults(command=_report)

    add_data(commands.add_parser("data", help="datasets"))

    doctor = commands.add_parser("doctor", help="versions, devices, data, weights, plugins, and what is wrong")
    doctor.add_argument("--data", metavar="DIR", help="folder of the datasets (default: $CZSLKIT_DATA, else ./data)")
    doctor.add_argument("--backbone", default="", metavar="NAME|FILE", help="weights that must be here")
    doctor.add_argument("--format", choices=("text", "json"), default="text")
    doctor.set_defaults(command=_doctor)
    return parser


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The metrics of scores that your own code wrote: S, U, H, AUC of the original and the exact curve, attribute "
        "and object accuracy; docs/metrics.md defines them. A row of SCORES is an image, a column a pair, higher is "
        "better. Lists of pairs are text files with 'attribute object' a line."
    )
    parser.add_argument(
        "scores",
        metavar="SCORES",
        type=Path,
        help=".npz or .safetensors with floats scores [N, K] and integers attr [N] and obj [N], which number the "
        "attributes and the objects of --pairs as sorted by name; or .npy with the scores alone",
    )
    parser.add_argument("--pairs", required=True, metavar="FILE", type=Path, help="the K columns in order")
    parser.add_argument("--seen", required=True, metavar="FILE", type=Path, help="pairs trained on")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        type=Path,
        help="'attribute object' of each image, a line each (default: attr and obj of SCORES)",
    )
    parser.add_argument("--candidates", metavar="FILE", type=Path, help="pairs that may be predicted (default: all)")
    parser.add_argument("--topk", default=1, type=int, metavar="K", help="right is what is among so many (default: 1)")
    parser.add_argument(
        "--bins", choices=("original", "exact"), default="original", help="curve of S, U and H (default: original)"
    )
    parser.add_argument(
        "--feasibility",
        metavar="FILE",
        type=Path,
        help="of every attribute x object, sorted by name, or word vectors to compute it from",
    )
    parser.add_argument(
        "--threshold", nargs="+", type=float, metavar="T", help="feasibility an unseen pair needs; a row for each"
    )
    parser.add_argument(
        "--infeasible",
        choices=("exclude", "original"),
        default="exclude",
        help="pairs below the threshold: never predicted, or with score 0 as in the original (default: exclude)",
    )
    parser.add_argument("--format", choices=("text", "markdown", "csv", "json"), default="text")
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="also write everything there as JSON")
    parser.set_defaults(command=_evaluate)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUNS", type=Path)
    parser.add_argument("--methods", metavar="NAME,...", help="of these alone")
    parser.add_argument("--datasets", metavar="NAME,...", help="on these alone")
    parser.add_argument("--mixed", action="store_true", help="side by side even if not measured alike")


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format", choices=("text", *FILES), default="text", help="of the table printed (default: text)"
    )


def _bench(args: argparse.Namespace) -> int:
    from ..registry import load_extra
    from ..runner.bench import bench
    from ..runner.settings import parse_settings

    if not (args.methods or args.checkpoint):
        raise ConfigError(["nothing to run: name --methods or a --checkpoint"])
    for plugin in args.plugins:
        load_extra(plugin)
    result = bench(
        args.methods,
        args.datasets,
        args.worlds,
        args.seeds,
        data=args.data,
        runs=args.runs,
        settings=parse_settings(args.set),
        preset=args.preset,
        checkpoints=args.checkpoint,
        device=args.device,
        workers=args.workers,
        cache=args.cache,
        cache_images=args.cache_images,
        memory=args.memory,
        estimate=args.estimate,
    )
    if args.estimate:
        return 1 if result.failed else 0
    table = result.table()
    _print(table, args.format)
    for kind, suffix in FILES.items():
        write_text(Path(args.runs) / f"table.{suffix}", table.render(kind))
    print(f"also written to {args.runs}/table.{{md,csv,tex,json}}", file=sys.stderr)
    return 1 if result.failed else 0


def _convert(args: argparse.Namespace) -> int:
    from ..checkpoints.authors import convert
    from ..data.loading import load_dataset

    space = load_dataset(args.dataset, args.data).space
    convert(args.method, args.file, space, args.folder, args.config, args.backbone)
    print(args.folder)
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from ..data.pair_lists import read_pairs
    from ..evaluation.score_file import open_scores
    from ..evaluation.score_labels import checked_labels, label_space, pair_mask, read_labels
    from ..evaluation.summary import summarise

    if problems := _misfits(args):
        raise ConfigError(problems)
    scores, pairs = open_scores(args.scores), read_pairs(args.pairs)
    space = label_space(pairs, read_pairs(args.seen))
    if args.labels:
        labels = read_labels(args.labels, space)
    elif scores.labels:
        labels = checked_labels(scores.labels, space)
    else:
        raise ConfigError(
            [
                f"{args.scores} holds no labels: give --labels, a text file with 'attribute object' a line, "
                "or integers attr and obj beside scores in one .npz or .safetensors"
            ]
        )
    candidates = pair_mask(pairs, read_pairs(args.candidates), "candidate") if args.candidates else None
    feasibility = None
    if args.feasibility:
        from ..evaluation.feasibility_source import read_feasibility  # takes seconds: it knows backbones

        feasibility = read_feasibility(args.feasibility, space)[space.flat()]
    summary = summarise(
        scores,
        space,
        labels,
        candidates,
        feasibility,
        args.threshold,
        topk=args.topk,
        bins=args.bins,
        infeasible=args.infeasible,
        files={name: str(file) for name in _FILES if (file := getattr(args, name))},
    )
    if args.out:
        write_text(args.out, summary.to_json())
    print(summary.render(args.format), end="")
    return 0


def _misfits(args: argparse.Namespace) -> list[str]:
    """What is wrong with the options of ``evaluate``, whatever is in the files."""
    problems = []
    if args.topk < 1:
        problems.append(f"--topk is {args.topk}, expected 1 or more")
    if (args.feasibility is None) != (args.threshold is None):
        given, missing = ("feasibility", "threshold") if args.feasibility else ("threshold", "feasibility")
        problems.append(f"--{given} without --{missing}: give both or neither")
    if args.threshold and not all(map(math.isfinite, args.threshold)):
        problems.append(f"--threshold is {' '.join(map(str, args.threshold))}, expected finite numbers")
    if args.infeasible != "exclude" and args.threshold is None:
        problems.append(f"--infeasible {args.infeasible} without --threshold: there are no infeasible pairs")
    return problems


def _explain(args: argparse.Namespace) -> int:
    import torch
    from tabulate import tabulate

    from czslkit.data.image_transforms import open_rgb, resize_center_crop, to_normalized_tensor

    from ..checkpoints.trained import load_checkpoint
    from ..explain.drawing import best, draw
    from ..runner.machine import Machine
    from ..types import Setting

    if args.top is not None and args.top < 1:
        raise ConfigError([f"--top is {args.top}, expected 1 or more"])
    photo, device = open_rgb(args.image), Machine(args.device).torch_device()
    method = load_checkpoint(args.checkpoint).to(device)
    pairs = (_pairs(args.pairs, method.space) if args.pairs is not None else method.space.pairs).to(device)
    backbone = method.backbone
    picture = resize_center_crop(photo, backbone.image_size)
    setting = Setting("test", "closed", len(method.space.pairs))  # scores fused as for the closed world's table
    with torch.no_grad():
        image = method.encode(to_normalized_tensor(picture, backbone.mean, backbone.std)[None].to(device))
        if args.pairs is None:
            pairs = _highest(method, image, pairs, args.top or 3, setting)
        explanation = method.explain(image, method.text(pairs), setting)
    draw(picture, explanation, method.space, top=args.top).save(args.out, "PNG")
    rows = [_shares(explanation, method.space, row) for row in best(explanation, top=args.top)]
    print(tabulate(rows, headers="keys", tablefmt="plain", floatfmt=".3f"))
    print(args.out)
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from ..doctor import examine

    found = examine(args.data, args.backbone)
    print(json.dumps(found.to_json(), indent=1) if args.format == "json" else found.to_text())
    return 1 if found.problems else 0


def _list(args: argparse.Namespace) -> int:
    from tabulate import tabulate

    from .list_names import catalog

    entries, failures = catalog()
    rows = [(e.kind, e.name, e.dist, e.summary) for e in entries]
    print(tabulate(rows, headers=("kind", "name", "from", "what it is"), tablefmt="plain"))
    for line in failures:
        print(line, file=sys.stderr)
    return 0


def _table(args: argparse.Namespace) -> int:
    _print(_stored(args), args.format)
    return 0


def _report(args: argparse.Namespace) -> int:
    out = args.out or args.runs / "report.html"
    write_text(out, _stored(args).render("html"))
    print(out)
    return 0


def _pairs(text: str, space: PairSpace) -> Tensor:
    """``"wet dog,dry dog"`` as ``[P, 2]``, each pair once.

    Raises:
        ConfigError: not pairs, or words that ``space`` does not have; all of them.
    """
    import torch

    problems: list[str] = []
    pairs: dict[tuple[int, int], None] = {}
    for part in text.split(","):
        words = part.split()
        if len(words) != 2:
            problems.append(f"{part.strip()!r} is not an attribute and an object, such as 'wet dog'")
            continue
        unknown = [
            f"no {kind} named {word!r} among the {len(known)} of the checkpoint.{did_you_mean(word, known)}"
            for kind, word, known in (("attribute", words[0], space.attrs), ("object", words[1], space.objs))
            if word not in known
        ]
        problems += unknown
        if not unknown:
            pairs[space.attrs.index(words[0]), space.objs.index(words[1])] = None
    if problems:
        raise ConfigError(problems)
    return torch.tensor(list(pairs))


def _highest(method: Method, image: ImageFeatures, pairs: Tensor, top: int, setting: Setting) -> Tensor:
    """The ``top`` pairs of ``pairs`` that an image ranks highest, ``[top, 2]``."""
    import torch

    from ..evaluation.budget import PAIRS

    method.explain(image, method.text(pairs[:1]))  # one that cannot be explained says so before the long part
    text = method.text(pairs)
    step = PAIRS if method.chunkable else len(pairs)
    texts = [text.rows(slice(start, start + step)) for start in range(0, len(pairs), step)]
    ranked = torch.cat([method.rank(image, some, setting)[0] for some in texts])
    return pairs[ranked.argsort(descending=True, stable=True)[:top]]


def _shares(explanation: Explanation, space: PairSpace, row: int) -> dict[str, str | float]:
    """A pair with its score, and the stages' shares in it, its attribute and its object where there are several."""
    attr, obj = explanation.pairs[row].tolist()
    shown: dict[str, str | float] = {
        "pair": f"{space.attrs[attr]} {space.objs[obj]}",
        "score": float(explanation.ranked[0, row]),
    }
    stages = list(explanation.share)
    if len(stages) > 1:
        texts = {"pair": row, "attr": attr, "obj": obj}
        for branch, text in ((branch, texts[branch]) for branch in explanation.share[stages[0]]):
            parts = [f"{explanation.share[stage][branch][0, text]:.0%}" for stage in stages]
            shown[f"{'/'.join(stages)}: {branch}"] = "/".join(parts)
    return shown


def _stored(args: argparse.Namespace) -> Table:
    """The table of the results in a folder that were asked for; names files that are none."""
    from ..report.table import Table
    from ..store import Store

    runs: Path = args.runs
    if not runs.is_dir():
        raise CzslkitError(f"no folder {runs}; expected the folder of results that czslkit bench wrote")
    store = Store(runs)
    results = store.results()
    for key, asked in (("method", args.methods), ("dataset", args.datasets)):
        if asked is not None:
            there = sorted({result["cell"][key] for result in results})
            chosen = [name.strip() for name in asked.split(",")]
            if unknown := [name for name in chosen if name not in there]:
                raise ConfigError([f"{runs} has no results of {', '.join(unknown)}. Known: {', '.join(there)}."])
            results = [result for result in results if result["cell"][key] in chosen]
    for problem in store.problems:
        print(f"left out: {problem}", file=sys.stderr)
    if not results:
        raise CzslkitError(f"no results in {runs}; expected DATASET/METHOD/seedN-ID/WORLD.json from czslkit bench")
    return Table(results, mixed=args.mixed, attached=store.attached, intervals=vars(args).get("intervals", False))


def _print(table: Table, kind: str) -> None:
    print(table.to_text(color=sys.stdout.isatty()) if kind == "text" else table.render(kind), end="")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not whole numbers with commas, such as 0,1,2") from None
