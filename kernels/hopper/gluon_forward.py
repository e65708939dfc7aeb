"""Forward attention over packed documents in Gluon, for sm_90 alone: a producer warp and two groups of consumers.

After FlashAttention-3 (Shah et al. 2024, arXiv 2407.08608): one warp fetches keys and values through the tensor memory
accelerator into a ring of shared memory, two groups of four warps multiply, each its own 64 queries. Descriptors are
made for each document, so what lies beyond it is zero to both, and no NaN of a neighbour can enter a product.

Gluon has no interpreter. This compiles without spills (`kernels/compile_check.py`); nothing chooses it before
`kernels validate` found it right on a GPU. Until then `kernels/hopper/attention.py` has the forward pass too.

M: queries of a group, N: keys of a block, D: head size.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait

ROWS = 128  # queries of a program
BLOCKS = {64: (128, 3), 128: (128, 2)}  # by head size: keys of a block, and blocks on their way
REGISTERS = 168  # a thread's when it starts; then 240 of a consumer's, 24 of the producer's
_M = gl.constexpr(64)
_LN_2 = gl.constexpr(0.6931471805599453)


@gluon.jit
def _produce(
    q_all, k_all, v_all, q_ring, q_full, ring, m, blocks, D: gl.constexpr, BN: gl.constexpr, STAGES: gl.constexpr
):  # fmt: skip
    """Both groups' queries, then block by block keys and values, as places in the ring become free."""
    k_ring, v_ring, k_full, k_empty, v_full, v_empty = ring
    for group in gl.static_range(2):
        mbarrier.expect(q_full.index(group), _M * D * 2)
        tma.async_copy_global_to_shared(q_all, [m + group * _M, 0], q_full.index(group), q_ring.index(group))
    for n in range(blocks):
        place = n % STAGES
        phase = (n // STAGES) & 1
        mbarrier.wait(k_empty.index(place), phase ^ 1)
        mbarrier.expect(k_full.index(place), BN * D * 2)
        tma.async_copy_global_to_shared(k_all, [n * BN, 0], k_full.index(place), k_ring.index(place))
        mbarrier.wait(v_empty.index(place), phase ^ 1)
        mbarrier.expect(v_full.index(place), BN * D * 2)
        tma.async_copy_global_to_shared(v_all, [n * BN, 0], v_full.index(place), v_ring.index(place))


@gluon.jit
def _attend(
    n, q, ring, m_M, offset, k_length, scale_log2, acc, top, total,
    BN: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr, MASK: gl.constexpr,
    SCORES: gl.constexpr, SUMS: gl.constexpr,
):  # fmt: skip
    """One block of keys taken into the running softmax, in base 2."""
    k_ring, v_ring, k_full, k_empty, v_full, v_empty = ring
    place = n % STAGES
    phase = (n // STAGES) & 1
    mbarrier.wait(k_full.index(place), phase)
    s = warpgroup_mma(
        q, k_ring.index(place).permute((1, 0)), gl.zeros((_M, BN), gl.float32, SCORES), use_acc=False, is_async=True
    )
    s = warpgroup_mma_wait(num_outstanding=0, deps=(s,)) * scale_log2
    mbarrier.arrive(k_empty.index(place), count=1)
    if MASK:
        n_N = n * BN + gl.arange(0, BN, layout=gl.SliceLayout(0, SCORES))
        seen = n_N[None, :] < k_length
        if CAUSAL:
            seen = seen & (n_N[None, :] <= m_M[:, None] + offset)
        s = gl.where(seen, s, float("-inf"))
    new_top = gl.maximum(top, gl.max(s, 1))
    safe_top = new_top
    if MASK:
        safe_top = gl.where(new_top == float("-inf"), 0.0, new_top)  # a row that sees nothing yet
    p = gl.exp2(s - safe_top[:, None])
    shrink = gl.exp2(top - safe_top)
    total = total * shrink + gl.sum(p, 1)
    acc = acc * gl.convert_layout(shrink, gl.SliceLayout(1, SUMS))[:, None]
    p = gl.convert_layout(p.to(v_ring.dtype), gl.DotOperandLayout(operand_index=0, parent=SUMS, k_width=2))
    mbarrier.wait(v_full.index(place), phase)
    acc = warpgroup_mma(p, v_ring.index(place), acc, is_async=True)
    acc = warpgroup_mma_wait(num_outstanding=0, deps=(acc,))
    mbarrier.arrive(v_empty.index(place), count=1)
    return acc, new_top, total


@gluon.jit
def _consume(
    GROUP: gl.constexpr, OUT, LSE, q_ring, q_full, ring, work,
    D: gl.constexpr, BN: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of this group's queries."""
    m, offset, q_length, k_length, blocks, scale_log2, s_ot = work
    SCORES: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BN, 16])
    SUMS: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, D, 16])
    m += GROUP * _M
    m_M = m + gl.arange(0, _M, layout=gl.SliceLayout(1, SCORES))
    acc = gl.zeros((_M, D), gl.float32, SUMS)
    top = gl.full((_M,), float("-inf"), gl.float32, gl.SliceLayout(1, SCORES))
    total = gl.full((_M,), 0.0, gl.float32, gl.SliceLayout(1, SCORES))
    whole = k_length // BN
    if CAUSAL:
        whole = gl.minimum(gl.maximum(0, gl.minimum(k_length, m + offset + 1)) // BN, blocks)
    mbarrier.wait(q_full.index(GROUP), 0)
    q = q_ring.index(GROUP)
    for n in range(whole):
        acc, top, total = _attend(
            n, q, ring, m_M, offset, k_length, scale_log2, acc, top, total, BN, STAGES, CAUSAL, False, SCORES, SUMS
        )
    for n in range(whole, blocks):
        acc, top, total = _attend(
            n, q, ring, m_M, offset, k_length, scale_log2, acc, top, total, BN, STAGES, CAUSAL, True, SCORES, SUMS
        )
    blind = total == 0.0
    total = gl.where(blind, 1.0, total)
    lse = gl.where(blind, float("-inf"), (top + gl.log2(total)) * _LN_2)
    gl.store(LSE + m_M, lse, mask=m_M < q_length)
    acc = acc / gl.convert_layout(total, gl.SliceLayout(1, SUMS))[:, None]
    row_M = m + gl.arange(0, _M, layout=gl.SliceLayout(1, SUMS))
    d = gl.arange(0, D, layout=gl.SliceLayout(0, SUMS))
    at = OUT + row_M.to(gl.int64)[:, None] * s_ot + d[None, :]
    gl.store(at, acc.to(OUT.dtype.element_ty), mask=row_M[:, None] < q_length)


@gluon.jit
def forward(
    Q, K, V, OUT, LSE, DOCUMENTS, TILES, heads, scale_log2,
    s_qb, s_qt, s_qh, s_kb, s_kt, s_kh, s_vb, s_vt, s_vh, s_ob, s_ot, s_oh, s_lb, s_lh,
    GROUP: gl.constexpr, D: gl.constexpr, BN: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp (natural) of one tile of 128 queries of one head; arguments as the portable kernel's."""
    dtype: gl.constexpr = Q.dtype.element_ty
    h = (gl.program_id(0) % heads).to(gl.int64)
    tile = TILES + 2 * (gl.program_id(0) // heads)
    document = DOCUMENTS + 5 * gl.load(tile)
    m = gl.load(tile + 1) * (2 * _M)
    row = gl.load(document).to(gl.int64)
    q_start = gl.load(document + 1).to(gl.int64)
    q_length = gl.load(document + 2)
    k_start = gl.load(document + 3).to(gl.int64)
    k_length = gl.load(document + 4)
    offset = k_length - q_length
    stop = k_length
    if CAUSAL:
        stop = gl.maximum(0, gl.minimum(k_length, m + 2 * _M + offset))
    blocks = gl.cdiv(stop, BN)
    q_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([_M, D], dtype)
    k_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BN, D], dtype)
    keys = gl.maximum(k_length, 1)  # a descriptor of no rows is none; nothing is fetched then
    k_base = K + row * s_kb + k_start * s_kt + h // GROUP * s_kh
    v_base = V + row * s_vb + k_start * s_vt + h // GROUP * s_vh
    q_base = Q + row * s_qb + q_start * s_qt + h * s_qh
    q_all = tma.make_tensor_descriptor(q_base, [q_length, D], [s_qt, 1], [_M, D], q_layout)
    k_all = tma.make_tensor_descriptor(k_base, [keys, D], [s_kt, 1], [BN, D], k_layout)
    v_all = tma.make_tensor_descriptor(v_base, [keys, D], [s_vt, 1], [BN, D], k_layout)
    q_ring = gl.allocate_shared_memory(dtype, [2, _M, D], q_layout)
    k_ring = gl.allocate_shared_memory(dtype, [STAGES, BN, D], k_layout)
    v_ring = gl.allocate_shared_memory(dtype, [STAGES, BN, D], k_layout)
    q_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for group in gl.static_range(2):
        mbarrier.init(q_full.index(group), count=1)
    for place in gl.static_range(STAGES):
        mbarrier.init(k_full.index(place), count=1)
        mbarrier.init(v_full.index(place), count=1)
        mbarrier.init(k_empty.index(place), count=2)
        mbarrier.init(v_empty.index(place), count=2)
    out = OUT + row * s_ob + q_start * s_ot + h * s_oh
    lse = LSE + row * s_lb + h * s_lh + q_start
    ring = (k_ring, v_ring, k_full, k_empty, v_full, v_empty)
    work = (m, offset, q_length, k_length, blocks, scale_log2, s_ot)
    gl.warp_specialize(
        [
            (_consume, (0, out, lse, q_ring, q_full, ring, work, D, BN, STAGES, CAUSAL)),
            (_consume, (1, out, lse, q_ring, q_full, ring, work, D, BN, STAGES, CAUSAL)),
            (_produce, (q_all, k_all, v_all, q_ring, q_full, ring, m, blocks, D, BN, STAGES)),
        ],
        [4, 1],
        [240, 24],
    )
