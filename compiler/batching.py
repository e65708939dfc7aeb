"""How a step's sequences are cut into micro-batches, where the spec leaves it to the compiler. The rule is ours."""

# Enough rows for the matrix products of a layer to be efficient; more only costs activations.
MICRO_BATCH_TOKENS = 8192


def choose_micro_batch(
    sequences_per_rank: int, sequence_length: int, pipeline: int, virtual_pipeline: int
) -> int | None:
    """The largest power of two that divides a rank's sequences and holds at most MICRO_BATCH_TOKENS tokens.

    A pipeline needs at least as many micro-batches as ranks to be full, and an interleaved one a multiple: None if
    no size gives that multiple.
    """
    sizes = []
    size = 1
    while sequences_per_rank % size == 0:
        micro_batches = sequences_per_rank // size
        if virtual_pipeline == 1 or micro_batches % pipeline == 0:
            sizes.append(size)
        size *= 2
    small = [size for size in sizes if size * sequence_length <= MICRO_BATCH_TOKENS]
    full = [size for size in small if sequences_per_rank // size >= pipeline]
    return max(full or small or sizes[:1], default=None)
