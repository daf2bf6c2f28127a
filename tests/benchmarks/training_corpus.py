"""Pack the cells the shipped model is trained on into one file.

    python tests/benchmarks/training_corpus.py DATA OUT.h5 [--per-profile 20] [--leave-out NAME ...] [--more]

DATA has the folders `corpus`, `corpus_wide` and `profiles`, and `corpus_more` for `--more`, without the sets on which `batches.py`
measures. Each study of the profiles becomes a dataset of drawn cells.
Nothing of `benchmarks` is read, and by default the sets of `validation.py` are left out, so that recipes can be compared
on cells they have not seen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _profiles import draw_counts
from batches import SETS as SETS_OF_BATCHES
from validation import SETS

from scellm.data import pack

LABELS = ("cell_type", "malignant", "tissue")


def drawn(path: Path, n_per_profile: int, rng: np.random.Generator) -> dict[str, ad.AnnData]:
    """Cells around the profiles of one file, by study."""
    profiles = ad.read_h5ad(path)
    linear = np.expm1(profiles.X.astype(np.float64) / profiles.uns["scale"]) / 50
    datasets = {}
    for study, rows in profiles.obs.groupby("dataset", observed=True).indices.items():
        mask = profiles.uns["gene_mask"].get(study)
        measured = (
            np.ones(profiles.n_vars, bool)
            if mask is None
            else np.unpackbits(np.asarray(mask))[: profiles.n_vars].astype(bool)
        )
        counts = draw_counts(linear[rows][:, measured], n_per_profile, rng=rng)
        obs = profiles.obs.iloc[np.repeat(rows, n_per_profile)][list(LABELS)].astype(str)
        obs.index = [f"{study}-{i}" for i in range(len(obs))]
        source = ", ".join(sorted(set(profiles.obs["source"].iloc[rows].astype(str))))
        paper = ", ".join(sorted(set(profiles.obs["paper"].iloc[rows].astype(str))))
        datasets[f"drawn_{study}"] = ad.AnnData(
            counts,
            obs=obs,
            var=pd.DataFrame(index=profiles.var_names[measured]),
            uns={"paper": paper, "provenance": f"cells drawn around mean profiles; {source}"},
        )
    return datasets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--per-profile", type=int, default=20)
    parser.add_argument("--leave-out", nargs="*", default=list(SETS))
    parser.add_argument("--more", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    measured = {Path(file).stem for files, *_ in SETS_OF_BATCHES.values() for file in files}
    datasets: dict[str, object] = {
        path.stem: path
        for folder in ("corpus", "corpus_wide")
        for path in sorted((options.data / folder).glob("*.h5ad"))
    }
    if options.per_profile:
        for path in sorted((options.data / "profiles").glob("*.h5ad")):
            datasets |= drawn(path, options.per_profile, rng)
    if options.more:
        more = sorted((options.data / "corpus_more").glob("*.h5ad"))
        datasets |= {path.stem: path for path in more if path.stem not in measured}
    for name in options.leave_out:
        del datasets[name]
    pack(datasets, options.out, label_keys=list(LABELS), min_overlap=0.05, overwrite=True)


if __name__ == "__main__":
    main()
