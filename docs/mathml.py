"""Math of the pages as MathML, made when the site is built: browsers show it with no script and no network."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_MATH = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(page: str, **_: Any) -> str:
    """Called by MkDocs with each page's HTML."""
    return _MATH.sub(_element, page)


def _element(match: re.Match[str]) -> str:
    tag, bracket, formula = match.groups()
    display = "inline" if bracket == "(" else "block"
    return f'<{tag} class="math">{convert(html.unescape(formula), display=display)}</{tag}>'
