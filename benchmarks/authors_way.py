"""The released programs of MSCI, Troika and CSP as plain PyTorch, with the parameters of our methods.

Written from the description of these programs, to measure czslkit against them: both compute the same scores. What
the programs do otherwise is kept, because it is what takes their time: every prompt has all 8 tokens, the three prompts
are encoded one after the other and for every batch, all tokens of every visual block are projected (MSCI), the texts
are repeated for all images before the first projection, and every branch runs through the interaction on its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from czslkit.method import Method
from czslkit.types import Batch, pair_targets

CONTEXT_LENGTH = 8
#: Number of pairs whose texts the test programs encode at a time.
TEXT_BATCH = 1_024


@dataclass(frozen=True)
class Texts:
    """Text features ``[N, D]`` of pairs, attributes and objects; CSP has only pairs."""

    pair: Tensor
    attr: Tensor | None = None
    obj: Tensor | None = None

    def branches(self) -> Iterator[Tensor]:
        return (text for text in (self.pair, self.attr, self.obj) if text is not None)


class AuthorsWay:
    """A method's texts, scores and loss as the authors' program computes them.

    Args:
        method: ``msci``, ``troika`` or ``csp`` of czslkit, whose parameters are used.
    """

    def __init__(self, method: Method) -> None:
        self.method: Any = method
        self.clip: Any = self.method.backbone.clip

    def texts(self, pairs: Tensor) -> Texts:
        """Return the features of ``pairs`` ``[P, 2]``, and with three branches those of attributes and objects."""
        prompt = self.method.prompt
        words = F.dropout(prompt.words, prompt.dropout.p, prompt.training)
        attr, obj = words[: prompt.num_attrs], words[prompt.num_attrs :]
        pair = self._encoded(0, torch.stack((attr[pairs[:, 0]], obj[pairs[:, 1]]), 1))
        if not prompt.primitives:
            return Texts(pair)
        return Texts(pair, self._encoded(1, attr.unsqueeze(1)), self._encoded(2, obj.unsqueeze(1)))

    def all_texts(self, pairs: Tensor) -> Texts:
        """Return the texts of a test, in which all attributes and objects come again with every 1,024 pairs."""
        parts = [self.texts(part) for part in pairs.split(TEXT_BATCH)]
        return Texts(*(torch.cat(branch) for branch in zip(*(part.branches() for part in parts), strict=True)))

    def scores(self, images: Tensor, texts: Texts, pairs: Tensor) -> Tensor:
        """Return the open-world test scores of ``pairs`` ``[P, 2]``, ``[B, P]`` on the CPU.

        Args:
            images: normalised pixels ``[B, 3, H, W]``.
            texts: texts of ``pairs`` from ``all_texts``.
        """
        scores, *primitives = self.logits(images, texts)
        if primitives:
            fusion = self.method.head.fusion
            pair_weight, *weights = fusion.open or fusion.weights
            attr, obj = (
                weight * logits.softmax(-1)[:, index]
                for weight, logits, index in zip(weights, primitives, pairs.T, strict=True)
            )
            scores = pair_weight * scores + attr * obj
        return scores.cpu()

    def logits(self, images: Tensor, texts: Texts) -> list[Tensor]:
        """Return the logits of every branch, ``[B, N]``, for normalised pixels ``[B, 3, H, W]``."""
        layers = self._visual_layers(images)
        cls = layers[-1][:, 0]
        if texts.attr is None:
            return [self._cosine(cls, texts.pair)]
        views = [cls, self._disentangled(cls, "attr"), self._disentangled(cls, "obj")]
        normed = [F.normalize(text, dim=-1) for text in texts.branches()]
        refine = self._msci(layers) if hasattr(self.method.interaction, "local") else self._troika(layers)
        return [self._cosine(view, refine(text)) for view, text in zip(views, normed, strict=True)]

    def loss(self, batch: Batch, pairs: Tensor) -> Tensor:
        """Return the training loss of a batch."""
        assert isinstance(batch.images, Tensor)
        targets = [pair_targets(batch, pairs), batch.attr, batch.obj]
        logits = self.logits(batch.images, self.texts(pairs))
        return torch.stack([F.cross_entropy(*branch) for branch in zip(logits, targets, strict=False)]).sum()

    def _encoded(self, context: int, words: Tensor) -> Tensor:
        """Return the features ``[N, D]`` of prompts with ``words`` ``[N, k, Wt]``."""
        prompt, text = self.method.prompt, getattr(self.clip, "text", self.clip)
        start = torch.cat((prompt.marks[:-1], prompt.context[context]))
        end = len(start) + words.shape[1]
        rest = torch.cat((prompt.marks[-1:], prompt.padding.expand(CONTEXT_LENGTH - end - 1, -1)))
        x = torch.cat((start.expand(len(words), -1, -1), words, rest.expand(len(words), -1, -1)), 1)
        x = x + text.positional_embedding[:CONTEXT_LENGTH]
        mask = torch.full((CONTEXT_LENGTH, CONTEXT_LENGTH), float("-inf"), device=x.device).triu(1)
        x = x.transpose(0, 1)  # the programs keep tokens first
        for block in text.transformer.resblocks:
            x = _block(block, x, mask)
        x = text.ln_final(x.transpose(0, 1))
        return x[torch.arange(len(x), device=x.device), end] @ text.text_projection

    def _visual_layers(self, images: Tensor) -> list[Tensor]:
        """Return projected tokens ``[B, T, D]``: of all blocks for MSCI, else of the last block."""
        visual, backbone = self.clip.visual, self.method.backbone
        x = visual.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat((visual.class_embedding.expand(len(x), 1, -1), x), 1) + visual.positional_embedding
        x = visual.ln_pre(x).transpose(0, 1)
        blocks, layers = visual.transformer.resblocks, []
        for i, block in enumerate(blocks):
            x = _block(block, x, None, backbone.adapters.of_block(i) if len(backbone.adapters) else None)
            if len(self.method.layers) > 1 or i == len(blocks) - 1:
                layers.append(visual.ln_post(x.transpose(0, 1)) @ visual.proj)
        return layers

    def _msci(self, layers: list[Tensor]) -> Callable[[Tensor], Tensor]:
        aggregator, interaction = self.method.aggregator, self.method.interaction
        low, high = (
            _sequential(project, torch.cat(chosen, -1))
            for project, chosen in (
                (aggregator.project_low, layers[: aggregator.low]),
                (aggregator.project_high, layers[-aggregator.high :]),
            )
        )

        def refine(text: Tensor) -> Tensor:
            moved, stages = text.expand(len(low), -1, -1), []
            for stage, level in ((interaction.local, low), (interaction.overall, high)):
                level = stage.norm(level)
                for layer in stage.layers:
                    moved = _cross_attention(layer, moved, level)
                stages.append(moved)
            fusion = interaction.fusion
            return text + fusion.local_weight * stages[0] + fusion.global_weight * stages[1]

        return refine

    def _troika(self, layers: list[Tensor]) -> Callable[[Tensor], Tensor]:
        interaction, tokens = self.method.interaction, layers[-1]

        def refine(text: Tensor) -> Tensor:
            nonlocal tokens
            tokens = interaction.norm(tokens)
            moved = text.expand(len(tokens), -1, -1)
            for layer in interaction.layers:
                moved = _cross_attention(layer, moved, tokens)
            return text + interaction.weight * moved

        return refine

    def _disentangled(self, cls: Tensor, branch: str) -> Tensor:
        return _sequential(getattr(self.method.head, f"{branch}_view"), cls)

    def _cosine(self, image: Tensor, text: Tensor) -> Tensor:
        image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        scale = self.method.head.scale.exp()
        return scale * (image @ text.T if text.ndim == 2 else torch.einsum("bd,bnd->bn", image, text))


def _block(block: Any, x: Tensor, mask: Tensor | None, adapters: Any = None) -> Tensor:
    """Return the output of a CLIP block for tokens ``[L, N, W]``."""
    attn, normed = block.attn, block.ln_1(x)
    weights = attn.in_proj_weight, attn.in_proj_bias, None, None, False, 0.0, attn.out_proj.weight, attn.out_proj.bias
    attended, _ = F.multi_head_attention_forward(
        normed, normed, normed, x.shape[-1], attn.num_heads, *weights, need_weights=False, attn_mask=mask
    )
    x, before = x + attended, x
    if adapters:
        x = x + _adapted(adapters["attention"], before)
    hidden = x + _sequential(block.mlp, block.ln_2(x))
    return hidden + _adapted(adapters["mlp"], x) if adapters else hidden


def _adapted(adapters: Any, x: Tensor) -> Tensor:
    (adapter,) = adapters
    hidden = F.dropout(F.relu(_linear(adapter.down, x)), adapter.dropout.p, adapter.training)
    return 0.1 * _linear(adapter.up, hidden)


def _cross_attention(layer: Any, query: Tensor, context: Tensor) -> Tensor:
    """Return texts ``[B, N, D]`` after attention to tokens ``[B, T, D]``, with explicit attention weights."""

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (layer.heads, -1)).transpose(1, 2)

    q, k, v = (
        heads(_linear(layer.query, query)),
        heads(_linear(layer.key, context)),
        heads(_linear(layer.value, context)),
    )
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    query = query + _sequential(layer.out, (weights @ v).transpose(1, 2).flatten(2))
    return query + _sequential(layer.mlp, layer.norm(query))


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def _sequential(modules: Any, x: Tensor) -> Tensor:
    """Return the output of a chain of modules, with torch's own linear maps and the programs' QuickGELU."""
    if isinstance(modules, nn.Identity):
        return x
    for module in itertools.chain(modules):
        if isinstance(module, nn.Linear):
            x = _linear(module, x)
        elif type(module).__name__ == "QuickGELU":
            x = x * torch.sigmoid(1.702 * x)
        else:
            x = module(x)
    return x
