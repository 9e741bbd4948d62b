"""Settings of Sphinx for the site that `make docs` builds; scripts/site.py collects its pages."""

project = "Polos over gRPC"
html_title = project
author = ""
root_doc = "README"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 4

default_role = "code"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "exclude-members": "model_config, model_post_init"}
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"sidebar_hide_name": False}
suppress_warnings = ["misc.highlighting_failure"]
