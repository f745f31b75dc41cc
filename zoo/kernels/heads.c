/* One step of all heads of a Neural Turing Machine, and its way back: see zoo/layers/memory/heads.py.

   A row needs a few thousand numbers, which stay in the first cache, and no row needs another: the way back computes
   what the step has computed once more, so that nothing but the inputs is kept from one to the other.

   Letters as there: B rows, H = R + Q heads that read and write, N slots of W numbers, S shifts. */

#include "vectors.h"
#include <float.h>
#include <math.h>

#define EPSILON 1e-6f /* as in addressing.py */

typedef struct {
    int64_t rows, slots, width, reading, writing, shifts, threads;
    const float *memory, *weights, *told;      /* (B, N, W), (B, H, N), (B, P) */
    float *after, *places, *reads;             /* (B, N, W), (B, H, N), (B, R W), of the step */
    const float *d_after, *d_places, *d_reads; /* of the way back, like these */
    float *d_memory, *d_weights, *d_told;      /* like the inputs */
} Move;

/* What a step computes of one row. */
typedef struct {
    const float *keys;                               /* (H, W) */
    float *strength, *sharpness, *gate;              /* (H) */
    float *erase, *add, *shifts;                     /* (Q, W), (Q, W), (H, S) */
    float *sizes, *lengths;                          /* |M| (N), |k| (H) */
    float *alike, *norms, *content, *mixed, *moved, *logs, *places; /* (H, N) */
    float *stages;                                   /* (Q, N, W), the memory after each head has erased */
    float *d_places, *d_moved, *d_mixed, *d_content; /* (H, N), and (N) each */
    float *d_sizes;                                  /* (N) */
    float *room;
} Step;

INLINE float sum(vec v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float all = 0.0f;
    for (int lane = 0; lane < LANES; lane++) all += v[lane];
    return all;
#endif
}

INLINE float dot(const float *a, const float *b, int64_t count) {
    vec sums = {};
    for (int64_t i = 0; i < count; i += LANES) {
        const int n = lanes(count - i);
        sums += load(a + i, n) * load(b + i, n);
    }
    return sum(sums);
}

/* to += factor * from */
INLINE void add_to(float *to, float factor, const float *from, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) {
        const int n = lanes(count - i);
        store(to + i, load(to + i, n) + factor * load(from + i, n), n);
    }
}

static void softmax(float *x, int64_t count) {
    float most = -INFINITY;
    vec total = {};
    for (int64_t i = 0; i < count; i++) most = x[i] > most ? x[i] : most;
    for (int64_t i = 0; i < count; i += LANES) {
        const int n = lanes(count - i);
        const vec y = load(x + i, n) - most;
        store(x + i, choose(y < set(-87.0f), set(0.0f), exp_(bounded(y, -87.0f, 0.0f))), n);
        total += load(x + i, n);
    }
    const float scale = 1.0f / sum(total);
    for (int64_t i = 0; i < count; i++) x[i] *= scale;
}

/* The way back through softmax: p (d - sum d p). */
static void softmax_back(const float *restrict p, const float *restrict d, float *restrict out, int64_t count) {
    const float mean = dot(p, d, count);
    for (int64_t i = 0; i < count; i++) out[i] = p[i] * (d[i] - mean);
}

static float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

/* to_i += factor * from_{i - offset}, around the ring. */
static void add_shifted(float *to, float factor, const float *from, int64_t offset, int64_t count) {
    const int64_t by = (offset % count + count) % count;
    add_to(to + by, factor, from, count - by);
    add_to(to, factor, from + count - by, by);
}

/* sum_i a_i b_{i - offset} */
static float dot_shifted(const float *a, const float *b, int64_t offset, int64_t count) {
    const int64_t by = (offset % count + count) % count;
    return dot(a + by, b, count - by) + dot(a, b + count - by, by);
}

static int open_step(const Move *m, Step *s, int back) {
    const int64_t H = m->reading + m->writing, Q = m->writing, N = m->slots, W = m->width, S = m->shifts;
    const int64_t numbers = 4 * H + 2 * Q * W + H * S + N + 7 * H * N + Q * N * W + (back ? H * N + 4 * N : 0);
    float *at = s->room = malloc((size_t)numbers * sizeof(float));
    if (!at) return 1;
#define TAKE(name, count) s->name = at, at += (count)
    TAKE(strength, H); TAKE(sharpness, H); TAKE(gate, H); TAKE(lengths, H);
    TAKE(erase, Q * W); TAKE(add, Q * W); TAKE(shifts, H * S); TAKE(sizes, N);
    TAKE(alike, H * N); TAKE(norms, H * N); TAKE(content, H * N); TAKE(mixed, H * N); TAKE(moved, H * N);
    TAKE(logs, H * N); TAKE(places, H * N); TAKE(stages, Q * N * W);
    if (back) { TAKE(d_places, H * N); TAKE(d_moved, N); TAKE(d_mixed, N); TAKE(d_content, N); TAKE(d_sizes, N); }
#undef TAKE
    return 0;
}

/* What the heads are told, in the order of `Heads.sizes`. */
static void listen(const Move *m, Step *s, const float *told) {
    const int64_t R = m->reading, Q = m->writing, H = R + Q, W = m->width, S = m->shifts;
    s->keys = told;
    told += H * W;
    for (int64_t h = 0; h < H; h++) {
        s->strength[h] = softplus(told[h]);
        s->sharpness[h] = 1.0f + softplus(told[H + h]);
        s->gate[h] = 1.0f / (1.0f + expf(-told[2 * H + h]));
    }
    told += 3 * H;
    for (int64_t i = 0; i < Q * W; i += LANES) {
        const int n = lanes(Q * W - i);
        store(s->erase + i, sigmoid(load(told + i, n)), n);
        store(s->add + i, tanh_(load(told + Q * W + i, n)), n);
    }
    memcpy(s->shifts, told + 2 * Q * W, H * S * sizeof(float));
    for (int64_t h = 0; h < H; h++) softmax(s->shifts + h * S, S);
}

/* Where the heads are now, and the memory after them in the last stage, to which nothing was added yet. */
static void step(const Move *m, Step *s, int64_t row) {
    const int64_t R = m->reading, Q = m->writing, H = R + Q, N = m->slots, W = m->width, S = m->shifts;
    const float *memory = m->memory + row * N * W, *before = m->weights + row * H * N;
    listen(m, s, m->told + row * (H * (W + 3 + S) + 2 * Q * W));
    for (int64_t n = 0; n < N; n++) s->sizes[n] = sqrtf(dot(memory + n * W, memory + n * W, W));
    for (int64_t h = 0; h < H; h++) {
        const float *key = s->keys + h * W, length = s->lengths[h] = sqrtf(dot(key, key, W));
        float *alike = s->alike + h * N, *norms = s->norms + h * N, *content = s->content + h * N;
        float *mixed = s->mixed + h * N, *moved = s->moved + h * N, *logs = s->logs + h * N, *places = s->places + h * N;
        for (int64_t n = 0; n < N; n++) {
            norms[n] = length * s->sizes[n] + EPSILON;
            alike[n] = dot(key, memory + n * W, W) / norms[n];
            content[n] = alike[n] * s->strength[h];
        }
        softmax(content, N);
        for (int64_t n = 0; n < N; n++) {
            mixed[n] = (1.0f - s->gate[h]) * before[h * N + n] + s->gate[h] * content[n];
            moved[n] = 0.0f;
        }
        for (int64_t j = 0; j < S; j++) add_shifted(moved, s->shifts[h * S + j], mixed, j - S / 2, N);
        for (int64_t n = 0; n < N; n++) {
            logs[n] = logf(moved[n] > FLT_MIN ? moved[n] : FLT_MIN);
            places[n] = logs[n] * s->sharpness[h];
        }
        softmax(places, N);
    }
    for (int64_t q = 0; q < Q; q++) {
        const float *from = q ? s->stages + (q - 1) * N * W : memory, *erase = s->erase + q * W;
        float *stage = s->stages + q * N * W;
        for (int64_t n = 0; n < N; n++) {
            const float place = s->places[(R + q) * N + n];
            for (int64_t w = 0; w < W; w++) stage[n * W + w] = from[n * W + w] * (1.0f - place * erase[w]);
        }
    }
}

/* M' = the last stage + sum_q w_q a_q */
static void write_to(const Move *m, const Step *s, float *after) {
    const int64_t R = m->reading, Q = m->writing, N = m->slots, W = m->width;
    memcpy(after, s->stages + (Q - 1) * N * W, N * W * sizeof(float));
    for (int64_t q = 0; q < Q; q++)
        for (int64_t n = 0; n < N; n++) add_to(after + n * W, s->places[(R + q) * N + n], s->add + q * W, W);
}

KERNEL(heads_forward, Move) {
    const Move *m = task;
    const int64_t R = m->reading, H = R + m->writing, N = m->slots, W = m->width;
    int failed = 0;
#pragma omp parallel num_threads(m->threads) if (m->threads > 1)
    {
        Step s;
        const int broken = open_step(m, &s, 0);
        if (broken) failed = 1;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < m->rows; row++) {
            if (broken) continue;
            float *after = m->after + row * N * W, *reads = m->reads + row * R * W;
            step(m, &s, row);
            write_to(m, &s, after);
            memcpy(m->places + row * H * N, s.places, H * N * sizeof(float));
            memset(reads, 0, R * W * sizeof(float));
            for (int64_t r = 0; r < R; r++)
                for (int64_t n = 0; n < N; n++) add_to(reads + r * W, s.places[r * N + n], after + n * W, W);
        }
        free(s.room);
    }
    return failed;
}

/* Back through reading and writing: s->d_places, the gradients of what is erased and added, and that of the memory. */
static void unwrite(const Move *m, Step *s, int64_t row, float *d_erase, float *d_add) {
    const int64_t R = m->reading, Q = m->writing, H = R + Q, N = m->slots, W = m->width;
    const float *memory = m->memory + row * N * W, *d_reads = m->d_reads + row * R * W;
    float *d_memory = m->d_memory + row * N * W, *last = s->stages + (Q - 1) * N * W;
    memcpy(d_memory, m->d_after + row * N * W, N * W * sizeof(float));
    memcpy(s->d_places, m->d_places + row * H * N, H * N * sizeof(float));
    for (int64_t n = 0; n < N; n++) {
        float after[W];
        memcpy(after, last + n * W, W * sizeof(float));
        for (int64_t q = 0; q < Q; q++) add_to(after, s->places[(R + q) * N + n], s->add + q * W, W);
        for (int64_t r = 0; r < R; r++) {
            s->d_places[r * N + n] += dot(d_reads + r * W, after, W);
            add_to(d_memory + n * W, s->places[r * N + n], d_reads + r * W, W);
        }
        for (int64_t q = 0; q < Q; q++) {
            s->d_places[(R + q) * N + n] += dot(s->add + q * W, d_memory + n * W, W);
            add_to(d_add + q * W, s->places[(R + q) * N + n], d_memory + n * W, W);
        }
        for (int64_t q = Q - 1; q >= 0; q--) {
            const float *from = (q ? s->stages + (q - 1) * N * W : memory) + n * W, *erase = s->erase + q * W;
            const float place = s->places[(R + q) * N + n];
            float product[W], *d = d_memory + n * W;
            for (int64_t w = 0; w < W; w++) {
                product[w] = -d[w] * from[w];
                d[w] *= 1.0f - place * erase[w];
            }
            s->d_places[(R + q) * N + n] += dot(erase, product, W);
            add_to(d_erase + q * W, place, product, W);
        }
    }
}

/* Back through sharpening, shift, interpolation and content of a head. */
static void unmove(const Move *m, Step *s, int64_t row, int64_t h, float *d_told) {
    const int64_t R = m->reading, Q = m->writing, H = R + Q, N = m->slots, W = m->width, S = m->shifts;
    const float *memory = m->memory + row * N * W, *before = m->weights + (row * H + h) * N;
    const float *told = m->told + row * (H * (W + 3 + S) + 2 * Q * W) + H * W, *key = s->keys + h * W;
    const float *content = s->content + h * N, *mixed = s->mixed + h * N, *moved = s->moved + h * N;
    const float *alike = s->alike + h * N, *norms = s->norms + h * N, *shifts = s->shifts + h * S;
    const float gate = s->gate[h], length = s->lengths[h];
    float *d_weights = m->d_weights + (row * H + h) * N, *d_memory = m->d_memory + row * N * W;
    float *d_key = d_told + h * W, *d_shifts = d_told + H * (W + 3) + 2 * Q * W + h * S;
    float *d_strength = d_told + H * W + h, *d_sharpness = d_strength + H, *d_gate = d_sharpness + H;

    softmax_back(s->places + h * N, s->d_places + h * N, s->d_content, N);
    *d_sharpness = dot(s->d_content, s->logs + h * N, N) / (1.0f + expf(-told[H + h]));
    for (int64_t n = 0; n < N; n++) {
        s->d_moved[n] = moved[n] > FLT_MIN ? s->d_content[n] * s->sharpness[h] / moved[n] : 0.0f;
        s->d_mixed[n] = 0.0f;
    }
    float d[S];
    for (int64_t j = 0; j < S; j++) {
        add_shifted(s->d_mixed, shifts[j], s->d_moved, S / 2 - j, N);
        d[j] = dot_shifted(s->d_moved, mixed, j - S / 2, N);
    }
    softmax_back(shifts, d, d_shifts, S);

    float slope = 0.0f;
    for (int64_t n = 0; n < N; n++) {
        slope += (content[n] - before[n]) * s->d_mixed[n];
        s->d_content[n] = gate * s->d_mixed[n];
        d_weights[n] = (1.0f - gate) * s->d_mixed[n];
    }
    *d_gate = slope * gate * (1.0f - gate);
    softmax_back(content, s->d_content, s->d_moved, N);
    *d_strength = dot(s->d_moved, alike, N) / (1.0f + expf(-told[h]));
    float d_length = 0.0f;
    for (int64_t n = 0; n < N; n++) {
        const float d_dot = s->d_moved[n] * s->strength[h] / norms[n], d_norm = d_dot * alike[n];
        d_length += d_norm * s->sizes[n];
        s->d_sizes[n] += d_norm * length;
        add_to(d_key, d_dot, memory + n * W, W);
        add_to(d_memory + n * W, d_dot, key, W);
    }
    if (length > 0.0f) add_to(d_key, -d_length / length, key, W);
}

KERNEL(heads_backward, Move) {
    const Move *m = task;
    const int64_t R = m->reading, Q = m->writing, H = R + Q, N = m->slots, W = m->width, S = m->shifts;
    const int64_t P = H * (W + 3 + S) + 2 * Q * W;
    int failed = 0;
#pragma omp parallel num_threads(m->threads) if (m->threads > 1)
    {
        Step s;
        const int broken = open_step(m, &s, 1);
        if (broken) failed = 1;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < m->rows; row++) {
            if (broken) continue;
            float *d_told = m->d_told + row * P, *d_erase = d_told + H * (W + 3), *d_add = d_erase + Q * W;
            memset(d_told, 0, P * sizeof(float));
            memset(s.d_sizes, 0, N * sizeof(float));
            step(m, &s, row);
            unwrite(m, &s, row, d_erase, d_add);
            for (int64_t h = 0; h < H; h++) unmove(m, &s, row, h, d_told);
            for (int64_t n = 0; n < N; n++) {
                const float by = s.sizes[n] > 0.0f ? -s.d_sizes[n] / s.sizes[n] : 0.0f;
                add_to(m->d_memory + (row * N + n) * W, by, m->memory + (row * N + n) * W, W);
            }
            for (int64_t i = 0; i < Q * W; i++) {
                d_erase[i] *= s.erase[i] * (1.0f - s.erase[i]);
                d_add[i] *= 1.0f - s.add[i] * s.add[i];
            }
        }
        free(s.room);
    }
    return failed;
}
