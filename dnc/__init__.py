"""Directional neural collapse: pretrain, measure, certify and explain few-shot transfer.

Importing this package imports nothing heavy: names are resolved when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnc.analysis import Analysis as Analysis
    from dnc.analysis import analyze as analyze
    from dnc.certificates import CERTIFICATES as CERTIFICATES
    from dnc.certificates import Certificate as Certificate
    from dnc.geometry.measure import PairGeometry as PairGeometry
    from dnc.geometry.measure import pair_geometry as pair_geometry
    from dnc.geometry.moments import ClassMoments as ClassMoments
    from dnc.probes.ncc import few_shot_error as few_shot_error

__version__ = "0.1.0"

_HOME = {
    "CERTIFICATES": "dnc.certificates",
    "Analysis": "dnc.analysis",
    "Certificate": "dnc.certificates",
    "ClassMoments": "dnc.geometry.moments",
    "PairGeometry": "dnc.geometry.pairs",
    "analyze": "dnc.analysis",
    "few_shot_error": "dnc.probes.ncc",
    "pair_geometry": "dnc.geometry.measure",
}

__all__ = [
    "CERTIFICATES",
    "Analysis",
    "Certificate",
    "ClassMoments",
    "PairGeometry",
    "analyze",
    "few_shot_error",
    "pair_geometry",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dnc' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
