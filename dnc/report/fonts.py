"""The figures' font, cut down to the characters of a report: text stays text and looks the same anywhere."""

import base64
import io
from pathlib import Path

import matplotlib
from fontTools import subset
from fontTools.ttLib import TTFont


def font_face(text: str) -> str:
    """A CSS @font-face rule that embeds DejaVu Sans (shipped with Matplotlib, freely licensed) for `text`'s characters.

    A character that the font lacks is left to the browser's own fonts.
    """
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    options = subset.Options(flavor="woff", recalc_timestamp=False, hinting=False, layout_features=["kern"])
    options.drop_tables += ["FFTM"]
    options.notdef_outline = True  # a character that no font has shows as a box, not as nothing
    font = TTFont(path, recalcTimestamp=False)
    cut = subset.Subsetter(options)
    cut.populate(unicodes=sorted({ord(character) for character in text}))
    cut.subset(font)
    font.flavor = "woff"
    buffer = io.BytesIO()
    font.save(buffer)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"@font-face{{font-family:'DejaVu Sans';src:url(data:font/woff;base64,{data}) format('woff')}}"
