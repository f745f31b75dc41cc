/* Steps of Word2Vec with drawn words, as `zoo.models.word_vectors` takes them in torch operations.

   A block is 16 centres, the words around them and K' drawn words. What is predicted in it are small products of
   matrices that stay in the cache:

       scores S = U H^T,   slopes G = (p + q) sigma(S) - p,   dU = G H,   dH = G^T U

   with a number of each centre in a lane. A step takes the gradients of its blocks where the tables are, blocks shared
   among the threads; then each thread adds up the rows that are its own, in the order of the text, so that the result
   is the same for any number of threads.

   Letters: N blocks, C centres, L = C + 2R words of a halo, K' drawn words, I inputs and O outputs of a block, D numbers
   of a vector, W numbers of a row of a buffer, D up to whole vectors. */

#include <math.h>
#include <sched.h>
#include "products.h"

#define CENTRES 16
#define EACH (CENTRES / LANES) /* vectors with a number of each centre */
#define ROUND (WIDE * LANES)

#define BLOCKS_OF_PIECE 4

typedef struct {
    int64_t blocks, radius, drawn, size, words, blocks_per_step, cbow, threads;
    double negatives, rate, bound;
    const int64_t *text;   /* N C + 2R: words */
    const uint8_t *there;  /* N C + 2R: whether there is one */
    const int64_t *window; /* N C: how far it reaches, 0 where there is no centre */
    const int64_t *noise;  /* (N, K') */
    float *embedding;      /* (V, D) */
    float *context;        /* (V, D) */
    double *found;         /* loss, words that were predicted */
} Word2Vec;

/* What a block adds to one table. */
typedef struct {
    int64_t count;
    int64_t *rows;    /* of the table; -1 where there is nothing to add */
    float *curvature; /* what each adds to L */
    float *gradient;  /* (count, W) */
} Change;

typedef struct {
    Change inputs, outputs;
    double loss, predicted;
} Block;

/* A thread's own. Packed matrices are tiles of up to WIDE vectors, packed[tile][row][lane]. */
typedef struct {
    float *hidden;     /* (C, D), packed */
    float *across;     /* (D, C): the same with a number of each centre in a lane */
    float *outputs;    /* (O, D), packed */
    float *inputs;     /* CBOW: (L, D), packed */
    float *of_hidden;  /* CBOW: (C, W), and the hidden vectors before they are packed */
    float *repacked;   /* CBOW: (C, D), packed */
    float *band;       /* (L, C): what is in whose window; CBOW: with which weight of the mean */
    float *slope;      /* (O, C) */
    const float **rows; /* O */
} Scratch;

INLINE int64_t padded(int64_t size) { return (size + LANES - 1) / LANES * LANES; }

INLINE vec *at(float *numbers, int64_t row) { return (vec *)(numbers + row * CENTRES); }

/* Rows into tiles of up to WIDE vectors, packed[tile][row][lane], zero beyond D. */
static void pack(const float *const *rows, int64_t count, int64_t size, float *packed) {
    for (int64_t first = 0; first < size; first += ROUND) {
        const int wide = width_at(first, size);
        for (int64_t k = 0; k < count; k++)
            for (int v = 0; v < wide; v++, packed += LANES) {
                const int64_t from = first + v * LANES;
                *(vec *)packed = load(rows[k] + from, lanes(size - from));
            }
    }
}

/* out[r] (W) = sum over k of factor[r * stride + k * apart] times packed row k. */
static void combine(const float *factor, int64_t stride, int64_t apart, int64_t rows, const float *packed,
                    int64_t inner, int64_t size, float *out) {
    const int64_t W = padded(size);
    vec sums[ROWS][WIDE];
    for (int64_t first = 0; first < size; first += ROUND) {
        const int wide = width_at(first, size);
        for (int64_t r = 0; r < rows; r += ROWS) {
            const float *lines[ROWS] = {0};
            const int count = (int)least(ROWS, rows - r);
            for (int i = 0; i < count; i++) lines[i] = factor + (r + i) * stride;
            product(count, wide, inner, apart, lines, (const vec *)packed, sums);
            for (int i = 0; i < count; i++)
                for (int v = 0; v < wide; v++) *(vec *)(out + (r + i) * W + first + v * LANES) = sums[i][v];
        }
        packed += inner * wide * LANES;
    }
}

/* Packed rows of the centres with a number of each in a lane, (D, C). */
static void turn(const float *packed, int64_t size, float *across) {
    for (int64_t first = 0; first < size; first += ROUND) {
        const int64_t width = width_at(first, size) * LANES, there = least(width, size - first);
        for (int64_t c = 0; c < CENTRES; c++)
            for (int64_t k = 0; k < there; k++) across[(first + k) * CENTRES + c] = packed[c * width + k];
        packed += CENTRES * width;
    }
}

/* sigma(s), and the loss ln(1 + e^s). */
INLINE vec logistic(vec s, vec *softplus) {
    const vec size = choose(s < set(0.0f), -s, s), e = exp_(bounded(-size, -87.0f, 0.0f));
    const vec one = 1.0f / (1.0f + e), z = e / (2.0f + e), y = z * z; /* ln(1 + e) = 2 artanh z, z up to 1/3 */
    vec p = set(2.0f / 15) * y + 2.0f / 13;
    p = p * y + 2.0f / 11;
    p = p * y + 2.0f / 9;
    p = p * y + 2.0f / 7;
    p = p * y + 2.0f / 5;
    p = p * y + 2.0f / 3;
    p = p * y + 2.0f;
    *softplus = p * z + choose(s < set(0.0f), set(0.0f), s);
    return choose(s < set(0.0f), e * one, one);
}

/* Which words of the halo are in whose windows, and how many are in each. */
static void draw_band(const Word2Vec *t, int64_t first, float *band, vec met[EACH]) {
    const int64_t R = t->radius, L = CENTRES + 2 * R;
    for (int v = 0; v < EACH; v++) {
        ivec window, place;
        for (int lane = 0; lane < LANES; lane++) {
            window[lane] = (int32_t)t->window[first + v * LANES + lane];
            place[lane] = (int32_t)R + v * LANES + lane;
        }
        met[v] = (vec){};
        for (int64_t j = 0; j < L; j++) {
            const ivec away = (int32_t)j - place, near = (away <= window) & (-away <= window) & (away != 0);
            at(band, j)[v] = choose(near, set(t->there[first + j]), set(0.0f));
            met[v] += at(band, j)[v];
        }
    }
}

INLINE float square(const float *row, int64_t size) {
    vec sum = {};
    for (int64_t d = 0; d < size; d += LANES) {
        const vec x = load(row + d, lanes(size - d));
        sum += x * x;
    }
    return sum_of(sum);
}

/* Ask for the rows of a block before they are needed. */
static void fetch(const float *row, int64_t size) {
    for (int64_t d = 0; d < size; d += 16) __builtin_prefetch(row + d);
}

static void fetch_block(const Word2Vec *t, int64_t number) {
    const int64_t D = t->size, R = t->radius, L = CENTRES + 2 * R, K = t->drawn;
    const int64_t *text = t->text + number * CENTRES;
    for (int64_t k = 0; k < K; k++) fetch(t->context + (int64_t)t->noise[number * K + k] * D, D);
    for (int64_t j = 2 * R; j < L; j++) fetch(t->context + text[j] * D, D);
    for (int64_t c = 0; c < CENTRES; c++) fetch(t->embedding + text[R + c] * D, D);
}

/* Look up the rows of a block, and make its hidden vectors. */
static void look_up(const Word2Vec *t, int64_t number, Scratch *s, Block *b, vec weight[EACH]) {
    const int64_t D = t->size, R = t->radius, L = CENTRES + 2 * R, K = t->drawn, W = padded(D);
    const int64_t positives = t->cbow ? CENTRES : L, first = number * CENTRES;
    const int64_t *text = t->text + first, *drawn = t->noise + number * K;
    const uint8_t *there = t->there + first;
    vec met[EACH];
    draw_band(t, first, s->band, met);
    for (int v = 0; v < EACH; v++) weight[v] = met[v];
    for (int64_t j = 0; j < b->inputs.count; j++) {
        const int64_t place = t->cbow ? j : R + j;
        b->inputs.rows[j] = there[place] ? text[place] : -1;
        s->rows[j] = t->embedding + text[place] * D;
    }
    if (t->cbow) {
        for (int v = 0; v < EACH; v++) {
            const ivec some = met[v] > set(0.0f);
            weight[v] = choose(some, set(1.0f), set(0.0f));
            const vec share = weight[v] / choose(some, met[v], set(1.0f));
            for (int64_t j = 0; j < L; j++) at(s->band, j)[v] *= share;
        }
        pack(s->rows, L, D, s->inputs);
        combine(s->band, 1, CENTRES, CENTRES, s->inputs, L, D, s->of_hidden);
        for (int64_t c = 0; c < CENTRES; c++) s->rows[c] = s->of_hidden + c * W;
    }
    pack(s->rows, CENTRES, D, s->hidden);
    turn(s->hidden, D, s->across);
    for (int64_t j = 0; j < positives; j++) {
        const int64_t place = t->cbow ? R + j : j;
        b->outputs.rows[j] = there[place] ? text[place] : -1;
        s->rows[j] = t->context + text[place] * D;
    }
    for (int64_t k = 0; k < K; k++) {
        b->outputs.rows[positives + k] = drawn[k];
        s->rows[positives + k] = t->context + drawn[k] * D;
    }
    pack(s->rows, b->outputs.count, D, s->outputs);
}

/* Scores become slopes; the loss and the curvatures of hidden vectors (in `inputs`) and outputs. */
static void slopes(const Word2Vec *t, Scratch *s, Block *b, const vec weight[EACH], vec curvature[EACH]) {
    const int64_t D = t->size, O = b->outputs.count, positives = O - t->drawn;
    const float shared = (float)(t->negatives / (double)t->drawn);
    vec squares[EACH] = {}, loss[EACH] = {}, of_noise[EACH] = {};
    for (int64_t d = 0; d < D; d++)
        for (int v = 0; v < EACH; v++) squares[v] += at(s->across, d)[v] * at(s->across, d)[v];
    for (int v = 0; v < EACH; v++) curvature[v] = (vec){};
    for (int64_t o = 0; o < positives; o++) {
        const float length = square(s->rows[o], D);
        vec own = {};
        for (int v = 0; v < EACH; v++) {
            vec here = at(s->band, o)[v], softplus;
            if (t->cbow) {
                here = (vec){};
                if (o / LANES == v) here[o % LANES] = weight[v][o % LANES];
            }
            const vec score = at(s->slope, o)[v];
            at(s->slope, o)[v] = here * (logistic(score, &softplus) - 1.0f);
            loss[v] += here * (softplus - score);
            curvature[v] += here * length;
            own += here * squares[v];
        }
        b->outputs.curvature[o] = 0.25f * sum_of(own);
    }
    float length = 0;
    for (int64_t o = positives; o < O; o++) {
        length += square(s->rows[o], D);
        for (int v = 0; v < EACH; v++) {
            vec softplus;
            at(s->slope, o)[v] = shared * weight[v] * logistic(at(s->slope, o)[v], &softplus);
            of_noise[v] += softplus;
        }
    }
    vec whole = {}, predicted = {}, own = {};
    for (int v = 0; v < EACH; v++) {
        const vec noise = shared * weight[v];
        whole += loss[v] + noise * of_noise[v], predicted += weight[v], own += noise * squares[v];
        curvature[v] = 0.25f * (curvature[v] + noise * length);
    }
    for (int64_t o = positives; o < O; o++) b->outputs.curvature[o] = 0.25f * sum_of(own);
    b->loss = sum_of(whole), b->predicted = sum_of(predicted);
}

static void take_block(const Word2Vec *t, int64_t number, Scratch *s, Block *b) {
    const int64_t D = t->size, W = padded(D), I = b->inputs.count, O = b->outputs.count;
    vec weight[EACH], curvature[EACH], sums[ROWS][WIDE];
    look_up(t, number, s, b, weight);
    for (int64_t o = 0; o < O; o += ROWS) {
        const int count = (int)least(ROWS, O - o);
        product(count, EACH, D, 1, s->rows + o, (const vec *)s->across, sums);
        for (int i = 0; i < count; i++)
            for (int v = 0; v < EACH; v++) at(s->slope, o + i)[v] = sums[i][v];
    }
    slopes(t, s, b, weight, curvature);
    combine(s->slope, CENTRES, 1, O, s->hidden, CENTRES, D, b->outputs.gradient);
    if (!t->cbow) {
        memcpy(b->inputs.curvature, curvature, sizeof curvature);
        combine(s->slope, 1, CENTRES, CENTRES, s->outputs, O, D, b->inputs.gradient);
        return;
    }
    combine(s->slope, 1, CENTRES, CENTRES, s->outputs, O, D, s->of_hidden);
    for (int64_t c = 0; c < CENTRES; c++) s->rows[c] = s->of_hidden + c * W;
    pack(s->rows, CENTRES, D, s->repacked);
    combine(s->band, CENTRES, 1, I, s->repacked, CENTRES, D, b->inputs.gradient);
    for (int64_t j = 0; j < I; j++) {
        vec own = {};
        for (int v = 0; v < EACH; v++) own += at(s->band, j)[v] * curvature[v];
        b->inputs.curvature[j] = sum_of(own);
    }
}

/* Add what a step changes to the rows of a table that are a thread's own; `total` is 0 before and after. */
static void add_changes(const Word2Vec *t, const Block *blocks, int64_t count, int outputs, float *table, float *total,
                        int64_t share) {
    const int64_t D = t->size, W = padded(D);
    for (int turn = 0; turn < 3; turn++)
        for (int64_t n = 0; n < count; n++) {
            const Change *c = outputs ? &blocks[n].outputs : &blocks[n].inputs;
            for (int64_t i = 0; i < c->count; i++) {
                const int64_t row = c->rows[i];
                if (row < 0 || (uint32_t)row % (uint32_t)t->threads != (uint32_t)share) continue;
                if (turn == 0) total[row] += c->curvature[i];
                if (turn == 2) total[row] = 0;
                if (turn != 1) continue;
                const float most = (float)t->bound / total[row], step = most < (float)t->rate ? most : (float)t->rate;
                float *to = table + row * D;
                const float *from = c->gradient + i * W;
                for (int64_t d = 0; d < D; d += LANES) {
                    const int whole = lanes(D - d);
                    store(to + d, load(to + d, whole) - step * *(const vec *)(from + d), whole);
                }
            }
        }
}

/* Steps are cut into pieces: some blocks each, then the shares of the rows. Threads take them in order, and none before
   all that it builds upon are done. Whoever waits lets others run, and has taken nothing: on a busy machine a thread that
   does not run holds up its own piece alone. */
typedef struct {
    int64_t of_blocks, of_step, all, next, done;
} Pieces;

/* The next piece, or -1 where all are taken. */
static int64_t take_piece(Pieces *p) {
    for (int64_t waited = 0;; waited++) {
        int64_t piece = __atomic_load_n(&p->next, __ATOMIC_RELAXED);
        if (piece >= p->all) return -1;
        const int64_t within = piece % p->of_step, needed = piece - within + (within < p->of_blocks ? 0 : p->of_blocks);
        if (__atomic_load_n(&p->done, __ATOMIC_ACQUIRE) < needed) {
            if (waited > 100) sched_yield();
        } else if (__atomic_compare_exchange_n(&p->next, &piece, piece + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return piece;
    }
}

/* Take steps until all are taken, or one's loss is not finite, which is then not taken. */
KERNEL(word2vec, Word2Vec) {
    const int64_t D = task->size, W = padded(D), L = CENTRES + 2 * task->radius, K = task->drawn;
    const int64_t I = task->cbow ? L : CENTRES, O = (task->cbow ? CENTRES : L) + K, rows_of = O > L ? O : L;
    const int64_t N = task->blocks, together = least(task->blocks_per_step, N), rows_of_step = together * (I + O);
    Block *blocks = calloc(together, sizeof *blocks);
    float *gradients = floats(rows_of_step * W), *curvatures = floats(rows_of_step);
    float *total = calloc(2 * task->words, sizeof *total);
    int64_t *rows = malloc(rows_of_step * sizeof *rows);
    Pieces pieces = {.of_blocks = (together + BLOCKS_OF_PIECE - 1) / BLOCKS_OF_PIECE};
    pieces.of_step = pieces.of_blocks + task->threads;
    pieces.all = (N + together - 1) / together * pieces.of_step;
    const int ready = blocks && gradients && curvatures && total && rows;
    for (int64_t n = 0; n < together && ready; n++) {
        const int64_t from = n * (I + O), then = from + I;
        blocks[n].inputs = (Change){I, rows + from, curvatures + from, gradients + from * W};
        blocks[n].outputs = (Change){O, rows + then, curvatures + then, gradients + then * W};
    }
    double loss = 0, predicted = 0;
    int64_t steps = N; /* those before it are taken */
#pragma omp parallel num_threads(task->threads) if (task->threads > 1)
    if (ready) {
        Scratch s = {floats(CENTRES * W), floats(D * CENTRES), floats(O * W), floats(L * W), floats(CENTRES * W),
                     floats(CENTRES * W), floats(L * CENTRES), floats(O * CENTRES), malloc(rows_of * sizeof *s.rows)};
        const int able = s.hidden && s.across && s.outputs && s.inputs && s.of_hidden && s.repacked && s.band &&
                         s.slope && s.rows;
        for (int64_t piece; able && (piece = take_piece(&pieces)) >= 0;) {
            const int64_t step = piece / pieces.of_step, within = piece % pieces.of_step;
            const int64_t start = step * together, count = least(together, N - start);
            if (step >= __atomic_load_n(&steps, __ATOMIC_RELAXED)) {
                /* it is not to be taken */
            } else if (within < pieces.of_blocks) {
                const int64_t end = start + least((within + 1) * BLOCKS_OF_PIECE, count);
                for (int64_t n = start + within * BLOCKS_OF_PIECE; n < end; n++) {
                    if (n + 1 < N) fetch_block(task, n + 1);
                    take_block(task, n, &s, blocks + n - start);
                }
            } else {
                const int64_t share = within - pieces.of_blocks;
                double of_step = 0;
                for (int64_t n = 0; n < count; n++) of_step += blocks[n].loss;
                if (share == 0) {
                    loss += of_step;
                    for (int64_t n = 0; n < count; n++) predicted += blocks[n].predicted;
                    if (!isfinite(of_step)) __atomic_store_n(&steps, step + 1, __ATOMIC_RELAXED);
                }
                if (isfinite(of_step)) {
                    add_changes(task, blocks, count, 0, task->embedding, total, share);
                    add_changes(task, blocks, count, 1, task->context, total + task->words, share);
                }
            }
            __atomic_fetch_add(&pieces.done, 1, __ATOMIC_RELEASE);
        }
        free(s.hidden), free(s.across), free(s.outputs), free(s.inputs), free(s.of_hidden), free(s.repacked);
        free(s.band), free(s.slope), free(s.rows);
    }
    task->found[0] = loss, task->found[1] = predicted;
    free(blocks), free(gradients), free(curvatures), free(total), free(rows);
    return pieces.done < pieces.all;
}
