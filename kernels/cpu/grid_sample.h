/* GridSample of images, fp32: pixels read between their centres, at places that an operand states.
 *
 *   y[n][c][oy][ox] = sum over taps i, j of down[i] * across[j] * x[n][c][row[i]][column[j]]
 *
 * grid[n][oy][ox] is (x, y); -1 and 1 are the image's edges, or the centres of its outermost pixels. A coordinate has
 * one tap (nearest, halves to even), two (linear) or four (cubic, Keys 1981 with a = -0.75). Beyond the image pixels
 * are 0, those at its edge, or its mirror images. The values are those of kernels/numpy/grid_sampling.py, coordinates
 * bit for bit: NaN counts as -1, and with reflection whatever is infinite or 2^63 pixels away.
 *
 * Coordinates are data: taps that are outside are left out, so that nothing outside is read, and a weight of 0 meets no
 * infinity there. The places of some points are computed at once and serve all channels: of images stored channels last
 * vectors of channels, of planes four points at a time, faster where their taps are next to each other.
 *
 * An item is (image, output row, some of its points). Rows that follow one another without gaps are one row.
 */
#ifndef FUSIBLE_GRID_SAMPLE_H
#define FUSIBLE_GRID_SAMPLE_H

#include "elements.h"
#include "four.h"

enum grid_padding { GRID_ZEROS, GRID_BORDER, GRID_REFLECTION };

#define GRID_POINTS 128             /* whose places are computed at once */
#define GRID_MARGIN 8               /* pixels beyond an image from which no tap reaches into it */
#define GRID_MOST_PIXELS (1L << 30) /* of a side; the numbers of taps are 32-bit */
#define GRID_ITEM 32768             /* multiplications that are worth an item */

/* Strides in floats. Either x_channel or x_pixel is 1, and y_channel or y_pixel. */
struct grid_sample {
    const float *x, *grid;
    float *y;
    long images, channels, height, width, out_height, out_width;
    long x_image, x_row, x_pixel, x_channel;
    long grid_image, grid_row, grid_pixel, grid_coordinate;
    long y_image, y_row, y_pixel, y_channel;
    int align_corners;
    long points_per_item; /* set by grid_sample_cut */
};

/* The taps of some points along both axes: numbers of pixels, -1 for one that is not there, and weights. plain: all
 * ones where the taps are neighbours inside the image. */
struct grid_places {
    int32_t row[4][GRID_POINTS], column[4][GRID_POINTS], plain[GRID_POINTS];
    float down[4][GRID_POINTS], across[4][GRID_POINTS];
};

/* A product that is rounded before it is used: contracted into a multiply-add it would make another coordinate. */
INLINE vf grid_rounded(vf product) {
    __asm__("" : "+m"(product));
    return product;
}

/* x mirrored at low and high until it lies between them. */
INLINE vf grid_reflected(vf x, float low, float high) {
    float span = high - low;
    if (!(span > 0.0f)) return vf_all(low);
    vi below = (vi)(x < vf_all(low)), above = (vi)(x > vf_all(high));
    vf beyond = vf_select(below, low - x, vf_select(above, x - high, (vf){0}));
    vf times = vf_floor(beyond / span), rest = beyond - grid_rounded(times * span);
    vi even = (vi)(times - 2.0f * vf_floor(times * 0.5f) == (vf){0});
    vf found = vf_select((vi)(below == even), low + rest, high - rest);
    return vf_select(below | above, found, x);
}

/* The coordinates in pixels of numbers between -1 and 1, pulled into an axis of `size` pixels. */
INLINE vf grid_position(const int taps, const int padding, int align_corners, vf at, long size) {
    float pixels = (float)size, last = (float)(size - 1), margin = align_corners ? 0.0f : 0.5f;
    vf x = align_corners ? grid_rounded((at + 1.0f) * 0.5f * last) : (grid_rounded((at + 1.0f) * pixels) - 1.0f) * 0.5f;
    vi known = padding == GRID_REFLECTION ? (vi)(vf_abs(x) < vf_all(0x1p63f)) : (vi)(x == x);
    x = vf_select(known, x, vf_all(0.0f - margin));
    if (taps == 1) x = vf_round(x);
    if (padding == GRID_REFLECTION) return grid_reflected(x, 0.0f - margin, last + margin);
    /* The border acts on each tap of a cubic; what is infinite has no fraction and goes where no tap sees the image. */
    int is_pulled = padding == GRID_BORDER && taps != 4;
    vf most = vf_all(is_pulled ? last : (float)(size + GRID_MARGIN));
    return vf_min_number(vf_max_number(x, vf_all(is_pulled ? 0.0f : -(float)GRID_MARGIN)), most);
}

/* Numbers of pixels mirrored into 0 .. size - 1. Positions lie between the mirrors already, and taps near them: one
 * mirror on each side is enough. A huge position may have left too much, and is then pulled to 4 pixels outside; but
 * only along an axis of 7 pixels or more, for n / m * m = n if m is a sum of two powers of two, as rounded as it is. */
INLINE vi grid_mirrored(vi number, long size, int align_corners) {
    vu first = (vu)vi_all(align_corners ? 0 : -1), last = (vu)vi_all((int32_t)(2 * size - (align_corners ? 2 : 1)));
    vi most = vi_all((int32_t)(size - 1));
    number = vi_select((vi)(number < (vi){0}), (vi)(first - (vu)number), number);
    number = vi_select((vi)(number > most), (vi)(last - (vu)number), number);
    number = vi_select((vi)(number < (vi){0}), (vi){0}, number);
    return vi_select((vi)(number > most), most, number);
}

/* The number of a tap, as the padding has it; -1 for none. */
INLINE vi grid_tap(const int padding, int align_corners, vi number, long size) {
    vi most = vi_all((int32_t)(size - 1));
    vi before = (vi)(number < (vi){0}), behind = (vi)(number > most);
    if (padding == GRID_REFLECTION) return grid_mirrored(number, size, align_corners);
    if (padding == GRID_ZEROS) return number | before | behind;
    return vi_select(before, (vi){0}, vi_select(behind, most, number));
}

/* Keys' filter at a distance of up to 1, and of 1 to 2. */
INLINE vf grid_cubic_near(vf d) { return ((-0.75f + 2.0f) * d - (-0.75f + 3.0f)) * d * d + 1.0f; }
INLINE vf grid_cubic_far(vf d) { return ((-0.75f * d + 5.0f * 0.75f) * d - 8.0f * 0.75f) * d + 4.0f * 0.75f; }

INLINE vf grid_weight(const int taps, int tap, vf fraction) {
    if (taps == 2) return tap ? fraction : 1.0f - fraction;
    return tap == 0   ? grid_cubic_far(fraction + 1.0f)
           : tap == 1 ? grid_cubic_near(fraction)
           : tap == 2 ? grid_cubic_near(1.0f - fraction)
                      : grid_cubic_far(2.0f - fraction);
}

/* The taps of a vector of points along one axis, one GRID_POINTS behind the other; where all of them are plain. */
INLINE vi grid_axis(const int taps, const int padding, int align_corners, vf at, long size, int32_t *number,
                    float *weight) {
    vf x = grid_position(taps, padding, align_corners, at, size), low = vf_floor(x), fraction = x - low;
    low = vf_min_number(vf_max_number(low, vf_all(-4.0f)), vf_all((float)(size + 4)));
    vi base = vf_to_int(low) - vi_all(taps == 4);
    UNROLL for (int tap = 0; tap < taps; tap++) {
        vi_store(number + tap * GRID_POINTS, grid_tap(padding, align_corners, base + vi_all(tap), size));
        if (taps > 1) vf_store(weight + tap * GRID_POINTS, grid_weight(taps, tap, fraction));
    }
    return (vi)(base >= (vi){0}) & (vi)(base <= vi_all((int32_t)(size - taps)));
}

/* `lanes` coordinates, and zeros. */
INLINE vf grid_load_step(const float *from, long step, long lanes) {
    if (lanes == VL) return step == 2 ? vf_load_step(from, 2, VL) : vf_load_step(from, step, VL);
    float some[VL] = {0};
    for (long lane = 0; lane < lanes; lane++) some[lane] = from[lane * step];
    return vf_load(some);
}

/* `count` points from `at` on, in a row of the grid. */
INLINE void grid_find(const int taps, const int padding, const struct grid_sample *g, const float *at, long count,
                      struct grid_places *p) {
    for (long n = 0; n < count; n += VL) {
        long lanes = long_min(VL, count - n);
        const float *from = at + n * g->grid_pixel;
        vf x = grid_load_step(from, g->grid_pixel, lanes);
        vf y = grid_load_step(from + g->grid_coordinate, g->grid_pixel, lanes);
        vi plain = grid_axis(taps, padding, g->align_corners, x, g->width, p->column[0] + n, p->across[0] + n);
        plain &= grid_axis(taps, padding, g->align_corners, y, g->height, p->row[0] + n, p->down[0] + n);
        vi_store(p->plain + n, plain);
    }
}

/* The taps of point `n` that are there: offsets in an image or plane, and weights. Returns their number. */
INLINE long grid_taps(const int taps, const int padding, const struct grid_sample *g, const struct grid_places *p,
                      long n, long *offset, float *weight) {
    long count = 0;
    *offset = 0;
    UNROLL for (int i = 0; i < taps; i++)
        UNROLL for (int j = 0; j < taps; j++) {
            long row = p->row[i][n], column = p->column[j][n];
            if (padding == GRID_ZEROS && (row < 0 || column < 0)) continue;
            offset[count] = row * g->x_row + column * g->x_pixel;
            if (taps > 1) weight[count] = p->down[i][n] * p->across[j][n];
            count++;
        }
    return count;
}

/* `lanes` channels of a point, from x on, channels being next to each other. */
INLINE vf grid_channels(const int taps, const float *x, const long *offset, const float *weight, long count,
                        long lanes) {
    if (taps == 1) return count ? vf_load_first(x + *offset, lanes) : (vf){0};
    vf sum = {0};
    if (count == taps * taps) {
        UNROLL for (int k = 0; k < taps * taps; k++) sum += vf_load_first(x + offset[k], lanes) * weight[k];
    } else {
        for (long k = 0; k < count; k++) sum += vf_load_first(x + offset[k], lanes) * weight[k];
    }
    return sum;
}

/* Points of an image that is stored channels last, and so is the result. */
INLINE void grid_points_last(const int taps, const int padding, const struct grid_sample *g,
                             const struct grid_places *p, const float *x, float *y, long count) {
    for (long n = 0; n < count; n++, y += g->y_pixel) {
        long offset[16], c = 0;
        float weight[16];
        long found = grid_taps(taps, padding, g, p, n, offset, weight);
        for (; c + VL <= g->channels; c += VL)
            vf_store(y + c, grid_channels(taps, x + c, offset, weight, found, VL));
        if (c < g->channels) {
            long lanes = g->channels - c;
            vf_store_first(y + c, grid_channels(taps, x + c, offset, weight, found, lanes), lanes);
        }
    }
}

#define GRID_TURNED 16 /* points that make a cache line of a plane */

/* Vectors of the channels of some points, [GRID_TURNED][VL], to planes, of which cache lines are written whole: planes
 * are often a power of two apart, and few of such lines stay in L1. */
INLINE void grid_store_turned(const float *tile, float *y, long y_channel, long points, long lanes) {
    for (long lane = 0; lane < lanes; lane += 4)
        for (long n = 0; n < points; n += 4) {
            const float *from = tile + n * VL + lane;
            float *to = y + lane * y_channel + n;
            if (lane + 4 <= lanes && n + 4 <= points) {
                four_transpose(from, VL, to, y_channel);
                continue;
            }
            for (long i = 0; i < long_min(4, lanes - lane); i++)
                for (long k = 0; k < long_min(4, points - n); k++) to[i * y_channel + k] = from[k * VL + i];
        }
}

/* Points of an image that is stored channels last, for a result of planes. */
INLINE void grid_points_turned(const int taps, const int padding, const struct grid_sample *g,
                               const struct grid_places *p, const float *x, float *y, long count) {
    long offset[GRID_TURNED][16], found[GRID_TURNED];
    float weight[GRID_TURNED][16];
    _Alignas(64) float tile[GRID_TURNED * VL];
    for (long n = 0; n < count; n += GRID_TURNED) {
        long points = long_min(GRID_TURNED, count - n);
        for (long k = 0; k < points; k++) found[k] = grid_taps(taps, padding, g, p, n + k, offset[k], weight[k]);
        for (long c = 0; c < g->channels; c += VL) {
            long lanes = long_min(VL, g->channels - c);
            for (long k = 0; k < points; k++)
                vf_store(tile + k * VL, grid_channels(taps, x + c, offset[k], weight[k], found[k], lanes));
            grid_store_turned(tile, y + c * g->y_channel + n, g->y_channel, points, lanes);
        }
    }
}

/* All channels of one point of planes. */
INLINE void grid_point_planes(const int taps, const int padding, const struct grid_sample *g,
                              const struct grid_places *p, const float *x, float *y, long n) {
    long offset[16];
    float weight[16];
    long count = grid_taps(taps, padding, g, p, n, offset, weight);
    for (long c = 0; c < g->channels; c++) {
        const float *plane = x + c * g->x_channel;
        float sum = taps == 1 && count ? plane[*offset] : 0.0f;
        for (long k = 0; taps > 1 && k < count; k++) sum += plane[offset[k]] * weight[k];
        y[n * g->y_pixel + c * g->y_channel] = sum;
    }
}

/* Four plain points, in the order in which planes want them. Linear: the weights of two pixels of a row next to each
 * other for two points, of upper rows and then of lower rows. Cubic: those across of each point. */
struct grid_group {
    long at[4];
    four weight[4];
};

INLINE void grid_group_of(const int taps, const struct grid_sample *g, const struct grid_places *p, long n,
                          struct grid_group *group) {
    UNROLL for (int i = 0; i < 4; i++) {
        group->at[i] = p->row[0][n + i] * g->x_row + p->column[0][n + i];
        if (taps == 4)
            group->weight[i] = (four){p->across[0][n + i], p->across[1][n + i], p->across[2][n + i],
                                           p->across[3][n + i]};
    }
    if (taps != 2) return;
    UNROLL for (int i = 0; i < 4; i++) {
        const float *down = p->down[i % 2] + n + i / 2 * 2, *before = p->across[0] + n + i / 2 * 2;
        const float *behind = before + GRID_POINTS;
        group->weight[i] = (four){down[0] * before[0], down[0] * behind[0], down[1] * before[1],
                                       down[1] * behind[1]};
    }
}

/* Four points of one plane; `n` is that of the first among all points. */
INLINE four grid_four_points(const int taps, const struct grid_sample *g, const struct grid_places *p,
                                  const struct grid_group *group, const float *plane, long n) {
    const float *a = plane + group->at[0], *b = plane + group->at[1], *c = plane + group->at[2];
    const float *d = plane + group->at[3];
    if (taps == 1) return (four){*a, *b, *c, *d};
    if (taps == 2) {
        long row = g->x_row;
        four ab = four_load_halves(a, b) * group->weight[0] + four_load_halves(a + row, b + row) * group->weight[1];
        four cd = four_load_halves(c, d) * group->weight[2] + four_load_halves(c + row, d + row) * group->weight[3];
        return four_pair_sums(ab, cd);
    }
    four sum[4];
    UNROLL for (int i = 0; i < 4; i++) {
        const float *from = plane + group->at[i];
        four down = {0};
        UNROLL for (int k = 0; k < 4; k++) down += four_load(from + k * g->x_row) * p->down[k][n + i];
        sum[i] = down * group->weight[i];
    }
    return four_pair_sums(four_pair_sums(sum[0], sum[1]), four_pair_sums(sum[2], sum[3]));
}

INLINE void grid_store_four(float *y, long step, four value) {
    if (step == 1) four_store(y, value);
    else
        UNROLL for (int i = 0; i < 4; i++) y[i * step] = value[i];
}

/* Four points whose taps lie anywhere, in all channels: tap by tap, and 0 where there is none. */
INLINE void grid_loose_planes(const int taps, const int padding, const struct grid_sample *g,
                              const struct grid_places *p, const float *x, float *y, long n) {
    long at[16][4];
    four weight[16];
    four_mask there[16];
    UNROLL for (int k = 0; k < taps * taps; k++) {
        const int32_t *row = p->row[k / taps] + n, *column = p->column[k % taps] + n;
        const float *down = p->down[k / taps] + n, *across = p->across[k % taps] + n;
        int32_t is_there[4];
        UNROLL for (int i = 0; i < 4; i++) {
            is_there[i] = padding != GRID_ZEROS || (row[i] >= 0 && column[i] >= 0) ? -1 : 0;
            at[k][i] = is_there[i] ? row[i] * g->x_row + column[i] : 0;
        }
        there[k] = (four_mask){is_there[0], is_there[1], is_there[2], is_there[3]};
        if (taps > 1) weight[k] = four_load(down) * four_load(across);
    }
    for (long c = 0; c < g->channels; c++) {
        const float *plane = x + c * g->x_channel;
        four sum = {0};
        UNROLL for (int k = 0; k < taps * taps; k++) {
            four value = {plane[at[k][0]], plane[at[k][1]], plane[at[k][2]], plane[at[k][3]]};
            if (padding == GRID_ZEROS) value = (four)((four_mask)value & there[k]);
            sum = taps > 1 ? sum + value * weight[k] : value;
        }
        grid_store_four(y + n * g->y_pixel + c * g->y_channel, g->y_pixel, sum);
    }
}

/* Points of an image that is stored plane by plane. */
INLINE void grid_points_planes(const int taps, const int padding, const struct grid_sample *g,
                               const struct grid_places *p, const float *x, float *y, long count) {
    struct grid_group group[GRID_POINTS / 4];
    long first[GRID_POINTS / 4], groups = 0, n = 0;
    for (; n + 4 <= count && g->height && g->width; n += 4) {
        const int32_t *plain = p->plain + n;
        if (plain[0] & plain[1] & plain[2] & plain[3]) {
            grid_group_of(taps, g, p, n, group + groups);
            first[groups++] = n;
        } else {
            grid_loose_planes(taps, padding, g, p, x, y, n);
        }
    }
    for (; n < count; n++) grid_point_planes(taps, padding, g, p, x, y, n);
    for (long c = 0; c < g->channels; c++)
        for (long k = 0; k < groups; k++) {
            four value = grid_four_points(taps, g, p, group + k, x + c * g->x_channel, first[k]);
            grid_store_four(y + c * g->y_channel + first[k] * g->y_pixel, g->y_pixel, value);
        }
}

/* Whether there are pixels for what is to be computed. */
INLINE int grid_sample_fits(const int padding, const struct grid_sample *g) {
    if (g->images * g->channels == 0 || g->out_height * g->out_width == 0) return 1;
    if (g->height > GRID_MOST_PIXELS || g->width > GRID_MOST_PIXELS) return 0;
    return padding == GRID_ZEROS || (g->height > 0 && g->width > 0);
}

/* Cut the work for a number of threads. */
INLINE void grid_sample_cut(const int taps, struct grid_sample *g, long threads) {
    if (g->grid_row == g->out_width * g->grid_pixel && g->y_row == g->out_width * g->y_pixel) {
        g->out_width *= g->out_height;
        g->out_height = 1;
    }
    long rows = long_max(1, g->images * g->out_height), least = GRID_ITEM / (taps * taps * long_max(1, g->channels));
    long parts = threads > 1 ? (4 * threads + rows - 1) / rows : 1, wanted = g->out_width / parts + 1;
    g->points_per_item = (long_max(wanted, least) / GRID_POINTS + 1) * GRID_POINTS;
}

INLINE long grid_sample_parts(const struct grid_sample *g) {
    return (g->out_width + g->points_per_item - 1) / g->points_per_item;
}
INLINE long grid_sample_items(const struct grid_sample *g) {
    return g->channels ? g->images * g->out_height * grid_sample_parts(g) : 0;
}

/* Compute item 0 <= item < grid_sample_items(g). taps (1, 2 or 4), padding and planes (1 if x_pixel is 1, 0 if
 * x_channel is) are literals. */
INLINE void grid_sample_item(const int taps, const int padding, const int planes, const struct grid_sample *g,
                             long item) {
    long parts = grid_sample_parts(g), row = item / parts, ox = item % parts * g->points_per_item;
    long image = row / g->out_height, oy = row % g->out_height, end = long_min(ox + g->points_per_item, g->out_width);
    struct grid_places places;
    for (; ox < end; ox += GRID_POINTS) {
        long count = long_min(GRID_POINTS, end - ox);
        const float *at = g->grid + image * g->grid_image + oy * g->grid_row + ox * g->grid_pixel;
        const float *x = g->x + image * g->x_image;
        float *y = g->y + image * g->y_image + oy * g->y_row + ox * g->y_pixel;
        grid_find(taps, padding, g, at, count, &places);
        if (planes) grid_points_planes(taps, padding, g, &places, x, y, count);
        else if (g->y_pixel == 1) grid_points_turned(taps, padding, g, &places, x, y, count);
        else grid_points_last(taps, padding, g, &places, x, y, count);
    }
}

#endif
