"""Rows of every form, and why a row is refused."""

import json
from typing import Any

import pytest

from trainwright.runtime.align.data.chat import Call, Message
from trainwright.runtime.align.data.messages import BadRow, ChatRow, PreferenceRow, PromptRow, parse_row

USER, ASSISTANT = {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}
HELLO, HI = Message("user", "Hello"), Message("assistant", "Hi")


def _parse(row: Any, kind: str) -> Any:
    return parse_row(row if isinstance(row, bytes) else json.dumps(row).encode(), kind)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hello", "chosen": "Hi", "rejected": "No"},
        {"prompt": [USER], "chosen": ASSISTANT, "rejected": {"role": "assistant", "content": "No"}},
        {"prompt": "Hello", "chosen": [ASSISTANT], "rejected": "No"},
        {"chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "No"}]},
        {"prompt": "Hello", "chosen": [USER, ASSISTANT], "rejected": [{"from": "gpt", "value": "No"}]},
        {"prompt": "Hello", "responses": ["Hi", "No"]},
        {
            "conversations": [{"from": "human", "value": "Hello"}],
            "chosen": {"from": "gpt", "value": "Hi"},
            "rejected": {"from": "gpt", "value": "No"},
        },
    ],
)
def test_preferences_have_many_forms(row: dict[str, Any]) -> None:
    expected = PreferenceRow("default", [HELLO], [HI, Message("assistant", "No")], 0.0)
    assert _parse(row, "preference") == expected


def test_margin_domain_system_and_more_than_two_answers() -> None:
    row = {"prompt": "Hello", "system": "Be kind.", "responses": ["Hi", "Ho", "No"], "margin": 2, "domain": "math"}
    prompt = [Message("system", "Be kind."), HELLO]
    answers = [Message("assistant", text) for text in ("Hi", "Ho", "No")]
    assert _parse(row, "preference") == PreferenceRow("math", prompt, answers, 2.0)
    assert _parse({"prompt": "Hello", "system": "Be kind."}, "prompts") == PromptRow("default", prompt)


def test_keys_that_say_nothing_of_the_conversation_are_passed_over() -> None:
    row = {"id": 7, "messages": [USER, ASSISTANT | {"id": "x"}], "score": 0.5, "tools": None, "system": None}
    assert _parse(row, "chat") == ChatRow("default", [HELLO, HI])


def test_a_text_and_its_function_call_are_one_turn_in_the_sharegpt_form() -> None:
    turns = [
        {"from": "human", "value": "Hello"},
        {"from": "gpt", "value": "Hi"},
        {
            "from": "function_call",
            "value": '[{"name": "f", "arguments": {}}, {"name": "g", "arguments": "{\\"x\\":1}"}]',
        },
    ]
    calls = (
        Call("<|plugin|>", '{"name": "f", "parameters": {}}'),
        Call("<|plugin|>", '{"name": "g", "parameters": {"x": 1}}'),
    )
    assert _parse({"conversations": turns}, "chat").messages == [HELLO, Message("assistant", "Hi", calls=calls)]


CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("chat", b"{", "not a JSON object"),
        ("chat", b"[1]", "not a JSON object"),
        ("chat", b"[" * 100_000, "not a JSON object"),
        ("chat", b'{"messages": "\\ud800"}', "not a JSON object"),
        ("chat", b'{"messages": "\xff"}', "not UTF-8"),
        ("chat", {"text": "Hello"}, "no key `messages` or `conversations`"),
        ("chat", {"messages": "Hello"}, "the messages are not a list"),
        ("chat", {"messages": []}, "no messages"),
        ("chat", {"messages": [USER, "Hi"]}, "a message is not an object (message 2)"),
        ("chat", {"messages": [USER, {"content": "Hi"}]}, "a message has no role (message 2)"),
        ("chat", {"messages": [{"role": "narrator", "content": "x"}]}, "unknown role `narrator` (message 1)"),
        ("chat", {"conversations": [{"from": "bot", "value": "x"}]}, "unknown role `bot` (message 1)"),
        ("chat", {"messages": [USER, {"role": "assistant", "content": " \n"}]}, "empty turn (message 2)"),
        ("chat", {"messages": [USER, {"role": "assistant"}]}, "empty turn (message 2)"),
        ("chat", {"messages": [USER, {"role": "assistant", "content": 7}]}, "a turn's content is not text (message 2)"),
        ("chat", {"messages": [USER]}, "no assistant turn"),
        ("chat", {"messages": [USER, ASSISTANT | {"weight": 0}]}, "no assistant turn has a weight"),
        ("chat", {"messages": [USER, ASSISTANT | {"weight": 0.5}]}, "a weight is neither 0 nor 1 (message 2)"),
        (
            "chat",
            {"messages": [USER | {"name": "alice"}, ASSISTANT]},
            "the chat format has no user named `alice` (message 1)",
        ),
        ("chat", {"messages": [USER | {"tool_calls": [CALL]}]}, "a call that is not an assistant's (message 1)"),
        (
            "chat",
            {"messages": [ASSISTANT | {"tool_calls": CALL}]},
            "`tool_calls` are not a list of objects (message 1)",
        ),
        ("chat", {"messages": [ASSISTANT | {"tool_calls": [{}]}]}, "a call has no name (message 1)"),
        (
            "chat",
            {"messages": [ASSISTANT | {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "a call's arguments are not JSON (message 1)",
        ),
        (
            "chat",
            {"messages": [ASSISTANT | {"tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}]},
            "a call's arguments are not an object (message 1)",
        ),
        ("chat", {"messages": [ASSISTANT | {"function_call": {}}]}, "`function_call` is not `tool_calls` (message 1)"),
        (
            "chat",
            {"messages": [ASSISTANT | {"tool_calls": [{"type": "code_interpreter"}]}]},
            "a call of the interpreter has no `input` (message 1)",
        ),
        ("chat", {"messages": [USER, ASSISTANT], "tools": "["}, "`tools` are not JSON"),
        ("chat", {"messages": [USER, ASSISTANT], "tools": {}}, "`tools` are not a list"),
        ("chat", {"messages": [USER, ASSISTANT], "tools": [{"type": "function"}]}, "a tool has no name"),
        ("chat", {"messages": [USER, ASSISTANT], "domain": 7}, "`domain` is not a name"),
        ("preference", {"chosen": "a", "rejected": "b"}, "no key `prompt`"),
        ("preference", {"prompt": "Hello", "chosen": "a"}, "no key `rejected`"),
        ("preference", {"prompt": "Hello", "chosen": "a", "rejected": "a"}, "chosen and rejected are the same"),
        ("preference", {"prompt": "Hello", "responses": ["a"]}, "fewer than two answers"),
        ("preference", {"prompt": "Hello", "responses": ["a", "b", "a"]}, "two answers are the same"),
        ("preference", {"prompt": "Hello", "chosen": "a", "rejected": USER}, "an answer is not an assistant's"),
        ("preference", {"prompt": "Hello", "chosen": "a", "rejected": "  "}, "empty turn (the answer)"),
        (
            "preference",
            {"prompt": "x", "chosen": [USER, ASSISTANT], "rejected": "b"},
            "the answers are not to one prompt",
        ),
        ("preference", {"prompt": "Hello", "chosen": "a", "rejected": "b", "margin": "1"}, "`margin` is not a number"),
        (
            "preference",
            {"prompt": "Hello", "chosen": "a", "rejected": "b", "margin": 10**400},
            "`margin` is not a number",
        ),
        (
            "preference",
            {"prompt": [{"role": "user", "content": [{"type": "image_url"}]}], "chosen": "a", "rejected": "b"},
            "a turn's content is not text (message 1)",
        ),
        ("prompts", {"text": "Hello"}, "no key `prompt`"),
        ("prompts", {"prompt": [USER, ASSISTANT]}, "the prompt does not end with a user's or environment's turn"),
    ],
)
def test_a_bad_row_says_why(kind: str, row: Any, reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        _parse(row, kind)
    assert str(caught.value) == reason
