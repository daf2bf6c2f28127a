"""Targets of drugs as approved gene symbols: one table for what is asked for, ranked, listed and drawn."""

from __future__ import annotations

import re
from functools import lru_cache

FAMILIES = """
ABL: ABL1 ABL2
AKT: AKT1 AKT2 AKT3
ALK5: TGFBR1
BCL-B: BCL2L10
BCL-W: BCL2L2
BCL-XL: BCL2L1
BCR-ABL: ABL1
BET: BRD2 BRD3 BRD4 BRDT
BFL1: BCL2A1
BMP: ACVR1 BMPR1A
BRPF1B: BRPF1
BRPF2: BRD1
Bax activator: BAX
CAMK2: CAMK2A CAMK2B CAMK2D CAMK2G
CBP: CREBBP
CDK: CDK1 CDK2 CDK4 CDK6 CDK7 CDK9
CRAF: RAF1
DNA methyltransferases: DNMT1 DNMT3A DNMT3B
DNAPK: PRKDC
Dihydrofolate reductase (DHFR): DHFR
EG5: KIF11
ERBB: EGFR ERBB2 ERBB3 ERBB4
ERK: MAPK1 MAPK3
ERK1: MAPK3
ERK2: MAPK1
ERK5: MAPK7
ESR: ESR1 ESR2
Endothelin-1 receptor (EDNRA): EDNRA
Ephrins: EPHA2 EPHB4
FAK: PTK2
FAK1: PTK2
FAK2: PTK2B
FAS: FASN
FGFR: FGFR1 FGFR2 FGFR3 FGFR4
FGRF1: FGFR1
FLT2: FGFR1
FXR: NR1H4
Farnesyl-transferase (FNTA): FNTA
G9A: EHMT2
G9a and GLP methyltransferases: EHMT1 EHMT2
GADD34: PPP1R15A
GLP: EHMT1
GSK3: GSK3A GSK3B
HDAC: HDAC1 HDAC2 HDAC3 HDAC6 HDAC8
HDAC inhibitor Class I: HDAC1 HDAC2 HDAC3 HDAC8
HDAC1-10: HDAC1 HDAC2 HDAC3 HDAC4 HDAC5 HDAC6 HDAC7 HDAC8 HDAC9 HDAC10
HER2: ERBB2
HIF-PH: EGLN1 EGLN2 EGLN3
HSP90: HSP90AA1 HSP90AB1
IAP: XIAP BIRC2 BIRC3
IDH1 (R132H): IDH1
IDH2(R140Q): IDH2
IGFR1: IGF1R
IIa: HDAC4 HDAC5 HDAC7 HDAC9
IIb: HDAC6 HDAC10
IKK: CHUK IKBKB
IKK-1: CHUK
IKK-2: IKBKB
IKK1: CHUK
IKK2: IKBKB
IKKb: IKBKB
IR: INSR
IV: HDAC11
JMJ histone demethylase: KDM4A KDM6B
JNK: MAPK8 MAPK9 MAPK10
JNK1: MAPK8
JNK2: MAPK9
JNK3: MAPK10
KDM1: KDM1A
KRAS (G12C): KRAS
KS6B1 (p70S6K): RPS6KB1
KSP: KIF11
KSP11: KIF11
LSD1: KDM1A
LXR: NR1H2 NR1H3
M4K2: MAP4K2
MCL-1: MCL1
MCT1: SLC16A1
MCT4: SLC16A3
MEK: MAP2K1 MAP2K2
MEK1: MAP2K1
MEK2: MAP2K2
MEK5: MAP2K5
MNK1: MKNK1
MNK2: MKNK2
MPS1: TTK
MRCKB: CDC42BPB
MRCKB_HUMAN: CDC42BPB
MTORC1: MTOR RPTOR
MTORC2: MTOR RICTOR
MetAP2: METAP2
Mutant RAS: KRAS NRAS HRAS
N-myristoyltransferase 1/2: NMT1 NMT2
NAE: NAE1 UBA3
NIK: MAP3K14
P53 Mut specific: TP53
PARP5a: TNKS
PARP5b): TNKS2
PB1: PBRM1
PDGFR: PDGFRA PDGFRB
PDK1: PDPK1
PDK1 (PDPK1): PDPK1
PERK: EIF2AK3
PI3K: PIK3CA PIK3CB PIK3CD PIK3CG
PI3K (beta sparing): PIK3CA PIK3CD PIK3CG
PI3K (class 1): PIK3CA PIK3CB PIK3CD PIK3CG
PI3Kalpha: PIK3CA
PI3Kbeta: PIK3CB
PI3Kdelta: PIK3CD
PI3Kgamma: PIK3CG
PK3CG: PIK3CG
PKC: PRKCA PRKCB PRKCD PRKCE
PKCB: PRKCB
PKD: PRKD1 PRKD2 PRKD3
PMRT5: PRMT5
PPARdelta: PPARD
PPARgamma: PPARG
Peptidyl arginine deaminase (PAD): PADI2 PADI4
Procaspase-3: CASP3
Procaspase-7: CASP7
Proteasome: PSMB5 PSMB1 PSMB2
RAF: ARAF BRAF RAF1
RAR: RARA RARB RARG
RNA Polymerase 1: POLR1A
RNA helicase A: DHX9
ROCK: ROCK1 ROCK2
RON: MST1R
RSK: RPS6KA1 RPS6KA2 RPS6KA3 RPS6KA6
RSK1: RPS6KA1
RSK2: RPS6KA3
RSK3: RPS6KA2
Retinioic X receptor (RXR) agonist: RXRA RXRB RXRG
Retinoic acid: RARA RARB RARG
S1P: MBTPS1
S6K1: RPS6KB1
SERCA: ATP2A1 ATP2A2 ATP2A3
SETD8: KMT5A
SHP-1 (PTPN6): PTPN6
SHP-2 (PTPN11): PTPN11
SIR2: SIRT2
SIRT: SIRT1 SIRT2
Shh: SHH
Sphingosine Kinase: SPHK1 SPHK2
Stearoyl-CoA desaturase: SCD
TAK1: MAP3K7
TGFB: TGFBR1
TIE2: TEK
TNKS1: TNKS
TOP2: TOP2A TOP2B
TP53 activation: TP53
TRAIL receptor agonist: TNFRSF10A TNFRSF10B
TTK and microtubules: TTK
Tankyrase 1/2 (PARP5a: TNKS
Telomerase: TERT
UAF1: WDR48
VEGFR: FLT1 KDR FLT4
VEGFR1: FLT1
VEGFR2: KDR
VEGFR3: FLT4
VEGFR3/FLT4: FLT4
VPS34: PIK3C3
VSP34: PIK3C3
WIP1: PPM1D
c-FGR: FGR
cIAP1: BIRC2
cIAP2: BIRC3
eEF2K: EEF2K
gamma-secretase: PSEN1 PSEN2 NCSTN APH1A PSENEN
Amyloid beta20: PSEN1
Amyloid beta40: PSEN1
mTOR: MTOR
mTORC1: MTOR RPTOR
mTORC2: MTOR RICTOR
p38: MAPK14 MAPK11
p38alpha: MAPK14
p38beta: MAPK11
"""
"""What a table of drugs calls a target, and its genes; misspellings of GDSC (IGFR1, PMRT5, VSP34, FGRF1, PK3CG, KSP11) among
them. Inhibitors of gamma-secretase stand there by their effect (amyloid beta)."""
NO_GENE = """
AMPK agonist, Alkylating agent, Anthracycline, Anti-metabolite, Antimetabolite, Antimetabolite (DNA & RNA), Autophagy inducer,
Biguanide agent, Broad spectrum kinase inhibitor, CP11A, DNA alkylating agent, DNA crosslinker, DNA damage,
G-quadruplex stabiliser, Glycolysis, Induces reactive oxygen species, Inflammatory related, Metabo, Metabolism,
Microtubule destabiliser, Microtubule stabiliser, Mitochondria, PPK, Pyrimidine antimetabolite, Pyrimidine synthesis inhibitor,
RAS effector, RNA polymerase, anti-oxidant proteins, dsDNA break induction, not defined, others
"""
"""Mechanisms that are no gene, and names that cannot be told."""


def target_genes(target: str) -> list[str]:
    """Approved symbols of the genes that a drug's targets are, in order; empty for mechanisms without a gene.

    Parameters
    ----------
    target
        Targets as a table of drugs has them, separated by commas.
    """
    parts = (text.strip() for text in target.split(","))
    return list(dict.fromkeys(gene for part in parts if part for gene in genes_of(part)))


@lru_cache(maxsize=4096)
def genes_of(text: str) -> tuple[str, ...]:
    """Genes of one target."""
    families, mechanisms = _tables()
    key = _plain(text)
    if key in mechanisms:
        return ()
    if key in families:
        return families[key]
    from ..data import GeneVocabulary

    (symbol,) = GeneVocabulary.default().match([text], organism="human").symbols
    return (str(symbol),) if symbol else ()


@lru_cache(maxsize=1)
def _tables() -> tuple[dict[str, tuple[str, ...]], frozenset[str]]:
    """Genes by plain name of a target, and plain names of what is no gene."""
    rows = [line.rsplit(":", 1) for line in FAMILIES.strip().splitlines()]
    families = {_plain(name): tuple(genes.split()) for name, genes in rows if genes.strip()}
    nothing = (text for text in re.split(r",\s+", NO_GENE.strip()))
    return families, frozenset(map(_plain, nothing))


def _plain(text: str) -> str:
    """A name without case, blanks and punctuation."""
    return re.sub(r"[\W_]+", "", text).casefold()
