"""How much each expressed gene of a cell moves its embedding towards a direction: integrated gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data import Tokens
from ..models import CellLM
from ..nn import encode_bag

POSITIONS_AT_ONCE = 65_536
"""Gene positions, over all steps, that are differentiated at once by an encoder with attention."""
BAG_POSITIONS_AT_ONCE = 524_288
"""The same for a bag of genes, which keeps nothing per position."""


def integrated_gradients(
    model: CellLM, tokens: Tokens, directions: np.ndarray, n_steps: int, device: torch.device, progress: tqdm
) -> tuple[np.ndarray, np.ndarray]:
    r"""Integrated gradients :cite:p:`Sundararajan2017` of each cell's cosine with its direction, by captum.

    For value :math:`v_g` of gene g, with the other values on the straight line from 0 to what they are:
    :math:`v_g \int_0^1 \partial f(\alpha v) / \partial v_g \, d\alpha`. Their sum over genes is f(v) - f(0).

    Parameters
    ----------
    model
        The model; its encoder must be on `device` and in eval mode.
    tokens
        n cells with at least one gene.
    directions
        (n, D) the direction of each cell.
    n_steps
        Points of the Gauss-Legendre rule.
    device
        Where to compute.
    progress
        Advanced by the cells of each batch.

    Returns
    -------
    (n_tokens,) attribution of each token, and (n,) what f(v) - f(0) exceeds their sum by.
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError as error:
        msg = "tl.gene_importance needs captum: pip install 'scellm[explain]'."
        raise ImportError(msg) from error

    method = IntegratedGradients(_projection(model))
    found = np.zeros(len(tokens.values), dtype=np.float32)
    errors = np.zeros(len(tokens), dtype=np.float32)
    at_once = BAG_POSITIONS_AT_ONCE if model.config.is_bag else POSITIONS_AT_ONCE
    trained = [parameter for parameter in model.encoder.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:  # only the values are differentiated
            parameter.requires_grad_(False)
        for rows in tokens.batches(max(1, at_once // n_steps)):
            gene_ids, values, is_gene = tokens.padded(rows)
            inputs = [torch.from_numpy(x).to(device) for x in (values, gene_ids, is_gene, directions[rows])]
            attributions, error = method.attribute(
                inputs[0],
                baselines=0.0,
                additional_forward_args=tuple(inputs[1:]),
                n_steps=n_steps,
                internal_batch_size=max(len(rows), at_once // values.shape[1]),
                return_convergence_delta=True,
            )
            errors[rows] = error.cpu().numpy()
            place = tokens.indptr[rows][:, None] + np.arange(values.shape[1])
            found[place[is_gene]] = attributions.detach().float().cpu().numpy()[is_gene]
            progress.update(len(rows))
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return found, errors


def _projection(model: CellLM) -> Callable[..., Tensor]:
    """The function that is differentiated: values (B, G) -> cosine of the embedding with a direction, (B,)."""

    def project(values: Tensor, gene_ids: Tensor, is_gene: Tensor, directions: Tensor) -> Tensor:
        if model.config.is_bag:
            indptr = torch.nn.functional.pad(is_gene.sum(1).cumsum(0), (1, 0))
            cells = encode_bag(model.encoder, gene_ids[is_gene], values[is_gene], indptr)
        else:
            cells = model.encoder(gene_ids, values, is_gene, wanted="none").cells
        return (torch.nn.functional.normalize(cells, dim=1) * directions).sum(1)

    return project
