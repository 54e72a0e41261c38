"""A page: its template filled in, with style, script, font and a policy that lets nothing else run or load."""

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dnc.report import folder, fonts, style

_HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'; script-src '{script}'; "
    "base-uri 'none'; form-action 'none'"
)


def render(template: str, pictures: Sequence[style.Picture], **values: Any) -> str:
    """A page of this folder's template, with the style, the font its pictures need, and all text escaped.

    Its policy allows one script, by its hash. Styles are allowed inline, because Matplotlib and the tables' bars set
    them on elements; they can load nothing.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        number=number,
        power=power,
        brief=lambda name: style.shorten(name, 60),
        ending=lambda name: name if len(name) <= 40 else "…" + name[-39:].lstrip(),
        percent=percent,
        svg=lambda picture: Markup(picture.inline),
    )
    environment.tests.update(finite=math.isfinite)
    css, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    text = "".join(re.sub(r"<title>.*?</title>|<[^>]*>", "", picture.svg) for picture in pictures)
    return environment.get_template(template).render(
        mark=Markup(folder.MARK),
        policy=Markup(POLICY.format(script=digest(script))),
        css=Markup(fonts.font_face(text) + css),
        script=Markup(script),
        sections=[],
        **values,
    )


def digest(script: str) -> str:
    """The source by which a Content-Security-Policy allows this inline script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}"


def number(value: float | int | None, digits: int = 3) -> str:
    """A number for a person, or n/a."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10**digits else f"{value:,.0f}"
        return text.replace("-", "−")
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}·10{str(int(exponent)).translate(style.SUPERSCRIPTS)}".replace("-", "−")


def percent(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "n/a"


def power(value: float) -> str:
    """A positive number as a power of two to one decimal, as the paper prints it, or n/a."""
    return f"{math.log2(value):.1f}".replace("-", "−") if math.isfinite(value) and value > 0 else "n/a"
