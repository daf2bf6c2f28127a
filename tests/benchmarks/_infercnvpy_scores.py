"""Scores of infercnvpy with its defaults, in an environment of its own: python _infercnvpy_scores.py IN.h5ad OUT.npz."""

import resource
import sys
import time
import warnings

import anndata as ad
import numpy as np

warnings.simplefilter("ignore")
import infercnvpy as cnv  # noqa: E402

cells = ad.read_h5ad(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
known = (
    {"reference_key": "reference", "reference_cat": ["normal"]}
    if (cells.obs["reference"] == "normal").any()
    else {}
)
cnv.tl.infercnv(cells, n_jobs=1, **known)
seconds = time.perf_counter() - start
by_cell = np.asarray(abs(cells.obsm["X_cnv"]).mean(axis=1)).ravel()
cnv.tl.pca(cells)
cnv.pp.neighbors(cells)
cnv.tl.leiden(cells)
cnv.tl.cnv_score(cells)
seconds_all = time.perf_counter() - start
peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
np.savez(
    sys.argv[2],
    by_cell=by_cell,
    by_cluster=cells.obs["cnv_score"].to_numpy(float),
    seconds=seconds,
    seconds_all=seconds_all,
    peak_gb=peak,
)
