"""Attention whose scores never reach memory: softmax(score(q k^T)) v by blocks of keys.

For each query r, with scores s[r, c] = SCORE(sum_d q[r, d] k[c, d], r, c):

    out[r, :] = sum_c exp(s[r, c] - top[r]) v[c, :] / sum_c exp(s[r, c] - top[r]),   top[r] = max_c s[r, c]

A program keeps a block of queries and goes through the keys block by block. Largest score, sum of weights and weighted
sum of values are corrected by exp(old top - new top) whenever a larger score turns up: the online softmax of Milakov
and Gimelshein, "Online normalizer calculation for softmax" (2018), algorithm 3, put around the products as in Dao et
al., "FlashAttention" (2022), algorithm 1; the queries in the outer loop as in Dao, "FlashAttention-2" (2023).

Of few queries and many keys, several programs take some keys each; what they found is joined by the same correction, as
in Dao, Haziza, Massa and Sizov, "Flash-Decoding for long-context inference" (2023).

Products are accumulated in float32, and so is the softmax; weights are rounded to the type of v for the second product.
"""

import triton
import triton.language as tl

from fusible.kernels.triton.partial_sums import comes_last, kept, recalled

NAN_IF_EMPTY = tl.constexpr(0)
"""A query whose scores are all -infinity gives NaN, as a softmax does."""
ZERO_IF_EMPTY = tl.constexpr(1)
"""It gives zeros."""
ZERO_IF_NAN = tl.constexpr(2)
"""It gives zeros, and so does a query with a score that is not a number."""
LOG2_E = tl.constexpr(1.4426950408889634)
"""exp(x) is exp2(x * LOG2_E), which GPUs compute, where `tl.exp` also takes care of results below 2^-126. Differences
are scaled and not scores: masks of the least float would become -infinity, and a row of them a row without keys."""


@triton.jit
def attend(q, q_row, q_column, k, k_row, k_column, v, v_row, v_column, first, queries, begin, end, keys, extra,
           AHEAD: tl.constexpr, SCORE: tl.constexpr, FINISH: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
           BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
           ROWS_FIT: tl.constexpr, KEYS_FIT: tl.constexpr, EMPTY: tl.constexpr, PRECISION: tl.constexpr,
           SPLIT: tl.constexpr = 1, part=0, workspace=None, counter=None,
           QUERY: tl.constexpr = None):  # fmt: skip
    """The queries first .. first + ROWS - 1 of one head, by one program.

    q [queries, D], k [keys, D], v [keys, DV]: addresses of first elements, all of one type (float16, bfloat16 or
    float32), and the steps along rows and columns, in elements. begin, end: the keys that these queries may attend at
    all, begin a multiple of KEYS; elsewhere SCORE would give -infinity.

    AHEAD(r, c, in_rows, in_columns, extra): a tuple of what is loaded for the scores at queries r [ROWS, 1] and keys c
    [1, KEYS]: before the product, which then hides how long that takes. SCORE(scores, ahead, r, c, in_rows,
    in_columns, extra): the scores there, [ROWS, KEYS] in float32. FINISH(sums, r, c, in_rows, in_columns, extra)
    stores the results [ROWS, BLOCK_DV] of queries r and columns c. Where in_rows or in_columns is false there is no
    such query, key or column: nothing may be read or written for it. BLOCK_D, BLOCK_DV, ROWS, KEYS: powers of two, at
    least 16. ROWS_FIT, KEYS_FIT: there is no such row or key, which saves masks. EMPTY: see above. PRECISION: of the
    products, as tl.dot takes it.

    SPLIT: so many programs take these queries, each with a share of the keys; part: which of them this is. The last to
    finish joins what all found and calls FINISH. workspace: memory for SPLIT times ROWS (BLOCK_DV + 2) float32;
    counter: one int32, 0 before and after.

    QUERY(r, d, in_rows, in_columns, extra): the queries [ROWS, BLOCK_D] where they are computed on the way, as by
    rotary embedding, of the type of k, with zeros behind the edges; q, q_row and q_column say nothing then.
    """
    if SPLIT > 1:
        share = ((end - begin + KEYS - 1) // KEYS + SPLIT - 1) // SPLIT * KEYS
        begin += part * share
        end = tl.minimum(end, begin + share)
    r = first + tl.arange(0, ROWS)[:, None]
    d = tl.arange(0, BLOCK_D)
    column = tl.arange(0, BLOCK_DV)[None, :]
    in_rows = r < queries
    in_head = d < D
    in_values = column < DV
    if QUERY is None:
        block = load_block(q + r * q_row + d[None, :] * q_column, in_rows, in_head[None, :], ROWS_FIT, D == BLOCK_D)
    else:
        block = QUERY(r, d[None, :], in_rows, in_head[None, :], extra)
    top = tl.full([ROWS, 1], -float("inf"), tl.float32)
    total = tl.zeros([ROWS, 1], tl.float32)
    sums = tl.zeros([ROWS, BLOCK_DV], tl.float32)
    for start in range(begin, end, KEYS):
        c = start + tl.arange(0, KEYS)
        in_keys = c < keys
        ahead = AHEAD(r, c[None, :], in_rows, in_keys[None, :], extra)
        turned = load_block(
            k + c[None, :] * k_row + d[:, None] * k_column, in_keys[None, :], in_head[:, None], KEYS_FIT, D == BLOCK_D
        )
        scores = tl.dot(block, turned, input_precision=PRECISION)
        scores = SCORE(scores, ahead, r, c[None, :], in_rows, in_keys[None, :], extra)
        if not KEYS_FIT:
            scores = tl.where(in_keys[None, :], scores, -float("inf"))
        new_top = tl.maximum(top, tl.max(scores, 1, keep_dims=True))
        base = tl.where(new_top == -float("inf"), 0.0, new_top)  # nothing was seen yet: weights of 0, and not of NaN
        weights = tl.exp2((scores - base) * LOG2_E)
        shrink = tl.exp2((top - base) * LOG2_E)
        total = total * shrink + tl.sum(weights, 1, keep_dims=True)
        values = load_block(
            v + c[:, None] * v_row + column * v_column, in_keys[:, None], in_values, KEYS_FIT, DV == BLOCK_DV
        )
        sums = tl.dot(weights.to(values.dtype), values, sums * shrink, input_precision=PRECISION)
        top = new_top
    if SPLIT == 1:
        FINISH(divided(sums, total, EMPTY), r, column, in_rows, in_values, extra)
    else:
        place = workspace + part * (ROWS * (BLOCK_DV + 2))
        kept(sums, place, in_rows, ROWS, BLOCK_DV)
        kept(top, place + ROWS * BLOCK_DV, in_rows, ROWS, 1)
        kept(total, place + ROWS * (BLOCK_DV + 1), in_rows, ROWS, 1)
        if comes_last(counter, SPLIT):
            all_sums, all_total = joined(workspace, in_rows, SPLIT, ROWS, BLOCK_DV)
            FINISH(divided(all_sums, all_total, EMPTY), r, column, in_rows, in_values, extra)


@triton.jit
def joined(workspace, in_rows, SPLIT: tl.constexpr, ROWS: tl.constexpr, BLOCK_DV: tl.constexpr):
    """Weighted sums [ROWS, BLOCK_DV] and sums of weights [ROWS, 1] over all keys, of what SPLIT programs kept."""
    top = tl.full([ROWS, 1], -float("inf"), tl.float32)
    total = tl.zeros([ROWS, 1], tl.float32)
    sums = tl.zeros([ROWS, BLOCK_DV], tl.float32)
    for part in tl.static_range(SPLIT):
        place = workspace + part * (ROWS * (BLOCK_DV + 2))
        own_top = recalled(place + ROWS * BLOCK_DV, in_rows, -float("inf"), ROWS, 1)
        new_top = tl.maximum(top, own_top)
        base = tl.where(new_top == -float("inf"), 0.0, new_top)  # nobody saw a key yet
        shrink = tl.exp2((top - base) * LOG2_E)
        weight = tl.exp2((own_top - base) * LOG2_E)
        total = total * shrink + weight * recalled(place + ROWS * (BLOCK_DV + 1), in_rows, 0.0, ROWS, 1)
        sums = sums * shrink + weight * recalled(place, in_rows, 0.0, ROWS, BLOCK_DV)
        top = new_top
    return sums, total


@triton.jit
def load_block(pointers, in_rows, in_columns, ROWS_FIT: tl.constexpr, COLUMNS_FIT: tl.constexpr):
    """The elements at pointers, 0 where there are none; no mask is made where everything fits."""
    if ROWS_FIT and COLUMNS_FIT:
        return tl.load(pointers)
    elif ROWS_FIT:
        return tl.load(pointers, mask=in_columns, other=0.0)
    elif COLUMNS_FIT:
        return tl.load(pointers, mask=in_rows, other=0.0)
    else:
        return tl.load(pointers, mask=in_rows & in_columns, other=0.0)


@triton.jit
def divided(sums, total, EMPTY: tl.constexpr):
    """sums / total, by one rounded quotient a query; for a query that attends no key what EMPTY says."""
    if EMPTY == NAN_IF_EMPTY:
        return sums * tl.div_rn(tl.full(total.shape, 1.0, tl.float32), total)
    else:
        if EMPTY == ZERO_IF_EMPTY:
            empty = total == 0
        else:
            empty = ~(total > 0)
        part = tl.div_rn(tl.full(total.shape, 1.0, tl.float32), tl.where(empty, 1.0, total))
        return tl.where(empty, 0.0, sums * part)


@triton.jit
def mask_ahead(r, c, in_rows, in_columns, extra):
    """What `scaled` adds to the scores, if there is a mask."""
    if extra[4] is not None:
        mask = tl.load(extra[4] + r * extra[5] + c * extra[6], mask=in_rows & in_columns, other=0.0)
    else:
        mask = 0.0
    return (mask,)


@triton.jit
def scaled(scores, ahead, r, c, in_rows, in_columns, extra):
    """A score hook: score * scale, plus a mask if there is one, with no key behind its query if CAUSAL.

    extra: (out, out_row, out_column, scale, mask or None, its row step, its column step, CAUSAL, keys - queries).
    """
    scores = scores * extra[3]
    if extra[4] is not None:
        scores += ahead[0].to(tl.float32)
    if extra[7]:
        scores = tl.where(c <= r + extra[8], scores, -float("inf"))
    return scores


@triton.jit
def stored(sums, r, c, in_rows, in_columns, extra):
    """A finish hook: results go to out, rounded to its type."""
    tl.store(extra[0] + r * extra[1] + c * extra[2], sums.to(extra[0].dtype.element_ty), mask=in_rows & in_columns)


@triton.jit
def attention(q, k, v, mask, out, queries, keys, heads, group, scale,
              q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, mask_batch, mask_head, mask_row,
              out_batch, out_head, out_row, CAUSAL: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
              BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
              PRECISION: tl.constexpr):  # fmt: skip
    """softmax(scale q k^T + mask) v for q [B, heads, queries, D], k and v [B, heads / group, keys, D or DV].

    Grid: (ceil(queries / ROWS), B * heads). mask: added to the scores, with step 0 where it is broadcast and step 1
    along the keys; None for no mask. CAUSAL: query r attends keys up to r + keys - queries. Elements of a head are
    adjacent; the other steps are arguments. A query that attends no key gives zeros. out [B, heads, queries, DV].
    """
    first = tl.program_id(0) * ROWS
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    end = keys
    if CAUSAL:
        end = tl.minimum(keys, tl.maximum(first + ROWS + keys - queries, 0))
    bias = mask
    if mask is not None:
        bias = mask + batch * mask_batch + head * mask_head
    extra = (out + batch * out_batch + head * out_head, out_row, 1, scale, bias, mask_row, 1, CAUSAL, keys - queries)
    attend(
        q + batch * q_batch + head * q_head, q_row, 1,
        k + batch * k_batch + head // group * k_head, k_row, 1,
        v + batch * v_batch + head // group * v_head, v_row, 1,
        first, queries, 0, end, keys, extra, mask_ahead, scaled, stored, D, DV, BLOCK_D, BLOCK_DV, ROWS, KEYS, False,
        False, ZERO_IF_EMPTY, PRECISION,
    )  # fmt: skip
