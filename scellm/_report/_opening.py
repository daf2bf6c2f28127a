"""The first sentence of the page: whether these results can be relied on, and why not."""

from __future__ import annotations

import numpy as np
from anndata import AnnData

from ._found import Results
from ._html import Markup, Section, tag
from ._types import expected_wrong

MOST_DOUBTS = 5


def opening(adata: AnnData, found: Results, sections: list[Section]) -> Markup | None:
    """All doubts in one sentence; without any, what was looked at and what is to be expected all the same."""
    if not found.keys:
        return None
    doubts = list(dict.fromkeys(doubt for one in sections for doubt in one.doubts))
    if doubts:
        is_grave = any(one.is_doubtful for one in sections)
        more = [f"and {len(doubts) - MOST_DOUBTS} more below"] if len(doubts) > MOST_DOUBTS else []
        return tag(
            "p",
            tag("strong", "These results are doubtful: " if is_grave else "Use these results with care: "),
            "; ".join([*doubts[:MOST_DOUBTS], *more]) + ".",
            class_="opening",
        )
    wrong = [expected_wrong(adata, key) for key in found.labels]
    said = (
        f" By their own confidence about {100 * float(np.max(wrong)):.0f} of 100 names are wrong all the same."
        if wrong
        else ""
    )
    return tag(
        "p",
        tag("strong", "No check of this page found a reason for doubt. "),
        f"It looked at {_looked_at(found)}.{said}",
        class_="opening",
    )


def _looked_at(found: Results) -> str:
    """What the checks were."""
    checks = ["how many known genes the data has"]
    if found.labels:
        checks += ["whether cells fit the reference", "how many got no type", "how sure the names are"]
    if found.malignant:
        checks.append("whether copy number could be read")
    if found.drugs:
        checks.append("how many cells the drug model does not know")
    return f"{', '.join(checks[:-1])} and {checks[-1]}" if len(checks) > 1 else checks[0]
