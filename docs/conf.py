"""Sphinx's settings for the site, whose source is the whole repository so that links on pages hold: ``make site``."""

import lorascope

project = "lorascope"
version = release = lorascope.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "benchmarks/README.md", "docs/**"]
exclude_patterns = ["**/.*"]
myst_heading_anchors = 4
smartquotes = False  # flags have two hyphens
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
html_theme = "furo"
html_title = f"lorascope {version}"
html_extra_path = ["site"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
