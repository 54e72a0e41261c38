"""AugNet's self-supervised ResNet-50 (arXiv 2106.06250), which a package registry ships, as a folder to load."""

import json
import os
import pathlib

from dnc.data.sources.packages import package
from experiments import common

SIZE = dict(height=128, width=128)


def weights() -> pathlib.Path:
    """The folder, for `dnc.load_pretrained`; images have 128 pixels. Converted on first use, which needs PyTorch."""
    folder = package("imgsim-0.1.2") / "safetensors"
    if not folder.exists():
        torch, safetensors = (
            common.optional("torch", "torch==2.13.0"),
            common.optional("safetensors.torch", "safetensors"),
        )
        state = torch.load(folder.parent / "model.pth", map_location="cpu", weights_only=True)
        scratch = folder.with_name(f".safetensors.{os.getpid()}")
        scratch.mkdir()
        safetensors.save_file(state, scratch / "model.safetensors")
        changes = dict(size=SIZE, do_center_crop=False)  # of torchvision's preprocessing
        (scratch / "preprocessor_config.json").write_text(json.dumps(changes), encoding="utf-8")
        scratch.replace(folder)
    return folder
