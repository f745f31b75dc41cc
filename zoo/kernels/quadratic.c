/* Coordinate descent on a quadratic with an L1 penalty: each coordinate in turn goes where it is best, and the slope
   follows by one row of the Hessian, which is symmetric.

   A sweep costs no more than the rows of the coordinates that move. It is done when the signs have stayed for some
   sweeps: what is left is a linear system, which is solved at once. */

#include "doubles.h"

typedef struct {
    int64_t size, sweeps, patience; /* D; sweeps at most; of them, how many without a change of sign end it */
    const double *hessian;          /* (D, D) */
    const double *l1, *hold;        /* (D): the penalty, and the slope up to which a zero stays */
    const uint8_t *above;           /* (D): whether a coordinate may not be negative */
    double *slope, *x;              /* (D): the gradient without the penalty, and the point */
} Sweeps;

INLINE int sign(double x) { return (x > 0.0) - (x < 0.0); }

/* The best value of one coordinate, all others held. */
INLINE double best(const Sweeps *task, int64_t j, double curvature) {
    const double old = task->x[j], pull = curvature * old - task->slope[j];
    const double threshold = old != 0.0 ? task->l1[j] : task->hold[j];
    if (pull > threshold) return (pull - task->l1[j]) / curvature;
    if (pull < -threshold && !task->above[j]) return (pull + task->l1[j]) / curvature;
    return 0.0;
}

/* slope += change times a row of the Hessian. */
INLINE void follow(const Sweeps *task, int64_t j, double change) {
    const double *row = task->hessian + j * task->size;
    const vec by = set(change);
    int64_t i = 0;
    for (; i + LANES <= task->size; i += LANES) *(vec *)(task->slope + i) += by * *(const vec *)(row + i);
    for (; i < task->size; i++) task->slope[i] += change * row[i];
}

/* Whether a sign has changed. */
static int sweep(const Sweeps *task) {
    int changed = 0;
    for (int64_t j = 0; j < task->size; j++) {
        const double curvature = task->hessian[j * task->size + j], old = task->x[j];
        if (!(curvature > 0.0)) continue;
        const double new = best(task, j, curvature);
        if (new == old) continue;
        changed |= sign(new) != sign(old);
        task->x[j] = new;
        follow(task, j, new - old);
    }
    return changed;
}

KERNEL(quadratic_sweeps, Sweeps) {
    int64_t same = 0;
    for (int64_t done = 0; done < task->sweeps && same < task->patience; done++) same = sweep(task) ? 0 : same + 1;
    return 0;
}
