"""Names and quirks of the published CellLM weights -> ours."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import GeneVocabulary, TokenConfig
from ..nn import CellLMConfig, Encoder
from ._bundle import CellLM, save
from ._manifest import sha256_of

_OUTER = {
    "pos_emb.emb.weight": "gene_embedding.weight",
    "token_emb.weight": "expression.embedding.weight",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
    "to_out.weight": "masked_gene.weight",
    "to_out.bias": "masked_gene.bias",
}
_IN_LAYER = {
    "0.norm.weight": "norm.weight",
    "0.norm.bias": "norm.bias",
    "0.fn.to_q.weight": "attention.to_q.weight",
    "0.fn.to_k.weight": "attention.to_k.weight",
    "0.fn.to_v.weight": "attention.to_v.weight",
    "0.fn.to_out.weight": "attention.to_out.weight",
    "0.fn.to_out.bias": "attention.to_out.bias",
    "0.fn.fast_attention.projection_matrix": "attention.projection",
    "1.norm.weight": "feed_forward.norm.weight",
    "1.norm.bias": "feed_forward.norm.bias",
    "1.fn.fn.w1.weight": "feed_forward.expand.weight",
    "1.fn.fn.w1.bias": "feed_forward.expand.bias",
    "1.fn.fn.w2.weight": "feed_forward.contract.weight",
    "1.fn.fn.w2.bias": "feed_forward.contract.bias",
}
_IGNORED = {"performer.calls_since_last_redraw"}
_LAYER = re.compile(r"performer\.net\.layers\.(\d+)\.(.+)")


def convert_openbiomed(
    checkpoint: str | os.PathLike[str],
    gene_list: Sequence[str] | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    context: int = 6000,
    overwrite: bool = False,
) -> CellLM:
    """Convert a checkpoint of the published CellLM code (OpenBioMed) into a model folder.

    The converted encoder gives the encodings of the published code run on one cell per batch, including its
    quirks: log1p values clipped and cut to whole numbers (a value below 1 is bin 0), padding to `context`
    that takes part in the attention's normalizer, and cells with more than `context - 1` expressed genes cut
    in the order of `gene_list`.

    Parameters
    ----------
    checkpoint
        File with `{"model_state_dict": {...}}`, read with `weights_only=True`: no code in it is run.
    gene_list
        Gene symbols in the order of the checkpoint's gene embedding, or a text file with one per line.
    out
        Model folder to write, see `models.save`.
    context
        Positions the published code pads to, CLS included (6,000 in its configuration).
    overwrite
        Replace a model folder that is there.

    Returns
    -------
    The model. Written to `out`:

    `model.safetensors`, `config.json`, `genes.tsv`, `README.md`, `manifest.json`
        As by `models.save`.

    Raises
    ------
    FileNotFoundError
        No checkpoint or gene list.
    ValueError
        The file is no such checkpoint, has missing or unexpected tensors, or the gene list has another length.
    """
    symbols = _read_gene_list(gene_list)
    state = _read_checkpoint(Path(checkpoint))
    config = _config_of(state, context)
    if len(symbols) != config.n_genes:
        msg = f"The gene list has {len(symbols)} genes, the checkpoint {config.n_genes}; pass the list it was trained with."
        raise ValueError(msg)
    encoder = Encoder(config)
    weights = _rename(state)
    weights["expression.mask_embedding"] = weights["expression.embedding.weight"][
        -1
    ]  # published: mask is PAD
    _check_names(weights, encoder.state_dict())
    encoder.load_state_dict(weights)
    model = CellLM(
        encoder=encoder.eval(),
        config=config,
        tokens=TokenConfig(max_genes=context - 1, truncation="first"),
        vocabulary=_vocabulary_of(symbols),
        provenance={
            "description": "Converted from a checkpoint of the published CellLM code (OpenBioMed).",
            "checkpoint": Path(checkpoint).name,
            "checkpoint_sha256": sha256_of(Path(checkpoint)),
            "reference": "Zhao, Zhang, Nie 2023, arXiv:2306.04371",
        },
        name=Path(out).name,
    )
    save(model, out, overwrite=overwrite)
    return model


def _read_gene_list(gene_list: Sequence[str] | str | os.PathLike[str]) -> list[str]:
    if isinstance(gene_list, str | os.PathLike):
        lines = Path(gene_list).read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip()]
    return [str(symbol) for symbol in gene_list]


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dictionary, without the `module.` that distributed training puts before its names."""
    from pickle import UnpicklingError

    if not path.exists():
        msg = f"There is no checkpoint {path}."
        raise FileNotFoundError(msg)
    try:
        saved: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError) as error:
        msg = f"{path} cannot be read as a checkpoint of tensors: {error}"
        raise ValueError(msg) from error
    if not isinstance(saved, dict) or "model_state_dict" not in saved:
        found = sorted(map(str, saved))[:5] if isinstance(saved, dict) else type(saved).__name__
        msg = (
            f"{path} should hold {{'model_state_dict': ...}}, as the published code saves it; found {found}."
        )
        raise ValueError(msg)
    return {name.removeprefix("module."): tensor for name, tensor in saved["model_state_dict"].items()}


def _config_of(state: dict[str, Tensor], context: int) -> CellLMConfig:
    """Architecture from the shapes of the tensors."""
    first = "performer.net.layers.0."
    projection = first + "0.fn.fast_attention.projection_matrix"
    needed = ["pos_emb.emb.weight", "token_emb.weight", projection, first + "0.fn.to_q.weight"]
    if missing := [name for name in needed if name not in state]:
        msg = f"This is no CellLM checkpoint: {missing} are missing."
        raise ValueError(msg)
    n_features, dim_head = state[projection].shape
    n_tokens, dim = state["token_emb.weight"].shape
    layers = [int(found[1]) for name in state if (found := _LAYER.fullmatch(name))]
    return CellLMConfig(
        n_genes=state["pos_emb.emb.weight"].shape[0] - 2,
        dim=dim,
        depth=max(layers) + 1,
        heads=state[first + "0.fn.to_q.weight"].shape[0] // dim_head,
        dim_head=dim_head,
        ff_mult=state[first + "1.fn.fn.w1.weight"].shape[0] // dim,
        n_features=n_features,
        n_expression_tokens=n_tokens,
        padded_context=context,
    )


def _rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names, float32; a name without a counterpart is kept and reported by `_check_names`."""
    renamed = {}
    for name, tensor in state.items():
        if name in _IGNORED:
            continue
        layer = _LAYER.fullmatch(name)
        if layer is not None and layer[2] in _IN_LAYER:
            ours = f"blocks.{layer[1]}.{_IN_LAYER[layer[2]]}"
        else:
            ours = _OUTER.get(name, name)
        renamed[ours] = tensor.float()  # the published gene table is float64
    return renamed


def _check_names(weights: dict[str, Tensor], needed: dict[str, Tensor]) -> None:
    missing, unexpected = sorted(set(needed) - set(weights)), sorted(set(weights) - set(needed))
    misshaped = [
        f"{name}: {tuple(weights[name].shape)}, need {tuple(needed[name].shape)}"
        for name in needed
        if name in weights and weights[name].shape != needed[name].shape
    ]
    if missing or unexpected or misshaped:
        msg = f"The checkpoint does not fit: missing {missing}; unexpected {unexpected}; mis-shaped {misshaped}."
        raise ValueError(msg)


def _vocabulary_of(symbols: list[str]) -> GeneVocabulary:
    """The given genes in the given order, with Ensembl ids where the packaged vocabulary has the symbol."""
    known = GeneVocabulary.default()
    ids = known.match(symbols).ids
    taken: set[str] = set()
    ensembl_ids = []
    for gene_id in ids:
        ensembl_id = str(known.ensembl_ids[gene_id]) if gene_id >= 0 else ""
        ensembl_ids.append("" if ensembl_id in taken else ensembl_id)
        taken.add(ensembl_id)
    return GeneVocabulary(
        ensembl_ids=ensembl_ids, symbols=symbols, source="gene list of a published checkpoint"
    )
