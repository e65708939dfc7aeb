"""A labeller that is a program: one of the user's, or a stronger model behind an OpenAI-compatible endpoint.

A command is started in the spec's folder, reads candidates from its standard input and writes labels to its standard
output, both as JSON lines. An endpoint is asked twice, with the answers swapped; only what it says both times counts.
"""

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainwright.runtime.align.online.labels import TIE
from trainwright.runtime.data.errors import DataError
from trainwright.spec.plan import LabellerPlan

_QUESTION = (
    "Two answers to one conversation follow. Say which one is better for somebody who wants what the domain `{domain}` "
    "asks for: reply with A, B or TIE and nothing else.\n\n{prompt}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}\n"
)


def ask(labeller: LabellerPlan, candidates: Sequence[dict[str, Any]], root: Path) -> list[dict[str, Any]]:
    """Labels of the candidates: rows of `id` and `choice`. Raises DataError if the labeller fails."""
    if labeller.command is not None:
        return _command(labeller.command, labeller.timeout_s, candidates, root)
    rows = []
    for candidate in candidates:
        first = _judge(labeller, candidate, swapped=False)
        second = _judge(labeller, candidate, swapped=True)
        rows.append({"id": candidate["id"], "choice": first if first == second else TIE})
    return rows


def _command(
    command: tuple[str, ...], timeout_s: float, candidates: Sequence[dict[str, Any]], root: Path
) -> list[dict[str, Any]]:
    text = "".join(json.dumps(candidate, ensure_ascii=False) + "\n" for candidate in candidates)
    name = " ".join(command)
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=root,
            timeout=timeout_s,
            check=False,
        )
    except OSError as error:
        raise DataError(f"the labeller `{name}` cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise DataError(f"the labeller `{name}` took longer than its {timeout_s:g} s") from None
    if done.returncode:
        told = done.stderr.strip().splitlines() or ["it did not say why"]
        raise DataError(
            f"the labeller `{name}` ended with exit code {done.returncode}: {told[-1] if told else 'no word'}"
        )
    rows = []
    for number, line in enumerate(done.stdout.splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict):
            raise DataError(f"the labeller `{name}` wrote no JSON object in line {number}: {line[:80]!r}")
        rows.append(row)
    return rows


def _judge(labeller: LabellerPlan, candidate: dict[str, Any], *, swapped: bool) -> int | str:
    """0 or 1 in the candidate's own order, or a tie."""
    order = (1, 0) if swapped else (0, 1)
    texts = [candidate["answers"][place]["text"] for place in order]
    prompt = "\n".join(f"{message['role']}: {message['content']}" for message in candidate["prompt"])
    question = _QUESTION.format(domain=candidate["domain"], prompt=prompt, first=texts[0], second=texts[1])
    reply = _complete(labeller, question).strip().upper()
    if reply.startswith("TIE"):
        return TIE
    if reply[:1] not in ("A", "B"):
        raise DataError(f"the labeller at {labeller.endpoint} replied neither A nor B nor TIE: {reply[:80]!r}")
    return order["AB".index(reply[0])]


def _complete(labeller: LabellerPlan, question: str) -> str:
    body = {"model": labeller.model or "", "temperature": 0, "messages": [{"role": "user", "content": question}]}
    headers = {"Content-Type": "application/json"}
    if labeller.api_key is not None:
        variable = labeller.api_key.removeprefix("env:")
        if variable not in os.environ:
            raise DataError(f"the labeller's secret is in the environment variable {variable}, which is not set")
        headers["Authorization"] = f"Bearer {os.environ[variable]}"
    url = f"{(labeller.endpoint or '').rstrip('/')}/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=labeller.timeout_s) as response:
            reply = json.load(response)
        return str(reply["choices"][0]["message"]["content"])
    except (urllib.error.URLError, TimeoutError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"the labeller at {url} cannot be asked: {error}") from None
