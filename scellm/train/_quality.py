"""How good the embeddings of a batch are, without labels: alignment, uniformity, anisotropy."""

from __future__ import annotations

import numpy as np
import torch

from ..metrics import alignment, anisotropy, uniformity
from ..nn import Encoder, encode_bag
from ._batch import TrainingBatch
from ._log import Row
from ._resident import ResidentBatch

CELLS_WATCHED = 256
"""Cells of a batch whose embeddings are looked at for each line of the log."""


@torch.no_grad()
def embedding_quality(encoder: Encoder, batch: TrainingBatch | ResidentBatch, autocast: torch.dtype) -> Row:
    """Alignment, uniformity and anisotropy of the embeddings of some cells, without dropout.

    Parameters
    ----------
    encoder
        The encoder; it is in training mode again afterwards.
    batch
        Two views of cells; of less than two cells nothing is said.
    autocast
        Type of the encoder's matrix products.
    """
    n = len(batch) // 2
    some = np.linspace(0, n - 1, min(n, CELLS_WATCHED)).astype(np.int64)  # of all datasets
    if len(some) < 2:
        return {}
    encoder.eval()
    views = []
    for offset in (0, n):
        arguments = batch[some + offset]
        arguments.pop("is_cancer")
        arguments.pop("is_masked", None)
        with torch.autocast(batch.device.type, autocast, enabled=autocast != torch.float32):
            cells = (
                encode_bag(encoder, **arguments)
                if batch.is_packed
                else encoder(**arguments, wanted="none").cells
            )
        views.append(cells.float().cpu().numpy())
    encoder.train()
    return {
        "alignment": alignment(*views),
        "uniformity": uniformity(views[0]),
        "anisotropy": anisotropy(views[0]),
    }
