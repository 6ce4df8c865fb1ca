"""Sphinx's configuration. `make docs` builds the site, and fails at the first warning."""

from flask_sse_push import __version__

project = "flask_sse_push"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
myst_heading_anchors = 3
# Docstrings write code in single backticks.
default_role = "code"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
html_theme = "furo"
html_title = f"flask_sse_push {release}"
html_show_copyright = False
copybutton_prompt_text = "$ "
