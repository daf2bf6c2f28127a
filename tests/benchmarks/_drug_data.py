"""Responses, lines and drugs of the drug data folder, as the drug model and its benchmark read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(__file__).parents[3] / "shared" / "data"
MISTRUSTED = ("DeepCDR",)
"""Sources of structures that are known to hold wrong ones (a fragment for rapamycin)."""


def expression(data: Path = DATA) -> pd.DataFrame:
    """log2(TPM + 1), 580 lines x 618 genes under their approved symbols."""
    from scellm.data import GeneVocabulary

    table = pd.read_parquet(data / "drug" / "cell_expr_ccle_log2tpm_recovered.parquet")
    symbols = GeneVocabulary.default().match(table.columns).symbols
    table.columns = symbols
    return table.loc[:, (symbols != "") & ~pd.Index(symbols).duplicated()]


def lines(index: pd.Index, data: Path = DATA) -> pd.DataFrame:
    """`line`, `name`, `tissue` of the lines of an index."""
    table = (
        pd.read_parquet(data / "drug" / "cell_lines.parquet").drop_duplicates("sidm_id").set_index("sidm_id")
    )
    table = table.reindex(index)
    named = table[["name", "tissue"]].fillna("").rename_axis("line").reset_index()
    return named.assign(name=np.where(named["name"] == "", named["line"], named["name"]))


def drugs(data: Path = DATA) -> pd.DataFrame:
    """All drugs, with the columns of `scellm.drugs._names.DRUG_COLUMNS`, by drug id."""
    table = pd.read_parquet(data / "drug" / "drugs.parquet")
    text = {
        column: table[column].astype(object).where(table[column].notna(), "").astype(str)
        for column in ("name", "synonyms", "targets", "pathway", "smiles", "inchikey", "smiles_source")
    }
    trusted = ~text["smiles_source"].isin(MISTRUSTED)
    return pd.DataFrame(
        {
            "drug": table["drug_id"],
            "name": text["name"],
            "synonyms": text["synonyms"],
            "target": text["targets"],
            "drug_class": text["pathway"],
            "smiles": text["smiles"].where(trusted, ""),
            "inchikey": text["inchikey"].where(trusted, ""),
        }
    ).set_index("drug", drop=False)


def normal(factors: pd.Series | None = None, data: Path = DATA) -> list[pd.DataFrame]:
    """Linear expression of normal tissues: bulk, and mean profiles of cell types from single cells.

    The latter divided by `factors`, what single-cell sequencing sees more of a gene than bulk does.
    """
    import anndata as ad

    from scellm.data import GeneVocabulary

    found, read = [], expression(data).columns
    for name in ("human_bulk", "human_celltypes"):
        profiles = ad.read_h5ad(data / "profiles" / f"{name}.h5ad")
        profiles = profiles[profiles.obs["malignant"].astype(str) == "False"]
        linear = np.expm1(profiles.X.astype(np.float64) / profiles.uns["scale"])
        symbols = GeneVocabulary.default().match(profiles.var_names).symbols
        kept = (symbols != "") & ~pd.Index(symbols).duplicated()
        table = pd.DataFrame(linear[:, kept], index=profiles.obs_names, columns=symbols[kept])
        if name == "human_celltypes" and factors is not None:
            table /= factors.reindex(table.columns).fillna(1.0)
        found.append(table[table[table.columns.intersection(read)].sum(axis=1) > 0])
    return found


def gdsc2(data: Path = DATA) -> pd.DataFrame:
    """The TGSA table of GDSC2 with its splits: `line`, `drug`, `ln_ic50`, `split_*`."""
    table = pd.read_parquet(data / "drug" / "gdsc2_tgsa_with_splits.parquet")
    return table.rename(columns={"cell_line_id": "line", "drug_id": "drug"})


def responses(source: str, data: Path = DATA) -> pd.DataFrame:
    """ln IC50 of one source: `line`, `drug`, `ln_ic50`, lines with expression only."""
    table = pd.read_parquet(data / "drug" / "response_long.parquet")
    table = table[(table["source"] == source) & (table["metric"] == "ln_ic50")]
    table = table[table["cell_line_id"].isin(expression(data).index)]
    table = table.rename(columns={"cell_line_id": "line", "drug_id": "drug", "value": "ln_ic50"})
    return table[["line", "drug", "ln_ic50"]].reset_index(drop=True)


def training_set(data: Path = DATA) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Responses and drugs of the shipped model: GDSC2, and of GDSC1 the drugs that GDSC2 has not.

    One row per compound: of several ids with one name, the one with most lines. The panel is GDSC2.
    """
    of_tgsa = gdsc2(data)[["line", "drug", "ln_ic50"]]
    more = responses("GDSC2_oncoPredict", data)
    second = pd.concat([of_tgsa, more[~more["drug"].isin(of_tgsa["drug"])]])
    first = responses("GDSC1_v17_gdsctools", data)
    first = first[~first["drug"].isin(second["drug"])]
    table = drugs(data)
    chosen: list[pd.DataFrame] = []
    taken: set[str] = set()
    for screen, measured in (("GDSC2", second), ("GDSC1", first)):
        n = measured["drug"].value_counts()
        rows = table.loc[n.index].assign(screen=screen, panel=screen == "GDSC2", n=n)
        plain = rows["name"].str.casefold().str.replace(r"[\W_]+", "", regex=True)
        rows = rows.assign(plain=plain).drop_duplicates("plain")
        rows = rows[~rows["plain"].isin(taken)]
        taken |= set(rows["plain"])
        chosen.append(rows)
    kept = pd.concat(chosen).drop(columns=["n", "plain"])
    both = pd.concat([second, first])
    return both[both["drug"].isin(kept["drug"])].reset_index(drop=True), kept.sort_values(
        ["panel", "name"], ascending=[False, True]
    ).reset_index(drop=True)
