/* Linear machines with squared losses by Newton's method, one after the other, over rows in memory.

   A machine minimizes J = 1/2 |w|^2 + sum c e^2 over its weights w (P = F + 1, that of the constant feature a last),
   where e is by how much a score falls short of its target (zoo/models/svm/primal.py). J is piecewise quadratic, so that
   a few steps end at the minimum, each of which solves the equations of the rows that fall short. These are as many as
   there are weights (`Narrow`), or, with w a sum b of rows, as many as there are such rows (`Wide`; Chapelle 2007).

   Letters: N rows, F features, K machines, V unknowns of the space: P weights or N coefficients. */

#include "tiles.h"

enum { BLOCK = 64 }; /* rows that are added to the Hessian at once */
static const double SUFFICIENT = 1e-4, SMALLEST_STEP = 1e-10, RIDGE = 1e-14, EPSILON = 0x1p-52;

typedef struct {
    int64_t num_rows, num_features, num_machines, max_iter;
    int64_t by_rows; /* whether the unknowns are coefficients of rows */
    int64_t bare;    /* whether the weight of the constant is not penalized; not with coefficients of rows */
    double constant, epsilon, tol; /* epsilon below 0: targets are the classes -1 and 1 */
    const double *x;               /* (N, F) */
    const double *target, *cost;   /* (K, N) */
    double *weight; /* (K, P) */
    double *reach;  /* (F), of the machine that a feature moves most: 2 sum c x^2 where a score of 0 falls short */
    double *found;  /* (K, 4): J, the norm of its gradient, passes over the rows, and 1 where that is small enough, 0
                       where it is not, -1 where a number left the range of double or the equations have no one solution */
} Newton;

typedef struct {
    const Newton *task;
    const double *target, *cost;        /* of this machine, (N) */
    int64_t size, width;                /* V, and up to whole tiles */
    double *trial, *best, *direction;   /* (width) each */
    double *gradient;                   /* (width); of coefficients of rows, what w lacks of being their sum: b - 2 c e */
    /* with coefficients of rows, (width) each: the scores, the products with that gradient, and what solves for rows */
    double *scores, *pushed, *wanted;
    double *miss;                       /* e, (N) */
    double *matrix, *factor;            /* (width, width) each: the Hessian without the penalty, or the rows' products */
    double *left, *right;               /* (BLOCK, width) each */
    int64_t *index;                     /* (N) */
    char *active;                       /* whether a row is part of the Hessian, (N) */
    double slope;
} Search;

/* ---- products ---- */

INLINE double product(const double *a, const double *b, int64_t n) {
    vec even = set(0.0), odd = set(0.0);
    int64_t k = 0;
    for (; k + 2 * LANES <= n; k += 2 * LANES) {
        even += *(const vec *)(a + k) * *(const vec *)(b + k);
        odd += *(const vec *)(a + k + LANES) * *(const vec *)(b + k + LANES);
    }
    if (k + LANES <= n) even += *(const vec *)(a + k) * *(const vec *)(b + k), k += LANES;
    double sum = n >= LANES ? total(even + odd) : 0;
    for (; k < n; k++) sum += a[k] * b[k];
    return sum;
}

/* The products of TILE rows, `apart` from each other, with one. */
INLINE void products(const double *rows, int64_t apart, const double *one, int64_t n, double *out) {
    vec sum[TILE] = {set(0.0), set(0.0), set(0.0), set(0.0)};
    int64_t k = 0;
    for (; k + LANES <= n; k += LANES)
#pragma GCC unroll 4
        for (int r = 0; r < TILE; r++) sum[r] += *(const vec *)(rows + r * apart + k) * *(const vec *)(one + k);
    for (int r = 0; r < TILE; r++) out[r] = total(sum[r]);
    for (; k < n; k++)
        for (int r = 0; r < TILE; r++) out[r] += rows[r * apart + k] * one[k];
}

INLINE void add_scaled(double *to, const double *x, double factor, int64_t n) {
    int64_t k = 0;
    for (; k + LANES <= n; k += LANES) *(vec *)(to + k) += factor * *(const vec *)(x + k);
    for (; k < n; k++) to[k] += factor * x[k];
}

/* ---- equations of a symmetric positive definite matrix, of which the rows up to the diagonal are given ---- */

/* The triangular factor in place of the matrix, of whole tiles of rows; 0 where a pivot is not above 0. */
static int factorize(double *a, int64_t rows, int64_t width) {
    for (int64_t i = 0; i < rows; i += TILE) {
        double *own = a + i * width, dots[TILE];
        for (int64_t j = 0; j < i; j++) {
            const double *other = a + j * width;
            products(own, width, other, j, dots);
            for (int r = 0; r < TILE; r++) own[r * width + j] = (own[r * width + j] - dots[r]) / other[j];
        }
        for (int r = 0; r < TILE; r++)
            for (int64_t j = i; j <= i + r; j++) {
                double *at = own + r * width + j, rest = *at - product(own + r * width, a + j * width, j);
                if (j < i + r) *at = rest / a[j * width + j];
                else if (rest > 0 && rest < INFINITY) *at = sqrt(rest);
                else return 0;
            }
    }
    return 1;
}

/* x = A^-1 x, by the triangular factor. */
static void substitute(const double *factor, int64_t rows, int64_t width, double *x) {
    for (int64_t i = 0; i < rows; i++) x[i] = (x[i] - product(factor + i * width, x, i)) / factor[i * width + i];
    for (int64_t i = rows - 1; i >= 0; i--) {
        x[i] /= factor[i * width + i];
        add_scaled(x, factor + i * width, -x[i], i);
    }
}

static int64_t whole_tiles(int64_t n) { return (n + TILE - 1) / TILE * TILE; }

/* ---- what rows ask ---- */

/* e: by how much, and in which direction, a score falls short. */
INLINE double shortfall(double score, double target, double epsilon) {
    if (epsilon < 0) {
        const double room = 1 - target * score;
        return room > 0 ? target * room : room > -INFINITY ? 0 : room; /* not a number stays one */
    }
    const double missed = target - score;
    return missed > epsilon ? missed - epsilon : missed < -epsilon ? missed + epsilon : missed - missed;
}

/* ---- the space of the weights ---- */

/* Add rows to the Hessian: those of the index with 2 c, or less it where they no longer fall short. */
static void add_rows(Search *s, int64_t count) {
    const Newton *t = s->task;
    const int64_t F = t->num_features, width = s->width;
    for (int64_t start = 0; start < count; start += BLOCK) {
        const int64_t rows = least(BLOCK, count - start);
        for (int64_t r = 0; r < rows; r++) {
            const int64_t i = s->index[start + r];
            const double factor = s->miss[i] != 0 ? 2 * s->cost[i] : -2 * s->cost[i];
            double *left = s->left + r * width, *right = s->right + r * width;
            for (int64_t f = 0; f < F; f++) right[f] = t->x[i * F + f];
            right[F] = t->constant;
            for (int64_t f = 0; f < s->size; f++) left[f] = factor * right[f];
        }
        add_products(s->left, s->right, rows, s->size, width, s->matrix);
    }
}

/* J, its gradient and the Hessian at `trial`. */
static double narrow_sums(Search *s) {
    const Newton *t = s->task;
    const int64_t N = t->num_rows, F = t->num_features;
    const double *w = s->trial;
    double *g = s->gradient;
    int64_t changed = 0, now = 0;
    double value = 0;
    memcpy(g, w, s->size * sizeof(double));
    if (t->bare) g[F] = 0;
    value = 0.5 * product(w, g, s->size);
    for (int64_t i = 0; i < N; i++) {
        const double *row = t->x + i * F;
        const double e = shortfall(product(row, w, F) + t->constant * w[F], s->target[i], t->epsilon);
        s->miss[i] = e;
        if (s->active[i] != (e != 0)) s->index[changed++] = i;
        if (e == 0) continue;
        now++;
        const double weighted = s->cost[i] * e;
        value += weighted * e;
        add_scaled(g, row, -2 * weighted, F);
        g[F] -= 2 * weighted * t->constant;
    }
    if (changed > now) {
        memset(s->matrix, 0, s->width * s->width * sizeof(double));
        changed = 0;
        for (int64_t i = 0; i < N; i++)
            if (s->miss[i] != 0) s->index[changed++] = i;
    }
    add_rows(s, changed);
    for (int64_t i = 0; i < N; i++) s->active[i] = s->miss[i] != 0;
    return value;
}

/* -H^-1 g; 0 where there is no such. */
static int narrow_direction(Search *s) {
    const int64_t P = s->size, width = s->width, rows = whole_tiles(P);
    double largest = 0;
    memcpy(s->factor, s->matrix, rows * width * sizeof(double));
    for (int64_t f = 0; f < rows; f++) {
        double *at = s->factor + f * width + f;
        *at = f >= P ? 1 : *at + !(s->task->bare && f == P - 1);
        if (f < P) largest = fmax(largest, *at);
    }
    for (int64_t f = 0; f < P; f++) s->factor[f * width + f] += RIDGE * largest; /* an intercept that no row depends on */
    if (!factorize(s->factor, rows, width)) return 0;
    for (int64_t f = 0; f < P; f++) s->direction[f] = -s->gradient[f];
    for (int64_t f = P; f < rows; f++) s->direction[f] = 0;
    substitute(s->factor, rows, width, s->direction);
    s->slope = product(s->gradient, s->direction, P);
    return 1;
}

static double narrow_norm(const Search *s) {
    double largest = 0, norm = sqrt(product(s->gradient, s->gradient, s->size));
    for (int64_t f = 0; f < s->size; f++) largest = fmax(largest, fabs(s->gradient[f]));
    return norm > 0 && norm < INFINITY ? norm : largest; /* the squares of numbers that lie between */
}

/* ---- the space of the rows ---- */

/* The products of all rows with each other, the constant with them. */
static void multiply_rows(Search *s) {
    const Newton *t = s->task;
    const int64_t N = t->num_rows, F = t->num_features, width = s->width;
    const double square = t->constant * t->constant;
    for (int64_t i = 0; i < N; i += TILE)
        for (int64_t j = 0; j < i + TILE && j < N; j++) {
            double dots[TILE];
            const int64_t rows = least(TILE, N - i);
            if (rows == TILE) products(t->x + i * F, F, t->x + j * F, F, dots);
            else for (int64_t r = 0; r < rows; r++) dots[r] = product(t->x + (i + r) * F, t->x + j * F, F);
            for (int64_t r = 0; r < rows; r++) s->matrix[(i + r) * width + j] = s->matrix[j * width + i + r] = dots[r] + square;
        }
}

static void times_rows(const Search *s, const double *b, double *out) {
    for (int64_t i = 0; i < s->width; i += TILE) products(s->matrix + i * s->width, s->width, b, s->size, out + i);
}

static double wide_sums(Search *s) {
    const int64_t N = s->size;
    double value = 0;
    times_rows(s, s->trial, s->scores);
    for (int64_t i = 0; i < N; i++) {
        const double e = s->cost[i] > 0 ? shortfall(s->scores[i], s->target[i], s->task->epsilon) : 0;
        s->miss[i] = e;
        s->gradient[i] = s->trial[i] - 2 * s->cost[i] * e;
        value += 0.5 * s->trial[i] * s->scores[i] + s->cost[i] * e * e;
    }
    return value;
}

/* The norm of the gradient, sum of rows by what is in `gradient`. */
static double wide_norm(Search *s) {
    double largest = 0;
    for (int64_t i = 0; i < s->size; i++) largest = fmax(largest, fabs(s->gradient[i]));
    if (!(largest > 0)) return largest;
    for (int64_t i = 0; i < s->size; i++) s->gradient[i] /= largest; /* whose squares are numbers */
    times_rows(s, s->gradient, s->pushed);
    const double square = product(s->gradient, s->pushed, s->size);
    for (int64_t i = 0; i < s->size; i++) s->gradient[i] *= largest, s->pushed[i] *= largest;
    return largest * sqrt(fmax(square, 0));
}

/* From where the search stands to the minimum, were it the same rows that fall short there. */
static int wide_direction(Search *s) {
    int64_t count = 0;
    const int64_t width = s->width;
    double *wanted = s->wanted;
    for (int64_t i = 0; i < s->size; i++) {
        s->direction[i] = -s->best[i];
        if (s->miss[i] != 0) s->index[count++] = i;
    }
    const int64_t rows = whole_tiles(count);
    for (int64_t r = 0; r < rows; r++) {
        double *line = s->factor + r * width;
        if (r >= count) {
            memset(line, 0, r * sizeof(double));
            line[r] = 1, wanted[r] = 0;
            continue;
        }
        const int64_t i = s->index[r];
        const double *from = s->matrix + i * width;
        for (int64_t j = 0; j <= r; j++) line[j] = from[s->index[j]];
        line[r] += 0.5 / s->cost[i];
        wanted[r] = s->miss[i] + s->scores[i]; /* the score from which on it costs nothing */
    }
    if (!factorize(s->factor, rows, width)) return 0;
    substitute(s->factor, rows, width, wanted);
    for (int64_t r = 0; r < count; r++) s->direction[s->index[r]] += wanted[r];
    s->slope = product(s->pushed, s->direction, s->size);
    return 1;
}

/* ---- the search ---- */

static int all_finite(const double *x, int64_t n) {
    double sum = 0;
    for (int64_t k = 0; k < n; k++) sum += x[k] - x[k];
    return sum == 0;
}

/* Newton's method with backtracking, as `NewtonSearch` of primal.py does it; return what is left to say. */
static int search(Search *s, double *found) {
    const Newton *t = s->task;
    double value = INFINITY, step = 1, first = -1, norm = 0;
    int64_t passes = 0;
    int stopped = 0, state = 0;
    s->slope = 0;
    memset(s->trial, 0, s->width * sizeof(double));
    memset(s->best, 0, s->width * sizeof(double));
    memset(s->direction, 0, s->width * sizeof(double));
    memset(s->active, 0, t->num_rows);
    if (!t->by_rows) memset(s->matrix, 0, s->width * s->width * sizeof(double));
    while (passes < t->max_iter && !stopped) {
        const double here = t->by_rows ? wide_sums(s) : narrow_sums(s);
        if (!isfinite(here) || !all_finite(s->gradient, s->size)) state = -1;
        if (state) break;
        if (!passes++ && !t->by_rows)
            for (int64_t f = 0; f < t->num_features; f++)
                t->reach[f] = fmax(t->reach[f], s->matrix[f * s->width + f]);
        if (here <= value + SUFFICIENT * step * s->slope + 8 * EPSILON * fabs(here)) {
            memcpy(s->best, s->trial, s->size * sizeof(double));
            value = here, step = 1;
            norm = t->by_rows ? wide_norm(s) : narrow_norm(s);
            if (first < 0) first = norm;
            stopped = norm <= t->tol * first;
            if (!stopped && !(t->by_rows ? wide_direction(s) : narrow_direction(s))) state = -1;
            if (state) break;
        } else stopped = (step /= 2) < SMALLEST_STEP; /* J falls no further within its digits */
        for (int64_t k = 0; k < s->size; k++) s->trial[k] = s->best[k] + step * s->direction[k];
    }
    found[0] = value, found[1] = norm, found[2] = (double)passes, found[3] = state ? state : stopped;
    return state;
}

/* The weights that coefficients of rows stand for. */
static void weigh(const Search *s, double *weight) {
    const Newton *t = s->task;
    const int64_t F = t->num_features;
    memset(weight, 0, (F + 1) * sizeof(double));
    for (int64_t i = 0; i < t->num_rows; i++) {
        add_scaled(weight, t->x + i * F, s->best[i], F);
        weight[F] += s->best[i] * t->constant;
    }
}

/* What `reach` is of a machine, where there is no Hessian of its features. */
static void wide_reach(const Search *s) {
    const Newton *t = s->task;
    const int64_t F = t->num_features;
    double *sums = s->right;
    for (int64_t f = 0; f < F; f++) sums[f] = 0;
    for (int64_t i = 0; i < t->num_rows; i++) {
        if (shortfall(0, s->target[i], t->epsilon) == 0) continue;
        const double *row = t->x + i * F, factor = 2 * s->cost[i];
        for (int64_t f = 0; f < F; f++) sums[f] += factor * row[f] * row[f];
    }
    for (int64_t f = 0; f < F; f++) t->reach[f] = fmax(t->reach[f], sums[f]);
}

KERNEL(finite_newton, Newton) {
    const Newton *t = task;
    const int64_t N = t->num_rows, F = t->num_features, P = F + 1;
    Search s = {.task = t, .size = t->by_rows ? N : P};
    const int64_t width = s.width = padded(s.size), block = t->by_rows ? F : 2 * BLOCK * width;
    double *reals = calloc((size_t)(7 * width + N + 2 * width * width + block), sizeof(double));
    int64_t *index = malloc(((size_t)N + 1) * sizeof(int64_t));
    char *active = malloc((size_t)N + 1);
    const int failed = !reals || !index || !active;
    if (!failed) {
        s.trial = reals, s.best = reals + width, s.direction = reals + 2 * width, s.gradient = reals + 3 * width;
        s.scores = reals + 4 * width, s.pushed = reals + 5 * width, s.wanted = reals + 6 * width;
        s.miss = reals + 7 * width;
        s.matrix = s.miss + N, s.factor = s.matrix + width * width;
        s.right = s.factor + width * width, s.left = s.right + BLOCK * width;
        s.index = index, s.active = active;
        for (int64_t f = 0; f < F; f++) t->reach[f] = 0;
        if (t->by_rows) multiply_rows(&s);
        for (int64_t k = 0; k < t->num_machines; k++) {
            s.target = t->target + k * N, s.cost = t->cost + k * N;
            if (search(&s, t->found + 4 * k) < 0) break; /* the caller takes another way */
            if (t->by_rows) weigh(&s, t->weight + k * P), wide_reach(&s);
            else memcpy(t->weight + k * P, s.best, P * sizeof(double));
        }
    }
    free(reals), free(index), free(active);
    return failed;
}
