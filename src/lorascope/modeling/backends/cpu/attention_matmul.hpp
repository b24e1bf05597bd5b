// Matmuls of attention: in the numbers' own precision, and in bfloat16 on the tile unit.
#pragma once

#include <utility>

#include "simd.hpp"

namespace {

constexpr int64_t kQueries = 32, kTile = 32;

// A block of queries, [first, stop) of a row with a prefix of `before` tokens; they attend to keys in [low, high).
struct Block {
    int64_t first, stop, before, low, high;
};

// The memory of one thread: keys, values and their gradients [padded, dp]; queries, gradients of the output, the output
// and gradients of queries [32, dp]; scores [32, padded]. Padded lengths and widths are whole tiles; keys behind a row's
// end and queries behind a block's are zero.
template <class C> struct Buffers {
    Aligned<C> memory;
    int64_t padded = 0, dp = 0;
    C *k, *v, *dk, *dv, *q, *grad, *out, *dq, *scores, *dscores;

    // Allocates the above, and returns memory for more of each kind.
    C* fit(int64_t length, int64_t d, size_t more_keys, size_t more_queries, size_t more_scores) {
        padded = round_up(length, kTile), dp = round_up(d, kTile);
        const size_t keys = padded * dp, queries = kQueries * dp, square = kQueries * padded;
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

// Rows of a tile of a product, which is two vectors wide. Its sums fill half of the registers, 32 with AVX-512, else 16.
#ifdef __AVX512F__
constexpr int64_t kTileRows = 8;
#else
constexpr int64_t kTileRows = 4;
#endif
constexpr int64_t kTileColumns = 2 * kLanes;

// A tile of C (+)= A B with k inner elements; element (i, p) of A lies at a[i * a_row + p * a_col].
template <class C>
void product_tile(int64_t k, const C* a, int64_t a_row, int64_t a_col, const C* b, int64_t ldb, C* c, int64_t ldc,
                  bool add) {
    lanes_t<C> sums[kTileRows][2] = {};
    for (int64_t p = 0; p < k; ++p) {
        const lanes_t<C> left = load(b + p * ldb), right = load(b + p * ldb + kLanes);
        for (int64_t r = 0; r < kTileRows; ++r) {
            sums[r][0] += a[r * a_row + p * a_col] * left;
            sums[r][1] += a[r * a_row + p * a_col] * right;
        }
    }
    for (int64_t r = 0; r < kTileRows; ++r)
        for (int64_t t = 0; t < 2; ++t) {
            C* to = c + r * ldc + t * kLanes;
            store(to, add ? load(to) + sums[r][t] : sums[r][t]);
        }
}

// The six products of attention in the numbers' own precision.
template <class C> struct Plain : Buffers<C> {
    C *k_t, *v_t;  // transposes in panels of 32 keys [padded / 32, dp, 32], so that a tile reads contiguous memory

    void fit(int64_t length, int64_t d) {
        k_t = Buffers<C>::fit(length, d, 2, 0, 0), v_t = k_t + this->padded * this->dp;
    }
    // C[m, n] (+)= A B, m and n multiples of 32; B has its panels of 32 columns `panel` apart.
    static void product(int64_t m, int64_t n, int64_t k, const C* a, int64_t a_row, int64_t a_col, const C* b,
                        int64_t ldb, int64_t panel, C* c, int64_t ldc, bool add) {
        for (int64_t j = 0; j < n; j += kTileColumns)
            for (int64_t i = 0; i < m; i += kTileRows)
                product_tile(k, a + i * a_row, a_row, a_col, b + j / kTile * panel + j % kTile, ldb, c + i * ldc + j,
                             ldc, add);
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
    // Destination of the probabilities of one query, 16 at a time. (By value: a vector store
    // may alias anything, so the compiler would reload the pointers of this object after each.)
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
    Sink sink(int64_t i) const { return {this->scores + i * this->padded}; }
    PairSink pair_sink(int64_t i) const {
        C *p = this->scores + i * this->padded, *ds = this->dscores + i * this->padded;
        return {p, p + this->padded, ds, ds + this->padded};
    }
    void key_gradients_ready(int64_t, int64_t) {}
    void clear_key_gradients(int64_t first, int64_t stop) {
        for (C* part : {this->dk, this->dv}) std::fill(part + first * this->dp, part + stop * this->dp, C(0));
    }
    void make_scores(const Block& b) {
        product(kQueries, b.high - b.low, this->dp, this->q, this->dp, 1, k_t + b.low * this->dp, kTile,
                this->dp * kTile, this->scores + b.low, this->padded, false);
    }
    void make_dscores(const Block& b) {
        product(kQueries, b.high - b.low, this->dp, this->grad, this->dp, 1, v_t + b.low * this->dp, kTile,
                this->dp * kTile, this->dscores + b.low, this->padded, false);
    }
    void make_out(const Block& b) {
        product(kQueries, this->dp, b.high - b.low, this->scores + b.low, this->padded, 1, this->v + b.low * this->dp,
                this->dp, kTile, this->out, this->dp, false);
    }
    void make_gradients(const Block& b) {
        const int64_t keys = b.high - b.low, dp = this->dp, padded = this->padded;
        const C *p = this->scores + b.low, *ds = this->dscores + b.low;
        product(kQueries, dp, keys, ds, padded, 1, this->k + b.low * dp, dp, kTile, this->dq, dp, false);
        product(keys, dp, kQueries, ds, 1, padded, this->q, dp, kTile, this->dk + b.low * dp, dp, true);
        product(keys, dp, kQueries, p, 1, padded, this->grad, dp, kTile, this->dv + b.low * dp, dp, true);
    }
};

#ifdef LORASCOPE_TILES

// 16 pairs of bfloat16, each in one word: the first in its low half.
inline words paired(floats first, floats second) { return widened(rounded(first)) | widened(rounded(second)) << 16; }

// The six products on the tile unit: bfloat16 in, float32 sums (Intel's AMX, which multiplies 16 x 32 by 32 x 16 at
// once). Its right-hand operand has two rows in one: word (p, j) holds B[2p, j] and B[2p + 1, j].
struct Tiles : TileSetup, Buffers<float> {
    uint32_t *k_rows, *v_rows;    // [padded, dp / 2] pairs of neighbouring features
    uint32_t *k_t, *v_t;          // [dp / 2, padded], their transposes
    uint32_t *k_pairs, *v_pairs;  // [padded / 2, dp] pairs of neighbouring keys
    uint32_t *q_rows, *grad_rows, *q_t, *grad_t;  // [32, dp / 2] and [dp, 16]
    uint32_t *p_rows, *ds_rows, *p_pairs, *ds_pairs;  // [32, padded / 2] and [16, padded]
    float *dk_t, *dv_t;           // [dp, padded]

    void fit(int64_t length, int64_t d) {
        float* at = Buffers<float>::fit(length, d, 5, 2, 2);
        const size_t keys = padded * dp, queries = kQueries * dp, square = kQueries * padded;
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
        transpose(k_rows + first * half, n, half, half, k_t + first, padded);
        to_pairs(v + first * dp, n, dp, dp, v_pairs + first / 2 * dp, dp);
        if (!backward) return;
        to_rows(v + first * dp, n, dp, dp, v_rows + first * half, half);
        transpose(v_rows + first * half, n, half, half, v_t + first, padded);
        to_pairs(k + first * dp, n, dp, dp, k_pairs + first / 2 * dp, dp);
    }
    void queries_ready(bool backward) {
        to_rows(q, kQueries, dp, dp, q_rows, dp / 2);
        if (!backward) return;
        to_rows(grad, kQueries, dp, dp, grad_rows, dp / 2);
        uint32_t* pairs = p_pairs;  // free until the probabilities are there, and large enough: `padded` is 32 or more
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
    Sink sink(int64_t i) const { return {(bfloat16*)(p_rows + i * padded / 2)}; }
    PairSink pair_sink(int64_t i) const {
        bfloat16* row = (bfloat16*)(ds_rows + i * padded / 2);
        return {p_pairs + i / 2 * padded, ds_pairs + i / 2 * padded, row, row + padded};
    }
    void key_gradients_ready(int64_t first, int64_t stop) {
        first = first / kTile * kTile, stop = round_up(stop, kTile);
        transpose(dk_t + first, dp, stop - first, padded, dk + first * dp, dp);
        transpose(dv_t + first, dp, stop - first, padded, dv + first * dp, dp);
    }
    void clear_key_gradients(int64_t first, int64_t stop) {
        for (float* part : {dk_t, dv_t})
            for (int64_t e = 0; e < dp; ++e) std::fill(part + e * padded + first, part + e * padded + stop, 0.0f);
    }
    void make_scores(const Block& b) {
        product(kQueries, b.high - b.low, dp, q_rows, dp / 2, k_t + b.low, padded, scores + b.low, padded, false);
    }
    void make_dscores(const Block& b) {
        product(kQueries, b.high - b.low, dp, grad_rows, dp / 2, v_t + b.low, padded, dscores + b.low, padded, false);
    }
    void make_out(const Block& b) {
        product(kQueries, dp, b.high - b.low, p_rows + b.low / 2, padded / 2, v_pairs + b.low / 2 * dp, dp, out, dp,
                false);
    }
    void make_gradients(const Block& b) {
        const int64_t keys = b.high - b.low;
        product(kQueries, dp, keys, ds_rows + b.low / 2, padded / 2, k_pairs + b.low / 2 * dp, dp, dq, dp, false);
        product(dp, keys, kQueries, q_t, kQueries / 2, ds_pairs + b.low, padded, dk_t + b.low, padded, true);
        product(dp, keys, kQueries, grad_t, kQueries / 2, p_pairs + b.low, padded, dv_t + b.low, padded, true);
    }
};

#endif

}  // namespace
