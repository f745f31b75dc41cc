/* A pass of Lloyd's algorithm over rows of one type, block by block; included once for each, with REAL and NAME(x).

   A block of rows lies with its rows in the lanes, so that a score is a chain of multiplications and the greatest is
   found by comparing vectors; no score is ever written. Sums are double. */

#define LANES ((int)(VECTOR / sizeof(REAL)))
#define ROWS_AT_ONCE (DEEP * LANES)

typedef REAL NAME(vec) __attribute__((vector_size(VECTOR), aligned(sizeof(REAL)), may_alias));
typedef REAL NAME(eight) __attribute__((vector_size(8 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
typedef INTEGER NAME(ivec) __attribute__((vector_size(VECTOR), aligned(sizeof(REAL)), may_alias));

/* What a thread has at hand while it works on a block. */
typedef struct {
    const REAL *packed; /* of all threads: centroids in tiles, packed[restart][tile][feature][TILE], then their last column;
                           where they are few, as they are */
    int64_t width;      /* D + 1, up to a multiple of 16 */
    REAL *flat;         /* (ROWS_AT_ONCE, width): rows from the reference point, then 1, then 0 */
    REAL *turned;       /* (WIDE or less, ROWS_AT_ONCE): of some features */
    REAL *partial;      /* (R, tiles, TILE, ROWS_AT_ONCE): scores of the features so far, where there are more than WIDE;
                           (R, K, ROWS_AT_ONCE): scores, where clusters are few */
    double *sums;       /* (R, K, filled): on cache lines, from which a sum that was just stored is read at once */
    int64_t filled;     /* D + 1, up to a multiple of 8 */
    eight norm;
    REAL score[ROWS_AT_ONCE]; /* the greatest */
    INTEGER best[ROWS_AT_ONCE];
} NAME(Block);

INLINE eight NAME(widen)(const REAL *from) {
#if defined(__AVX512F__) && IS_FLOAT
    return (eight)_mm512_cvtps_pd(_mm256_loadu_ps(from)); /* GCC converts it in two halves */
#else
    return __builtin_convertvector(*(const NAME(eight) *)from, eight);
#endif
}

/* A tile that is not full ends in clusters that score -inf, which nothing chooses. */
static void NAME(pack)(const Rows *task, const REAL *centroids, REAL *to) {
    const int64_t D = task->features, K = task->clusters;
    if (few(task)) memcpy(to, centroids, task->restarts * K * (D + 1) * sizeof *to);
    for (int64_t restart = 0; restart < task->restarts && !few(task); restart++)
        for (int64_t first = 0; first < K; first += TILE)
            for (int64_t f = 0; f <= D; f++)
                for (int64_t k = first; k < first + TILE; k++)
                    *to++ = k < K ? centroids[(restart * K + k) * (D + 1) + f] : f < D ? 0 : -INFINITY;
}

static int64_t NAME(packed_size)(const Rows *task) { return task->restarts * tiles(task) * TILE * (task->features + 1); }

static int NAME(open_block)(const Rows *task, NAME(Block) *b) {
    const int64_t D = task->features, width = (D + 16) / 16 * 16, filled = (D + 8) / 8 * 8;
    const int64_t count = task->restarts * task->clusters * filled;
    const int64_t scores = D > WIDE || few(task) ? task->restarts * tiles(task) * TILE * ROWS_AT_ONCE : 0;
    b->width = width, b->filled = filled, b->norm = (eight){};
    b->flat = room(ROWS_AT_ONCE * width * sizeof(REAL));
    b->turned = room(ROWS_AT_ONCE * least(width, WIDE) * sizeof(REAL));
    b->partial = room(scores * sizeof(REAL)), b->sums = room(count * sizeof(double));
    if (!b->flat || !b->turned || !b->partial || !b->sums) return 1;
    memset(b->flat, 0, ROWS_AT_ONCE * width * sizeof(REAL));
    for (int r = 0; r < ROWS_AT_ONCE; r++) b->flat[r * width + D] = 1;
    memset(b->sums, 0, count * sizeof(double));
    return 0;
}

static void NAME(close_block)(NAME(Block) *b) { free(b->flat), free(b->turned), free(b->partial), free(b->sums); }

/* to[c][r] = from[r][c] for LANES rows that are `width` apart. */
INLINE void NAME(turn)(const REAL *from, int64_t width, REAL *to) {
#if defined(__AVX512F__) && IS_FLOAT
    __m512 a[16], t[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; r++) a[r] = _mm512_loadu_ps(from + r * width);
#pragma GCC unroll 8
    for (int r = 0; r < 16; r += 2) t[r] = _mm512_unpacklo_ps(a[r], a[r + 1]), t[r + 1] = _mm512_unpackhi_ps(a[r], a[r + 1]);
#pragma GCC unroll 4
    for (int r = 0; r < 16; r += 4)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m512d low = _mm512_castps_pd(t[r + h]), high = _mm512_castps_pd(t[r + h + 2]);
            a[r + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            a[r + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) { /* a[4 q + c] has columns c, 4 + c, 8 + c and 12 + c of rows 4 q to 4 q + 3 */
        __m512 low = _mm512_shuffle_f32x4(a[c], a[c + 4], 0x88), high = _mm512_shuffle_f32x4(a[c + 8], a[c + 12], 0x88);
        __m512 low_ = _mm512_shuffle_f32x4(a[c], a[c + 4], 0xdd), high_ = _mm512_shuffle_f32x4(a[c + 8], a[c + 12], 0xdd);
        _mm512_storeu_ps(to + c * ROWS_AT_ONCE, _mm512_shuffle_f32x4(low, high, 0x88));
        _mm512_storeu_ps(to + (c + 4) * ROWS_AT_ONCE, _mm512_shuffle_f32x4(low_, high_, 0x88));
        _mm512_storeu_ps(to + (c + 8) * ROWS_AT_ONCE, _mm512_shuffle_f32x4(low, high, 0xdd));
        _mm512_storeu_ps(to + (c + 12) * ROWS_AT_ONCE, _mm512_shuffle_f32x4(low_, high_, 0xdd));
    }
#elif defined(__AVX512F__)
    __m512d a[8], t[8];
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) a[r] = _mm512_loadu_pd(from + r * width);
#pragma GCC unroll 4
    for (int r = 0; r < 8; r += 2) t[r] = _mm512_unpacklo_pd(a[r], a[r + 1]), t[r + 1] = _mm512_unpackhi_pd(a[r], a[r + 1]);
#pragma GCC unroll 2
    for (int c = 0; c < 2; c++) { /* t[2 q + c] has columns c, 2 + c, 4 + c and 6 + c of rows 2 q and 2 q + 1 */
        __m512d low = _mm512_shuffle_f64x2(t[c], t[c + 2], 0x88), high = _mm512_shuffle_f64x2(t[c + 4], t[c + 6], 0x88);
        __m512d low_ = _mm512_shuffle_f64x2(t[c], t[c + 2], 0xdd), high_ = _mm512_shuffle_f64x2(t[c + 4], t[c + 6], 0xdd);
        _mm512_storeu_pd(to + c * ROWS_AT_ONCE, _mm512_shuffle_f64x2(low, high, 0x88));
        _mm512_storeu_pd(to + (c + 2) * ROWS_AT_ONCE, _mm512_shuffle_f64x2(low_, high_, 0x88));
        _mm512_storeu_pd(to + (c + 4) * ROWS_AT_ONCE, _mm512_shuffle_f64x2(low, high, 0xdd));
        _mm512_storeu_pd(to + (c + 6) * ROWS_AT_ONCE, _mm512_shuffle_f64x2(low_, high_, 0xdd));
    }
#else
    for (int c = 0; c < LANES; c++)
        for (int r = 0; r < LANES; r++) to[c * ROWS_AT_ONCE + r] = from[r * width + c];
#endif
}

INLINE const REAL *NAME(row_at)(const Rows *task, int64_t place) {
    return (const REAL *)task->x + (task->index ? task->index[place] : place) * task->features;
}

/* Fetch what is worked on next of a row, if there is one: the first look into a page takes long. */
INLINE void NAME(fetch)(const Rows *task, int64_t place, int64_t begin) {
    if (place >= task->number) return;
    const REAL *x = NAME(row_at)(task, place);
    for (int64_t f = begin; f < least(begin + WIDE, task->features); f += 64 / (int)sizeof(REAL)) __builtin_prefetch(x + f);
}

/* Add the products of a block's rows and a tile of centroids, over `count` features, to their scores. */
INLINE void NAME(add_products)(NAME(vec) s[TILE][DEEP], const REAL *x, const REAL *c, int64_t count) {
    typedef NAME(vec) vec;
    for (int64_t f = 0; f < count; f++, x += ROWS_AT_ONCE, c += TILE) {
        vec rows[DEEP];
#pragma GCC unroll 2
        for (int v = 0; v < DEEP; v++) rows[v] = *(const vec *)(x + v * LANES);
#pragma GCC unroll 8
        for (int k = 0; k < TILE; k++) {
            vec factor = c[k] - (vec){};
#pragma GCC unroll 2
            for (int v = 0; v < DEEP; v++) s[k][v] += factor * rows[v];
        }
    }
}

/* Add the products over the features from `begin` to `end` to the scores of all tiles, for which these lie turned. */
static void NAME(add_features)(const Rows *task, NAME(Block) *b, int64_t begin, int64_t end) {
    typedef NAME(vec) vec;
    const int64_t count = task->restarts * tiles(task);
    for (int64_t tile = 0; tile < count; tile++) {
        vec s[TILE][DEEP];
        REAL *kept = b->partial + tile * TILE * ROWS_AT_ONCE;
#pragma GCC unroll 8
        for (int k = 0; k < TILE; k++)
#pragma GCC unroll 2
            for (int v = 0; v < DEEP; v++) s[k][v] = begin ? ((vec *)kept)[k * DEEP + v] : (vec){};
        NAME(add_products)(s, b->turned, b->packed + (tile * (task->features + 1) + begin) * TILE, end - begin);
#pragma GCC unroll 8
        for (int k = 0; k < TILE; k++)
#pragma GCC unroll 2
            for (int v = 0; v < DEEP; v++) ((vec *)kept)[k * DEEP + v] = s[k][v];
    }
}

/* The scores of one row of a block with all clusters. */
static void NAME(multiply)(const Rows *task, NAME(Block) *b, int64_t r) {
    typedef NAME(vec) vec;
    const int64_t D = task->features, count = task->restarts * task->clusters;
    const REAL *row = b->flat + r * b->width, *c = b->packed;
    for (int64_t k = 0; k < count; k++, c += D + 1) {
        vec sums[2] = {};
        REAL score = c[D];
        int64_t f = 0;
        for (; f + 2 * LANES <= D; f += 2 * LANES) {
            sums[0] += *(const vec *)(row + f) * *(const vec *)(c + f);
            sums[1] += *(const vec *)(row + f + LANES) * *(const vec *)(c + f + LANES);
        }
        sums[0] += sums[1];
        for (; f < D; f++) score += row[f] * c[f];
        for (int lane = 0; lane < LANES; lane++) score += sums[0][lane];
        b->partial[k * ROWS_AT_ONCE + r] = score;
    }
}

/* Read the rows from `first` on; those that the block has too many of are zero. */
static void NAME(read_rows)(const Rows *task, NAME(Block) *b, int64_t first, int64_t count) {
    const int64_t D = task->features, width = b->width;
    const REAL scale = (REAL)task->scale, *reference = task->reference;
    for (int64_t r = 0; r < count && few(task); r++) {
        const REAL *x = NAME(row_at)(task, first + r);
        REAL *to = b->flat + r * width;
        for (int64_t f = 0; f < D; f++) to[f] = (x[f] - reference[f]) * scale;
        NAME(multiply)(task, b, r);
    }
    if (few(task)) return;
    for (int64_t begin = 0; begin < D; begin += WIDE) {
        const int64_t end = least(begin + WIDE, D);
        for (int64_t r = 0; r < count; r++) {
            const REAL *x = NAME(row_at)(task, first + r);
            REAL *to = b->flat + r * width;
            for (int64_t f = begin; f < end; f++) to[f] = (x[f] - reference[f]) * scale;
            if (D > WIDE) NAME(fetch)(task, end < D ? first + r : first + r + ROWS_AT_ONCE, end < D ? end : 0);
        }
        for (int64_t r = count; r < ROWS_AT_ONCE; r++) memset(b->flat + r * width + begin, 0, (end - begin) * sizeof(REAL));
        for (int64_t f = begin; f < end; f += LANES)
            for (int v = 0; v < DEEP; v++)
                NAME(turn)(b->flat + v * LANES * width + f, width, b->turned + (f - begin) * ROWS_AT_ONCE + v * LANES);
        if (D > WIDE) NAME(add_features)(task, b, begin, end);
    }
}

/* The nearest of one restart's clusters to each row: that of the greatest score, the first of equal ones. */
static void NAME(find_nearest)(const Rows *task, NAME(Block) *b, int64_t restart) {
    typedef NAME(vec) vec;
    typedef NAME(ivec) ivec;
    const int64_t D = task->features, count = tiles(task);
    const REAL *c = b->packed + restart * count * TILE * (D + 1);
    vec best[DEEP];
    ivec index[DEEP];
    for (int64_t r = 0; r < ROWS_AT_ONCE && few(task); r++) {
        const REAL *scores = b->partial + restart * task->clusters * ROWS_AT_ONCE + r;
        b->score[r] = -INFINITY, b->best[r] = 0;
        for (int64_t k = 0; k < task->clusters; k++)
            if (scores[k * ROWS_AT_ONCE] > b->score[r]) b->score[r] = scores[k * ROWS_AT_ONCE], b->best[r] = (INTEGER)k;
    }
    if (few(task)) return;
    for (int v = 0; v < DEEP; v++) best[v] = (vec){} - (REAL)INFINITY, index[v] = (ivec){};
    for (int64_t tile = 0; tile < count; tile++, c += TILE) {
        vec s[TILE][DEEP];
        const int64_t kept = (restart * count + tile) * TILE * DEEP;
#pragma GCC unroll 8
        for (int k = 0; k < TILE; k++)
#pragma GCC unroll 2
            for (int v = 0; v < DEEP; v++) s[k][v] = D > WIDE ? ((const vec *)b->partial)[kept + k * DEEP + v] : (vec){};
        if (D <= WIDE) NAME(add_products)(s, b->turned, c, D);
        c += D * TILE;
#pragma GCC unroll 8
        for (int k = 0; k < TILE; k++)
#pragma GCC unroll 2
            for (int v = 0; v < DEEP; v++) {
                vec score = s[k][v] + c[k];
                ivec greater = score > best[v];
                best[v] = (vec)((greater & (ivec)score) | (~greater & (ivec)best[v]));
                index[v] = (greater & ((ivec){} + (INTEGER)(tile * TILE + k))) | (~greater & index[v]);
            }
    }
    for (int v = 0; v < DEEP; v++)
        memcpy(b->score + v * LANES, &best[v], sizeof(vec)), memcpy(b->best + v * LANES, &index[v], sizeof(ivec));
}

/* The sums of one restart's clusters, and with the first restart those of squares; `weighted` is a constant here. */
INLINE void NAME(add_rows)(int weighted, const Rows *task, NAME(Block) *b, int64_t restart, int64_t first, int64_t count, double *gains) {
    double *sums = b->sums + restart * task->clusters * b->filled, gain = 0.0;
    eight norm = {};
    for (int64_t r = 0; r < count; r++) {
        const REAL *row = b->flat + r * b->width;
        double *to = sums + b->best[r] * b->filled;
        const double weight = weighted ? task->weight[first + r] : 1.0;
        for (int64_t f = 0; f < b->filled; f += 8) {
            eight value = NAME(widen)(row + f), share = value * weight;
            *(eight *)(to + f) += share;
            norm += share * value;
        }
        gain += weight * (double)b->score[r];
    }
    gains[restart] += gain;
    if (!restart) b->norm += norm;
}

/* The sum of squares, in four parts side by side, since an addition waits for the one before. */
static double NAME(square)(const REAL *row, int64_t count) {
    double sum = 0.0;
    int64_t f = 0;
    if (count >= 8) {
        eight sums[4] = {};
        for (; f + 32 <= count; f += 32)
#pragma GCC unroll 4
            for (int part = 0; part < 4; part++) {
                const eight value = NAME(widen)(row + f + 8 * part);
                sums[part] += value * value;
            }
        for (; f + 8 <= count; f += 8) {
            const eight value = NAME(widen)(row + f);
            sums[0] += value * value;
        }
        const eight all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        for (int lane = 0; lane < 8; lane++) sum += all[lane];
    }
    for (; f < count; f++) sum += (double)row[f] * (double)row[f];
    return sum;
}

/* The squared distance of a row from a point, by differences: a product's form would lose it beside far larger squares. */
static double NAME(apart)(const REAL *row, const double *point, int64_t count) {
    double sum = 0.0;
    int64_t f = 0;
    if (count >= 8) {
        eight sums[4] = {};
        for (; f + 32 <= count; f += 32)
#pragma GCC unroll 4
            for (int part = 0; part < 4; part++) {
                const eight value = NAME(widen)(row + f + 8 * part) - *(const eight *)(point + f + 8 * part);
                sums[part] += value * value;
            }
        for (; f + 8 <= count; f += 8) {
            const eight value = NAME(widen)(row + f) - *(const eight *)(point + f);
            sums[0] += value * value;
        }
        const eight all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        for (int lane = 0; lane < 8; lane++) sum += all[lane];
    }
    for (; f < count; f++) sum += ((double)row[f] - point[f]) * ((double)row[f] - point[f]);
    return sum;
}

/* The squared distances (R K) up to which a row is on its centroid, from centroids (R K, D) where the rows are. */
static void NAME(find_none)(const Rows *task, const double *points, double *none) {
    const REAL *reference = task->reference;
    const int64_t D = task->features;
    for (int64_t k = 0; k < task->restarts * task->clusters; k++) {
        double squares = 0.0;
        for (int64_t f = 0; f < D; f++) {
            const double there = points[k * D + f], from = (double)reference[f];
            squares += there * there + from * from;
        }
        none[k] = squares * ON_A_CENTROID;
    }
}

/* The squared distance of a row from centroid k of `points`, 0 where that is no more than `none`. */
INLINE double NAME(measure)(const Rows *task, int64_t place, int64_t k, const double *points, const double *none) {
    const double distance = NAME(apart)(NAME(row_at)(task, place), points + k * task->features, task->features);
    return distance <= none[k] ? 0.0 : distance;
}

static int NAME(add_up)(const Lloyd *pass) {
    const Rows *task = &pass->rows;
    const int64_t D = task->features, clusters = task->restarts * task->clusters;
    NAME(Block) b;
    REAL *packed = room(NAME(packed_size)(task) * sizeof(REAL));
    double *none = room(clusters * sizeof *none);
    const int failed = NAME(open_block)(task, &b) || !packed || !none;
    if (!failed) NAME(pack)(task, pass->centroids, packed);
    if (!failed && pass->points) NAME(find_none)(task, pass->points, none);
    b.packed = packed;
    for (int64_t first = 0; first < task->number && !failed; first += ROWS_AT_ONCE) {
        const int64_t count = least(ROWS_AT_ONCE, task->number - first);
        NAME(read_rows)(task, &b, first, count);
        for (int64_t restart = 0; restart < task->restarts; restart++) {
            double *distance = pass->distance + restart * task->number + first;
            NAME(find_nearest)(task, &b, restart);
            for (int64_t r = 0; r < count && pass->points; r++)
                distance[r] = NAME(measure)(task, first + r, restart * task->clusters + b.best[r], pass->points, none);
            if (task->weight) NAME(add_rows)(1, task, &b, restart, first, count, pass->gain);
            else NAME(add_rows)(0, task, &b, restart, first, count, pass->gain);
        }
    }
    for (int64_t k = 0; k < clusters && !failed; k++) {
        memcpy(pass->moments + k * (D + 1), b.sums + k * b.filled, (D + 1) * sizeof(double));
        if (k < task->clusters) *pass->norm -= b.sums[k * b.filled + D]; /* less the ones */
    }
    for (int lane = 0; lane < 8 && !failed; lane++) *pass->norm += b.norm[lane];
    NAME(close_block)(&b), free(packed), free(none);
    return failed;
}

/* Nearest centroids and distances of some rows; `points` (R K, D) are the centroids where the rows are, and `none` (R K)
   the squared distance up to which a row is on its centroid. `known` says that the nearest ones are those of `label`. */
static void NAME(label_span)(const Iterate *all, int known, NAME(Block) *b, const double *points, const double *none, int64_t begin, int64_t end) {
    const Rows *task = &all->rows;
    for (int64_t first = begin; first < end; first += ROWS_AT_ONCE) {
        const int64_t count = least(ROWS_AT_ONCE, end - first);
        if (!known) NAME(read_rows)(task, b, first, count);
        for (int64_t restart = 0; restart < task->restarts; restart++) {
            if (!known) NAME(find_nearest)(task, b, restart);
            for (int64_t r = 0; r < count; r++) {
                const int64_t place = restart * task->number + first + r, best = known ? all->label[place] : b->best[r];
                all->nearest[place] = best;
                all->distance[place] = NAME(measure)(task, first + r, restart * task->clusters + best, points, none);
            }
        }
    }
}

/* -- the place that rows are measured from -------------------------------------------------------------------------- */

/* The greatest difference of a number of a row from the reference point, and NaN where one is not finite. */
static double NAME(reach)(const REAL *row, const double *reference, int64_t count, double most) {
    eight greatest = (eight){} + most, finite = {};
    int64_t f = 0;
    for (; f + 8 <= count; f += 8) {
        const eight away = NAME(widen)(row + f) - *(const eight *)(reference + f);
        const eight size = (eight)((eight_integers)away & INT64_MAX);
        const eight_integers greater = size > greatest;
        greatest = (eight)((greater & (eight_integers)size) | (~greater & (eight_integers)greatest));
        finite += away * 0.0;
    }
    for (int lane = 0; lane < 8; lane++) most = greatest[lane] > most ? greatest[lane] : most;
    for (; f < count; f++) {
        const double size = fabs((double)row[f] - reference[f]);
        most = size > most ? size : most, finite[0] += size * 0.0;
    }
    for (int lane = 0; lane < 8; lane++) most += finite[lane];
    return most;
}

/* Find the reference point and the scale of rows by the centroids and some of the rows; the former in `place` (2 D). */
static Rows NAME(framed)(const Iterate *all, double *place) {
    Rows rows = all->rows;
    const int64_t D = rows.features, number = rows.restarts * rows.clusters;
    const int64_t step = rows.number / least(256, 16 + 65536 / D); /* where rows are wide, few have numbers enough */
    REAL *rounded = (REAL *)(place + D);
    double size = 0.0;
    find_reference(all->centroids, number, D, place);
    for (int64_t f = 0; f < D; f++) rounded[f] = (REAL)place[f], place[f] = (double)rounded[f];
    for (int64_t i = 0; i < rows.number; i += step > 1 ? step : 1)
        size = NAME(reach)(NAME(row_at)(&rows, i), place, D, size);
    for (int64_t k = 0; k < number; k++)
        for (int64_t f = 0; f < D; f++) {
            const double away = fabs(all->centroids[k * D + f] - place[f]);
            size = away > size ? away : size;
        }
    *all->extent = size;
    rows.reference = rounded, rows.scale = unit_scale(size);
    return rows;
}

/* Centroids (R, K, D) as rows are, or the other way round. */
static void NAME(move_into)(const Rows *rows, const double *reference, double *centroids, int back) {
    const int64_t D = rows->features;
    for (int64_t k = 0; k < rows->restarts * rows->clusters; k++)
        for (int64_t f = 0; f < D; f++) {
            double *c = centroids + k * D + f;
            *c = back ? *c / rows->scale + reference[f] : (*c - reference[f]) * rows->scale;
        }
}

/* -- iterations ---------------------------------------------------------------------------------------------------- */

/* Move the rows of a block that have another nearest centroid than before from one sum to the other. */
static void NAME(move_rows)(const Iterate *all, NAME(Block) *b, int64_t restart, int64_t first, int64_t count, int64_t *sizes) {
    const Rows *task = &all->rows;
    int32_t *label = all->label + restart * task->number + first;
    double *sums = b->sums + restart * task->clusters * b->filled;
    for (int64_t r = 0; r < count; r++) {
        const int64_t before = label[r], now = b->best[r];
        if (before == now) continue;
        const REAL *row = b->flat + r * b->width;
        const double weight = task->weight ? task->weight[first + r] : 1.0;
        const int64_t counts = weight > 0;
        double *to = sums + now * b->filled, *from = sums + before * b->filled;
        if (before < 0) {
            for (int64_t f = 0; f < b->filled; f += 8) *(eight *)(to + f) += NAME(widen)(row + f) * weight;
        } else {
            for (int64_t f = 0; f < b->filled; f += 8) {
                const eight share = NAME(widen)(row + f) * weight;
                *(eight *)(to + f) += share;
                *(eight *)(from + f) -= share;
            }
            sizes[restart * task->clusters + before] -= counts;
        }
        sizes[restart * task->clusters + now] += counts;
        label[r] = (int32_t)now;
    }
}

/* What one thread adds to the sums in one iteration. */
static void NAME(sweep)(const Iterate *all, NAME(Block) *b, int64_t begin, int64_t end, int first_time, int64_t *sizes) {
    const Rows *task = &all->rows;
    for (int64_t first = begin; first < end; first += ROWS_AT_ONCE) {
        const int64_t count = least(ROWS_AT_ONCE, end - first);
        NAME(read_rows)(task, b, first, count);
        for (int64_t r = 0; r < count && first_time; r++) {
            const double weight = task->weight ? task->weight[first + r] : 1.0;
            b->norm[0] += weight * NAME(square)(b->flat + r * b->width, task->features);
        }
        for (int64_t restart = 0; restart < task->restarts; restart++) {
            if (all->at_rest[restart]) continue;
            NAME(find_nearest)(task, b, restart);
            NAME(move_rows)(all, b, restart, first, count, sizes);
        }
    }
}

/* Centroids as the rows' type has them, with what ends them. */
static void NAME(round_centroids)(const Iterate *all, REAL *to) {
    const int64_t D = all->rows.features, clusters = all->rows.restarts * all->rows.clusters;
    for (int64_t k = 0; k < clusters; k++) {
        double square = 0.0;
        for (int64_t f = 0; f < D; f++) {
            const REAL value = (REAL)all->centroids[k * D + f];
            to[k * (D + 1) + f] = value;
            square += (double)value * (double)value;
        }
        to[k * (D + 1) + D] = (REAL)(-0.5 * square);
    }
}

/* The part of the rows that a thread has, in whole blocks. */
static int64_t NAME(part)(const Iterate *all, int64_t thread) {
    const int64_t blocks = (all->rows.number + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    return least(blocks * thread / all->threads * ROWS_AT_ONCE, all->rows.number);
}

/* Nearest centroids and distances of all rows in the end, as of a span; `points` is room (R K, D + 1). */
static void NAME(label_all)(const Iterate *all, int known, NAME(Block) *b, REAL *rounded, REAL *packed, double *points) {
    const Rows *task = &all->rows;
    const REAL *reference = task->reference;
    const int64_t D = task->features, clusters = task->restarts * task->clusters;
    double *none = points + clusters * D;
    if (!known) NAME(round_centroids)(all, rounded), NAME(pack)(task, rounded, packed);
    for (int64_t k = 0; k < clusters; k++)
        for (int64_t f = 0; f < D; f++) points[k * D + f] = all->centroids[k * D + f] / task->scale + (double)reference[f];
    NAME(find_none)(task, points, none);
#pragma omp parallel for num_threads(all->threads) schedule(static, 1) if (all->threads > 1)
    for (int64_t t = 0; t < all->threads; t++)
        NAME(label_span)(all, known, &b[t], points, none, NAME(part)(all, t), NAME(part)(all, t + 1));
}

static int NAME(iterate_framed)(const Iterate *all) {
    const Rows *task = &all->rows;
    const int64_t D = task->features, clusters = task->restarts * task->clusters, threads = all->threads;
    NAME(Block) *b = calloc((size_t)threads, sizeof *b);
    int64_t *sizes = calloc((size_t)(threads * clusters), sizeof *sizes);
    REAL *packed = room(NAME(packed_size)(task) * sizeof(REAL)), *rounded = room(clusters * (D + 1) * sizeof(REAL));
    double *means = room(clusters * (D + 1) * sizeof(double)), *shift = room(task->restarts * sizeof(double));
    int failed = !b || !sizes || !packed || !rounded || !means || !shift;
    for (int64_t t = 0; t < threads && !failed; t++) failed = NAME(open_block)(task, &b[t]), b[t].packed = packed;
    for (int64_t i = 0; i < task->restarts * task->number && !failed; i++) all->label[i] = -1;
    int64_t step = 0, open = task->restarts;
    double limit = 0.0;
    for (; step < all->max_iter && open && !failed; step++) {
        NAME(round_centroids)(all, rounded);
        NAME(pack)(task, rounded, packed);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
        for (int64_t t = 0; t < threads; t++)
            NAME(sweep)(all, &b[t], NAME(part)(all, t), NAME(part)(all, t + 1), !step, sizes + t * clusters);
        int64_t empty = 0;
        for (int64_t k = 0; k < clusters; k++) {
            double *mean = means + k * (D + 1);
            if (all->at_rest[k / task->clusters]) continue;
            memset(mean, 0, (D + 1) * sizeof *mean);
            int64_t size = 0;
            for (int64_t t = 0; t < threads; t++) {
                size += sizes[t * clusters + k];
                for (int64_t f = 0; f <= D; f++) mean[f] += b[t].sums[k * b[t].filled + f];
            }
            all->empty[k] = !size, empty += !size;
        }
        if (!step) {
            double norm = 0.0;
            for (int64_t t = 0; t < threads; t++) norm += b[t].norm[0];
            limit = all->tolerance * mean_variance(task, means, norm);
        }
        if (!move_centroids(all, means, shift, limit, &open)) break; /* there are rows that are no numbers */
        if (empty) {
            step++;
            break;
        }
    }
    *all->num_iter = step;
    int known = !open && step; /* at rest to the last digit: the last iteration's labels */
    for (int64_t r = 0; r < task->restarts && known; r++) known = shift[r] == 0;
    if (!failed && (!open || step == all->max_iter)) NAME(label_all)(all, known, b, rounded, packed, means);
    for (int64_t t = 0; t < threads && b; t++) NAME(close_block)(&b[t]);
    free(b), free(sizes), free(packed), free(rounded), free(means), free(shift);
    return failed;
}

static int NAME(iterate)(const Iterate *task) {
    double *place = room(2 * task->rows.features * sizeof *place);
    Iterate all = *task;
    int failed = !place;
    if (!failed) all.rows = NAME(framed)(task, place);
    if (!failed && !strange(*task->extent)) {
        NAME(move_into)(&all.rows, place, all.centroids, 0);
        failed = NAME(iterate_framed)(&all);
        NAME(move_into)(&all.rows, place, all.centroids, 1);
    }
    free(place);
    return failed;
}

static int NAME(assign)(const Iterate *task) {
    const int64_t D = task->rows.features, clusters = task->rows.restarts * task->rows.clusters, T = task->threads;
    double *place = room(2 * D * sizeof *place), *points = room(clusters * (D + 1) * sizeof *points);
    NAME(Block) *b = calloc((size_t)T, sizeof *b);
    REAL *packed = room(NAME(packed_size)(&task->rows) * sizeof(REAL)), *rounded = room(clusters * (D + 1) * sizeof(REAL));
    Iterate all = *task;
    int failed = !place || !points || !b || !packed || !rounded;
    for (int64_t t = 0; t < T && !failed; t++) failed = NAME(open_block)(&task->rows, &b[t]), b[t].packed = packed;
    if (!failed) all.rows = NAME(framed)(task, place);
    if (!failed && !strange(*task->extent)) {
        NAME(move_into)(&all.rows, place, all.centroids, 0);
        NAME(label_all)(&all, 0, b, rounded, packed, points);
    }
    for (int64_t t = 0; t < T && b; t++) NAME(close_block)(&b[t]);
    free(place), free(points), free(b), free(packed), free(rounded);
    return failed;
}

/* The same by differences, whose digits no far centroid takes. */
static int NAME(assign_apart)(const Iterate *all) {
    const int64_t D = all->rows.features, K = all->rows.clusters, R = all->rows.restarts;
    double *place = room(2 * D * sizeof *place), *none = room(R * K * sizeof *none);
    const int failed = !place || !none;
    if (!failed) {
        const Rows rows = NAME(framed)(all, place);
        memset(place, 0, (size_t)(2 * D) * sizeof *place); /* nothing is measured from the reference point */
        NAME(find_none)(&rows, all->centroids, none);
    }
    for (int64_t r = 0; r < R && !failed && !strange(*all->extent); r++) {
        const double *centroids = all->centroids + r * K * D;
#pragma omp parallel for num_threads(all->threads) schedule(static, 1) if (all->threads > 1)
        for (int64_t t = 0; t < all->threads; t++)
            for (int64_t i = NAME(part)(all, t); i < NAME(part)(all, t + 1); i++) {
                const REAL *row = NAME(row_at)(&all->rows, i);
                double least = NAME(apart)(row, centroids, D);
                int64_t best = 0;
                for (int64_t k = 1; k < K; k++) {
                    const double distance = NAME(apart)(row, centroids + k * D, D);
                    if (distance < least) least = distance, best = k;
                }
                all->nearest[r * all->rows.number + i] = best;
                all->distance[r * all->rows.number + i] = least <= none[r * K + best] ? 0.0 : least;
            }
    }
    free(place), free(none);
    return failed;
}

#undef LANES
#undef ROWS_AT_ONCE
