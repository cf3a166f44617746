"""The model card of a trained method: its results, its protocol, its recipe and what to cite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..metrics.names import METRICS
from ..result_store import Result
from .arrangement import percent
from .escaping import escape_markdown, printable
from .open_world import open_world_sentences
from .paper_names import PaperName
from .table import Table

_TASK = "zero-shot-image-classification"
_TAGS = ("compositional-zero-shot-learning", "czslkit")
_DIGITS = 8  # of the digest of a list


@dataclass(frozen=True)
class ModelCard:
    """What a model card says."""

    repository: str  # what --checkpoint takes: hf:USER/NAME, with @BRANCH if it is not the main branch
    method: str  # registered name
    method_paper: PaperName
    dataset: str  # registered name; empty if it is not known
    dataset_paper: PaperName
    recipe: Mapping[str, Any]  # method, options, train and eval
    results: Sequence[Result]  # finished results of one training, at most one for each world
    table: Table | None  # of these results; None if there are none
    license: str  # identifier of the hub, such as mit
    missing: Mapping[str, Any] = field(default_factory=dict)  # names of files that users have to supply, by option

    def text(self) -> str:
        """Return the card as Markdown with a head in YAML, as the Hugging Face hub reads it."""
        title = self.method_paper.display_name + (f" on {self.dataset_paper.display_name}" if self.dataset else "")
        sections = {
            "Results": self._results(),
            "Use": self._use(),
            "Protocol": "\n".join(f"- {escape_markdown(sentence)}" for sentence in protocol_sentences(self.results)),
            "Recipe": "Saved as a file, it is used by `czslkit bench "
            f"--methods {self.method} --recipe {self.method}=FILE.yaml`.\n\n"
            f"{_fenced('yaml', _yaml(self.recipe))}",
            "Citation": self._citation(),
        }
        body = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in sections.items() if text)
        introduction = (
            "This model names the state and the object in an image (*wet dog*), also pairs that its training images do "
            "not show: compositional zero-shot learning. czslkit reads it, measures it and names photos with it."
        )
        return f"---\n{self._head()}---\n\n# {escape_markdown(printable(title))}\n\n{introduction}\n\n{body}\n"

    def _head(self) -> str:
        """Return the YAML that the hub reads, with the numbers as ``model-index``, in percent."""
        from huggingface_hub import EvalResult, ModelCardData

        measured = [
            EvalResult(
                task_type=_TASK,
                task_name="Compositional zero-shot learning",
                dataset_type=self.dataset,
                dataset_name=f"{printable(self.dataset_paper.display_name)}, {result['cell']['world']} world",
                dataset_config=result["cell"]["world"],
                dataset_split="test",
                metric_type=metric,
                metric_name=name,
                metric_value=float(percent(result["metrics"][metric])),
            )
            for result in self.results
            for name, metric in METRICS.items()
            if result["metrics"].get(metric) is not None
        ]
        data = ModelCardData(
            license=self.license,
            library_name="czslkit",
            pipeline_tag=_TASK,
            tags=[*_TAGS, self.method],
            datasets=[self.dataset] if self.dataset else None,
            metrics=list(METRICS.values()) if measured else None,
            model_name=self.repository.partition("@")[0].rpartition("/")[2] if measured else None,
            eval_results=measured or None,
        )
        return f"{data.to_yaml()}\n"

    def _results(self) -> str:
        if self.table is None:
            return "This repository was pushed without results."
        return self.table.to_markdown().strip()

    def _use(self) -> str:
        name, dataset = self.repository, self.dataset or "NAME"
        bench = f"czslkit bench --checkpoint {name} --datasets {dataset} --data DIR"
        if self.missing:  # only czslkit bench can be given another file
            files = ", ".join(escape_markdown(printable(str(file))) for file in self.missing.values())
            given = " ".join(f"{option}=FILE" for option in self.missing)
            return f"{_fenced('sh', f'{bench} --set {given}')}\n\nThe repository does not hold {files}: FILE is yours."
        code = f'import czslkit\n\nmethod = czslkit.load("{name}")\nprint(method.predict(["photo.jpg"]))'
        command = f"pip install czslkit\nczslkit predict photo.jpg --checkpoint {name}\n{bench}"
        return f"{_fenced('sh', command)}\n\n{_fenced('python', code)}"

    def _citation(self) -> str:
        entries = dict.fromkeys(paper.citation for paper in (self.method_paper, self.dataset_paper) if paper.citation)
        return _fenced("bibtex", "\n\n".join(entries)) if entries else ""


def protocol_sentences(results: Sequence[Result]) -> list[str]:
    """Return in words how the results of one training were measured, and how it was trained."""
    if not results:
        return []
    first, labels = results[0], [result["cell"]["method"] for result in results]
    sentences = []
    counts = [first["metrics"].get(name) for name in ("n_seen", "n_unseen")]
    if None not in counts:
        sentences.append(
            f"The test split of {first['cell']['dataset']} has {counts[0]:,.0f} images of pairs that were seen in "
            f"training and {counts[1]:,.0f} images of unseen pairs."
        )
    for result in results:
        protocol, world = result["protocol"], result["cell"]["world"]
        if "candidates" in protocol:
            pairs = f"{protocol['candidates']:,} of {protocol['columns']:,}"
            sentences.append(f"In the {world} world, {pairs} pairs are candidates.")
    sentences += open_world_sentences(labels, results)
    training, cell = first.get("training") or {}, first["cell"]
    selected = first["protocol"].get("selected_by", "a rule that is not recorded")
    kept = f"; epoch {training['best_epoch']} is kept" if training.get("best_epoch") else ""
    if training.get("epochs"):
        sentences.append(
            f"The training had {training['epochs']} epochs and the random seed {cell['seed']}. The epoch is selected "
            f"by {selected}{kept}."
        )
    if files := first["protocol"].get("split_files"):
        digests = ", ".join(f"{n} {str(digest)[:_DIGITS]}" for n, digest in files.items() if n != "reading")
        sentences.append(f"The SHA-256 digests of the lists start with: {digests}.")
    used = {name: version for name, version in (first.get("versions") or {}).items() if name in ("czslkit", "torch")}
    if used:
        sentences.append(f"Versions: {', '.join(f'{name} {version}' for name, version in used.items())}.")
    return [printable(sentence) for sentence in sentences]


def _yaml(content: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, default_flow_style=None).strip()


def _fenced(language: str, text: str) -> str:
    """Return a block of code; backticks in it cannot end it."""
    return f"```{language}\n{text.replace('```', chr(39) * 3)}\n```"
