"""Attention over packed documents in Triton, forward and backward, for sm_80 and later; also for the interpreter.

After FlashAttention-2 (Dao 2023, arXiv 2307.08691): scores never leave the chip, the forward pass keeps the
log-sum-exp of each row, the backward pass computes scores again. The backward pass is two kernels, keys and values
first, then queries: no atomics, so two runs give the same bits; `ATOMIC` adds the queries' gradient in the first
kernel instead, which saves two of seven products.

A program works on one tile of one document, from a list that is ordered by work (`kernels.packing`); every bound comes
from (start, length), so no tile touches another document, whatever that holds. Scores are kept in base 2.

M: rows (queries) of a tile, N: columns (keys), D: head size, padded to DP.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def document_of(DOCUMENTS, TILES, tile):
    """Row, query start and length, key start and length, and the tile's number within its document."""
    place = DOCUMENTS + 5 * tl.load(TILES + 2 * tile)
    row = tl.load(place).to(tl.int64)
    q_start = tl.load(place + 1)
    q_length = tl.load(place + 2)
    k_start = tl.load(place + 3)
    k_length = tl.load(place + 4)
    return row, q_start, q_length, k_start, k_length, tl.load(TILES + 2 * tile + 1)


@triton.jit
def visible(m_M, n_N, offset, q_length, k_length, window, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """Which key each query sees: mask_MN."""
    seen = (n_N[None, :] < k_length) & (m_M[:, None] < q_length)
    if CAUSAL:
        seen = seen & (n_N[None, :] <= m_M[:, None] + offset)
    if WINDOW:
        seen = seen & (n_N[None, :] > m_M[:, None] + offset - window)
    return seen


@triton.jit
def key_bounds(
    m, offset, k_length, window, BM: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr
):  # fmt: skip
    """Start and stop of the keys that any of the tile's queries sees, and between them of the blocks that all see."""
    stop = k_length
    whole_stop = k_length // BN * BN
    if CAUSAL:
        stop = tl.maximum(0, tl.minimum(k_length, m + BM + offset))
        whole_stop = tl.maximum(0, tl.minimum(k_length, m + offset + 1)) // BN * BN
    start = 0
    whole_start = 0
    if WINDOW:
        start = tl.maximum(0, m + offset - window + 1) // BN * BN
        whole_start = tl.maximum(0, (m + BM + offset - window + BN - 1) // BN * BN)
        whole_start = tl.minimum(tl.maximum(whole_start, start), tl.cdiv(stop, BN) * BN)
        whole_stop = tl.maximum(whole_start, whole_stop)
    return start, whole_start, whole_stop, stop


@triton.jit
def _load_rows(base, at, stride, d, limit, D: tl.constexpr, DP: tl.constexpr, MASK: tl.constexpr):
    """Rows `at` of a [tokens, D] matrix; zeros beyond `limit` and beyond D."""
    pointers = base + at.to(tl.int64)[:, None] * stride + d[None, :]
    if MASK:
        if D == DP:
            return tl.load(pointers, mask=at[:, None] < limit, other=0.0)
        return tl.load(pointers, mask=(at[:, None] < limit) & (d[None, :] < D), other=0.0)
    if D == DP:
        return tl.load(pointers)
    return tl.load(pointers, mask=d[None, :] < D, other=0.0)


@triton.jit
def store_rows(base, at, stride, d, limit, values, D: tl.constexpr):
    pointers = base + at.to(tl.int64)[:, None] * stride + d[None, :]
    tl.store(pointers, values.to(base.dtype.element_ty), mask=(at[:, None] < limit) & (d[None, :] < D))


@triton.jit
def _attend(
    q, K, V, m_M, n, d, offset, q_length, k_length, window, scale_log2, s_kt, s_vt, acc, top, total,
    D: tl.constexpr, DP: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
    MASK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of keys taken into the running softmax."""
    n_N = n + tl.arange(0, BN)
    k = _load_rows(K, n_N, s_kt, d, k_length, D, DP, MASK)
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_log2
    if MASK:
        s = tl.where(visible(m_M, n_N, offset, q_length, k_length, window, CAUSAL, WINDOW), s, float("-inf"))
    new_top = tl.maximum(top, tl.max(s, 1))
    safe_top = new_top
    if MASK:
        safe_top = tl.where(new_top == float("-inf"), 0.0, new_top)  # a row that sees nothing yet
    p = tl.math.exp2(s - safe_top[:, None])
    shrink = tl.math.exp2(top - safe_top)
    total = total * shrink + tl.sum(p, 1)
    v = _load_rows(V, n_N, s_vt, d, k_length, D, DP, MASK)
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
    return acc, new_top, total


@triton.jit
def forward(
    Q, K, V, OUT, LSE, DOCUMENTS, TILES, heads, scale_log2, window,
    s_qb, s_qt, s_qh, s_kb, s_kt, s_kh, s_vb, s_vt, s_vh, s_ob, s_ot, s_oh, s_lb, s_lh,
    GROUP: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp (natural) of one tile of queries of one head."""
    h = (tl.program_id(0) % heads).to(tl.int64)  # heads of a group run side by side: they share keys in the cache
    row, q_start, q_length, k_start, k_length, number = document_of(DOCUMENTS, TILES, tl.program_id(0) // heads)
    m = number * BM
    m_M = m + tl.arange(0, BM)
    d = tl.arange(0, DP)
    q = _load_rows(Q + row * s_qb + q_start.to(tl.int64) * s_qt + h * s_qh, m_M, s_qt, d, q_length, D, DP, True)
    K += row * s_kb + k_start.to(tl.int64) * s_kt + (h // GROUP) * s_kh
    V += row * s_vb + k_start.to(tl.int64) * s_vt + (h // GROUP) * s_vh
    offset = k_length - q_length
    start, whole_start, whole_stop, stop = key_bounds(m, offset, k_length, window, BM, BN, CAUSAL, WINDOW)
    top = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, DP], tl.float32)
    if WINDOW:
        for n in range(start, whole_start, BN):
            acc, top, total = _attend(
                q, K, V, m_M, n, d, offset, q_length, k_length, window, scale_log2, s_kt, s_vt, acc, top, total,
                D, DP, BN, CAUSAL, WINDOW, True, PRECISION,
            )  # fmt: skip
    for n in range(whole_start, whole_stop, BN):
        acc, top, total = _attend(
            q, K, V, m_M, n, d, offset, q_length, k_length, window, scale_log2, s_kt, s_vt, acc, top, total,
            D, DP, BN, CAUSAL, WINDOW, False, PRECISION,
        )  # fmt: skip
    for n in range(whole_stop, stop, BN):
        acc, top, total = _attend(
            q, K, V, m_M, n, d, offset, q_length, k_length, window, scale_log2, s_kt, s_vt, acc, top, total,
            D, DP, BN, CAUSAL, WINDOW, True, PRECISION,
        )  # fmt: skip
    blind = total == 0.0
    total = tl.where(blind, 1.0, total)
    lse = tl.where(blind, float("-inf"), (top + tl.math.log2(total)) * LN_2)
    tl.store(LSE + row * s_lb + h * s_lh + q_start + m_M, lse, mask=m_M < q_length)
    OUT += row * s_ob + q_start.to(tl.int64) * s_ot + h * s_oh
    store_rows(OUT, m_M, s_ot, d, q_length, acc / total[:, None], D)


@triton.jit
def row_sums(
    OUT, GO, DELTA, tokens, s_ob, s_ot, s_oh, s_gb, s_gt, s_gh, s_lb, s_lh,
    D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """delta: the sum of output times its gradient, a row."""
    row = tl.program_id(2).to(tl.int64)
    h = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BM + tl.arange(0, BM)
    d = tl.arange(0, DP)
    o = _load_rows(OUT + row * s_ob + h * s_oh, at, s_ot, d, tokens, D, DP, True).to(tl.float32)
    g = _load_rows(GO + row * s_gb + h * s_gh, at, s_gt, d, tokens, D, DP, True).to(tl.float32)
    tl.store(DELTA + row * s_lb + h * s_lh + at, tl.sum(o * g, 1), mask=at < tokens)


@triton.jit
def _key_block(
    k, v, Q, GO, GQ, LSE, DELTA, n_N, m, d, offset, q_length, k_length, window, scale, scale_log2,
    s_qt, s_gt, s_gqt, gk, gv,
    D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
    ATOMIC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What one block of queries adds to the gradients of a tile of keys and values."""
    m_M = m + tl.arange(0, BM)
    q = _load_rows(Q, m_M, s_qt, d, q_length, D, DP, True)
    go = _load_rows(GO, m_M, s_gt, d, q_length, D, DP, True)
    lse = tl.load(LSE + m_M, mask=m_M < q_length, other=0.0)
    delta = tl.load(DELTA + m_M, mask=m_M < q_length, other=0.0)
    s_NM = tl.dot(k, tl.trans(q), input_precision=PRECISION) * scale_log2
    seen_NM = (n_N[:, None] < k_length) & (m_M[None, :] < q_length)
    if CAUSAL:
        seen_NM = seen_NM & (n_N[:, None] <= m_M[None, :] + offset)
    if WINDOW:
        seen_NM = seen_NM & (n_N[:, None] > m_M[None, :] + offset - window)
    p_NM = tl.where(seen_NM, tl.math.exp2(s_NM - lse[None, :] * LOG2_E), 0.0)
    gv = tl.dot(p_NM.to(go.dtype), go, gv, input_precision=PRECISION)
    dp_NM = tl.dot(v, tl.trans(go), input_precision=PRECISION)
    ds = tl.where(seen_NM, p_NM * (dp_NM - delta[None, :]), 0.0).to(q.dtype)
    gk = tl.dot(ds, q, gk, input_precision=PRECISION)
    if ATOMIC:
        gq = tl.dot(tl.trans(ds), k, input_precision=PRECISION) * scale
        pointers = GQ + m_M.to(tl.int64)[:, None] * s_gqt + d[None, :]
        tl.atomic_add(pointers, gq, mask=(m_M[:, None] < q_length) & (d[None, :] < D))
    return gk, gv


@triton.jit
def backward_keys(
    Q, K, V, GO, LSE, DELTA, GQ, GK, GV, DOCUMENTS, TILES, kv_heads, scale, scale_log2, window,
    s_qb, s_qt, s_qh, s_kb, s_kt, s_kh, s_vb, s_vt, s_vh, s_gb, s_gt, s_gh,
    s_gqb, s_gqt, s_gqh, s_gkb, s_gkt, s_gkh, s_gvb, s_gvt, s_gvh, s_lb, s_lh,
    GROUP: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, ATOMIC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of one tile of keys and values, summed over the query heads that share them."""
    kv = (tl.program_id(0) % kv_heads).to(tl.int64)
    row, q_start, q_length, k_start, k_length, number = document_of(DOCUMENTS, TILES, tl.program_id(0) // kv_heads)
    n = number * BN
    n_N = n + tl.arange(0, BN)
    d = tl.arange(0, DP)
    first = k_start.to(tl.int64)
    k = _load_rows(K + row * s_kb + first * s_kt + kv * s_kh, n_N, s_kt, d, k_length, D, DP, True)
    v = _load_rows(V + row * s_vb + first * s_vt + kv * s_vh, n_N, s_vt, d, k_length, D, DP, True)
    offset = k_length - q_length
    start = 0
    stop = q_length
    if CAUSAL:
        start = tl.maximum(0, n - offset) // BM * BM
    if WINDOW:
        stop = tl.minimum(q_length, tl.maximum(0, n + BN - 1 - offset + window))
    gk = tl.zeros([BN, DP], tl.float32)
    gv = tl.zeros([BN, DP], tl.float32)
    for g in range(GROUP):
        h = kv * GROUP + g
        token = q_start.to(tl.int64)
        q_head = Q + row * s_qb + token * s_qt + h * s_qh
        go_head = GO + row * s_gb + token * s_gt + h * s_gh
        gq_head = GQ + row * s_gqb + token * s_gqt + h * s_gqh
        lse_head = LSE + row * s_lb + h * s_lh + token
        delta_head = DELTA + row * s_lb + h * s_lh + token
        for m in range(start, stop, BM):
            gk, gv = _key_block(
                k, v, q_head, go_head, gq_head, lse_head, delta_head, n_N, m, d, offset, q_length, k_length, window,
                scale, scale_log2, s_qt, s_gt, s_gqt, gk, gv, D, DP, BM, CAUSAL, WINDOW, ATOMIC, PRECISION,
            )  # fmt: skip
    store_rows(GK + row * s_gkb + first * s_gkt + kv * s_gkh, n_N, s_gkt, d, k_length, gk * scale, D)
    store_rows(GV + row * s_gvb + first * s_gvt + kv * s_gvh, n_N, s_gvt, d, k_length, gv, D)


@triton.jit
def _query_block(
    q, go, K, V, lse, delta, m_M, n, d, offset, q_length, k_length, window, scale_log2, s_kt, s_vt, gq,
    D: tl.constexpr, DP: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
    MASK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What one block of keys adds to the gradient of a tile of queries."""
    n_N = n + tl.arange(0, BN)
    k = _load_rows(K, n_N, s_kt, d, k_length, D, DP, MASK)
    v = _load_rows(V, n_N, s_vt, d, k_length, D, DP, MASK)
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_log2
    dp = tl.dot(go, tl.trans(v), input_precision=PRECISION)
    ds = tl.math.exp2(s - lse[:, None]) * (dp - delta[:, None])
    if MASK:
        ds = tl.where(visible(m_M, n_N, offset, q_length, k_length, window, CAUSAL, WINDOW), ds, 0.0)
    return tl.dot(ds.to(k.dtype), k, gq, input_precision=PRECISION)


@triton.jit
def backward_queries(
    Q, K, V, GO, LSE, DELTA, GQ, DOCUMENTS, TILES, heads, scale, scale_log2, window,
    s_qb, s_qt, s_qh, s_kb, s_kt, s_kh, s_vb, s_vt, s_vh, s_gb, s_gt, s_gh, s_gqb, s_gqt, s_gqh, s_lb, s_lh,
    GROUP: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of one tile of queries of one head."""
    h = (tl.program_id(0) % heads).to(tl.int64)
    row, q_start, q_length, k_start, k_length, number = document_of(DOCUMENTS, TILES, tl.program_id(0) // heads)
    m = number * BM
    m_M = m + tl.arange(0, BM)
    d = tl.arange(0, DP)
    token = q_start.to(tl.int64)
    q = _load_rows(Q + row * s_qb + token * s_qt + h * s_qh, m_M, s_qt, d, q_length, D, DP, True)
    go = _load_rows(GO + row * s_gb + token * s_gt + h * s_gh, m_M, s_gt, d, q_length, D, DP, True)
    at = row * s_lb + h * s_lh + token + m_M
    lse = tl.load(LSE + at, mask=m_M < q_length, other=0.0) * LOG2_E
    delta = tl.load(DELTA + at, mask=m_M < q_length, other=0.0)
    K += row * s_kb + k_start.to(tl.int64) * s_kt + (h // GROUP) * s_kh
    V += row * s_vb + k_start.to(tl.int64) * s_vt + (h // GROUP) * s_vh
    offset = k_length - q_length
    start, whole_start, whole_stop, stop = key_bounds(m, offset, k_length, window, BM, BN, CAUSAL, WINDOW)
    gq = tl.zeros([BM, DP], tl.float32)
    if WINDOW:
        for n in range(start, whole_start, BN):
            gq = _query_block(
                q, go, K, V, lse, delta, m_M, n, d, offset, q_length, k_length, window, scale_log2, s_kt, s_vt, gq,
                D, DP, BN, CAUSAL, WINDOW, True, PRECISION,
            )  # fmt: skip
    for n in range(whole_start, whole_stop, BN):
        gq = _query_block(
            q, go, K, V, lse, delta, m_M, n, d, offset, q_length, k_length, window, scale_log2, s_kt, s_vt, gq,
            D, DP, BN, CAUSAL, WINDOW, False, PRECISION,
        )  # fmt: skip
    for n in range(whole_stop, stop, BN):
        gq = _query_block(
            q, go, K, V, lse, delta, m_M, n, d, offset, q_length, k_length, window, scale_log2, s_kt, s_vt, gq,
            D, DP, BN, CAUSAL, WINDOW, True, PRECISION,
        )  # fmt: skip
    store_rows(GQ + row * s_gqb + token * s_gqt + h * s_gqh, m_M, s_gqt, d, q_length, gq * scale, D)
