"""The cache of features: pooled features of the images of a split from a frozen image encoder, computed once."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .. import distributed, provenance
from ..foreign_files import check_regular
from ..method import Method
from ..options import config_id
from ..precision import Precision, precision_record
from ..weights import tensor_digest
from . import image_transforms
from .cache import Cache
from .splits import Split

_TENSOR = "pooled"  # name of the tensor in a file


def pooled_features(
    cache: Cache | None,
    method: Method,
    split: Split,
    encode: Callable[[], Tensor],
    batch_size: int,
    precision: Precision = "fp32",
) -> Tensor:
    """Return pooled features of every image, ``[N, D]``, on the method's device: from the cache, else from ``encode``.

    All methods share the features, which equal the result of ``encode`` to the last bit: there is a separate file for
    other images, encoders, number formats, devices, code or packages. Call this function in evaluation mode and without
    gradients.

    Args:
        cache: None writes nothing to disk.
        method: the method whose image encoder ``encode`` uses.
        split: the images.
        encode: returns the features; called at most once.
        batch_size: images that ``encode`` encodes at a time; the last digits of the features may depend on it.
        precision: number format in which ``encode`` and this function compute.
    """
    encode_once = functools.cache(encode)  # features that cannot be written are still used
    if cache is None or type(method).encode is not Method.encode:  # an overridden ``encode`` may depend on anything
        return encode_once()
    encoder = _encoder_key(method) | {"batch": batch_size} | precision_record(precision=precision)
    code_version = {
        "classes": provenance.class_versions([type(method.backbone)]),
        "transforms": image_transforms.VERSION,
        "packages": provenance.packages(),
    }
    key = {"images": split.digest, "encoder": encoder, "code_version": code_version}

    def write(file: Path) -> None:
        tensor = encode_once().cpu().contiguous()
        file.write_bytes(save({_TENSOR: tensor}, {"key": json.dumps(key), "digest": tensor_digest(tensor)}))

    file = f"features-{split.name}-{split.digest}-{config_id(encoder)}", config_id(code_version), ".safetensors"
    description = f"the features of {len(split):,} {split.name} images"
    read = functools.partial(_read_features, key=key, images=len(split))
    size = 4 * len(split) * method.backbone.dim
    if distributed.size() > 1:  # all ranks encode together, while the first one holds no lock
        found = distributed.first(lambda: cache.find(*file, description=description, read=read))
        features: Tensor | None = encode_once() if found is None else found
        if found is None:
            arguments: Any = {"description": description, "size": size, "read": read, "write": write}
            distributed.first(lambda: cache.obtain(*file, **arguments) is None)
    else:
        features = cache.obtain(*file, description=description, size=size, read=read, write=write)
    return encode_once() if features is None else features.to(method.device)


def _read_features(file: Path, key: Mapping[str, Any], images: int) -> Tensor:
    """Read the features of a file.

    Raises:
        ValueError: the file is damaged, or has the features of other images or another encoder.
    """
    try:
        check_regular(file)
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("key") != json.dumps(key):
                raise ValueError("it was made from other images, or by another encoder or code")
            features: Tensor = opened.get_tensor(_TENSOR)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if len(features) != images:
        raise ValueError(f"it has the features of {len(features)} images, expected {images}")
    if metadata.get("digest") != tensor_digest(features):
        raise ValueError("it is damaged")
    return features


def _encoder_key(method: Method) -> dict[str, Any]:
    """Return values that identify an image encoder and its device.

    Tensors do not identify an encoder, since they do not contain the kind of activation or the number of heads. The
    features of a random image depend on both, and on the arithmetic of the device.
    """
    backbone, device = method.backbone, method.device
    noise = torch.rand(1, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(0))
    return {
        "tensors": tensor_digest(*backbone.image_parameters(), *backbone.buffers()),
        "output": tensor_digest(method.encode(noise.to(device)).pooled.float()),
        "pixels": [
            backbone.image_size,
            *backbone.mean,
            *backbone.std,
            *filter(None, [backbone.preprocessing.resizing]),
        ],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
