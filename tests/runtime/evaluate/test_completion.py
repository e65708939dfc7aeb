"""Text is told as it is written, characters whole, and the pieces are the text."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sentencepiece
from tests.conftest import ROOT

from trainwright.runtime.align.data.chat import Message, render
from trainwright.runtime.data.vocabulary import MODEL_FILE, SPECIAL_TOKENS_FILE, Vocabulary
from trainwright.runtime.evaluate.completion import Sampler, TextStream, continuation
from trainwright.runtime.evaluate.samples import write_samples
from trainwright.runtime.generate.sampling import Sampling
from trainwright.spec.plan import SamplesPlan


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """Letters, the bytes, and little more."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat and the hat\n"] * 50),
        model_writer=model,
        model_type="bpe",
        vocab_size=285,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / MODEL_FILE).write_bytes(model.getvalue())
    (folder / SPECIAL_TOKENS_FILE).write_text("{}")
    return Vocabulary(folder)


def test_a_character_of_several_bytes_is_told_when_it_is_whole(vocabulary: Vocabulary) -> None:
    told: list[str] = []
    stream = TextStream(vocabulary, [vocabulary.begin], told.append)
    tokens = vocabulary.encode("the 春 cat")
    for token in tokens:
        stream.feed(token)
    stream.close()
    assert "".join(told) == "the 春 cat"
    assert "春" in told
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in told)


def test_bytes_that_never_become_a_character_are_told_at_the_end(vocabulary: Vocabulary) -> None:
    told: list[str] = []
    stream = TextStream(vocabulary, [vocabulary.begin], told.append)
    for token in vocabulary.encode("a春")[:-1]:
        stream.feed(token)
    assert told == ["a"]
    stream.close()
    assert "".join(told) == continuation(vocabulary, [vocabulary.begin], vocabulary.encode("a春")[:-1])


def test_a_space_after_the_prompt_is_kept(vocabulary: Vocabulary) -> None:
    prompt, new = vocabulary.encode("the"), vocabulary.encode(" cat")
    assert continuation(vocabulary, [vocabulary.begin, *prompt], new) == " cat"


@pytest.fixture(scope="module")
def sampler(model: Any, vocabulary: Vocabulary) -> Sampler:
    return Sampler(model, vocabulary)


@pytest.fixture(scope="module")
def plan_of_model() -> Any:
    from trainwright.spec.plan import ModelPlan

    return ModelPlan(
        layers=1,
        hidden_size=32,
        heads=2,
        kv_heads=1,
        head_size=16,
        ffn_size=32,
        vocab_size=300,  # more than there are pieces
        norm_eps=1e-5,
        init_std=0.1,
        attention_bias=False,
        tie_embeddings=False,
        parameters=0,
    )


def test_what_is_told_is_what_is_returned(sampler: Sampler) -> None:
    told: list[str] = []
    text = sampler.complete("the cat", 40, 1.0, 0.95, 3, told.append)
    assert "".join(told) == text
    assert text == sampler.complete("the cat", 40, 1.0, 0.95, 3)
    assert text != sampler.complete("the cat", 40, 1.0, 0.95, 4)


def test_company_does_not_change_a_continuation(sampler: Sampler) -> None:
    sampling = Sampling(max_tokens=12, temperature=1.0, top_p=0.9)
    prompts = [f"the {'cat ' * index}" for index in range(20)]
    texts = sampler.complete_all(prompts, sampling, 5)
    assert texts == [sampler.complete(prompt, 12, 1.0, 0.9, 5) for prompt in prompts]


def test_samples_are_written_with_how_they_were_made(sampler: Sampler, tmp_path: Path) -> None:
    plan = SamplesPlan(prompts=("the", ""), max_tokens=4, temperature=0.0, top_p=1.0, seed=1)
    samples = write_samples(sampler, plan, tmp_path)
    content = json.loads((tmp_path / "samples.json").read_bytes())
    assert content["samples"] == samples
    assert [sample["prompt"] for sample in samples] == ["the", ""]
    assert (content["temperature"], content["max_tokens"]) == (0.0, 4)


def test_a_chat_model_is_asked_in_turns_and_stops_at_the_end_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = Vocabulary(ROOT / "tests" / "cases" / "chat")
    asked: dict[str, Any] = {}

    def generate(chunks: Any, prompts: Any, sampling: Sampling, *, stop_tokens: frozenset[int], **_: Any) -> list[Any]:
        asked.update(prompts=prompts, stop_tokens=stop_tokens)
        return [SimpleNamespace(without_stop=vocabulary.encode("Four."))]

    monkeypatch.setattr("trainwright.runtime.evaluate.completion.generate", generate)
    sampling = Sampling(max_tokens=4, temperature=0.0, top_p=1.0)
    assert Sampler(None, vocabulary, chat=True).complete_all(["2 + 2?"], sampling, 1) == ["Four."]
    prompt = [Message("user", "2 + 2?")]
    whole = render(prompt, vocabulary, code_newline=True, generation_prompt=True)
    assert asked == {"prompts": [whole.tokens], "stop_tokens": {vocabulary.end, vocabulary.special("<|im_end|>")}}
    Sampler(None, vocabulary).complete_all(["2 + 2?"], sampling, 1)
    assert asked["prompts"] == [[vocabulary.begin, *vocabulary.encode("2 + 2?")]]
    assert asked["stop_tokens"] == {vocabulary.end}
