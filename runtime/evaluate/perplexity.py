"""Held-out loss per source: nats per token, perplexity and bits per byte, beside what gzip and xz need.

Conventions. A document is `<s>`, its text, `</s>`. Every token but `<s>` is predicted exactly once, so the cost of
`</s>` is included in all figures and `</s>` is counted as a token. Documents are cut every `sequence_length` tokens; a
later piece is given the token before it and no other context. nats per token = sum of -ln p / tokens; perplexity =
exp of it; bits per byte = sum of -ln p / ln 2 / bytes of the documents' UTF-8 text, which special tokens do not
lengthen, so models with different tokenizers can be compared. The compressors are given the same documents, decoded
from their tokens and joined without anything between them.

Shape suffixes: B windows, S positions.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from megatron.core.models.gpt import GPTModel

from trainwright.runtime import host
from trainwright.runtime.data.held_out import Windows, held_out_bytes, held_out_windows
from trainwright.runtime.data.indexed import TokenizedSource, tokens_path
from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.runtime.evaluate.compress import CompressedSizes, Compressors
from trainwright.spec.plan import PerplexityPlan

SCORES_FILE = "scores.json"


@dataclass(frozen=True)
class Score:
    """One source's held-out text under one model; the conventions are those of this module."""

    tokens: int
    bytes: int
    nats: float
    nats_per_token: float
    perplexity: float
    bits_per_byte: float
    gzip_bits_per_byte: float
    xz_bits_per_byte: float


def write_scores(
    model: GPTModel,
    vocabulary: Vocabulary,
    tokens_folder: Path,
    plan: PerplexityPlan,
    out: Path,
    progress: Callable[[str], None],
) -> dict[str, Score]:
    """`out/scores.json` holds the score of every source by name, as it is returned. Raises DataError."""
    scores: dict[str, Score] = {}
    for source in plan.sources:
        windows = held_out_windows(tokens_folder, source, plan.sequence_length, plan.batch)
        nats, tokens = summed_loss(model, windows)
        documents = TokenizedSource(tokens_path(tokens_folder, source, "held_out"))
        compressed = compressed_sizes(documents, vocabulary)
        scores[source] = score(nats, tokens, held_out_bytes(tokens_folder, source), compressed)
        progress(
            f"held-out {source}: {scores[source].bits_per_byte:.3f} bits per byte (gzip -9 "
            f"{scores[source].gzip_bits_per_byte:.3f}, xz -9 {scores[source].xz_bits_per_byte:.3f}), "
            f"perplexity {scores[source].perplexity:.1f}"
        )
    content = {source: asdict(row) for source, row in scores.items()}
    (out / SCORES_FILE).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return scores


def summed_loss(model: GPTModel, batches: Iterable[Windows]) -> tuple[float, int]:
    """The sum of -ln p over all tokens to be predicted, and their number."""
    nats, tokens = 0.0, 0
    for windows in batches:
        tokens_BS1 = torch.from_numpy(windows.tokens_BS1).to(host.device())
        mask_BS = torch.from_numpy(windows.mask_BS).to(host.device())
        with torch.no_grad():
            # Padding stands at the end, where the causal mask hides it from every real token.
            loss_BS = model(tokens_BS1[:, :-1], None, None, labels=tokens_BS1[:, 1:])
        nats += float(loss_BS[mask_BS].double().sum())
        tokens += int(mask_BS.sum())
    return nats, tokens


def compressed_sizes(documents: TokenizedSource, vocabulary: Vocabulary) -> CompressedSizes:
    """What the compressors make of the documents' text."""
    compressors = Compressors()
    for index in range(len(documents)):
        compressors.feed(vocabulary.decode(documents.tokens(index).tolist()).encode())
    return compressors.finish()


def score(nats: float, tokens: int, text_bytes: int, compressed: CompressedSizes) -> Score:
    """The figures that follow from the sums."""
    return Score(
        tokens=tokens,
        bytes=text_bytes,
        nats=nats,
        nats_per_token=nats / tokens,
        perplexity=math.exp(nats / tokens),
        bits_per_byte=nats / math.log(2) / text_bytes,
        gzip_bits_per_byte=8 * compressed.gzip_bytes / compressed.text_bytes,
        xz_bits_per_byte=8 * compressed.xz_bytes / compressed.text_bytes,
    )
