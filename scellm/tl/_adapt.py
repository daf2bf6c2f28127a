"""adapt: a model and your cells -> a model that also knows how these cells differ."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from .._calls import current_call
from .._checks import check_anndata, check_choice
from .._containers import takes_cells
from .._obs import read_text
from .._version import __version__
from ..data import Expression, ReadOptions
from ..models import CellLM, load
from ..models._parts import Parts
from ..train._adapt import widen

FEWEST_CELLS = 10
"""Cells from which principal components are taken at least (ours)."""


@takes_cells
def adapt(
    adata: AnnData,
    model: CellLM | str | os.PathLike[str] = "scellm-small",
    *,
    n_components: int = 25,
    weight: float = 1.5,
    batch_key: str | None = None,
    max_cells: int = 20_000,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    name: str | None = None,
    rng: int = 0,
) -> CellLM:
    """Adapt a model to your own cells, in seconds and without labels (ours).

    The embedding gets further coordinates: the principal components of what the model reads of your cells. The old
    coordinates stay as they are, so the result knows what pretraining taught *and* what sets your cells apart. Nearest
    neighbors of the cells it was adapted to are more often of one type on average, most where principal components of the cells
    tell types apart better than the model; where the model is ahead it can lose. Leiden clusters are not better on all datasets
    (see the benchmark "Adapting to your own cells"). For cells of many laboratories that are to be compared with each other, or searched in an atlas, the model as it is
    is the safer choice.

    Nothing is trained: the encoder is a bag of genes, whose gene embeddings become longer. So the result
    is a model like any other: it embeds new cells, one by one, and can be saved.

    Parameters
    ----------
    adata
        Cells, 10 or more; hundreds are better.
    model
        Name of a model in `models.list_models()`, a model folder, or a loaded model, without attention blocks. It is not changed.
    n_components
        New coordinates. Cells that span fewer get fewer. The default was best on labeled datasets that were left out of training;
        20 to 30 do as well.
    weight
        Length of the new coordinates relative to the old ones (root mean square around the mean of the cells): 0.5 trusts
        the model more, 3 your cells. Chosen as `n_components`.
    batch_key
        Column of `adata.obs` with samples, donors or technologies whose differences are not to be learned: principal
        components are those within them.
    max_cells
        Cells that are read at most, drawn at random.
    layer, use_raw, gene_key, min_overlap
        As in `tl.embed`.
    name
        Name of the result; `None` is `"adapted-"` and that of the model.
    rng
        Seed of the cells drawn and of the iteration.

    Returns
    -------
    The adapted model, for `tl.embed` and `models.save`. It carries none of the parts of the old one (reference of cell
    types, head of malignancy), as these read the old coordinates alone. `adata` is not changed.

    Raises
    ------
    KeyError
        `layer` is not in `adata.layers`, `gene_key` not in `var`, `batch_key` not in `obs`.
    TypeError
        `adata` is not an AnnData.
    ValueError
        A model with attention blocks or bins; fewer than 10 cells with genes; an impossible number; genes or
        values that `tl.embed` would refuse.

    Examples
    --------
    >>> adata = scellm.datasets.toy_cells(60, n_vars=1950)
    >>> model = scellm.tl.adapt(adata, n_components=10)
    >>> scellm.tl.embed(adata, model, key_added="X_adapted")
    >>> adata.obsm["X_adapted"].shape[1] - scellm.models.load("scellm-small").config.dim
    10
    """
    check_anndata(adata)
    check_choice(adata, layer, use_raw)
    _check_numbers(n_components, weight, max_cells)
    model = model if isinstance(model, CellLM) else load(model)
    if not model.config.is_bag or model.config.cell_depth:
        msg = (
            f"{model.name!r} has {model.config.depth or model.config.cell_depth} blocks or reads bins of expression; only a bag of genes, "
            "such as 'scellm-small', can be adapted in closed form. To train such a model further on your cells, see "
            "scellm.tl.pretrain(adata, init=...)."
        )
        raise ValueError(msg)
    groups = None if batch_key is None else read_text(adata, batch_key)
    options = ReadOptions(layer=layer, use_raw=use_raw, gene_key=gene_key, min_overlap=min_overlap)
    with Expression.open(adata, model.vocabulary, options) as cells:
        rows = np.arange(cells.n_obs)
        if cells.n_obs > max_cells:
            rows = np.sort(np.random.default_rng(rng).choice(cells.n_obs, max_cells, replace=False))
        counts = cells.counts_of(rows)
    datasets = _datasets(counts, None if groups is None else groups[rows])
    encoder = widen(
        model.encoder.to("cpu"),
        datasets,
        model.tokens.target_sum,
        n_components=n_components,
        weight=weight,
        seed=rng,
    )
    n_read = sum(part.shape[0] for part in datasets.values())
    return CellLM(
        encoder=encoder,
        config=encoder.config,
        tokens=model.tokens,
        vocabulary=model.vocabulary,
        provenance=_provenance(model, encoder.config.dim, (adata.n_obs, n_read), weight, batch_key),
        name=name or f"adapted-{model.name}",
        parts=Parts(),
    )


def _check_numbers(n_components: int, weight: float, max_cells: int) -> None:
    """That options are numbers that can be meant."""
    for option, value, least in (("n_components", n_components, 1), ("max_cells", max_cells, FEWEST_CELLS)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            msg = f"{option}={value!r} must be a whole number of at least {least}."
            raise ValueError(msg)
    if isinstance(weight, bool) or not isinstance(weight, int | float | np.number) or not 0 < weight <= 100:
        msg = f"weight={weight!r} must be a number above 0 and at most 100; 1 weighs old and new coordinates alike."
        raise ValueError(msg)


def _datasets(counts: sp.csr_array, groups: np.ndarray | None) -> dict[str, sp.csr_array]:
    """Cells with genes, by group; groups of one cell tell nothing."""
    has_genes = np.diff(counts.indptr) > 0
    names = np.zeros(len(has_genes), dtype="U1") if groups is None else groups
    found = {str(group): np.flatnonzero((names == group) & has_genes) for group in np.unique(names)}
    datasets = {group: counts[rows] for group, rows in found.items() if len(rows) > 1}
    n_cells = sum(part.shape[0] for part in datasets.values())
    if n_cells < FEWEST_CELLS:
        among = "" if groups is None else " in groups of two or more"
        msg = (
            f"{n_cells} cells{among} express genes of the model; principal components need {FEWEST_CELLS} or more. Embed "
            "so few cells with the model as it is: scellm.tl.embed(adata)."
        )
        raise ValueError(msg)
    return datasets


def _provenance(
    model: CellLM, dim: int, counted: tuple[int, int], weight: float, batch_key: str | None
) -> dict[str, Any]:
    """What `config.json` and the model card say; `counted` are cells given and read."""
    old, (n_obs, n_cells) = model.config.dim, counted
    return {
        "description": f"{model.name} with {dim - old} principal components of {n_cells} cells as further coordinates.",
        "started_from": model.name,
        "started_from_sha256": model.sha256,
        "call": current_call(),
        "n_obs": n_obs,
        "n_cells": n_cells,
        "weight": float(weight),
        "batch_key": batch_key or "",
        "versions": {"scellm": __version__},
    }
