"""torchvision's ResNets in PyTorch, from a state dict with torchvision's names, to compare with."""

import numpy as np


def random_state(depth, width, seed=0):
    """Random tensors of a ResNet-18 or -50 by torchvision's names, with a classifier, as in a published file."""
    rng = np.random.default_rng(seed)
    state = {}

    def conv_norm(conv, norm, inputs, outputs, kernel):
        deviation = (2 / (inputs * kernel**2)) ** 0.5
        state[f"{conv}.weight"] = rng.normal(0, deviation, (outputs, inputs, kernel, kernel)).astype(np.float32)
        for name, values in dict(
            weight=rng.uniform(0.2, 0.8, outputs),  # less than 1, as sums of blocks grow
            bias=rng.normal(0, 0.3, outputs),
            running_mean=rng.normal(0, 0.3, outputs),
            running_var=rng.uniform(0.5, 1.5, outputs),
        ).items():
            state[f"{norm}.{name}"] = values.astype(np.float32)
        state[f"{norm}.num_batches_tracked"] = np.asarray(1)

    kernels, expansion, lengths = {18: ((3, 3), 1, (2, 2, 2, 2)), 50: ((1, 3, 1), 4, (3, 4, 6, 3))}[depth]
    conv_norm("conv1", "bn1", 3, width, 7)
    inputs = width
    for stage, length in enumerate(lengths):
        for i in range(length):
            block, outputs = f"layer{stage + 1}.{i}", width * 2**stage
            sizes = [inputs] + [outputs] * (len(kernels) - 1) + [outputs * expansion]
            for j, kernel in enumerate(kernels):
                conv_norm(f"{block}.conv{j + 1}", f"{block}.bn{j + 1}", sizes[j], sizes[j + 1], kernel)
            if i == 0 and (stage > 0 or inputs != sizes[-1]):
                conv_norm(f"{block}.downsample.0", f"{block}.downsample.1", inputs, sizes[-1], 1)
            inputs = sizes[-1]
    return state | {"fc.weight": np.zeros((10, inputs), np.float32), "fc.bias": np.zeros(10, np.float32)}


def features(state, images):
    """Global averages [b, d] of a network in evaluation mode; images [b, h, w, 3]. Bottlenecks stride in the 3x3."""
    import torch

    with torch.inference_mode():
        return _features({name: torch.as_tensor(tensor) for name, tensor in state.items()}, images, train=False)


def gradients(state, images, cotangent, train):
    """Of the sum of features times `cotangent`, for every tensor; statistics are returned as they are."""
    import torch

    tensors = {name: torch.as_tensor(tensor) for name, tensor in state.items()}
    learned = {name: x.clone().requires_grad_() for name, x in tensors.items() if "running" not in name and x.ndim}
    (_features(tensors | learned, images, train) * torch.as_tensor(cotangent)).sum().backward()
    found = {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in learned.items()}
    return {name: np.ascontiguousarray(x.numpy()) for name, x in (tensors | found).items()}


def _features(state, images, train):
    import torch
    from torch.nn import functional

    def conv_norm(x, conv, norm, stride=1):
        weight = state[f"{conv}.weight"]
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, variance, weight, bias = (state[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean.clone(), variance.clone(), weight, bias, training=train, eps=1e-5)

    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    x = functional.max_pool2d(conv_norm(x, "conv1", "bn1", 2).relu(), 3, stride=2, padding=1)
    for block in sorted({name[:8] for name in state if name.startswith("layer")}):
        stride = 2 if block.endswith(".0") and block != "layer1.0" else 1
        convolutions = sum(f"{block}.conv{j}.weight" in state for j in (1, 2, 3))
        strided = 1 if convolutions == 2 else 2
        y = x
        for j in range(1, convolutions + 1):
            y = conv_norm(y, f"{block}.conv{j}", f"{block}.bn{j}", stride if j == strided else 1)
            y = y.relu() if j < convolutions else y
        if f"{block}.downsample.0.weight" in state:
            x = conv_norm(x, f"{block}.downsample.0", f"{block}.downsample.1", stride)
        x = (y + x).relu()
    return x.mean(dim=(2, 3))
