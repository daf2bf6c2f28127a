"""The one check of the names in a configuration; needs nothing, so that training runs on a bare machine."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def check_fields(fields: Mapping[str, Any], known: Iterable[str], what: str, kind: str = "key") -> None:
    """Refuse unknown names, offering the nearest known one."""
    known = sorted(known)
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            msg = f"Unknown {kind} {name!r} in {what}.{hint} Known: {known}."
            raise ValueError(msg)
