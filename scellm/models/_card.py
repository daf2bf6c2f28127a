"""The model card of a bundle that brings none: front matter for the Hub, then what the provenance says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

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

scellm.tl.embed(adata, "path/or/name/of/this/folder")  # adds adata.obsm["X_scellm"]
```

## Model

| | |
|---|---|
{table}
{sections}"""


def model_card(name: str, facts: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """Markdown with one row per fact and one section per entry of the provenance."""
    sections = [
        f"\n## {key.replace('_', ' ').capitalize()}\n\n{_prose(value)}\n"
        for key, value in provenance.items()
        if key != "description"
    ]
    return _CARD.format(
        license=f"license: {provenance['license']}\n" if "license" in provenance else "",
        name=name,
        description=provenance.get("description", "No description was given."),
        table="\n".join(f"| {fact} | {value} |" for fact, value in facts.items()),
        sections="".join(sections),
    )


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
