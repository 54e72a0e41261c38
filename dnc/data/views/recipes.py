"""The published methods' augmentations by name, and views from a config's entries.

From the methods' own code. Where they blur with Pillow, whose Gaussian has no fixed number of taps, 17 taps reach
four deviations of the widest. CIFAR's are those of solo-learn (da Costa et al. 2022), at the images' own size.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dnc import errors
from dnc.data.views.augment import Augmentation, Views

_PILLOW_BLUR = 17

_SIMCLR = Augmentation(
    crop_scale=(0.08, 1.0),
    crop_method="bicubic",
    size=224,
    flip=0.5,
    jitter=(0.8, 0.8, 0.8, 0.2),
    jitter_probability=0.8,
    gray=0.2,
    blur=0.5,
)
_SIMCLR_CIFAR = dataclasses.replace(_SIMCLR, size=None, blur_kernel=_PILLOW_BLUR)
_VICREG = dataclasses.replace(_SIMCLR, jitter=(0.4, 0.4, 0.2, 0.1), blur=1.0, blur_kernel=_PILLOW_BLUR)
_VICREG_CIFAR = dataclasses.replace(_VICREG, crop_scale=(0.2, 1.0), size=None, blur=0.0, solarize=0.1)
_MAE = Augmentation(crop_scale=(0.2, 1.0), crop_method="bicubic", size=224, flip=0.5, jitter_probability=0.0, gray=0.0)
_DINO = dataclasses.replace(_VICREG, crop_scale=(0.4, 1.0))
_DINO_LOCAL = dataclasses.replace(_DINO, crop_scale=(0.05, 0.4), size=96, blur=0.5)

RECIPES: dict[str, Views] = {
    "simclr": Views((_SIMCLR, _SIMCLR)),
    "simclr_cifar": Views((_SIMCLR_CIFAR, _SIMCLR_CIFAR)),
    "vicreg": Views((_VICREG, dataclasses.replace(_VICREG, blur=0.1, solarize=0.2))),
    "vicreg_cifar": Views((_VICREG_CIFAR, _VICREG_CIFAR)),
    "mae": Views((_MAE,)),
    "crop_flip": Views((dataclasses.replace(_MAE, size=None),)),  # one view at the images' own size
    "dino": Views((_DINO, dataclasses.replace(_DINO, blur=0.1, solarize=0.2)), (_DINO_LOCAL,) * 8),
}

_GLOBAL_ONLY = ("crop_scale", "size")  # what distinguishes global views from local ones


def choose_views(recipe: str | None = None, local: Mapping[str, Any] | None = None, **fields: Any) -> Views:
    """The views of a recipe with some fields of their augmentations changed, or two equal views with these fields.

    fields: of `Augmentation`, for every view; crop_scale and size apply to the global views only.
    local: fields for the local views only, and `count`, how many there are.
    None stands for what the recipe has, or by default `Augmentation`.

    Raises ValueError for a recipe or field that does not exist.
    """
    if recipe is not None and recipe not in RECIPES:
        raise errors.unknown("augmentation.recipe", recipe, RECIPES)
    names = [field.name for field in dataclasses.fields(Augmentation)]
    for section, options, known in (("", fields, names), (".local", local or {}, [*names, "count"])):
        for name in options:
            if name not in known:
                raise errors.unknown(f"augmentation{section}: the field", name, known)
    fields = {name: value for name, value in fields.items() if value is not None}
    local = {name: value for name, value in (local or {}).items() if value is not None} or None
    base = RECIPES[recipe] if recipe else Views()
    global_views = tuple(dataclasses.replace(view, **fields) for view in base.global_views)
    if local is None and not base.local_views:
        return Views(global_views)
    shared = {name: value for name, value in fields.items() if name not in _GLOBAL_ONLY}
    local_fields = dict(local or {})
    count = local_fields.pop("count", len(base.local_views))
    if count < 1 and local_fields:
        raise ValueError(f"augmentation.local.count={count}: give the number of local views, 1 or more.")
    start = base.local_views[0] if base.local_views else global_views[0]
    return Views(global_views, (dataclasses.replace(start, **{**shared, **local_fields}),) * count)
