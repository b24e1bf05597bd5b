// Causal attention inside each row of a packed pass. A row may have a parent, which holds the tokens before its own. A
// task is one row without a parent, its children, and one key-value head; the scores of a block of queries exist at
// once, so memory grows with the length, not with its square. The backward pass makes the probabilities anew from the
// forward pass's log-sum-exp (Dao et al. 2022, arXiv 2205.14135, section 3.1).
#pragma once

#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "simd.hpp"

namespace {

constexpr int64_t kQueries = 32, kTile = 32;

// A block of queries, [first, stop) of a row that has `before` tokens before its own; they may look at keys [low, high).
struct Block {
    int64_t first, stop, before, low, high;
};

// What one thread works on: keys, values and their gradients [line, dp], queries, gradients of the output, the output
// and gradients of queries [32, dp], and scores [32, line]. Lines and widths are whole tiles; keys behind a row's end
// and queries behind a block's are zero.
template <class C> struct Buffers {
    Aligned<C> memory;
    int64_t line = 0, dp = 0;
    C *k, *v, *dk, *dv, *q, *grad, *out, *dq, *scores, *dscores;

    // Makes room, and returns `more` numbers beside what is named above.
    C* fit(int64_t length, int64_t d, size_t more_keys, size_t more_queries, size_t more_scores) {
        line = round_up(length, kTile), dp = round_up(d, kTile);
        const size_t keys = line * dp, queries = kQueries * dp, square = kQueries * line;
        const size_t needed = (4 + more_keys) * keys + (4 + more_queries) * queries + (2 + more_scores) * square;
        C* at = memory.fit(needed);
        for (C** part : {&k, &v, &dk, &dv}) *part = at, at += keys;
        for (C** part : {&q, &grad, &out, &dq}) *part = at, at += queries;
        for (C** part : {&scores, &dscores}) *part = at, at += square;
        if (d < dp) {  // the features behind a token's own are never written
            for (C* part : {k, v}) std::fill_n(part, keys, C(0));
            for (C* part : {q, grad}) std::fill_n(part, queries, C(0));
        }
        return at;
    }
};

// C[8, 32] (+)= A[8, k] B[k, 32]; element (i, p) of A lies at a[i * a_row + p * a_col]. The sums stay in registers.
template <class C>
void product_tile(int64_t k, const C* a, int64_t a_row, int64_t a_col, const C* b, int64_t ldb, C* c, int64_t ldc,
                  bool add) {
    lanes_t<C> sums[8][2] = {};
    for (int64_t p = 0; p < k; ++p) {
        const lanes_t<C> left = load(b + p * ldb), right = load(b + p * ldb + kLanes);
        for (int64_t r = 0; r < 8; ++r) {
            sums[r][0] += a[r * a_row + p * a_col] * left;
            sums[r][1] += a[r * a_row + p * a_col] * right;
        }
    }
    for (int64_t r = 0; r < 8; ++r)
        for (int64_t t = 0; t < 2; ++t) {
            C* to = c + r * ldc + t * kLanes;
            store(to, add ? load(to) + sums[r][t] : sums[r][t]);
        }
}

// The six products of attention in the numbers' own precision.
template <class C> struct Plain : Buffers<C> {
    C *k_t, *v_t;  // transposes in panels of 32 keys [line / 32, dp, 32], so that a tile reads one stretch of memory

    void fit(int64_t length, int64_t d) {
        k_t = Buffers<C>::fit(length, d, 2, 0, 0), v_t = k_t + this->line * this->dp;
    }
    // C[m, n] (+)= A B, m a multiple of 8 and n of 32; B has its panels of 32 columns `panel` apart.
    static void product(int64_t m, int64_t n, int64_t k, const C* a, int64_t a_row, int64_t a_col, const C* b,
                        int64_t ldb, int64_t panel, C* c, int64_t ldc, bool add) {
        for (int64_t j = 0; j < n; j += kTile)
            for (int64_t i = 0; i < m; i += 8)
                product_tile(k, a + i * a_row, a_row, a_col, b + j / kTile * panel, ldb, c + i * ldc + j, ldc, add);
    }
    void keys_ready(int64_t first, int64_t stop, bool backward) {
        const int64_t dp = this->dp;
        for (int64_t j = first; j < stop; ++j)
            for (int64_t e = 0; e < dp; ++e) {
                const int64_t to = (j / kTile * dp + e) * kTile + j % kTile;
                k_t[to] = this->k[j * dp + e];
                if (backward) v_t[to] = this->v[j * dp + e];
            }
    }
    void queries_ready(bool) {}
    // Where the probabilities of one query go, 16 at a time. (By value: a vector may be written over anything, so that
    // the compiler would read the pointers of this object anew for each.)
    struct Sink {
        C* p;
        void put(int64_t j, lanes_t<C> x) const { store(p + j, x); }
    };
    // The same and the scores' gradients, of two queries.
    struct PairSink {
        C *p, *next_p, *ds, *next_ds;
        void put(int64_t j, lanes_t<C> a, lanes_t<C> next_a, lanes_t<C> x, lanes_t<C> next_x) const {
            store(p + j, a), store(next_p + j, next_a), store(ds + j, x), store(next_ds + j, next_x);
        }
    };
    Sink sink(int64_t i) const { return {this->scores + i * this->line}; }
    PairSink pair_sink(int64_t i) const {
        C *p = this->scores + i * this->line, *ds = this->dscores + i * this->line;
        return {p, p + this->line, ds, ds + this->line};
    }
    void key_gradients_ready(int64_t, int64_t) {}
    void clear_key_gradients(int64_t first, int64_t stop) {
        for (C* part : {this->dk, this->dv}) std::fill(part + first * this->dp, part + stop * this->dp, C(0));
    }
    void make_scores(const Block& b) {
        product(kQueries, b.high - b.low, this->dp, this->q, this->dp, 1, k_t + b.low * this->dp, kTile,
                this->dp * kTile, this->scores + b.low, this->line, false);
    }
    void make_dscores(const Block& b) {
        product(kQueries, b.high - b.low, this->dp, this->grad, this->dp, 1, v_t + b.low * this->dp, kTile,
                this->dp * kTile, this->dscores + b.low, this->line, false);
    }
    void make_out(const Block& b) {
        product(kQueries, this->dp, b.high - b.low, this->scores + b.low, this->line, 1, this->v + b.low * this->dp,
                this->dp, kTile, this->out, this->dp, false);
    }
    void make_gradients(const Block& b) {
        const int64_t keys = b.high - b.low, dp = this->dp, line = this->line;
        const C *p = this->scores + b.low, *ds = this->dscores + b.low;
        product(kQueries, dp, keys, ds, line, 1, this->k + b.low * dp, dp, kTile, this->dq, dp, false);
        product(keys, dp, kQueries, ds, 1, line, this->q, dp, kTile, this->dk + b.low * dp, dp, true);
        product(keys, dp, kQueries, p, 1, line, this->grad, dp, kTile, this->dv + b.low * dp, dp, true);
    }
};

#ifdef LORASCOPE_TILES

// 16 pairs of bfloat16, each in one word: the first in its low half.
inline words paired(floats first, floats second) { return widened(rounded(first)) | widened(rounded(second)) << 16; }

// The six products on the tile unit: bfloat16 in, float32 sums (Intel's AMX, which multiplies 16 x 32 by 32 x 16 at
// once). Its right-hand operand has two rows in one: word (p, j) holds B[2p, j] and B[2p + 1, j].
struct Tiles : TileSetup, Buffers<float> {
    uint32_t *k_rows, *v_rows;    // [line, dp / 2] pairs of neighbouring features
    uint32_t *k_t, *v_t;          // [dp / 2, line], their transposes
    uint32_t *k_pairs, *v_pairs;  // [line / 2, dp] pairs of neighbouring keys
    uint32_t *q_rows, *grad_rows, *q_t, *grad_t;  // [32, dp / 2] and [dp, 16]
    uint32_t *p_rows, *ds_rows, *p_pairs, *ds_pairs;  // [32, line / 2] and [16, line]
    float *dk_t, *dv_t;           // [dp, line]

    void fit(int64_t length, int64_t d) {
        float* at = Buffers<float>::fit(length, d, 5, 2, 2);
        const size_t keys = line * dp, queries = kQueries * dp, square = kQueries * line;
        for (float** part : {&dk_t, &dv_t}) *part = at, at += keys;
        for (uint32_t** part : {&k_rows, &v_rows, &k_t, &v_t, &k_pairs, &v_pairs}) *part = (uint32_t*)at, at += keys / 2;
        for (uint32_t** part : {&q_rows, &grad_rows, &q_t, &grad_t}) *part = (uint32_t*)at, at += queries / 2;
        for (uint32_t** part : {&p_rows, &ds_rows, &p_pairs, &ds_pairs}) *part = (uint32_t*)at, at += square / 2;
    }
    // C[m, n] (+)= A[m, k] B[k, n] with m, n and k multiples of 32; lda and ldb in words.
    static void product(int64_t m, int64_t n, int64_t k, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb,
                        float* c, int64_t ldc, bool add) {
        memory_fence();
        for (int64_t i = 0; i < m; i += 32)
            for (int64_t j = 0; j < n; j += 32) {
                float* to = c + i * ldc + j;
                if (add) {
                    _tile_loadd(0, to, ldc * 4);
                    _tile_loadd(1, to + 16, ldc * 4);
                    _tile_loadd(2, to + 16 * ldc, ldc * 4);
                    _tile_loadd(3, to + 16 * ldc + 16, ldc * 4);
                } else {
                    _tile_zero(0);
                    _tile_zero(1);
                    _tile_zero(2);
                    _tile_zero(3);
                }
                for (int64_t p = 0; p < k / 2; p += 16) {
                    _tile_loadd(4, a + i * lda + p, lda * 4);
                    _tile_loadd(5, a + (i + 16) * lda + p, lda * 4);
                    _tile_loadd(6, b + p * ldb + j, ldb * 4);
                    _tile_loadd(7, b + p * ldb + j + 16, ldb * 4);
                    _tile_dpbf16ps(0, 4, 6);
                    _tile_dpbf16ps(1, 4, 7);
                    _tile_dpbf16ps(2, 5, 6);
                    _tile_dpbf16ps(3, 5, 7);
                }
                _tile_stored(0, to, ldc * 4);
                _tile_stored(1, to + 16, ldc * 4);
                _tile_stored(2, to + 16 * ldc, ldc * 4);
                _tile_stored(3, to + 16 * ldc + 16, ldc * 4);
            }
        memory_fence();
    }
    // Pairs of neighbouring numbers of each row.
    static void to_rows(const float* from, int64_t rows, int64_t columns, int64_t ld, uint32_t* to, int64_t ld_to) {
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t c = 0; c < columns; c += kLanes)
                store((bfloat16*)(to + r * ld_to) + c, load(from + r * ld + c));
    }
    // Pairs of neighbouring rows.
    static void to_pairs(const float* from, int64_t rows, int64_t columns, int64_t ld, uint32_t* to, int64_t ld_to) {
        for (int64_t r = 0; r < rows; r += 2)
            for (int64_t c = 0; c < columns; c += kLanes) {
                const float* at = from + r * ld + c;
                write(to + r / 2 * ld_to + c, paired(load(at), load(at + ld)));
            }
    }
    void keys_ready(int64_t first, int64_t stop, bool backward) {
        first = first / kTile * kTile, stop = round_up(stop, kTile);
        const int64_t n = stop - first, half = dp / 2;
        to_rows(k + first * dp, n, dp, dp, k_rows + first * half, half);
        transpose(k_rows + first * half, n, half, half, k_t + first, line);
        to_pairs(v + first * dp, n, dp, dp, v_pairs + first / 2 * dp, dp);
        if (!backward) return;
        to_rows(v + first * dp, n, dp, dp, v_rows + first * half, half);
        transpose(v_rows + first * half, n, half, half, v_t + first, line);
        to_pairs(k + first * dp, n, dp, dp, k_pairs + first / 2 * dp, dp);
    }
    void queries_ready(bool backward) {
        to_rows(q, kQueries, dp, dp, q_rows, dp / 2);
        if (!backward) return;
        to_rows(grad, kQueries, dp, dp, grad_rows, dp / 2);
        uint32_t* pairs = p_pairs;  // free until the probabilities are there, and large enough: a line is 32 or more
        for (const auto& [from, to] : {std::pair{q, q_t}, std::pair{grad, grad_t}}) {
            for (int64_t c = 0; c < dp; c += kTile) {
                to_pairs(from + c, kQueries, kTile, dp, pairs, kTile);
                transpose(pairs, kQueries / 2, kTile, kTile, to + c * kQueries / 2, kQueries / 2);
            }
        }
    }
    struct Sink {
        bfloat16* p;
        void put(int64_t j, floats x) const { store(p + j, x); }
    };
    struct PairSink {
        uint32_t *p, *ds;
        bfloat16 *row, *next_row;
        void put(int64_t j, floats a, floats next_a, floats x, floats next_x) const {
            write(p + j, paired(a, next_a)), write(ds + j, paired(x, next_x));
            store(row + j, x), store(next_row + j, next_x);
        }
    };
    Sink sink(int64_t i) const { return {(bfloat16*)(p_rows + i * line / 2)}; }
    PairSink pair_sink(int64_t i) const {
        bfloat16* row = (bfloat16*)(ds_rows + i * line / 2);
        return {p_pairs + i / 2 * line, ds_pairs + i / 2 * line, row, row + line};
    }
    void key_gradients_ready(int64_t first, int64_t stop) {
        first = first / kTile * kTile, stop = round_up(stop, kTile);
        transpose(dk_t + first, dp, stop - first, line, dk + first * dp, dp);
        transpose(dv_t + first, dp, stop - first, line, dv + first * dp, dp);
    }
    void clear_key_gradients(int64_t first, int64_t stop) {
        for (float* part : {dk_t, dv_t})
            for (int64_t e = 0; e < dp; ++e) std::fill(part + e * line + first, part + e * line + stop, 0.0f);
    }
    void make_scores(const Block& b) {
        product(kQueries, b.high - b.low, dp, q_rows, dp / 2, k_t + b.low, line, scores + b.low, line, false);
    }
    void make_dscores(const Block& b) {
        product(kQueries, b.high - b.low, dp, grad_rows, dp / 2, v_t + b.low, line, dscores + b.low, line, false);
    }
    void make_out(const Block& b) {
        product(kQueries, dp, b.high - b.low, p_rows + b.low / 2, line / 2, v_pairs + b.low / 2 * dp, dp, out, dp,
                false);
    }
    void make_gradients(const Block& b) {
        const int64_t keys = b.high - b.low;
        product(kQueries, dp, keys, ds_rows + b.low / 2, line / 2, k_pairs + b.low / 2 * dp, dp, dq, dp, false);
        product(dp, keys, kQueries, q_t, kQueries / 2, ds_pairs + b.low, line, dk_t + b.low, line, true);
        product(dp, keys, kQueries, grad_t, kQueries / 2, p_pairs + b.low, line, dv_t + b.low, line, true);
    }
};

#endif

// What all tasks of one attention call share; kernels/arguments.py has the same fields in the same order. Token t of head h
// begins at pointer + t * stride + h * d.
template <class T> struct Heads {
    int64_t rows;
    const int64_t *starts, *lengths, *widths, *parents;
    int64_t heads, kv_heads, d, q_stride, k_stride, v_stride, window;
    double scale;
    const T *q, *k, *v, *cosine, *sine;  // cosine and sine [tokens, d], or null without rotary positions

    int64_t first_key(int64_t query) const { return window > 0 && query - window + 1 > 0 ? query - window + 1 : 0; }

    Block block(int64_t first, int64_t length, int64_t before) const {
        const int64_t stop = std::min(first + kQueries, length);
        return {first, stop, before, first_key(before + first) / kTile * kTile, round_up(before + stop, kTile)};
    }
    // The longest line of keys of a task: a row, or its longest child behind it.
    int64_t longest(int64_t root) const {
        int64_t most = 0;
        for (int64_t row = root + 1; row < rows; ++row)
            if (parents[row] == root) most = std::max(most, lengths[row]);
        return lengths[root] + most;
    }
};

// Reads one token of one head, turned by its rotary angle (Su et al. 2021, arXiv 2104.09864, equation 34; the halves of
// a head are paired, as in Llama).
template <class T>
void read_token(const Heads<T>& at, const T* from, int64_t token, bool turn, compute_t<T> factor, compute_t<T>* to) {
    using V = lanes_t<compute_t<T>>;
    const int64_t d = at.d, half = d / 2;
    if (!turn || at.cosine == nullptr) {
        for (int64_t j = 0; j < d; j += kLanes) store(to + j, factor * load(from + j, d - j), d - j);
        return;
    }
    const T *c = at.cosine + token * d, *s = at.sine + token * d;
    for (int64_t j = 0, left = half; left > 0; j += kLanes, left -= kLanes) {
        const V low = load(from + j, left), high = load(from + j + half, left);
        store(to + j, factor * (low * load(c + j, left) - high * load(s + j, left)), left);
        store(to + j + half, factor * (high * load(c + j + half, left) + low * load(s + j + half, left)), left);
    }
}

// Writes the gradient of one token of one head, turned back.
template <class T>
void write_token(const Heads<T>& at, const compute_t<T>* from, int64_t token, bool turn, compute_t<T> factor, T* to) {
    using V = lanes_t<compute_t<T>>;
    const int64_t d = at.d, half = d / 2;
    if (!turn || at.cosine == nullptr) {
        for (int64_t j = 0; j < d; j += kLanes) store(to + j, factor * load(from + j, d - j), d - j);
        return;
    }
    const T *c = at.cosine + token * d, *s = at.sine + token * d;
    for (int64_t j = 0, left = half; left > 0; j += kLanes, left -= kLanes) {
        const V low = load(from + j, left), high = load(from + j + half, left);
        store(to + j, factor * (low * load(c + j, left) + high * load(s + j + half, left)), left);
        store(to + j + half, factor * (high * load(c + j + half, left) - low * load(s + j, left)), left);
    }
}

// Asks for one head of a token to be read soon: heads of neighbouring tokens lie too far apart for the processor to guess.
template <class T> void expect(const T* head, int64_t d) {
    for (int64_t j = 0; j < d; j += 64 / int64_t(sizeof(T))) __builtin_prefetch(head + j);
}
constexpr int64_t kAhead = 6;

// Reads a row's keys and values behind those of its parent.
template <class T, class Products>
void read_keys(const Heads<T>& at, int64_t row, int64_t before, int64_t kv, bool backward, Products& to) {
    using C = compute_t<T>;
    const int64_t stop = before + at.lengths[row], end = round_up(stop, kTile);
    for (int64_t j = before; j < stop; ++j) {
        const int64_t token = at.starts[row] + j - before;
        expect(at.k + (token + kAhead) * at.k_stride + kv * at.d, at.d);
        expect(at.v + (token + kAhead) * at.v_stride + kv * at.d, at.d);
        read_token(at, at.k + token * at.k_stride + kv * at.d, token, true, C(1), to.k + j * to.dp);
        read_token(at, at.v + token * at.v_stride + kv * at.d, token, false, C(1), to.v + j * to.dp);
    }
    for (C* part : {to.k, to.v}) std::fill(part + stop * to.dp, part + end * to.dp, C(0));
    to.keys_ready(before, end, backward);
}

// Reads the tokens of a block, of q or of the output's gradient, and fills up with zeros.
template <class T>
void read_block(const Heads<T>& at, const Block& b, const T* from, int64_t stride, int64_t start, bool turn,
                compute_t<T> factor, compute_t<T>* to, int64_t dp) {
    for (int64_t i = b.first; i < b.stop; ++i) {
        expect(from + (start + i + kAhead) * stride, at.d);
        read_token(at, from + (start + i) * stride, start + i, turn, factor, to + (i - b.first) * dp);
    }
    std::fill(to + (b.stop - b.first) * dp, to + kQueries * dp, compute_t<T>(0));
}

// Puts the probabilities of query i of a block, not yet divided by their sum, zero outside of the keys [first, stop) that
// it may see; returns their sum and the log of the sum of the scores' exponentials.
template <class C, class Products>
std::pair<C, C> softmax(Products& x, const Block& b, int64_t i, int64_t first, int64_t stop) {
    using V = lanes_t<C>;
    const C* row = x.scores + i * x.line;
    const auto sink = x.sink(i);
    const int64_t low = b.low, high = b.high;
    C largest = -std::numeric_limits<C>::infinity();
    V most = V{} + largest, sums = {};
    for (int64_t j = low; j < high; j += kLanes) {
        const V score = where(lanes_between(first - j, stop - j), load(row + j), largest);
        most = score > most ? score : most;
    }
    for (int64_t l = 0; l < kLanes; ++l) largest = std::max<C>(largest, most[l]);
    for (int64_t j = low; j < high; j += kLanes) {
        const V e = where(lanes_between(first - j, stop - j), exp_of_negative(load(row + j) - largest), 0);
        sink.put(j, e);
        sums += e;
    }
    const C sum = sum_of<C>(sums);
    return {sum, largest + std::log(sum)};
}

// What the backward pass knows of one query; nothing is seen where stop is 0.
template <class C> struct Query {
    C log_sum = 0, delta = 0;
    int64_t first = 0, stop = 0;

    // From 16 scores and gradients of probabilities to probabilities and gradients of scores.
    void differentiate(int64_t j, lanes_t<C>& p, lanes_t<C>& ds) const {
        const lane_mask seen = lanes_between(first - j, stop - j);
        p = where(seen, exp_of_negative(p - log_sum), 0);
        ds = where(seen, p * (ds - delta), 0);
    }
};

template <class C, class Products>
void softmax_backward(const Products& x, const Block& b, int64_t i, const Query<C> query, const Query<C> next) {
    const int64_t line = x.line, low = b.low, high = b.high;
    const C *scores = x.scores + i * line, *dscores = x.dscores + i * line;
    const auto sink = x.pair_sink(i);
    for (int64_t j = low; j < high; j += kLanes) {
        lanes_t<C> p = load(scores + j), ds = load(dscores + j);
        lanes_t<C> next_p = load(scores + line + j), next_ds = load(dscores + line + j);
        query.differentiate(j, p, ds);
        next.differentiate(j, next_p, next_ds);
        sink.put(j, p, next_p, ds, next_ds);
    }
}

// Calls use(row, tokens before it) for a row without a parent and then for its children.
template <class T, class Use> void for_each_member(const Heads<T>& at, int64_t root, Use use) {
    use(root, int64_t(0));
    for (int64_t row = root + 1; row < at.rows; ++row)
        if (at.parents[row] == root) use(row, at.lengths[root]);
}

template <class T, class Products>
void forward_row(const Heads<T>& at, int64_t row, int64_t before, int64_t kv, Products& x, T* out,
                 compute_t<T>* log_sums) {
    using C = compute_t<T>;
    const int64_t start = at.starts[row], n = at.lengths[row], group = at.heads / at.kv_heads;
    const int64_t token_stride = at.heads * at.d;
    read_keys(at, row, before, kv, false, x);
    for (int64_t head = kv * group; head < (kv + 1) * group; ++head) {
        for (int64_t first = 0; first < n; first += kQueries) {
            const Block b = at.block(first, n, before);
            read_block(at, b, at.q + head * at.d, at.q_stride, start, true, at.scale, x.q, x.dp);
            x.queries_ready(false);
            x.make_scores(b);
            C sums[kQueries];
            for (int64_t i = b.first; i < b.stop; ++i)
                std::tie(sums[i - b.first], log_sums[(start + i) * at.heads + head]) =
                    softmax<C>(x, b, i - b.first, at.first_key(before + i), before + i + 1);
            x.make_out(b);
            for (int64_t i = b.first; i < b.stop; ++i)
                write_token(at, x.out + (i - b.first) * x.dp, start + i, false, C(1) / sums[i - b.first],
                            out + (start + i) * token_stride + head * at.d);
        }
        for (int64_t i = n; i < at.widths[row]; ++i)
            std::fill_n(out + (start + i) * token_stride + head * at.d, at.d, T{});
    }
}

template <class T> struct Gradients {
    const T *out, *dout;
    const compute_t<T>* log_sums;
    T *dq, *dk, *dv;
};

template <class T, class Products>
void write_key_gradients(const Heads<T>& at, int64_t row, int64_t before, int64_t kv, Products& x,
                         const Gradients<T>& to) {
    using C = compute_t<T>;
    const int64_t start = at.starts[row], n = at.lengths[row], stride = at.kv_heads * at.d;
    x.key_gradients_ready(before, before + n);
    for (int64_t j = 0; j < n; ++j) {
        const int64_t key = (before + j) * x.dp, place = (start + j) * stride + kv * at.d;
        write_token(at, x.dk + key, start + j, true, C(1), to.dk + place);
        write_token(at, x.dv + key, start + j, false, C(1), to.dv + place);
    }
    for (int64_t j = n; j < at.widths[row]; ++j)
        for (T* part : {to.dk, to.dv}) std::fill_n(part + (start + j) * stride + kv * at.d, at.d, T{});
}

template <class T, class Products>
void backward_row(const Heads<T>& at, int64_t row, int64_t before, int64_t kv, Products& x, const Gradients<T>& to) {
    using C = compute_t<T>;
    const int64_t start = at.starts[row], n = at.lengths[row], d = at.d, group = at.heads / at.kv_heads;
    const int64_t token_stride = at.heads * d;
    read_keys(at, row, before, kv, true, x);
    x.clear_key_gradients(before, round_up(before + n, kTile));
    for (int64_t head = kv * group; head < (kv + 1) * group; ++head) {
        for (int64_t first = 0; first < n; first += kQueries) {
            const Block b = at.block(first, n, before);
            read_block(at, b, at.q + head * d, at.q_stride, start, true, at.scale, x.q, x.dp);
            read_block(at, b, to.dout + head * d, token_stride, start, false, C(1), x.grad, x.dp);
            x.queries_ready(true);
            x.make_scores(b);
            x.make_dscores(b);
            Query<C> queries[kQueries] = {};
            for (int64_t i = b.first; i < b.stop; ++i) {
                const T* own = to.out + (start + i) * token_stride + head * d;
                expect(own + kAhead * token_stride, d);
                const C* grad = x.grad + (i - b.first) * x.dp;
                lanes_t<C> delta = {};
                for (int64_t e = 0; e < d; e += kLanes) delta += load(grad + e, d - e) * load(own + e, d - e);
                queries[i - b.first] = {to.log_sums[(start + i) * at.heads + head], sum_of<C>(delta),
                                        at.first_key(before + i), before + i + 1};
            }
            for (int64_t i = 0; i < kQueries; i += 2) softmax_backward(x, b, i, queries[i], queries[i + 1]);
            x.make_gradients(b);
            for (int64_t i = b.first; i < b.stop; ++i)
                write_token(at, x.dq + (i - b.first) * x.dp, start + i, true, at.scale,
                            to.dq + (start + i) * token_stride + head * d);
        }
        for (int64_t i = n; i < at.widths[row]; ++i)
            std::fill_n(to.dq + (start + i) * token_stride + head * d, d, T{});
    }
    if (before > 0) write_key_gradients(at, row, before, kv, x, to);
}

// Calls use(row without a parent, key-value head, products) for every task.
template <class Products, class T, class Use> void for_each_task(const Heads<T>& at, Use use) {
#pragma omp parallel
    {
        Products products;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < at.rows * at.kv_heads; ++task) {
            const int64_t root = task / at.kv_heads;
            if (at.parents[root] >= 0) continue;
            products.fit(at.longest(root), at.d);
            use(root, task % at.kv_heads, products);
        }
    }
}

template <class Products, class T> void forward_with(const Heads<T>& at, T* out, compute_t<T>* log_sums) {
    for_each_task<Products>(at, [&](int64_t root, int64_t kv, Products& products) {
        for_each_member(at, root, [&](int64_t row, int64_t before) {
            forward_row(at, row, before, kv, products, out, log_sums);
        });
    });
}

template <class Products, class T> void backward_with(const Heads<T>& at, const Gradients<T>& to) {
    for_each_task<Products>(at, [&](int64_t root, int64_t kv, Products& products) {
        for_each_member(at, root, [&](int64_t row, int64_t before) {
            backward_row(at, row, before, kv, products, to);
        });
        write_key_gradients(at, root, 0, kv, products, to);
    });
}

template <class T> void attention_forward(const Heads<T>* at, T* out, compute_t<T>* log_sums) {
#ifdef LORASCOPE_TILES
    if constexpr (std::is_same_v<T, bfloat16>)
        if (may_use_tiles()) return forward_with<Tiles>(*at, out, log_sums);
#endif
    forward_with<Plain<compute_t<T>>>(*at, out, log_sums);
}

template <class T>
void attention_backward(const Heads<T>* at, const T* out, const compute_t<T>* log_sums, const T* dout, T* dq, T* dk,
                        T* dv) {
    const Gradients<T> to{out, dout, log_sums, dq, dk, dv};
#ifdef LORASCOPE_TILES
    if constexpr (std::is_same_v<T, bfloat16>)
        if (may_use_tiles()) return backward_with<Tiles>(*at, to);
#endif
    backward_with<Plain<compute_t<T>>>(*at, to);
}

}  // namespace
