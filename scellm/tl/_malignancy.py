"""malignancy: how much a cell looks like a cancer cell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import numpy as np
from anndata import AnnData
from scipy.special import expit

from .._checks import check_backed, check_choice, check_free, check_key
from .._keys import MALIGNANT
from ..data import ReadOptions
from ..models import CellLM, load
from ._embed import EncodeOptions
from ._vectors import cell_vectors

if TYPE_CHECKING:
    import torch

PART = "malignancy"
"""The head, in a model's `parts`."""


def malignancy(
    adata: AnnData,
    model: CellLM | str | os.PathLike[str] = "scellm-small",
    *,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    on_empty: Literal["nan", "raise"] = "nan",
    batch_size: int | Literal["auto"] = "auto",
    device: torch.device | str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    key_added: str = MALIGNANT,
    show_progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Give each cell the probability that it is a cancer cell.

    A logistic regression on the embedding :math:`x` of a cell, scaled to length 1:
    :math:`p = \sigma(w^\top x / \lVert x \rVert + b)`. The paper trains its encoder to tell normal from cancer cells
    :cite:p:`Zhao2023`; here the head alone is trained for it.

    **Weak evidence.** The head has seen few tumours, and most of its cancer cells are cell lines of one study each. Much
    of what sets such cells apart is the laboratory and the growth in culture; dividing normal cells can look like it.
    How it fares on studies it has not seen, beside logistic regression on genes, is on the page "Malignant cells" of the
    benchmarks. Look at copy numbers and at known genes before you call a cell malignant. Not for diagnosis.

    The probability is calibrated for as many cancer cells as normal ones. Where one in a hundred is malignant, most
    cells above 0.5 are not.

    Parameters
    ----------
    adata
        Cells.
    model
        Name of a model in `models.list_models()`, a model folder, a Hugging Face repository, or a loaded model; with a
        part `"malignancy"`.
    layer, use_raw, gene_key, min_overlap, on_empty, batch_size, device, precision
        Which values are read and how they are encoded, as in `tl.embed`.
    key_added
        Key of the results.
    show_progress
        Show a progress bar; `None` shows it from 2,000 cells.
    copy
        Return a copy with the results instead of changing `adata`.

    Returns
    -------
    `None`, or the copy if `copy=True`. Sets:

    `adata.obs[key_added]` : column of float32
        Probability from 0 to 1; NaN for cells that express no vocabulary gene.
    `adata.uns[key_added]` : dict
        As `tl.embed` records it; whether the embedding that `tl.embed` stored was `reused`, as it is if it is
        of this model and these very values; and what the head was trained on.

    Raises
    ------
    KeyError
        `layer` is not in `adata.layers`, or `gene_key` not in `var`.
    TypeError
        `adata` is no AnnData.
    ValueError
        The model has no such head; a key that holds something else already; and what `tl.embed` refuses.

    Examples
    --------
    >>> adata = scellm.datasets.toy_cells(24, n_vars=1950)
    >>> scellm.tl.malignancy(adata)
    >>> float(adata.obs["scellm_malignant"].max()) <= 1
    True
    """
    check_key(key_added)
    source = ReadOptions(layer=layer, use_raw=use_raw, gene_key=gene_key, min_overlap=min_overlap)
    encoding = EncodeOptions(
        on_empty=on_empty,
        batch_size=batch_size,
        device=device,
        precision=precision,
        show_progress=show_progress,
    )
    check_choice(adata, layer, use_raw)
    check_backed(adata, copy=copy)
    check_free(adata, key_added, ("obs", key_added))
    model = model if isinstance(model, CellLM) else load(model)
    weight, bias, facts = _head(model)
    cells, record = cell_vectors(adata, model, source, encoding)
    adata = adata.copy() if copy else adata
    adata.obs[key_added] = probability(cells, weight, bias)
    adata.uns[key_added] = record | {"trained_on": facts}
    return adata if copy else None


def probability(cells: np.ndarray, weight: np.ndarray, bias: float) -> np.ndarray:
    """Logistic regression on embeddings scaled to length 1, (n_obs, dim) -> (n_obs,) float32; NaN stays NaN."""
    cells = cells.astype(np.float64)
    length = np.linalg.norm(cells, axis=1, keepdims=True)
    logits = (cells / np.where(length > 0, length, 1)) @ weight.astype(np.float64) + bias
    return expit(logits).astype(np.float32)


def _head(model: CellLM) -> tuple[np.ndarray, float, str]:
    """Weights and bias of a model's head, and what it was trained on."""
    if PART not in model.parts:
        msg = (
            f"The model {model.name!r} has no part {PART!r}, which tl.malignancy needs. Use a model that "
            "has one, such as 'scellm-small': scellm.tl.malignancy(adata, 'scellm-small')."
        )
        raise ValueError(msg)
    part = model.parts[PART]
    weight, bias = part.tensors.get("weight"), part.tensors.get("bias")
    if weight is None or bias is None or weight.shape != (model.config.dim,) or bias.shape != (1,):
        found = {name: array.shape for name, array in part.tensors.items()}
        msg = (
            f"The part {PART!r} of {model.name!r} has the arrays {found}; needed are weight ({model.config.dim},) and "
            "bias (1,)."
        )
        raise ValueError(msg)
    return weight, float(bias[0]), str(part.meta.get("trained_on", ""))
