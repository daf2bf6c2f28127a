"""The model card of a bundle that brings none: front matter for the Hub, then what the provenance says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

LICENSES = (
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "cc0-1.0",
    "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "ecl-2.0", "epl-2.0", "eupl-1.2", "gpl-2.0", "gpl-3.0", "isc", "lgpl-2.1", "lgpl-3.0", "mit",
    "mpl-2.0", "ncsa", "odbl", "ofl-1.1", "osl-3.0", "pddl", "unlicense", "wtfpl", "zlib",
)  # fmt: skip
"""Identifiers that the Hub knows; a card with another one is not read there."""
_CARD = """\
---
library_name: scellm
tags: [single-cell, transcriptomics]
{license}---

# {name}

{description}

## Use

```python
import scellm

{use}
```

## Model

| | |
|---|---|
{table}
{sections}"""


FOLDER = "path/or/name/of/this/folder"
EMBED = f'scellm.tl.embed(adata, "{FOLDER}")  # adds adata.obsm["X_scellm"]'
ANNOTATE = f'scellm.tl.annotate(adata, "{FOLDER}")  # adds adata.obs["scellm_cell_type"] and its confidence'
USES = {
    "cell_type": ANNOTATE,
    "reference": ANNOTATE,
    "malignancy": f'scellm.tl.malignancy(adata, model="{FOLDER}")  # adds adata.obs["scellm_malignant_call"]',
}
"""What each part of a model is for."""
HEADS = ("few_shot", "head")
"""Ways of training that leave the encoder as it was."""
NOT_IN_CARD = ("description", "n_obs")


def use_of(parts: Iterable[str], provenance: Mapping[str, Any]) -> str:
    """The lines that use a model: by what it carries, and its embedding, unless that is another model's."""
    lines = [USES[name] for name in parts if name in USES]
    settings = provenance.get("settings")
    is_head = isinstance(settings, Mapping) and settings.get("strategy") in HEADS
    return "\n".join(dict.fromkeys([*lines, *([] if is_head and lines else [EMBED])]))


def model_card(name: str, facts: Mapping[str, Any], provenance: Mapping[str, Any], use: str = EMBED) -> str:
    """Markdown with one row per fact and one section per entry of the provenance."""
    sections = [
        f"\n## {key.replace('_', ' ').capitalize()}\n\n{_prose(value)}\n"
        for key, value in provenance.items()
        if key not in NOT_IN_CARD and value not in ("", None)
    ]
    return _CARD.format(
        license=_license(str(provenance["license"])) if "license" in provenance else "",
        name=name,
        use=use,
        description=provenance.get("description", "No description was given."),
        table="\n".join(f"| {fact} | {value} |" for fact, value in facts.items()),
        sections="".join(sections),
    )


def _license(name: str) -> str:
    """Lines of the front matter for a license, known to the Hub or not."""
    plain = name.strip().lower()
    if plain in LICENSES:
        return f"license: {plain}\n"
    return f"license: other\nlicense_name: {json.dumps(' '.join(name.split()))}\n"


def first_paragraph(card: str) -> str:
    """First paragraph of a card that is neither front matter, heading, table nor code; "" if there is none."""
    body = card.split("\n---\n", 1)[-1] if card.startswith("---\n") else card
    for paragraph in body.split("\n\n"):
        text = " ".join(paragraph.split())
        if text and not text.startswith(("#", "|", "```", "---", "<", "!")):
            return text
    return ""


def _prose(value: Any) -> str:
    """Text as it is, mappings and lists as bullets, anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "\n".join(f"- {key}: {_inline(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(f"- {_inline(entry)}" for entry in value)
    return _inline(value)


def _inline(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
