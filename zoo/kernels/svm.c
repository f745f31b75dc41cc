/* Support vector machines: the dual problem by sequential minimal optimization, and by coordinate descent.

   Both solve one problem, in the signed coefficients b (N) of the rows, of which classification, regression and novelty
   detection are cases (zoo/models/svm/dual.py):

       minimize 1/2 b'Kb + 1/2 sum d b^2 - t'b + e sum |b|,   low <= b <= high

   `smo` with d = 0 keeps the sum of b, two of which move at a time (Fan, Chen & Lin 2005); `descend` has no such
   constraint, and moves one at a time for the linear kernel (Hsieh et al. 2008). With f = t - Kb the coefficient of a row
   may rise where f exceeds `rise`, its penalty on the way up (infinite at the bound), and fall where f is below `fall`.

   Letters as in zoo/models/svm/smo.py: N rows, F features. */

#include "kernel.h"
#include <math.h>

#define LANES 8 /* rows side by side; a vector of the widest instruction set */
typedef double vec __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
typedef int64_t ivec __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
typedef float fvec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

enum { LINEAR, POLY, RBF, SIGMOID, PRECOMPUTED };
enum { TILE = 4, SHRINK_EVERY = 1000 };
enum { TOGETHER = 4, LONG = 64 }; /* rows of the kernel at once, and of how many features they pay */
static const double TINY = 1e-12; /* curvature at least */

INLINE vec set(double x) { return x - (vec){}; }
INLINE vec choose(ivec where, vec yes, vec no) { return (vec)((where & (ivec)yes) | (~where & (ivec)no)); }
INLINE ivec pick(ivec where, ivec yes, ivec no) { return (where & yes) | (~where & no); }
INLINE vec widen(const float *p) { return __builtin_convertvector(*(const fvec *)p, vec); }

/* e^x for x <= 0 to some 1e-10 of its value: x = n ln 2 + r. */
INLINE vec exponential(vec x) {
    x = choose(x < set(-700.0), set(-700.0), x);
    vec shifted = x * 1.4426950408889634 + 6755399441055744.0; /* 1.5 * 2^52: the integer lands in the low bits */
    vec n = shifted - 6755399441055744.0;
    vec r = x - n * 0.6931471803691238 - n * 1.9082149292705877e-10;
    vec p = set(1.0 / 40320) * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    return p * (vec)(((ivec)shifted << 52) + ((int64_t)1023 << 52));
}

/* -- the dual by pairs ---------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t num_rows, num_features, kernel, degree, shrinking, max_iter, cache_rows;
    double gamma, coef0, tol, epsilon;
    const double *x;      /* (N, F); of `precomputed` the kernel itself, (N, N) */
    const double *target, *low, *high; /* (N) */
    double *beta;  /* (N), feasible at the start */
    double *slope; /* (N), f */
    double *found; /* offset, objective, iterations, largest violation */
} Smo;

enum { SLOPE, RISE, FALL, DIAGONAL, SQUARE, TARGET, LOW, HIGH, BETA, COLUMNS };

typedef struct {
    const Smo *task;
    int64_t active; /* rows that are looked at, the first ones */
    int64_t stride; /* N, up to whole tiles */
    double *column[COLUMNS]; /* (stride) each */
    double *packed; /* rows side by side, (stride / LANES, F, LANES) */
    double *one;    /* up to TOGETHER rows, (F, number) */
    float *spare;   /* a row of the kernel, (stride) */
    int64_t *id;    /* of the row at a place */
    /* rows of the kernel that are kept, the least recently used first */
    float *cache;        /* (cache_rows, stride) */
    int64_t *slot_of;    /* of the row at a place, or -1 */
    int64_t *row_of, *length, *before, *after; /* of a slot; slot `cache_rows` is the ring's head */
    int64_t slots, used;
    int64_t *swaps; /* pairs of places */
    char *marks;
    double largest, smallest; /* of what may rise, and of what may fall */
    int64_t first;            /* the place of the largest */
} State;

INLINE double *place(const State *s, int64_t row, int64_t feature) {
    return s->packed + ((row / LANES) * s->task->num_features + feature) * LANES + row % LANES;
}

/* What rises and falls cost a row where its coefficient stands. */
static void bound(State *s, int64_t k) {
    const double beta = s->column[BETA][k], epsilon = s->task->epsilon;
    s->column[RISE][k] = beta >= s->column[HIGH][k] ? INFINITY : beta >= 0 ? epsilon : -epsilon;
    s->column[FALL][k] = beta <= s->column[LOW][k] ? -INFINITY : beta > 0 ? epsilon : -epsilon;
}

INLINE vec transformed(const Smo *t, vec dot, vec squares) {
    if (t->kernel == LINEAR) return dot;
    if (t->kernel == RBF) {
        vec distance = squares - 2.0 * dot;
        distance = choose(distance > 0.0, distance, set(0.0));
        return exponential(-t->gamma * distance);
    }
    vec inner = t->gamma * dot + t->coef0;
    if (t->kernel == SIGMOID) {
        for (int lane = 0; lane < LANES; lane++) inner[lane] = tanh(inner[lane]);
        return inner;
    }
    vec power = set(1.0);
    for (int64_t left = t->degree; left > 0; left >>= 1, inner *= inner)
        if (left & 1) power *= inner;
    return power;
}

/* Write K(row, k) for the places k from `from` to `to`, and for those that share their tiles, of `number` rows at once,
   as many as a call is compiled for: what is read of the places k serves them all. */
INLINE void product_rows(State *s, const int64_t *row, int number, int64_t from, int64_t to, float *const *out) {
    const Smo *t = s->task;
    const int64_t F = t->num_features;
    for (int r = 0; r < number; r++)
        for (int64_t f = 0; f < F; f++) s->one[f * number + r] = *place(s, row[r], f);
    const int tiles = number > 1 ? TILE / 2 : TILE; /* so that the sums stay in registers */
    for (int64_t k = from / (tiles * LANES) * tiles * LANES; k < to; k += tiles * LANES) {
        const double *p = s->packed + k * F, *one = s->one;
        vec sum[TOGETHER][TILE] = {};
        for (int64_t f = 0; f < F; f++, p += LANES, one += number)
            for (int v = 0; v < tiles; v++) {
                const vec x = *(const vec *)(p + v * F * LANES);
                for (int r = 0; r < number; r++) sum[r][v] += set(one[r]) * x;
            }
        for (int r = 0; r < number; r++)
            for (int v = 0; v < tiles; v++) {
                vec squares = *(const vec *)(s->column[SQUARE] + k + v * LANES) + s->column[SQUARE][row[r]];
                *(fvec *)(out[r] + k + v * LANES) = __builtin_convertvector(transformed(t, sum[r][v], squares), fvec);
            }
    }
}

/* A row of the kernel, for the places from `from` to `to`. */
static void kernel_row(State *s, int64_t row, int64_t from, int64_t to, float *out) {
    const Smo *t = s->task;
    if (t->kernel == PRECOMPUTED) {
        const double *line = t->x + s->id[row] * t->num_rows;
        for (int64_t k = from; k < to; k++) out[k] = (float)line[s->id[k]];
    } else product_rows(s, &row, 1, from, to, &out);
}

static void unlink_slot(State *s, int64_t slot) {
    s->after[s->before[slot]] = s->after[slot], s->before[s->after[slot]] = s->before[slot];
}

static void link_last(State *s, int64_t slot) {
    s->before[slot] = s->before[s->slots], s->after[slot] = s->slots;
    s->after[s->before[slot]] = slot, s->before[s->slots] = slot;
}

/* A slot for the row at a place, which has none. */
static int64_t new_slot(State *s, int64_t row) {
    int64_t slot;
    if (s->used < s->slots) slot = s->used++;
    else {
        slot = s->after[s->slots];
        unlink_slot(s, slot);
        if (s->row_of[slot] >= 0) s->slot_of[s->row_of[slot]] = -1;
    }
    s->slot_of[row] = slot, s->row_of[slot] = row, s->length[slot] = 0;
    return slot;
}

/* Rows of the kernel at a place and at the next ones that have none yet, in free slots: of long rows, which do not stay
   in a cache, it is reading them that takes the time, and most of them are asked for in the end. */
static void fill_together(State *s, int64_t row) {
    int64_t rows[TOGETHER];
    float *lines[TOGETHER];
    int number = 0;
    for (int64_t k = 0; k < s->active && number < TOGETHER; k++) {
        const int64_t next = row + k < s->active ? row + k : row + k - s->active;
        if (s->slot_of[next] < 0) rows[number++] = next;
    }
    if (number < TOGETHER) return;
    for (int r = TOGETHER - 1; r >= 0; r--) { /* the one that is asked for as the last */
        const int64_t slot = new_slot(s, rows[r]);
        link_last(s, slot);
        s->length[slot] = s->active, lines[r] = s->cache + slot * s->stride;
    }
    product_rows(s, rows, TOGETHER, 0, s->active, lines);
}

/* The row of the kernel at a place, over the active ones. */
static const float *cached_row(State *s, int64_t row) {
    if (s->slot_of[row] < 0 && s->task->kernel != PRECOMPUTED && s->task->num_features >= LONG
        && s->used + TOGETHER <= s->slots)
        fill_together(s, row);
    int64_t slot = s->slot_of[row];
    if (slot < 0) slot = new_slot(s, row);
    else unlink_slot(s, slot);
    link_last(s, slot);
    float *line = s->cache + slot * s->stride;
    if (s->length[slot] < s->active) {
        kernel_row(s, row, s->length[slot], s->active, line);
        s->length[slot] = s->active;
    }
    return line;
}

/* f -= step (K_i - K_j) over the active rows, and then the largest of what may rise and the smallest of what may fall. */
static void move(State *s, double step, const float *ki, const float *kj) {
    double *f = s->column[SLOPE];
    const double *rise = s->column[RISE], *fall = s->column[FALL];
    vec largest = set(-INFINITY), smallest = set(INFINITY);
    ivec where = (ivec){} - 1, here = {0, 1, 2, 3, 4, 5, 6, 7};
    int64_t k = 0;
    for (; k + LANES <= s->active; k += LANES, here += LANES) {
        vec v = *(vec *)(f + k);
        if (ki) *(vec *)(f + k) = v -= step * (widen(ki + k) - widen(kj + k));
        vec up = v - *(const vec *)(rise + k), down = v - *(const vec *)(fall + k);
        ivec more = up >= largest;
        largest = choose(more, up, largest), where = pick(more, here, where);
        smallest = choose(down < smallest, down, smallest);
    }
    s->largest = -INFINITY, s->smallest = INFINITY, s->first = -1;
    for (int lane = 0; lane < LANES; lane++) {
        if (largest[lane] > s->largest || (largest[lane] == s->largest && where[lane] > s->first))
            s->largest = largest[lane], s->first = where[lane];
        if (smallest[lane] < s->smallest) s->smallest = smallest[lane];
    }
    for (; k < s->active; k++) {
        if (ki) f[k] -= step * ((double)ki[k] - (double)kj[k]);
        if (f[k] - rise[k] >= s->largest) s->largest = f[k] - rise[k], s->first = k;
        if (f[k] - fall[k] < s->smallest) s->smallest = f[k] - fall[k];
    }
}

/* The row that gains most with `first` when it falls as much as that rises; -1 where none gains. */
static int64_t second(const State *s, const float *ki) {
    const double *f = s->column[SLOPE], *fall = s->column[FALL], *diagonal = s->column[DIAGONAL];
    const double own = diagonal[s->first];
    vec best = set(0.0);
    ivec where = (ivec){} - 1, here = {0, 1, 2, 3, 4, 5, 6, 7};
    int64_t k = 0;
    for (; k + LANES <= s->active; k += LANES, here += LANES) {
        vec gap = s->largest - (*(const vec *)(f + k) - *(const vec *)(fall + k));
        vec bend = own + *(const vec *)(diagonal + k) - 2.0 * widen(ki + k);
        bend = choose(bend > TINY, bend, set(TINY));
        vec gain = gap * gap / bend;
        ivec more = (gap > 0.0) & (gain >= best);
        best = choose(more, gain, best), where = pick(more, here, where);
    }
    double most = 0;
    int64_t found = -1;
    for (int lane = 0; lane < LANES; lane++)
        if (where[lane] >= 0 && (best[lane] > most || (best[lane] == most && where[lane] > found)))
            most = best[lane], found = where[lane];
    for (; k < s->active; k++) {
        double gap = s->largest - (f[k] - fall[k]), bend = own + diagonal[k] - 2.0 * ki[k];
        double gain = gap * gap / (bend > TINY ? bend : TINY);
        if (gap > 0 && gain >= most) most = gain, found = k;
    }
    return found;
}

/* Move the pair (i, j) to its best, within the bounds and to where the penalty bends at most; return the step. */
static double step_pair(State *s, int64_t i, int64_t j, double kij) {
    double *beta = s->column[BETA], *f = s->column[SLOPE];
    const double epsilon = s->task->epsilon;
    double bend = s->column[DIAGONAL][i] + s->column[DIAGONAL][j] - 2.0 * kij;
    double step = ((f[i] - s->column[RISE][i]) - (f[j] - s->column[FALL][j])) / (bend > TINY ? bend : TINY);
    double end_i = epsilon > 0 && beta[i] < 0 ? 0 : s->column[HIGH][i];
    double end_j = epsilon > 0 && beta[j] > 0 ? 0 : s->column[LOW][j];
    double room_i = end_i - beta[i], room_j = beta[j] - end_j;
    double whole = room_i < room_j ? room_i : room_j;
    if (step < whole) beta[i] += step, beta[j] -= step;
    else {
        step = whole;
        beta[i] = room_i <= room_j ? end_i : beta[i] + step;
        beta[j] = room_j <= room_i ? end_j : beta[j] - step;
    }
    bound(s, i), bound(s, j);
    return step;
}

static void swap_places(State *s, int64_t p, int64_t q) {
    for (int c = 0; c < COLUMNS; c++) {
        double kept = s->column[c][p];
        s->column[c][p] = s->column[c][q], s->column[c][q] = kept;
    }
    for (int64_t f = 0; s->packed && f < s->task->num_features; f++) {
        double *a = place(s, p, f), *b = place(s, q, f), kept = *a;
        *a = *b, *b = kept;
    }
    int64_t id = s->id[p], slot = s->slot_of[p];
    s->id[p] = s->id[q], s->id[q] = id;
    s->slot_of[p] = s->slot_of[q], s->slot_of[q] = slot;
    if (s->slot_of[p] >= 0) s->row_of[s->slot_of[p]] = p;
    if (s->slot_of[q] >= 0) s->row_of[s->slot_of[q]] = q;
}

/* Whether a row can be part of no pair that gains, so that it is left out for a while. */
INLINE int settled(const State *s, int64_t k) {
    const double f = s->column[SLOPE][k];
    return f - s->column[RISE][k] < s->smallest && f - s->column[FALL][k] > s->largest;
}

static void shrink(State *s) {
    int64_t count = 0;
    for (int64_t k = 0; k < s->active; k++) {
        if (!settled(s, k)) continue;
        for (s->active--; s->active > k; s->active--)
            if (!settled(s, s->active)) {
                swap_places(s, k, s->active);
                s->swaps[count++] = k, s->swaps[count++] = s->active;
                break;
            }
    }
    for (int64_t slot = 0; slot < s->used; slot++) {
        float *line = s->cache + slot * s->stride;
        for (int64_t n = 0; n < count; n += 2) {
            int64_t p = s->swaps[n], q = s->swaps[n + 1];
            if (q < s->length[slot]) {
                float kept = line[p];
                line[p] = line[q], line[q] = kept;
            } else if (p < s->length[slot]) s->length[slot] = p;
        }
    }
}

/* Look at all rows again: f of those that were left out is summed anew. */
static void restore(State *s) {
    const int64_t N = s->task->num_rows, from = s->active;
    if (from == N) return;
    double *f = s->column[SLOPE];
    memcpy(f + from, s->column[TARGET] + from, (N - from) * sizeof(double));
    s->active = N;
    for (int64_t j = 0; j < N; j++) {
        const double beta = s->column[BETA][j];
        if (beta == 0) continue;
        const int64_t slot = s->slot_of[j];
        const float *line = s->spare;
        if (s->slots >= N) line = cached_row(s, j); /* where there is room for all, none is thrown out */
        else if (slot >= 0 && s->length[slot] == N) line = s->cache + slot * s->stride;
        else kernel_row(s, j, from, N, s->spare);
        for (int64_t k = from; k < N; k++) f[k] -= beta * (double)line[k];
    }
}

static void start(State *s) {
    const Smo *t = s->task;
    const int64_t N = t->num_rows, F = t->num_features;
    for (int64_t k = 0; k < N; k++) {
        s->id[k] = k, s->slot_of[k] = -1;
        double square = 0;
        for (int64_t f = 0; s->packed && f < F; f++) {
            const double x = t->x[k * F + f];
            *place(s, k, f) = x;
            square += x * x;
        }
        s->column[SQUARE][k] = square;
        s->column[TARGET][k] = t->target[k], s->column[LOW][k] = t->low[k], s->column[HIGH][k] = t->high[k];
        s->column[BETA][k] = t->beta[k], s->column[SLOPE][k] = t->target[k];
        bound(s, k);
        vec own = t->kernel == PRECOMPUTED ? set(t->x[k * N + k]) : transformed(t, set(square), set(2 * square));
        s->column[DIAGONAL][k] = (double)(float)own[0];
    }
    s->before[s->slots] = s->after[s->slots] = s->slots;
    s->active = 0; /* so that f is summed from what the coefficients are */
    restore(s);
}

static int64_t iterate(State *s, double *violation) {
    const Smo *t = s->task;
    const int64_t every = least(t->num_rows, SHRINK_EVERY);
    int64_t done = 0, until = every, unshrunk = 0;
    move(s, 0, NULL, NULL);
    while (t->max_iter < 0 || done < t->max_iter) {
        if (t->shrinking && --until == 0) {
            until = every;
            if (!unshrunk && s->largest - s->smallest <= 10 * t->tol) unshrunk = 1, restore(s), move(s, 0, NULL, NULL);
            shrink(s);
            move(s, 0, NULL, NULL);
        }
        int64_t j = -1;
        const float *ki = NULL;
        for (int again = 0; again < 2; again++) {
            if (s->largest - s->smallest > t->tol) {
                ki = cached_row(s, s->first);
                j = second(s, ki);
            }
            if (j >= 0 || s->active == t->num_rows) break;
            restore(s), move(s, 0, NULL, NULL);
            until = 1;
        }
        if (j < 0) break;
        const int64_t i = s->first;
        const double step = step_pair(s, i, j, ki[j]);
        const float *kj = cached_row(s, j);
        move(s, step, ki, kj);
        done++;
    }
    if (s->active < t->num_rows) restore(s), move(s, 0, NULL, NULL);
    *violation = s->largest - s->smallest;
    return done;
}

/* The mean of f, less its penalty, over the rows between their bounds; or the middle of what it may be. */
static double offset(const State *s) {
    double sum = 0;
    int64_t free_rows = 0;
    for (int64_t k = 0; k < s->task->num_rows; k++)
        if (s->column[RISE][k] == s->column[FALL][k]) sum += s->column[SLOPE][k] - s->column[RISE][k], free_rows++;
    if (free_rows) return sum / (double)free_rows;
    if (isinf(s->largest)) return isinf(s->smallest) ? 0 : s->smallest;
    return isinf(s->smallest) ? s->largest : (s->largest + s->smallest) / 2;
}

KERNEL(smo, Smo) {
    const Smo *t = task;
    const int64_t N = t->num_rows, F = t->num_features;
    State s = {.task = t, .stride = (N + TILE * LANES - 1) / (TILE * LANES) * TILE * LANES};
    s.slots = least(N < 2 ? 2 : N, t->cache_rows < 2 ? 2 : t->cache_rows);
    int64_t numbers = COLUMNS * s.stride + TOGETHER * F, integers = 4 * N + 4 * (s.slots + 1);
    if (t->kernel != PRECOMPUTED) numbers += s.stride * F;
    double *reals = calloc((size_t)numbers + 1, sizeof(double));
    int64_t *whole = malloc((size_t)integers * sizeof(int64_t));
    float *lines = malloc((size_t)(s.slots + 1) * (size_t)s.stride * sizeof(float) + 64);
    int failed = !reals || !whole || !lines;
    if (!failed) {
        for (int c = 0; c < COLUMNS; c++) s.column[c] = reals + c * s.stride;
        s.one = reals + COLUMNS * s.stride;
        s.packed = t->kernel == PRECOMPUTED ? NULL : s.one + TOGETHER * F;
        s.id = whole, s.slot_of = whole + N, s.swaps = whole + 2 * N;
        s.row_of = whole + 4 * N, s.length = s.row_of + s.slots + 1, s.before = s.length + s.slots + 1;
        s.after = s.before + s.slots + 1;
        s.spare = lines, s.cache = lines + s.stride;
        start(&s);
        t->found[2] = (double)iterate(&s, &t->found[3]);
        t->found[0] = offset(&s);
        double objective = 0;
        for (int64_t k = 0; k < N; k++) {
            const double beta = s.column[BETA][k], f = s.column[SLOPE][k];
            objective += t->epsilon * fabs(beta) - 0.5 * beta * (s.column[TARGET][k] + f);
            t->beta[s.id[k]] = beta, t->slope[s.id[k]] = f;
        }
        t->found[1] = objective;
    }
    free(reals), free(whole), free(lines);
    return failed;
}

/* -- the dual of the linear kernel by single coordinates ------------------------------------------------------------- */

typedef struct {
    int64_t num_rows, num_features, max_iter, relative;
    double tol, epsilon;
    const double *x; /* (N, F); of sparse rows the numbers that are stored */
    const int64_t *starts, *columns; /* of sparse rows (N + 1), and of what they store; NULL for dense ones */
    double constant; /* of a last feature, whose weight is the intercept; 0 for none */
    const double *target, *low, *high, *diagonal; /* (N) */
    int64_t *order; /* (N), of the rows at the start */
    int64_t seed;
    double *beta;   /* (N) */
    double *weight; /* (F + 1) */
    double *found;  /* rounds, the last violation, whether it is small enough */
} Descent;

INLINE double product(const double *a, const double *b, int64_t n) {
    vec s0 = set(0.0), s1 = set(0.0);
    int64_t k = 0;
    for (; k + 2 * LANES <= n; k += 2 * LANES) {
        s0 += *(const vec *)(a + k) * *(const vec *)(b + k);
        s1 += *(const vec *)(a + k + LANES) * *(const vec *)(b + k + LANES);
    }
    if (k + LANES <= n) s0 += *(const vec *)(a + k) * *(const vec *)(b + k), k += LANES;
    s0 += s1;
    double sum = ((s0[0] + s0[4]) + (s0[1] + s0[5])) + ((s0[2] + s0[6]) + (s0[3] + s0[7]));
    for (; k < n; k++) sum += a[k] * b[k];
    return sum;
}

INLINE void add_scaled(double *to, const double *x, double factor, int64_t n) {
    int64_t k = 0;
    for (; k + LANES <= n; k += LANES) *(vec *)(to + k) += factor * *(const vec *)(x + k);
    for (; k < n; k++) to[k] += factor * x[k];
}

INLINE uint64_t next_word(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* w · x_i of a row, dense or sparse. */
INLINE double row_score(const Descent *t, int64_t i) {
    if (!t->starts) return product(t->weight, t->x + i * t->num_features, t->num_features);
    double even = 0, odd = 0;
    int64_t k = t->starts[i];
    const int64_t end = t->starts[i + 1];
    for (; k + 1 < end; k += 2) {
        even += t->x[k] * t->weight[t->columns[k]];
        odd += t->x[k + 1] * t->weight[t->columns[k + 1]];
    }
    return k < end ? even + odd + t->x[k] * t->weight[t->columns[k]] : even + odd;
}

/* w += step x_i, and the weight of the constant with it. */
INLINE void move_along(const Descent *t, int64_t i, double step) {
    if (t->starts)
        for (int64_t k = t->starts[i]; k < t->starts[i + 1]; k++) t->weight[t->columns[k]] += step * t->x[k];
    else
        add_scaled(t->weight, t->x + i * t->num_features, step, t->num_features);
    t->weight[t->num_features] += step * t->constant;
}

KERNEL(descend, Descent) {
    const Descent *t = task;
    const int64_t N = t->num_rows, F = t->num_features;
    double *bend = malloc(((size_t)N + 1) * sizeof(double));
    if (!bend) return 1;
    for (int64_t k = 0; k < F + 1; k++) t->weight[k] = 0;
    for (int64_t i = 0; i < N; i++) {
        const int64_t first = t->starts ? t->starts[i] : i * F, number = t->starts ? t->starts[i + 1] - first : F;
        bend[i] = product(t->x + first, t->x + first, number) + t->constant * t->constant + t->diagonal[i];
        if (t->beta[i] != 0) move_along(t, i, t->beta[i]);
    }
    uint64_t state = (uint64_t)t->seed;
    int64_t active = N, rounds = 0;
    double limit = INFINITY, before = -1, violation = 0;
    int good = 0;
    while (rounds < t->max_iter && !good) {
        double highest = 0, lowest = 0, sum = 0;
        for (int64_t k = 0; k < active; k++) {
            const int64_t other = k + (int64_t)(((next_word(&state) >> 32) * (uint64_t)(active - k)) >> 32);
            const int64_t kept = t->order[k];
            t->order[k] = t->order[other], t->order[other] = kept;
        }
        for (int64_t k = 0; k < active; k++) {
            const int64_t i = t->order[k];
            const double beta = t->beta[i], low = t->low[i], high = t->high[i], e = t->epsilon;
            const double g = row_score(t, i) + t->weight[F] * t->constant + t->diagonal[i] * beta - t->target[i];
            /* slopes on the way up and on the way down, and what is left to gain by them */
            const double up = beta >= high ? INFINITY : g + (beta >= 0 ? e : -e);
            const double down = beta <= low ? -INFINITY : g + (beta > 0 ? e : -e);
            if (up > limit && down < -limit) {
                t->order[k--] = t->order[--active];
                t->order[active] = i;
                continue;
            }
            const double slope = up < 0 ? up : down > 0 ? down : 0;
            highest = fmax(highest, slope), lowest = fmin(lowest, slope), sum += fabs(slope);
            if (fabs(slope) < 1e-14) continue;
            double to = bend[i] > 0 ? beta - slope / bend[i] : slope < 0 ? high : low; /* a row of zeros goes to its bound */
            if (e > 0 && bend[i] > 0 && ((beta < 0 && to > 0) || (beta > 0 && to < 0))) { /* beyond the kink the slope is another */
                const double rest = beta < 0 ? g + bend[i] * (0 - beta) + e : g + bend[i] * (0 - beta) - e;
                to = beta < 0 ? (rest < 0 ? -rest / bend[i] : 0) : (rest > 0 ? -rest / bend[i] : 0);
            }
            to = to < low ? low : to > high ? high : to;
            if (to == beta) continue;
            move_along(t, i, to - beta);
            t->beta[i] = to;
        }
        rounds++;
        if (before < 0) before = sum;
        violation = t->relative ? (before > 0 ? sum / before : 0) : highest - lowest;
        limit = fmax(highest, -lowest);
        if (t->relative) limit /= (double)N;
        if (violation <= t->tol) {
            if (active == N) good = 1;
            active = N, limit = INFINITY;
        } else if (!(limit > 0)) limit = INFINITY;
    }
    t->found[0] = (double)rounds, t->found[1] = violation, t->found[2] = good;
    free(bend);
    return 0;
}
