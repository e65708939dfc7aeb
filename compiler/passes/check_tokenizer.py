"""There is one tokenizer, it has the model's vocabulary, and its fixed pieces leave room for learned ones."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.spec.diagnostics import Diagnostic
from trainwright.spec.files import is_remote

CONTROL_PIECES = 3  # <unk>, <s>, </s>
CHAT_PIECES = 6
BYTE_PIECES = 256


def check_tokenizer(draft: Draft) -> Iterator[Diagnostic]:
    tokenizer = draft.spec.tokenizer
    train = tokenizer.train
    if tokenizer.path is None and train is None:
        yield Diagnostic(
            "TW210",
            "the tokenizer is neither trained nor taken from a file",
            draft.key_at("tokenizer"),
            'write `train = { algorithm = "bpe" }` or `path = "tokenizer.model"`',
        )
    if tokenizer.path is not None and train is not None:
        message = "the tokenizer is both trained and taken from a file"
        label = draft.label("and here it is trained", "tokenizer", "train")
        where = draft.key_at("tokenizer", "path")
        yield Diagnostic("TW211", message, where, "take out `path` or `train`", label)
    elif tokenizer.path is not None and not is_remote(tokenizer.path) and not (draft.root / tokenizer.path).is_file():
        where = draft.value_at("tokenizer", "path")
        message = f"there is no file `{tokenizer.path}`"
        yield Diagnostic("TW214", message, where, "relative paths start at the spec's folder")
    if train is None:
        return
    vocabulary = draft.spec.model.vocab_size
    if train.vocab_size is not None and train.vocab_size != vocabulary:
        yield Diagnostic(
            "TW212",
            f"the tokenizer's `vocab_size` {train.vocab_size:,} is not the model's {vocabulary:,}",
            draft.value_at("tokenizer", "train", "vocab_size"),
            "leave it out: the model's is taken",
            draft.label(f"{vocabulary:,} rows in the embedding", "model", "vocab_size"),
        )
    fixed = CONTROL_PIECES + CHAT_PIECES + (BYTE_PIECES if train.byte_fallback else 0)
    if fixed + train.spare_tokens >= vocabulary:
        room = vocabulary - fixed - 1
        cure = f"at most {room:,} leave room for one learned piece" if room >= 0 else "take a larger `vocab_size`"
        yield Diagnostic(
            "TW213",
            f"{train.spare_tokens:,} `spare_tokens` and {fixed:,} fixed pieces fill the vocabulary of {vocabulary:,}",
            draft.value_at("tokenizer", "train", "spare_tokens"),
            cure,
        )


CHECK_TOKENIZER = Check(
    check_tokenizer,
    needs=(
        "spec.model",
        "spec.tokenizer",
    ),
    holds="tokenizer is sound",
)
