"""The conversations stage: every row is used or told, whatever the files and the number of workers."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from tests.runtime.align.data import golden
from tests.runtime.align.data.conftest import chat, write_rows

from trainwright.runtime.align.data.chat import Message, answer, render
from trainwright.runtime.align.data.encode import encode_prompt
from trainwright.runtime.align.data.messages import ChatRow, parse_row
from trainwright.runtime.align.data.rows import Conversations, Queries, RankedRows
from trainwright.runtime.data.errors import DataError

Source, Run = Callable[..., Any], Callable[..., Any]


def _expected(row: dict[str, Any]) -> tuple[list[int], list[bool]]:
    parsed = parse_row(json.dumps(row).encode(), "chat")
    assert isinstance(parsed, ChatRow)
    rendered = render(parsed.messages, golden.vocabulary(), code_newline=True)
    return rendered.tokens, rendered.trained


def test_rows_of_all_files_come_back_as_they_are_rendered(source: Source, run_stage: Run, tmp_path: Path) -> None:
    rows = [chat(f"What is {n} + {n}?", f"{2 * n}", domain="math" if n % 2 else "talk") for n in range(7)]
    lines = [json.dumps(row).encode() for row in rows]
    folder = tmp_path / "chats"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines[0] + b"\r\n\n" + lines[1])
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines[2] + b"\n" + lines[3] + b"\n"))
    (folder / "c.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines[4] + b"\n"))
    (folder / "d.jsonl").write_bytes(b"\n".join(lines[5:]))
    made = run_stage(source("talk", "chats", "chat"), root=tmp_path)
    conversations = Conversations(made.folder, "talk", "train")
    assert [(c.tokens_L.tolist(), c.trained_L.tolist()) for c in conversations] == [_expected(row) for row in rows]
    assert [c.domain for c in conversations] == [row["domain"] for row in rows]
    assert len(Conversations(made.folder, "talk", "held_out")) == 0
    assert len({c.id for c in conversations}) == len(rows)
    tokens = sum(len(c.tokens_L) for c in conversations)
    trained = sum(int(c.trained_L.sum()) for c in conversations)
    counts = {"rows": 7, "used": 7, "held_out": 0, "duplicates": 0, "tokens": tokens, "trained_tokens": trained}
    assert made.sources["talk"] == {"kind": "chat", "skipped": {}} | counts
    assert made.said == [f"talk: 7 rows of {tokens:,} tokens, {trained:,} of them trained, 0 held out"]
    for number, row in enumerate(rows):
        turns = conversations.turns(number)
        assert [turn.role for turn in turns] == [message["role"] for message in row["messages"]]
        assert (turns[0].start, turns[-1].stop) == (1, conversations.lengths_R[number])


def test_ranked_answers_and_queries_are_rendered_too(source: Source, run_stage: Run, tmp_path: Path) -> None:
    rows = [{"prompt": "Hello", "responses": ["Hi", '"Ho"', "\nNo"], "margin": 0.5, "domain": "talk"}]
    write_rows(tmp_path / "pairs.jsonl", rows)
    write_rows(tmp_path / "questions.jsonl", [{"prompt": "Hello", "domain": "talk"}])
    made = run_stage(
        source("pairs", "pairs.jsonl", "preference"), source("questions", "questions.jsonl", "prompts"), root=tmp_path
    )
    vocabulary = golden.vocabulary()
    prompt = encode_prompt([Message("user", "Hello")], vocabulary, code_newline=True)
    answers = [answer(Message("assistant", text), vocabulary, code_newline=True) for text in rows[0]["responses"]]
    (ranked,) = RankedRows(made.folder, "pairs", "train")
    assert (ranked.prompt.tolist(), [a.tolist() for a in ranked.answers]) == (prompt, answers)
    assert (ranked.margin, ranked.domain) == (0.5, "talk")
    (query,) = Queries(made.folder, "questions", "train")
    assert (query.prompt.tolist(), query.domain) == (prompt, "talk")
    whole = render([Message("user", "Hello"), Message("assistant", "Hi")], vocabulary, code_newline=True).tokens
    assert [vocabulary.begin, *ranked.prompt, *ranked.answers[0], *vocabulary.encode("\n")] == whole
    with pytest.raises(DataError, match="rows of kind `preference`, not `chat`"):
        Conversations(made.folder, "pairs", "train")
    with pytest.raises(DataError, match="no rows of source `others`"):
        Queries(made.folder, "others", "train")


def test_bad_rows_and_duplicates_are_told_by_file_and_line(source: Source, run_stage: Run, tmp_path: Path) -> None:
    *good, empty = (json.dumps(chat("Hello", text)).encode() for text in ("Hi", "Ho", "Hu", " "))
    lines = [
        good[0],
        b"{",
        b"",
        good[1],
        b'{"messages": "\xff"}',
        good[0],
        empty,
        good[2],
    ]
    (tmp_path / "talk.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    talk = source("talk", "talk.jsonl", "chat")
    made = run_stage(talk, root=tmp_path, bad_rows=0.5)
    assert len(Conversations(made.folder, "talk", "train")) == 3
    ledger = made.sources["talk"]
    assert (ledger["rows"], ledger["used"], ledger["duplicates"]) == (7, 3, 1)
    assert ledger["skipped"] == {"empty turn": 1, "not UTF-8": 1, "not a JSON object": 1}
    assert [(row["file"], row["line"], row["reason"], row.get("detail")) for row in made.unused] == [
        ("talk.jsonl", 2, "not a JSON object", None),
        ("talk.jsonl", 5, "not UTF-8", None),
        ("talk.jsonl", 7, "empty turn", "message 2"),
        ("talk.jsonl", 6, "duplicate", "of talk.jsonl:1"),
    ]
    assert "not used: 1 duplicates, 1 empty turn, 1 not UTF-8, 1 not a JSON object" in made.said[0]
    with pytest.raises(DataError) as caught:
        run_stage(talk, root=tmp_path, bad_rows=0.4)
    assert str(caught.value) == (
        "source `talk`: 3 of 7 rows cannot be used, and `chat.bad_rows` allows 40.00%: "
        "talk.jsonl:2: not a JSON object; talk.jsonl:5: not UTF-8; talk.jsonl:7: empty turn (message 2)"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n\n", "source `talk` has no rows that can be used"),
        (
            b"{\n" * 9,
            r"9 of 9 rows cannot.*talk.jsonl:5: not a JSON object \.\.\. \(all in .*ledger.jsonl`\)$",
        ),
    ],
)
def test_a_source_without_rows_is_told(
    content: bytes, message: str, source: Source, run_stage: Run, tmp_path: Path
) -> None:
    (tmp_path / "talk.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        run_stage(source("talk", "talk.jsonl", "chat"), root=tmp_path)


def test_what_is_held_out_depends_on_the_prompt_alone(source: Source, run_stage: Run, tmp_path: Path) -> None:
    pairs = [{"prompt": f"Question {n}", "chosen": f"yes {k}", "rejected": "no"} for n in range(60) for k in range(2)]
    write_rows(tmp_path / "pairs.jsonl", pairs)
    write_rows(tmp_path / "questions.jsonl", [{"prompt": f"Question {n}"} for n in range(60)])
    sources = (source("pairs", "pairs.jsonl", "preference"), source("questions", "questions.jsonl", "prompts"))
    made = run_stage(*sources, root=tmp_path, held_out=0.2)
    held = {row.prompt.tobytes() for row in RankedRows(made.folder, "pairs", "held_out")}
    kept = {row.prompt.tobytes() for row in RankedRows(made.folder, "pairs", "train")}
    assert 4 <= len(held) <= 24
    assert not held & kept
    assert {row.prompt.tobytes() for row in Queries(made.folder, "questions", "held_out")} == held
    other = run_stage(*sources, root=tmp_path, held_out=0.2, seed=2)
    assert {row.prompt.tobytes() for row in RankedRows(other.folder, "pairs", "held_out")} != held


def test_the_number_of_workers_changes_no_byte(
    source: Source, run_stage: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainwright.runtime.align.data import conversations

    monkeypatch.setattr(conversations, "_BATCH_BYTES", 500)  # several batches of a file
    write_rows(tmp_path / "talk.jsonl", [chat(f"What is {n % 40}?", "A number. " * (n % 7 + 1)) for n in range(80)])
    talk = source("talk", "talk.jsonl", "chat")
    one, two = (run_stage(talk, root=tmp_path, held_out=0.1, workers=workers) for workers in (1, 2))
    assert one.files() == two.files()
    assert one.said == two.said


def test_reading_stops_after_the_size_that_was_asked_for(source: Source, run_stage: Run, tmp_path: Path) -> None:
    write_rows(tmp_path / "talk.jsonl", [chat(f"What is {n}?", "A number.") for n in range(10)])
    size = len((tmp_path / "talk.jsonl").read_bytes().split(b"\n")[0]) + 1
    made = run_stage(source("talk", "talk.jsonl", "chat", max_size_bytes=3 * size - 5), root=tmp_path)
    assert made.sources["talk"]["rows"] == 3


def test_rows_in_a_remote_archive_are_read(source: Source, run_stage: Run, tmp_path: Path) -> None:
    import io
    import tarfile

    import fsspec

    data = json.dumps(chat("Hello", "Hi")).encode()
    with fsspec.open("memory://chats/talk.tar", "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("in/a.jsonl", "in/b.txt"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    talk = source("talk", "memory://chats/talk.tar", "chat", include=("**/*.jsonl",))
    made = run_stage(talk, root=tmp_path)
    (conversation,) = Conversations(made.folder, "talk", "train")
    assert np.array_equal(conversation.tokens_L, _expected(chat("Hello", "Hi"))[0])
