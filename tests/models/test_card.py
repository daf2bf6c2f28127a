"""Cards of saved models show what the model is for."""

import re

import pytest

import scellm
from scellm.models import load, save
from scellm.models._card import use_of


@pytest.mark.parametrize(
    ("parts", "strategy", "tools"),
    [
        ((), "", ["embed"]),
        (("reference", "malignancy"), "", ["annotate", "malignancy", "embed"]),
        (("cell_type",), "lora", ["annotate", "embed"]),
        (("cell_type",), "head", ["annotate"]),
        (("cell_type",), "few_shot", ["annotate"]),
        (("reference", "cell_type"), "full", ["annotate", "embed"]),
    ],
    ids=["plain", "shipped", "lora", "head", "few_shot", "both"],
)
def test_use_is_that_of_the_parts(parts, strategy, tools):
    lines = use_of(parts, {"settings": {"strategy": strategy}}).splitlines()
    assert [re.match(r"scellm\.tl\.(\w+)\(", line)[1] for line in lines] == tools


def test_provenance_of_any_kind_is_taken():
    assert use_of((), {"settings": "my own words"}).startswith("scellm.tl.embed(")


def test_card_of_few_labels_annotates_and_says_what_it_is(tmp_path):
    adata = scellm.datasets.toy_cells(120, n_vars=1950)
    adata.obs["known"] = adata.obs["cell_type"].where([i % 3 == 0 for i in range(120)])
    model = scellm.tl.few_shot(adata, "known", val_by="donor", baseline=False)
    card = load(save(model, tmp_path / "mine")).card
    use = card.split("## Use")[1].split("## Model")[0]
    assert "scellm.tl.annotate(adata, " in use
    assert "tl.embed" not in use
    assert "A head on the genes of scellm-small" in card
    assert "scellm.tl.few_shot(adata, 'known', val_by='donor', baseline=False)" in card
    new = scellm.datasets.toy_cells(12, n_vars=1950)
    line = re.search(r"scellm\.tl\.annotate\(.*?\)", use)[0].replace("path/or/name/of/this/folder", "FOLDER")
    eval(line.replace('"FOLDER"', repr(str(tmp_path / "mine"))), {"scellm": scellm, "adata": new})
    assert "scellm_cell_type" in new.obs


def test_card_of_a_drug_model_predicts(tmp_path):
    model = scellm.drugs.fit_drug_response(
        *scellm.datasets.toy_drug_screen(), config=scellm.drugs.DrugResponseConfig(folds=4)
    )
    folder = scellm.drugs.save_drug_model(model, tmp_path / "drugs")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "scellm.tl.drug_response(adata, model=" in card
    assert "Not a clinical prediction" in card
    assert f"| cell lines | {len(model.lines)} |" in card
