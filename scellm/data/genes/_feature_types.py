"""Which columns of a table are genes, and which are antibodies, hashtags, guides or peaks measured beside them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import pandas as pd

COLUMN_NAMES = {
    "featuretype",
    "featuretypes",
    "featurebiotype",
    "featuremodality",
    "modality",
    "modalities",
    "assay",
    "omic",
    "omics",
    "librarytype",
}
"""Columns that say what a feature is, without case, blanks and punctuation; other columns must prove it by their words."""
MOST_KINDS = 60
"""No column that says what a feature is has more different values; Ensembl knows some 40 biotypes."""

_GENE = re.compile(
    r"(single cell |sc ?|sn ?|bulk |total |m|pre m|host )?(rna|genes?|gex|transcripts?|transcriptomes?|transcriptomics?)( ?seq)?"
    r"|(gene|rna|mrna|transcript|transcriptome) ?(expression|counts?|seq)( .*)?|expression|wta|whole transcriptome.*"
    r"|gen(e|o)?expression(sdaten)?|(expressi?[oa]n?|expresion) (genica|genetica|genique|des genes|de genes|do gene)|expression genique"
    r"|espressione genica|expressao genica|expresja genow|ekspresja genow|genexpressie|gene|gen|geno|genes|gener"
    r"|基因(表达|表現)?|遺伝子(発現)?|유전자( ?발현)?|экспрессия генов|ген(ы)?"
)
"""Words for gene expression, whole."""
_BIOTYPE = re.compile(
    r"protein coding.*|.*pseudogene|(ig|tr) [a-z]+ gene|.*\b(lnc|linc|mi|sno|sn|r|sca|s|t|v|vault|nc|misc|mt r|mt t|macro lnc) ?rna"
    r"|antisense( rna)?|sense (intronic|overlapping)|processed transcript|retained intron|nonsense mediated decay|ribozyme|tec"
    r"|bidirectional promoter lncrna|3prime overlapping ncrna|non coding|to be experimentally confirmed|artifact"
)
"""Ensembl's kinds of genes, which stand in columns of the same name."""
_OTHER = re.compile(
    r"antibod|antikorp|anticorp|anticuerp|anticorpo|przeciwcial|антител|抗体|抗體|항체"
    r"|\b(ab|abs|adts?|abseq|cite|totalseq|prots?|proteins?|proteine?n?|proteina?s?|proteom\w*|surface|epitopes?)\b|белк|белок|蛋白|タンパク|단백"
    r"|hashtag|\b(htos?|hashing|hash|cmos?|multiplex\w*|lmos?|cellplex|barcodes?|tags?)\b"
    r"|crispr|\b(guides?|sgrnas?|grnas?|gdos?|perturb\w*|grna)\b"
    r"|\b(peaks?|atac|scatac|snatac|chromatin|accessib\w*|tiles?|bins?|fragments?|regions?|cut ?tag|chip|histone|methyl\w*|motifs?|chromvar)\b"
    r"|gene activit|activity|antigen|isotype|\b(vdj|tcr|bcr|clonotypes?|custom|ercc|spike ?ins?|spikes?|lipids?|metabolit\w*|glycans?|viral|virus)\b"
)
"""Words of which one is enough to tell that a feature is no gene."""


@dataclass(frozen=True)
class FeatureTypes:
    """What the columns of `var` say about its n features."""

    is_other: np.ndarray
    """(n,) bool: no genes."""
    column: str = ""
    """The column of `var` that says so, "" without one."""
    unknown: tuple[tuple[str, np.ndarray], ...] = ()
    """Kinds that are not known words, with (n,) bool where; only where two or more stand side by side."""
    left_out: tuple[tuple[str, int], ...] = ()
    """Unknown kinds beside known genes, and how many columns."""
    only: str = ""
    """The kind of all features where none is a gene, for instance "Peaks"."""


def feature_types(var: pd.DataFrame) -> FeatureTypes:
    """Tell genes from other features by a column such as `feature_types`, whatever its name, language and case.

    A column of that name is believed; another one only where each of its words is known, and it has genes and others.
    """
    found = FeatureTypes(np.zeros(len(var), dtype=bool))
    for at, column in enumerate(var.columns):
        is_named = _fold(re.sub(r"(-\d+)+$", "", str(column))).replace(" ", "") in COLUMN_NAMES
        kinds = _kinds(var.iloc[:, at])
        if kinds is None:
            continue
        one = _judge(str(column), *kinds, is_named=is_named)
        if one is None:
            continue
        is_other = found.is_other | one.is_other
        first = found if found.column else one
        found = FeatureTypes(
            is_other,
            first.column,
            found.unknown or one.unknown,
            found.left_out or one.left_out,
            found.only or one.only,
        )
    return found


def word_kind(word: str) -> str:
    """What a kind of feature is: "gene", "other" or "unknown"."""
    folded = _fold(word)
    if _GENE.fullmatch(folded) or _BIOTYPE.fullmatch(folded):
        return "gene"
    return "other" if _OTHER.search(folded) else "unknown"


def _kinds(values: pd.Series) -> tuple[np.ndarray, list[str]] | None:
    """Codes (n,), -1 where missing, and the words of a column of text; `None` for other columns."""
    if not (
        isinstance(values.dtype, pd.CategoricalDtype)
        or values.dtype.kind in "OSU"
        or values.dtype == "string"
    ):
        return None
    if len(values) > 200 and values.iloc[:200].nunique() > MOST_KINDS:  # names, not kinds
        return None
    codes, words = pd.factorize(values.astype(object))
    words = list(words)
    if not words or len(words) > MOST_KINDS or not all(isinstance(word, str) for word in words):
        return None
    empty = [at for at, word in enumerate(words) if _fold(word) in ("", "nan", "na", "none")]
    return np.where(np.isin(codes, empty), -1, codes), words


def _judge(column: str, codes: np.ndarray, words: list[str], *, is_named: bool) -> FeatureTypes | None:
    """What one column says, or `None` where it is about something else."""
    used = [at for at in range(len(words)) if (codes == at).any()]
    kind = {at: word_kind(words[at]) for at in used}
    of = {name: [at for at in used if kind[at] == name] for name in ("gene", "other", "unknown")}
    nothing = np.zeros(len(codes), dtype=bool)
    if not is_named:
        proven = of["gene"] and of["other"] and not of["unknown"]
        return FeatureTypes(np.isin(codes, of["other"]), column) if proven else None
    if of["gene"]:
        is_biotype = any(_BIOTYPE.fullmatch(_fold(words[at])) for at in of["gene"])
        unknown = [] if is_biotype else of["unknown"]
        left_out = tuple((words[at], int((codes == at).sum())) for at in unknown)
        return FeatureTypes(np.isin(codes, of["other"] + unknown), column, left_out=left_out)
    if of["unknown"] or (codes < 0).any():
        two = of["unknown"] if len(of["unknown"]) > 1 else []
        unknown = tuple((words[at], codes == at) for at in two)
        return FeatureTypes(np.isin(codes, of["other"]), column, unknown)
    if not of["other"]:
        return None
    return FeatureTypes(nothing, column, only=", ".join(words[at] for at in of["other"]))


def _fold(word: str) -> str:
    """Lower case, no accents, and single blanks for all punctuation."""
    plain = unicodedata.normalize("NFKD", re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", word))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter)).lower()
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFC", plain)).strip()
