"""The README's figure: three panels of a run's report, side by side.

python -m experiments.readme_figure --report=runs/quickstart/report --output=docs/figures/quickstart.png
"""

from absl import flags
from etils import epath
from PIL import Image

from experiments import common

_REPORT = flags.DEFINE_string("report", None, "A report's folder.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The PNG to write.", required=True)

PANELS = ("collapse_directional_cdnv", "collapse_cdnv", "shots_color_two_class")
WIDTH = 1500


def main() -> None:
    figures = epath.Path(str(_REPORT.value)) / "figures"
    panels = [Image.open(figures / f"{name}.png").convert("RGB") for name in PANELS]
    height = min(panel.height for panel in panels)
    panels = [panel.resize((panel.width * height // panel.height, height)) for panel in panels]
    figure = Image.new("RGB", (sum(panel.width for panel in panels), height), "white")
    left = 0
    for panel in panels:
        figure.paste(panel, (left, 0))
        left += panel.width
    figure.resize((WIDTH, WIDTH * height // figure.width)).save(str(_OUTPUT.value), optimize=True)


if __name__ == "__main__":
    common.main(main)
