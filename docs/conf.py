"""How Sphinx builds the documentation: `make docs`."""

import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
# Tutorials run in processes of their own, with the package of this checkout and threads that do not fight for a core.
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent / "src"), str(HERE), os.environ.get("PYTHONPATH", "")])
os.environ["MATPLOTLIBRC"] = str(HERE / "matplotlibrc")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where tests look for real cells, too; what draws them draws simulated ones where there are none.
os.environ.setdefault("MULTIPERT_DATA", str(HERE.parents[1] / "shared" / "data"))

import reference  # noqa: E402

import multipert  # noqa: E402

reference.write(HERE / "reference")

project = "multipert"
author = "The multipert developers"
project_copyright = author
version = release = multipert.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["README.md"]
templates_path: list[str] = []

# Pages in Markdown; those with code cells are run, and what they print and draw is what the reader sees.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes = False  # they make one dash of the two of an option
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE.parent / "build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "remove"  # what a prediction doubts is shown from its own record

# Docstrings are NumPy's.
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 88

html_theme = "sphinx_book_theme"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_title = f"multipert {version}"
html_theme_options = {
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the search of the sidebar is enough
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "use_download_button": False,
    "use_fullscreen_button": False,
}
html_copy_source = False
html_show_sourcelink = False


def link_back(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Lead from a module's source to each of its names: Sphinx takes all to stand under one package, ours need not."""
    if page.startswith("_modules/"):
        block = r'(id="([\w.]+)">\n<a class="viewcode-back" href="[^"]*/([\w.]+)\.html#)[\w.]+'
        context["body"] = re.sub(block, r"\1\3.\2", context["body"])


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("html-page-context", link_back)
