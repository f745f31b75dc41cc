/* Attention of sequences of some hundred steps, and its way back: see zoo/kernels/attention.py.

   All scores of a few queries are there at once, in the nearest cache, so that the softmax needs no running sums. The
   way back makes them again from the norms, for as many queries as keep the products with them long. Scores count in
   powers of 2, and beside a mask in those of e: its numbers may be as large as floats get, and must not grow.

   Letters as there: B rows, H heads, G heads of keys and values, T queries, S keys, d and e widths. */

#include "products.h"
#include <math.h>

#define QUERIES (16 * ROWS) /* whose weights the way back holds at once */
#define LOG2E 1.44269504f
#define LEVELS 65536.0f /* of the chance to be dropped */

/* Where (B, heads, steps, width) lies: numbers from a row, a head and a step to the next, those of a step side by
   side. */
typedef struct {
    int64_t row, head, step;
} Place;

typedef struct {
    int64_t rows, heads, groups, queries, keys, width, other; /* B, H, G, T, S, d, e */
    int64_t causal, window, offset, dropped, seed, threads;   /* dropped: of LEVELS */
    double scale;
    Place q_at, k_at, v_at, mask_at, out_at, d_out_at, d_q_at, d_k_at, d_v_at;
    const float *q, *k, *v, *mask; /* mask: or NULL */
    float *out;
    const float *d_out;
    float *d_q, *d_k, *d_v;
    const float *slopes; /* (H), or NULL */
    float *top, *log;    /* (B, H, T): the highest score, and log2 of the sum of the powers of what is below it */
} Attention;

/* What belongs to some queries of a head: ROWS of them at most. */
typedef struct {
    int64_t row, head, first;
    int count;
    int64_t low[ROWS], high[ROWS]; /* of the keys that a query sees */
    int64_t from, to;              /* of those that any sees, `from` where a tile begins */
    const float *mask[ROWS];       /* where there is one */
    int64_t first_for_all, last_for_all; /* of the keys that all see */
    float slope;
    uint32_t draw[ROWS][2]; /* what a query's numbers are drawn from */
} Some;

static const float *at(const float *x, Place place, int64_t row, int64_t head, int64_t step) {
    return x + row * place.row + head * place.head + step * place.step;
}

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Columns as a row of scores has them: whole tiles, and rows that do not all begin in the same lines of the cache. */
static int64_t padded(int64_t columns) {
    return (columns + WIDE * LANES - 1) / (WIDE * LANES) * (WIDE * LANES) + LANES;
}

/* x (depth, columns), its rows `step` apart, as packed[tile][k][lane] with zeros behind. */
static void pack(const float *x, int64_t depth, int64_t columns, int64_t step, float *packed) {
    for (int64_t first = 0; first < columns; first += WIDE * LANES) {
        const int64_t width = width_at(first, columns) * LANES, there = least(width, columns - first);
        for (int64_t k = 0; k < depth; k++, packed += width)
            for (int64_t v = 0; v < there; v += LANES)
                store(packed + v, load(x + k * step + first + v, lanes(there - v)), LANES);
    }
}

/* to (columns, LANES) = factor * x^T of x (rows, columns), LANES of each at most and zeros beyond the rows; `apart` and
   `step` are numbers from a row to the next, and `kept` is how many of each row of `to` are written. */
INLINE void turn_some(const float *x, int64_t step, int rows, int columns, float factor, float *to, int64_t apart,
                      int kept) {
#if defined(__AVX512F__)
    __m512 r[LANES], t[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) r[i] = i < rows ? (__m512)(factor * load(x + i * step, columns)) : _mm512_setzero_ps();
#pragma GCC unroll 8
    for (int i = 0; i < LANES; i += 2) { /* pairs of rows, then fours, then quarters of four rows side by side */
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 4)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            const __m512d above = (__m512d)t[i + j], below = (__m512d)t[i + j + 2];
            r[i + 2 * j] = (__m512)_mm512_unpacklo_pd(above, below);
            r[i + 2 * j + 1] = (__m512)_mm512_unpackhi_pd(above, below);
        }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const __m512 even = _mm512_shuffle_f32x4(r[j], r[4 + j], 0x88), odd = _mm512_shuffle_f32x4(r[j], r[4 + j], 0xdd);
        const __m512 next = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0x88);
        const __m512 last = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0xdd);
        t[j] = _mm512_shuffle_f32x4(even, next, 0x88);
        t[4 + j] = _mm512_shuffle_f32x4(odd, last, 0x88);
        t[8 + j] = _mm512_shuffle_f32x4(even, next, 0xdd);
        t[12 + j] = _mm512_shuffle_f32x4(odd, last, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        if (i < columns) store(to + i * apart, (vec)t[i], kept);
#else
    for (int i = 0; i < kept; i++)
        for (int j = 0; j < columns; j++) to[j * apart + i] = i < rows ? factor * x[i * step + j] : 0.0f;
#endif
}

static void turn(const float *x, int64_t step, int rows, int columns, float factor, float *to, int64_t apart, int kept) {
    if (rows == LANES && columns == LANES && kept == LANES) turn_some(x, step, LANES, LANES, factor, to, apart, LANES);
    else turn_some(x, step, rows, columns, factor, to, apart, kept);
}

/* What `pack` makes, of factor * x^T for x (columns, depth). */
static void pack_turned(const float *x, int64_t depth, int64_t columns, int64_t step, float factor, float *packed) {
    for (int64_t first = 0; first < columns; first += WIDE * LANES) {
        const int64_t width = width_at(first, columns) * LANES;
        for (int64_t v = 0; v < width; v += LANES)
            for (int64_t k = 0; k < depth; k += LANES)
                turn(x + (first + v) * step + k, step, lanes(columns - first - v), lanes(depth - k), factor,
                     packed + k * width + v, width, LANES);
        packed += depth * width;
    }
}

/* Where the tile that begins at `first` lies in what `pack` wrote, from row k on. */
static const vec *tile_at(const float *packed, int64_t depth, int64_t columns, int64_t first, int64_t k) {
    return (const vec *)(packed + first * depth + k * width_at(first, columns) * LANES);
}

static uint64_t mixed(uint64_t x) { /* the end of SplitMix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* What a score of 1 counts here. */
INLINE float unit(const Attention *a) { return a->mask ? 1.0f : LOG2E; }

/* Where the norms of some queries begin. */
INLINE int64_t norms_at(const Attention *a, const Some *some) {
    return (some->row * a->heads + some->head) * a->queries + some->first;
}

/* Of the keys that a query sees: the first, and the one behind the last. */
static int64_t low_of(const Attention *a, int64_t query) {
    return a->window ? most(0, query + a->offset - a->window + 1) : 0;
}

static int64_t high_of(const Attention *a, int64_t query) {
    const int64_t place = query + a->offset;
    const int64_t high = a->causal ? place + 1 : a->window ? place + a->window : a->keys;
    return most(0, least(high, a->keys));
}

/* Where the tile begins that holds the first of the keys that a query sees. */
static int64_t tile_of(const Attention *a, int64_t query, int64_t to) {
    return least(low_of(a, query), to) / (WIDE * LANES) * (WIDE * LANES);
}

/* Filled where it lies: a copy would wait for what was just stored. */
static void take_queries(const Attention *a, int64_t row, int64_t head, int64_t first, int64_t count, Some *some) {
    some->row = row, some->head = head, some->first = first, some->count = (int)count;
    some->slope = a->slopes ? a->slopes[head] * unit(a) : 0.0f;
    for (int r = 0; r < count; r++) some->low[r] = low_of(a, first + r), some->high[r] = high_of(a, first + r);
    some->to = high_of(a, first + count - 1); /* a later query sees neither earlier keys nor fewer later ones */
    some->last_for_all = high_of(a, first), some->first_for_all = low_of(a, first + count - 1);
    some->from = tile_of(a, first, some->to);
    for (int r = 0; r < count && a->mask; r++) some->mask[r] = at(a->mask, a->mask_at, row, head, first + r);
    for (int r = 0; r < count && a->dropped; r++) {
        const uint64_t query = (row * a->heads + head) * a->queries + first + r + 1;
        const uint64_t bits = mixed((uint64_t)a->seed + query * 0x9e3779b97f4a7c15u);
        some->draw[r][0] = (uint32_t)bits;
        some->draw[r][1] = (uint32_t)(bits >> 32);
    }
}

INLINE ivec from_zero(void) {
    ivec lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    return lane;
}

/* Whether all see all LANES keys from j on, and nothing is added to the scores. */
INLINE int is_plain(const Attention *a, const Some *some, int64_t j) {
    return !a->mask && !a->slopes && j >= some->first_for_all && j + LANES <= some->last_for_all;
}

/* Vectors of the tile that begins at `first` which hold keys that any of some queries sees. */
INLINE int seen_at(const Some *some, int64_t first) { return width_at(first, some->to); }

/* Scores of query r with the keys from j on, to which what is asked for is added; -inf where it does not see them. */
INLINE vec seen(const Attention *a, const Some *some, int r, int64_t j, vec s) {
    if (a->mask) s += load(some->mask[r] + j, lanes(a->keys - j));
    if (a->slopes) {
        const vec far = __builtin_convertvector(from_zero(), vec) + (float)(j - (some->first + r + a->offset));
        s -= some->slope * choose(far < set(0.0f), -far, far);
    }
    if (j < some->low[r] || j + LANES > some->high[r]) {
        const ivec key = from_zero() + (int32_t)j;
        s = choose((key >= (int32_t)some->low[r]) & (key < (int32_t)some->high[r]), s, set(-INFINITY));
    }
    return s;
}

typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));

/* What the weights of query r with the keys from j on are multiplied by: 0 where they are dropped. */
INLINE vec kept(const Attention *a, const Some *some, int r, int64_t j) {
    uvec x = ((uvec)from_zero() + (uint32_t)j) * 0x9e3779b9u + some->draw[r][0];
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = ((x ^ (x >> 15)) + some->draw[r][1]) * 0x846ca68bu;
    const ivec level = (ivec)((x ^ (x >> 16)) >> 16);
    return choose(level >= (int32_t)a->dropped, set(LEVELS / (LEVELS - (float)a->dropped)), set(0.0f));
}

/* ---- forward ---- */

INLINE float greatest(vec x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)x);
#else
    float found = x[0];
    for (int lane = 1; lane < LANES; lane++) found = x[lane] > found ? x[lane] : found;
    return found;
#endif
}

/* The weights of some queries, not yet divided by their sums, which are returned; the norms are written. */
static void weigh(const Attention *a, const Some *some, const float *keys, int64_t wide, float *weights, float *sums) {
    const float *rows[ROWS] = {0};
    float *tops = a->top + norms_at(a, some), *logs = a->log + norms_at(a, some);
    const float steep = LOG2E / unit(a);
    vec tile[ROWS][WIDE], top[ROWS];
    for (int r = 0; r < some->count; r++) {
        rows[r] = at(a->q, a->q_at, some->row, some->head, some->first + r);
        top[r] = set(-INFINITY);
    }
    for (int64_t first = some->from; first < some->to; first += WIDE * LANES) {
        const int count = seen_at(some, first);
        product_apart(some->count, count, a->width, 1, rows, tile_at(keys, a->width, a->keys, first, 0),
                      width_at(first, a->keys), tile);
        for (int v = 0; v < count; v++) {
            const int64_t j = first + v * LANES;
            const int plain = is_plain(a, some, j);
            for (int r = 0; r < some->count; r++) {
                const vec s = plain ? tile[r][v] : seen(a, some, r, j, tile[r][v]);
                top[r] = greater(s, top[r]);
                store(weights + r * wide + j, s, LANES);
            }
        }
    }
    for (int r = 0; r < some->count; r++) {
        float *line = weights + r * wide;
        const float highest = greatest(top[r]), finite = highest == -INFINITY ? 0.0f : highest;
        vec total = {};
        for (int64_t j = some->from; j < some->to; j += LANES) {
            const vec p = exp2_((load(line + j, LANES) - finite) * steep);
            total += p;
            store(line + j, a->dropped ? (vec)(p * kept(a, some, r, j)) : p, LANES);
        }
        sums[r] = sum_of(total);
        tops[r] = finite;
    }
    const int n = some->count; /* their logarithms at once: a sum is 0, or at least the 1 of the highest score */
    for (int r = 0; r < n; r += LANES) {
        const vec all = load(sums + r, lanes(n - r)), none = set(0.0f);
        const vec found = choose(all == all, LOG2E * log_(all), all);
        store(logs + r, choose(all == none, set(INFINITY), found), lanes(n - r));
    }
}

static void mix(const Attention *a, const Some *some, const float *values, int64_t wide, const float *weights,
                const float *sums) {
    const float *rows[ROWS] = {0};
    vec tile[ROWS][WIDE];
    for (int r = 0; r < some->count; r++) rows[r] = weights + r * wide + some->from;
    for (int64_t first = 0; first < a->other; first += WIDE * LANES) {
        const int count = width_at(first, a->other);
        product(some->count, count, some->to - some->from, 1, rows,
                tile_at(values, a->keys, a->other, first, some->from), tile);
        for (int r = 0; r < some->count; r++) {
            float *out = (float *)at(a->out, a->out_at, some->row, some->head, some->first + r) + first;
            const float share = sums[r] == 0.0f ? 0.0f : 1.0f / sums[r];
            for (int v = 0; v < count; v++)
                store(out + v * LANES, tile[r][v] * share, lanes(a->other - first - v * LANES));
        }
    }
}

KERNEL(attention, Attention) {
    const int64_t all = task->rows * task->heads, parts = all < task->threads ? task->threads : 1;
    const int64_t part = (task->queries + parts * ROWS - 1) / (parts * ROWS) * ROWS;
    const int64_t wide = padded(task->keys), other = padded(task->other), group = task->heads / task->groups;
    int failed = 0;
#pragma omp parallel num_threads(task->threads) reduction(| : failed) if (task->threads > 1)
    {
        float *room = floats(wide * task->width + task->keys * other + ROWS * wide);
        float *keys = room, *values = keys + wide * task->width, *weights = values + task->keys * other;
        failed = !room;
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < all * parts; item++) {
            const int64_t row = item / parts / task->heads, head = item / parts % task->heads;
            const int64_t end = least(task->queries, (item % parts + 1) * part);
            if (failed || item % parts * part >= end) continue;
            pack_turned(at(task->k, task->k_at, row, head / group, 0), task->width, task->keys, task->k_at.step,
                        (float)task->scale * unit(task), keys);
            pack(at(task->v, task->v_at, row, head / group, 0), task->keys, task->other, task->v_at.step, values);
            const int64_t high = height(end - item % parts * part);
            for (int64_t first = item % parts * part; first < end; first += high) {
                float sums[ROWS];
                Some some;
                take_queries(task, row, head, first, least(high, end - first), &some);
                weigh(task, &some, keys, wide, weights, sums);
                mix(task, &some, values, wide, weights, sums);
            }
        }
        free(room);
    }
    return failed;
}

/* ---- the way back ---- */

/* What the way back of a head works with. */
typedef struct {
    float *keys, *values;      /* by columns of keys: (d, S), times the scale, and (e, S), packed */
    float *sides;              /* keys as rows: (S, d), packed */
    float *weights, *slopes;   /* p z, and ds: (QUERIES, S) */
    float *d_keys, *d_values;  /* sums by columns of keys: (d, S) and (e, S) */
} Back;

/* Weights and the slopes of scores of some queries: p z and ds = p (z v^T do - delta). The mean delta is made of the
   very numbers that it is taken from: where one key has all the weight, nothing is left of them, and o^T do would. */
static void weigh_back(const Attention *a, const Some *some, const Back *back, int64_t wide, float *weights,
                       float *slopes) {
    const float *rows[ROWS] = {0}, *ups[ROWS] = {0};
    vec inner[ROWS];
    const float *tops = a->top + norms_at(a, some), *logs = a->log + norms_at(a, some), steep = LOG2E / unit(a);
    vec tile[ROWS][WIDE], up[ROWS][WIDE];
    for (int r = 0; r < some->count; r++) {
        rows[r] = at(a->q, a->q_at, some->row, some->head, some->first + r);
        ups[r] = at(a->d_out, a->d_out_at, some->row, some->head, some->first + r);
        inner[r] = (vec){};
    }
    for (int64_t first = some->from; first < some->to; first += WIDE * LANES) {
        const int count = seen_at(some, first), step = width_at(first, a->keys);
        product_apart(some->count, count, a->width, 1, rows, tile_at(back->keys, a->width, a->keys, first, 0), step, tile);
        product_apart(some->count, count, a->other, 1, ups, tile_at(back->values, a->other, a->keys, first, 0), step, up);
        for (int v = 0; v < count; v++) {
            const int64_t j = first + v * LANES;
            const int plain = is_plain(a, some, j);
            for (int r = 0; r < some->count; r++) {
                const vec s = plain ? tile[r][v] : seen(a, some, r, j, tile[r][v]);
                const vec p = exp2_((s - tops[r]) * steep - logs[r]); /* log has no room in the sum of both */
                const vec slope = a->dropped ? (vec)(up[r][v] * kept(a, some, r, j)) : up[r][v];
                inner[r] += p * slope;
                store(weights + r * wide + j, p, LANES);
                store(slopes + r * wide + j, slope, LANES);
            }
        }
    }
    for (int r = 0; r < some->count; r++) {
        const float mean = sum_of(inner[r]);
        for (int64_t j = some->from; j < some->to; j += LANES) {
            float *weight = weights + r * wide + j, *slope = slopes + r * wide + j;
            const vec p = load(weight, LANES);
            store(slope, p * (load(slope, LANES) - mean), LANES);
            if (a->dropped) store(weight, p * kept(a, some, r, j), LANES);
        }
    }
}

/* The gradients of some queries, c ds K. */
static void back_queries(const Attention *a, const Some *some, const Back *back, int64_t wide, const float *slopes) {
    const float *rows[ROWS] = {0};
    vec tile[ROWS][WIDE];
    for (int r = 0; r < some->count; r++) rows[r] = slopes + r * wide + some->from;
    for (int64_t first = 0; first < a->width; first += WIDE * LANES) {
        const int count = width_at(first, a->width);
        product(some->count, count, some->to - some->from, 1, rows,
                tile_at(back->sides, a->keys, a->width, first, some->from), tile);
        for (int r = 0; r < some->count; r++) {
            float *d_q = (float *)at(a->d_q, a->d_q_at, some->row, some->head, some->first + r) + first;
            for (int v = 0; v < count; v++)
                store(d_q + v * LANES, tile[r][v] * (float)a->scale, lanes(a->width - first - v * LANES));
        }
    }
}

#define NARROW (2 * LANES) /* keys whose sums are made at once: the queries before the first of them see none */

/* sums (columns, S) += x^T weights for x (queries, columns), from query `start` on, and the keys from `from` up to `to`. */
static void add_transposed(const Attention *a, int64_t start, int64_t queries, int64_t columns, const float *x,
                           int64_t step, const float *weights, int64_t from, int64_t to, int64_t wide, float *sums) {
    const float *rows[ROWS] = {0};
    vec tile[ROWS][WIDE];
    const int64_t high = height(columns);
    for (int64_t first = from; first < to; first += NARROW) {
        const int count = (int)least(NARROW / LANES, (to - first + LANES - 1) / LANES);
        const int64_t dark = a->causal ? least(queries, most(0, first - a->offset - start)) : 0;
        for (int64_t column = 0; column < columns; column += high) {
            const int number = (int)least(high, columns - column);
            for (int r = 0; r < number; r++) rows[r] = x + dark * step + column + r;
            product_apart(number, count, queries - dark, step, rows, (const vec *)(weights + dark * wide + first),
                          wide / LANES, tile);
            for (int r = 0; r < number; r++)
                for (int v = 0; v < count; v++) *(vec *)(sums + (column + r) * wide + first + v * LANES) += tile[r][v];
        }
    }
}

/* x (steps, columns) = factor * sums^T, for sums (columns, steps). */
static void write_transposed(const float *sums, int64_t wide, int64_t steps, int64_t columns, float factor, float *x,
                             int64_t step) {
    for (int64_t j = 0; j < steps; j += LANES)
        for (int64_t column = 0; column < columns; column += LANES)
            turn(sums + column * wide + j, wide, lanes(columns - column), lanes(steps - j), factor,
                 x + j * step + column, step, lanes(columns - column));
}

INLINE void clear(float *line, int64_t from, int64_t to) {
    for (int64_t j = from; j < to; j += LANES) store(line + j, set(0.0f), LANES);
}

/* The gradients by QUERIES queries of a head, those of keys and values added to their sums. */
static void back_block(const Attention *a, const Back *back, int64_t row, int64_t head, int64_t start, int64_t wide) {
    const int64_t count = least(QUERIES, a->queries - start), high = height(count);
    const int64_t to = high_of(a, start + count - 1), from = tile_of(a, start, to);
    for (int64_t first = 0; first < count; first += high) {
        Some some;
        take_queries(a, row, head, start + first, least(high, count - first), &some);
        float *weights = back->weights + first * wide, *slopes = back->slopes + first * wide;
        const int64_t end = some.from + (some.to - some.from + LANES - 1) / LANES * LANES;
        for (int r = 0; r < some.count; r++) { /* the keys that these do not see and others may */
            clear(weights + r * wide, from, some.from), clear(weights + r * wide, end, to);
            clear(slopes + r * wide, from, some.from), clear(slopes + r * wide, end, to);
        }
        weigh_back(a, &some, back, wide, weights, slopes);
        back_queries(a, &some, back, wide, slopes);
    }
    add_transposed(a, start, count, a->width, at(a->q, a->q_at, row, head, start), a->q_at.step, back->slopes, from, to,
                   wide, back->d_keys);
    add_transposed(a, start, count, a->other, at(a->d_out, a->d_out_at, row, head, start), a->d_out_at.step,
                   back->weights, from, to, wide, back->d_values);
}

KERNEL(attention_back, Attention) {
    const int64_t wide = padded(task->keys), shared = task->heads / task->groups;
    const int64_t sizes[] = {wide * task->width, wide * task->other, task->keys * padded(task->width), QUERIES * wide,
                             QUERIES * wide,     wide * task->width, wide * task->other};
    int64_t all = 0;
    for (int i = 0; i < 7; i++) all += sizes[i];
    int failed = 0;
#pragma omp parallel num_threads(task->threads) reduction(| : failed) if (task->threads > 1)
    {
        Back b;
        float **parts[] = {&b.keys, &b.values, &b.sides, &b.weights, &b.slopes, &b.d_keys, &b.d_values};
        float *room = floats(all), *next = room;
        for (int i = 0; i < 7 && room; next += sizes[i++]) *parts[i] = next;
        failed = !room;
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < task->rows * task->groups; item++) {
            const int64_t row = item / task->groups, group = item % task->groups;
            if (failed) continue;
            const float *k = at(task->k, task->k_at, row, group, 0), *v = at(task->v, task->v_at, row, group, 0);
            pack_turned(k, task->width, task->keys, task->k_at.step, (float)task->scale * unit(task), b.keys);
            pack_turned(v, task->other, task->keys, task->v_at.step, 1.0f, b.values);
            pack(k, task->keys, task->width, task->k_at.step, b.sides);
            memset(b.d_keys, 0, wide * task->width * sizeof(float));
            memset(b.d_values, 0, wide * task->other * sizeof(float));
            for (int64_t head = group * shared; head < (group + 1) * shared; head++)
                for (int64_t start = 0; start < task->queries; start += QUERIES)
                    back_block(task, &b, row, head, start, wide);
            write_transposed(b.d_keys, wide, task->keys, task->width, (float)task->scale,
                             (float *)at(task->d_k, task->d_k_at, row, group, 0), task->d_k_at.step);
            write_transposed(b.d_values, wide, task->keys, task->other, 1.0f,
                             (float *)at(task->d_v, task->d_v_at, row, group, 0), task->d_v_at.step);
        }
        free(room);
    }
    return failed;
}
