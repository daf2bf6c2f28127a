"""Measure the verdict of `tl.annotate`: datasets that fit the shipped reference, and some that do not.

    python tests/benchmarks/verdict.py DATA

Thresholds were chosen on the rows marked "set". Writes
`docs/benchmarks/verdict.md`.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import pandas as pd
from _fit_sets import sets
from _report import write

import scellm

TEXT = """
`scellm.tl.annotate(adata)` with the shipped reference warns if the cells as a whole do not fit it: too many cells without a
likely type, too far from the reference, or a mix of types that no tissue has. Its thresholds (`scellm/annotation/_verdict.py`) lie
just beyond the sets that fit among the rows marked *set*; which three numbers the rule is made of was chosen with all rows in view. Sets of the training corpus are among those
that fit, so the encoder has seen them; the sets of the benchmark (`pbmc3k`, `baron`, `darmanis`, `lawlor`, `zheng`) it has not.
Of the *test* rows that fit, two are in the reference (`trex_tcells`, `bone_marrow_hca_mini`) and two more in the corpus of the encoder. At most 400 cells of a set are read. *photoreceptors* are cells named so; none of these sets is of the retina, so each would be wrong. Shuffled genes, empty droplets and doublets are made from real cells.

On the *test* rows: of {n_bad} that do not fit, {warned} are warned of; of {n_good} that fit, {alarms}.
"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    model = scellm.models.load("scellm-small")
    rows = []
    for name, role, fits, adata in sets(options.data):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scellm.tl.annotate(adata, model, min_overlap=0.02)
        record = adata.uns["scellm_cell_type"]
        labels = adata.obs["scellm_cell_type"].astype(str)
        lineage = adata.obs["scellm_cell_type_coarse"].astype(str)
        rows.append(
            {
                "dataset": name,
                "role": role,
                "fits": "yes" if fits else "no",
                "cells": adata.n_obs,
                "warned": "no" if record["fits"] else "yes",
                "types": labels[~labels.isin(["unassigned", "novel"])].nunique(),
                "unassigned": float((labels == "unassigned").mean()),
                "photoreceptors": int(labels.str.contains("photoreceptor").sum()),
                "largest lineage": f"{lineage.value_counts().index[0]} ({lineage.value_counts(normalize=True).iloc[0]:.0%})",
                "looks like": record["tissue_guess"],
            }
        )
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    test = table[table["role"] == "test"]
    counts = {
        "n_bad": int((test["fits"] == "no").sum()),
        "warned": int(((test["fits"] == "no") & (test["warned"] == "yes")).sum()),
        "n_good": int((test["fits"] == "yes").sum()),
        "alarms": int(((test["fits"] == "yes") & (test["warned"] == "yes")).sum()),
    }
    facts = {"model": model.name, "sha256": model.sha256, **counts}
    print(
        write("verdict", "Do the cells fit the reference?", TEXT.format(**counts), {"Datasets": table}, facts)
    )


if __name__ == "__main__":
    main()
