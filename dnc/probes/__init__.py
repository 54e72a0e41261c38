"""Measured accuracies and errors of frozen features: nearest class center, linear, nearest neighbors."""

from dnc.few_shot.measured import FewShotError, few_shot_error
from dnc.probes.evaluate import probe_accuracies
from dnc.probes.few_shot_linear import FewShotLinearError, few_shot_linear_error
from dnc.probes.knn import NeighborAccuracy, knn_accuracy, knn_leave_one_out
from dnc.probes.linear import LinearProbe, linear_probe

__all__ = [
    "FewShotError",
    "FewShotLinearError",
    "LinearProbe",
    "NeighborAccuracy",
    "few_shot_error",
    "few_shot_linear_error",
    "knn_accuracy",
    "knn_leave_one_out",
    "linear_probe",
    "probe_accuracies",
]
