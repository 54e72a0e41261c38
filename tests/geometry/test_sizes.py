import jax
import numpy as np
import pytest

from dnc.certificates import certificate
from dnc.few_shot.measured import few_shot_error
from dnc.few_shot.predict import predicted_error
from dnc.geometry.measure import pair_geometry
from dnc.geometry.sizes import ACCELERATOR, CPU, compiled_for, sizes
from tests.samples import clusters


@pytest.fixture
def forgetful():
    """Programs are kept by shape, whatever they were traced for."""
    jax.clear_caches()
    yield
    jax.clear_caches()


def test_the_platform_is_the_first_devices_unless_it_is_given():
    assert sizes() == CPU
    with compiled_for("tpu"):
        assert sizes() == ACCELERATOR
        with compiled_for("cpu"):
            assert sizes() == CPU
        assert sizes() == ACCELERATOR
    assert sizes() == CPU


def test_numbers_do_not_depend_on_how_much_is_computed_at_once(forgetful):
    features, labels = clusters(n=3000, k=5, d=12)

    def measured():
        geometry = pair_geometry(features, labels, 5, queries=True)
        return [
            geometry.directional_cdnv,
            certificate("exact_conditional", geometry, [1, 10]).per_pair,
            predicted_error(geometry, [1, 10]).per_class,
            few_shot_error(jax.random.key(0), features, labels, [1, 10], 3, 5).per_pair,
        ]

    expected = measured()
    jax.clear_caches()
    with compiled_for("gpu"):
        actual = measured()
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)
