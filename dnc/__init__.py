"""Directional neural collapse: pretrain, measure, certify and explain few-shot transfer.

Importing this package imports nothing heavy: names are resolved when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnc.analysis.analyze import Analysis as Analysis
    from dnc.analysis.analyze import analyze as analyze
    from dnc.analysis.comparison import Comparison as Comparison
    from dnc.analysis.comparison import compare as compare
    from dnc.certificates import CERTIFICATES as CERTIFICATES
    from dnc.certificates import Certificate as Certificate
    from dnc.certificates import certificate as certificate
    from dnc.certificates.intervals import bootstrap as bootstrap
    from dnc.few_shot.measured import few_shot_error as few_shot_error
    from dnc.geometry.measure import pair_geometry as pair_geometry
    from dnc.geometry.moments import ClassMoments as ClassMoments
    from dnc.geometry.pairs import PairGeometry as PairGeometry
    from dnc.geometry.stream import ArrayBatches as ArrayBatches
    from dnc.geometry.stream import stream_pair_geometry as stream_pair_geometry
    from dnc.models.pretrained.load import Pretrained as Pretrained
    from dnc.models.pretrained.load import load_pretrained as load_pretrained
    from dnc.probes.evaluate import probe_accuracies as probe_accuracies
    from dnc.probes.few_shot_linear import few_shot_linear_error as few_shot_linear_error
    from dnc.probes.knn import knn_accuracy as knn_accuracy
    from dnc.probes.knn import knn_leave_one_out as knn_leave_one_out
    from dnc.probes.linear import linear_probe as linear_probe

__version__ = "0.1.0"

_HOME = {
    "Analysis": "dnc.analysis.analyze",
    "analyze": "dnc.analysis.analyze",
    "CERTIFICATES": "dnc.certificates",
    "Certificate": "dnc.certificates",
    "certificate": "dnc.certificates",
    "bootstrap": "dnc.certificates.intervals",
    "Comparison": "dnc.analysis.comparison",
    "compare": "dnc.analysis.comparison",
    "pair_geometry": "dnc.geometry.measure",
    "ClassMoments": "dnc.geometry.moments",
    "PairGeometry": "dnc.geometry.pairs",
    "ArrayBatches": "dnc.geometry.stream",
    "stream_pair_geometry": "dnc.geometry.stream",
    "Pretrained": "dnc.models.pretrained.load",
    "load_pretrained": "dnc.models.pretrained.load",
    "probe_accuracies": "dnc.probes.evaluate",
    "few_shot_linear_error": "dnc.probes.few_shot_linear",
    "knn_accuracy": "dnc.probes.knn",
    "knn_leave_one_out": "dnc.probes.knn",
    "linear_probe": "dnc.probes.linear",
    "few_shot_error": "dnc.few_shot.measured",
}

__all__ = [
    "CERTIFICATES",
    "Analysis",
    "ArrayBatches",
    "Certificate",
    "ClassMoments",
    "Comparison",
    "PairGeometry",
    "Pretrained",
    "analyze",
    "bootstrap",
    "certificate",
    "compare",
    "few_shot_error",
    "few_shot_linear_error",
    "knn_accuracy",
    "knn_leave_one_out",
    "linear_probe",
    "load_pretrained",
    "pair_geometry",
    "probe_accuracies",
    "stream_pair_geometry",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dnc' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
