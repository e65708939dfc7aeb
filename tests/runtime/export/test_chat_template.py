"""The exported chat template and tokenizer give what `align.data.chat` gives, on all golden chats."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.align.data import golden

from trainwright.runtime.align.data.chat import render
from trainwright.runtime.data.vocabulary import MODEL_FILE, SPECIAL_TOKENS_FILE, Vocabulary
from trainwright.runtime.export.folder import generation_config
from trainwright.runtime.export.tokenizer import TokenIds, export_tokenizer, write_tokenizer

# ShareGPT is a form of data; what a server is asked has OpenAI's.
CASES = [case for case in golden.cases() if "messages" in case.row]


@pytest.fixture(scope="module", params=[True, False], ids=["with newline", "without"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, Any]:
    """The newline that the spec says, and what transformers makes of the export."""
    from transformers import AutoTokenizer

    out = tmp_path_factory.mktemp("tokenizer")
    export_tokenizer(golden.FOLDER, out, code_newline=request.param)
    return request.param, AutoTokenizer.from_pretrained(out, local_files_only=True)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return golden.vocabulary()


def _ids(tokenizer: Any, row: dict[str, Any], **options: Any) -> list[int]:
    encoded = tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), **options)
    return list(encoded["input_ids"] if hasattr(encoded, "keys") else encoded)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.code_newline}")
def test_the_template_renders_as_we_do(case: golden.Case, exported: tuple[bool, Any], vocabulary: Vocabulary) -> None:
    default, theirs = exported
    options = {} if case.code_newline == default else {"code_newline": case.code_newline}
    text = theirs.apply_chat_template(case.row["messages"], tools=case.row.get("tools"), tokenize=False, **options)
    assert text == case.text
    assert _ids(theirs, case.row, **options) == case.render(vocabulary).tokens


def test_a_generation_prompt_is_ours(exported: tuple[bool, Any], vocabulary: Vocabulary) -> None:
    default, theirs = exported
    for case in CASES:
        if case.code_newline != default:
            continue
        for stop in (-1, len(case.row["messages"])):
            row = case.row | {"messages": case.row["messages"][:stop]}
            ours = golden.Case(case.name, default, row, "", []).messages
            expected = render(ours, vocabulary, code_newline=default, generation_prompt=True)
            assert _ids(theirs, row, add_generation_prompt=True) == expected.tokens


@pytest.mark.parametrize(
    "message",
    [
        {"role": "narrator", "content": "Once"},
        {"role": "user", "content": "Hello", "name": "alice"},
        {"role": "user", "content": [{"type": "image_url", "image_url": "x"}]},
    ],
)
def test_what_the_format_cannot_say_is_refused(message: dict[str, Any], exported: tuple[bool, Any]) -> None:
    from jinja2.exceptions import TemplateError

    with pytest.raises(TemplateError):
        exported[1].apply_chat_template([message])


def test_text_that_begins_like_a_header_is_all_that_is_cut(exported: tuple[bool, Any], vocabulary: Vocabulary) -> None:
    for text in ('a\nassistant\n"Yes"', '\n"Yes"', ' assistant\n"Yes"', 'user\n"Yes"'):
        assert exported[1](text, add_special_tokens=False)["input_ids"] == vocabulary.encode(text)


def test_generation_stops_at_the_end_of_a_turn_and_of_a_document(tmp_path: Path, vocabulary: Vocabulary) -> None:
    ids = export_tokenizer(golden.FOLDER, tmp_path, code_newline=True)
    stops = [vocabulary.end, vocabulary.special("<|im_end|>")]
    assert generation_config(ids)["eos_token_id"] == stops
    assert generation_config(TokenIds(1, 2))["eos_token_id"] == 2


def test_both_places_of_the_template_agree_and_a_tokenizer_without_chat_has_none(tmp_path: Path, train: Any) -> None:
    with_chat, without = tmp_path / "with", tmp_path / "without"
    with_chat.mkdir()
    without.mkdir()
    named = json.loads((golden.FOLDER / SPECIAL_TOKENS_FILE).read_bytes())
    write_tokenizer((golden.FOLDER / MODEL_FILE).read_bytes(), named, with_chat, code_newline=False)
    config = json.loads((with_chat / "tokenizer_config.json").read_bytes())
    assert config["chat_template"] == (with_chat / "chat_template.jinja").read_text(encoding="utf-8")
    write_tokenizer(train(control_symbols=[]), {}, without)
    assert "chat_template" not in json.loads((without / "tokenizer_config.json").read_bytes())
    assert not (without / "chat_template.jinja").exists()
