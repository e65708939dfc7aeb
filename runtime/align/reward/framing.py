"""How a conversation is put to the reward model: `<s>`, its domain's condition, prompt, answer, the reward token.

The condition is a system turn that no other model is ever shown (InternLM2, section 4.2.1). The score is read at the
reward token, which ends every sequence.

L: tokens of a conversation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.align.data.chat import Message, turn
from trainwright.runtime.align.data.rows import RankedRows, Tokens
from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.spec.plan import ConditionPlan


@dataclass(frozen=True)
class Framing:
    """What is put around prompts and answers. A domain without a condition has none."""

    begin: int
    reward: int
    conditions: Mapping[str, Tokens]  # whole system turns, by domain

    @classmethod
    def of(cls, conditions: Mapping[str, ConditionPlan], root: Path, vocabulary: Vocabulary) -> "Framing":
        """Conditions are the texts of their files under `root`, without white space at their ends. Raises DataError."""
        turns = {
            # `code_newline` says nothing of plain system turns.
            domain: turn(Message("system", _text(root / plan.path)), vocabulary, code_newline=False).tokens
            for domain, plan in conditions.items()
        }
        return cls(
            begin=vocabulary.begin,
            reward=vocabulary.reward,
            conditions={domain: np.array(tokens, dtype=np.int32) for domain, tokens in turns.items()},
        )

    def around(self, rows: RankedRows) -> NDArray[np.int64]:
        """around_R: the tokens of each row's conversations that are neither prompt nor answer."""
        return 2 + rows.by_domain({domain: len(tokens) for domain, tokens in self.conditions.items()})

    def whole(self, domain: str, prompt: Tokens, answer: Tokens) -> Tokens:
        """tokens_L of a conversation; `prompt` is without `<s>` and ends with the generation prompt."""
        condition = self.conditions.get(domain, np.empty(0, np.int32))
        return np.concatenate(
            [np.array([self.begin], np.int32), condition, prompt, answer, np.array([self.reward], np.int32)]
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the condition `{path}` cannot be read: {error}") from None
