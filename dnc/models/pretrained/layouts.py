"""Names and shapes of the tensors in published checkpoints, and the parameters of `ViT` and `ResNet` that they are.

One table per network, of patterns replaced in order: a checkpoint's names differ by the library that wrote it.
"""

import collections
import re
from collections.abc import Mapping, Sequence

import numpy as np

from dnc.models.pretrained.tensors import Tensor
from dnc.models.resnet import ARCHITECTURES, BasicBlock, Bottleneck

Names = Sequence[tuple[str, str]]

# transformers: dinov2, dinov2_with_registers, vit, vit_mae and ijepa; after the bar, clip and siglip.
VIT_NAMES: Names = [
    (r"^embeddings\.(patch_embeddings\.projection|patch_embedding)\.", "embed."),
    (r"^embeddings\.(cls_token|class_embedding)$", "cls"),
    (r"^embeddings\.register_tokens$", "registers"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^embeddings\.(position_embeddings|position_embedding\.weight)$", "positions"),
    (r"^encoder\.layers?\.(?=\d)", "blocks."),
    (r"\.(layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(layernorm_after|layer_norm2)\.", ".norm2."),
    (r"\.(attention\.attention\.query|self_attn\.q_proj)\.", ".attention.query."),
    (r"\.(attention\.attention\.key|self_attn\.k_proj)\.", ".attention.key."),
    (r"\.(attention\.attention\.value|self_attn\.v_proj)\.", ".attention.value."),
    (r"\.(attention\.output\.dense|(self_attn|attention)\.out_proj)\.", ".attention.out."),
    (r"\.layer_scale(\d)\.lambda1$", r".scale\1"),
    (r"\.(intermediate\.dense|mlp\.weights_in|mlp\.fc1)\.", ".mlp.first."),
    (r"\.(output\.dense|mlp\.weights_out|mlp\.fc2)\.", ".mlp.second."),
    (r"^pre_layrnorm\.", "pre_norm."),  # sic
    (r"^(post_)?layernorm\.", "norm."),
    (r"^head\.layernorm\.", "pooler.norm."),
    (r"^head\.(?=attention|mlp|probe)", "pooler."),
    (r"^visual_projection\.", "projection."),
    (r"norm(\d?)\.weight$", r"norm\1.scale"),
    (r"\.weight$", ".kernel"),
]
TOKENS = ("cls", "registers", "mask_token", "positions", "pooler.probe")
VIT_ANCHOR = r"embeddings\.(patch_embeddings\.projection|patch_embedding)\.weight"
VIT_IGNORED = (
    r"text_model\.|text_projection\.|logit_(scale|bias)$|projection\.kernel$|embeddings\.position_ids$|mask_token$|"
    r"pooler\.|decoder\.|classifier\."
)

# torchvision, timm and most self-supervised releases; transformers; google-research/simclr, version 2, in PyTorch.
RESNET_NAMES: Names = [
    (r"^(conv1|embedder\.embedder\.convolution|net\.0\.0)\.", "stem.conv."),
    (r"^(bn1|embedder\.embedder\.normalization|net\.0\.1\.0)\.", "stem.norm."),
    (r"^layer(\d)\.(\d+)\.", r"blocks.\1.\2."),
    (r"^encoder\.stages\.(\d)\.layers\.(\d+)\.", r"blocks.\1.\2."),
    (r"^net\.(\d)\.blocks\.(\d+)\.", r"blocks.\1.\2."),
    (r"\.(conv1|layer\.0\.convolution|net\.0)\.", ".first.conv."),
    (r"\.(conv2|layer\.1\.convolution|net\.2)\.", ".second.conv."),
    (r"\.(conv3|layer\.2\.convolution|net\.4)\.", ".third.conv."),
    (r"\.(bn1|layer\.0\.normalization|net\.1\.0)\.", ".first.norm."),
    (r"\.(bn2|layer\.1\.normalization|net\.3\.0)\.", ".second.norm."),
    (r"\.(bn3|layer\.2\.normalization|net\.5\.0)\.", ".third.norm."),
    (r"\.(downsample\.0|shortcut\.convolution|projection\.shortcut)\.", ".shortcut.conv."),
    (r"\.(downsample\.1|shortcut\.normalization|projection\.bn\.0)\.", ".shortcut.norm."),
    (r"norm\.weight$", "norm.scale"),
    (r"norm\.running_(mean|var)$", r"norm.\1"),
    (r"\.weight$", ".kernel"),
]
BLOCK = re.compile(r"blocks\.(\d)\.(\d+)(?=\.)")
SIMCLR_ANCHOR = r"net\.1\.blocks\.0\.net\.0\.weight"
RESNET_ANCHOR = (
    rf"(layer1\.0\.conv1\.weight|encoder\.stages\.0\.layers\.0\.layer\.0\.convolution\.weight|{SIMCLR_ANCHOR})"
)
RESNET_IGNORED = r".*\.num_batches_tracked$|(fc|head|classifier|projector|projection_head|predictor|prototypes)\."


def vit_parameters(tensors: Mapping[str, Tensor], class_token: bool) -> dict[str, Tensor]:
    """By the path of a `ViT`'s parameter; tensors of other parts of the model keep their names.

    Where there is a class token, the first position is its own and is added to it. PyTorch's fused attention of
    SigLIP's head is split into queries, keys and values.
    """
    prefix = _prefix(VIT_ANCHOR, tensors)
    named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    for kind in ("weight", "bias"):
        if fused := named.pop(f"head.attention.in_proj_{kind}", None):
            for i, part in enumerate(("query", "key", "value")):
                named[f"head.attention.{part}.{kind}"] = fused.then(lambda x, i=i: np.array_split(x, 3)[i])
    here = {path: _vit_shaped(path, t) for path, t in ((_renamed(name, VIT_NAMES), t) for name, t in named.items())}
    if class_token and "cls" in here and "positions" in here:
        cls, positions = here["cls"], here["positions"]
        here["cls"] = Tensor(cls.name, cls.shape, lambda: cls.read() + positions.read()[:1])
        here["positions"] = positions.then(lambda x: x[1:])
    return here


def resnet_parameters(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int, int]:
    """By the path of a `ResNet`'s parameter or statistic, and the depth and width of the network they make.

    If the names have a prefix (`module.`, `backbone.`), only tensors with it are returned: the rest are of
    projectors or other training. Raises ValueError for networks that `ResNet` cannot express.
    """
    prefix = _prefix(RESNET_ANCHOR, tensors)
    named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    here = {_renamed(name, RESNET_NAMES): t.then(_kernel) if len(t.shape) == 4 else t for name, t in named.items()}
    blocks = sorted({(int(m[1]), int(m[2])) for path in here if (m := BLOCK.match(path))})
    lengths = tuple(collections.Counter(stage for stage, _ in blocks).values())
    block = Bottleneck if any(".third." in path for path in here) else BasicBlock
    depths = [depth for depth, architecture in ARCHITECTURES.items() if architecture == (block, lengths)]
    if not depths:
        raise ValueError(
            f"the file has stages of {lengths} {block.__name__}s: supported are ResNets {sorted(ARCHITECTURES)}"
        )
    stem = here["stem.conv.kernel"].shape if "stem.conv.kernel" in here else None
    if stem is None or stem[:2] != (7, 7):
        raise ValueError(
            f"the file's first convolution has shape {stem}: only the 7 x 7 of ImageNet's stem is supported"
        )
    numbers = {f"{stage}.{i}": number for number, (stage, i) in enumerate(blocks)}
    flat = {BLOCK.sub(lambda m: f"blocks.{numbers[m[0].removeprefix('blocks.')]}", path): t for path, t in here.items()}
    return flat, depths[0], stem[-1]


def is_simclr(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of SimCLR version 2, whose images are not standardized."""
    return any(re.search(rf"(^|\.){SIMCLR_ANCHOR}$", name) for name in tensors)


def _prefix(anchor: str, tensors: Mapping[str, Tensor]) -> str:
    """What stands before the names of the one encoder among the tensors."""
    prefixes = {m[1] or "" for name in tensors if (m := re.fullmatch(rf"(.*\.)?{anchor}", name))}
    if not prefixes:
        raise ValueError(
            f"no tensor has the name {anchor.replace(chr(92), '')}: this is not an encoder of a known layout. Without "
            "config.json beside them, weights are taken for a ResNet's: copy the checkpoint's config.json too"
        )
    if len(prefixes) > 1:
        raise ValueError(f"the file holds {len(prefixes)} encoders, {sorted(prefixes)}: keep the tensors of one")
    return prefixes.pop()


def _renamed(name: str, names: Names) -> str:
    for pattern, here in names:
        name = re.sub(pattern, here, name)
    return name


def _vit_shaped(path: str, tensor: Tensor) -> Tensor:
    if path.endswith(".kernel") and len(tensor.shape) in (2, 4):
        return tensor.then(_matrix)
    return tensor.then(lambda x: x.reshape(-1, x.shape[-1])) if path in TOKENS else tensor


def _kernel(weight: np.ndarray) -> np.ndarray:
    return weight.transpose(2, 3, 1, 0)  # PyTorch: output, input, height, width


def _matrix(weight: np.ndarray) -> np.ndarray:
    """Of a linear layer, or of a convolution of patches as a linear layer on row, column, channel."""
    return weight.T if weight.ndim == 2 else _kernel(weight).reshape(-1, len(weight))
