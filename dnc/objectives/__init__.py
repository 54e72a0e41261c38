"""Training objectives, by name."""

from dnc.objectives.base import Batch, Network, Objective
from dnc.objectives.dino import DINO
from dnc.objectives.ijepa import IJEPA
from dnc.objectives.mae import MAE
from dnc.objectives.online_probe import OnlineProbe
from dnc.objectives.simclr import SimCLR, decoupled_nt_xent, nt_xent
from dnc.objectives.supervised import Supervised, cross_entropy
from dnc.objectives.vicreg import VICReg, vicreg_loss

OBJECTIVES: dict[str, type] = {
    "simclr": SimCLR,
    "vicreg": VICReg,
    "supervised": Supervised,
    "mae": MAE,
    "ijepa": IJEPA,
    "dino": DINO,
}

__all__ = [
    "DINO",
    "IJEPA",
    "MAE",
    "OBJECTIVES",
    "Batch",
    "Network",
    "Objective",
    "OnlineProbe",
    "SimCLR",
    "Supervised",
    "VICReg",
    "cross_entropy",
    "decoupled_nt_xent",
    "nt_xent",
    "vicreg_loss",
]
