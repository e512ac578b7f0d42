"""The frame every page has: one file that asks nothing of the network."""

import hashlib
from base64 import b64encode
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES = Environment(
    loader=PackageLoader("multipert.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **content: Any) -> str:
    """Fill a template, with the style sheet and the script written into it.

    Parameters
    ----------
    template
        Its file name in ``templates/``.
    **content
        What it asks for; text is escaped.
    """
    folder = resources.files("multipert.report") / "templates"
    css, script = ((folder / name).read_text("utf-8") for name in ("page.css", "sort.js"))
    # The browser runs this script and no other, whatever a cell type is called.
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _TEMPLATES.get_template(template).render(
        css=Markup(css), script=Markup(script), script_digest=digest, **content
    )
