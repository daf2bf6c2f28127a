"""Parts travel with the model, are read when asked for, and belong to its weights alone."""

import json
import re

import numpy as np
import pytest
import torch

from scellm.models import _parts as parts_file
from scellm.models import load, save
from scellm.models._manifest import CONTENTS, MANIFEST, PARTS, write_manifest
from scellm.models._parts import Part, Parts, write_part


@pytest.fixture
def part():
    return Part(
        tensors={
            "cells": np.arange(12, dtype=np.float16).reshape(3, 4)[:, ::2],  # not contiguous
            "label": np.array([0, 2, 1], dtype=np.int32),
            "kept": np.array([True, False]),
            "empty": np.zeros((0, 4), dtype=np.float32),
        },
        meta={"classes": ["NK/T", "β cell", "B"], "temperature": 1.5, "nested": {"of": [1, None]}},
    )


@pytest.fixture
def with_part(bundle, part):
    write_part(bundle, "reference", part)
    return bundle


def same(found, expected):
    assert found.meta == expected.meta
    assert set(found.tensors) == set(expected.tensors)
    for name, array in expected.tensors.items():
        assert found.tensors[name].dtype == array.dtype
        assert np.array_equal(found.tensors[name], array)
    return True


def test_part_is_saved_and_loaded_with_the_model(model, part, tmp_path, embedding):
    model.parts["cell_type"] = part
    loaded = load(save(model, tmp_path / "m"))
    assert list(loaded.parts) == ["cell_type"]
    assert same(loaded.parts["cell_type"], part)
    assert np.array_equal(embedding(loaded), embedding(model))
    assert "with cell_type" in repr(loaded)


def test_parts_survive_being_saved_again_over_their_own_folder(with_part, part):
    loaded = load(with_part)
    save(loaded, with_part, overwrite=True, dtype=torch.float16)  # other weights file, same model
    assert same(load(with_part).parts["reference"], part)


def test_older_models_have_no_parts(bundle):
    assert {path.name for path in bundle.iterdir()} == {*CONTENTS, MANIFEST}
    loaded = load(bundle)
    assert len(loaded.parts) == 0
    with pytest.raises(KeyError, match="reference"):
        loaded.parts["reference"]


def test_write_part_keeps_the_rest(with_part, part, model, embedding):
    other = Part(tensors={"weight": np.ones((2, 2), np.float32)}, meta={"auc": 0.5})
    write_part(with_part, "malignancy", other)
    loaded = load(with_part)
    assert set(loaded.parts) == {"reference", "malignancy"}
    assert same(loaded.parts["reference"], part)
    assert same(loaded.parts["malignancy"], other)
    assert np.array_equal(embedding(loaded), embedding(model))
    write_part(with_part, "malignancy", None)
    assert set(load(with_part).parts) == {"reference"}
    assert [path.name for path in with_part.parent.iterdir()] == [with_part.name]


def test_parts_are_read_on_first_use_and_once(with_part, monkeypatch):
    calls = []
    read = parts_file._read
    monkeypatch.setattr(parts_file, "_read", lambda *a: calls.append(a[0]) or read(*a))
    loaded = load(with_part)
    assert "reference" in loaded.parts
    assert calls == []
    assert loaded.parts["reference"] is loaded.parts["reference"]
    assert calls == ["reference"]


def test_part_altered_after_loading_is_refused(with_part):
    loaded = load(with_part)
    content = bytearray((with_part / "reference.safetensors").read_bytes())
    content[-1] ^= 1
    (with_part / "reference.safetensors").write_bytes(content)
    text = (
        r"reference.safetensors` is not the file the manifest describes: SHA-256 is .* Copy the folder again"
    )
    with pytest.raises(ValueError, match=text):
        loaded.parts["reference"]


@pytest.mark.parametrize("name", ["reference.json", "reference.safetensors"])
def test_missing_and_truncated_files_of_a_part_are_refused_at_once(with_part, name):
    content = (with_part / name).read_bytes()
    (with_part / name).write_bytes(content[:-3])
    with pytest.raises(ValueError, match=rf"{name}` is truncated"):
        load(with_part)
    (with_part / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}` is missing, though the manifest lists it"):
        load(with_part)


def test_part_gone_after_loading(with_part):
    loaded = load(with_part)
    (with_part / "reference.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"reference.json` is gone"):
        loaded.parts["reference"]


def test_half_a_part_in_the_manifest(with_part, edit_json):
    edit_json(with_part, MANIFEST, lambda content: content["files"].pop("reference.json"), sign=False)
    with pytest.raises(
        ValueError, match=r"must give .*'reference.json', 'reference.safetensors'\]; it lists"
    ):
        load(with_part)


def test_part_of_other_weights_is_refused(with_part, model, tmp_path):
    with torch.no_grad():
        model.encoder.norm.weight.mul_(2)
    other = save(model, tmp_path / "other")
    for name in ("reference.safetensors", "reference.json"):
        (other / name).write_bytes((with_part / name).read_bytes())
    write_manifest(other)
    with pytest.raises(
        ValueError, match=r"part 'reference' .* was made for weights with SHA-256 .* mean nothing"
    ):
        load(other).parts["reference"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c.pop("meta"), r"needs the fields \['format', 'meta', 'weights'\]"),
        (lambda c: c.update(more=1), r"needs the fields"),
        (lambda c: c.update(format=2), r"bundle format 2; this version"),
    ],
    ids=["less", "more", "newer"],
)
def test_faulty_facts(with_part, edit_json, change, text):
    edit_json(with_part, "reference.json", change)
    with pytest.raises(ValueError, match=text):
        load(with_part).parts["reference"]


def test_arrays_that_are_no_safetensors(with_part):
    (with_part / "reference.safetensors").write_bytes(b"not tensors at all")
    write_manifest(with_part)
    with pytest.raises(ValueError, match=r"part 'reference' .* cannot be read"):
        load(with_part).parts["reference"]


def test_interrupted_write_leaves_the_folder_as_it_was(with_part, part, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = {path.name: path.read_bytes() for path in with_part.iterdir()}
    monkeypatch.setattr(parts_file, "write_manifest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_part(with_part, "malignancy", part)
    assert {path.name: path.read_bytes() for path in with_part.iterdir()} == before
    assert [path.name for path in with_part.parent.iterdir()] == [with_part.name]


def test_damaged_part_is_not_vouched_for(with_part, part):
    content = bytearray((with_part / "reference.safetensors").read_bytes())
    content[-1] ^= 1
    (with_part / "reference.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"not the file the manifest describes.*Nothing was written"):
        write_part(with_part, "malignancy", part)
    write_part(with_part, "reference", part)  # but it may be replaced
    assert same(load(with_part).parts["reference"], part)


def test_unknown_names(model, part, bundle):
    text = re.escape(f"No part of a model is named 'color'; the names are {', '.join(PARTS)}.")
    with pytest.raises(ValueError, match=text):
        write_part(bundle, "color", part)
    with pytest.raises(ValueError, match=text):
        model.parts["color"] = part
    with pytest.raises(ValueError, match=text):
        Parts({"color": part})
    with pytest.raises(TypeError, match="The part 'reference' is a dict; a Part is needed"):
        model.parts["reference"] = {"tensors": {}}


def test_no_folder(tmp_path, part):
    with pytest.raises(FileNotFoundError, match="There is no model folder"):
        write_part(tmp_path / "none", "reference", part)


@pytest.mark.parametrize(
    ("part", "error", "text"),
    [
        (Part(tensors={"x": np.array(["a"])}), TypeError, "'x' of the part 'reference' is an array of <U1"),
        (Part(tensors={"x": [1.0]}), TypeError, "'x' of the part 'reference' is list; arrays of numbers"),
        (Part(tensors={"x": np.array([np.nan])}), ValueError, "'x' of the part 'reference' is not finite"),
        (Part(meta={"x": np.arange(3)}), TypeError, "meta of the part 'reference' cannot be written as JSON"),
        (Part(meta={"x": float("nan")}), TypeError, "meta of the part 'reference' cannot be written as JSON"),
    ],
    ids=["text", "list", "nan", "array-in-meta", "nan-in-meta"],
)
def test_what_cannot_be_stored(model, tmp_path, part, error, text):
    model.parts["reference"] = part
    with pytest.raises(error, match=text):
        save(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_facts_are_readable_text(with_part):
    saved = json.loads((with_part / "reference.json").read_text(encoding="utf-8"))
    assert saved["meta"]["classes"] == ["NK/T", "β cell", "B"]
    assert "β" in (with_part / "reference.json").read_text(encoding="utf-8")
