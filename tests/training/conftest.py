import pytest

from dnc.models import resnet


@pytest.fixture
def shallow(monkeypatch):
    """Two stages of one block: all that matters of a ResNet."""
    monkeypatch.setitem(resnet.ARCHITECTURES, 18, (resnet.BasicBlock, (1, 1)))
