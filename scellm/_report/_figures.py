"""Figures of `scellm.pl` as images inside the page, each with its text in words."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from anndata import AnnData

from ._html import Markup, sentence, tag

LARGEST_SVG = 600_000
"""Bytes from which a figure is stored as pixels."""
DPI = 150


def figure(adata: AnnData, draw: Callable[..., Any], caption: str, alt: str, **options: Any) -> Markup:
    """What a function of `scellm.pl` draws; where it refuses, its reason.

    Parameters
    ----------
    adata, draw, options
        Cells, function and its arguments.
    caption
        What stands below the figure.
    alt
        What the figure shows, for those who do not see it.
    """
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    open_before = set(plt.get_fignums())
    try:
        with _uns_unchanged(adata), warnings.catch_warnings(), mpl.rc_context({"svg.hashsalt": "scellm"}):
            warnings.simplefilter("ignore")
            drawn = draw(adata, show=False, return_fig=True, **options)
            source, width = _data_uri(drawn)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        reason = error.args[0] if error.args else error
        return tag("div", sentence(f"No figure: {reason}"), class_="absent")
    finally:
        for number in set(plt.get_fignums()) - open_before:
            plt.close(number)
    image = tag("img", src=source, alt=alt, width=width)
    shown = tag("div", image, class_="wide", tabindex=0, role="region", aria_label=f"Figure: {caption}")
    return tag("figure", shown, tag("figcaption", caption))


@contextmanager
def _uns_unchanged(adata: AnnData) -> Iterator[None]:
    """Take back the colors that drawing leaves in `uns`."""
    before = dict(adata.uns)
    try:
        yield
    finally:
        for key in [key for key in adata.uns if key not in before]:
            del adata.uns[key]
        for key, value in before.items():
            if adata.uns[key] is not value:
                adata.uns[key] = value


def _data_uri(drawn: Any) -> tuple[str, int]:
    """A figure as the address of an image that holds itself, and its width in pixels of the page."""
    image = _drawn(drawn, "svg", metadata={"Date": None})
    mime = "svg+xml"
    if len(image) > LARGEST_SVG:
        image, mime = _drawn(drawn, "png"), "png"
    return f"data:image/{mime};base64,{base64.b64encode(image).decode()}", int(
        96 * drawn.get_size_inches()[0]
    )


def _drawn(drawn: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    drawn.savefig(buffer, format=kind, dpi=DPI, bbox_inches="tight", facecolor="white", **options)
    return buffer.getvalue()
