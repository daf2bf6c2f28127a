"""Write `scellm/annotation/cell_ontology.tsv.gz`: ids, names, parents and replacements of the Cell Ontology (CC BY 4.0).

    python tests/benchmarks/cell_ontology.py

Needs cellxgene-ontology-guide (MIT).
"""

from __future__ import annotations

import gzip
from pathlib import Path

import scellm

OUT = Path(scellm.__file__).parent / "annotation" / "cell_ontology.tsv.gz"


def main() -> None:
    """One line per term."""
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

    parser = OntologyParser()
    lines = [
        "# Cell Ontology, CC BY 4.0, http://obofoundry.org/ontology/cl",
        "id\tname\tparents\treplaced_by",
    ]
    for name, term in sorted(parser.get_term_label_to_id_map("CL").items(), key=lambda item: item[1]):
        if not term.startswith("CL:"):
            continue
        obsolete = parser.is_term_deprecated(term)
        parents = ";".join(x for x in parser.get_term_parents(term) if x.startswith("CL:"))
        replaced = (parser.get_term_replacement(term) or "none") if obsolete else ""
        lines.append("\t".join([term, name.removeprefix("obsolete "), parents, replaced]))
    with gzip.GzipFile(OUT, "wb", mtime=0) as file:
        file.write("\n".join(lines).encode())
    print(OUT, OUT.stat().st_size, len(lines))


if __name__ == "__main__":
    main()
