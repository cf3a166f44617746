"""CLIP models through open_clip: any model name, a local weight file, or OpenAI's format."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..components import BACKBONES, Backbone
from ..errors import ConfigError, did_you_mean
from ..types import ImageFeatures
from ..weights import read_tensors

T = TypeVar("T")

#: Width of an attention head in every CLIP that OpenAI released.
HEAD_WIDTH = 64
#: Entries of CLIP files that are no weights.
CONSTANTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
#: Text positions of every CLIP that OpenAI released; some authors cut them shorter.
LONGEST = 77


class Adapter(nn.Module):
    """Bottleneck beside a residual branch: ``0.1 * up(dropout(relu(down(x))))``.

    Starts as zero, so that an adapted model starts as the one it adapts. Chen et al.,
    "AdaptFormer", NeurIPS 2022. https://arxiv.org/abs/2205.13535
    """

    def __init__(self, width: int, bottleneck: int, dropout: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        return 0.1 * self.up(self.dropout(F.relu(self.down(x))))


class ClipBackbone(Backbone):
    """A frozen CLIP with the blocks of its towers in reach.

    Args:
        model: an open_clip model.
        name: what open_clip calls it; needed where its text tower is not OpenAI's, to find its tokenizer.
        adapter_dim: bottleneck of two trainable adapters in every visual block; 0 for none.
        adapter_dropout: inside the adapters.

    Raises:
        ValueError: adapters for a visual tower that is not a vision transformer with a class token.
    """

    def __init__(
        self,
        model: Any,
        *,
        name: str = "",
        adapter_dim: int = 0,
        adapter_dropout: float = 0.1,
    ) -> None:
        import open_clip

        super().__init__()
        self.clip: Any = model.requires_grad_(False)
        self.name = name
        visual, text = model.visual, getattr(model, "text", model)
        self._text: list[Any] = [text]  # in a list: a second name must not become a second submodule
        blocks = _plain_blocks(visual)
        self.depth = len(blocks)
        if adapter_dim and not self.depth:
            raise ValueError(f"adapters need a vision transformer with a class token, not a {type(visual).__name__}")
        self.visual_width = visual.conv1.out_channels if self.depth else 0
        self.visual_tokens = len(visual.positional_embedding) if self.depth else 0
        embedding = getattr(text, "token_embedding", None)
        self.token_width = embedding.embedding_dim if embedding is not None else 0
        size = visual.image_size
        self.image_size = size[0] if isinstance(size, (tuple, list)) else size
        self.dim = _joint_width(visual)
        # what create_model found; a model built from shapes alone is OpenAI's
        self.mean = tuple(getattr(visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN)
        self.std = tuple(getattr(visual, "image_std", None) or open_clip.OPENAI_DATASET_STD)
        self.adapters = nn.ModuleList(  # beside the attention of every block, then beside every MLP
            Adapter(self.visual_width, adapter_dim, adapter_dropout)
            for _ in range(2 * self.depth if adapter_dim else 0)
        )

    @property
    def scale(self) -> Tensor:  # type: ignore[override]
        scale: Tensor = self.clip.logit_scale
        return scale

    def image_parameters(self) -> Iterator[nn.Parameter]:
        return itertools.chain(self.clip.visual.parameters(), self.adapters.parameters())

    def encode_image(self, images: Tensor, layers: Sequence[int] = ()) -> ImageFeatures:
        if not self.depth:
            pooled: Tensor = self.clip.encode_image(images)
            return ImageFeatures(pooled)
        visual = self.clip.visual
        x = visual.conv1(images).flatten(2).transpose(1, 2)  # [B, T - 1, V]
        x = torch.cat((visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x), 1)  # [B, T, V]
        x = visual.ln_pre(visual.patch_dropout(x + visual.positional_embedding.to(x.dtype)))
        kept = {}
        for i, block in enumerate(visual.transformer.resblocks):
            x = _block(block, x, adapters=self.adapters[i :: self.depth] if len(self.adapters) else None)
            if i in layers:
                kept[i] = self.project_image(x)
        pooled = kept[self.depth - 1][:, 0] if self.depth - 1 in kept else self.project_image(x[:, 0])
        return ImageFeatures(pooled, tuple(kept[i] for i in layers), x)

    def project_image(self, tokens: Tensor) -> Tensor:
        visual = self.clip.visual
        tokens = visual.ln_post(tokens)
        return tokens if visual.proj is None else tokens @ visual.proj

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        self._check_text()
        return _tokenizer()(list(texts), context_length=length)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        table = self._text[0].token_embedding
        embedded: Tensor = table(ids.to(table.weight.device))
        return embedded

    def encode_text(self, prompts: Tensor) -> Tensor:
        x = prompts + self._positions(prompts.shape[1]).to(prompts.dtype)
        for block in self._text[0].transformer.resblocks:
            x = _block(block, x, causal=True)
        return x

    def encode_text_after(self, start: Tensor, rest: Tensor) -> Tensor:
        """No token sees those behind it, so the start is encoded once."""
        first = start[None]  # [1, S, W]
        positions = self._positions(len(start) + rest.shape[1]).to(rest.dtype)
        first, x = first + positions[: len(start)], rest + positions[len(start) :]
        for block in self._text[0].transformer.resblocks:
            first, x = _block(block, first, causal=True), _block(block, x, causal=True, before=first)
        return torch.cat((first.expand(len(x), -1, -1), x), 1)

    def _positions(self, length: int) -> Tensor:
        """What tells the tokens of a prompt apart, ``[length, W]``; zero past the last position."""
        self._check_text()
        positions: Tensor = self._text[0].positional_embedding[:length]
        if len(positions) < min(length, LONGEST):
            raise ValueError(f"a prompt has {length} tokens, this CLIP was cut to {len(positions)} text positions")
        return F.pad(positions, (0, 0, 0, length - len(positions)))

    def project_text(self, tokens: Tensor) -> Tensor:
        text = self._text[0]
        tokens = text.ln_final(tokens)
        projection = text.text_projection
        if projection is None:
            return tokens
        return projection(tokens) if isinstance(projection, nn.Module) else tokens @ projection

    def encode_sentences(self, texts: Sequence[str]) -> Tensor:
        if not (self.name and self._foreign_text()):
            return super().encode_sentences(texts)
        features: Tensor = self.clip.encode_text(self._own_tokenizer(list(texts)).to(self.scale.device))
        return features

    @functools.cached_property
    def _own_tokenizer(self) -> Any:
        import open_clip

        return fetched(
            self.name,
            lambda: open_clip.get_tokenizer(self.name),
            part="tokenizer",
            hint="it comes from a hub, through the package transformers",
        )

    def _check_text(self) -> None:
        if foreign := self._foreign_text():
            raise ValueError(foreign)

    def _foreign_text(self) -> str:
        """Why embeddings cannot be read at the end mark of OpenAI's tokens, behind a causal mask; empty if they can."""
        text = self._text[0]
        causal = getattr(text, "attn_mask", None) is not None
        pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
        if getattr(text, "cls_emb", None) is not None:
            pool = "class token"
        words = text.token_embedding.num_embeddings if self.token_width else 0
        if causal and pool in ("argmax", "eos") and words == _tokenizer().vocab_size:
            return ""
        return (
            f"prompts need a causal text tower read at the end of text, over OpenAI's {_tokenizer().vocab_size} "
            f"tokens; this one is a {type(text).__name__} with {words} tokens, "
            f"{'causal' if causal else 'not causal'}, pooled by {pool}"
        )


@BACKBONES.register("open_clip")
class OpenClip(ClipBackbone):
    """``NAME/WEIGHTS``, or an OpenAI-format CLIP file alone.

    ``NAME`` is an open_clip model; ``WEIGHTS`` one of its pretrained tags, ``random``, or a
    file (safetensors, a torch file of tensors, or TorchScript, whose program is not run).
    """

    def __init__(self, argument: str = "ViT-L-14-quickgelu/openai", **options: Any) -> None:
        name = argument if argument.startswith("hf-hub:") else argument.partition("/")[0]
        super().__init__(_load(argument), name="" if Path(argument).is_file() else name, **options)


def model_names() -> list[str]:
    """Every architecture that open_clip knows."""
    import open_clip

    names: list[str] = open_clip.list_models()
    return names


def from_openai(state: Mapping[str, Tensor]) -> nn.Module:
    """The CLIP that a state dict in OpenAI's format describes, its sizes taken from the shapes.

    Raises:
        ConfigError: the keys or shapes are not those of a CLIP with a vision transformer, all of them.
    """
    state = {key: value for key, value in state.items() if key not in CONSTANTS}
    model = sized_as(state)
    fill(model, state)
    return model


def sized_as(state: Mapping[str, Tensor]) -> nn.Module:
    """A CLIP with random weights, of the sizes that a state dict in OpenAI's format has.

    A size is read from whichever of its tensors is there, so that ``misfits`` can name the others.

    Raises:
        ConfigError: not a CLIP with a vision transformer.
    """
    import open_clip

    def size(default: int, *places: tuple[str, int]) -> int:
        found = (state[name].shape[axis] for name, axis in places if name in state and state[name].ndim > axis)
        return next(filter(None, found), default)

    layers, text_layers = (_count(state, f"{tower}transformer.resblocks.") for tower in ("visual.", ""))
    if not (layers and text_layers):
        tower = "text" if layers else "vision"
        raise ConfigError([f"not a CLIP with a vision transformer in OpenAI's format: no {tower} transformer in it"])
    width = size(HEAD_WIDTH, ("visual.class_embedding", 0), ("visual.ln_post.weight", 0), ("visual.conv1.weight", 0))
    patch = size(14, ("visual.conv1.weight", 3))
    grid = math.isqrt(size(257, ("visual.positional_embedding", 0)) - 1)
    vision = open_clip.CLIPVisionCfg(
        layers=layers, width=width, patch_size=patch, image_size=grid * patch, head_width=min(HEAD_WIDTH, width)
    )
    text_width = size(HEAD_WIDTH, ("token_embedding.weight", 1), ("ln_final.weight", 0), ("text_projection", 0))
    text = open_clip.CLIPTextCfg(
        context_length=size(LONGEST, ("positional_embedding", 0)),
        vocab_size=size(49408, ("token_embedding.weight", 0)),
        width=text_width,
        heads=max(1, text_width // HEAD_WIDTH),
        layers=text_layers,
    )
    return open_clip.CLIP(size(width, ("text_projection", 1), ("visual.proj", 1)), vision, text, quick_gelu=True)


def misfits(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """What of ``state`` cannot take the place of ``own``: names missing or unknown, shapes that differ."""
    unknown = state.keys() - own.keys()
    problems = [f"{key} is missing" for key in own.keys() - state.keys()]
    problems += [f"{key} is unknown{did_you_mean(key, own) if len(unknown) < 20 else ''}" for key in unknown]
    problems += [
        f"{key} is {list(state[key].shape)}, expected {list(own[key].shape)}"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    ]
    return sorted(problems)


def fill(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy ``state`` into ``model``, every tensor.

    Raises:
        ConfigError: names that are missing or unknown, shapes that differ; all of them.
    """
    if problems := misfits(model.state_dict(), state):
        raise ConfigError([f"these tensors do not fit {type(model).__name__}:", *problems])
    model.load_state_dict(state)


def fetched(
    setting: str,
    create: Callable[[], T],
    *,
    part: str = "weights",
    hint: str = "a file works as well: NAME//path/to/weights",
) -> T:
    """What ``create`` makes from files that may have to be downloaded.

    Raises:
        ConfigError: they cannot be had; says which ``part`` of ``setting`` that is, and the ``hint``.
    """
    try:
        return create()
    except Exception as error:  # whatever a hub and a network bring about
        why = str(error).strip().split("\n")[0]
        raise ConfigError([f"the {part} of {setting} cannot be had: {why}; {hint}"]) from error


def _load(argument: str) -> nn.Module:
    import open_clip

    if Path(argument).is_file():
        return from_openai(read_tensors(argument))
    if argument.startswith("hf-hub:"):
        return fetched(argument, lambda: open_clip.create_model(argument, require_pretrained=True))
    name, _, weights = argument.partition("/")
    if name not in model_names():
        raise ConfigError([f"open_clip has no model {name!r}.{did_you_mean(name, model_names())}"])
    if weights == "random":
        return open_clip.create_model(name)
    if Path(weights).is_file():
        model = open_clip.create_model(name)
        fill(model, read_tensors(weights))
        return model
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags:
        raise ConfigError(
            [
                f"{name} has no weights {weights!r}, and there is no such file.{did_you_mean(weights, tags)} "
                f"Known: {', '.join([*tags, 'random'])}, or a file."
            ]
        )
    # some weights were trained with QuickGELU, whatever the name says
    quick = bool(open_clip.get_pretrained_cfg(name, weights).get("quick_gelu", False))
    return fetched(
        argument,
        lambda: open_clip.create_model(name, pretrained=weights, force_quick_gelu=quick, require_pretrained=True),
    )


def _block(
    block: Any, x: Tensor, *, adapters: Any = None, causal: bool = False, before: Tensor | None = None
) -> Tensor:
    """One transformer block on ``[N, L, W]``; each adapter reads what its residual reads.

    Args:
        before: ``[1, S, W]``, tokens in front of all others that are read, too.
    """
    ahead = None if before is None else block.ln_1(before)
    attended = x + block.ls_1(_attend(block.attn, block.ln_1(x), causal, ahead))
    x = attended if adapters is None else attended + adapters[0](x)
    mixed = x + block.ls_2(block.mlp(block.ln_2(x)))
    return mixed if adapters is None else mixed + adapters[1](x)


def _attend(attn: Any, x: Tensor, causal: bool, ahead: Tensor | None = None) -> Tensor:
    """Self-attention on ``[N, L, W]``, independent of the order of axes that ``attn`` was made for.

    Args:
        ahead: ``[1, S, W]``, tokens that all others read.
    """

    def heads(tokens: Tensor) -> Iterator[Tensor]:
        """Queries, keys and values, ``[N, heads, L, W / heads]`` each."""
        parts = F.linear(tokens, attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)
        return (part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in parts)

    q, k, v = heads(x)
    mask = None
    if ahead is not None:
        _, *others = heads(ahead)
        k, v = (torch.cat((o.expand(len(x), -1, -1, -1), own), 2) for o, own in zip(others, (k, v), strict=True))
        mask = q.new_ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(ahead.shape[1]) if causal else None
    read = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal and mask is None).transpose(1, 2).flatten(2)
    projected: Tensor = attn.out_proj(read)
    return projected


def _plain_blocks(visual: Any) -> Sequence[nn.Module]:
    """The blocks of a vision transformer read at its class token; nothing for any other tower."""
    plain = (
        all(hasattr(visual, name) for name in ("conv1", "class_embedding", "ln_pre", "ln_post", "proj"))
        and getattr(visual, "attn_pool", None) is None
        and getattr(visual, "pool_type", "tok") == "tok"
        and not getattr(visual, "final_ln_after_pool", False)
        and all(isinstance(getattr(b, "attn", None), nn.MultiheadAttention) for b in visual.transformer.resblocks)
    )
    return list(visual.transformer.resblocks) if plain else []


def _joint_width(visual: Any) -> int:
    width = getattr(visual, "output_dim", None)
    if width is None:  # timm towers do not say
        size = visual.image_size if isinstance(visual.image_size, (tuple, list)) else (visual.image_size,) * 2
        with torch.no_grad():
            width = visual(torch.zeros(1, 3, *size)).shape[-1]
    return int(width)


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return 1 + max((int(key[len(prefix) :].split(".")[0]) for key in state if key.startswith(prefix)), default=-1)


@functools.cache
def _tokenizer() -> Any:
    import open_clip

    return open_clip.SimpleTokenizer()
