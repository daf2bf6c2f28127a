"""Which cells are malignant: copy number along the genome, clones, and both kinds of evidence in one. Arrays in, arrays out."""

from ._aneuploidy import Coherence, coherence
from ._arms import arm_table
from ._evidence import CALLS, Combination, call, combine
from ._genome import Genome, Segments, load_genome, make_segments
from ._infer import FEWEST_GENES, FEWEST_NORMAL, CopyNumber, infer_copy_number
from ._lineage import LINEAGE, LINEAGES, lineage_probabilities, malignant_names, normal_types
from ._panel import Panel, load_panel
from ._profile import profile_windows, window_profile
from ._verdict import verdict

__all__ = [
    "CALLS",
    "FEWEST_GENES",
    "FEWEST_NORMAL",
    "LINEAGE",
    "LINEAGES",
    "Coherence",
    "Combination",
    "CopyNumber",
    "Genome",
    "Panel",
    "Segments",
    "arm_table",
    "call",
    "coherence",
    "combine",
    "infer_copy_number",
    "lineage_probabilities",
    "load_genome",
    "load_panel",
    "make_segments",
    "malignant_names",
    "normal_types",
    "profile_windows",
    "verdict",
    "window_profile",
]
