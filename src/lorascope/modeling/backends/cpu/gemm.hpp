// Matmuls of bfloat16 with float32 sums, on the tile unit (AMX) or by vectors (AVX-512 BF16). Operands are stored as tiles
// of 16 rows of 64 bytes, each contiguous, so that a tile is read at once and its rows share no cache set.
#pragma once

#include <omp.h>

#include <type_traits>
#include <utility>
#include <vector>

#include "simd.hpp"

#ifdef LORASCOPE_PAIRS

namespace {

constexpr int64_t kTileWords = kLanes * kLanes, kPairs = 2 * kLanes;

// An operand in tiles of 16 x 16 words; a word holds two neighbours along the inner dimension. A tile of the left operand
// has word (row, pair), of the right one (pair, column); tile (i, p) is the p-th along the inner dimension.
struct Tiled {
    uint32_t* data = nullptr;
    int64_t depth = 0;

    uint32_t* tile(int64_t i, int64_t p) const { return data + (i * depth + p) * kTileWords; }
};

// M x N result tiles [16, 16], their rows `ld_sums` tiles apart.
template <int M, int N>
void sum_with_vectors(const Tiled& a, int64_t i, const Tiled& b, int64_t j, float* sums, int64_t ld_sums, bool add) {
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) {
            float* to = sums + (m * ld_sums + n) * kTileWords;
            __m512 sum[kLanes] = {};
            for (int64_t r = 0; add && r < kLanes; ++r) sum[r] = (__m512)load(to + r * kLanes);
            const uint32_t *left = a.tile(i + m, 0), *right = b.tile(j + n, 0);
            for (int64_t p = 0; p < a.depth; ++p, left += kTileWords, right += kTileWords)
                for (int64_t pair = 0; pair < kLanes; ++pair) {
                    const __m512bh columns = (__m512bh)read<words>(right + pair * kLanes);
                    for (int64_t r = 0; r < kLanes; ++r)
                        sum[r] = _mm512_dpbf16_ps(sum[r], (__m512bh)_mm512_set1_epi32(left[r * kLanes + pair]), columns);
                }
            for (int64_t r = 0; r < kLanes; ++r) write(to + r * kLanes, (floats)sum[r]);
        }
}

#ifdef LORASCOPE_TILES
template <int M, int N>
void sum_with_tiles(const Tiled& a, int64_t i, const Tiled& b, int64_t j, float* sums, int64_t ld_sums, bool add) {
    const uint32_t *a0 = a.tile(i, 0), *a1 = a.tile(i + M - 1, 0), *b0 = b.tile(j, 0), *b1 = b.tile(j + N - 1, 0);
    memory_fence();
    if (add) {
        _tile_loadd(0, sums, 64);
        if (N > 1) _tile_loadd(1, sums + kTileWords, 64);
        if (M > 1) _tile_loadd(2, sums + ld_sums * kTileWords, 64);
        if (M > 1 && N > 1) _tile_loadd(3, sums + (ld_sums + 1) * kTileWords, 64);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    // the left operand streams through; the right one should stay in the L1 cache for the next rows
    for (int64_t at = 0; at < a.depth * kTileWords; at += kTileWords) {
        _tile_stream_loadd(4, a0 + at, 64);
        _tile_loadd(6, b0 + at, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (N > 1) {
            _tile_loadd(7, b1 + at, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (M > 1) {
            _tile_stream_loadd(5, a1 + at, 64);
            _tile_dpbf16ps(2, 5, 6);
            if (N > 1) _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, sums, 64);
    if (N > 1) _tile_stored(1, sums + kTileWords, 64);
    if (M > 1) _tile_stored(2, sums + ld_sums * kTileWords, 64);
    if (M > 1 && N > 1) _tile_stored(3, sums + (ld_sums + 1) * kTileWords, 64);
    memory_fence();
}
#endif

// Multiplies tile rows i to i + m of the left operand by tile columns j to j + n of the right one. Result tiles of a row
// are adjacent, and rows `ld_sums` tiles apart.
inline void multiply(const Tiled& a, int64_t i, int64_t m, const Tiled& b, int64_t j, int64_t n, float* sums,
                     int64_t ld_sums, bool add = false) {
    const auto block = [&](auto rows, auto columns, int64_t row, int64_t column) {
        constexpr int kRows = decltype(rows)::value, kColumns = decltype(columns)::value;
        float* to = sums + ((row - i) * ld_sums + column - j) * kTileWords;
#ifdef LORASCOPE_TILES
        if (may_use_tiles()) return sum_with_tiles<kRows, kColumns>(a, row, b, column, to, ld_sums, add);
#endif
        sum_with_vectors<kRows, kColumns>(a, row, b, column, to, ld_sums, add);
    };
    using One = std::integral_constant<int, 1>;
    using Two = std::integral_constant<int, 2>;
    for (int64_t column = j; column < j + n; column += 2)
        for (int64_t row = i; row < i + m; row += 2) {
            const bool two_rows = row + 1 < i + m, two_columns = column + 1 < j + n;
            if (two_rows && two_columns) block(Two{}, Two{}, row, column);
            else if (two_rows) block(Two{}, One{}, row, column);
            else if (two_columns) block(One{}, Two{}, row, column);
            else block(One{}, One{}, row, column);
        }
}

// 16 and 16 numbers, rounded.
inline words side_by_side(floats low, floats high) { return (words)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low); }

// 32 or 16 neighbours of a row, floats rounded; those that are not kept are zero.
inline words kept_pairs(const bfloat16* from, uint32_t kept) { return (words)_mm512_maskz_loadu_epi16(kept, from); }
inline words kept_pairs(const float* from, uint32_t kept) {
    const __m512 low = _mm512_maskz_loadu_ps(kept, from), high = _mm512_maskz_loadu_ps(kept >> kLanes, from + kLanes);
    return side_by_side((floats)low, (floats)high);
}
inline halves kept_halves(const bfloat16* from, uint32_t kept) { return (halves)_mm256_maskz_loadu_epi16(kept, from); }
inline halves kept_halves(const float* from, uint32_t kept) { return rounded((floats)_mm512_maskz_loadu_ps(kept, from)); }

// A tile (pair, column) of 32 rows and 16 columns, from one vector of 16 numbers a row: get(row).
template <class Get> void interleave(words tile[kLanes], Get get) {
    for (int64_t pair = 0; pair < kLanes; ++pair)
        tile[pair] = widened(get(2 * pair)) | widened(get(2 * pair + 1)) << 16;
}

inline void put(uint32_t* to, const words tile[kLanes]) {
    for (int64_t r = 0; r < kLanes; ++r) write(to + r * kLanes, tile[r]);
}

// A tile of 16 rows and 32 columns becomes one of pairs (column pair, row). Rows behind `rows` are zero.
template <class T> void turned_rows(const T* from, int64_t ld, int64_t rows, int64_t columns, uint32_t* to) {
    const uint32_t inside = columns >= kPairs ? ~0u : (1u << columns) - 1;
    words tile[kLanes] = {};
    for (int64_t r = 0; r < std::min(rows, kLanes); ++r) tile[r] = kept_pairs(from + r * ld, inside);
    turn(tile), put(to, tile);
}

// A tile of pairs of rows (row pair, column), 32 rows and 16 columns; rows and columns behind the matrix are zero.
template <class T> void paired_rows(const T* from, int64_t ld, int64_t rows, int64_t columns, uint32_t* to) {
    const __mmask16 inside = columns >= kLanes ? 0xffff : (1u << columns) - 1;
    words tile[kLanes];
    interleave(tile, [&](int64_t r) {
        return r < rows ? kept_halves(from + r * ld, inside) : halves{};
    });
    put(to, tile);
}

// Rows of a matrix as a left operand, the tile rows [first, stop): get(row, p) gives words p * 16 to p * 16 + 15 of a row.
template <class Get> void fill_left(const Tiled& to, int64_t first, int64_t stop, Get get) {
    for (int64_t t = first * kLanes; t < stop * kLanes; ++t) {
        uint32_t* to_row = to.tile(t / kLanes, 0) + t % kLanes * kLanes;
        for (int64_t p = 0; p < to.depth; ++p) write(to_row + p * kTileWords, get(t, p));
    }
}

// Allocates the operands of a call in one piece of memory.
class TileMemory {
    Aligned<uint32_t>& memory;
    std::vector<std::pair<Tiled*, int64_t>> wanted;

  public:
    explicit TileMemory(Aligned<uint32_t>& memory) : memory(memory) {}
    void add(Tiled& to, int64_t sides, int64_t depth) {
        to.depth = depth;
        wanted.emplace_back(&to, sides * depth * kTileWords);
    }
    // Returns false if there was not enough memory.
    bool make() {
        int64_t all = 0;
        for (const auto& [to, size] : wanted) all += size;
        uint32_t* at = memory.fit(all);
        if (at == nullptr) return false;
        for (const auto& [to, size] : wanted) to->data = at, at += size;
        return true;
    }
};

constexpr int64_t kSlots = 128;  // rows of a task

constexpr int64_t kPanel = 48;  // tile columns whose sums exist at once

// One row of sums, whose parts are in adjacent tiles.
struct SumsRow {
    const float* first;
    floats operator[](int64_t tile) const { return load(first + tile * kTileWords); }
};

// Multiplies by the tile columns [first, stop) in panels. Before a panel's sums are used, add(first tile column, tile
// columns, sums) may add to them. Then it calls use(row of the left operand, first tile column, tile columns, sums of the
// row), so that results are stored row by row, contiguously: tile by tile, each row would touch another page of memory.
template <class Use, class Add>
void multiply_panels(const Tiled& left, int64_t rows, const Tiled& right, int64_t first, int64_t stop,
                     Aligned<float>& memory, Use use, Add add) {
    for (; first < stop; first += kPanel) {
        const int64_t wide = std::min(kPanel, stop - first);
        float* sums = memory.fit(rows * wide * kTileWords);
        if (sums == nullptr) return;
        multiply(left, 0, rows, right, first, wide, sums, wide);
        add(first, wide, sums);
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t r = 0; r < kLanes; ++r)
                use(i * kLanes + r, first, wide, SumsRow{sums + i * wide * kTileWords + r * kLanes});
    }
}
template <class Use>
void multiply_panels(const Tiled& left, int64_t rows, const Tiled& right, int64_t first, int64_t stop,
                     Aligned<float>& memory, Use use) {
    multiply_panels(left, rows, right, first, stop, memory, use, [](int64_t, int64_t, float*) {});
}

// Multiplies n rows by a right operand, in a parallel region: get(row, p) gives words p * 16 to p * 16 + 15 of a row, use
// is that of multiply_panels, and add(first row, tile rows, ...) is its add with two more arguments. If rows are too few
// for all threads, columns are divided among them as well.
template <class Get, class Use, class Add>
void multiply_rows(int64_t n, const Tiled& right, int64_t columns, Get get, Use use, Add add) {
    const int64_t blocks = (n + kSlots - 1) / kSlots, panels = (columns + kPanel - 1) / kPanel;
    const int64_t parts = std::clamp<int64_t>(2 * omp_get_num_threads() / std::max<int64_t>(blocks, 1), 1, panels);
    const int64_t wide = (panels + parts - 1) / parts * kPanel;
    Aligned<uint32_t> memory;
    Aligned<float> sums;
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < blocks * parts; ++task) {
        const int64_t first = task / parts * kSlots, begin = task % parts * wide;
        if (begin >= columns) continue;
        const int64_t slots = std::min(kSlots, n - first), rows = round_up(slots, kLanes) / kLanes;
        Tiled left;
        TileMemory pool(memory);
        pool.add(left, rows, right.depth);
        if (!pool.make()) continue;
        fill_left(left, 0, rows, [&](int64_t t, int64_t p) { return t < slots ? get(first + t, p) : words{}; });
        multiply_panels(
            left, rows, right, begin, std::min(begin + wide, columns), sums,
            [&](int64_t t, int64_t j, int64_t count, const SumsRow& row) {
                if (t < slots) use(first + t, j, count, row);
            },
            [&](int64_t j, int64_t count, float* panel) { add(first, rows, j, count, panel); });
    }
}

inline void store_pair(bfloat16* to, floats low, floats high) { write(to, side_by_side(low, high)); }

// The same past the caches, for results that are read much later: their lines need not be fetched to be overwritten. `to`
// begins a cache line. A thread that stored so ends with _mm_sfence().
inline void stream_pair(bfloat16* to, floats low, floats high) {
    _mm512_stream_si512((__m512i*)to, (__m512i)side_by_side(low, high));
}

}  // namespace

#endif
