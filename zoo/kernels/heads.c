/* One step of all heads of a Neural Turing Machine, and its way back: see zoo/layers/memory/heads.py.

   A row needs a few thousand numbers, which stay in the first cache, and no row needs another: the way back computes
   what the step has computed once more, so that nothing but the inputs is kept from one to the other. The memory lies
   with its slots side by side, (B, W, N), since nearly all is done to every slot.

   Letters as there: B rows, H = R + Q heads that read and write, N slots of W numbers, S shifts. */

#include "vectors.h"
#include <float.h>
#include <math.h>

#define EPSILON 1e-6f /* as in addressing.py */

typedef struct {
    int64_t rows, slots, width, reading, writing, shifts, apart, threads; /* apart: from what a row reads to the next */
    const float *memory, *weights, *told;      /* (B, W, N), (B, H, N), (B, P) */
    float *after, *places, *reads;             /* (B, W, N), (B, H, N), (B, R W), of the step */
    const float *d_after, *d_places, *d_reads; /* of the way back, like these */
    float *d_memory, *d_weights, *d_told;      /* like the inputs; the first two may lie where d_after and d_places do */
} Move;

/* What a step computes of one row. */
typedef struct {
    const float *keys;                               /* (H, W) */
    float *strength, *sharpness, *gate;              /* (H) */
    float *erase, *add, *shifts;                     /* (Q, W), (Q, W), (H, S) */
    float *sizes, *lengths;                          /* |M| (N), |k| (H) */
    float *alike, *norms, *content, *mixed, *moved, *logs, *places; /* (H, N) */
    float *stages;                                   /* (Q, W, N), the memory after each head has erased */
    float *d_places, *d_moved, *d_mixed, *d_content; /* (H, N), and (N) each */
    float *d_sizes, *line;                           /* (N) */
    float *room;
} Step;

/* i goes over `count` numbers, a vector of n of them at a time. */
#define EACH(count) (int64_t i = 0, n = lanes(count); i < (count); i += LANES, n = lanes((count) - i))

INLINE float dot(const float *a, const float *b, int64_t count) {
    vec sums = {};
    for EACH(count) sums += load(a + i, n) * load(b + i, n);
    return sum_of(sums);
}

/* to += factor * from */
INLINE void add_to(float *to, float factor, const float *from, int64_t count) {
    for EACH(count) store(to + i, load(to + i, n) + factor * load(from + i, n), n);
}

static float largest(const float *x, int64_t count) {
    vec most = set(-INFINITY);
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const vec y = load(x + i, LANES);
        most = choose(y > most, y, most);
    }
    float found = -INFINITY;
    for (int lane = 0; lane < LANES; lane++) found = most[lane] > found ? most[lane] : found;
    for (; i < count; i++) found = x[i] > found ? x[i] : found;
    return found;
}

static void softmax(float *x, int64_t count) {
    const float most = largest(x, count);
    vec total = {};
    for EACH(count) {
        const vec y = load(x + i, n) - most;
        store(x + i, choose(y < set(-87.0f), set(0.0f), exp_(bounded(y, -87.0f, 0.0f))), n);
        total += load(x + i, n);
    }
    const float scale = 1.0f / sum_of(total);
    for EACH(count) store(x + i, scale * load(x + i, n), n);
}

/* The way back through softmax: p (d - sum d p). */
static void softmax_back(const float *p, const float *d, float *out, int64_t count) {
    const float mean = dot(p, d, count);
    for EACH(count) store(out + i, load(p + i, n) * (load(d + i, n) - mean), n);
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
    const int64_t numbers = 4 * H + 2 * Q * W + H * S + 2 * N + 7 * H * N + Q * W * N + (back ? H * N + 4 * N : 0);
    float *at = s->room = malloc((size_t)numbers * sizeof(float));
    if (!at) return 1;
#define TAKE(name, count) s->name = at, at += (count)
    TAKE(strength, H); TAKE(sharpness, H); TAKE(gate, H); TAKE(lengths, H);
    TAKE(erase, Q * W); TAKE(add, Q * W); TAKE(shifts, H * S); TAKE(sizes, N);
    TAKE(alike, H * N); TAKE(norms, H * N); TAKE(content, H * N); TAKE(mixed, H * N); TAKE(moved, H * N);
    TAKE(logs, H * N); TAKE(places, H * N); TAKE(stages, Q * W * N); TAKE(line, N);
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
    for EACH(Q * W) {
        store(s->erase + i, sigmoid(load(told + i, n)), n);
        store(s->add + i, tanh_(load(told + Q * W + i, n)), n);
    }
    memcpy(s->shifts, told + 2 * Q * W, H * S * sizeof(float));
    for (int64_t h = 0; h < H; h++) softmax(s->shifts + h * S, S);
}

/* Where the heads are now, and the memory after them in the last stage, to which nothing was added yet. */
static void step(const Move *m, Step *s, int64_t row) {
    const int64_t R = m->reading, Q = m->writing, H = R + Q, N = m->slots, W = m->width, S = m->shifts;
    const float *memory = m->memory + row * W * N;
    listen(m, s, m->told + row * (H * (W + 3 + S) + 2 * Q * W));
    for EACH(N) {
        vec squares = {};
        for (int64_t w = 0; w < W; w++) squares += load(memory + w * N + i, n) * load(memory + w * N + i, n);
        store(s->sizes + i, root(squares), n);
    }
    for (int64_t h = 0; h < H; h++) {
        const float *key = s->keys + h * W, *before = m->weights + (row * H + h) * N;
        const float length = s->lengths[h] = sqrtf(dot(key, key, W)), gate = s->gate[h];
        float *alike = s->alike + h * N, *norms = s->norms + h * N, *content = s->content + h * N;
        float *mixed = s->mixed + h * N, *moved = s->moved + h * N, *logs = s->logs + h * N, *places = s->places + h * N;
        for EACH(N) {
            const vec norm = length * load(s->sizes + i, n) + EPSILON;
            vec found = {};
            for (int64_t w = 0; w < W; w++) found += key[w] * load(memory + w * N + i, n);
            found /= norm;
            store(norms + i, norm, n);
            store(alike + i, found, n);
            store(content + i, found * s->strength[h], n);
        }
        softmax(content, N);
        for EACH(N) {
            store(mixed + i, (1.0f - gate) * load(before + i, n) + gate * load(content + i, n), n);
            store(moved + i, set(0.0f), n);
        }
        for (int64_t j = 0; j < S; j++) add_shifted(moved, s->shifts[h * S + j], mixed, j - S / 2, N);
        for EACH(N) {
            const vec there = load(moved + i, n), found = log_(choose(there > set(FLT_MIN), there, set(FLT_MIN)));
            store(logs + i, found, n);
            store(places + i, found * s->sharpness[h], n);
        }
        softmax(places, N);
    }
    for (int64_t q = 0; q < Q; q++) {
        const float *from = q ? s->stages + (q - 1) * W * N : memory, *places = s->places + (R + q) * N;
        float *stage = s->stages + q * W * N;
        for (int64_t w = 0; w < W; w++, from += N, stage += N) {
            const float erase = s->erase[q * W + w];
            for EACH(N) store(stage + i, load(from + i, n) * (1.0f - load(places + i, n) * erase), n);
        }
    }
}

/* The w-th number of all slots after the step: that of the last stage + sum_q w_q a_q. */
static void write_to(const Move *m, const Step *s, int64_t w, float *after) {
    const int64_t R = m->reading, Q = m->writing, N = m->slots, W = m->width;
    memcpy(after, s->stages + ((Q - 1) * W + w) * N, N * sizeof(float));
    for (int64_t q = 0; q < Q; q++) add_to(after, s->add[q * W + w], s->places + (R + q) * N, N);
}

KERNEL(heads_step, Move) {
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
            step(m, &s, row);
            for (int64_t w = 0; w < W; w++) {
                float *after = m->after + (row * W + w) * N;
                write_to(m, &s, w, after);
                for (int64_t r = 0; r < R; r++) m->reads[row * m->apart + r * W + w] = dot(s.places + r * N, after, N);
            }
            memcpy(m->places + row * H * N, s.places, H * N * sizeof(float));
        }
        free(s.room);
    }
    return failed;
}

/* Back through reading and writing: s->d_places, the gradients of what is erased and added, and that of the memory. */
static void unwrite(const Move *m, Step *s, int64_t row, float *d_erase, float *d_add) {
    const int64_t R = m->reading, Q = m->writing, H = R + Q, N = m->slots, W = m->width;
    const float *memory = m->memory + row * W * N, *d_reads = m->d_reads + row * m->apart;
    memcpy(s->d_places, m->d_places + row * H * N, H * N * sizeof(float));
    for (int64_t w = 0; w < W; w++) {
        float *d = m->d_memory + (row * W + w) * N;
        memmove(d, m->d_after + (row * W + w) * N, N * sizeof(float));
        write_to(m, s, w, s->line);
        for (int64_t r = 0; r < R; r++) {
            add_to(s->d_places + r * N, d_reads[r * W + w], s->line, N);
            add_to(d, d_reads[r * W + w], s->places + r * N, N);
        }
        for (int64_t q = 0; q < Q; q++) {
            add_to(s->d_places + (R + q) * N, s->add[q * W + w], d, N);
            d_add[q * W + w] = dot(s->places + (R + q) * N, d, N);
        }
        for (int64_t q = Q - 1; q >= 0; q--) {
            const float *from = (q ? s->stages + (q - 1) * W * N : memory) + w * N, *places = s->places + (R + q) * N;
            const float erase = s->erase[q * W + w];
            float *d_places = s->d_places + (R + q) * N;
            vec slope = {};
            for EACH(N) {
                const vec place = load(places + i, n), product = load(d + i, n) * load(from + i, n);
                slope -= place * product;
                store(d_places + i, load(d_places + i, n) - erase * product, n);
                store(d + i, load(d + i, n) * (1.0f - place * erase), n);
            }
            d_erase[q * W + w] = sum_of(slope);
        }
    }
}

/* Back through sharpening, shift, interpolation and content of a head. */
static void unmove(const Move *m, Step *s, int64_t row, int64_t h, float *d_told) {
    const int64_t R = m->reading, Q = m->writing, H = R + Q, N = m->slots, W = m->width, S = m->shifts;
    const float *memory = m->memory + row * W * N, *before = m->weights + (row * H + h) * N;
    const float *told = m->told + row * (H * (W + 3 + S) + 2 * Q * W) + H * W, *key = s->keys + h * W;
    const float *content = s->content + h * N, *mixed = s->mixed + h * N, *moved = s->moved + h * N;
    const float *alike = s->alike + h * N, *norms = s->norms + h * N, *shifts = s->shifts + h * S;
    const float gate = s->gate[h], length = s->lengths[h];
    float *d_weights = m->d_weights + (row * H + h) * N, *d_memory = m->d_memory + row * W * N;
    float *d_key = d_told + h * W, *d_shifts = d_told + H * (W + 3) + 2 * Q * W + h * S;
    float *d_strength = d_told + H * W + h, *d_sharpness = d_strength + H, *d_gate = d_sharpness + H;

    softmax_back(s->places + h * N, s->d_places + h * N, s->d_content, N);
    *d_sharpness = dot(s->d_content, s->logs + h * N, N) / (1.0f + expf(-told[H + h]));
    for EACH(N) {
        const vec there = load(moved + i, n), slope = load(s->d_content + i, n) * s->sharpness[h];
        const ivec some = there > set(FLT_MIN);
        store(s->d_moved + i, choose(some, slope / choose(some, there, set(1.0f)), set(0.0f)), n);
        store(s->d_mixed + i, set(0.0f), n);
    }
    float d[S];
    for (int64_t j = 0; j < S; j++) {
        add_shifted(s->d_mixed, shifts[j], s->d_moved, S / 2 - j, N);
        d[j] = dot_shifted(s->d_moved, mixed, j - S / 2, N);
    }
    softmax_back(shifts, d, d_shifts, S);

    vec slope = {};
    for EACH(N) {
        const vec d_mixed = load(s->d_mixed + i, n);
        slope += (load(content + i, n) - load(before + i, n)) * d_mixed;
        store(s->d_content + i, gate * d_mixed, n);
        store(d_weights + i, (1.0f - gate) * d_mixed, n);
    }
    *d_gate = sum_of(slope) * gate * (1.0f - gate);
    softmax_back(content, s->d_content, s->d_moved, N);
    *d_strength = dot(s->d_moved, alike, N) / (1.0f + expf(-told[h]));
    vec d_length = {};
    for EACH(N) {
        const vec norm = load(norms + i, n); /* 0 beyond the last slot, and nowhere else */
        const vec d_dot = load(s->d_moved + i, n) * s->strength[h] / choose(norm == set(0.0f), set(1.0f), norm);
        const vec d_norm = d_dot * load(alike + i, n);
        d_length += d_norm * load(s->sizes + i, n);
        store(s->d_sizes + i, load(s->d_sizes + i, n) + d_norm * length, n);
        store(s->d_moved + i, d_dot, n); /* of the products of key and slots from here on */
    }
    for (int64_t w = 0; w < W; w++) {
        d_key[w] = dot(s->d_moved, memory + w * N, N);
        add_to(d_memory + w * N, key[w], s->d_moved, N);
    }
    if (length > 0.0f) add_to(d_key, -sum_of(d_length) / length, key, W);
}

KERNEL(heads_step_back, Move) {
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
            memset(s.d_sizes, 0, N * sizeof(float));
            step(m, &s, row);
            unwrite(m, &s, row, d_erase, d_add);
            for (int64_t h = 0; h < H; h++) unmove(m, &s, row, h, d_told);
            for (int64_t n = 0; n < N; n++) s.line[n] = s.sizes[n] > 0.0f ? -s.d_sizes[n] / s.sizes[n] : 0.0f;
            for (int64_t w = 0; w < W; w++) {
                const float *memory = m->memory + (row * W + w) * N;
                float *d_memory = m->d_memory + (row * W + w) * N;
                for EACH(N) store(d_memory + i, load(d_memory + i, n) + load(s.line + i, n) * load(memory + i, n), n);
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
