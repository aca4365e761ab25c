"""What the website adds to Sphinx: maths as MathML, folds that can be told apart, links from prose to the library."""

import re
from html import escape

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

# What TeX knows and docutils does not.
SAME = {"…": r"\ldots ", r"\dots": r"\ldots", r"\Big(": r"\Bigl(", r"\Big)": r"\Bigr)"}
MODULE = re.compile(r"lib[/.](\w+(?:[/.]\w+)*)")


def setup(app: Sphinx) -> dict:
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    app.add_node(HideCodeCellNode, override=True, html=(_open_fold, _close_fold))
    app.connect("doctree-resolved", _link_the_library)
    app.connect("html-page-context", _name_the_toggles, priority=900)  # after the theme's own
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline_math(writer, node: nodes.math) -> None:
    writer.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def _block_math(writer, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math-block" tabindex="0">{_mathml(node, block=True)}</div>')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, block: bool) -> str:
    """Browsers draw MathML themselves: no script, and screen readers read it."""
    tex = node.astext()
    for ours, theirs in SAME.items():
        tex = tex.replace(ours, theirs)
    try:
        return tex2mathml(tex, as_block=block)
    except MathError as problem:
        logging.getLogger(__name__).warning("maths %r: %s", node.astext(), problem, location=node)
        return ""


def _open_fold(writer, node: HideCodeCellNode) -> None:
    """What MyST-NB folds, without its label for screen readers, which says the same of each."""
    classes = " ".join(["hide", *node["classes"]])
    writer.body.append(f'<details class="{classes}">\n<summary>{escape(node["prompt_show"])}</summary>\n')


def _close_fold(writer, node: HideCodeCellNode) -> None:
    writer.body.append("</details>\n")


def _link_the_library(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """`lib/attention.py`, `lib.attention` and `lib.attention.causal_mask` in prose lead to the reference."""
    objects = app.env.get_domain("py").objects
    for code in list(doctree.findall(nodes.literal)):
        found = MODULE.fullmatch(code.astext())
        if not found or isinstance(code.parent, nodes.reference):
            continue
        parts = re.split("[/.]", found[1].removesuffix(".py"))
        ends = [n for n in range(len(parts), 0, -1) if f"reference/{'.'.join(parts[:n])}" in app.env.found_docs]
        target = ends and f"reference/{'.'.join(parts[:ends[0]])}"
        if not target or target == page:
            continue
        name = f"lib.{'.'.join(parts)}"
        anchor = name if ends[0] < len(parts) and name in objects else ""
        code.replace_self(make_refnode(app.builder, page, target, anchor, code.deepcopy()))


def _name_the_toggles(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """The theme's side bar folds with a bare arrow; a screen reader needs its name."""
    made = context.get("generate_toctree_html")
    if not made:
        return

    def named(*args, **kwargs) -> str:
        return str(made(*args, **kwargs)).replace("<summary>", '<summary aria-label="Show the pages below">')

    context["generate_toctree_html"] = named
