"""What a completion's score is made of, with numbers worked out by hand, and what is refused."""

from math import inf, nan, sqrt
from threading import Barrier, Thread

import pytest
import torch

from rlhf.errors import DataError, StageError
from rlhf.models.scores import Scores
from rlhf.training.rewards.episodes import Episodes
from rlhf.training.rewards.sources import RewardSource
from tests.training.rewards.scored import (
    PROMPT,
    episodes,
    function_source,
    rewards,
    scores_of,
    shared_source,
)

# Their order


def test_normalised_then_weighted_then_clipped_then_penalised():
    """(8-2)/2 = 3, times 2 is 6, plus the function's 1 is 7, cut to 5, less 1 and 10*0.1 is 3."""
    model = shared_source(weight=2.0, score_mean=2.0, score_std=2.0)
    sources = rewards(
        model,
        function_source([1.0]),
        reward_normalization="reference",
        reward_clip=5.0,
        missing_eos_penalty=1.0,
        length_penalty=0.1,
    )
    scored = sources.score(episodes(10, ended=[False]), {"reward": scores_of([8.0])})
    assert scored.scores.tolist() == pytest.approx([3.0])
    assert {name: each.tolist() for name, each in scored.by_source.items()} == {
        "reward": [8.0],
        "f": [1.0],
    }
    assert scored.token_scores is None
    assert scored.scores.dtype == torch.float32


def test_the_ensembles_spread_counts_before_normalisation():
    model = shared_source(score_mean=0.0, score_std=2.0)
    options = {"reward_normalization": "reference", "ensemble_penalty": 1.0}
    scored = rewards(model, **options).score(episodes(1), {"reward": scores_of([1.0], [3.0])})
    assert scored.scores.tolist() == [0.5]  # (2 - 1) / 2


def test_running_normalisation_by_all_scores_so_far():
    sources = rewards(function_source(lambda columns, **_: columns), reward_normalization="running")
    first = sources.score(episodes(1, 1, columns=[0.0, 2.0])).scores
    assert first.tolist() == pytest.approx([-1.0, 1.0])
    # Seen now: 0, 2, 4, 6. Mean 3, mean square deviation (9+1+1+9)/4 = 5.
    second = sources.score(episodes(1, 1, columns=[4.0, 6.0])).scores
    assert second.tolist() == pytest.approx([1 / sqrt(5), 3 / sqrt(5)])


def test_each_source_has_its_own_running_statistics():
    sources = rewards(
        function_source([0.0, 2.0], "small"),
        function_source([0.0, 2000.0], "large"),
        reward_normalization="running",
    )
    assert sources.score(episodes(1, 1)).scores.tolist() == pytest.approx([-2.0, 2.0])


def test_none_has_no_part_in_running_statistics():
    some = function_source([0.0, None, 2.0], "some")
    sources = rewards(some, function_source([0.0, 9.0, 0.0]), reward_normalization="running")
    scored = sources.score(episodes(1, 1, 1))
    assert sources.state_dict()["moments"]["some"]["count"] == 2
    assert scored.by_source["some"].isnan().tolist() == [False, True, False]


def test_held_out_prompts_leave_the_statistics_alone():
    sources = rewards(function_source([1.0, 3.0]), reward_normalization="running")
    before = sources.state_dict()["moments"]
    sources.score(episodes(1, 1), update=False)
    assert sources.state_dict()["moments"] == before
    sources.score(episodes(1, 1))
    assert sources.state_dict()["moments"] != before


@pytest.mark.parametrize("is_restored", [False, True])
def test_held_out_prompts_are_measured_by_the_statistics_of_the_first_rollout(is_restored):
    def make():
        by_column = function_source(lambda columns, **_: columns)
        return rewards(by_column, reward_normalization="running")

    sources = make()
    sources.score(episodes(1, 1, columns=[0.0, 2.0]))  # mean 1, deviation 1
    for value in (4.0, 400.0):
        sources.score(episodes(1, 1, columns=[value, value + 2]))
    if is_restored:
        state, sources = sources.state_dict(), make()
        sources.load_state_dict(state)
    held_out = sources.score(episodes(1, 1, columns=[3.0, 0.0]), update=False).scores
    assert held_out.tolist() == pytest.approx([2.0, -1.0])


def test_statistics_of_two_ranks_are_those_of_one():
    """Ranks stand beside one another: a sum over both is what each is told."""
    whole = rewards(function_source(lambda columns, **_: columns), reward_normalization="running")
    expected = whole.score(episodes(1, 1, 1, 1, columns=[1.0, 5.0, 2.0, 4.0]))

    parts = [[1.0, 5.0], [2.0, 4.0]]
    barrier, slots, found = Barrier(2), [None, None], [None, None]

    def rank_main(rank):
        def reduce(x):
            slots[rank] = x
            barrier.wait(10)
            total = slots[0] + slots[1]
            barrier.wait(10)
            return total

        mine = rewards(
            function_source(lambda columns, **_: columns), reward_normalization="running"
        )
        found[rank] = mine.score(episodes(1, 1, columns=parts[rank]), reduce=reduce)

    threads = [Thread(target=rank_main, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = [*found[0].scores.tolist(), *found[1].scores.tolist()]
    assert together == pytest.approx(expected.scores.tolist(), abs=1e-6)


def test_a_checkpoint_brings_the_statistics_back():
    values = {"now": [0.0, 2.0]}

    def make():
        return rewards(function_source(lambda **_: values["now"]), reward_normalization="running")

    unbroken = make()
    unbroken.score(episodes(1, 1))
    state = unbroken.state_dict()
    values["now"] = [7.0, 9.0]
    continued = make()
    continued.load_state_dict(state)
    expected = unbroken.score(episodes(1, 1)).scores
    assert continued.score(episodes(1, 1)).scores.tolist() == expected.tolist()
    other = rewards(function_source([1.0], "other"))
    with pytest.raises(DataError, match=r"statistics of the reward sources \['f'\]"):
        other.load_state_dict(state)


def test_a_score_depends_neither_on_the_order_nor_on_the_others():
    """Without running statistics, each completion is scored by itself; 50 random rollouts."""
    generator = torch.Generator().manual_seed(0)
    options = {"reward_clip": 1.5, "missing_eos_penalty": 0.5, "length_penalty": 0.01}
    values: list[float | None] = []
    sources = rewards(
        function_source(lambda **_: values, "f", weight=-0.7),
        shared_source(weight=2.0, score_mean=0.3, score_std=1.7),
        reward_normalization="reference",
        ensemble_penalty=0.4,
        **options,
    )
    for _ in range(50):
        lengths = torch.randint(1, 9, (6,), generator=generator).tolist()
        ended = (torch.rand(6, generator=generator) < 0.5).tolist()
        drawn = torch.randn(6, generator=generator).tolist()
        members = torch.randn(3, 6, 1, generator=generator)

        def score(chosen, lengths=lengths, ended=ended, drawn=drawn, members=members):
            values[:] = [None if drawn[i] > 1 else drawn[i] for i in chosen]
            batch = episodes(*[lengths[i] for i in chosen], ended=[ended[i] for i in chosen])
            return sources.score(batch, {"reward": Scores(members[:, chosen], [1.0])}).scores

        order = torch.randperm(6, generator=generator).tolist()
        whole = score(list(range(6)))
        assert torch.equal(whole[order], score(order))
        assert torch.equal(whole[:2], score([0, 1]))


# Token-level scores


def test_token_scores_are_weighted_and_neither_clipped_nor_normalised():
    tokens = function_source([[1.0, 2.0], [30.0, 0.0, 0.0]], "tokens", weight=0.5)
    whole = function_source([9.0, 9.0], "whole")
    scored = rewards(tokens, whole, reward_clip=1.0).score(episodes(2, 3))
    assert scored.token_scores.tolist() == [[0.5, 1.0, 0.0], [15.0, 0.0, 0.0]]
    assert scored.scores.tolist() == [1.0, 1.0]
    assert scored.by_source["tokens"].tolist() == [3.0, 30.0]
    assert scored.totals.tolist() == [2.5, 16.0]


def test_token_scores_alone_leave_a_score_of_the_penalties():
    only = rewards(function_source([[1.0], None]), length_penalty=1.0)
    with pytest.raises(DataError, match="applies to 1 of 2 completions"):
        only.score(episodes(1, 2))
    both = rewards(function_source([[1.0], None], "t"), function_source([None, 4.0], "w"))
    scored = both.score(episodes(1, 2))
    assert scored.totals.tolist() == [1.0, 4.0]


def test_a_completion_without_tokens_has_no_token_scores():
    scored = rewards(function_source([[], [2.0]])).score(episodes(0, 1))
    assert scored.token_scores.tolist() == [[0.0], [2.0]]
    assert scored.by_source["f"].tolist() == [0.0, 2.0]


# What functions are called with


def test_functions_get_what_trl_gives_them():
    seen = {}

    def function(**kwargs):
        seen.update(kwargs)
        return [0.0, 1.0]

    batch = Episodes(
        prompts=[PROMPT, "plain"],
        completions=["a", "b"],
        completion_ids=[[1], [2, 3]],
        ended=[True, False],
        columns={"answer": ["x", "y"], "ended": ["the data's", "own"]},
        extras={"trainer_state": "state"},
    )
    rewards(function_source(function)).score(batch)
    assert seen == {
        "prompts": [PROMPT, "plain"],
        "completions": [[{"role": "assistant", "content": "a"}], "b"],
        "completion_ids": [[1], [2, 3]],
        "ended": [True, False],
        "answer": ["x", "y"],
        "trainer_state": "state",
    }


@pytest.mark.parametrize(
    "values",
    [[1, True], (1.0, 1.0), torch.tensor([1.0, 1.0]), [torch.tensor(1.0), 1.0]],
    ids=["int and bool", "tuple", "tensor", "list of tensors"],
)
def test_every_kind_of_number_is_taken(values):
    assert rewards(function_source(values)).score(episodes(1, 1)).scores.tolist() == [1.0, 1.0]


# What is refused


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "'f' returned 1 values for 2 completions"),
        ([1.0, 2.0, 3.0], "'f' returned 3 values for 2 completions"),
        (3.0, "'f' returned float, not a list of numbers"),
        ("12", "'f' returned str, not a list of numbers"),
        (None, "'f' returned NoneType, not a list of numbers"),
        ({0: 1.0, 1: 2.0}, "'f' returned dict"),
        (["good", 1.0], "'f' returned 'good', which is no number"),
        (["1", 1.0], "'f' returned '1', which is no number"),
        ([nan, 1.0], "'f' gave NaN or infinity for 1 of 2 scores"),
        ([-inf, nan], "'f' gave NaN or infinity for 2 of 2 scores"),
        ([nan, None], "'f' gave NaN or infinity for 1 of 1 scores"),
        ([1e39, 1.0], "'f' gave NaN or infinity for 1 of 2 scores"),
        ([[1.0], [1.0]], "gave 1 for the 3 tokens of completion 1"),
        ([[1.0], 1.0], "gave 1.0 for the 3 tokens of completion 1"),
        ([[nan], [1.0, 1.0, 1.0]], "'f' gave NaN or infinity for 1 of 1 scores"),
        ([[1.0], [1.0, -1e39, 1.0]], "'f' gave NaN or infinity for 1 of 3 scores"),
        ([["a"], [1.0, 1.0, 1.0]], "'f' returned 'a', which is no number"),
    ],
)
def test_a_function_that_breaks_its_contract_stops_the_run(values, message):
    with pytest.raises(StageError, match=message) as raised:
        rewards(function_source(values)).score(episodes(1, 3))
    assert "it goes on from the last checkpoint" in str(raised.value)


def test_a_function_that_raises_is_named_with_the_first_prompt():
    def function(**kwargs):
        raise KeyError("answer")

    with pytest.raises(StageError, match=r"'f' raised KeyError: 'answer' .first prompt: 'Bread\?'"):
        rewards(function_source(function)).score(episodes(1, 1))


def test_a_function_that_exits_does_not_end_the_run_without_a_word():
    def function(**kwargs):
        raise SystemExit(0)

    with pytest.raises(StageError, match="'f' raised SystemExit: 0"):
        rewards(function_source(function)).score(episodes(1))


def test_what_a_function_does_to_its_arguments_stays_there():
    def function(prompts, completions, completion_ids, answer, **kwargs):
        prompts[0][0]["content"] = "gone"
        prompts[0].append({"role": "assistant", "content": "yes"})
        completion_ids[0].clear()
        answer[0].clear()
        return [1.0]

    batch = episodes(3, prompts=[[dict(PROMPT[0])]], answer=[["x"]])
    rewards(function_source(function)).score(batch)
    assert batch.prompts == [PROMPT]
    assert batch.completion_ids == [[0, 1, 2]]
    assert batch.columns == {"answer": [["x"]]}


def test_an_interrupt_is_no_failure_of_the_function():
    def function(**kwargs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewards(function_source(function)).score(episodes(1))


def test_a_reward_model_that_gives_nan_is_named():
    with pytest.raises(StageError, match="'reward' gave NaN or infinity for 1 of 2 scores"):
        rewards(shared_source()).score(episodes(1, 1), {"reward": scores_of([nan, 0.0])})


def test_a_completion_that_nothing_applies_to_is_an_error():
    both = rewards(function_source([None, 1.0], "a"), function_source([None, None], "b"))
    with pytest.raises(DataError, match=r"\(a, b\) applies to 1 of 2 completions.*'Bread\?'"):
        both.score(episodes(1, 1))


# Constant rewards


def test_constant_rewards_are_said_and_counted_until_they_end():
    values = {"now": [0.1, 0.1, 0.1]}
    sources = rewards(function_source(lambda **_: values["now"]), missing_eos_penalty=1.0)
    batch = episodes(1, 2, 3, ended=[True, False, True])
    for number in (1, 2):
        scored = sources.score(batch)
        assert scored.warnings == ["all 3 rewards are the same number (0.1): nothing to learn from"]
        assert sources.num_constant == number
    assert sources.score(batch, update=False).warnings == []
    assert sources.state_dict()["num_constant"] == 2
    values["now"] = [0.1, 0.1, 0.2]
    assert sources.score(batch).warnings == []
    assert sources.num_constant == 0


def test_a_clip_that_makes_all_equal_is_seen():
    sources = rewards(function_source([3.0, 4.0]), reward_clip=1.0)
    assert sources.score(episodes(1, 1)).warnings
    assert rewards(function_source([3.0, 4.0])).score(episodes(1, 1)).warnings == []


def test_constant_on_one_rank_but_not_on_all_is_not_constant():
    sources = rewards(function_source([1.0, 1.0]))
    other = iter([torch.tensor([2.0, 4.0]).double(), torch.tensor(1.0).double()])  # 2.0 and 2.0
    assert sources.score(episodes(1, 1), reduce=lambda x: x + next(other)).warnings == []


def test_a_single_completion_is_not_called_constant():
    assert rewards(function_source([1.0])).score(episodes(1)).warnings == []


def test_transcripts_over_the_reward_models_context_are_said(tmp_path, tiny_model):
    from rlhf.models.scoring import RewardModel
    from tests.training.gated_reward import gated_reward

    model = RewardModel.load(gated_reward(tmp_path, tiny_model), device="cpu")
    source = RewardSource(name="reward", weight=1.0, sha256="0", model=model)
    batch = Episodes(
        prompts=["p " * 600, "p"],
        completions=["a", "b"],
        completion_ids=[[1], [2]],
        ended=[True, True],
    )
    sources = rewards(source)
    for _ in range(2):
        (warning,) = sources.score(batch).warnings
        assert warning.startswith("1 transcripts are longer than the context of 'reward'")
