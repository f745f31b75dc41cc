/* Adafactor's step of one tensor; included once for each type, with REAL, WIDEN, SQRT and FMA. */

/* A tensor and what is found out of it. */
typedef struct {
    Shape shape;
    REAL *theta, *row, *column; /* row: (B, M), R; column: (B, N), C; or V in `row`, and no column */
    const REAL *grad;
    REAL share, floor;
    double *lengths;    /* (items): sums of squares of parameters, then of updates */
    double *row_sums;   /* (items): of R */
    double *sums;       /* (items, N) where a matrix has parts, else (threads, N): of squares over rows */
    REAL *means;        /* (B): the mean of R, at least the floor */
    REAL *inverse;      /* (threads, N): 1 / sqrt(C) of a matrix */
} NAME(Work);

/* The least of both, NaN where x is. */
INLINE REAL NAME(at_most)(REAL x, REAL y) { return x > y ? y : x; }
INLINE REAL NAME(at_least)(REAL x, REAL y) { return x < y ? y : x; }

static double NAME(squares)(const REAL *x, int64_t count) {
    vec sum = {};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) sum += WIDEN(x + i) * WIDEN(x + i);
    double all = total(sum);
    for (; i < count; i++) all += (double)x[i] * x[i];
    return all;
}

/* -- means of squares ------------------------------------------------------------------------------------------------ */

/* Add the squares of a row to the sums of columns; return its own sum. */
INLINE double NAME(add_row)(const REAL *g, int64_t N, double *sums) {
    vec across = {};
    int64_t j = 0;
    for (; j + LANES <= N; j += LANES) {
        const vec x = WIDEN(g + j), square = x * x;
        across += square;
        *(vec *)(sums + j) += square;
    }
    double sum = total(across);
    for (; j < N; j++) {
        const double square = (double)g[j] * g[j];
        sum += square;
        sums[j] += square;
    }
    return sum;
}

/* The same of LANES rows at a time that are shorter than a vector, with the rows in the lanes; return how many. */
INLINE int64_t NAME(add_narrow_rows)(const REAL *g, int64_t count, const int64_t N, double *sums, double *squares) {
    vec down[LANES] = {};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        vec across = {};
        for (int64_t j = 0; j < N; j++) {
            vec x;
            for (int lane = 0; lane < LANES; lane++) x[lane] = g[(i + lane) * N + j];
            across += x * x;
            down[j] += x * x;
        }
        *(vec *)(squares + i) = across;
    }
    for (int64_t j = 0; j < N; j++) sums[j] += total(down[j]);
    return i;
}

static void NAME(add_rows)(const REAL *g, int64_t count, int64_t N, double *sums, double *squares) {
    int64_t i = 0;
    BY_WIDTH(N, i = NAME(add_narrow_rows)(g, count, WIDTH, sums, squares))
    for (; i < count; i++) squares[i] = NAME(add_row)(g + i * N, N, sums);
}

/* R of some rows of a matrix, and their sum; squares of columns are added to `sums`. */
static double NAME(take_rows)(const NAME(Work) *w, int64_t matrix, int64_t row, int64_t end, double *sums) {
    const int64_t M = w->shape.rows, N = w->shape.columns;
    const REAL share = w->share;
    double sum = 0.0, squares[BLOCK];
    for (; row < end; row += BLOCK) {
        const int64_t count = least(BLOCK, end - row);
        REAL *kept = w->row + matrix * M + row;
        NAME(add_rows)(w->grad + (matrix * M + row) * N, count, N, sums, squares);
        for (int64_t i = 0; i < count; i++) kept[i] = NAME(between)(kept[i], (REAL)(squares[i] / N), share);
        for (int64_t i = 0; i < count; i++) sum += kept[i];
    }
    return sum;
}

/* C of a matrix, whose squares were summed in some parts, and the mean of R. */
static void NAME(settle)(const NAME(Work) *w, int64_t matrix, double row_sum, const double *sums, int64_t parts) {
    const int64_t M = w->shape.rows, N = w->shape.columns;
    REAL *kept = w->column + matrix * N;
    for (int64_t j = 0; j < N; j++) {
        double sum = 0.0;
        for (int64_t part = 0; part < parts; part++) sum += sums[part * N + j];
        kept[j] = NAME(between)(kept[j], (REAL)(sum / M), w->share);
    }
    w->means[matrix] = NAME(at_least)((REAL)(row_sum / M), w->floor);
}

static void NAME(find_means)(const NAME(Work) *w, int64_t item, int64_t thread) {
    const Shape *s = &w->shape;
    const Item at = item_of(s, item);
    const int64_t N = s->columns;
    double *sums = w->sums + (s->parts > 1 ? item : thread) * N;
    for (int64_t matrix = at.matrix; matrix < at.end_matrix; matrix++) {
        memset(sums, 0, N * sizeof *sums);
        w->row_sums[item] = NAME(take_rows)(w, matrix, at.row, at.end_row, sums);
        if (s->parts == 1) NAME(settle)(w, matrix, w->row_sums[item], sums, 1);
    }
}

static void NAME(find_variances)(const NAME(Work) *w, int64_t item) {
    const Item at = item_of(&w->shape, item);
    for (int64_t i = at.matrix; i < at.end_matrix; i++)
        w->row[i] = NAME(between)(w->row[i], w->grad[i] * w->grad[i], w->share);
}

/* -- updates: gradients times 1 / sqrt(V) ----------------------------------------------------------------------------- */

/* Of rows and columns the products of their factors, at most so large. */
INLINE void NAME(spread)(
    const REAL *by_row, const REAL *by_column, REAL most, int64_t rows, const int64_t width, REAL *update) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < width; j++) update[i * width + j] = NAME(at_most)(by_row[i] * by_column[j], most);
}

/* The updates of `count` numbers from column `first` of a row on, which are whole rows where they are more than one. */
static void NAME(updates)(
    const NAME(Work) *w, const REAL *inverse, int64_t matrix, int64_t row, int64_t first, int64_t count, REAL *update) {
    const int64_t M = w->shape.rows, N = w->shape.columns, width = least(N, count), rows = count / width;
    const REAL *g = w->grad + (matrix * M + row) * N + first, *kept = w->row + matrix * M + row;
    const REAL most = 1 / w->floor, mean = w->means[matrix];
    REAL by_row[BLOCK];
    for (int64_t i = 0; i < rows; i++) by_row[i] = 1 / SQRT(kept[i] / mean);
    BY_WIDTH(width, NAME(spread)(by_row, inverse + first, most, rows, WIDTH, update))
    else NAME(spread)(by_row, inverse + first, most, rows, width, update);
    for (int64_t i = 0; i < count; i++) update[i] *= g[i];
}

static void NAME(plain_updates)(const NAME(Work) *w, int64_t first, int64_t count, REAL *update) {
    const REAL *g = w->grad + first, *v = w->row + first, least_square = w->floor * w->floor;
    for (int64_t i = 0; i < count; i++) update[i] = 1 / SQRT(NAME(at_least)(v[i], least_square)) * g[i];
}

/* What is done with the updates of a block: their squares are added up, or they are subtracted. */
INLINE void NAME(use)(const REAL *update, REAL *theta, int64_t count, const REAL *by, double *length) {
    if (!by) *length += NAME(squares)(update, count);
    else
        for (int64_t i = 0; i < count; i++) theta[i] = FMA(by[1], update[i], theta[i] * by[0]);
}

/* Work out the updates of an item; `by`: what parameters are multiplied with, and the updates that are added. */
static void NAME(take_updates)(const NAME(Work) *w, int64_t item, int64_t thread, const REAL *by, double *length) {
    const Item at = item_of(&w->shape, item);
    const int64_t M = w->shape.rows, N = w->shape.columns;
    const int64_t width = least(N, BLOCK), height = N < BLOCK ? BLOCK / (N ? N : 1) : 1;
    REAL update[BLOCK], *inverse = w->inverse + thread * N;
    if (!w->column) {
        for (int64_t i = at.matrix; i < at.end_matrix; i += BLOCK) {
            const int64_t count = least(BLOCK, at.end_matrix - i);
            NAME(plain_updates)(w, i, count, update);
            NAME(use)(update, w->theta + i, count, by, length);
        }
        return;
    }
    for (int64_t matrix = at.matrix; matrix < at.end_matrix; matrix++) {
        for (int64_t j = 0; j < N; j++) inverse[j] = 1 / SQRT(w->column[matrix * N + j]);
        for (int64_t row = at.row; row < at.end_row; row += height)
            for (int64_t first = 0; first < N; first += width) {
                const int64_t count = least(height, at.end_row - row) * least(width, N - first);
                NAME(updates)(w, inverse, matrix, row, first, count, update);
                NAME(use)(update, w->theta + (matrix * M + row) * N + first, count, by, length);
            }
    }
}

/* -- a step ---------------------------------------------------------------------------------------------------------- */

static int NAME(open_work)(NAME(Work) *w, int64_t threads) {
    const Shape *s = &w->shape;
    const int64_t slots = s->parts > 1 ? s->items : threads;
    const int64_t doubles = 2 * s->items + (w->column ? slots * s->columns : 0);
    const int64_t reals = w->column ? s->matrices + threads * s->columns : 0;
    w->lengths = malloc((size_t)doubles * sizeof(double) + (size_t)reals * sizeof(REAL) + 1);
    if (!w->lengths) return 1;
    w->row_sums = w->lengths + s->items, w->sums = w->row_sums + s->items;
    w->means = (REAL *)(w->lengths + doubles), w->inverse = w->means + s->matrices;
    return 0;
}

/* The root mean square of what a tensor's items have found. */
static double NAME(size_of)(const NAME(Work) *w) {
    const Shape *s = &w->shape;
    return sqrt(added(w->lengths, s->items) / ((double)s->matrices * s->rows * s->columns));
}

static int NAME(take_tensor)(const Adafactor *task, int64_t tensor, int64_t threads) {
    void *const *at = task->tensors + tensor; /* of each kind */
    const double count = count_step(task, tensor), step = fmin(task->rate, 1 / sqrt(count));
    NAME(Work) w = {.shape = shape_of(task, tensor), .share = (REAL)pow(count, task->decay), .floor = (REAL)task->floor};
    const Shape *s = &w.shape;
    w.theta = *at, w.row = *(at += task->count);
    if (task->factored) w.column = *(at += task->count);
    w.grad = *(at += task->count);
    if (!s->matrices || !s->rows || !s->columns) return 0;
    if (NAME(open_work)(&w, threads)) return 1;

#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int64_t t = 0; t < threads; t++)
        for (int64_t item = t; item < s->items; item += threads) {
            const Item in = item_of(s, item);
            const int64_t first = (in.matrix * s->rows + in.row) * s->columns;
            const int64_t end = ((in.end_matrix - 1) * s->rows + in.end_row) * s->columns;
            w.lengths[item] = NAME(squares)(w.theta + first, end - first);
            if (w.column) NAME(find_means)(&w, item, t);
            else NAME(find_variances)(&w, item);
        }
    for (int64_t matrix = 0; matrix < s->matrices && s->parts > 1; matrix++) {
        const int64_t first = matrix * s->parts;
        NAME(settle)(&w, matrix, added(w.row_sums + first, s->parts), w.sums + first * s->columns, s->parts);
    }
    const double size = NAME(size_of)(&w), relative = size > task->least_size ? size : task->least_size;

#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int64_t t = 0; t < threads; t++)
        for (int64_t item = t; item < s->items; item += threads) {
            w.lengths[item] = 0;
            NAME(take_updates)(&w, item, t, NULL, w.lengths + item);
        }
    const double length = NAME(size_of)(&w) / task->cut, by = relative * step / (length > 1 ? length : 1);
    const REAL factors[2] = {(REAL)(1 - task->rate * task->weight_decay), (REAL)(task->maximize ? by : -by)};

#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int64_t t = 0; t < threads; t++)
        for (int64_t item = t; item < s->items; item += threads)
            NAME(take_updates)(&w, item, t, factors, NULL);
    free(w.lengths);
    return 0;
}
