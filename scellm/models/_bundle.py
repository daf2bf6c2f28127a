"""A model folder: weights, configuration, genes, card and parts, saved and loaded together.

`config.json` holds `format`, `name`, `encoder` (`CellLMConfig`), `tokens` (`TokenConfig`), `provenance`,
`n_parameters` and `scellm_version`.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .._cluster import Weights
from .._version import __version__
from ..data import GeneVocabulary, TokenConfig
from ..nn import CellLMConfig, Encoder
from . import _fork  # noqa: F401 - what it does when imported
from ._card import model_card, use_of
from ._folder import replace_folder
from ._limits import check_finite_arrays, read_genes
from ._manifest import ALL_FILES, CARD, CONFIG, FORMAT, GENES, WEIGHTS, read_config, verify, write_manifest
from ._parts import Parts, save_parts, stored_parts


@dataclass(eq=False, repr=False, kw_only=True)
class CellLM:
    """An encoder together with everything needed to use it on cells.

    Parameters
    ----------
    encoder
        The network.
    config
        Its architecture.
    tokens
        How cells are turned into its input.
    vocabulary
        Its genes, in the order of its gene ids; `config.n_genes` of them.
    provenance
        What it was trained on and how, for humans; anything JSON can hold.
    name
        Short name, or the Hugging Face repository it was downloaded from.
    revision
        Commit of that repository; `None` for models from anywhere else.
    sha256
        SHA-256 of the weights file; "" for a model that was not loaded from one.
    source
        What `load` was given, from which the workers of a cluster load it too; "" for a model that was not loaded.
    card
        The model card, Markdown.
    history
        Log of the training (`pandas.DataFrame`), of a model that has just been trained; not saved with it.
    parts
        What it carries beside the encoder, by name: `"reference"` for `tl.annotate`, `"cell_type"`, the head of
        a fine-tuned model, `"malignancy"`, `"drug_response"`. Read from the model's folder on first use.

    Raises
    ------
    ValueError
        Vocabulary and configuration differ in their number of genes.
    """

    encoder: Encoder
    config: CellLMConfig
    tokens: TokenConfig
    vocabulary: GeneVocabulary
    provenance: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    revision: str | None = None
    sha256: str = ""
    source: str = ""
    card: str = ""
    history: Any = None
    parts: Parts = field(default_factory=Parts)

    def __post_init__(self) -> None:
        self.parts = Parts(self.parts)
        if len(self.vocabulary) != self.config.n_genes:
            msg = (
                f"The vocabulary has {len(self.vocabulary)} genes, the encoder's configuration "
                f"{self.config.n_genes}; both must be the same."
            )
            raise ValueError(msg)

    @property
    def n_parameters(self) -> int:
        """Number of weights; the fixed random projections of FAVOR+ do not count."""
        return sum(parameter.numel() for parameter in self.encoder.parameters())

    def for_workers(self) -> Weights:
        """What the workers of a cluster load the model from."""
        from ._hub import load

        options = (("revision", self.revision),) if self.revision else ()
        return Weights(load, self.source, self.sha256, self.name, options)

    def __repr__(self) -> str:
        origin = [f"revision {self.revision[:8]}"] if self.revision else []
        origin += [f"sha256 {self.sha256[:8]}"] if self.sha256 else ["not saved"]
        facts = [
            f"{self.n_parameters:,} parameters",
            f"{len(self.vocabulary):,} genes",
            f"dim {self.config.dim}",
            f"context {self.tokens.max_genes:,}",
            *([f"with {', '.join(self.parts)}"] if self.parts else []),
            *origin,
        ]
        return f"CellLM {self.name!r}: {', '.join(facts)}"


def save(
    model: CellLM, path: str | os.PathLike[str], *, overwrite: bool = False, dtype: torch.dtype | None = None
) -> Path:
    """Save a model as one folder that `load` reads and that can be uploaded as it is.

    The folder is written under a temporary name beside `path` and moved into place when it is complete, so
    an interruption leaves either the old folder or none.

    Parameters
    ----------
    model
        The model. A `name` of "" is saved as the name of the folder, an empty `card` as one made from the
        provenance.
    path
        The folder to make.
    overwrite
        Replace a model that is there already. A folder that holds anything else is never replaced.
    dtype
        `torch.float16` or `torch.bfloat16` stores the weights in half the size; `load` makes them float32
        again. Random projections are state and keep their type. `None` stores all as they are.

    Returns
    -------
    `path`. The folder holds:

    `model.safetensors`
        Weights and random projections.
    `config.json`, `genes.tsv`, `README.md`
        Configuration and provenance, the vocabulary, the model card.
    `reference.safetensors`, `reference.json`, ...
        Two files for each of its `parts`.
    `manifest.json`
        Size and SHA-256 of all others.

    Raises
    ------
    FileExistsError
        `path` exists and `overwrite` is not set, or it is not a model folder.
    TypeError
        The provenance, or the facts of a part, hold something JSON cannot.
    ValueError
        `dtype` is none of the above, a weight or an array of a part is not finite, or becomes infinite in
        `dtype`.

    Examples
    --------
    >>> folder = scellm.models.save(model, "my-cells", dtype=torch.float16)  # doctest: +SKIP
    """
    target = Path(path)
    name = model.name or target.resolve().name
    config = {
        "format": FORMAT,
        "name": name,
        "encoder": model.config.to_dict(),
        "tokens": model.tokens.to_dict(),
        "provenance": model.provenance,
        "n_parameters": model.n_parameters,
        "scellm_version": __version__,
    }
    try:
        config_text = json.dumps(config, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"The provenance of {name!r} cannot be written as JSON ({error}); use text, numbers, lists and dicts."
        raise TypeError(msg) from error
    weights = _stored_weights(model.encoder, dtype)
    parts = dict(model.parts)  # read now: they may lie in the folder that is replaced
    with replace_folder(target, overwrite=overwrite, contents=ALL_FILES) as folder:
        save_file(weights, folder / WEIGHTS)
        (folder / CONFIG).write_text(config_text + "\n", encoding="utf-8")
        model.vocabulary.to_tsv(folder / GENES)
        (folder / CARD).write_text(model.card or _default_card(model, name), encoding="utf-8")
        shutil.copymode(folder / CONFIG, folder / WEIGHTS)  # safetensors lets the owner alone read its file
        save_parts(parts, folder)
        write_manifest(folder)
    return target


def read_bundle(folder: Path, *, remedy: str, name: str | None = None, revision: str | None = None) -> CellLM:
    """Load a model folder after checking all of its files.

    Parameters
    ----------
    folder
        The folder.
    remedy
        What to do about a damaged one; ends the errors.
    name, revision
        Repository and commit, for models from the Hub.
    """
    hashes = verify(folder, remedy=remedy)
    saved = read_config(folder, remedy=remedy)
    if saved["encoder"].get("kind") == "drug_response":
        msg = f"`{folder}` holds a drug model: pass it to scellm.tl.drug_response, or load it with scellm.drugs.load_drug_model."
        raise ValueError(msg)
    try:
        config = CellLMConfig.from_dict(saved["encoder"])
        tokens = TokenConfig.from_dict(saved["tokens"])
    except (TypeError, ValueError) as error:
        msg = f"`{folder / CONFIG}`: {error} It was written by scellm {saved['scellm_version']}, this is {__version__}."
        raise ValueError(msg) from error
    vocabulary = read_genes(folder / GENES, remedy)
    if len(vocabulary) != config.n_genes:
        msg = f"`{folder}` has {len(vocabulary)} genes in {GENES} and n_genes={config.n_genes} in {CONFIG}. {remedy}"
        raise ValueError(msg)
    return CellLM(
        encoder=_read_encoder(config, folder / WEIGHTS, remedy=remedy),
        config=config,
        tokens=tokens,
        vocabulary=vocabulary,
        provenance=saved["provenance"],
        name=name or saved["name"],
        revision=revision,
        sha256=hashes[WEIGHTS],
        card=(folder / CARD).read_text(encoding="utf-8"),
        parts=stored_parts(folder, hashes, remedy=remedy),
    )


def _stored_weights(encoder: Encoder, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """State of an encoder on the CPU, parameters in `dtype`; refuses what is or becomes infinite."""
    if dtype not in (None, torch.float16, torch.bfloat16):
        msg = f"dtype is {dtype!r}; choose torch.float16, torch.bfloat16 or None (as they are)."
        raise ValueError(msg)
    parameters = {name for name, _ in encoder.named_parameters()}
    state = {}
    for name, tensor in encoder.state_dict().items():
        stored = tensor.detach().to("cpu", dtype if name in parameters else None, copy=True).contiguous()
        if not stored.isfinite().all():
            reason = f"is too large for {dtype}" if tensor.isfinite().all() else "is not finite"
            msg = f"The weight {name!r} {reason}; such a model is not saved."
            raise ValueError(msg)
        state[name] = stored
    return state


def _read_encoder(config: CellLMConfig, path: Path, *, remedy: str) -> Encoder:
    """Build the encoder without drawing random weights and give it the stored ones, as float32, in eval mode."""
    with torch.device("meta"):
        encoder = Encoder(config)
    needed = encoder.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_slice(name) for name in file.keys()}
            _check_tensors(
                {name: tuple(part.get_shape()) for name, part in found.items()}, needed, path, remedy
            )
            weights = {name: file.get_tensor(name) for name in needed}
    except SafetensorError as error:
        msg = f"`{path}` is not a safetensors file ({error}). {remedy}"
        raise ValueError(msg) from error
    check_finite_arrays(weights, path, remedy)
    # copies: what safetensors returns may still be the file, which somebody can overwrite
    own = {name: weights[name].to(needed[name].dtype, copy=True) for name in needed}
    encoder.load_state_dict(own, assign=True)
    return encoder.eval()


def _check_tensors(
    found: dict[str, tuple[int, ...]], needed: dict[str, Tensor], path: Path, remedy: str
) -> None:
    """All needed tensors, no others, in the right shapes; or an error that lists every difference."""
    missing = [f"{name} {tuple(needed[name].shape)}" for name in needed if name not in found]
    unexpected = [f"{name} {shape}" for name, shape in found.items() if name not in needed]
    misshaped = [
        f"{name} {found[name]}, needed {tuple(tensor.shape)}"
        for name, tensor in needed.items()
        if name in found and found[name] != tuple(tensor.shape)
    ]
    lists = {"missing": missing, "unexpected": unexpected, "mis-shaped": misshaped}
    if any(lists.values()):
        text = "; ".join(f"{len(names)} {what}: {', '.join(names)}" for what, names in lists.items() if names)
        msg = f"The tensors in `{path}` do not fit the encoder of {CONFIG}. {text}. {remedy}"
        raise ValueError(msg)


def _default_card(model: CellLM, name: str) -> str:
    """A card with the architecture and the provenance."""
    facts = {
        "parameters": f"{model.n_parameters:,}",
        "genes": f"{len(model.vocabulary):,}",
        "longest cell": f"{model.tokens.max_genes:,} expressed genes",
        **model.config.to_dict(),
    }
    return model_card(name, facts, model.provenance, use_of(model.parts, model.provenance))
