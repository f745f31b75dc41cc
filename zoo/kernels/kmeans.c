/* The draws of first centroids from rows in memory, in double precision: samples, and greedy k-means++ as a whole.

   A row is drawn by its score, 1 / -log u times what it weighs, of which the greatest are wanted. As -log u >= 1 - u,
   nearly all rows are passed over without a logarithm.

   Letters as in the Python modules: N rows, D features, R restarts, K clusters, L candidates. */

#include "draws.h"
#include "lloyd.h"
#include <math.h>

#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off") /* on whole numbers and ties all variants agree */
#endif

#define MOST 64   /* candidates */
#define BLOCK 64  /* rows whose hashes are made at once */
#define AT_ONCE 4 /* rows whose products are made at once */

typedef double eight __attribute__((vector_size(64), aligned(8), may_alias));
typedef int64_t eight_integers __attribute__((vector_size(64), aligned(8), may_alias));

typedef struct {
    int64_t rows, features, restarts, clusters;
    int64_t candidates; /* L, at most MOST */
    int64_t threads;
    double rounding;        /* share of squares below which a distance is 0 */
    const double *x;        /* (N, D) */
    const double *weight;   /* (N), or NULL */
    double *norm;           /* (N), squares of the rows; room */
    const int64_t *content; /* (N), hashes of the rows */
    const int64_t *offset;  /* (K, R), of the counter */
    int64_t *chosen;        /* (R, K), rows; out */
} KMeans;

/* The different rows of greatest score so far, the greatest first. */
typedef struct {
    int64_t number, size;
    double best[MOST];
    int64_t rows[MOST];
} Sample;

static double *room(int64_t count) { return aligned_alloc(64, ((size_t)count * sizeof(double) / 64 + 1) * 64); }

INLINE double mass_of(const KMeans *t, int64_t row) { return t->weight ? t->weight[row] : 1.0; }

/* -- draws --------------------------------------------------------------------------------------------------------- */

static const uint64_t GAMMA = 0x9E3779B97F4A7C15u;

/* u of a content, as `draw_scores` has it. */
INLINE double uniform(int64_t counter) {
    uint64_t z = (uint64_t)counter * GAMMA + GAMMA;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return ((double)(int64_t)(z >> 12) + 0.5) * 0x1p-52;
}

/* Take a row into the sample, if its score is among the greatest; of equal rows there is one. */
static void offer(Sample *s, const int64_t *content, int64_t row, double score) {
    if (!(score > 0) || (s->number == s->size && score <= s->best[s->size - 1])) return;
    int64_t at = 0;
    while (at < s->number && content[s->rows[at]] != content[row]) at++;
    if (at < s->number && s->best[at] >= score) return;
    if (at == s->number) at = s->number < s->size ? s->number++ : s->size - 1;
    for (; at && s->best[at - 1] < score; at--) s->best[at] = s->best[at - 1], s->rows[at] = s->rows[at - 1];
    s->best[at] = score, s->rows[at] = row;
}

/* Offer the rows from `begin` to `end`; `near` are their squared distances to what is drawn, NULL at first. */
static void take_sample(const KMeans *t, int64_t offset, const double *near, int64_t begin, int64_t end, Sample *s) {
    double u[BLOCK], share[BLOCK];
    for (int64_t first = begin; first < end; first += BLOCK) {
        const int64_t count = least(BLOCK, end - first);
        for (int64_t i = 0; i < count; i++) u[i] = uniform((int64_t)((uint64_t)t->content[first + i] + (uint64_t)offset));
        for (int64_t i = 0; i < count; i++) share[i] = near ? near[first + i] : 1.0;
        for (int64_t i = 0; i < count && t->weight; i++) share[i] *= t->weight[first + i];
        for (int64_t i = 0; i < count; i++) {
            const double bar = s->number == s->size ? s->best[s->size - 1] * (1 - 1e-12) : 0.0;
            if (!(share[i] > bar * (1.0 - u[i]))) continue;
            const double mass = mass_of(t, first + i);
            double score = 1.0 / -log(u[i]) * mass;
            if (near) score *= near[first + i];
            offer(s, t->content, first + i, score);
        }
    }
}

KERNEL(kmeans_sample, Draw) {
    const KMeans rows = {.rows = task->rows, .weight = task->weight, .content = task->content};
    Sample s = {.size = task->size};
    take_sample(&rows, task->offset, task->near, 0, task->rows, &s);
    for (int64_t i = 0; i < s.number; i++) task->chosen[i] = s.rows[i];
    *task->number = s.number;
    return 0;
}

typedef struct {
    Rows rows; /* (N, D), float or double */
    int64_t size, rounds, threads; /* rows of a round L, at most MOST; rounds after the first */
    double eps;                    /* rounding of a row's number */
    const int64_t *content;        /* (N) */
    const int64_t *offset;         /* (1 + rounds), of the counter */
    double *pool;                  /* (P, D), P = (1 + rounds) L: the rows that were drawn; out */
    double *shares;                /* (P): the weight of the rows that are nearest to each; out */
    double *extent;                /* (): how far the rows lie apart; out */
} Rounds;

/* The rounds of k-means||: the first draws by weight, each other one by the distance to what is drawn. */
KERNEL(kmeans_rounds, Rounds) {
    const int64_t N = task->rows.number, D = task->rows.features, L = task->size, P = (1 + task->rounds) * L;
    const KMeans draws = {.rows = N, .weight = task->rows.weight, .content = task->content};
    int64_t *nearest = malloc((size_t)(N + 1) * sizeof *nearest);
    double *distance = room(N), *copy = room(P * D);
    int failed = !nearest || !distance || !copy;
    Iterate all = {.rows = task->rows, .threads = task->threads, .eps = task->eps, .centroids = copy, .nearest = nearest,
                   .distance = distance, .extent = task->extent};
    memset(task->pool, 0, P * D * sizeof *task->pool), memset(task->shares, 0, P * sizeof *task->shares);
    all.rows.restarts = 1;
    for (int64_t step = 0; step <= 1 + task->rounds && !failed; step++) {
        if (step) {
            memcpy(copy, task->pool, step * L * D * sizeof *copy);
            all.rows.clusters = step * L;
            failed = lloyd_assign(&all);
        }
        if (failed || step > task->rounds || strange(*task->extent)) break;
        Sample s = {.size = L};
        take_sample(&draws, task->offset[step], step ? distance : 0, 0, N, &s);
        for (int64_t l = 0; l < L; l++) { /* the first stands in where rows run out */
            double *to = task->pool + (step * L + l) * D;
            const int64_t row = l < s.number ? s.rows[l] : step || !s.number ? -1 : s.rows[0];
            if (row < 0) memcpy(to, task->pool, D * sizeof *to);
            for (int64_t f = 0; f < D && row >= 0; f++)
                to[f] = task->rows.single ? (double)((const float *)task->rows.x)[row * D + f]
                                          : ((const double *)task->rows.x)[row * D + f];
        }
    }
    for (int64_t i = 0; i < N && !failed && !strange(*task->extent); i++) task->shares[nearest[i]] += draws.weight ? draws.weight[i] : 1.0;
    free(nearest), free(distance), free(copy);
    return failed;
}

/* -- candidates ---------------------------------------------------------------------------------------------------- */

/* Points (C, D) with their columns in lanes, to[block][feature][8]; missing ones are zero. */
static void turn(const double *points, int64_t count, int64_t D, double *to) {
    for (int64_t first = 0; first < count; first += 8)
        for (int64_t f = 0; f < D; f++)
            for (int64_t c = first; c < first + 8; c++) *to++ = c < count ? points[c * D + f] : 0.0;
}

/* Squared distances of `rows` rows, a constant here, to eight points, or to what is drawn where that is nearer. */
INLINE void distances(int rows, const KMeans *t, int64_t i, const double *turned, eight square,
                      const double *near, double *to, int64_t apart, eight *potential) {
    const int64_t D = t->features;
    const double *x = t->x + i * D;
    eight even[AT_ONCE], odd[AT_ONCE];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) even[r] = odd[r] = (eight){};
    int64_t f = 0;
    for (; f + 2 <= D; f += 2)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            even[r] += x[r * D + f] * *(const eight *)(turned + 8 * f);
            odd[r] += x[r * D + f + 1] * *(const eight *)(turned + 8 * f + 8);
        }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        if (f < D) even[r] += x[r * D + f] * *(const eight *)(turned + 8 * f);
        const double norm = t->norm[i + r];
        const eight none = t->rounding * (square + norm); /* what rounding makes of no distance */
        eight d = square - 2.0 * (even[r] + odd[r]) + norm;
        d = (eight)((eight_integers)d & ~(d <= none));
        if (near) {
            const eight_integers nearer = near[i + r] < d;
            d = (eight)((nearer & (eight_integers)((eight){} + near[i + r])) | (~nearer & (eight_integers)d));
        }
        *(eight *)(to + (i + r) * apart) = d;
        *potential += d * mass_of(t, i + r);
    }
}

/* Squared distances of the rows from `begin` to `end` to the candidates, (N, apart), and their sums, (apart). */
static void measure(const KMeans *t, const Sample *s, const double *turned, const double *near,
                    int64_t begin, int64_t end, double *distance, int64_t apart, double *potential) {
    for (int64_t first = 0; first < s->number; first += 8) {
        eight square = {}, sum = {};
        for (int64_t l = first; l < s->number && l < first + 8; l++) square[l - first] = t->norm[s->rows[l]];
        int64_t i = begin;
        for (; i + AT_ONCE <= end; i += AT_ONCE)
            distances(AT_ONCE, t, i, turned + first * t->features, square, near, distance + first, apart, &sum);
        for (; i < end; i++)
            distances(1, t, i, turned + first * t->features, square, near, distance + first, apart, &sum);
        *(eight *)(potential + first) = sum;
    }
}

static double squares(const double *row, int64_t count) {
    eight sums = {};
    double sum = 0.0;
    int64_t f = 0;
    for (; f + 8 <= count; f += 8) sums += *(const eight *)(row + f) * *(const eight *)(row + f);
    for (; f < count; f++) sum += row[f] * row[f];
    for (int lane = 0; lane < 8; lane++) sum += sums[lane];
    return sum;
}

KERNEL(kmeans_draw, KMeans) {
    const int64_t N = task->rows, D = task->features, K = task->clusters, R = task->restarts, L = task->candidates;
    const int64_t apart = (L + 7) / 8 * 8, T = task->threads;
    double *near = room(N), *distance = room(N * apart), *points = room(L * D), *turned = room(apart * D);
    double *sums = room(T * apart);
    Sample *samples = malloc((size_t)T * sizeof *samples);
    const int failed = !near || !distance || !points || !turned || !sums || !samples;
    for (int64_t i = 0; i < N; i++) task->norm[i] = squares(task->x + i * D, D);
    for (int64_t r = 0; r < R && !failed; r++)
        for (int64_t step = 0; step < K; step++) {
            int64_t *chosen = task->chosen + r * K;
            const double *known = step ? near : 0;
#pragma omp parallel for num_threads(T) schedule(static, 1) if (T > 1)
            for (int64_t t = 0; t < T; t++) {
                samples[t].number = 0, samples[t].size = step ? L : 1;
                take_sample(task, task->offset[step * R + r], known, N * t / T, N * (t + 1) / T, &samples[t]);
            }
            Sample *s = samples;
            for (int64_t t = 1; t < T; t++)
                for (int64_t l = 0; l < samples[t].number; l++)
                    offer(s, task->content, samples[t].rows[l], samples[t].best[l]);
            if (!s->number) { /* no row is away from those drawn: the first one again */
                chosen[step] = step ? chosen[0] : 0;
                for (int64_t i = 0; i < N && !step; i++) near[i] = 0;
                continue;
            }
            for (int64_t l = 0; l < s->number; l++) memcpy(points + l * D, task->x + s->rows[l] * D, D * sizeof *points);
            turn(points, s->number, D, turned);
#pragma omp parallel for num_threads(T) schedule(static, 1) if (T > 1)
            for (int64_t t = 0; t < T; t++)
                measure(task, s, turned, known, N * t / T, N * (t + 1) / T, distance, apart, sums + t * apart);
            for (int64_t t = 1; t < T; t++)
                for (int64_t l = 0; l < s->number; l++) sums[l] += sums[t * apart + l];
            double least = sums[0];
            for (int64_t l = 1; l < s->number; l++) least = sums[l] < least ? sums[l] : least;
            int64_t best = 0;
            while (sums[best] > least * (1 + 1e-9)) best++;
            chosen[step] = s->rows[best];
            for (int64_t i = 0; i < N; i++) near[i] = distance[i * apart + best];
        }
    free(near), free(distance), free(points), free(turned), free(sums), free(samples);
    return failed;
}
