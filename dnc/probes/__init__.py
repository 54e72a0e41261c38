"""Frozen features measured: nearest class center, linear, nearest neighbors, and transferability scores of others."""

from dnc.few_shot.measured import FewShotError, few_shot_error
from dnc.probes.evaluate import probe_accuracies
from dnc.probes.few_shot_linear import FewShotLinearError, few_shot_linear_error
from dnc.probes.knn import NeighborAccuracy, knn_accuracy, knn_leave_one_out
from dnc.probes.linear import LinearProbe, linear_probe
from dnc.probes.transferability import gbc, h_score, logme, sfda, transferability_scores, transrate

__all__ = [
    "FewShotError",
    "FewShotLinearError",
    "LinearProbe",
    "NeighborAccuracy",
    "few_shot_error",
    "few_shot_linear_error",
    "gbc",
    "h_score",
    "knn_accuracy",
    "knn_leave_one_out",
    "linear_probe",
    "logme",
    "probe_accuracies",
    "sfda",
    "transferability_scores",
    "transrate",
]
