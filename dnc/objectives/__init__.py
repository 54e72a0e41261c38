"""Training objectives, by name."""

from dnc import distribution

with distribution.extra("train"):
    from dnc.objectives.base import Batch, Network, Objective
    from dnc.objectives.clip import CLIP, clip_loss
    from dnc.objectives.dino import DINO
    from dnc.objectives.directional_collapse import DirectionalCollapse, directional_loss
    from dnc.objectives.ijepa import IJEPA
    from dnc.objectives.mae import MAE
    from dnc.objectives.online_probe import OnlineProbe
    from dnc.objectives.siglip import SigLIP, siglip_loss
    from dnc.objectives.simclr import SimCLR, decoupled_nt_xent, nt_xent
    from dnc.objectives.supervised import Supervised, cross_entropy
    from dnc.objectives.vicreg import VICReg, vicreg_loss

OBJECTIVES: dict[str, type] = {
    "simclr": SimCLR,
    "vicreg": VICReg,
    "directional": DirectionalCollapse,
    "clip": CLIP,
    "siglip": SigLIP,
    "supervised": Supervised,
    "mae": MAE,
    "ijepa": IJEPA,
    "dino": DINO,
}

__all__ = [
    "CLIP",
    "DINO",
    "IJEPA",
    "MAE",
    "OBJECTIVES",
    "Batch",
    "DirectionalCollapse",
    "Network",
    "Objective",
    "OnlineProbe",
    "SigLIP",
    "SimCLR",
    "Supervised",
    "VICReg",
    "clip_loss",
    "cross_entropy",
    "decoupled_nt_xent",
    "directional_loss",
    "nt_xent",
    "siglip_loss",
    "vicreg_loss",
]
