/* Attention of sequences of some hundred steps, and its way back: see zoo/kernels/attention.py.

   All scores of a few queries are there at once, in the nearest cache, so that the softmax needs no running sums. The
   way back makes them again from the norms, for as many queries as keep the products with them long. Scores count in
   powers of 2.

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
    float *norm;         /* (B, H, T) */
} Attention;

/* What belongs to some queries of a head: ROWS of them at most. */
typedef struct {
    int64_t row, head, first;
    int count;
    int64_t low[ROWS], high[ROWS]; /* of the keys that a query sees */
    int64_t from, to;              /* of those that any sees, `from` where a tile begins */
    const float *mask[ROWS];       /* or NULL */
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

/* The same of x^T, for x (columns, depth): a row of it is read once. */
static void pack_turned(const float *x, int64_t depth, int64_t columns, int64_t step, float *packed) {
    for (int64_t first = 0; first < columns; first += WIDE * LANES) {
        const int64_t width = width_at(first, columns) * LANES, there = least(width, columns - first);
        for (int64_t column = 0; column < there; column++)
            for (int64_t k = 0; k < depth; k++) packed[k * width + column] = x[(first + column) * step + k];
        for (int64_t k = 0; k < depth && there < width; k++)
            memset(packed + k * width + there, 0, (width - there) * sizeof(float));
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

static Some some_queries(const Attention *a, int64_t row, int64_t head, int64_t first, int64_t count) {
    Some some = {row, head, first, (int)count, .from = a->keys, .last_for_all = a->keys};
    some.slope = a->slopes ? a->slopes[head] * LOG2E : 0.0f;
    for (int r = 0; r < count; r++) {
        const int64_t place = first + r + a->offset;
        some.low[r] = a->window ? most(0, place - a->window + 1) : 0;
        some.high[r] = a->causal ? place + 1 : a->window ? place + a->window : a->keys;
        some.high[r] = most(0, least(some.high[r], a->keys));
        some.from = least(some.from, some.low[r]);
        some.to = most(some.to, some.high[r]);
        some.mask[r] = a->mask ? at(a->mask, a->mask_at, row, head, first + r) : NULL;
        if (!a->dropped) continue;
        const uint64_t query = (row * a->heads + head) * a->queries + first + r + 1;
        const uint64_t bits = mixed((uint64_t)a->seed + query * 0x9e3779b97f4a7c15u);
        some.draw[r][0] = (uint32_t)bits;
        some.draw[r][1] = (uint32_t)(bits >> 32);
    }
    for (int r = 0; r < count; r++) {
        some.first_for_all = most(some.first_for_all, some.low[r]);
        some.last_for_all = least(some.last_for_all, some.high[r]);
    }
    some.from = least(some.from, some.to) / (WIDE * LANES) * (WIDE * LANES);
    return some;
}

INLINE ivec from_zero(void) {
    ivec lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    return lane;
}

/* Whether all see all keys of the tile that begins at `first`, and nothing is added to the scores. */
INLINE int is_plain(const Attention *a, const Some *some, int64_t first) {
    return !a->mask && !a->slopes && first >= some->first_for_all && first + WIDE * LANES <= some->last_for_all;
}

/* Scores of query r with the keys from j on, to which what is asked for is added; -inf where it does not see them. */
INLINE vec seen(const Attention *a, const Some *some, int r, int64_t j, vec s) {
    if (some->mask[r]) s += LOG2E * load(some->mask[r] + j, lanes(a->keys - j));
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

INLINE float sum(vec x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    float all = 0.0f;
    for (int lane = 0; lane < LANES; lane++) all += x[lane];
    return all;
#endif
}

/* The weights of some queries, not yet divided by their sums, which are returned with the norms. */
static void weigh(const Attention *a, const Some *some, const float *keys, int64_t wide, float *weights, float *sums,
                  float *norms) {
    const float *rows[ROWS] = {0};
    vec tile[ROWS][WIDE], top[ROWS];
    for (int r = 0; r < some->count; r++) {
        rows[r] = at(a->q, a->q_at, some->row, some->head, some->first + r);
        top[r] = set(-INFINITY);
    }
    for (int64_t first = some->from; first < some->to; first += WIDE * LANES) {
        const int count = width_at(first, a->keys), plain = is_plain(a, some, first);
        product(some->count, count, a->width, 1, rows, tile_at(keys, a->width, a->keys, first, 0), tile);
        for (int r = 0; r < some->count; r++)
            for (int v = 0; v < count; v++) {
                const int64_t j = first + v * LANES;
                vec s = tile[r][v] * ((float)a->scale * LOG2E);
                if (!plain) s = seen(a, some, r, j, s);
                top[r] = greater(s, top[r]);
                store(weights + r * wide + j, s, LANES);
            }
    }
    for (int r = 0; r < some->count; r++) {
        float *line = weights + r * wide;
        const float highest = greatest(top[r]), finite = highest == -INFINITY ? 0.0f : highest;
        vec total = {};
        for (int64_t j = some->from; j < some->to; j += LANES) {
            const vec p = exp2_(load(line + j, LANES) - finite);
            total += p;
            store(line + j, a->dropped ? (vec)(p * kept(a, some, r, j)) : p, LANES);
        }
        sums[r] = sum(total);
        norms[r] = sums[r] == 0.0f ? INFINITY : highest + log2f(sums[r]);
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
            pack_turned(at(task->k, task->k_at, row, head / group, 0), task->width, task->keys, task->k_at.step, keys);
            pack(at(task->v, task->v_at, row, head / group, 0), task->keys, task->other, task->v_at.step, values);
            const int64_t high = height(end - item % parts * part);
            for (int64_t first = item % parts * part; first < end; first += high) {
                float sums[ROWS];
                const Some some = some_queries(task, row, head, first, least(high, end - first));
                weigh(task, &some, keys, wide, weights, sums,
                      task->norm + (row * task->heads + head) * task->queries + first);
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
    float *keys, *values;      /* by columns of keys: (d, S) and (e, S), packed */
    float *sides;              /* keys as rows: (S, d), packed */
    float *weights, *slopes;   /* p z, and ds: (QUERIES, S) */
    float *d_keys, *d_values;  /* sums by columns of keys: (d, S) and (e, S) */
} Back;

/* Weights and the slopes of scores of some queries: p z and ds = p (z v^T do - delta). */
static void weigh_back(const Attention *a, const Some *some, const Back *back, int64_t wide, float *weights,
                       float *slopes) {
    const float *rows[ROWS] = {0}, *ups[ROWS] = {0};
    float inner[ROWS];
    const float *norms = a->norm + (some->row * a->heads + some->head) * a->queries + some->first;
    vec tile[ROWS][WIDE], up[ROWS][WIDE];
    for (int r = 0; r < some->count; r++) {
        rows[r] = at(a->q, a->q_at, some->row, some->head, some->first + r);
        ups[r] = at(a->d_out, a->d_out_at, some->row, some->head, some->first + r);
        const float *out = at(a->out, a->out_at, some->row, some->head, some->first + r);
        vec total = {};
        for (int64_t i = 0; i < a->other; i += LANES)
            total += load(out + i, lanes(a->other - i)) * load(ups[r] + i, lanes(a->other - i));
        inner[r] = sum(total);
    }
    for (int64_t first = some->from; first < some->to; first += WIDE * LANES) {
        const int count = width_at(first, a->keys), plain = is_plain(a, some, first);
        product(some->count, count, a->width, 1, rows, tile_at(back->keys, a->width, a->keys, first, 0), tile);
        product(some->count, count, a->other, 1, ups, tile_at(back->values, a->other, a->keys, first, 0), up);
        for (int r = 0; r < some->count; r++)
            for (int v = 0; v < count; v++) {
                const int64_t j = first + v * LANES;
                vec s = tile[r][v] * ((float)a->scale * LOG2E);
                if (!plain) s = seen(a, some, r, j, s);
                const vec p = exp2_(s - norms[r]);
                const vec z = a->dropped ? kept(a, some, r, j) : set(1.0f);
                store(weights + r * wide + j, p * z, LANES);
                store(slopes + r * wide + j, p * (up[r][v] * z - inner[r]), LANES);
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

/* sums (columns, S) += x^T weights for x (queries, columns) and the keys from `from` up to `to`. */
static void add_transposed(int64_t queries, int64_t columns, const float *x, int64_t step, const float *weights,
                           int64_t from, int64_t to, int64_t wide, float *sums) {
    const float *rows[ROWS] = {0};
    vec tile[ROWS][WIDE];
    const int64_t high = height(columns);
    for (int64_t first = from; first < to; first += WIDE * LANES) {
        const int count = width_at(first, to);
        for (int64_t column = 0; column < columns; column += high) {
            const int number = (int)least(high, columns - column);
            for (int r = 0; r < number; r++) rows[r] = x + column + r;
            product_apart(number, count, queries, step, rows, (const vec *)(weights + first), wide / LANES, tile);
            for (int r = 0; r < number; r++)
                for (int v = 0; v < count; v++) *(vec *)(sums + (column + r) * wide + first + v * LANES) += tile[r][v];
        }
    }
}

/* x (steps, columns) = factor * sums^T, for sums (columns, steps). */
static void write_transposed(const float *sums, int64_t wide, int64_t steps, int64_t columns, float factor, float *x,
                             int64_t step) {
    for (int64_t j = 0; j < steps; j++)
        for (int64_t column = 0; column < columns; column++) x[j * step + column] = factor * sums[column * wide + j];
}

/* The gradients by QUERIES queries of a head, those of keys and values added to their sums. */
static void back_block(const Attention *a, const Back *back, int64_t row, int64_t head, int64_t start, int64_t wide) {
    const int64_t count = least(QUERIES, a->queries - start), high = height(count);
    int64_t from = a->keys, to = 0;
    for (int64_t first = 0; first < count; first += high) {
        const Some some = some_queries(a, row, head, start + first, least(high, count - first));
        float *weights = back->weights + first * wide, *slopes = back->slopes + first * wide;
        const int64_t end = some.from + (some.to - some.from + LANES - 1) / LANES * LANES;
        for (int r = 0; r < some.count; r++) /* the keys that these do not see and others may */
            for (int which = 0; which < 2; which++) {
                float *line = (which ? slopes : weights) + r * wide;
                memset(line, 0, some.from * sizeof(float));
                memset(line + end, 0, (wide - end) * sizeof(float));
            }
        weigh_back(a, &some, back, wide, weights, slopes);
        back_queries(a, &some, back, wide, slopes);
        from = least(from, some.from);
        to = most(to, some.to);
    }
    add_transposed(count, a->width, at(a->q, a->q_at, row, head, start), a->q_at.step, back->slopes, from, to, wide,
                   back->d_keys);
    add_transposed(count, a->other, at(a->d_out, a->d_out_at, row, head, start), a->d_out_at.step, back->weights, from,
                   to, wide, back->d_values);
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
            pack_turned(k, task->width, task->keys, task->k_at.step, b.keys);
            pack_turned(v, task->other, task->keys, task->v_at.step, b.values);
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
