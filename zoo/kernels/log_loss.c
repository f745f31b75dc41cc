/* Log loss of standardized rows: one pass over them, and all passes to the minimum, with a ridge and no other penalty.

   The minimizers are those of zoo/models/linear/minimizers.py, which says more of them: Newton's method, and L-BFGS.

   Letters as there: D = K P numbers. */

#include "log_loss_pass.h"

#define HISTORY 10
#define ARMIJO 1e-4
#define ROUNDING (64 * 0x1p-52) /* relative error that a sum of many losses may carry */
#define FLAT 1e-12              /* as in quadratic.py: below it a system does not count as definite */

typedef struct {
    LogLoss loss; /* its point is where the search begins, and where it ends */
    int64_t newton, max_passes;
    double total, tolerance, limit; /* weight of all rows; see Minimizer; slope at which it is settled, or below 0 */
    const double *ridge;            /* (D) */
    const double *factor;           /* (P, P), or NULL: L of L L^T, about how the loss of each row of weights bends */
    const double *unit, *origin;    /* (F): a weight's slope in its own units is slope * unit + slope of intercept * origin */
    double *found;                  /* (5): passes (0: Newton's system is not definite), converged, value, promise, step */
} Descent;

typedef struct {
    int64_t size, known;
    double value, promise, step;
    double *accepted, *direction, *scale;   /* (D) */
    double *last_point, *last_gradient;     /* (D), of L-BFGS */
    double *bent;                           /* (D), the last turn through the factor */
    double *moves, *turns;                  /* (HISTORY, D): the i-th lies at row i % HISTORY */
    double products[HISTORY], squares;      /* move . turn; turn . turn of the last */
    double *memory;
} Search;

KERNEL(log_loss, LogLoss) {
    Block *blocks = open_blocks(task);
    if (!blocks) return 1;
    add_up(task, blocks);
    close_blocks(task, blocks);
    return 0;
}

static double dot(const double *a, const double *b, int64_t count) {
    vec sums = {};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) sums += *(const vec *)(a + i) * *(const vec *)(b + i);
    double sum = total(sums);
    for (; i < count; i++) sum += a[i] * b[i];
    return sum;
}

/* to += factor * from */
static void add(double factor, const double *from, double *to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] += factor * from[i];
}

static void copy(const double *from, double *to, int64_t count) { memcpy(to, from, count * sizeof(double)); }

static int open_search(const Descent *task, Search *s) {
    const int64_t D = task->loss.outputs * task->loss.columns, vectors = 6 + (task->newton ? 0 : 2 * HISTORY);
    *s = (Search){.size = D, .value = INFINITY, .promise = INFINITY, .step = 1.0};
    double *room = s->memory = calloc((size_t)(vectors * D), sizeof(double));
    if (!room) return 1;
    s->accepted = room, s->direction = room + D, s->scale = room + 2 * D;
    s->last_point = room + 3 * D, s->last_gradient = room + 4 * D;
    s->bent = room + 5 * D, s->moves = room + 6 * D, s->turns = s->moves + HISTORY * D;
    return 0;
}

/* Make of the sums of a pass the objective's value, gradient and Hessian. */
static double objective(const Descent *task) {
    const LogLoss *loss = &task->loss;
    const int64_t K = loss->outputs, P = loss->columns, D = K * P;
    const double share = 1.0 / task->total;
    double value = loss->sums[0] * share;
    for (int64_t i = 0; i < D; i++) {
        value += task->ridge[i] * loss->point[i] * loss->point[i];
        loss->gradient[i] = loss->gradient[i] * share + 2.0 * task->ridge[i] * loss->point[i];
    }
    for (int64_t i = 0; i < D && loss->hessian; i++) {
        for (int64_t j = 0; j < D; j++) loss->hessian[i * D + j] *= share;
        loss->hessian[i * D + i] += 2.0 * task->ridge[i];
    }
    for (int64_t f = 0; f < P && K > 1 && loss->hessian; f++) { /* curvature where one number more for all costs nothing */
        double mean = 0.0;
        for (int64_t k = 0; k < K; k++) mean += loss->hessian[(k * P + f) * D + k * P + f] / K;
        for (int64_t k = 0; k < K; k++)
            for (int64_t l = 0; l < K; l++) loss->hessian[(k * P + f) * D + l * P + f] += mean / K;
    }
    return value;
}

/* The greatest derivative by a weight or an intercept as the user knows them. */
static double steepest(const Descent *task) {
    const int64_t F = task->loss.features, P = task->loss.columns;
    double greatest = 0.0;
    for (int64_t k = 0; k < task->loss.outputs; k++) {
        const double *slope = task->loss.gradient + k * P, intercept = F < P ? slope[F] : 0.0;
        greatest = fmax(greatest, fabs(intercept));
        for (int64_t f = 0; f < F; f++)
            greatest = fmax(greatest, fabs(slope[f] * task->unit[f] + intercept * task->origin[f]));
    }
    return greatest;
}

static int is_finite(double value, const double *gradient, int64_t size) {
    for (int64_t i = 0; i < size && isfinite(value); i++)
        if (!isfinite(gradient[i])) return 0;
    return isfinite(value);
}

/* direction = -H^-1 gradient by Cholesky's factor of H scaled to a unit diagonal; 0 where H is not definite enough. */
static int aim_newton(const Descent *task, Search *s) {
    const int64_t D = s->size;
    const double least_square = FLAT * (double)D;
    double *h = task->loss.hessian, *d = s->direction, *scale = s->scale;
    for (int64_t i = 0; i < D; i++) scale[i] = 1.0 / sqrt(fmax(h[i * D + i], 1e-300));
    for (int64_t i = 0; i < D; i++) {
        for (int64_t j = 0; j <= i; j++) {
            const double left = h[i * D + j] * scale[i] * scale[j] - dot(h + i * D, h + j * D, j);
            if (i == j && !(left > least_square)) return 0;
            h[i * D + j] = i == j ? sqrt(left) : left / h[j * D + j];
        }
        d[i] = (-scale[i] * task->loss.gradient[i] - dot(h + i * D, d, i)) / h[i * D + i];
    }
    for (int64_t i = D - 1; i >= 0; i--) {
        d[i] /= h[i * D + i];
        add(-d[i], h + i * D, d, i);
    }
    for (int64_t i = 0; i < D; i++) d[i] *= scale[i];
    return 1;
}

/* v = L^-1 v for each row of weights. */
static void through_lower(const Descent *task, double *v) {
    const int64_t P = task->loss.columns;
    for (int64_t k = 0; k < task->loss.outputs; k++, v += P)
        for (int64_t i = 0; i < P; i++) v[i] = (v[i] - dot(task->factor + i * P, v, i)) / task->factor[i * P + i];
}

/* v = L^-T v for each row of weights. */
static void through_upper(const Descent *task, double *v) {
    const int64_t P = task->loss.columns;
    for (int64_t k = 0; k < task->loss.outputs; k++, v += P)
        for (int64_t i = P - 1; i >= 0; i--) {
            v[i] /= task->factor[i * P + i];
            add(-v[i], task->factor + i * P, v, i);
        }
}

/* Keep the last change of point and gradient, if the objective bends along it. */
static void remember(const Descent *task, Search *s, int64_t passes) {
    const int64_t D = s->size, row = s->known % HISTORY;
    double *move = s->moves + row * D, *turn = s->turns + row * D;
    if (passes > 1) {
        double product = 0.0, square = 0.0;
        for (int64_t i = 0; i < D; i++) {
            const double m = s->accepted[i] - s->last_point[i], t = task->loss.gradient[i] - s->last_gradient[i];
            product += m * t, square += t * t;
        }
        if (product > 0x1p-52 * square) {
            for (int64_t i = 0; i < D; i++) {
                move[i] = s->accepted[i] - s->last_point[i];
                turn[i] = task->loss.gradient[i] - s->last_gradient[i];
            }
            if (task->factor) {
                copy(turn, s->bent, D);
                through_lower(task, s->bent);
                square = dot(s->bent, s->bent, D);
            }
            s->products[row] = product, s->squares = square, s->known++;
        }
    }
    copy(s->accepted, s->last_point, D), copy(task->loss.gradient, s->last_gradient, D);
}

/* direction = -H gradient, H from the last moves and turns. */
static void aim_lbfgs(const Descent *task, Search *s, int64_t passes) {
    const int64_t D = s->size;
    double *d = s->direction, share[HISTORY];
    remember(task, s, passes);
    const int64_t oldest = s->known > HISTORY ? s->known - HISTORY : 0;
    for (int64_t i = 0; i < D; i++) d[i] = -task->loss.gradient[i];
    for (int64_t i = s->known - 1; i >= oldest; i--) {
        const int64_t row = i % HISTORY;
        share[row] = dot(s->moves + row * D, d, D) / s->products[row];
        add(-share[row], s->turns + row * D, d, D);
    }
    if (task->factor) through_lower(task, d), through_upper(task, d);
    if (s->known) {
        const double size = s->products[(s->known - 1) % HISTORY] / s->squares;
        for (int64_t i = 0; i < D; i++) d[i] *= size;
    }
    for (int64_t i = oldest; i < s->known; i++) {
        const int64_t row = i % HISTORY;
        add(share[row] - dot(s->turns + row * D, d, D) / s->products[row], s->moves + row * D, d, D);
    }
}

/* The first step along a direction: a whole one, but where nothing is known of how far that may be. */
static double first_step(const Descent *task, const Search *s) {
    double sum = 0.0;
    if (task->newton || task->factor || s->known) return 1.0;
    for (int64_t i = 0; i < s->size; i++) sum += fabs(s->direction[i]);
    return 1.0 / fmax(1.0, sum);
}

KERNEL(log_loss_minimize, Descent) {
    const LogLoss *loss = &task->loss;
    Block *blocks = open_blocks(loss);
    Search s;
    const int failed = open_search(task, &s) || !blocks;
    int64_t passes = 0;
    int converged = 0, definite = 1, settled = 0;
    while (!failed && passes < task->max_passes && !converged) {
        add_up(loss, blocks);
        const double value = objective(task);
        passes++;
        if (is_finite(value, loss->gradient, s.size) &&
            (passes == 1 || value <= s.value - ARMIJO * s.step * s.promise + ROUNDING * fabs(s.value))) {
            s.value = value;
            copy(loss->point, s.accepted, s.size);
            if (task->limit >= 0.0 && steepest(task) <= task->limit) {
                converged = settled = 1;
                break;
            }
            if (task->newton) definite = aim_newton(task, &s);
            else aim_lbfgs(task, &s, passes);
            if (!definite) break;
            s.promise = -dot(loss->gradient, s.direction, s.size);
            s.step = first_step(task, &s);
            converged = s.promise <= task->tolerance * fmax(1.0, fabs(value));
        } else {
            s.step /= 2.0;
            converged = s.step < 0x1p-30;
        }
        copy(s.accepted, loss->point, s.size);
        if (!converged && passes < task->max_passes) add(s.step, s.direction, loss->point, s.size);
    }
    /* Near the minimum Newton's full step squares the error, so it is worth taking unchecked. */
    if (!failed && converged && !settled && task->newton && s.step == 1.0) add(1.0, s.direction, loss->point, s.size);
    const double found[] = {definite ? (double)passes : 0.0, (double)converged, s.value, s.promise, s.step};
    if (!failed) memcpy(task->found, found, sizeof(found));
    close_blocks(loss, blocks);
    free(s.memory);
    return failed;
}
