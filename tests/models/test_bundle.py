"""Saved and loaded again it is the same model; whatever is wrong with a folder is named."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scellm.models import CellLM, _bundle, load, save
from scellm.models._manifest import CONTENTS, FORMAT, MANIFEST, sha256_of, write_manifest
from scellm.nn import CellLMConfig, Encoder

WEIGHTS = "model.safetensors"


def edit_weights(folder, change):
    """Change the tensors and sign the result."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    write_manifest(folder)


def test_loaded_model_gives_the_same_bits(model, tmp_path, embedding):
    loaded = load(save(model, tmp_path / "m"))
    assert np.array_equal(embedding(loaded), embedding(model))
    assert not loaded.encoder.training
    assert (loaded.config, loaded.tokens, loaded.vocabulary) == (model.config, model.tokens, model.vocabulary)
    assert (loaded.name, loaded.provenance, loaded.revision) == ("tiny", model.provenance, None)
    assert loaded.n_parameters == model.n_parameters


def test_control_other_weights_give_other_bits(model, tmp_path, embedding):
    before = embedding(model)
    folder = save(model, tmp_path / "m")
    edit_weights(folder, lambda tensors: tensors["gene_embedding.weight"].mul_(1.01))
    assert not np.array_equal(embedding(load(folder)), before)


@pytest.mark.parametrize(
    "options", [{"attention": "favor"}, {"expression": "bins", "cell_embedding": "cls"}], ids=str
)
def test_every_architecture_is_kept(tmp_path, make_model, embedding, options):
    model = make_model(**options)
    assert np.array_equal(embedding(load(save(model, tmp_path / "m"))), embedding(model))


def test_hash_is_that_of_the_weights_file(bundle):
    assert load(bundle).sha256 == sha256_of(bundle / WEIGHTS)


def test_folder_holds_the_five_files_and_nothing_else(bundle):
    assert {path.name for path in bundle.iterdir()} == {*CONTENTS, MANIFEST}
    assert list(bundle.parent.iterdir()) == [bundle]
    assert json.loads((bundle / "config.json").read_text())["n_parameters"] == load(bundle).n_parameters


def test_loaded_weights_are_not_the_file(bundle, embedding):
    loaded = load(bundle)
    before = embedding(loaded)
    with (bundle / WEIGHTS).open("r+b") as file:
        file.seek(-1000, 2)
        file.write(bytes(1000))
    assert np.array_equal(embedding(loaded), before)


def test_all_files_have_the_usual_permissions(bundle):
    (bundle.parent / "usual").touch()
    modes = {path.stat().st_mode for path in bundle.iterdir()}
    assert modes == {(bundle.parent / "usual").stat().st_mode}


def test_loading_leaves_random_numbers_alone(bundle):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    load(bundle)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_half_the_size_and_loads_as_float32(tmp_path, make_model, embedding, dtype):
    model = make_model(attention="favor")
    half, full = save(model, tmp_path / "half", dtype=dtype), save(model, tmp_path / "full")
    stored = load_file(half / WEIGHTS)
    assert stored["gene_embedding.weight"].dtype == dtype
    projection = "blocks.0.attention.projection"
    assert torch.equal(stored[projection], model.encoder.state_dict()[projection])  # state, not a weight
    assert (half / WEIGHTS).stat().st_size < 0.75 * (full / WEIGHTS).stat().st_size
    loaded = load(half)
    assert {parameter.dtype for parameter in loaded.encoder.parameters()} == {torch.float32}
    assert np.abs(embedding(loaded) - embedding(model)).max() < 0.1
    assert {parameter.dtype for parameter in model.encoder.parameters()} == {torch.float32}


def test_unknown_dtype(model, tmp_path):
    with pytest.raises(
        ValueError, match=r"dtype is torch.int8; choose torch.float16, torch.bfloat16 or None"
    ):
        save(model, tmp_path / "m", dtype=torch.int8)


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (1e6, torch.float16, "is too large for torch.float16"),
        (np.nan, None, "is not finite"),
        (np.inf, torch.float16, "is not finite"),
    ],
    ids=["overflow", "nan", "infinite"],
)
def test_weights_that_are_not_finite_are_not_saved(model, tmp_path, value, dtype, text):
    with torch.no_grad():
        model.encoder.norm.weight[3] = value
    with pytest.raises(ValueError, match=rf"weight 'norm.weight' {text}"):
        save(model, tmp_path / "m", dtype=dtype)
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_repr_says_what_it_is(bundle):
    loaded = load(bundle)
    assert repr(loaded) == (
        f"CellLM 'tiny': {loaded.n_parameters:,} parameters, 12 genes, dim 16, context 8, sha256 {loaded.sha256[:8]}"
    )


def test_unsaved_model_says_so(model):
    assert repr(model).endswith("not saved")
    assert model.sha256 == ""


def test_vocabulary_must_fit_the_configuration(model):
    config = CellLMConfig.named("tiny", n_genes=13)
    with pytest.raises(ValueError, match=r"vocabulary has 12 genes, the encoder's configuration 13"):
        CellLM(encoder=Encoder(config), config=config, tokens=model.tokens, vocabulary=model.vocabulary)


def test_card_is_made_from_the_provenance_or_kept(model, tmp_path):
    card = load(save(model, tmp_path / "a")).card
    assert card.startswith("---\nlibrary_name: scellm\n")
    assert "# tiny\n\nRandom weights for tests.\n" in card
    assert '## Data\n\n- cells: 0\n- sets: ["none"]\n' in card
    model.card = "# My own\n\nÜber words.\n"
    assert load(save(model, tmp_path / "b")).card == model.card


def test_nameless_model_takes_the_name_of_the_folder(model, tmp_path):
    model.name = ""
    assert load(save(model, tmp_path / "monocytes")).name == "monocytes"


def test_provenance_must_be_json(model, tmp_path):
    model.provenance = {"cells": np.arange(3)}
    with pytest.raises(TypeError, match=r"provenance of 'tiny' cannot be written as JSON .*ndarray"):
        save(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


# -- replacing a folder -----------------------------------------------------------------------------------------


def test_existing_model_is_replaced_only_if_asked(bundle, model):
    model.name = "second"
    with pytest.raises(FileExistsError, match=r"holds a model already. Pass `overwrite=True`"):
        save(model, bundle)
    assert load(bundle).name == "tiny"
    save(model, bundle, overwrite=True)
    assert load(bundle).name == "second"
    assert list(bundle.parent.iterdir()) == [bundle]


def test_folder_with_other_things_is_never_replaced(bundle, model):
    (bundle / "thesis.docx").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"holds other things than a model \(thesis.docx\)"):
        save(model, bundle, overwrite=True)
    assert (bundle / "thesis.docx").read_text() == "years of work"


def test_file_is_never_replaced(model, tmp_path):
    (tmp_path / "m").write_text("notes")
    with pytest.raises(FileExistsError, match="is a file; a model is saved as a folder"):
        save(model, tmp_path / "m", overwrite=True)


def test_empty_folder_is_filled(model, tmp_path):
    (tmp_path / "m").mkdir()
    assert load(save(model, tmp_path / "m")).name == "tiny"


def test_link_is_followed(bundle, model):
    link = bundle.with_name("current")
    link.symlink_to(bundle, target_is_directory=True)
    model.name = "second"
    save(model, link, overwrite=True)
    assert link.is_symlink()
    assert load(bundle).name == "second"


@pytest.mark.parametrize("step", ["save_file", "write_manifest"])
@pytest.mark.parametrize("exists", [True, False], ids=["over-old", "new"])
def test_interrupted_save_leaves_the_old_model_or_none(bundle, model, monkeypatch, step, exists):
    def interrupt(*_):
        raise KeyboardInterrupt

    if not exists:
        shutil.rmtree(bundle)
    monkeypatch.setattr(_bundle, step, interrupt)
    model.name = "second"
    with pytest.raises(KeyboardInterrupt):
        save(model, bundle, overwrite=True)
    assert list(bundle.parent.iterdir()) == ([bundle] if exists else [])
    assert not exists or load(bundle).name == "tiny"


def test_failed_move_puts_the_old_model_back(bundle, model, monkeypatch):
    replace = type(bundle).replace

    def fail_on_the_new(self, target):
        if self.parent.suffix == ".scellm" and self.name == "tiny":
            raise OSError("disk gone")
        return replace(self, target)

    monkeypatch.setattr(type(bundle), "replace", fail_on_the_new)
    with pytest.raises(OSError, match="disk gone"):
        save(model, bundle, overwrite=True)
    assert load(bundle).name == "tiny"
    assert list(bundle.parent.iterdir()) == [bundle]


# -- damaged folders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CONTENTS, MANIFEST])
def test_missing_file(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"not a whole model: '{name}' missing; it holds .*Copy the folder again"
    ):
        load(bundle)


@pytest.mark.parametrize("name", CONTENTS)
def test_truncated_file(bundle, name):
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[: len(content) // 2])
    text = rf"{name}` is truncated: {len(content) // 2} of {len(content)} bytes. Copy the folder again"
    with pytest.raises(ValueError, match=text):
        load(bundle)


@pytest.mark.parametrize("name", CONTENTS)
def test_altered_file(bundle, name):
    expected, content = sha256_of(bundle / name), bytearray((bundle / name).read_bytes())
    content[-1] ^= 1
    (bundle / name).write_bytes(content)
    found = sha256_of(bundle / name)
    text = rf"{name}` is not the file the manifest describes: SHA-256 is {found}, expected {expected}. Copy"
    with pytest.raises(ValueError, match=text):
        load(bundle)


@pytest.mark.parametrize("name", CONTENTS)
def test_nothing_is_read_before_all_files_are_checked(bundle, name, monkeypatch):
    def read(*_, **__):
        pytest.fail("something was read from an altered model")

    (bundle / name).write_bytes((bundle / name).read_bytes() + b" ")
    for reader in ("read_config", "_read_encoder"):
        monkeypatch.setattr(_bundle, reader, read)
    monkeypatch.setattr(_bundle.GeneVocabulary, "from_tsv", read)
    with pytest.raises(ValueError, match="not the file the manifest describes"):
        load(bundle)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"], ids=["cut", "list", "not-utf8"])
def test_unreadable_manifest(bundle, text):
    (bundle / MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"manifest.json` (is not readable JSON|holds a JSON list)"):
        load(bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["files"].pop(WEIGHTS),
        lambda manifest: manifest["files"].update({"../../etc/passwd": {"sha256": "", "size": 0}}),
        lambda manifest: manifest["files"].update({WEIGHTS: {"sha256": 3}}),
        lambda manifest: manifest.pop("files"),
    ],
    ids=["one-less", "one-more", "no-hash", "none"],
)
def test_manifest_must_list_the_four_files(bundle, edit_json, change):
    edit_json(bundle, MANIFEST, change, sign=False)
    with pytest.raises(ValueError, match=r"must give 'sha256' and 'size' of \['README.md', 'config.json'"):
        load(bundle)


@pytest.mark.parametrize("name", [MANIFEST, "config.json"])
def test_newer_format_asks_for_an_upgrade(bundle, edit_json, name):
    edit_json(bundle, name, lambda content: content.update(format=FORMAT + 1), sign=name != MANIFEST)
    with pytest.raises(
        ValueError, match=r"bundle format 2; this version of scellm reads formats up to 1. Upgrade with `pip"
    ):
        load(bundle)


@pytest.mark.parametrize("found", ["1", True, 0, None], ids=repr)
def test_strange_format(bundle, edit_json, found):
    edit_json(bundle, MANIFEST, lambda content: content.update(format=found), sign=False)
    with pytest.raises(ValueError, match=rf"has bundle format {found!r}; 1 is needed"):
        load(bundle)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda c: c["encoder"].update(rotary=True),
            r"config.json`: Unknown field 'rotary' in an encoder config",
        ),
        (lambda c: c["encoder"].pop("n_genes"), r"needs the field 'n_genes'"),
        (lambda c: c["encoder"].update(dim="16"), r"config.json`: .*written by scellm"),
        (lambda c: c["tokens"].update(shuffle=1), r"Unknown token fields \['shuffle'\]"),
        (lambda c: c.update(color="red"), r"unknown fields \['color'\], missing fields \[\]"),
        (lambda c: c.pop("tokens"), r"unknown fields \[\], missing fields \['tokens'\]"),
        (lambda c: c.update(provenance="mine"), r"'provenance' is a str; an object is needed"),
        (
            lambda c: c["encoder"].update(n_genes=13),
            r"has 12 genes in genes.tsv and n_genes=13 in config.json",
        ),
    ],
    ids=["encoder", "no-genes", "type", "tokens", "more", "less", "section", "genes"],
)
def test_faulty_configuration(bundle, edit_json, change, text):
    edit_json(bundle, "config.json", change)
    with pytest.raises(ValueError, match=text):
        load(bundle)


def test_every_difference_between_tensors_is_listed(bundle):
    def change(tensors):
        del tensors["norm.weight"], tensors["norm.bias"]
        tensors["head.weight"] = torch.zeros(2, 3)
        tensors["gene_embedding.weight"] = torch.zeros(5, 16)

    edit_weights(bundle, change)
    text = (
        "2 missing: norm.weight (16,), norm.bias (16,); 1 unexpected: head.weight (2, 3); "
        "1 mis-shaped: gene_embedding.weight (5, 16), needed (14, 16)."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        load(bundle)


def test_weights_that_are_no_safetensors(bundle):
    (bundle / WEIGHTS).write_bytes(b"not tensors at all")
    write_manifest(bundle)
    with pytest.raises(ValueError, match=r"model.safetensors` is not a safetensors file"):
        load(bundle)


@pytest.mark.parametrize("name", ["checkpoint.pth", "pytorch_model.bin", "model.PKL"])
def test_pickles_are_refused_with_the_way_out(bundle, name):
    (bundle / WEIGHTS).rename(bundle / name)
    with pytest.raises(ValueError, match=rf"holds '{name}' and no 'model.safetensors'.*convert_openbiomed"):
        load(bundle)
