"""Cell types by scellm beside plain baselines: across studies, from few labels, calibrated, and types never seen.

    python tests/benchmarks/annotation.py [--model scellm-small] [--parts cross_study few_shot ...]
                                          [--celltypist PYTHON] [--singler PYTHON]

Each part is written as soon as it is measured; `--parts` measures some anew and keeps the others. Baselines that no
model is in are taken from the page before, unless `--fresh`. celltypist 1.7.1
does not run with scikit-learn 1.8 or newer, so it is run by the interpreter named, of an environment that has
celltypist and an older scikit-learn; so is SingleR (the package `singler`), whose binaries are best kept apart. Without
them their columns are empty. Writes `docs/benchmarks/annotation.md`, `.json`
and `.png`.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings

import numpy as np
import pandas as pd
from _annotation_methods import Pythons, dump, has
from _annotation_page import draw, page
from _annotation_parts import PARTS
from _report import DOCS, machine, write

import scellm

STORE = DOCS / "annotation.json"


def stored() -> dict[str, dict]:
    """Parts measured before."""
    return json.loads(STORE.read_text())["facts"]["parts"] if STORE.exists() else {}


def main() -> None:
    """Measure the parts and write the page after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="scellm-small")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=[*PARTS, []], help="measure these")
    parser.add_argument("--celltypist", default="", metavar="PYTHON", help="interpreter that has celltypist")
    parser.add_argument("--singler", default="", metavar="PYTHON", help="interpreter that has singler")
    parser.add_argument("--fresh", action="store_true", help="measure the baselines anew, too")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    model = scellm.models.load(options.model)
    asked = {"celltypist": options.celltypist, "singler": options.singler}
    pythons = Pythons(**{name: python for name, python in asked.items() if has(python, name)})
    parts = stored()
    for name in options.parts:
        start, rows = time.perf_counter(), []
        before = [] if options.fresh else parts.get(name, {}).get("rows", [])
        for row in PARTS[name](model, pythons, before):
            row = {key: None if isinstance(x, float) and np.isnan(x) else x for key, x in row.items()}
            rows.append(row)
            print(
                name, {key: round(x, 3) if isinstance(x, float) else x for key, x in row.items()}, flush=True
            )
        parts[name] = {
            "rows": rows,
            "seconds": time.perf_counter() - start,
            "model": model.name,
            "sha256": model.sha256,
            "date": machine()["date"],
        }
        report(parts)
    if not options.parts:
        report(parts)


def report(parts: dict[str, dict]) -> None:
    """Write what there is."""
    text, tables = page(parts)
    draw({name: pd.DataFrame(part["rows"]) for name, part in parts.items()}, DOCS / "annotation.png")
    write("annotation", "Cell types", text, tables, {"parts": parts})
    record = json.loads(STORE.read_text())
    record.pop("tables")  # the same numbers, rounded: the parts have them
    dump(STORE, record)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
