"""How Sphinx renders the website. `course site` lays the pages out beside this file and builds them.

Nothing is executed: lessons show the outputs that are committed. Nothing is loaded from another host.
"""

project = "Understand transformers by building one"
author = "the course"
html_title = project
language = "en"
smartquotes = False  # what is written is what is shown

extensions = ["myst_nb", "lib.course.website.sphinx_extension"]
exclude_patterns = ["_*"]

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # by default two scripts from elsewhere
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_search_summary = False  # a page opened from a folder may not read the others
html_show_copyright = False
html_domain_indices = False
html_math_renderer = "mathml"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # the search field stands in the sidebar
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

toc_object_entries_show_parents = "hide"
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
