"""malignancy: which cells of a tumor are malignant, by copy number and expression."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from anndata import AnnData
from scipy.special import expit

from .._calls import current_call
from .._checks import check_backed, check_choice, check_free, check_key
from .._containers import takes_cells
from .._keys import MALIGNANT
from ..data import ReadOptions
from ..models import CellLM, load
from ..tumors import Combination, load_genome
from ._embed import EncodeOptions
from ._malignancy_samples import (
    Cells,
    analyze,
    read_counts,
    read_normal,
    read_samples,
    write_found,
)
from ._malignancy_types import default_types, read_with_types

if TYPE_CHECKING:
    import torch

PART = "malignancy"
"""The head, in a model's `parts`."""
METHODS = ("auto", "copy_number", "expression")


@takes_cells
def malignancy(
    adata: AnnData,
    model: CellLM | str | os.PathLike[str] = "scellm-small",
    *,
    sample_key: str | None = None,
    reference: str | None = None,
    normal: str | Sequence[str] | None = None,
    method: Literal["auto", "copy_number", "expression"] = "auto",
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_key: str | None = None,
    min_overlap: float = 0.10,
    on_empty: Literal["nan", "raise"] = "nan",
    batch_size: int | Literal["auto"] = "auto",
    device: torch.device | str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    rng: int = 0,
    key_added: str = MALIGNANT,
    show_progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Call the malignant cells of a tumor, from copy number and expression.

    **Copy number.** Most tumors have gained and lost whole chromosome arms, and the genes on them are expressed more or
    less. Groups of cells of similar expression are compared with normal cells of the same sample: a group is aneuploid
    if neighboring segments of the genome shift together, beyond the scatter of their genes
    :cite:p:`Patel2014,Tickle2019`. Then each cell gets the part of its clone's shifts that its own counts show, 0 as
    normal cells and 1 as the clone. Normal cells are, in this order: those of `reference` and `normal`; cells that
    the model's own reference names immune, stromal or endothelial with a confidence above 0.5; and if these are fewer
    than 20, a panel of normal profiles that comes with the package.

    **Expression.** A logistic regression on the embedding :math:`x` of a cell, scaled to length 1:
    :math:`\sigma(w^\top x / \lVert x \rVert + b)`. The paper trains its encoder to tell normal from cancer cells
    :cite:p:`Zhao2023`; here the head alone is trained for it. It is weak evidence: normal cells in culture, of the pancreas
    or dividing can look malignant to it.

    Both are combined in one probability. A tumor without gains and losses, as many leukemias, and a sample of fewer than
    1,000 expressed genes with a place on the genome cannot be judged by copy number; `uns[key_added]["samples"]` says so for each sample.
    The guide page "Malignant cells" has the method and its limits, the page of the benchmarks what was measured. Not for
    diagnosis.

    Parameters
    ----------
    adata
        Human cells: counts or log1p values.
    model
        Name of a model in `models.list_models()`, a model folder, a Hugging Face repository, or a loaded model; with a
        part `"malignancy"`.
    sample_key
        Column of `adata.obs` with samples or donors, which are judged one by one; `None` takes all cells as one sample.
    reference, normal
        Column of `adata.obs` and its values that mark cells known to be normal. `None` finds them.
    method
        "copy_number" or "expression" takes one kind of evidence alone; "auto" both.
    layer, use_raw, gene_key, min_overlap, on_empty, batch_size, device, precision
        Which values are read and how they are encoded, as in `tl.embed`.
    rng
        Seed of the groups of cells.
    key_added
        Key of the results.
    show_progress
        Show progress bars; `None` shows them from 2,000 cells or three samples.
    copy
        Return a copy with the results instead of changing `adata`.

    Returns
    -------
    `None`, or the copy if `copy=True`. Sets:

    `adata.obs[key_added]` : column of float32
        Probability that the cell is malignant, calibrated for as many malignant cells as normal ones; NaN for cells
        that express no vocabulary gene.
    `adata.obs[f"{key_added}_call"]` : categorical
        "malignant" from a probability of 0.8 (0.98 where copy number cannot be read), "normal" up to 0.35, else "undecided".
    `adata.obs[f"{key_added}_expression"]` : column of float32
        Probability from the head alone.
    `adata.obs[f"{key_added}_copy_number"]` : column of float32
        Part of a clone's copy number that the cell shows: about 0 for normal cells, 1 for the clone; 0 for all where no
        clone was found, NaN where copy number cannot be read.
    `adata.obs[f"{key_added}_clone"]` : categorical
        Clone of each aneuploid cell, "1" the largest, with the sample before it if there are several; missing for others.
    `adata.obs[f"{key_added}_sample"]` : categorical
        Sample of each cell that is called malignant, "all" without `sample_key`; missing for others, so that
        `tl.drug_response(adata, groupby="scellm_malignant_sample")` reads the tumor of each sample alone.
    `adata.obs[f"{key_added}_label"]` : categorical
        Cell type as `tl.annotate` gave it, else as the model's own reference does; malignant cells are "malignant (lineage)",
        one lineage for a clone: the one that the model's own reference gives its cells with a mean probability of one half or
        more, else "unclear". It does not depend on what `tl.annotate` found.
    `adata.obsm[f"{key_added}_profile"]` : array of shape (n_obs, n_windows), float32
        Log ratio of expression to normal cells in windows of 101 genes along the genome; NaN where it cannot be read.
    `adata.uns[key_added]` : dict
        As `tl.embed` records it; `samples`, a table by columns with cells by call, clones, reference and the `verdict`
        in words; `arms`, a table with the log ratio and state of each chromosome arm in each clone; `chromosome` and
        `start` of the windows; and what the head was trained on.

    Raises
    ------
    KeyError
        A column is not in `adata.obs`, `layer` not in `adata.layers`, or `gene_key` not in `var`.
    TypeError
        `adata` is no AnnData.
    ValueError
        The model has no such head; values of `reference` that do not exist; cells without a sample; an unknown method;
        a key that holds something else already; and what `tl.embed` refuses.

    Examples
    --------
    >>> adata = scellm.datasets.toy_cells(24, n_vars=1950)
    >>> scellm.tl.malignancy(adata, sample_key="donor")
    >>> adata.obs["scellm_malignant_call"].cat.categories.tolist()
    ['malignant', 'normal', 'undecided']
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
    if method not in METHODS:
        msg = f"method={method!r} is unknown; choose one of {list(METHODS)}."
        raise ValueError(msg)
    check_choice(adata, layer, use_raw)
    check_backed(adata, copy=copy)
    check_free(adata, key_added, *_places(key_added))
    samples = read_samples(adata, sample_key)
    said = read_normal(adata, reference, normal)
    model = model if isinstance(model, CellLM) else load(model)
    weight, bias, weights, facts = _head(model)
    vectors, record, types = read_with_types(adata, model, vars(source) | vars(encoding))
    head = log_odds(vectors, weight, bias)
    counts, genome = (None, None) if method == "expression" else read_counts(adata, model, source)
    if genome is None:
        genome = load_genome(model.vocabulary.ensembl_ids, model.vocabulary.symbols)
    cells = Cells(
        counts=counts,
        genome=genome,
        vectors=vectors,
        head=np.where(np.isnan(head), np.nan, 0) if method == "copy_number" else head,
        lineages=types.lineages,
        is_normal=types.is_normal if said is None else said,
        samples=samples,
        is_known=said is not None,
    )
    found = analyze(
        cells, model.vocabulary.symbols, weights, default_types(adata, types.names), rng, show=show_progress
    )
    adata = adata.copy() if copy else adata
    record |= {"call": current_call(), "trained_on": facts, "method": method, "sample_key": sample_key or ""}
    write_found(adata, key_added, found, expit(head), samples, record)
    return adata if copy else None


def _places(key: str) -> list[tuple[str, str]]:
    """Slot and name of each result."""
    names = ("call", "expression", "copy_number", "clone", "sample", "label")
    return [("obs", key), *(("obs", f"{key}_{name}") for name in names), ("obsm", f"{key}_profile")]


def log_odds(cells: np.ndarray, weight: np.ndarray, bias: float) -> np.ndarray:
    """Logistic regression on embeddings scaled to length 1, (n_obs, dim) -> (n_obs,) log odds; NaN stays NaN."""
    cells = cells.astype(np.float64)
    length = np.linalg.norm(cells, axis=1, keepdims=True)
    return (cells / np.where(length > 0, length, 1)) @ weight.astype(np.float64) + bias


def _head(model: CellLM) -> tuple[np.ndarray, float, Combination, str]:
    """Weights and bias of a model's head, how it is combined with copy number, and what it was trained on."""
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
    both = part.tensors.get("combination")
    if both is not None and both.shape != (4,):
        msg = f"The part {PART!r} of {model.name!r} has a combination of shape {both.shape}; needed are 4 weights."
        raise ValueError(msg)
    weights = Combination() if both is None else Combination.from_array(both)
    return weight, float(bias[0]), weights, str(part.meta.get("trained_on", ""))
