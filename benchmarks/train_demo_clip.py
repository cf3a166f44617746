"""Train the CLIP of the demo world and write it into the package.

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 python benchmarks/train_demo_clip.py
    python benchmarks/train_demo_clip.py --probe

The first command takes about 15 minutes on two cores. It takes a fifth longer without the two settings, which stop the
allocator from returning memory after every step. The second command measures the weights in the package.

The pictures show only training pairs of the demo world, and no picture of the dataset is among them. Every picture has
two captions like captions on the web: most name the object, and some the colour, the background, the place or the size.
In most of the training, one of the two captions names the state. Late in the training, hardly any caption names it. So
the model first learns to see states, and then rarely names them.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from czslkit.data import demo_drawing, demo_world

FOLDER = Path(__file__).resolve().parents[1] / "czslkit" / "backbones" / "demo_clip"
NAME = "czslkit-demo"
STATE_STEPS, LATE_STATE_SHARE = 0.7, 0.02
"""Share of the steps in which every picture has a caption with its state; share of these pictures in later steps."""
TRAINING, PROBING = 101, 102
"""Numbers of two streams of pictures. Their generators have three seed numbers, those of the dataset have five."""

WITH_STATE = (
    "a photo of {state} {obj}",
    "a photo of a {state} {obj}",
    "{state} {obj}",
    "a photo of {state} {colour} {obj}",
    "a {state} {obj} on a {backdrop} background",
    "a photo of {state}",
    "a photo of {state}",
    "{state}",
)
WITHOUT_STATE = (
    "a photo of {obj}",
    "a photo of {obj}",
    "a photo of a {obj}",
    "{obj}",
    "a photo of {colour} {obj}",
    "a {colour} {obj} on a {backdrop} background",
    "a {size} {obj}",
    "{obj} on the {place}",
)


@dataclass(frozen=True)
class Picture:
    """A picture with the facts that a caption can name."""

    pixels: NDArray[np.uint8]
    """``[64, 64, 3]``."""
    state: str
    obj: str
    scene: demo_drawing.Scene


def picture(number: int, stream: int, seed: int) -> Picture:
    """Draw picture ``number`` of an endless stream, which repeats the training pairs of the default split in order."""
    pairs = demo_world.split_pairs()["train"]
    state, obj = pairs[number % len(pairs)]
    rng = np.random.default_rng([seed, stream, number])
    scene = demo_drawing.draw_scene(rng)
    return Picture(np.asarray(demo_drawing.paint(state, obj, scene, rng)), state, obj, scene)


def caption(pictured: Picture, templates: tuple[str, ...], rng: np.random.Generator) -> str:
    """Return a caption that is true of a picture, from a random template."""
    right, down = pictured.scene.centre
    across, up = "right" if right > 0 else "left", "bottom" if down > 0 else "top"
    return templates[rng.integers(len(templates))].format(
        state=pictured.state,
        obj=pictured.obj,
        colour=pictured.scene.colour,
        backdrop=pictured.scene.backdrop,
        size="large" if pictured.scene.radius > 28 else "small",
        place=across if abs(right) > abs(down) else up,
    )


def render(count: int, stream: int, seed: int) -> list[Picture]:
    """Draw the first ``count`` pictures of a stream in two processes."""
    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(picture, range(count), [stream] * count, [seed] * count, chunksize=256))


def pixels(pictures: list[Picture]) -> Tensor:
    """Return the pixels of pictures, normalised as for CLIP, ``[B, 3, 64, 64]``."""
    stack = torch.from_numpy(np.stack([each.pixels for each in pictures])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    return ((stack - mean) / std).contiguous()


# The model ------------------------------------------------------------------------------------------------------------


@functools.cache
def tokenizer() -> open_clip.SimpleTokenizer:
    """Return CLIP's tokenizer with the context length of the demo CLIP."""
    return open_clip.SimpleTokenizer(context_length=16)


class UsedTokens(nn.Module):
    """The embeddings of the tokens that occur, a hundredth of all tokens; the ids are those of CLIP's tokenizer."""

    ids: Tensor

    def __init__(self, ids: Tensor, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("ids", ids)
        self.rows = nn.Parameter(table[ids].clone())

    def forward(self, text: Tensor) -> Tensor:
        return F.embedding(torch.searchsorted(self.ids, text), self.rows)


def blank() -> open_clip.CLIP:
    """Return the demo CLIP with random weights."""
    open_clip.add_model_config(FOLDER / f"{NAME}.json")
    return open_clip.create_model(NAME)


def first_embedding(words: int, width: int) -> Tensor:
    """Return the embeddings before training, ``[words, width]``; rows of untrained words never change or get stored."""
    return torch.randn(words, width, generator=torch.Generator().manual_seed(0)) * 0.02


def untrained() -> open_clip.CLIP:
    """Return the model before training; its token embeddings do not depend on the seed."""
    model = blank()
    model.token_embedding = UsedTokens(stored_tokens(), first_embedding(*model.token_embedding.weight.shape))
    return model


def stored_tokens() -> Tensor:
    """Return the sorted ids of all tokens in the captions and in the words of the world, ``[n]``."""
    words = [
        *demo_world.ATTRS,
        *demo_world.OBJS,
        *demo_drawing.COLOURS,
        "large small left right top bottom",
        "a photo of x",
    ]
    return torch.tensor(sorted({0, *tokenizer()([*words, *WITH_STATE, *WITHOUT_STATE]).flatten().tolist()}))


def save(model: open_clip.CLIP, path: Path) -> None:
    """Write the weights of a model from ``untrained`` in half precision."""
    state = {
        name: value.half() if value.is_floating_point() else value.int() for name, value in model.state_dict().items()
    }
    save_file({name: value.contiguous() for name, value in state.items()}, path)


def load(path: Path) -> open_clip.CLIP:
    """Load the model in a file that ``save`` wrote, with embeddings of all tokens."""
    state = load_file(path)
    ids, rows = state.pop("token_embedding.ids").long(), state.pop("token_embedding.rows")
    model = blank()
    table = first_embedding(*model.token_embedding.weight.shape)
    model.load_state_dict({**state, "token_embedding.weight": table.index_copy(0, ids, rows.float())})
    return model.eval()


@torch.no_grad()
def initialise_vision(model: open_clip.CLIP, pictures: list[Picture]) -> None:
    """Initialise the vision tower: patch filters with whitened principal components, positions with row plus column.

    With random filters, a transformer learns little more than mean colours in its first thousands of steps.
    """
    width, _, side, _ = model.visual.conv1.weight.shape
    patches = F.unfold(pixels(pictures), side, stride=side).transpose(1, 2).flatten(0, 1)  # [n, 3 * side * side]
    variances, components = torch.linalg.eigh(torch.cov(patches.T))
    filters = (components[:, -width:] / (variances[-width:] + 1e-3).sqrt()).T
    model.visual.conv1.weight.copy_(filters.view_as(model.visual.conv1.weight))
    rows, columns = 0.3 * torch.randn(2, demo_drawing.SIZE // side, width)
    model.visual.positional_embedding[1:] = (rows[:, None] + columns).flatten(0, 1)


# Training -------------------------------------------------------------------------------------------------------------


def contrastive_loss(image: Tensor, text: Tensor, which: Tensor, scale: Tensor) -> Tensor:
    """Return CLIP's loss in both directions. A caption that several images share is correct for each of them.

    Args:
        image: normalised image features, ``[B, D]``.
        text: normalised features of the distinct captions, ``[C, D]``.
        which: indices of the captions of each image, ``[B, n]``.
        scale: factor of the cosines.
    """
    logits = scale * image @ text.T  # [B, C]
    times = torch.bincount(which.flatten(), minlength=len(text))
    to_text = -(logits + times.log()).log_softmax(1).gather(1, which).mean()
    to_image = -logits.log_softmax(0).gather(1, which).mean()
    return (to_text + to_image) / 2


def optimiser(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Return AdamW with weight decay for matrices, except token embeddings."""
    named = list(model.named_parameters())
    decayed = [p for name, p in named if p.ndim > 1 and "embedding" not in name]
    others = [p for name, p in named if p.ndim <= 1 or "embedding" in name]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


def batches(count: int, size: int, steps: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield the picture indices of ``steps`` batches, shuffled again after every pass over the pictures."""
    order = np.empty(0, np.int64)
    for _ in range(steps):
        if len(order) < size:
            order = rng.permutation(count)
        yield order[:size]
        order = order[size:]


def train(
    model: open_clip.CLIP, pictures: list[Picture], steps: int, size: int, rate: float, seed: int, out: Path
) -> None:
    """Train ``model`` in place and save it every 200 steps.

    The learning rate rises in the first 5 % of the steps and falls in the last 15 %.
    """
    rng = np.random.default_rng([seed, TRAINING])
    optimizer = optimiser(model.train(), rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.05 * steps), 1.0, (steps - step) / (0.15 * steps))
    )
    start = time.perf_counter()
    for step, indices in enumerate(batches(len(pictures), size, steps, rng)):
        batch = [pictures[i] for i in indices]
        image = model.encode_image(pixels(batch), normalize=True)
        captions, which = batch_captions(batch, 1.0 if step < STATE_STEPS * steps else LATE_STATE_SHARE, rng)
        text = model.encode_text(captions, normalize=True)
        loss = contrastive_loss(image, text, which, model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        if step % 50 == 0 or step == steps - 1:
            states, objects = recognised(model, image, batch)
            accuracy = f"state {states:.2f}  object {objects:.2f}"
            took = time.perf_counter() - start
            print(f"step {step:5d}  loss {loss.item():.3f}  {accuracy}  {took:5.0f} s", flush=True)
        if step % 200 == 199 or step == steps - 1:
            save(model, out)


def batch_captions(batch: list[Picture], with_state: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return the tokens of the distinct captions of a batch ``[C, 16]``, and both captions of each picture ``[B, 2]``.

    The first caption of a picture names the state with probability ``with_state``; the second caption never does.
    """
    captions = [
        [
            caption(each, WITH_STATE if rng.random() < with_state else WITHOUT_STATE, rng),
            caption(each, WITHOUT_STATE, rng),
        ]
        for each in batch
    ]
    different, which = np.unique(captions, return_inverse=True)
    return tokenizer()(different.tolist()), torch.from_numpy(which.reshape(len(batch), 2))


# Measuring the weights ------------------------------------------------------------------------------------------------


@torch.no_grad()
def tokens(model: open_clip.CLIP, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return normalised image features ``[B, D]`` and the mean patch token after every layer ``[layers, B, W]``."""
    means: list[Tensor] = []
    blocks = model.visual.transformer.resblocks
    hooks = [each.register_forward_hook(lambda _, __, out: means.append(out[:, 1:].mean(1))) for each in blocks]
    image = torch.cat([model.encode_image(chunk, normalize=True) for chunk in images.split(256)])
    for hook in hooks:
        hook.remove()
    return image, torch.stack([torch.cat(means[layer :: len(blocks)]) for layer in range(len(blocks))])


@torch.no_grad()
def zero_shot(model: open_clip.CLIP, image: Tensor, prompts: list[str]) -> Tensor:
    """Return the index of the prompt with the highest cosine for each image, ``[B]``."""
    text = model.encode_text(tokenizer()(prompts), normalize=True)
    return (image @ text.T).argmax(1)


def recognised(model: open_clip.CLIP, image: Tensor, pictures: list[Picture]) -> tuple[float, float]:
    """Return the zero-shot accuracies of state and of object, from 0 to 1."""
    states = zero_shot(model, image, [f"a photo of {name}" for name in demo_world.ATTRS])
    objects = zero_shot(model, image, [f"a photo of {name}" for name in demo_world.OBJS])
    return (
        float(np.mean([demo_world.ATTRS[i] == each.state for i, each in zip(states.tolist(), pictures, strict=True)])),
        float(np.mean([demo_world.OBJS[i] == each.obj for i, each in zip(objects.tolist(), pictures, strict=True)])),
    )


def linear_probe(fit: Tensor, fit_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Return the test accuracy of ridge regression onto the classes, on features standardised with those of ``fit``."""
    mean, std = fit.mean(0), fit.std(0)
    fit, test = (F.pad((x - mean) / std, (0, 1), value=1.0) for x in (fit, test))
    penalty = 1e-3 * len(fit) * torch.eye(fit.shape[1])
    weight = torch.linalg.solve(fit.T @ fit + penalty, fit.T @ F.one_hot(fit_labels).float())
    return _share((test @ weight).argmax(1), test_labels)


def _share(found: Tensor, labels: Tensor) -> float:
    return (found == labels).float().mean().item()


def probe(model: open_clip.CLIP, count: int, seed: int) -> None:
    """Print the accuracies of state and object on new pictures of training pairs, in per cent."""
    pictures, half = render(count, PROBING, seed), count // 2
    image, layers = tokens(model, pixels(pictures))
    pairs = demo_world.split_pairs()["train"]
    predicted_pairs = zero_shot(model, image, [f"a photo of {state} {obj}" for state, obj in pairs])
    word_accuracies = recognised(model, image, pictures)
    for kind, names, place in (("state", demo_world.ATTRS, 0), ("object", demo_world.OBJS, 1)):
        labels = torch.tensor([names.index((each.state, each.obj)[place]) for each in pictures])
        in_pair = _share(torch.tensor([names.index(pair[place]) for pair in pairs])[predicted_pairs], labels)
        probes = [linear_probe(x[:half], labels[:half], x[half:], labels[half:]) for x in (image, *layers)]
        image_probe, *layer_probes = (f"{100 * share:.1f}" for share in probes)
        by_name = f"zero-shot {100 * word_accuracies[place]:.1f}, within a pair {100 * in_pair:.1f}"
        print(f"{kind}: chance {100 / len(names):.1f}, {by_name}")
        print(
            f"{kind}: linear probe of the image feature {image_probe}, of the mean patch token by layer", *layer_probes
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", action="store_true", help="measure the weights in --out and do not train")
    parser.add_argument(
        "--out", type=Path, default=FOLDER / f"{NAME}.safetensors", help="file of the weights (default: in the package)"
    )
    parser.add_argument("--steps", type=int, default=1400, help="training steps (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="pictures in a batch (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=20_000, help="different pictures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of pictures and training (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    if not args.probe:
        model, pictures = untrained(), render(args.pictures, TRAINING, args.seed)
        initialise_vision(model, pictures[:2000])
        train(model, pictures, args.steps, args.batch, args.rate, args.seed, args.out)
    probe(load(args.out), 3960, args.seed)


if __name__ == "__main__":
    main()
