"""HTML in which all text is escaped, unless this module made it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import pandas as pd

VOID = ("img", "meta", "br")
MOST_ROWS = 60
"""Rows of a table that are shown."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that no HTML page may hold."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: Any) -> Markup:
    """Anything as text of a page: `<`, `&` and quotes lose their meaning, control characters go."""
    return (
        value
        if isinstance(value, Markup)
        else Markup(escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value))))
    )


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """An element; `class_` is its class. Children that are `None` or "" are left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items()
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")
    inside = "".join(text(child) for child in children if child is not None and child != "")
    return Markup(f"<{name}{written}>{inside}</{name}>")


def code(words: str) -> Markup:
    """Something to type, on lines of its own."""
    return tag("pre", tag("code", words), tabindex=0)


def sentence(words: str) -> Markup:
    """A paragraph in which `words between backticks` are code."""
    pieces = str(words).split("`")
    if len(pieces) % 2 == 0:  # one is left over
        return tag("p", words)
    return tag("p", *(tag("code", piece) if i % 2 else text(piece) for i, piece in enumerate(pieces)))


def bullets(items: Sequence[Any]) -> Markup | None:
    """A list; nothing for no items."""
    return tag("ul", *(tag("li", *_inline(item)) for item in items)) if items else None


def _inline(item: Any) -> list[Markup]:
    return [item] if isinstance(item, Markup) else [Markup(sentence(item)[3:-4])]


def table(rows: pd.DataFrame, caption: str, *, most: int = MOST_ROWS) -> Markup:
    """A table with a caption and named columns and rows; the first column names the row.

    Numbers stand right; of more than `most` rows the caption says how many were left out.
    """
    shown = rows.head(most)
    if len(rows) > most:
        caption = f"{caption} The first {most} of {len(rows):,} rows."
    is_number = [pd.api.types.is_numeric_dtype(rows.iloc[:, i].dtype) for i in range(rows.shape[1])]
    heads = [
        tag("th", name, scope="col", **({"class_": "n"} if number else {}))
        for name, number in zip(rows.columns, is_number, strict=True)
    ]
    body = []
    for row in shown.itertuples(index=False):
        cells = [tag("th", number_text(row[0]), scope="row")]
        cells += [
            tag("td", number_text(value), **({"class_": "n"} if number else {}))
            for value, number in zip(row[1:], is_number[1:], strict=True)
        ]
        body.append(tag("tr", *cells))
    inside = tag("table", tag("caption", caption), tag("thead", tag("tr", *heads)), tag("tbody", *body))
    return tag("div", inside, class_="wide", tabindex=0, role="region", aria_label=caption)


def facts(pairs: dict[str, Any], caption: str) -> Markup:
    """Names and values, those that are empty left out."""
    kept = {name: value for name, value in pairs.items() if value is not None and str(value) != ""}
    rows = [
        tag("tr", tag("th", name, scope="row"), tag("td", number_text(value))) for name, value in kept.items()
    ]
    inside = tag("table", tag("caption", caption), tag("tbody", *rows), class_="facts")
    return tag("div", inside, class_="wide", tabindex=0, role="region", aria_label=caption)


def number_text(value: Any) -> Any:
    """A value as it is read: whole numbers with commas, others with two decimals, a dash for what is missing."""
    if isinstance(value, Markup):
        return value
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        size = abs(float(value))
        return (
            f"{value:,.0f}"
            if size >= 100 or not size
            else f"{value:.2f}"
            if size >= 0.005
            else f"{value:.1g}"
        )
    return str(value)


def percent(share: float) -> str:
    """A share in words."""
    if math.isnan(share):
        return "–"
    return "< 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


@dataclass
class Section:
    """A part of the page."""

    id: str
    title: str
    body: list[Markup | None] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """In plain words; they stand at the top of the page too."""
    doubts: list[str] = field(default_factory=list)
    """What speaks against the results, in half a sentence each."""
    is_doubtful: bool = False
    """Whether one of them is grave."""

    def warn(self, words: str, doubt: str = "", *, grave: bool = False) -> None:
        """Say what to mind here and at the top; `doubt` is its half sentence for the opening of the page."""
        self.warnings.append(words)
        if doubt:
            self.doubts.append(doubt)
        self.is_doubtful |= grave

    @property
    def html(self) -> Markup:
        """The element, its warnings first."""
        boxes = [tag("div", sentence(words), class_="warning", role="note") for words in self.warnings]
        return tag("section", tag("h2", self.title), *boxes, *self.body, id=self.id, aria_label=self.title)
