"""A labeller that is a rule: which of two answers does better by what can be checked.

Reads candidates from standard input and writes labels to standard output, both as JSON lines (docs/alignment.md). A
candidate on which both do equally well gets no label.
"""

import json
import sys

from facts import quality


def main() -> None:
    for line in sys.stdin:
        candidate = json.loads(line)
        question = candidate["prompt"][-1]["content"]
        first, second = (quality(question, candidate["domain"], each["text"]) for each in candidate["answers"])
        if first != second:
            print(json.dumps({"id": candidate["id"], "choice": 0 if first > second else 1}))


if __name__ == "__main__":
    main()
