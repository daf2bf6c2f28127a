"""The vocabulary, and what each kind of gene name comes to."""

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from scellm.data import GeneVocabulary
from scellm.data.genes._gene_match import MATCH_TYPES
from scellm.data.genes._match import gene_names, match_genes
from scellm.data.genes._nomenclature import human_names, is_missing, mouse_names, read_table

V = GeneVocabulary.default()


def match_one(name, *others):
    """(symbol, how) of a name among others."""
    match = V.match([name, *others])
    return match.symbols[0], match.match_type[0]


# -- the packaged genes -------------------------------------------------------------------------------------


def test_default_vocabulary_has_the_stated_genes():
    assert len(V) == V.n_genes == 19315
    assert (V.cls_id, V.pad_id) == (19315, 19316)
    assert len(set(V.symbols)) == len(set(V.ensembl_ids)) == 19315
    assert V.symbols.tolist() == sorted(V.symbols.tolist())
    assert all(ensembl_id.startswith("ENSG") and len(ensembl_id) == 15 for ensembl_id in V.ensembl_ids)
    assert sum(symbol.startswith("MT-") for symbol in V.symbols) == 13
    assert set(V.symbols) >= {"CD3D", "UGT1A1", "PCDHGA12", "HLA-DRB1", "TP53", "NKX2-5"}
    assert not set(V.symbols) & {"MALAT1", "XIST", "RPL17-C18orf32", "IGKC"}
    assert "HGNC" in V.source
    assert "CC0" in V.source


def test_default_is_made_once():
    assert GeneVocabulary.default() is V


def test_importing_data_reads_no_table():
    code = "import scellm.data.genes._nomenclature as n; print(n.human_names.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_a_vocabulary_is_read_only():
    with pytest.raises(ValueError, match="read-only"):
        V.symbols[0] = "XXX"


def test_tsv_round_trip(tmp_path):
    V.to_tsv(tmp_path / "genes.tsv")
    again = GeneVocabulary.from_tsv(tmp_path / "genes.tsv")
    assert again == V
    assert again.source == V.source
    assert hash(again) == hash(V)
    lines = (tmp_path / "genes.tsv").read_text().splitlines()
    assert lines[0].startswith("# source: human protein-coding genes")
    assert lines[1].split("\t") == ["gene_id", "ensembl_id", "symbol"]
    assert list(tmp_path.iterdir()) == [tmp_path / "genes.tsv"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gene\tsymbol\n0\tA\n", r"has the columns \['gene', 'symbol'\]"),
        ("gene_id\tensembl_id\tsymbol\n1\tENSG00000000001\tA\n", "gene 0 should be"),
        ("gene_id\tensembl_id\tsymbol\n0\tA\n", "gene 0 should be"),
        (
            "gene_id\tensembl_id\tsymbol\n0\t\tA\n1\t\tA\n",
            r"Every symbol may be in a vocabulary once; \['A'\]",
        ),
        ("gene_id\tensembl_id\tsymbol\n", "at least one gene"),
        ("", r"has the columns \[\]"),
    ],
    ids=["columns", "start", "short", "twice", "no-genes", "empty-file"],
)
def test_broken_tsv_is_refused(tmp_path, text, message):
    (tmp_path / "genes.tsv").write_text(text)
    with pytest.raises(ValueError, match=message):
        GeneVocabulary.from_tsv(tmp_path / "genes.tsv")


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="1 Ensembl ids for 2 symbols"):
        GeneVocabulary(["ENSG00000000001"], ["A", "B"])


def test_subset_keeps_the_order_and_makes_new_ids():
    small = V.subset(["MS4A1", "ENSG00000167286", "ACTB"])
    assert small.symbols.tolist() == ["ACTB", "CD3D", "MS4A1"]
    assert (len(small), small.cls_id, small.pad_id) == (3, 3, 4)
    assert small.match(["CD3D", "LYZ"]).match_type.tolist() == ["symbol", "outside"]
    with pytest.raises(KeyError, match=r"1 of 2 names are not in the vocabulary: \['nope1'\]"):
        V.subset(["ACTB", "nope1"])


# -- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "symbol", "how"),
    [
        ("CD3D", "CD3D", "symbol"),
        ("ENSG00000167286", "CD3D", "ensembl"),
        ("ENSG00000167286.10", "CD3D", "ensembl"),
        ("ENSG00000167286.10_PAR_Y", "CD3D", "ensembl"),
        ("ensg00000167286", "CD3D", "ensembl"),
        ("CD3D_ENSG00000167286", "CD3D", "ensembl"),
        ("ENSG00000310517", "CAST", "ensembl"),  # a younger id of the gene HGNC lists as ENSG00000153113
        ("SEPT9", "SEPTIN9", "previous"),
        ("GPR56", "ADGRG1", "previous"),
        ("CD20", "MS4A1", "previous"),
        ("CD56", "NCAM1", "alias"),
        ("cd3d", "CD3D", "case"),
        ("C1ORF21", "C1orf21", "case"),
        ("HLA.DRA", "HLA-DRA", "case"),
        (" CD3D ", "CD3D", "case"),
        ("GRCh38_CD3D", "CD3D", "symbol"),
        ("hg19-CD3D", "CD3D", "symbol"),
        ("GRCh38______ENSG00000167286", "CD3D", "ensembl"),
        ("2-Sep", "SEPTIN2", "date"),
        ("02-Sep", "SEPTIN2", "date"),
        ("Sep-02", "SEPTIN2", "date"),
        ("2-Sep-23", "SEPTIN2", "date"),
        ("2023-09-02", "SEPTIN2", "date"),
        ("2023-09-02 00:00:00", "SEPTIN2", "date"),
        ("3-Mar", "MARCHF3", "date"),
        ("15-Sep", "SELENOF", "date"),
        ("MALAT1", "", "outside"),
        ("ENSG00000251562", "", "outside"),
        ("1-Dec", "", "outside"),  # DEC1 became DELEC1, which is not protein-coding
        ("1-Mar", "", "ambiguous"),  # MARCH1 or MARC1
        ("13-Feb", "", "unknown"),
        ("ERCC-00002", "", "unknown"),
        ("zzz_no_gene", "", "unknown"),
        ("", "", "unknown"),
        ("12345", "", "unknown"),
    ],
)
def test_human_names(name, symbol, how):
    match = V.match([name, "ACTB", "GAPDH"])
    assert (match.symbols[0], match.match_type[0]) == (symbol, how)
    assert (match.ids[0] >= 0) == bool(symbol)
    assert match.organism == "human"
    if symbol:
        assert V.symbols[match.ids[0]] == symbol


def test_every_approved_symbol_and_id_is_its_own():
    for names in (V.symbols, V.ensembl_ids, np.char.add(V.ensembl_ids, ".3")):
        match = V.match(names.tolist())
        assert np.array_equal(match.ids, np.arange(len(V)))
        assert (match.coverage, match.recognized, match.n_duplicates) == (1, 1, 0)


@pytest.mark.parametrize("change", [str.lower, str.upper], ids=["lower", "upper"])
def test_case_of_every_symbol(change):
    match = V.match([change(symbol) for symbol in V.symbols])
    assert match.organism == "human"
    assert np.mean(match.ids == np.arange(len(V))) > 0.999
    assert match.n_duplicates == 0


def test_no_name_is_forced_against_the_table():
    """An alias resolves only if no other gene, coding or not, carries the name in any way."""
    human = human_names()
    owners = {}
    for table in (human.previous, human.alias):
        for name, genes in table.items():
            owners.setdefault(name, set()).update(genes)
    single = V.match(list(owners))  # all at once: the approved names are not among them as such
    for name, row, how in zip(single.names, single.ids, single.match_type, strict=True):
        if how in ("previous", "alias") and name not in human.by_symbol:
            assert len(owners[name]) == 1 or how == "previous"
            assert V.symbols[row] in {human.symbols[gene] for gene in owners[name]}
    assert {"CEA", "FCGR3"} <= set(single.ambiguous)


def test_approved_symbol_wins_over_a_use_as_alias():
    assert "FAS" in human_names().alias  # of FASN
    assert match_one("FAS") == ("FAS", "symbol")
    assert match_one("FASN") == ("FASN", "symbol")


def test_approved_symbol_of_a_noncoding_gene_is_not_taken_for_an_alias():
    human = human_names()
    coding = range(human.n_coding)
    shared = [
        n
        for n, genes in human.alias.items()
        if human.by_symbol.get(n, 0) >= human.n_coding and genes[0] in coding
    ]
    assert len(shared) > 10
    match = V.match(shared)
    assert set(match.match_type) == {"outside"}
    assert (match.ids == -1).all()


def test_ambiguous_names_are_counted_and_listed():
    match = V.match(["TAZ", "FCGR3", "1-Mar", "CD3D"])
    assert match.ambiguous == ["TAZ", "FCGR3", "1-Mar"]
    assert match.candidates["TAZ"] == ["TAFAZZIN", "WWTR1"]
    assert match.candidates["1-Mar"] == ["MARCHF1", "MTARC1"]
    assert match.ids[:3].tolist() == [-1, -1, -1]
    assert "'TAZ' may be TAFAZZIN or WWTR1" in match.summary()
    assert "3 shared by several genes, left out" in match.summary()
    assert match.to_frame().loc[0, "candidates"] == "TAFAZZIN|WWTR1"


@pytest.mark.parametrize(
    ("name", "other", "symbol"),
    [
        ("TAZ", "WWTR1", "TAFAZZIN"),
        ("SEPT2", "SEPTIN6", "SEPTIN2"),
        ("1-Mar", "MTARC1", "MARCHF1"),
        ("1-Mar", "MARCHF1", "MTARC1"),
        ("2-Mar", "MARC2", "MARCHF2"),
    ],
)
def test_other_names_in_the_data_decide_a_shared_one(name, other, symbol):
    assert match_one(name)[1] in ("ambiguous", "previous")
    assert match_one(name, other)[0] == symbol


def test_an_alias_alone_is_not_decided_by_the_others():
    human = human_names()
    assert {human.symbols[gene] for gene in human.alias["MRP8"]} == {"ABCC11", "ABCC8", "S100A8"}
    assert match_one("MRP8", "ABCC11", "ABCC8") == ("", "ambiguous")


def test_names_made_unique_are_duplicates_of_their_stem():
    match = V.match(["TBCE", "TBCE-1", "TBCE.2", "LYZ-1", "HLA-A", "NKX2-1", "MIR-1", "FCGR3", "FCGR3-1"])
    assert match.symbols.tolist() == ["TBCE", "TBCE", "TBCE", "", "HLA-A", "NKX2-1", "", "", ""]
    assert match.n_duplicates == 2
    assert match.match_type[8] == "ambiguous"  # as its stem


@pytest.mark.parametrize(
    "name", ["nan", "NaN", "Nan", "NA", "N/A", "#N/A", "na", "None", "<NA>", "null", "NULL", "", " ", "NA "]
)
@pytest.mark.parametrize("organism", [None, "human", "mouse"])
def test_missing_names_are_no_genes(name, organism):
    names = [name, f"{name}-1", f"{name}-2", f"{name}.1"]
    match = V.match([*names, "SCN11A", "XK"], organism=organism)
    assert match.match_type[:4].tolist() == ["unknown"] * 4
    assert match.ids[:4].tolist() == [-1] * 4
    assert match.n_duplicates == 0
    assert V.match(names).organism == "unknown"


def test_missing_names_look_like_no_gene_that_there_is():
    human, mouse = human_names(), mouse_names()
    lost = {n for t in (human.previous, human.alias, mouse.by_synonym) for n in t if is_missing(n)}
    assert lost == {"NA", "NaN", "Nan"}
    assert not [n for t in (human.by_symbol, mouse.by_symbol) for n in t if is_missing(n)]


def test_missing_names_are_not_looked_up_in_an_own_vocabulary():
    own = GeneVocabulary(ensembl_ids=["ENSG00000167286", ""], symbols=["CD3D", "nan"])
    assert own.match(["CD3D", "nan", ""]).ids.tolist() == [0, -1, -1]


def test_duplicates_are_counted():
    match = V.match(["CD3D", "CD3D", "ENSG00000167286", "LYZ"])
    assert (match.n_genes, match.n_duplicates) == (2, 2)
    assert "2 columns map to a gene that another column holds too" in match.summary()


def test_every_word_of_how_is_explained():
    names = ["CD3D", "ENSG00000156738", "SEPT9", "CD56", "lyz", "3-Mar", "MALAT1", "TAZ", "zzz_no_gene"]
    assert set(V.match(names).match_type) == set(MATCH_TYPES) - {"ortholog"}
    assert V.match(names).recognized == pytest.approx(7 / 9)


# -- mouse --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("Cd3d", "CD3D"),
        ("Ptprc", "PTPRC"),
        ("mt-Nd1", "MT-ND1"),
        ("Taz", "TAFAZZIN"),  # MGI's former symbol, unambiguous in mouse
        ("Gpr56", "ADGRG1"),
        ("Ins2", "INS"),
        ("ENSMUSG00000032094", "CD3D"),
        ("ENSMUSG00000032094.9", "CD3D"),
        ("mm10___Cd3d", "CD3D"),
        ("Xist", ""),
        ("Gm12345", ""),
        ("CD3D", ""),  # human in mouse data
        ("hg19_CD3D", ""),
    ],
)
def test_mouse_names_go_through_orthologs(name, symbol):
    match = V.match([name, "Actb", "Gapdh", "Lyz2", "Cd4"])
    assert match.organism == "mouse"
    assert (match.symbols[0], match.match_type[0]) == (symbol, "ortholog" if symbol else "unknown")


def test_orthologs_are_one_to_one():
    _, rows = read_table("mouse.tsv.gz")
    assert len(rows) == len({row[0] for row in rows}) == 16046
    symbols = [symbol for row in rows for symbol in row[1].split("|")]
    assert len(symbols) == len(set(symbols))
    ids = [row[2] for row in rows if row[2]]
    assert len(ids) == len(set(ids)) > 15900
    assert set(mouse_names().by_symbol.values()) <= set(range(human_names().n_coding))


def test_mouse_data_is_not_swallowed_by_ignoring_case():
    """Control: the same names, said to be human, match by case."""
    names = ["Cd3d", "Cd3e", "Ms4a1", "Lyz2"]
    assert V.match(names).match_type.tolist() == ["ortholog", "ortholog", "ortholog", "unknown"]
    assert (
        V.match(names, organism="human").match_type.tolist()[:3] == ["unknown"] * 3
    )  # half the names look like mouse
    assert V.match(["Cd3d", *V.symbols[:100]], organism="human").match_type[0] == "case"


def test_mixed_species_tables_are_not_mixed():
    human = [f"hg19_{symbol}" for symbol in ("CD3D", "ACTB", "LYZ", "CD4")]
    mouse = [f"mm10_{symbol}" for symbol in ("Cd3d", "Actb", "Cd4")]
    match = V.match(human + mouse)
    assert match.organism == "human"
    assert (match.ids[:4] >= 0).all()
    assert match.match_type[4:].tolist() == ["unknown"] * 3
    bare = V.match([name.split("_")[1] for name in human + mouse])
    assert (bare.n_genes, bare.n_duplicates) == (4, 0)


def test_organism_can_be_said_and_must_be_known():
    assert V.match(["CD3D"], organism="mouse").match_type.tolist() == ["unknown"]
    with pytest.raises(ValueError, match="organism='rat'; need 'human', 'mouse' or None"):
        V.match(["CD3D"], organism="rat")


# -- other vocabularies, bad names, speed -------------------------------------------------------------------


def test_a_vocabulary_with_old_symbols_understands_new_names():
    old = GeneVocabulary(["", "", "", ""], ["SEPT9", "GPR56", "MY-GENE", "CD3D"])
    match = old.match(["SEPTIN9", "ADGRG1", "GPR56", "MY-GENE", "ENSG00000167286", "MS4A1"])
    assert match.ids.tolist() == [0, 1, 1, 2, 3, -1]
    assert match.match_type.tolist() == ["symbol", "symbol", "previous", "symbol", "ensembl", "outside"]


def test_names_must_be_text():
    with pytest.raises(TypeError, match=r"name 1 is 7 \(int\).*gene_key="):
        V.match(["CD3D", 7])


def test_sixty_thousand_names_take_less_than_half_a_second():
    human = human_names()
    names = [*human.symbols, *(f"AC{i:06d}.1" for i in range(15000))][:60000]
    V.match(names[:10])
    start = time.process_time()
    match = V.match(names)
    assert time.process_time() - start < 2  # about 0.3 on one core; slack for a busy machine
    assert match.n_genes == len(V)


# -- tables of AnnData ------------------------------------------------------------------------------------


def table(names, **columns):
    return pd.DataFrame(columns, index=pd.Index(names, dtype=object))


def test_var_names_are_taken_when_they_are_genes():
    var = table(V.symbols[:50], gene_ids=V.ensembl_ids[50:100])
    names, where = gene_names(var)
    assert (names.tolist(), where) == (V.symbols[:50].tolist(), "adata.var_names")


@pytest.mark.parametrize("column", ["gene_ids", "feature_name", "Gene_Symbol", "ensembl_id"])
def test_a_column_is_found_when_var_names_are_no_genes(column):
    names, where = gene_names(
        table([str(i) for i in range(50)], n_cells=range(50), **{column: V.symbols[:50]})
    )
    assert (names.tolist(), where) == (V.symbols[:50].tolist(), f"adata.var[{column!r}]")


def test_categories_and_missing_entries():
    var = table(["0", "1", "2"], feature_name=pd.Categorical(["CD3D", None, "LYZ"]))
    assert gene_names(var, "feature_name")[0].tolist() == ["CD3D", "", "LYZ"]


def test_absent_gene_key_lists_the_columns():
    with pytest.raises(
        KeyError, match=r"gene_key='symbols' is not a column of `adata.var`, which has \['a', 'b'\]"
    ):
        gene_names(table(["CD3D"], a=1, b=2), "symbols")


def test_a_column_name_that_comes_twice():
    var = table(
        ["q1_", "q2_"], gene_ids=["CD3D", "LYZ"], feature_types="Gene Expression", symbol=["LYZ", "q2_"]
    )
    var = pd.concat([var, var[["gene_ids", "feature_types"]]], axis=1)
    with pytest.raises(ValueError, match=r"gene_key='gene_ids' is the name of 2 columns of `adata.var`"):
        gene_names(var, "gene_ids")
    match = match_genes(var, V, min_overlap=0)  # while searching, such columns are passed over
    assert (match.where, match.n_genes, match.n_other_features) == ("adata.var['symbol']", 1, 0)
    other = pd.concat([var, table(var.index, other=["CD3D", "LYZ"])], axis=1).drop(columns="symbol")
    with pytest.raises(ValueError, match="pass gene_key='other', which holds 2"):
        match_genes(other, V, min_overlap=1e-4)


def test_antibodies_are_not_genes():
    var = table(
        ["CD4", "CD4-1", "CD19"], feature_types=["Gene Expression", "Antibody Capture", "Antibody Capture"]
    )
    match = match_genes(var, V, min_overlap=0)
    assert (match.n_genes, match.n_duplicates, match.n_other_features) == (1, 0, 2)
    assert "2 columns are not gene expression" in match.summary()


def test_numbers_as_var_names():
    var = pd.DataFrame(index=pd.Index(range(3)))
    with pytest.raises(TypeError, match=r"name 0 is 0 \(int\)"):
        match_genes(var, V)
    var["gene_symbols"] = ["CD3D", "LYZ", "ACTB"]
    assert match_genes(var, V, min_overlap=0).where == "adata.var['gene_symbols']"


def test_overlap_is_of_the_vocabulary():
    assert match_genes(table(V.symbols[:2000]), V).coverage == pytest.approx(2000 / 19315)
    with pytest.raises(ValueError, match=r"holds 1900 of the 19315 vocabulary genes \(9.8 %, need 10 %\)"):
        match_genes(table(V.symbols[:1900]), V)


@pytest.mark.parametrize(
    ("var", "message"),
    [
        (
            table(["qq1", "zz9"]),
            r"`adata.var_names` holds 0 of the 19315 vocabulary genes \(0.0 %, need 10 %\). They look like 'qq1', "
            r"'zz9'; none is a known gene; set `adata.var_names` to human .* `adata.var` has no columns",
        ),
        (
            table(["0", "1"], n=[1, 2]),
            r"look like numbers \('0', '1'\); pass `gene_key=` .* has the columns \['n'\]",
        ),
        (
            table(["ENSG00000167286", "ENSG00000156738"]),
            r"look like human Ensembl ids \('ENSG00000167286'.*before genes",
        ),
        (table(["ENSMUSG00000032094"]), "look like mouse Ensembl ids"),
        (table(["ENSDARG00000000001"]), "Ensembl ids of a species that is neither human nor mouse"),
        (table(["ENST00000300692.8"]), "look like Ensembl transcript ids"),
        (table(["1007_s_at"]), "look like microarray probes"),
        (table(["chr1:100-200"]), "look like genomic regions"),
        (
            table(["CD3D", "LYZ"]),
            r"They are human genes \('CD3D', 'LYZ'\), but only 2 columns; pass the data as it was",
        ),
        (table(["Cd3d", "Cd4"]), r"They are mouse genes \('Cd3d', 'Cd4'\), but only 2 columns"),
    ],
    ids=[
        "nothing",
        "numbers",
        "ensembl",
        "mouse-ids",
        "fish",
        "transcripts",
        "probes",
        "peaks",
        "few",
        "mouse",
    ],
)
def test_too_few_genes_say_what_they_look_like_and_what_to_pass(var, message):
    with pytest.raises(ValueError, match=message):
        match_genes(var, V)


@pytest.mark.parametrize(
    "labels",
    [["CD3D", "A", "LYZ"], ["CD3D", np.nan, "LYZ"], pd.Categorical(["CD3D", None, "LYZ"])],
    ids=["text", "nan", "category-with-none"],
)
def test_a_column_is_recommended_only_if_it_would_be_taken(labels):
    var = table(list("xyz"), label=labels)
    with pytest.raises(ValueError, match="pass gene_key='label', which holds 2"):
        match_genes(var, V, min_overlap=1e-4)
    assert match_genes(var, V, "label", min_overlap=1e-4).n_genes == 2
    with pytest.raises(ValueError, match="set `adata.var_names`") as refusal:
        match_genes(var, V)
    assert "gene_key='label'" not in str(refusal.value)


def test_too_few_genes_point_to_raw():
    with pytest.raises(ValueError, match=r"pass use_raw=True, where `adata.raw.var_names` holds 3000"):
        match_genes(table(V.symbols[:500]), V, raw_var=table(V.symbols[:3000]))
    with pytest.raises(ValueError, match=r"before genes were selected, or min_overlap=0.025 if") as refusal:
        match_genes(table(V.symbols[:500]), V, raw_var=table(V.symbols[:1500]))
    assert "use_raw" not in str(refusal.value)
    assert match_genes(table(V.symbols[:500]), V, min_overlap=0.025).n_genes == 500


# -- genes as rows ----------------------------------------------------------------------------------------------


def test_transposed_objects_are_named():
    cells = table([f"c{i}" for i in range(20)])
    with pytest.raises(
        ValueError, match=r"the genes are the rows: `adata.obs_names` holds 3000. Pass adata.T.copy\(\)"
    ):
        match_genes(cells, V, obs_names=V.symbols[:3000])
    with pytest.raises(ValueError, match="pass `gene_key=`|set `adata.var_names`") as refusal:
        match_genes(cells, V, obs_names=[f"d{i}" for i in range(20)])
    assert ".T" not in str(refusal.value)  # known not to help
    with pytest.raises(
        ValueError, match=r"look like cell barcodes .*if the genes are the rows, pass adata.T.copy\(\)"
    ):
        match_genes(table(["AAACCTGAGAAACCAT-1", "AAACCTGAGAAACCGC-1"]), V)


# -- antibodies, peaks and other features -----------------------------------------------------------------------

KINDS = [
    ("Gene Expression", "Antibody Capture"),
    ("gene_expression", "CRISPR Guide Capture"),
    ("GEX", "ADT"),
    ("RNA", "protein"),
    ("mRNA", "AbSeq"),
    ("rna", "HTO"),
    ("Gene Expression", "Peaks"),
    ("GeneExpression", "GeneActivity"),
    ("Genexpression", "Antikörper"),
    ("Expression génique", "Protéines"),
    ("expresión génica", "anticuerpos"),
    ("基因表达", "抗体"),
    ("protein_coding", "Antibody Capture"),
    ("Gene Expression", "something new"),
    ("X", "Surface Protein"),
]


@pytest.mark.parametrize("column", ["feature_types", "Feature Type", "modality", "feature_types-1"])
@pytest.mark.parametrize(("gene", "other"), KINDS, ids=[f"{a}-{b}" for a, b in KINDS])
@pytest.mark.filterwarnings("ignore:.*which were left out")
def test_other_features_by_any_of_the_usual_words(column, gene, other):
    var = table(["CD4", "CD19", "CD4-1", "CD19-1"])
    var[column] = [gene, gene, other, other]
    match = match_genes(var, V, min_overlap=0)
    assert (match.n_genes, match.n_duplicates, match.n_other_features) == (2, 0, 2)
    assert match.is_other.tolist() == [False, False, True, True]


def test_columns_of_other_names_are_believed_where_all_words_are_known():
    var = table(["CD4", "CD19", "CD4-1"], what=["RNA", "RNA", "ADT"])
    assert match_genes(var, V, min_overlap=0).n_other_features == 1
    var["what"] = ["RNA", "highly variable", "ADT"]
    assert match_genes(var, V, min_overlap=0).n_other_features == 0


def test_biotypes_are_genes():
    var = table(
        ["CD4", "CD19", "LYZ", "MALAT1"], feature_type=["protein_coding", "IG_V_gene", "novel_kind", "lncRNA"]
    )
    match = match_genes(var, V, min_overlap=0)
    assert (match.n_genes, match.n_other_features) == (3, 0)


def test_missing_feature_types_do_not_leave_genes_out():
    var = table(["CD4", "CD19", "CD3-1"], feature_types=["Gene Expression", np.nan, "Antibody Capture"])
    assert match_genes(var, V, min_overlap=0).n_genes == 2


def test_two_unknown_kinds_side_by_side_are_warned_of():
    var = table(["CD4", "CD19", "LYZ"], feature_types=["A", "A", "B"])
    with pytest.warns(
        UserWarning, match=r"kinds of features that are not known: 2 of 'A' and 1 of 'B' were read"
    ):
        match_genes(var, V, min_overlap=0)
    with pytest.warns(
        UserWarning, match=r"which were left out: 1 of 'B'. If they are genes, remove the column"
    ):
        match_genes(var.assign(feature_types=["RNA", "RNA", "B"]), V, min_overlap=0)


def test_only_other_features():
    var = table(["CD4", "CD19"], feature_types="Antibody Capture")
    with pytest.raises(
        ValueError, match=r"all 2 columns are 'Antibody Capture', which are not genes.*del adata.var"
    ):
        match_genes(var, V, min_overlap=0)


# -- leftovers of joining objects -------------------------------------------------------------------------------


def test_endings_that_joining_left_behind():
    genes = V.symbols[:300].tolist()
    for names in (
        [f"{gene}-rna" for gene in genes],
        [f"rna:{gene}" for gene in genes],
        [f"{gene}-0" for gene in genes],
    ):
        assert match_genes(table(names), V, min_overlap=0).n_genes == 300
    both = [f"{gene}-rna" for gene in genes] + [f"{gene}-adt" for gene in genes[:9]]
    match = match_genes(table(both), V, min_overlap=0)
    assert (match.n_genes, match.n_duplicates, match.n_other_features) == (300, 0, 9)


def test_name_columns_that_joining_renamed():
    var = table(
        ["x", "y"], **{"gene_ids-0": ["ENSG00000167286", "ENSG00000156738"], "gene_ids-1": [np.nan, np.nan]}
    )
    assert match_genes(var, V, min_overlap=0).where == "adata.var['gene_ids-0']"


def test_a_column_of_numbers_is_no_column_of_names():
    match = match_genes(table(["x", "CD3D", "y"], gene=[1, 2, 3]), V, min_overlap=0)
    assert (match.where, match.n_genes) == ("adata.var_names", 1)


# -- other species ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ("GRCh38_", "mm10___"),
        ("hg19_", "mm10_"),
        ("GRCh38-2020-A_", "GRCm39-2024-A_"),
        ("human_", "mouse_"),
        ("GRCh38_", "rn6_"),
        ("GRCh38_", "SARS-CoV-2_"),
    ],
)
def test_columns_of_another_species(own, other):
    names = [f"{own}{name}" for name in V.symbols[:300]] + [f"{other}Cd3d", f"{other}Ptprc", f"{other}Lyz2"]
    match = match_genes(table(names), V, min_overlap=0, organism="human")
    assert match.n_genes == 300
    assert match.is_foreign.tolist() == [False] * 300 + [True] * 3
    assert "3 columns are genes of another species" in match.summary()


def test_ids_and_spellings_of_another_species():
    ids = V.ensembl_ids[:50].tolist() + [f"ENSMUSG{i:011d}" for i in range(20)]
    assert match_genes(table(ids), V, min_overlap=0).is_foreign.sum() == 20
    mouse = ["Cd3d", "Cd8a", "Ptprc", "Ms4a1", "Cd19", "Foxp3"]
    spelled = match_genes(table([*V.symbols[:50], *mouse]), V, min_overlap=0)
    assert spelled.is_foreign.tolist() == [False] * 50 + [True] * 6
