import numpy as np
import pytest


@pytest.fixture(scope="session")
def skewed() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Three anisotropic, skewed classes with a common heavy direction: features, labels, samples of each class."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 6, 6)) * np.geomspace(1.0, 0.1, 6)
    classes = [
        (rng.gamma(1.5, size=(200, 6)) @ mixing[c] + 4.0 * rng.normal(size=(1, 6))).astype(np.float32) for c in range(3)
    ]
    return np.concatenate(classes), np.repeat(np.arange(3), 200), classes
