"""Attention over packed documents for sm_90, forward and backward, through the tensor memory accelerator.

The portable kernels' arithmetic (`kernels/portable/attention.py`: base 2, no atomics, keys and values first, then
queries), but tiles are fetched by descriptors, one for each document and tensor, made by the program that works on it.
A descriptor ends where its document ends and gives zeros beyond, so no NaN of a neighbour can enter a product.

Warp specialisation hands the fetching to warps of their own. Triton does so for one loop of a kernel and without
branches in it, so all blocks of such a loop are masked. Triton's interpreter runs these very kernels on a CPU, where
that changes nothing.

M: rows (queries) of a tile, N: columns (keys), D: head size.
"""

import triton
import triton.language as tl

from trainwright.kernels.portable.attention import LN_2, LOG2_E, document_of, key_bounds, store_rows


@triton.jit
def _rows_of(base, length, s_t, D: tl.constexpr, BLOCK: tl.constexpr):
    """A document's rows of one head. No rows would be no descriptor; nothing is fetched of such a document."""
    return tl.make_tensor_descriptor(base, [tl.maximum(length, 1), D], [s_t, 1], [BLOCK, D])


@triton.jit
def _heads_of(base, length, heads, s_t, s_h, D: tl.constexpr, BLOCK: tl.constexpr):
    """A document's rows of all heads."""
    return tl.make_tensor_descriptor(base, [tl.maximum(length, 1), heads, D], [s_t, s_h, 1], [BLOCK, 1, D])


@triton.jit
def _seen(m, n, q_length, k_length, window, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """Which keys n the queries m see; of queries beyond their document's end nothing is kept, whatever they see."""
    offset = k_length - q_length
    # The last query sees the last key, and none beyond.
    seen = n <= m + offset if CAUSAL else (m < q_length) & (n < k_length)
    if WINDOW:
        seen = seen & (n > m + offset - window)
    return seen


@triton.jit
def forward(
    Q, K, V, OUT, LSE, DOCUMENTS, TILES, heads, scale_log2, window,
    s_qb, s_qt, s_qh, s_kb, s_kt, s_kh, s_vb, s_vt, s_vh, s_ob, s_ot, s_oh, s_lb, s_lh,
    GROUP: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp (natural) of one tile of queries of one head."""
    h = (tl.program_id(0) % heads).to(tl.int64)  # heads of a group run side by side: they share keys in the cache
    row, q_start, q_length, k_start, k_length, number = document_of(DOCUMENTS, TILES, tl.program_id(0) // heads)
    m = number * BM
    m_M = m + tl.arange(0, BM)
    token, first = q_start.to(tl.int64), k_start.to(tl.int64)
    q_rows = _rows_of(Q + row * s_qb + token * s_qt + h * s_qh, q_length, s_qt, D, BM)
    k_rows = _rows_of(K + row * s_kb + first * s_kt + h // GROUP * s_kh, k_length, s_kt, D, BN)
    v_rows = _rows_of(V + row * s_vb + first * s_vt + h // GROUP * s_vh, k_length, s_vt, D, BN)
    q = q_rows.load([m, 0])
    offset = k_length - q_length
    start, _, _, stop = key_bounds(m, offset, k_length, window, BM, BN, CAUSAL, WINDOW)
    top = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    for n in tl.range(start, stop, BN, warp_specialize=True):
        s = tl.dot(q, k_rows.load([n, 0]).T) * scale_log2
        n_N = n + tl.arange(0, BN)
        s = tl.where(_seen(m_M[:, None], n_N[None, :], q_length, k_length, window, CAUSAL, WINDOW), s, float("-inf"))
        new_top = tl.maximum(top, tl.max(s, 1))
        safe_top = tl.where(new_top == float("-inf"), 0.0, new_top)  # a row that sees nothing yet
        p = tl.math.exp2(s - safe_top[:, None])
        shrink = tl.math.exp2(top - safe_top)
        total = total * shrink + tl.sum(p, 1)
        v = v_rows.load([n, 0])
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None])
        top = new_top
    blind = total == 0.0
    total = tl.where(blind, 1.0, total)
    lse = tl.where(blind, float("-inf"), (top + tl.math.log2(total)) * LN_2)
    tl.store(LSE + row * s_lb + h * s_lh + token + m_M, lse, mask=m_M < q_length)
    out = OUT + row * s_ob + token * s_ot + h * s_oh
    store_rows(out, m_M, s_ot, tl.arange(0, D), q_length, acc / total[:, None], D)


@triton.jit
def backward_keys(
    Q, K, V, GO, LSE, DELTA, GK, GV, DOCUMENTS, TILES, kv_heads, scale, scale_log2, window,
    s_qb, s_qt, s_qh, s_kb, s_kt, s_kh, s_vb, s_vt, s_vh, s_gb, s_gt, s_gh,
    s_gkb, s_gkt, s_gkh, s_gvb, s_gvt, s_gvh, s_lb, s_lh,
    GROUP: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SPECIAL: tl.constexpr,
):  # fmt: skip
    """Gradients of one tile of keys and values, summed over the query heads that share them, in a single loop."""
    kv = (tl.program_id(0) % kv_heads).to(tl.int64)
    row, q_start, q_length, k_start, k_length, number = document_of(DOCUMENTS, TILES, tl.program_id(0) // kv_heads)
    n = number * BN
    n_N = n + tl.arange(0, BN)
    token, first = q_start.to(tl.int64), k_start.to(tl.int64)
    q_heads = _heads_of(Q + row * s_qb + token * s_qt + kv * GROUP * s_qh, q_length, GROUP, s_qt, s_qh, D, BM)
    go_heads = _heads_of(GO + row * s_gb + token * s_gt + kv * GROUP * s_gh, q_length, GROUP, s_gt, s_gh, D, BM)
    k_rows = _rows_of(K + row * s_kb + first * s_kt + kv * s_kh, k_length, s_kt, D, BN)
    v_rows = _rows_of(V + row * s_vb + first * s_vt + kv * s_vh, k_length, s_vt, D, BN)
    k = k_rows.load([n, 0])
    v = v_rows.load([n, 0])
    offset = k_length - q_length
    start = 0
    stop = q_length
    if CAUSAL:
        start = tl.maximum(0, n - offset) // BM * BM
    if WINDOW:
        stop = tl.minimum(q_length, tl.maximum(0, n + BN - 1 - offset + window))
    blocks = tl.maximum(0, tl.cdiv(stop - start, BM))
    a_head = tl.maximum(1, blocks)  # a divisor, even where nothing is to be done
    sums = row * s_lb + kv * GROUP * s_lh + token
    gk = tl.zeros([BN, D], tl.float32)
    gv = tl.zeros([BN, D], tl.float32)
    for block in tl.range(0, GROUP * blocks, warp_specialize=SPECIAL):
        h = block // a_head
        m = start + block % a_head * BM
        m_M = m + tl.arange(0, BM)
        q = q_heads.load([m, h, 0]).reshape(BM, D)
        go = go_heads.load([m, h, 0]).reshape(BM, D)
        at = sums + h.to(tl.int64) * s_lh + m_M
        lse = tl.load(LSE + at, mask=m_M < q_length, other=0.0)
        s_NM = tl.dot(k, q.T) * scale_log2
        seen_NM = _seen(m_M[None, :], n_N[:, None], q_length, k_length, window, CAUSAL, WINDOW)
        p_NM = tl.where(seen_NM, tl.math.exp2(s_NM - lse[None, :] * LOG2_E), 0.0)
        gv = tl.dot(p_NM.to(go.dtype), go, gv)
        dp_NM = tl.dot(v, go.T)
        delta = tl.load(DELTA + at, mask=m_M < q_length, other=0.0)
        ds_NM = tl.where(seen_NM, p_NM * (dp_NM - delta[None, :]), 0.0)
        gk = tl.dot(ds_NM.to(q.dtype), q, gk)
    d = tl.arange(0, D)
    gk_rows = GK + row * s_gkb + first * s_gkt + kv * s_gkh
    gv_rows = GV + row * s_gvb + first * s_gvt + kv * s_gvh
    store_rows(gk_rows, n_N, s_gkt, d, k_length, gk * scale, D)
    store_rows(gv_rows, n_N, s_gvt, d, k_length, gv, D)


@triton.jit
def _query_block(
    q, go, k_rows, v_rows, lse, delta, m_M, n, q_length, k_length, window, scale_log2, gq,
    BN: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """What one block of keys adds to the gradient of a tile of queries."""
    k = k_rows.load([n, 0])
    v = v_rows.load([n, 0])
    s = tl.dot(q, k.T) * scale_log2
    dp = tl.dot(go, v.T)
    ds = tl.math.exp2(s - lse[:, None]) * (dp - delta[:, None])
    if MASK:
        n_N = n + tl.arange(0, BN)
        ds = tl.where(_seen(m_M[:, None], n_N[None, :], q_length, k_length, window, CAUSAL, WINDOW), ds, 0.0)
    return tl.dot(ds.to(k.dtype), k, gq)


@triton.jit
def backward_queries(
    Q, K, V, GO, LSE, DELTA, GQ, DOCUMENTS, TILES, heads, scale, scale_log2, window,
    s_qb, s_qt, s_qh, s_kb, s_kt, s_kh, s_vb, s_vt, s_vh, s_gb, s_gt, s_gh, s_gqb, s_gqt, s_gqh, s_lb, s_lh,
    GROUP: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Gradient of one tile of queries of one head."""
    h = (tl.program_id(0) % heads).to(tl.int64)
    row, q_start, q_length, k_start, k_length, number = document_of(DOCUMENTS, TILES, tl.program_id(0) // heads)
    m = number * BM
    m_M = m + tl.arange(0, BM)
    token, first = q_start.to(tl.int64), k_start.to(tl.int64)
    q_rows = _rows_of(Q + row * s_qb + token * s_qt + h * s_qh, q_length, s_qt, D, BM)
    go_rows = _rows_of(GO + row * s_gb + token * s_gt + h * s_gh, q_length, s_gt, D, BM)
    k_rows = _rows_of(K + row * s_kb + first * s_kt + h // GROUP * s_kh, k_length, s_kt, D, BN)
    v_rows = _rows_of(V + row * s_vb + first * s_vt + h // GROUP * s_vh, k_length, s_vt, D, BN)
    q = q_rows.load([m, 0])
    go = go_rows.load([m, 0])
    at = row * s_lb + h * s_lh + token + m_M
    lse = tl.load(LSE + at, mask=m_M < q_length, other=0.0) * LOG2_E
    delta = tl.load(DELTA + at, mask=m_M < q_length, other=0.0)
    offset = k_length - q_length
    start, whole_start, whole_stop, stop = key_bounds(m, offset, k_length, window, BM, BN, CAUSAL, WINDOW)
    gq = tl.zeros([BM, D], tl.float32)
    if WINDOW:
        for n in range(start, whole_start, BN):
            gq = _query_block(
                q, go, k_rows, v_rows, lse, delta, m_M, n, q_length, k_length, window, scale_log2, gq,
                BN, CAUSAL, WINDOW, True,
            )  # fmt: skip
    for n in range(whole_start, whole_stop, BN):
        gq = _query_block(
            q, go, k_rows, v_rows, lse, delta, m_M, n, q_length, k_length, window, scale_log2, gq,
            BN, CAUSAL, WINDOW, False,
        )  # fmt: skip
    for n in range(whole_stop, stop, BN):
        gq = _query_block(
            q, go, k_rows, v_rows, lse, delta, m_M, n, q_length, k_length, window, scale_log2, gq,
            BN, CAUSAL, WINDOW, True,
        )  # fmt: skip
    gq_rows = GQ + row * s_gqb + token * s_gqt + h * s_gqh
    store_rows(gq_rows, m_M, s_gqt, tl.arange(0, D), q_length, gq * scale, D)
