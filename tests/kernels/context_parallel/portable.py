"""The Triton kernels as local attention beside the definition, in Triton's interpreter: `python portable.py`.

Run by test_context_parallel.py with TRITON_INTERPRET=1, not collected. Prints the largest relative difference of o,
lse, gq, gk and gv, where the gradients are those of a part of a larger attention.
"""

import json

import torch

from trainwright.kernels.context_parallel.local import local_attention

CPU = torch.device("cpu")


def main() -> None:
    torch.manual_seed(0)
    documents = ((0, 0, 3, 0, 21), (0, 4, 18, 22, 18), (1, 1, 5, 0, 9))
    q, go, k, v = (torch.randn(2, size, heads, 16) for size, heads in ((24, 4), (24, 4), (40, 2), (40, 2)))
    ours, plain = (local_attention(name, torch.float32, CPU) for name in ("portable", "reference"))
    largest = []
    for causal in (True, False):
        o, lse = plain.forward(q, k, v, documents, 0.3, causal)
        more = lse + 0.5  # as if other keys had been seen too
        found = (*ours.forward(q, k, v, documents, 0.3, causal),
                 *ours.backward(go, q, k, v, o, more, documents, 0.3, causal))  # fmt: skip
        expected = (o, lse, *plain.backward(go, q, k, v, o, more, documents, 0.3, causal))
        for mine, theirs in zip(found, expected, strict=True):
            seen = theirs.isfinite()
            assert torch.equal(seen, mine.isfinite())
            largest.append(((mine - theirs)[seen].abs().max() / theirs[seen].abs().max()).item())
    print(json.dumps(largest))


if __name__ == "__main__":
    main()
