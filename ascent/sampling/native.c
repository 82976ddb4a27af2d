/* What stands between the matrix products of a token's way through the layers, one pass over the memory each.

   Compiled for this machine when it is first needed, once for float and once for double (NUMBER, DEGREE); `native.py`
   lays everything out and calls it. Vectors are the compiler's own, so there is nothing here for one processor. */

#include <math.h>
#include <stdint.h>

#define BYTES 64
#define LANES (BYTES / sizeof(NUMBER))

typedef NUMBER vec __attribute__((vector_size(BYTES), aligned(sizeof(NUMBER)), may_alias));
typedef __typeof__((vec){0} < (vec){0}) ivec;

/* P prompts, B rows, A query heads, K key heads of size D; a block is LANES tokens. */
typedef struct {
    int64_t rows, heads, groups, size, width, inner; /* B, A, K, D, of the stream, of the feed-forward */
    int64_t used, prompt_blocks, own_blocks;         /* own tokens so far; room for tokens, in blocks */
    double scaling, least, epsilon;                  /* of scores; H epsilon of a folded norm; epsilon of a head's norm */
    const int64_t *owner, *slot, *place;             /* [B] number of the prompt, of the row's memory, of the token */
    const int64_t *length;                           /* [P] tokens of a prompt */
    const NUMBER *cosine, *sine;                     /* [places, D], the sine with the sign of the half it turns */
    NUMBER *flow, *normed, *qkv, *seen, *wide, *gated;
    NUMBER *scores;                                  /* [(prompt_blocks + own_blocks) LANES] */
} Batch;

typedef struct {
    const NUMBER *prompt_keys, *prompt_values; /* [P, K, blocks, D, LANES], [P, K, blocks LANES, D] */
    NUMBER *keys, *values;                     /* [slots, K, blocks, D, LANES], [slots, K, blocks LANES, D] */
    const NUMBER *query_norm, *key_norm;       /* [D] or null */
} Memory;

static inline vec all(NUMBER number) { return number - (vec){0}; }

static inline vec chosen(ivec where, vec yes, vec no) { return (vec)(((ivec)yes & where) | ((ivec)no & ~where)); }

static inline NUMBER total(vec x) {
    NUMBER sum = 0;
    for (unsigned lane = 0; lane < LANES; lane++) sum += x[lane];
    return sum;
}

/* exp, between the smallest and the largest normal number: 2^n times the Taylor series of what is left of x. */
static inline vec exponential(vec x) {
    const int single = sizeof(NUMBER) == 4;
    const NUMBER limit = single ? 87 : 708;
    x = chosen(x < all(-limit), all(-limit), x);
    x = chosen(x > all(limit), all(limit), x);
    /* Adding it leaves a rounded integer in the lowest bits. */
    const vec magic = all((NUMBER)(single ? 0x1.8p23 : 0x1.8p52));
    const vec shifted = x * all((NUMBER)M_LOG2E) + magic, whole = shifted - magic;
    /* log 2 in two parts, the first so short that its products are exact. */
    const double high = single ? 0x1.62ep-1 : 0x1.62e42feep-1;
    const double low = single ? 0x1.0bfbe8e7bcp-15 : 0x1.a39ef35793c76p-33;
    const vec rest = (x - whole * all((NUMBER)high)) - whole * all((NUMBER)low);
    vec series = all(1);
    for (int term = DEGREE; term > 0; term--) series = all(1) + series * rest * all((NUMBER)1 / term);
    const ivec power = (ivec)shifted << (single ? 23 : 52);
    return (vec)((ivec)series + power);
}

/* [B, H] x / |x|, where |x|^2 has `least` added; times `weight` where it is not folded into the next matrix. */
void normalise(const Batch *b, const NUMBER *weight) {
    const int64_t blocks = b->width / LANES;
    for (int64_t row = 0; row < b->rows; row++) {
        const vec *x = (const vec *)(b->flow + row * b->width);
        vec *out = (vec *)(b->normed + row * b->width);
        vec square = {0};
        for (int64_t i = 0; i < blocks; i++) square += x[i] * x[i];
        const vec scale = all((NUMBER)(1 / sqrt((double)total(square) + b->least)));
        for (int64_t i = 0; i < blocks; i++) out[i] = weight ? x[i] * scale * ((const vec *)weight)[i] : x[i] * scale;
    }
}

/* [B, F] silu(gate) up, of [B, 2 F] gate and up. */
void gate(const Batch *b) {
    const int64_t blocks = b->inner / LANES;
    for (int64_t row = 0; row < b->rows; row++) {
        const vec *gates = (const vec *)(b->wide + row * 2 * b->inner), *up = gates + blocks;
        vec *out = (vec *)(b->gated + row * b->inner);
        for (int64_t i = 0; i < blocks; i++) out[i] = gates[i] * up[i] / (all(1) + exponential(-gates[i]));
    }
}

static void head_norm(NUMBER *x, const NUMBER *weight, int64_t size, double epsilon) {
    vec square = {0};
    for (int64_t i = 0; i < size / (int64_t)LANES; i++) square += ((vec *)x)[i] * ((vec *)x)[i];
    const NUMBER scale = 1 / sqrt((double)total(square) / size + epsilon);
    for (int64_t i = 0; i < size; i++) x[i] *= scale * weight[i];
}

static void rotate(NUMBER *x, const NUMBER *cosine, const NUMBER *sine, int64_t size) {
    const int64_t half = size / 2;
    for (int64_t i = 0; i < half; i++) {
        const NUMBER first = x[i], second = x[i + half];
        x[i] = first * cosine[i] + second * sine[i];
        x[i + half] = second * cosine[i + half] + first * sine[i + half];
    }
}

/* Scores of one query on `count` keys [blocks, D, LANES]; places behind them say -inf. */
static void score(const NUMBER *query, const NUMBER *keys, int64_t count, int64_t size, NUMBER *scores) {
    for (int64_t first = 0; first < count; first += LANES, keys += size * LANES) {
        const vec *key = (const vec *)keys;
        vec sum[4] = {{0}, {0}, {0}, {0}};
        for (int64_t i = 0; i < size; i += 4)
            for (int part = 0; part < 4; part++) sum[part] += query[i + part] * key[i + part];
        *(vec *)(scores + first) = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
    for (int64_t place = count; place % LANES; place++) scores[place] = -INFINITY;
}

/* seen += sum of share_t value_t over `count` values [count, D]. */
static void mix(const NUMBER *share, const NUMBER *values, int64_t count, int64_t size, NUMBER *seen) {
    for (int64_t column = 0; column < size; column += LANES) {
        const NUMBER *value = values + column;
        vec sum[4] = {*(vec *)(seen + column), {0}, {0}, {0}};
        int64_t t = 0;
        for (; t + 4 <= count; t += 4)
            for (int part = 0; part < 4; part++) sum[part] += share[t + part] * *(const vec *)(value + (t + part) * size);
        for (; t < count; t++) sum[0] += share[t] * *(const vec *)(value + t * size);
        *(vec *)(seen + column) = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
}

/* Ask for memory before it is needed: the processor's own guess begins anew with each row. */
static inline void ahead(const NUMBER *from, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) __builtin_prefetch(from + i, 0, 2);
}

/* Rotates queries and keys, remembers the present token, and writes what each row sees into `seen` [B, A D]. */
void attend(const Batch *b, const Memory *m) {
    const int64_t size = b->size, heads = b->heads, groups = b->groups, whole = heads + 2 * groups;
    const int64_t prompt_room = b->prompt_blocks * LANES * size, own_room = b->own_blocks * LANES * size;
    for (int64_t row = 0; row < b->rows; row++) {
        NUMBER *qkv = b->qkv + row * whole * size;
        const NUMBER *cosine = b->cosine + b->place[row] * size, *sine = b->sine + b->place[row] * size;
        for (int64_t head = 0; head < heads + groups; head++) {
            NUMBER *x = qkv + head * size;
            const NUMBER *norm = head < heads ? m->query_norm : m->key_norm;
            if (norm) head_norm(x, norm, size, b->epsilon);
            rotate(x, cosine, sine, size);
            for (int64_t i = 0; head < heads && i < size; i++) x[i] *= b->scaling;
        }
    }
    const int64_t own = b->used + 1, block = b->used / LANES, lane = b->used % LANES;
    /* Group by group, so that the rows of a prompt find its keys in the nearest cache. */
    for (int64_t group = 0; group < groups; group++)
        for (int64_t row = 0; row < b->rows; row++) {
            const NUMBER *qkv = b->qkv + row * whole * size;
            const NUMBER *key = qkv + (heads + group) * size, *value = key + groups * size;
            const int64_t at = b->slot[row] * groups + group, before = b->owner[row] * groups + group;
            NUMBER *keys = m->keys + at * own_room, *values = m->values + at * own_room;
            for (int64_t i = 0; i < size; i++) keys[(block * size + i) * LANES + lane] = key[i];
            for (int64_t i = 0; i < size; i++) values[b->used * size + i] = value[i];
            const int64_t length = b->length[b->owner[row]], gap = (length + LANES - 1) / LANES * LANES;
            const int64_t end = gap + (own + LANES - 1) / LANES * LANES;
            ahead(values, b->used * size);
            if (row + 1 < b->rows) ahead(m->keys + (b->slot[row + 1] * groups + group) * own_room, own * size);
            for (int64_t head = group * (heads / groups); head < (group + 1) * (heads / groups); head++) {
                const NUMBER *query = qkv + head * size;
                NUMBER *seen = b->seen + (row * heads + head) * size;
                score(query, m->prompt_keys + before * prompt_room, length, size, b->scores);
                score(query, keys, own, size, b->scores + gap);
                vec *scores = (vec *)b->scores, most = scores[0], sum = {0};
                for (int64_t i = 1; i < end / (int64_t)LANES; i++) most = chosen(scores[i] > most, scores[i], most);
                NUMBER highest = most[0];
                for (unsigned i = 1; i < LANES; i++) highest = most[i] > highest ? most[i] : highest;
                for (int64_t i = 0; i < end / (int64_t)LANES; i++) sum += scores[i] = exponential(scores[i] - highest);
                for (int64_t i = 0; i < size; i++) seen[i] = 0;
                mix(b->scores, m->prompt_values + before * prompt_room, length, size, seen);
                mix(b->scores + gap, values, own, size, seen);
                const NUMBER share = 1 / total(sum);
                for (int64_t i = 0; i < size; i++) seen[i] *= share;
            }
        }
}
