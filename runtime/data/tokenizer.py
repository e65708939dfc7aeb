"""Documents -> a SentencePiece model of InternLM2's shape: BPE, bytes for what is rare, special tokens at the end.

Ids: 0 `<unk>`, 1 `<s>`, 2 `</s>`, the 256 bytes, the pieces learnt, the spare ones, and last the six chat tokens in
InternLM2's order. InternLM2 has them as user-defined pieces, which any text that spells `[UNUSED_TOKEN_145]` yields;
here they are control pieces, which no text yields (exported to transformers they are special tokens as usual).
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import sentencepiece

from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.inputs import holding
from trainwright.runtime.data.pieces import append_control_pieces
from trainwright.runtime.data.sample import draw
from trainwright.runtime.data.vocabulary import MODEL_FILE, SPECIAL_TOKENS_FILE
from trainwright.spec.plan import TokenizerStage

CHAT_TOKENS = (
    "<|plugin|>",
    "<|interpreter|>",
    "<|action_end|>",
    "<|action_start|>",
    "<|im_end|>",
    "<|im_start|>",
)
_LONGEST_CHARACTERS = 1 << 14  # of one piece of training text; a longer one is cut, SentencePiece would skip it
# The trainer drops a newline at the end of what it is given and keeps one at the beginning. Lines are therefore given
# with the newlines before them, so that runs of newlines become pieces.
_LINES = re.compile(rf"\n{{0,64}}[^\n]{{1,{_LONGEST_CHARACTERS}}}")


def run(
    stage: TokenizerStage, *, root: Path, inputs: dict[str, Path], out: Path, progress: Callable[[str], None]
) -> dict[str, object]:
    """`out` holds `tokenizer.model` and `special_tokens.json` (name -> id), with exactly `stage.vocab_size` ids.

    Returns what the tokenizer was trained on, per source. Raises DataError.
    """
    if stage.path is not None:
        model, sample = _existing(root / stage.path), {}
    else:
        drawn = draw(holding(inputs, "documents"), stage.mixture, stage.sample_bytes, stage.seed)
        sample = {name: source.size_bytes for name, source in drawn.items()}
        progress(f"training {stage.vocab_size:,} pieces on {sum(sample.values()) / 1e6:.1f} MB of text")
        model = train(stage, (text for source in drawn.values() for text in source.texts()))
    specials = special_tokens(model, stage.vocab_size)
    (out / MODEL_FILE).write_bytes(model)
    (out / SPECIAL_TOKENS_FILE).write_text(json.dumps(specials, indent=2) + "\n", encoding="utf-8")
    return {"vocab_size": stage.vocab_size, "trained_on_bytes": sample}


def train(stage: TokenizerStage, texts: Iterable[str]) -> bytes:
    """The model's bytes, the same for the same texts. Raises DataError if the texts do not fit the vocabulary."""
    names = (*(f"[UNUSED_TOKEN_{index}]" for index in range(stage.spare_tokens)), *CHAT_TOKENS)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=model,
            model_type=stage.algorithm,
            vocab_size=stage.vocab_size - len(names),
            character_coverage=stage.character_coverage,
            byte_fallback=stage.byte_fallback,
            split_digits=stage.split_digits,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,  # indentation
            max_sentence_length=8 * _LONGEST_CHARACTERS,  # bytes
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            num_threads=1,  # BPE hardly uses more, and the model records the number
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise DataError(_told(str(error), stage, len(names))) from None
    return append_control_pieces(model.getvalue(), names, stage.vocab_size)


def special_tokens(model: bytes, vocab_size: int) -> dict[str, int]:
    """Name -> id of the tokens that are not text. Raises DataError if the model hasn't `vocab_size` pieces.

    In InternLM2's own model the last six spare pieces serve as the chat tokens.
    """
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    size = pieces.get_piece_size()
    if size != vocab_size:
        raise DataError(f"the tokenizer has {size:,} pieces where the spec says {vocab_size:,}")
    specials = {pieces.id_to_piece(id_): id_ for id_ in range(size) if pieces.is_control(id_)}
    last = range(size - len(CHAT_TOKENS), size)
    if all(pieces.id_to_piece(id_).startswith("[UNUSED_TOKEN_") for id_ in last):
        specials |= dict(zip(CHAT_TOKENS, last, strict=True))
    return specials


def _existing(path: Path) -> bytes:
    try:
        model = path.read_bytes()
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    except OSError as error:
        raise DataError(f"the tokenizer `{path}` cannot be read: {error.strerror}") from None
    except RuntimeError:
        raise DataError(f"`{path}` is not a SentencePiece model") from None
    if pieces.bos_id() < 0 or pieces.eos_id() < 0:
        raise DataError(f"the tokenizer `{path}` has no pieces that begin and end a document (`<s>`, `</s>`)")
    return model


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from _LINES.findall(text)


def _told(error: str, stage: TokenizerStage, specials: int) -> str:
    if found := re.search(r"too high .*<= (\d+)", error):
        return (
            f"the text is too small for a vocabulary of {stage.vocab_size:,}: "
            f"it gives at most {int(found[1]) + specials:,} pieces"
        )
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", error):
        return (
            f"a vocabulary of {stage.vocab_size:,} is too small for the characters of the text: it needs at least "
            f"{int(found[1]) + specials:,}, or a `character_coverage` below {stage.character_coverage}"
        )
    return f"SentencePiece could not train: {error}"
