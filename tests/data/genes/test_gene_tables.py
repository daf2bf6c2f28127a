"""The script behind the packaged gene tables, on five genes."""

import importlib.util
from pathlib import Path

import pytest

from scellm.data.genes._nomenclature import read_table

_spec = importlib.util.spec_from_file_location(
    "gene_tables", Path(__file__).parents[2] / "benchmarks" / "gene_tables.py"
)
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

HGNC = """hgnc_id\tsymbol\tlocus_type\tstatus\talias_symbol\tprev_symbol\tensembl_gene_id
HGNC:1\tBBB\tgene with protein product\tApproved\t"b1|b2"\tOLDB\tENSG00000000002
HGNC:2\tAAA\tgene with protein product\tApproved\t\t\tENSG00000000001
HGNC:3\tNOID\tgene with protein product\tApproved\t\t\t
HGNC:4\tPART\tcomplex locus constituent\tApproved\t\t\tENSG00000000004
HGNC:5\tPARTP\tcomplex locus constituent\tApproved\t\t\tENSG00000000005
HGNC:6\tNONC\tRNA, long non-coding\tApproved\tb3\t\tENSG00000000006
HGNC:7\tGONE\tgene with protein product\tEntry Withdrawn\t\t\tENSG00000000007
"""
GENCODE = """ensembl_id\tsymbol\tbiotype
ENSG00000000004\tPART\tprotein_coding
ENSG00000000005\tPARTP\tunprocessed_pseudogene
ENSG00000000099\tAAA\tprotein_coding
"""
ORTHOLOGS = "AAA,Aaa\nAAA,Aaa\nOLDB,Bbb\nPART,Part1\nPART,Part2\nNOID,Noid\nNONC,\n"
MGI = """symbol\tensembl_id\talias_symbols\tprev_symbols
Aaa\tENSMUSG00000000001\tAa-1|shared\t
Bnew\tENSMUSG00000000002\tBbb|shared|two words\t
Noid\tENSMUSG00000000003\t\t
"""


@pytest.fixture
def arguments(tmp_path):
    """Command line over the five genes; tables go to tmp_path / "out"."""
    texts = {"hgnc.txt": HGNC, "gencode.tsv": GENCODE, "orthologs.csv": ORTHOLOGS, "mgi.tsv": MGI}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    options = {
        "--hgnc": "hgnc.txt",
        "--gencode": "gencode.tsv",
        "--orthologs": "orthologs.csv",
        "--mgi": "mgi.tsv",
    }
    return [
        *(part for option, name in options.items() for part in (option, str(tmp_path / name))),
        "--out",
        str(tmp_path / "out"),
    ]


@pytest.fixture
def tables(arguments, tmp_path, monkeypatch, capsys):
    """Rows of the tables written."""
    build.main(arguments)
    assert "human: 3 rows" in capsys.readouterr().out
    monkeypatch.setattr("scellm.data.genes._nomenclature.files", lambda package: tmp_path)
    (tmp_path / "genes").symlink_to(tmp_path / "out")
    return {name: read_table(f"{name}.tsv.gz")[1] for name in ("human", "human_other", "mouse")}


def test_only_protein_coding_genes_with_an_id_are_in_the_vocabulary(tables):
    assert tables["human"] == [
        ["ENSG00000000001", "AAA", "", "", "ENSG00000000099"],
        ["ENSG00000000002", "BBB", "OLDB", "b1|b2", ""],
        ["ENSG00000000004", "PART", "", "", ""],
    ]
    assert [row[1] for row in tables["human_other"]] == ["NOID", "NONC", "PARTP"]


def test_orthologs_are_one_to_one_and_up_to_date(tables):
    assert tables["mouse"] == [
        ["AAA", "Aaa", "ENSMUSG00000000001", "Aa-1"],
        ["BBB", "Bnew|Bbb", "ENSMUSG00000000002", ""],
    ]


def test_same_inputs_same_bytes(arguments, tmp_path):
    build.main(arguments)
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    build.main(arguments)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first
    assert set(first) == {"human.tsv.gz", "human_other.tsv.gz", "mouse.tsv.gz"}
