"""Published encoders: from a name on the Hugging Face Hub, a folder or a safetensors file, to features.

Weights are read from safetensors alone; nothing is unpickled and none of the checkpoint's code is run.
"""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from dnc.models.encoder import Encoder
from dnc.models.pretrained import preprocessing
from dnc.models.pretrained.families import architecture
from dnc.models.pretrained.layouts import is_simclr
from dnc.models.pretrained.preprocessing import Preprocessing
from dnc.models.pretrained.tensors import Tensor, filled, read_tensors

DOWNLOADED = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]
PICKLES = (
    "pickled weights (.bin, .pth) are not read: convert them once with PyTorch, `model.save_pretrained(folder)` of "
    "transformers or `safetensors.torch.save_file(state_dict, path)`"
)
SIMCLR = dict(resample=3, image_mean=(0.0,) * 3, image_std=(1.0,) * 3)


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A published encoder, how its authors prepare images for it, and which of its features it gives.

    encoder: standardized images [b, h, w, c] to float32 [b, d]. features: see `load_pretrained`.
    family: model_type of the Hub without "_vision_model". name: what was asked for. files: all that was read.
    """

    encoder: Encoder
    preprocessing: Preprocessing
    features: str
    family: str
    name: str
    files: Sequence[pathlib.Path]


def load_pretrained(
    source: str | os.PathLike[str],
    *,
    features: str | None = None,
    dtype: DTypeLike = jnp.float32,
    shardings: Callable[[Any], Any] | None = None,
) -> Pretrained:
    """The encoder of a published checkpoint, with frozen statistics and without masks, heads or text tower.

    source: a name on the Hub ("facebook/dinov2-base", downloaded once into its cache), a folder (config.json,
      model.safetensors or shards with their index, preprocessor_config.json), or a .safetensors file in one.
    features: what the encoder returns for an image; the first is the default.

    | family | features |
    |---|---|
    | dinov2, dinov2_with_registers, vit, vit_mae | "cls": class token; "mean": mean of the patches |
    | ijepa | "mean": there is no class token |
    | clip | "pooled": class token; "projected": its image embedding, not normalized |
    | siglip | "pooled": attention to the patches; "mean" |
    | resnet | "pooled": global average |

    Tokens are those after the last LayerNorm. A file without config.json is a ResNet-18, -34, -50 or -101 by the names
    of torchvision (and timm and most self-supervised releases, behind any prefix such as `module.backbone.`),
    transformers, or SimCLR version 2 in PyTorch. Without preprocessor_config.json its images are prepared as
    torchvision does: shorter edge 256, bilinear, center crop of 224, mean and deviation of ImageNet (SimCLR version 2:
    bicubic, values in [0, 1]). A preprocessor_config.json beside it changes what it names.

    dtype: the compute type; parameters are float32.
    shardings: from the encoder's abstract state to a tree of shardings, for example
      `functools.partial(dnc.distributed.state_sharding, mesh)`; each tensor goes there as soon as it is read.

    Raises OSError where files are missing or cannot be downloaded. Raises ValueError, which names what is wrong, for an
    unknown family, setting or features, and where tensors are missing, unknown, of the wrong shape or not finite.
    """
    name = os.fspath(source)
    path = pathlib.Path(name).expanduser()
    if not path.exists():
        path = _downloaded(name)
    if path.is_file() and path.suffix != ".safetensors":
        raise ValueError(f"{path} is not a .safetensors file, and {PICKLES}")
    folder = path.parent if path.is_file() else path
    weights = [path] if path.is_file() else _weights(folder)
    tensors, config = read_tensors(weights), _json(folder / "config.json")
    try:
        published = architecture(config, tensors, features, dtype)
        prepare = _preprocessing(folder, published.family, config or {}, tensors)
        encoder = filled(published.encoder, published.parameters, published.ignored, shardings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    settings = [folder / name for name in ("config.json", "preprocessor_config.json") if (folder / name).exists()]
    return Pretrained(encoder, prepare, published.features, published.family, name, [*weights, *settings])


def _downloaded(name: str) -> pathlib.Path:
    """The folder of a checkpoint in the Hub's cache."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name) or name.endswith(".safetensors"):
        raise FileNotFoundError(f"{name!r} does not exist: give a folder, a .safetensors file or a name on the Hub")
    from huggingface_hub import snapshot_download

    try:
        return pathlib.Path(snapshot_download(name, allow_patterns=DOWNLOADED))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise OSError(
            f"{name!r} is not a local folder, and could not be downloaded from the Hugging Face Hub ({reason}): check "
            "the name and the network, or pass a local folder that holds its files"
        ) from error


def _weights(folder: pathlib.Path) -> Sequence[pathlib.Path]:
    """model.safetensors, the shards that an index names, or the folder's only safetensors file."""
    if index := _json(folder / "model.safetensors.index.json"):
        return _existing([folder / name for name in sorted(set(index["weight_map"].values()))])
    files = sorted(folder.glob("*.safetensors"))
    if folder / "model.safetensors" in files:
        return [folder / "model.safetensors"]
    if not files:
        raise FileNotFoundError(f"{folder} does not contain a .safetensors file, and {PICKLES}")
    if len(files) > 1:
        raise ValueError(f"{folder} holds {[file.name for file in files]}: pass the path of one")
    return files


def _existing(files: Sequence[pathlib.Path]) -> Sequence[pathlib.Path]:
    if missing := [file.name for file in files if not file.exists()]:
        raise FileNotFoundError(f"{files[0].parent} lacks {missing}, which its index names: download it again")
    return files


def _preprocessing(
    folder: pathlib.Path, family: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Preprocessing:
    settings = _json(folder / "preprocessor_config.json")
    if settings is not None:
        return preprocessing.from_config(settings)
    if "pretrained_cfg" in config:
        return preprocessing.from_timm(config["pretrained_cfg"])
    if family != "resnet" or config:
        raise FileNotFoundError(
            f"{folder} lacks preprocessor_config.json, how images are prepared: copy it from the published checkpoint"
        )
    return preprocessing.from_config(SIMCLR if is_simclr(tensors) else {})


def _json(path: pathlib.Path) -> dict[str, Any] | None:
    """What a JSON file holds, None if there is no file."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): copy or download it again") from None
