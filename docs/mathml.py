"""Math of the pages as MathML, made when the site is built: browsers show it with no script and no network."""

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

_MATH = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_BARS = re.compile(r"<mo>(&#x02016;|&#x0007C;)</mo>")  # a browser would stretch the left one of a pair with an exponent


def on_page_content(html: str, **_: Any) -> str:
    """Called by MkDocs with each page's HTML."""
    return _MATH.sub(_element, html)


def _element(match: re.Match[str]) -> str:
    tag, bracket, formula = match.groups()
    display = "inline" if bracket == "(" else "block"
    element = _BARS.sub(r'<mo stretchy="false">\1</mo>', convert(unescape(formula), display=display))
    return f'<{tag} class="math">{element}</{tag}>'
