"""A small seeded drug screen for documentation and tests."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..data import GeneVocabulary
from ._toy import HOUSEKEEPING, MARKERS

CLASSES = {
    "EGFR signaling": ("EGFR", "C#Cc1cccc(Nc2ncnc3ccccc23)c1", "COc1cc2ncnc(Nc3cccc(Cl)c3)c2cc1OC"),
    "ERK MAPK signaling": ("BRAF", "CCCS(=O)(=O)Nc1ccc(F)cc1F", "CS(=O)(=O)Nc1cc(F)cc(C)c1F"),
    "Mitosis": ("TUBB", "COc1ccc(C=Cc2cc(OC)c(OC)c(OC)c2)cc1", "COc1ccc(CCc2cc(OC)c(OC)c(OC)c2)cc1"),
    "DNA replication": ("TOP1", "Nc1ccn(C2CCC(CO)O2)c(=O)n1", "Nc1nc(=O)n(C2OC(CO)CC2O)cc1F"),
}
"""Four classes with a target and two structures each: like drugs, but not those of a screen."""


def toy_drug_screen(
    n_lines: int = 40, *, n_genes: int = 200, missing: float = 0.2, rng: np.random.Generator | int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Draw a small screen of eight drugs on cell lines of four kinds, for `drugs.fit_drug_response`.

    Cell lines of a kind express the markers of one of the four cell types of `toy_cells`, and respond to the two drugs of one
    class more than the others do; some cell lines are sensitive to everything. Far simpler than real ones.

    Parameters
    ----------
    n_lines
        Number of cell lines.
    n_genes
        Number of genes, the 40 named ones of `toy_cells` among them.
    missing
        Share of pairs that were not measured.
    rng
        Seed or generator.

    Returns
    -------
    log2_tpm
        log2(TPM + 1), (n_lines, n_genes).
    responses
        Columns `line`, `drug`, `ln_ic50` (ln uM).
    drugs
        Eight drugs, with the columns that `drugs.fit_drug_response` needs.

    Raises
    ------
    ValueError
        Fewer than 4 cell lines, fewer than 40 genes, or `missing` is not below 1.

    Examples
    --------
    >>> import scellm
    >>> log2_tpm, responses, drugs = scellm.datasets.toy_drug_screen(12)
    >>> log2_tpm.shape, len(drugs)
    ((12, 200), 8)
    """
    vocabulary = GeneVocabulary.default()
    named = sorted({gene for genes in MARKERS.values() for gene in genes} | set(HOUSEKEEPING))
    if n_lines < 4 or not len(named) <= n_genes <= len(vocabulary) or not 0 <= missing < 1:
        msg = (
            f"n_lines={n_lines}, n_genes={n_genes}, missing={missing}: need at least 4 cell lines, {len(named)} to "
            f"{len(vocabulary)} genes and a share below 1."
        )
        raise ValueError(msg)
    rng = np.random.default_rng(rng)
    others = vocabulary.symbols[~np.isin(vocabulary.symbols, named)]
    genes = np.concatenate(
        [named, others[:: len(others) // max(n_genes - len(named), 1)][: n_genes - len(named)]]
    )
    kind = np.arange(n_lines) % len(MARKERS)
    log2_tpm = rng.normal(rng.uniform(-1, 6, len(genes)), 0.7, (n_lines, len(genes)))
    for i, markers in enumerate(MARKERS.values()):
        log2_tpm[np.ix_(kind == i, np.isin(genes, markers))] += 4
    lines = [f"line{i}" for i in range(n_lines)]
    rows = []
    general = rng.normal(0, 0.5, n_lines)
    for i, (drug_class, (target, *structures)) in enumerate(CLASSES.items()):
        for j, smiles in enumerate(structures):
            rows.append(
                {
                    "drug": f"TOY:{2 * i + j}",
                    "name": f"{target}-inhibitor {'ab'[j]}",
                    "synonyms": f"toy {2 * i + j}",
                    "target": target,
                    "drug_class": drug_class,
                    "screen": "toy",
                    "smiles": smiles,
                    "inchikey": "",
                }
            )
    mean = rng.uniform(-1, 4, len(rows))
    effect = -2.0 * (kind[:, None] == np.arange(len(rows)) // 2)
    ln_ic50 = mean + effect + general[:, None] + rng.normal(0, 0.3, (n_lines, len(rows)))
    measured = rng.random(ln_ic50.shape) >= missing
    line, drug = np.nonzero(measured)
    responses = pd.DataFrame(
        {
            "line": np.array(lines)[line],
            "drug": np.array([row["drug"] for row in rows])[drug],
            "ln_ic50": ln_ic50[measured],
        }
    )
    return pd.DataFrame(np.maximum(log2_tpm, 0), index=lines, columns=genes), responses, pd.DataFrame(rows)
