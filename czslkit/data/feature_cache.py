"""The pooled features of a split, from an image encoder that never changes: computed once and kept."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .. import provenance
from ..method import Method
from ..options import config_id
from .cache import Cache
from .images import ImageSet
from .splits import Split

#: Images that are encoded at a time where there is memory for so many: numbers may depend on it in their last digits.
BATCH = 64
_NAME = "pooled"


def features(cache: Cache | None, method: Method, split: Split, encode: Callable[[int], Tensor], size: int) -> Tensor:
    """Pooled features of every image, ``[N, D]``, on the method's device: from the cache, or else from ``encode``.

    They are shared by all methods, and are to the bit those of ``encode``: kept apart by files, image encoder,
    device, code and packages. To be called as ``encode`` would be: in evaluation mode and without gradients.

    Args:
        size: what ``encode`` is called with, the images to encode at a time.
    """
    encoded = functools.cache(lambda: encode(size))
    if cache is None or type(method).encode is not Method.encode:  # another one may read anything
        return encoded()
    encoder = _encoder(method) | {"batch": size}
    made_by = {
        "code": provenance.class_versions([ImageSet, Method, type(method.backbone)]),
        "packages": provenance.packages(),
    }
    key = {"images": split.digest, "encoder": encoder, "made_by": made_by}

    def write(file: Path) -> None:
        tensor = encoded().cpu().contiguous()
        file.write_bytes(save({_NAME: tensor}, {"key": json.dumps(key), "digest": _digest(tensor)}))

    kept = cache.obtain(
        f"features-{split.name}-{split.digest}-{config_id(encoder)}",
        config_id(made_by),
        ".safetensors",
        about=f"the features of {len(split):,} {split.name} images",
        size=4 * len(split) * method.backbone.dim,
        read=functools.partial(_read, key=key, images=len(split)),
        write=write,
    )
    return encoded() if kept is None else kept.to(method.device)


def _read(file: Path, key: Mapping[str, Any], images: int) -> Tensor:
    try:
        with safe_open(file, "pt") as opened:
            if (opened.metadata() or {}).get("key") != json.dumps(key):
                raise ValueError("it was made of something else")
            kept: Tensor = opened.get_tensor(_NAME)
            digest = opened.metadata().get("digest")
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if len(kept) != images:
        raise ValueError(f"it holds {len(kept)} images, expected {images}")
    if digest != _digest(kept):
        raise ValueError("it is damaged")
    return kept


def _encoder(method: Method) -> dict[str, Any]:
    """What tells an image encoder on a device from every other.

    Its tensors alone do not: neither the kind of activation nor the number of heads is one of them. What it makes of
    a picture of noise shows these, and how this device computes.
    """
    backbone, device = method.backbone, method.device
    noise = torch.rand(1, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(0))
    return {
        "tensors": _digest(*backbone.image_parameters(), *backbone.buffers()),
        "output": _digest(method.encode(noise.to(device)).pooled),
        "pixels": [backbone.image_size, *backbone.mean, *backbone.std],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
