"""Directional neural collapse: pretrain, measure, certify and explain few-shot transfer.

Importing this package imports nothing heavy: names are resolved when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from dnc import distribution

if TYPE_CHECKING:
    from dnc.analysis.analyze import Analysis as Analysis
    from dnc.analysis.analyze import analyze as analyze
    from dnc.analysis.comparison import Comparison as Comparison
    from dnc.analysis.comparison import compare as compare
    from dnc.analysis.layers import LayerComparison as LayerComparison
    from dnc.analysis.layers import compare_layers as compare_layers
    from dnc.analysis.meter import CollapseMeter as CollapseMeter
    from dnc.certificates import CERTIFICATES as CERTIFICATES
    from dnc.certificates import Certificate as Certificate
    from dnc.certificates import certificate as certificate
    from dnc.certificates.intervals import jackknife as jackknife
    from dnc.few_shot.measured import few_shot_error as few_shot_error
    from dnc.few_shot.plan import Plan as Plan
    from dnc.few_shot.plan import plan as plan
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

__version__ = distribution.VERSION

_NAMES = {
    "dnc.analysis.analyze": ("Analysis", "analyze"),
    "dnc.analysis.comparison": ("Comparison", "compare"),
    "dnc.analysis.layers": ("LayerComparison", "compare_layers"),
    "dnc.analysis.meter": ("CollapseMeter",),
    "dnc.certificates": ("CERTIFICATES", "Certificate", "certificate"),
    "dnc.certificates.intervals": ("jackknife",),
    "dnc.few_shot.measured": ("few_shot_error",),
    "dnc.few_shot.plan": ("Plan", "plan"),
    "dnc.geometry.measure": ("pair_geometry",),
    "dnc.geometry.moments": ("ClassMoments",),
    "dnc.geometry.pairs": ("PairGeometry",),
    "dnc.geometry.stream": ("ArrayBatches", "stream_pair_geometry"),
    "dnc.models.pretrained.load": ("Pretrained", "load_pretrained"),
    "dnc.probes.evaluate": ("probe_accuracies",),
    "dnc.probes.few_shot_linear": ("few_shot_linear_error",),
    "dnc.probes.knn": ("knn_accuracy", "knn_leave_one_out"),
    "dnc.probes.linear": ("linear_probe",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dnc' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
