"""Where and when a benchmark ran, and the page it leaves in the documentation."""

from __future__ import annotations

import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

DOCS = Path(__file__).parents[2] / "docs" / "benchmarks"
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "scanpy", "anndata", "pandas")


def machine() -> dict[str, Any]:
    """Processor, GPU, versions and date, for the foot of every table."""
    import torch

    import scellm

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": f"{cpu}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "scellm": scellm.__version__,
        **{name: version(name) for name in PACKAGES},
    }


def write(
    name: str,
    title: str,
    text: str,
    tables: dict[str, pd.DataFrame],
    facts: dict[str, Any],
    where: dict[str, Any] | None = None,
) -> Path:
    """Write `docs/benchmarks/NAME.md` and the same numbers as `NAME.json`; `where` if it was not here that it ran."""
    where = machine() if where is None else where
    parts = [f"# {title}", text.strip()]
    for heading, table in tables.items():
        parts += [f"## {heading}", table.to_markdown(index=False, floatfmt=".3f", disable_numparse=[0])]
    foot = ", ".join(f"{key} {value}" for key, value in where.items())
    parts.append(f"Made by `python tests/benchmarks/{name}.py` on: {foot}.")
    DOCS.mkdir(parents=True, exist_ok=True)
    page = DOCS / f"{name}.md"
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    numbers = {heading: table.to_dict(orient="records") for heading, table in tables.items()}
    record = {"machine": where, "facts": facts, "tables": numbers}
    (DOCS / f"{name}.json").write_text(json.dumps(record, indent=1, default=float) + "\n", encoding="utf-8")
    return page
