"""Rows of JSON -> messages: OpenAI's `messages` form, the ShareGPT form, preferences and prompts.

What a row may hold that a conversation cannot say is refused with a reason; nothing of a row is passed over but keys
that say nothing of it (ids, scores).
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import msgspec

from trainwright.runtime.align.data.chat import FILE, INTERPRETER, PLUGIN, Call, Message, Role

DEFAULT_DOMAIN = "default"
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "environment",
    "function": "environment",
    "environment": "environment",
}
# ShareGPT's words for OpenAI's; `function_call` is an assistant's turn of its own.
_FROM = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool": "tool",
    "function_call": "function_call",
}
_CODE = "code_interpreter"  # a tool call's type in OpenAI's Assistants API
_object = msgspec.json.Decoder(dict[str, Any])


class BadRow(Exception):
    """Why a row cannot be used. `reason` is what bad rows are counted by, `detail` where in the row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


@dataclass(frozen=True)
class ChatRow:
    domain: str
    messages: list[Message]


@dataclass(frozen=True)
class PreferenceRow:
    """`answers` are assistant's messages to the prompt, best first."""

    domain: str
    prompt: list[Message]
    answers: list[Message]
    margin: float


@dataclass(frozen=True)
class PromptRow:
    domain: str
    prompt: list[Message]


AnyRow = ChatRow | PreferenceRow | PromptRow


def parse_row(line: bytes, kind: str) -> AnyRow:
    """The row of a source of kind `chat`, `preference` or `prompts`. Raises BadRow."""
    try:
        row = _object.decode(line)
    except UnicodeDecodeError:
        raise BadRow("not UTF-8") from None
    except (msgspec.DecodeError, RecursionError):
        raise BadRow("not a JSON object") from None
    return _PARSERS[kind](row)


def _chat(row: Mapping[str, Any]) -> ChatRow:
    key = next((key for key in ("messages", "conversations") if key in row), None)
    if key is None:
        raise BadRow("no key `messages` or `conversations`")
    messages = _messages(row[key], row)
    spoken = [message for message in messages if message.role == "assistant"]
    if not spoken:
        raise BadRow("no assistant turn")
    if not any(message.trained for message in spoken):
        raise BadRow("no assistant turn has a weight")
    return ChatRow(_domain(row), messages)


def _preference(row: Mapping[str, Any]) -> PreferenceRow:
    if "responses" in row:
        given = row["responses"]
        if not isinstance(given, list) or len(given) < 2:
            raise BadRow("fewer than two answers")
    else:
        missing = [key for key in ("chosen", "rejected") if key not in row]
        if missing:
            raise BadRow(f"no key `{missing[0]}`")
        given = [row["chosen"], row["rejected"]]
    leads, answers = zip(*(_answer(answer, row) for answer in given), strict=True)
    if "prompt" in row:
        prompt = _prompt_messages(row["prompt"], row)
    elif "conversations" in row:
        prompt = _prompt_messages(row["conversations"], row)
    elif all(leads):
        prompt = leads[0]
    else:
        raise BadRow("no key `prompt`")
    if any(lead and lead != prompt for lead in leads):
        raise BadRow("the answers are not to one prompt")
    if any(answer in answers[:index] for index, answer in enumerate(answers)):
        raise BadRow("chosen and rejected are the same" if len(answers) == 2 else "two answers are the same")
    return PreferenceRow(_domain(row), _open_prompt(prompt), list(answers), _margin(row))


def _prompt(row: Mapping[str, Any]) -> PromptRow:
    if "prompt" not in row:
        raise BadRow("no key `prompt`")
    return PromptRow(_domain(row), _open_prompt(_prompt_messages(row["prompt"], row)))


_PARSERS: dict[str, Callable[[Mapping[str, Any]], AnyRow]] = {
    "chat": _chat,
    "preference": _preference,
    "prompts": _prompt,
}


def _domain(row: Mapping[str, Any]) -> str:
    domain = row.get("domain", DEFAULT_DOMAIN)
    if not isinstance(domain, str) or not domain:
        raise BadRow("`domain` is not a name")
    return domain


def _margin(row: Mapping[str, Any]) -> float:
    margin = row.get("margin")
    if margin is None:
        return 0.0
    if isinstance(margin, bool) or not isinstance(margin, int | float) or abs(margin) > sys.float_info.max:
        raise BadRow("`margin` is not a number")
    return float(margin)


def _prompt_messages(prompt: object, row: Mapping[str, Any]) -> list[Message]:
    return _messages([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt, row)


def _open_prompt(prompt: list[Message]) -> list[Message]:
    if prompt[-1].role not in ("user", "environment"):
        raise BadRow("the prompt does not end with a user's or environment's turn")
    return prompt


def _answer(given: object, row: Mapping[str, Any]) -> tuple[list[Message], Message]:
    """The prompt that the answer is given with, if any, and the answer."""
    if isinstance(given, str):
        given = {"role": "assistant", "content": given}
    if isinstance(given, list):
        *lead, answer = _messages(given, row if len(given) > 1 else {})
    else:
        lead, answer = [], _either(given, "the answer", set())
    if answer.role != "assistant":
        raise BadRow("an answer is not an assistant's")
    return lead, answer


def _messages(given: object, row: Mapping[str, Any]) -> list[Message]:
    """The messages with the row's own `system` and `tools` where a conversation has them."""
    if not isinstance(given, list) or not given:
        raise BadRow("no messages" if given == [] else "the messages are not a list")
    code_calls: set[str] = set()
    messages: list[Message] = []
    for number, each in enumerate(given, start=1):
        message = _either(each, f"message {number}", code_calls)
        last = messages[-1] if messages else None
        if _is_share_gpt(each) and message.calls and last and last.role == "assistant" and not last.calls:
            messages[-1] = replace(last, calls=message.calls)  # the text and the call after it are one turn
        else:
            messages.append(message)
    if row.get("system") is not None:
        messages.insert(0, _message({"role": "system", "content": row["system"]}, "`system`", set()))
    tools = _tools(row.get("tools"))
    if tools is not None:
        leading = next((n for n, message in enumerate(messages) if message.role != "system"), len(messages))
        messages.insert(leading, tools)
    return messages


def _either(given: object, where: str, code_calls: set[str]) -> Message:
    """A message of OpenAI's or of the ShareGPT form."""
    return _share_gpt(given, where) if _is_share_gpt(given) else _message(given, where, code_calls)


def _is_share_gpt(given: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(given, dict) and "from" in given and "role" not in given


def _message(given: object, where: str, code_calls: set[str]) -> Message:
    """A message of OpenAI's form; `code_calls` are the ids of calls of the interpreter so far."""
    if not isinstance(given, dict):
        raise BadRow("a message is not an object", where)
    if not isinstance(given.get("role"), str):
        raise BadRow("a message has no role", where)
    role = _ROLES.get(given["role"])
    if role is None:
        raise BadRow(f"unknown role `{given['role']}`", where)
    if "function_call" in given:
        raise BadRow("`function_call` is not `tool_calls`", where)
    calls = _calls(given.get("tool_calls"), where, code_calls)
    if calls and role != "assistant":
        raise BadRow("a call that is not an assistant's", where)
    content = _text(given.get("content"), where, may_be_empty=bool(calls) or role == "environment")
    if given["role"] in ("tool", "function"):
        of_code = given.get("name") == INTERPRETER or str(given.get("tool_call_id")) in code_calls
        return Message(role, content, INTERPRETER if of_code else PLUGIN)
    return Message(role, content, _name(given.get("name"), role, where), calls, _weight(given, where))


def _share_gpt(given: Mapping[str, Any], where: str) -> Message:
    role = _FROM.get(given["from"]) if isinstance(given["from"], str) else None
    if role is None:
        raise BadRow(f"unknown role `{given['from']}`", where)
    if role == "function_call":
        text = _text(given.get("value"), where)
        return Message("assistant", "", calls=tuple(_function(call, where) for call in _json_calls(text, where)))
    return _message({"role": role, "content": given.get("value")}, where, set())


def _json_calls(text: str, where: str) -> list[object]:
    call = _parsed(text, "a call is not JSON", where)
    return call if isinstance(call, list) and call else [call]


def _text(content: object, where: str, may_be_empty: bool = False) -> str:
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        content = "".join(part["text"] for part in content)
    if content is None and may_be_empty:
        return ""
    if content is not None and not isinstance(content, str):
        raise BadRow("a turn's content is not text", where)
    if not may_be_empty and (content is None or not content.strip()):
        raise BadRow("empty turn", where)
    return content or ""


def _name(name: object, role: Role, where: str) -> str | None:
    allowed = {"system": (PLUGIN, INTERPRETER), "environment": (PLUGIN, INTERPRETER), "user": (FILE,)}.get(role, ())
    if name is None:
        return None
    if not isinstance(name, str) or name not in allowed:
        raise BadRow(f"the chat format has no {role} named `{name}`", where)
    return name


def _weight(given: Mapping[str, Any], where: str) -> bool:
    """OpenAI's key for turns that are context only."""
    weight = given.get("weight", 1)
    if weight not in (0, 1):
        raise BadRow("a weight is neither 0 nor 1", where)
    return bool(weight)


def _calls(given: object, where: str, code_calls: set[str]) -> tuple[Call, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(call, dict) for call in given):
        raise BadRow("`tool_calls` are not a list of objects", where)
    calls = []
    for call in given:
        if call.get("type") == _CODE:
            if "id" in call:
                code_calls.add(str(call["id"]))
            calls.append(_code(call.get(_CODE), where))
        else:
            calls.append(_function(call.get("function"), where))
    return tuple(calls)


def _code(given: object, where: str) -> Call:
    code = given.get("input") if isinstance(given, dict) else None
    if not isinstance(code, str):
        raise BadRow("a call of the interpreter has no `input`", where)
    return Call(INTERPRETER, f"```python\n{code}\n```")


def _function(given: object, where: str) -> Call:
    """A plugin's call; arguments may be an object, or JSON of one as OpenAI has them."""
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise BadRow("a call has no name", where)
    arguments = given.get("arguments", given.get("parameters"))
    if isinstance(arguments, str):
        arguments = _parsed(arguments, "a call's arguments are not JSON", where)
    if not isinstance(arguments, dict):
        raise BadRow("a call's arguments are not an object", where)
    return Call(PLUGIN, _dumped({"name": given["name"], "parameters": arguments}))


def _tools(given: object) -> Message | None:
    """The system turn that lists the tools: an array of their names, descriptions and parameters."""
    if isinstance(given, str):  # ShareGPT
        given = _parsed(given, "`tools` are not JSON", "") if given.strip() else None
    if given is None or given == []:
        return None
    if not isinstance(given, list):
        raise BadRow("`tools` are not a list")
    functions = [tool.get("function", tool) if isinstance(tool, dict) else tool for tool in given]
    if not all(isinstance(function, dict) and isinstance(function.get("name"), str) for function in functions):
        raise BadRow("a tool has no name")
    return Message("system", _dumped(functions, indent=4), PLUGIN)


def _parsed(text: str, reason: str, where: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise BadRow(reason, where) from None


def _dumped(value: object, indent: int | None = None) -> str:
    """JSON as the exported template writes it."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
