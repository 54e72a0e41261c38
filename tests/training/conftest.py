import pytest

from dnc.models import resnet
from tests.training import runs


@pytest.fixture
def shallow(monkeypatch):
    """Two stages of one block: all that matters of a ResNet."""
    monkeypatch.setitem(resnet.ARCHITECTURES, runs.DEPTH, (resnet.BasicBlock, (1, 1)))
