"""Decoding with a cache is the same mathematics as reading everything anew, whoever else is in the batch."""

from typing import Any

import pytest
import torch

from trainwright.runtime.evaluate.generate import CachedDecoder, Sampling, draw, generate

GREEDY = Sampling(max_tokens=6, temperature=0.0, top_p=1.0)
LIVELY = Sampling(max_tokens=12, temperature=1.3, top_p=0.9)


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 96, (rows, length), generator=torch.Generator().manual_seed(3))


def full_logits(model: Any, tokens_BS: torch.Tensor) -> torch.Tensor:
    positions_BS = torch.arange(tokens_BS.shape[1]).expand_as(tokens_BS)
    with torch.no_grad():
        logits: torch.Tensor = model(tokens_BS, positions_BS, None)
    return logits


@pytest.mark.parametrize("first", [1, 7, 23])
def test_cached_logits_equal_the_full_forward(model: Any, first: int) -> None:
    tokens_BS = tokens(3, 24)
    whole_BSV = full_logits(model, tokens_BS)
    decoder = CachedDecoder(model, rows=3, positions=24)
    torch.testing.assert_close(decoder.advance(tokens_BS[:, :first]), whole_BSV[:, first - 1], rtol=0, atol=1e-5)
    for position in range(first, 24):
        logits_BV = decoder.advance(tokens_BS[:, position : position + 1])
        torch.testing.assert_close(logits_BV, whole_BSV[:, position], rtol=0, atol=1e-5)


def test_a_second_piece_of_several_tokens_is_refused(model: Any) -> None:
    decoder = CachedDecoder(model, rows=1, positions=8)
    decoder.advance(tokens(1, 3))
    with pytest.raises(ValueError, match="one at a time"):
        decoder.advance(tokens(1, 2))


def test_greedy_tokens_are_those_of_the_full_forward(model: Any) -> None:
    prompt = tokens(1, 5)[0].tolist()
    expected = list(prompt)
    for _ in range(GREEDY.max_tokens):
        expected.append(int(full_logits(model, torch.tensor([expected]))[0, -1].argmax()))
    new = generate(model, [prompt], GREEDY, seeds=[0], stop_tokens=frozenset(), vocabulary=96)
    assert new == [expected[5:]]


@pytest.mark.parametrize("sampling", [GREEDY, LIVELY])
def test_a_result_does_not_depend_on_the_batch(model: Any, sampling: Sampling) -> None:
    prompts = [tokens(1, length)[0].tolist() for length in (9, 1, 4, 9)]
    seeds = [5, 6, 7, 8]
    together = generate(model, prompts, sampling, seeds=seeds, stop_tokens=frozenset(), vocabulary=96)
    alone = [
        generate(model, [prompt], sampling, seeds=[seed], stop_tokens=frozenset(), vocabulary=96)[0]
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    assert together == alone
    if sampling.temperature:
        assert together[0] != together[3]  # the same prompt, another seed


def test_a_row_ends_before_its_stop_token_and_the_others_go_on(model: Any) -> None:
    prompts = [tokens(1, 4)[0].tolist(), tokens(1, 6)[0].tolist()]
    free = generate(model, prompts, GREEDY, seeds=[0, 0], stop_tokens=frozenset(), vocabulary=96)
    stop = free[0][2]
    told: list[tuple[int, int]] = []
    ended = generate(
        model,
        prompts,
        GREEDY,
        seeds=[0, 0],
        stop_tokens=frozenset({stop}),
        vocabulary=96,
        on_token=lambda row, token: told.append((row, token)),
    )
    assert ended[0] == free[0][: free[0].index(stop)]
    assert ended[1] == (free[1][: free[1].index(stop)] if stop in free[1] else free[1])
    assert [token for row, token in told if row == 1] == ended[1]


def test_tokens_without_text_are_never_drawn(model: Any) -> None:
    wild = Sampling(max_tokens=30, temperature=50.0, top_p=1.0)
    (new,) = generate(model, [[1]], wild, seeds=[0], stop_tokens=frozenset(), vocabulary=10)
    assert max(new) < 10


def test_an_empty_prompt_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        generate(model, [[1], []], GREEDY, seeds=[0, 0], stop_tokens=frozenset(), vocabulary=96)


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p() -> None:
    logits_V = torch.tensor([0.1, 0.2, 0.4, 0.3]).log()
    generator = torch.Generator().manual_seed(0)

    def drawn(top_p: float) -> set[int]:
        sampling = Sampling(max_tokens=1, temperature=1.0, top_p=top_p)
        return {draw(logits_V, sampling, generator) for _ in range(200)}

    assert drawn(0.0) == {2}
    assert drawn(0.39) == {2}
    assert drawn(0.6) == {2, 3}
    assert drawn(0.75) == {1, 2, 3}
    assert drawn(1.0) == {0, 1, 2, 3}


def test_draws_follow_the_probabilities() -> None:
    logits_V = torch.tensor([0.1, 0.2, 0.4, 0.3]).log()
    generator = torch.Generator().manual_seed(0)
    sampling = Sampling(max_tokens=1, temperature=0.5, top_p=1.0)
    counts = torch.bincount(torch.tensor([draw(logits_V, sampling, generator) for _ in range(4000)]), minlength=4)
    squares = torch.tensor([0.01, 0.04, 0.16, 0.09])
    torch.testing.assert_close(counts / 4000, squares / squares.sum(), rtol=0, atol=0.03)
