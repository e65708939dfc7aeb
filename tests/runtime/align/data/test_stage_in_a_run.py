"""The conversations stage as the executor runs it: done once, reused, and a user's mistake as one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from tests.runtime.align.data import golden
from tests.runtime.align.data.conftest import chat, write_rows

from trainwright.runtime.align.data.rows import Conversations
from trainwright.runtime.execute import EXIT_FAILED, EXIT_OK, Documents, execute
from trainwright.spec.plan import ConversationsStage, Hardware, Plan, SourcePlan, TokenizerStage, fingerprint


def _plan(talk: SourcePlan) -> Plan:
    tokenizer = TokenizerStage(
        name="tokenizer",
        needs=(),
        path="tokenizer.model",
        digest="golden",
        algorithm="bpe",
        vocab_size=800,
        mixture={},
        byte_fallback=False,
        split_digits=False,
        character_coverage=1.0,
        spare_tokens=0,
        sample_bytes=0,
        seed=1,
        workers=1,
    )
    tokenizer = msgspec.structs.replace(tokenizer, fingerprint=fingerprint(tokenizer, {}))
    stage = ConversationsStage(
        name="conversations",
        needs=("tokenizer",),
        sources=(talk,),
        vocab_size=800,
        held_out=0.0,
        code_newline=True,
        bad_rows=0.0,
        seed=1,
        workers=1,
    )
    stage = msgspec.structs.replace(stage, fingerprint=fingerprint(stage, {"tokenizer": tokenizer.fingerprint}))
    hardware = Hardware(
        name="cpu",
        device="cpu",
        nodes=1,
        gpus_per_node=1,
        memory_bytes=None,
        peak_flops=None,
        price_per_gpu_hour=None,
    )
    return Plan(
        version=1,
        compiler="test",
        name="talk",
        root="..",
        flops_convention="",
        hardware=hardware,
        stages=(tokenizer, stage),
        estimates=(),
        assumptions=(),
        notices=(),
    )


def test_it_is_done_once_reused_and_its_mistakes_are_one_sentence(source: Callable[..., Any], tmp_path: Path) -> None:
    shutil.copy(golden.FOLDER / "tokenizer.model", tmp_path)
    run = tmp_path / "run"
    said: list[str] = []

    def go(digest: str) -> int:
        said.clear()
        return execute(
            _plan(source("talk", "talk.jsonl", "chat", digest=digest)), run, documents=Documents(), say=said.append
        )

    write_rows(tmp_path / "talk.jsonl", [chat("Hello", "Hi"), chat("Hello", "Ho")])
    assert go("one") == EXIT_OK
    assert len(Conversations(run / "stages" / "conversations", "talk", "train")) == 2
    assert json.loads((run / "stages" / "conversations" / "ledger.json").read_bytes())["talk"]["used"] == 2
    assert go("one") == EXIT_OK
    assert said == ["tokenizer: done before, reused", "conversations: done before, reused"]
    write_rows(tmp_path / "talk.jsonl", [chat("Hello", "Hi"), chat("Hello", "")])
    assert go("two") == EXIT_FAILED
    assert said[-1] == (
        "error: stage `conversations`: source `talk`: 1 of 2 rows cannot be used, and `chat.bad_rows` allows 0.00%: "
        "talk.jsonl:2: empty turn (message 2)"
    )
