"""Decoding with a cache is the same mathematics as reading everything anew, whoever else is in the batch."""

from typing import Any

import pytest
import torch

from trainwright.runtime.generate.decode import cache_row_bytes
from trainwright.runtime.generate.generate import Generated, generate
from trainwright.runtime.generate.sampling import Sampling

GREEDY = Sampling(max_tokens=6, temperature=0.0, top_p=1.0)
LIVELY = Sampling(max_tokens=12, temperature=1.3, top_p=0.9)
NO_STOPS: frozenset[int] = frozenset()


def prompts(*lengths: int) -> list[list[int]]:
    random = torch.Generator().manual_seed(3)
    return [torch.randint(0, 96, (length,), generator=random).tolist() for length in lengths]


def answer(model: Any, texts: list[list[int]], sampling: Sampling, **options: Any) -> list[Generated]:
    given: dict[str, Any] = {"seeds": range(len(texts)), "stop_tokens": NO_STOPS, "vocabulary": 96} | options
    return generate([model], texts, sampling, **given)


def full_logits(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits_1SV: torch.Tensor = model(torch.tensor([tokens]), None, None)
    return logits_1SV[0]


def test_greedy_tokens_are_those_of_the_full_forward(model: Any) -> None:
    (prompt,) = prompts(5)
    expected = list(prompt)
    for _ in range(GREEDY.max_tokens):
        expected.append(int(full_logits(model, expected)[-1].argmax()))
    (result,) = answer(model, [prompt], GREEDY)
    assert result.tokens == expected[5:]
    assert not result.stopped


def test_log_probs_are_those_of_the_full_forward(model: Any) -> None:
    texts = prompts(9, 1, 4, 23)
    for prompt, result in zip(texts, answer(model, texts, LIVELY, vocabulary=50), strict=True):
        whole_SV = full_logits(model, prompt + result.tokens).log_softmax(-1)[len(prompt) - 1 : -1]
        expected = whole_SV.gather(-1, torch.tensor(result.tokens)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(result.log_probs), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampling", [GREEDY, LIVELY])
def test_company_changes_no_answer(model: Any, sampling: Sampling) -> None:
    texts = prompts(9, 1, 4, 17, 2, 9, 30, 3)
    texts[5] = texts[0]
    together = answer(model, texts, sampling)
    alone = [answer(model, [text], sampling, seeds=[seed])[0] for seed, text in enumerate(texts)]
    backwards = answer(model, texts[::-1], sampling, seeds=range(len(texts))[::-1])[::-1]
    assert [row.tokens for row in together] == [row.tokens for row in alone] == [row.tokens for row in backwards]
    if sampling.temperature:
        assert together[0].tokens != together[5].tokens  # the same prompt, another seed


def test_a_small_cache_makes_rows_wait_and_changes_nothing(model: Any) -> None:
    texts = prompts(9, 1, 4, 17, 2, 9, 30, 3)
    free = answer(model, texts, LIVELY)
    stops = frozenset(row.tokens[number] for number, row in enumerate(free))  # so that rows end at different times
    ended = answer(model, texts, LIVELY, stop_tokens=stops)
    assert len({len(row.tokens) for row in ended}) > 2
    row_bytes = cache_row_bytes([model], 30 + LIVELY.max_tokens)
    for rows in (0, 1, 3):
        some = answer(model, texts, LIVELY, stop_tokens=stops, cache_bytes=rows * row_bytes)
        assert [row.tokens for row in some] == [row.tokens for row in ended]


def test_a_row_ends_with_its_stop_token_and_the_others_go_on(model: Any) -> None:
    texts = prompts(4, 6)
    free = answer(model, texts, GREEDY)
    stop = free[0].tokens[2]
    told: list[tuple[int, int]] = []
    ended = answer(
        model, texts, GREEDY, stop_tokens=frozenset({stop}), on_token=lambda row, token: told.append((row, token))
    )
    for number, (row, whole) in enumerate(zip(ended, free, strict=True)):
        assert row.stopped == (stop in whole.tokens)
        assert row.tokens == (whole.tokens[: whole.tokens.index(stop) + 1] if row.stopped else whole.tokens)
        assert len(row.log_probs) == len(row.tokens)
        assert [token for other, token in told if other == number] == row.without_stop
    assert ended[0].stopped
    assert stop not in ended[0].without_stop


def test_tokens_without_text_are_never_drawn(model: Any) -> None:
    wild = Sampling(max_tokens=30, temperature=50.0, top_p=1.0)
    (result,) = answer(model, [[1]], wild, vocabulary=10)
    assert max(result.tokens) < 10


def test_an_empty_prompt_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        answer(model, [[1], []], GREEDY)


def test_no_new_tokens_and_no_prompts_are_no_work(model: Any) -> None:
    assert answer(model, [[1]], Sampling(max_tokens=0, temperature=1.0, top_p=0.9)) == [Generated([], [], False)]
    assert answer(model, [], GREEDY) == []


def test_nothing_is_drawn_from_logits_that_are_not_finite(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = model.decoder.final_layernorm.weight
    monkeypatch.setattr(weight, "data", torch.full_like(weight, torch.nan))
    with pytest.raises(FloatingPointError, match="not finite"):
        answer(model, [[1]], LIVELY)
