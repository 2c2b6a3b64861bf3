"""The real small model: pulled here in CI, elsewhere where a pull has put it into the cache."""

import os

import pytest

from rlhf.models.pull import pull
from rlhf.models.registry import is_pulled, model_folder, named_model

NAME = "smollm2-135m-instruct-q4"
FOLDER = model_folder(NAME)


@pytest.fixture(scope="module", autouse=True)
def real_model():
    if os.environ.get("CI") == "true":
        pull(named_model(NAME))
    elif not is_pulled(FOLDER):
        pytest.skip(f"{NAME} is not pulled yet (rlhf pull {NAME})")


# Ids that the published tokenizer gives; the fourth needs numbers split before blanks are joined.
PUBLISHED_IDS = {
    "Hello, we can use": [19556, 28, 392, 416, 722],
    "Café déjà vu.": [51, 1939, 2756, 32564, 90, 16739, 386, 101, 30],
    "Hello world! 123": [19556, 905, 17, 216, 33, 34, 35],
    "a   1": [81, 333, 33],
}
DEFAULT_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def test_tokenizer_is_the_published_one_with_a_pad_of_its_own():
    from rlhf.data.tokenization import Renderer
    from rlhf.models.loading import load_tokenizer

    tokenizer = load_tokenizer(NAME)
    for text, ids in PUBLISHED_IDS.items():
        assert tokenizer(text)["input_ids"] == ids
    assert len(tokenizer) == 49152
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<empty_output>", "<|im_end|>")
    assert Renderer(tokenizer).turn_end_id == tokenizer.eos_token_id == 2
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert rendered == (
        f"<|im_start|>system\n{DEFAULT_SYSTEM}<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_converted_weights_answer_in_english():
    from rlhf.models.generation import generate
    from rlhf.models.loading import load_policy, load_tokenizer

    question = [{"role": "user", "content": "What is the capital of France?"}]
    model = load_policy(NAME)
    assert model.get_input_embeddings().weight.shape == (49152, 576)
    [[answer]] = generate(model, load_tokenizer(NAME), [question], temperature=0, max_new_tokens=24)
    assert answer.text == "The capital of France is Paris."
    assert answer.ended
