"""Names of models: folders, the registry, hub ids, and what is none of them."""

import json
import shutil

import pytest

from rlhf.errors import ConfigError
from rlhf.models.registry import (
    NAMED_MODELS,
    is_pulled,
    model_folder,
    model_source,
    models_folder,
    named_model,
    resolve_model,
)


def test_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path))
    assert models_folder() == tmp_path / "models"


def test_cache_is_in_the_home_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("RLHF_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models_folder() == tmp_path / ".cache" / "rlhf" / "models"


def test_folder_resolves_to_its_absolute_path(tiny_model, monkeypatch):
    monkeypatch.chdir(tiny_model.parent)
    assert resolve_model(tiny_model.name) == str(tiny_model)


def test_hub_id_is_passed_on():
    assert resolve_model("someone/some-model") == "someone/some-model"


def test_pulled_model_resolves_to_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path))
    folder = model_folder("smollm2-135m-instruct-q4")
    folder.mkdir(parents=True)
    assert not is_pulled(folder)
    (folder / "ORIGIN.json").write_text("{}")
    assert resolve_model("smollm2-135m-instruct-q4") == str(folder)


def test_unknown_name_gets_the_nearest_and_the_whole_list():
    with pytest.raises(ConfigError, match="did you mean 'smollm2-135m-instruct'") as error:
        resolve_model("smollm2-135m-instrct")
    assert all(name in str(error.value) for name in NAMED_MODELS)
    assert error.value.exit_code == 2


def test_unknown_name_to_pull_gets_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'smollm2-135m-instruct-q4'"):
        named_model("smollm2-135m-q4")


@pytest.mark.parametrize("name", ["/no/such/folder", "a/b/c", "../x/y"])
def test_folder_that_is_not_there_is_unknown(name):
    with pytest.raises(ConfigError, match="unknown model"):
        resolve_model(name)


def test_folder_without_a_model_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no model \(config.json or adapter_config.json\)"):
        resolve_model(tmp_path)


def test_file_is_no_model(tmp_path):
    (tmp_path / "model.gguf").write_text("")
    with pytest.raises(ConfigError, match="a file; give the folder"):
        resolve_model(tmp_path / "model.gguf")


def test_pins_are_whole():
    for model in NAMED_MODELS.values():
        assert len(model.source.sha256) == 64
    assert len(NAMED_MODELS["smollm2-135m-instruct"].source.revision) == 40


def test_source_of_a_named_model_is_its_version():
    assert model_source("smollm2-135m-instruct-q4") == "smollm2-135m-instruct-q4@0.1.2"


def test_source_of_a_pulled_folder_is_its_origin(tmp_path):
    (tmp_path / "ORIGIN.json").write_text(json.dumps({"name": "m", "revision": "7"}))
    assert model_source(tmp_path) == "m@7"


def test_source_of_a_folder_follows_its_weights_not_its_place(tiny_model, tmp_path):
    moved = tmp_path / tiny_model.name
    shutil.copytree(tiny_model, moved)
    before = model_source(tiny_model)
    assert model_source(moved) == before
    assert before.startswith(f"{tiny_model.name}@")
    weights = moved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert model_source(moved) != before
