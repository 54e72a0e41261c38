"""Figures of a run's report in one picture; by default the three of the README.

python -m experiments.report_panels --report=runs/quickstart/report --output=docs/figures/quickstart.png
"""

import math

from absl import flags
from etils import epath
from PIL import Image

from experiments import common

_REPORT = flags.DEFINE_string("report", None, "A report's folder.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The PNG to write.", required=True)
_PANELS = flags.DEFINE_multi_string(
    "panel",
    ["collapse_directional_cdnv", "collapse_cdnv", "shots_color_two_class"],
    "Figures, by their names in the report's folder `figures`, row by row.",
)
_COLUMNS = flags.DEFINE_integer("columns", 3, "Panels in a row.", lower_bound=1)

WIDTH = 1500


def main() -> None:
    figures = epath.Path(str(_REPORT.value)) / "figures"
    panels = [Image.open(figures / f"{name}.png").convert("RGB") for name in _PANELS.value or []]
    columns = min(_COLUMNS.value, len(panels))
    width, height = WIDTH // columns, min(panel.height * WIDTH // (panel.width * columns) for panel in panels)
    picture = Image.new("RGB", (width * columns, height * math.ceil(len(panels) / columns)), "white")
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        scale = min(width / panel.width, height / panel.height)
        size = (round(panel.width * scale), round(panel.height * scale))
        picture.paste(panel.resize(size), (column * width, row * height))
    picture.save(str(_OUTPUT.value), optimize=True)


if __name__ == "__main__":
    common.main(main)
