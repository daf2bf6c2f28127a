"""Sphinx configuration, in the manner of scverse packages. Builds without network; see docs/dev/decisions.md."""

import os
import shutil
import sys
import tomllib
import warnings
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from api_pages import SEE, write_pages  # noqa: E402
from gallery import figures_of, write_gallery  # noqa: E402

import scellm  # noqa: E402

# Says the same for every parameter of every function, and is for the extension's authors.
warnings.filterwarnings("ignore", message=".*_RstSnippetParser.set_application", category=DeprecationWarning)

# -- Project ----------------------------------------------------------------------------------------------

PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
project = "scellm"
author = "The scellm developers"
copyright = f"{datetime.now(UTC):%Y}, {author}"
version = release = scellm.__version__
language = "en"

# -- Sources that are made or lie elsewhere ---------------------------------------------------------------

# Before Sphinx looks for documents: autosummary only reads those that exist then.
write_pages(HERE / "api")
write_gallery()

# The notebooks live beside docs/, as in other scverse packages, and Sphinx reads only what is in docs/.
(HERE / "tutorials").mkdir(exist_ok=True)
for _notebook in (HERE.parent / "tutorials").glob("*.ipynb"):
    shutil.copy2(_notebook, HERE / "tutorials" / _notebook.name)

exclude_patterns = ["_build", "Thumbs.db", ".DS_Store", "**.ipynb_checkpoints"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
templates_path = ["_templates"]
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

# -- Extensions -------------------------------------------------------------------------------------------

extensions = [
    "fold",  # in docs/_ext
    "layers",  # in docs/_ext
    "parameters",  # in docs/_ext
    "mathml",  # in docs/_ext
    "order",  # in docs/_ext
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",  # after napoleon
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "scanpydoc.definition_list_typed_field",
    "scanpydoc.elegant_typehints",  # Returns as a list of what is written where
    "IPython.sphinxext.ipython_console_highlighting",
]

autosummary_generate = True
autosummary_context = {"figures": figures_of(), "see": SEE}
autodoc_member_order = "groupwise"
autodoc_typehints_format = "short"
always_use_bars_union = True
typehints_defaults = "braces"
default_role = "literal"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_include_init_with_doc = False
napoleon_use_rtype = True  # a heading for the return type renders properly
napoleon_use_param = True
napoleon_use_ivar = True  # fields of dataclasses are described once
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

myst_heading_anchors = 6  # links to headings as [text](page.md#heading)
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "html_image", "html_admonition"]
myst_url_schemes = ("http", "https", "mailto")

# Notebooks are stored without outputs: the pictures on the page are of this very version.
nb_execution_mode = os.environ.get("SCELLM_DOCS_EXECUTE", "auto")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"

# -- References to other projects -------------------------------------------------------------------------

ONLINE = bool(os.environ.get("SCELLM_DOCS_INTERSPHINX") or os.environ.get("READTHEDOCS"))
"""Inventories of other projects are fetched only on request, so that the build needs no network."""

intersphinx_mapping = (
    {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }
    if ONLINE
    else {}
)

# References to our own names must resolve, on- and offline; those to other projects only where their
# inventories are there.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!scellm\.).*"),
    (r"py:.*", r"scellm(\.\w+)*\._.*"),  # types in signatures that live in private files
]

# -- Pages ------------------------------------------------------------------------------------------------

html_theme = "sphinx_book_theme"
html_title = "scellm"
html_static_path = ["_static"]
html_css_files = ["scellm.css"]
html_theme_options = {
    "navigation_with_keys": False,
    "navbar_persistent": [],  # the search field is in the sidebar already
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "use_fullscreen_button": False,
    "use_download_button": True,
}
# On Read the Docs every release has pages of its own; the list of them is docs/_static/versions.json.
if _built := os.environ.get("READTHEDOCS_VERSION"):
    html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", "")
    html_theme_options |= {
        "switcher": {
            "json_url": f"{PROJECT['urls']['Documentation']}/en/latest/_static/versions.json",
            "version_match": _built,
        },
        "check_switcher": False,
        "show_version_warning_banner": True,
        "primary_sidebar_end": ["version-switcher"],
    }
html_math_renderer = "mathml"
html_show_sphinx = False
pygments_style = "default"
