"""Make the packaged gene tables from public files.

Run as::

    python tests/benchmarks/gene_tables.py --hgnc hgnc_complete_set.txt --gencode gencode_genes.tsv \
        --orthologs Ensembl105_Human2Mouse_Genes.csv --mgi mgi_genes.parquet --out scellm/data/genes

`scellm/data/genes/README.md` says what each input is, which rule decides what becomes a vocabulary gene, and
what the tables hold. The same inputs give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

PROTEIN = "gene with protein product"
"""HGNC locus type of ordinary protein-coding genes."""
CONSTITUENT = "complex locus constituent"
"""HGNC locus type of UGT1A1, PCDHGA12, ...: genes that share exons of one locus."""
EXTRA_ORTHOLOGS = {"Ins2": "INS"}
"""Not one-to-one (Ins1 is a retrotransposed copy) but Ins2 is the ancestral gene, and islets need it."""


class Gene(NamedTuple):
    """One approved HGNC gene."""

    ensembl_id: str
    symbol: str
    previous: tuple[str, ...]
    alias: tuple[str, ...]
    locus_type: str


class MouseGene(NamedTuple):
    """One MGI gene; `synonyms` mixes former symbols and aliases, as MGI does."""

    ensembl_id: str
    symbol: str
    synonyms: tuple[str, ...]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a table (.parquet, or tab/comma separated text, plain or .gz) as dictionaries of text."""
    if path.suffix == ".parquet":
        import pandas as pd  # with pyarrow, which scellm itself does not need

        return pd.read_parquet(path).fillna("").astype(str).to_dict("records")
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as lines:
        return list(csv.DictReader(lines, delimiter="," if ".csv" in path.suffixes else "\t"))


def names_in(cell: str) -> tuple[str, ...]:
    """Split `A|B|C`, without empty and repeated names."""
    return tuple(dict.fromkeys(name.strip() for name in cell.strip('"').split("|") if name.strip()))


def read_hgnc(path: Path) -> list[Gene]:
    """Approved genes of the HGNC complete set, as HGNC's own text file or as a renamed parquet of it."""
    genes = []
    for row in read_rows(path):
        if row["status"] != "Approved":
            continue
        genes.append(
            Gene(
                ensembl_id=row.get("ensembl_gene_id", row.get("ensembl_id", "")),
                symbol=row["symbol"],
                previous=names_in(row.get("prev_symbol", row.get("prev_symbols", ""))),
                alias=names_in(row.get("alias_symbol", row.get("alias_symbols", ""))),
                locus_type=row.get("locus_type", row.get("gene_type", "")),
            )
        )
    return sorted(genes, key=lambda gene: gene.symbol)


def is_vocabulary_gene(gene: Gene, biotypes: dict[str, str]) -> bool:
    """Protein-coding with an Ensembl id; parts of a complex locus where GENCODE calls them protein-coding."""
    if not gene.ensembl_id:
        return False
    if gene.locus_type == CONSTITUENT:
        return biotypes.get(gene.ensembl_id) == "protein_coding"
    return gene.locus_type == PROTEIN


def other_ensembl_ids(genes: list[Gene], id_and_symbol: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Ids that a GENCODE release gives a symbol for which HGNC records another id."""
    hgnc_ids = {gene.ensembl_id for gene in genes}
    found = defaultdict(set)
    for ensembl_id, symbol in id_and_symbol:
        if ensembl_id not in hgnc_ids:
            found[symbol].add(ensembl_id)
    return {symbol: sorted(ids) for symbol, ids in found.items()}


def read_orthologs(path: Path) -> list[tuple[str, str]]:
    """Pairs (human, mouse) that are alone on both sides; the file repeats genes of alternate haplotypes."""
    with path.open(encoding="utf-8", newline="") as lines:
        pairs = sorted({(row[0], row[1]) for row in csv.reader(lines) if row[0] and row[1]})
    humans, mice = defaultdict(set), defaultdict(set)
    for human, mouse in pairs:
        humans[human].add(mouse)
        mice[mouse].add(human)
    return [(h, m) for h, m in pairs if len(humans[h]) == 1 and len(mice[m]) == 1]


def read_mgi(path: Path) -> list[MouseGene]:
    """Mouse genes with their Ensembl ids, from a table with HGNC-like columns."""
    return [
        MouseGene(row["ensembl_id"], row["symbol"], names_in(f"{row['alias_symbols']}|{row['prev_symbols']}"))
        for row in read_rows(path)
    ]


def owners_of_names(genes: list[Gene]) -> dict[str, set[str]]:
    """From every approved name to its gene, and from every other name to all genes that carry it."""
    owners = defaultdict(set)
    for gene in genes:
        for name in (*gene.previous, *gene.alias):
            owners[name].add(gene.symbol)
    for gene in genes:
        owners[gene.symbol] = {gene.symbol}
    return owners


def ortholog_rows(
    pairs: list[tuple[str, str]], mice: list[MouseGene], genes: list[Gene], vocabulary: set[str]
) -> list[tuple[str, str, str, str]]:
    """Rows (human symbol, mouse symbols, mouse Ensembl id, synonyms that no other mouse gene carries)."""
    owners = owners_of_names(genes)
    by_symbol = {mouse.symbol: mouse for mouse in mice}
    carriers = defaultdict(set)
    for mouse in mice:
        for name in mouse.synonyms:
            carriers[name].add(mouse.symbol)
    approved = {symbol for _, symbol in pairs} | set(by_symbol)
    rows, seen = [], defaultdict(list)
    for human_name, mouse_name in [*pairs, *((human, mouse) for mouse, human in EXTRA_ORTHOLOGS.items())]:
        human = owners.get(human_name, set()) & vocabulary
        if len(owners.get(human_name, ())) != 1 or not human:
            continue
        current = {mouse_name} if mouse_name in by_symbol else carriers.get(mouse_name, set())
        mouse = by_symbol[next(iter(current))] if len(current) == 1 else MouseGene("", mouse_name, ())
        synonyms = [n for n in mouse.synonyms if len(carriers[n]) == 1 and n not in approved and " " not in n]
        row = (
            next(iter(human)),
            "|".join(dict.fromkeys((mouse.symbol, mouse_name))),
            mouse.ensembl_id,
            "|".join(synonyms),
        )
        rows.append(row)
        for key in (row[0], *row[1].split("|"), row[2]):
            seen[key].append(row)
    # Today's names can bring two old pairs together: then neither is one-to-one any more.
    clean = [r for r in rows if all(len(seen[k]) == 1 for k in (r[0], *r[1].split("|"), r[2]) if k)]
    return sorted(clean)


def write_table(path: Path, header: list[str], columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Write `# ` comment lines, one line of column names and the rows, gzipped without a time stamp."""
    lines = [*(f"# {line}" for line in header), "\t".join(columns), *("\t".join(row) for row in rows)]
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as packed:
        packed.write(("\n".join(lines) + "\n").encode())
    os.replace(partial, path)  # noqa: PTH105 - the atomic move


def sha256(path: Path) -> str:
    """Digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build(
    *,
    hgnc: Path,
    gencode: Path,
    older_gencode: Path | None,
    orthologs: Path,
    mgi: Path,
    hgnc_note: str,
    out: Path,
) -> dict[str, int]:
    """Write the three tables into `out` and return how many rows each has."""
    genes = read_hgnc(hgnc)
    gencode_rows = read_rows(gencode)
    biotypes = {row["ensembl_id"]: row["biotype"] for row in gencode_rows}
    id_and_symbol = [(row["ensembl_id"], row["symbol"]) for row in gencode_rows]
    if older_gencode is not None:
        with older_gencode.open(encoding="utf-8", newline="") as lines:
            id_and_symbol += [(row[0], row[1]) for row in csv.reader(lines)]
    other_ids = other_ensembl_ids(genes, id_and_symbol)

    vocabulary = [gene for gene in genes if is_vocabulary_gene(gene, biotypes)]
    rest = [gene for gene in genes if not is_vocabulary_gene(gene, biotypes)]
    rows = {
        "human": [
            (
                g.ensembl_id,
                g.symbol,
                "|".join(g.previous),
                "|".join(g.alias),
                "|".join(other_ids.get(g.symbol, ())),
            )
            for g in vocabulary
        ],
        "human_other": [(g.ensembl_id, g.symbol, "|".join(g.previous), "|".join(g.alias)) for g in rest],
        "mouse": ortholog_rows(
            read_orthologs(orthologs), read_mgi(mgi), genes, {gene.symbol for gene in vocabulary}
        ),
    }
    from_hgnc = [f"source: HGNC complete set, {hgnc_note} (CC0)", f"input sha256: {sha256(hgnc)}"]
    names = ("ensembl_id", "symbol", "previous", "alias")
    write_table(out / "human.tsv.gz", from_hgnc, (*names, "other_ensembl_ids"), rows["human"])
    write_table(out / "human_other.tsv.gz", from_hgnc, names, rows["human_other"])
    write_table(
        out / "mouse.tsv.gz",
        [
            f"source: Ensembl 105 one-to-one orthologs, input sha256: {sha256(orthologs)}",
            f"source: MGI symbols, synonyms and Ensembl ids (CC BY 4.0), input sha256: {sha256(mgi)}",
        ],
        ("human_symbol", "mouse_symbols", "mouse_ensembl_id", "mouse_synonyms"),
        rows["mouse"],
    )
    return {name: len(table) for name, table in rows.items()}


def main(arguments: list[str] | None = None) -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hgnc", type=Path, required=True, help="hgnc_complete_set.txt, or a parquet of it")
    parser.add_argument(
        "--hgnc-note", default="release not given", help="release or download date, for the header"
    )
    parser.add_argument("--gencode", type=Path, required=True, help="table: ensembl_id, symbol, biotype")
    parser.add_argument("--older-gencode", type=Path, help="csv without header: Ensembl id, symbol")
    parser.add_argument(
        "--orthologs", type=Path, required=True, help="csv without header: human, mouse symbol"
    )
    parser.add_argument(
        "--mgi", type=Path, required=True, help="table: symbol, ensembl_id, alias_symbols, prev_symbols"
    )
    parser.add_argument("--out", type=Path, default=Path("scellm/data/genes"), help="folder for the tables")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, n_rows in build(**vars(given)).items():
        print(f"{name}: {n_rows} rows")


if __name__ == "__main__":
    main()
