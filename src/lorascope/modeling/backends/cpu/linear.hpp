// Frozen linear layers, gated MLPs and output heads, with the gradients of their inputs. All widths are multiples of 32.
// A weight is packed into tiles for each call: that takes a twentieth of a matmul of a thousand rows, and keeping the tiles
// would double the model's memory.
#pragma once

#include <utility>
#include <vector>

#include "elementwise.hpp"
#include "lora_gemm.hpp"
#include "gemm.hpp"

#ifdef LORASCOPE_PAIRS

namespace {

thread_local Aligned<uint32_t> frozen_memory;

// A weight as part of the right operand of the outputs of layers with one input.
void fill_transposed(const Tiled& to, int64_t first, int64_t every, int64_t in, int64_t out, const bfloat16* weight) {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < out / kLanes; ++i)
        for (int64_t p = 0; p < in / kPairs; ++p)
            turned_rows(weight + i * kLanes * in + p * kPairs, in, kLanes, kPairs, to.tile(first + i * every, p));
}

// A weight as the right operand of its input's gradient.
void fill_plain(const Tiled& to, int64_t first, int64_t in, int64_t out, const bfloat16* weight) {
#pragma omp for schedule(static)
    for (int64_t p = 0; p < out / kPairs; ++p)
        for (int64_t i = 0; i < in / kLanes; ++i)
            paired_rows(weight + p * kPairs * in + i * kLanes, in, kPairs, kLanes, to.tile(i, first + p));
}

inline void add_pair(float* to, floats low, floats high) {
    store(to, load(to) + low), store(to + kLanes, load(to + kLanes) + high);
}

// 32 neighbours of a row, floats rounded.
inline words pairs_of(const bfloat16* from) { return read<words>(from); }
inline words pairs_of(const float* from) { return side_by_side(load(from), load(from + kLanes)); }

// y = x W^T + b for layers with one input, with the updates of their adapters. A layer with a residual stream adds to it.
void linear_forward(int64_t n, int64_t in, int64_t count, const Linear* layers, const bfloat16* x) {
    std::vector<const Linear*> owner;  // of each pair of tile columns
    std::vector<int64_t> begin;
    for (int64_t layer = 0; layer < count; ++layer) {
        begin.push_back(2 * int64_t(owner.size()));
        owner.insert(owner.end(), layers[layer].out / kPairs, layers + layer);
    }
    Tiled right;
    LoraForward adapters(in, count, layers);
    TileMemory pool(frozen_memory);
    pool.add(right, 2 * int64_t(owner.size()), in / kPairs), adapters.ask(pool);
    if (!pool.make()) return;
#pragma omp parallel
    {
        [[maybe_unused]] const TileSetup setup;
        for (int64_t layer = 0; layer < count; ++layer)
            fill_transposed(right, begin[layer], 1, in, layers[layer].out, layers[layer].weight);
        adapters.prepare(x);
        multiply_rows(
            n, right, 2 * int64_t(owner.size()),
            [&](int64_t row, int64_t p) { return read<words>(x + row * in + p * kPairs); },
            [&](int64_t row, int64_t first, int64_t wide, const SumsRow& sums) {
                for (int64_t j = 0; j < wide; j += 2) {
                    const Linear& own = *owner[(first + j) / 2];
                    const int64_t column = (first + j - begin[&own - layers]) * kLanes;
                    floats low = sums[j], high = sums[j + 1];
                    if (own.bias != nullptr) low += load(own.bias + column), high += load(own.bias + column + kLanes);
                    if (own.residual == nullptr) store_pair(own.y + row * own.out + column, low, high);
                    else add_pair(own.residual + row * own.out + column, low, high);
                }
            },
            [&](int64_t first, int64_t rows, int64_t column, int64_t wide, float* sums) {
                adapters.add(first, rows, column, wide, sums);
            });
    }
}

// dx = the sum of dy W over layers with one input, with the input gradients of their adapters; and the adapters' gradients.
// Without adapters x may be null; dx may be null if it is not needed.
void linear_backward(int64_t n, int64_t in, int64_t count, const Linear* layers, const bfloat16* x, bfloat16* dx) {
    std::vector<std::pair<const Linear*, int64_t>> parts;  // 32 columns of a gradient: layer, first column
    for (int64_t layer = 0; layer < count; ++layer)
        for (int64_t column = 0; column < layers[layer].out; column += kPairs) parts.emplace_back(layers + layer, column);
    Tiled right;
    LoraBackward adapters(in, count, layers, dx != nullptr);
    TileMemory pool(frozen_memory);
    if (dx != nullptr) pool.add(right, in / kLanes, parts.size());
    adapters.ask(pool);
    if (!pool.make()) return;
#pragma omp parallel
    {
        [[maybe_unused]] const TileSetup setup;
        adapters.prepare();
        if (dx != nullptr) {
            for (int64_t layer = 0, first = 0; layer < count; first += layers[layer++].out / kPairs)
                fill_plain(right, first, in, layers[layer].out, layers[layer].weight);
            Aligned<float> memory;
            multiply_rows(
                n, right, in / kLanes,
                [&](int64_t row, int64_t p) {
                    const auto [own, column] = parts[p];
                    const int64_t at = row * own->out + column;
                    return own->residual == nullptr ? pairs_of(own->y + at) : pairs_of(own->residual + at);
                },
                [&](int64_t row, int64_t first, int64_t wide, const SumsRow& sums) {
                    for (int64_t j = 0; j < wide; j += 2)
                        store_pair(dx + row * in + (first + j) * kLanes, sums[j], sums[j + 1]);
                },
                [&](int64_t first, int64_t rows, int64_t column, int64_t wide, float* sums) {
                    adapters.add(first, rows, column, wide, sums, memory);
                });
        }
        adapters.sum_up(x);
    }
}

// Writes results into a left operand: 16 numbers of a row, from tile column j of the matmul before.
inline void keep(const Tiled& to, int64_t row, int64_t j, floats values) {
    write(to.tile(row / kLanes, j / 2) + row % kLanes * kLanes + j % 2 * (kLanes / 2), rounded(values));
}

// Two matmuls in one task, in a parallel region: n rows of x by `right`, and a function of the result by `last`. It calls
// make(row, whether the row exists, row of the task, first tile column, tile columns, sums, left operand to fill), and then
// use(row, ...) as that of multiply_panels. With many threads a task has few rows, a tile's at least.
template <class In, class Make, class Use>
void multiply_twice(int64_t n, const In* x, const Tiled& right, int64_t columns, const Tiled& last, int64_t last_columns,
                    Make make, Use use) {
    const int64_t most = std::clamp(round_up(n / (2 * omp_get_num_threads()), kLanes), kLanes, kSlots);
    Aligned<uint32_t> memory;
    Aligned<float> sums_memory;
#pragma omp for schedule(dynamic)
    for (int64_t first = 0; first < n; first += most) {
        const int64_t slots = std::min(most, n - first), rows = round_up(slots, kLanes) / kLanes;
        Tiled left, between;
        TileMemory pool(memory);
        pool.add(left, rows, right.depth), pool.add(between, rows, last.depth);
        if (!pool.make()) continue;
        fill_left(left, 0, rows, [&](int64_t t, int64_t p) {
            return t < slots ? pairs_of(x + ((first + t) * right.depth + p) * kPairs) : words{};
        });
        multiply_panels(left, rows, right, 0, columns, sums_memory,
                        [&](int64_t t, int64_t column, int64_t wide, const SumsRow& sums) {
            make(first + std::min(t, slots - 1), t < slots, t, column, wide, sums, between);
        });
        multiply_panels(between, rows, last, 0, last_columns, sums_memory,
                        [&](int64_t t, int64_t column, int64_t wide, const SumsRow& sums) {
            if (t < slots) use(first + t, column, wide, sums);
        });
    }
}

// gated = x G^T and raised = x U^T, [n, mid]; y [n, out] = (silu(gated) * raised) D^T + b, or the residual stream with it.
// One task computes and multiplies the intermediate result, which never goes to memory.
void gated_forward(int64_t n, int64_t in, int64_t mid, int64_t out, const bfloat16* x, const bfloat16* gate,
                   const bfloat16* up, const bfloat16* down, const bfloat16* bias, bfloat16* gated, bfloat16* raised,
                   bfloat16* y, float* residual) {
    Tiled right, right_down;
    TileMemory pool(frozen_memory);
    pool.add(right, 2 * mid / kLanes, in / kPairs), pool.add(right_down, out / kLanes, mid / kPairs);
    if (!pool.make()) return;
#pragma omp parallel
    {
        [[maybe_unused]] const TileSetup setup;
        fill_transposed(right, 0, 2, in, mid, gate), fill_transposed(right, 1, 2, in, mid, up);
        fill_transposed(right_down, 0, 1, mid, out, down);
        multiply_twice(
            n, x, right, 2 * mid / kLanes, right_down, out / kLanes,
            [&](int64_t row, bool inside, int64_t t, int64_t column, int64_t wide, const SumsRow& sums, const Tiled& to) {
                for (int64_t j = 0; j < wide; j += 4) {
                    const int64_t tile = (column + j) / 2, at = row * mid + tile * kLanes;
                    const floats g = sums[j], u = sums[j + 1], next_g = sums[j + 2], next_u = sums[j + 3];
                    if (inside) stream_pair(gated + at, g, next_g), stream_pair(raised + at, u, next_u);
                    keep(to, t, tile, g * sigmoid(g) * u), keep(to, t, tile + 1, next_g * sigmoid(next_g) * next_u);
                }
            },
            [&](int64_t row, int64_t column, int64_t wide, const SumsRow& sums) {
                for (int64_t j = 0; j < wide; j += 2) {
                    const int64_t place = (column + j) * kLanes, at = row * out + place;
                    floats low = sums[j], high = sums[j + 1];
                    if (bias != nullptr) low += load(bias + place), high += load(bias + place + kLanes);
                    if (residual == nullptr) store_pair(y + at, low, high);
                    else add_pair(residual + at, low, high);
                }
            });
        _mm_sfence();
    }
}

// dx [n, in] from the gradient of such a layer's output, which is float for a residual stream.
template <class G>
void gated_backward(int64_t n, int64_t in, int64_t mid, int64_t out, const G* dy, const bfloat16* gate,
                    const bfloat16* up, const bfloat16* down, const bfloat16* gated, const bfloat16* raised, bfloat16* dx) {
    Tiled right, right_down;
    TileMemory pool(frozen_memory);
    pool.add(right_down, mid / kLanes, out / kPairs), pool.add(right, in / kLanes, 2 * mid / kPairs);
    if (!pool.make()) return;
#pragma omp parallel
    {
        [[maybe_unused]] const TileSetup setup;
        fill_plain(right_down, 0, mid, out, down);
        fill_plain(right, 0, in, mid, gate), fill_plain(right, mid / kPairs, in, mid, up);
        multiply_twice(
            n, dy, right_down, mid / kLanes, right, in / kLanes,
            [&](int64_t row, bool, int64_t t, int64_t column, int64_t wide, const SumsRow& sums, const Tiled& to) {
                for (int64_t j = column; j < column + wide; ++j) {
                    const int64_t at = row * mid + j * kLanes;
                    const auto [dgate, dup] = silu_mul_gradients(load(gated + at), load(raised + at), sums[j - column]);
                    keep(to, t, j, dgate), keep(to, t, mid / kLanes + j, dup);
                }
            },
            [&](int64_t row, int64_t column, int64_t wide, const SumsRow& sums) {
                for (int64_t j = 0; j < wide; j += 2)
                    store_pair(dx + row * in + (column + j) * kLanes, sums[j], sums[j + 1]);
            });
    }
}

// y [n, out] = x W^T + b for few rows and many outputs: a task takes all rows and a panel of outputs.
void head_forward(int64_t n, int64_t in, int64_t out, const bfloat16* x, const bfloat16* weight,
                       const bfloat16* bias, bfloat16* y) {
    const int64_t rows = round_up(n, kLanes) / kLanes, depth = in / kPairs, columns = out / kLanes;
    Tiled left;
    TileMemory pool(frozen_memory);
    pool.add(left, rows, depth);
    if (!pool.make()) return;
#pragma omp parallel
    {
        [[maybe_unused]] const TileSetup setup;
        Aligned<uint32_t> memory;
        Aligned<float> sums;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; ++i)
            fill_left(left, i, i + 1, [&](int64_t t, int64_t p) {
                return t < n ? read<words>(x + t * in + p * kPairs) : words{};
            });
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < columns; first += kPanel) {
            const int64_t wide = std::min(kPanel, columns - first);
            Tiled right;
            TileMemory own_pool(memory);
            own_pool.add(right, wide, depth);
            if (!own_pool.make()) continue;
            for (int64_t j = 0; j < wide; ++j)
                for (int64_t p = 0; p < depth; ++p)
                    turned_rows(weight + (first + j) * kLanes * in + p * kPairs, in, kLanes, kPairs, right.tile(j, p));
            for (int64_t i = 0; i < rows; i += kSlots / kLanes) {
                const int64_t high = std::min(kSlots / kLanes, rows - i);
                if (sums.fit(high * wide * kTileWords) == nullptr) break;
                multiply(left, i, high, right, 0, wide, sums.data, wide);
                for (int64_t t = i * kLanes; t < std::min(n, (i + high) * kLanes); ++t) {
                    const SumsRow row{sums.data + (t / kLanes - i) * wide * kTileWords + t % kLanes * kLanes};
                    for (int64_t j = 0; j < wide; j += 2) {
                        const int64_t column = (first + j) * kLanes;
                        floats low = row[j], higher = row[j + 1];
                        if (bias != nullptr) low += load(bias + column), higher += load(bias + column + kLanes);
                        stream_pair(y + t * out + column, low, higher);
                    }
                }
            }
        }
        _mm_sfence();
    }
}

// dx [n, in] = dy W for few rows and many outputs. Outputs are summed in kGroups groups, each in chunks of kChunk, so that
// the order of the sums does not depend on the number of threads.
void head_backward(int64_t n, int64_t in, int64_t out, const bfloat16* dy, const bfloat16* weight, bfloat16* dx) {
    constexpr int64_t kGroups = 8, kChunk = 512, kMostColumns = 48;
    thread_local Aligned<float> all_sums;
    const int64_t rows = round_up(n, kLanes) / kLanes, columns = in / kLanes, size = rows * columns * kTileWords;
    float* sums = all_sums.fit(kGroups * size);
    if (sums == nullptr) return;
    const int64_t panels = (columns + kMostColumns - 1) / kMostColumns, panel = round_up((columns + panels - 1) / panels, 2);
#pragma omp parallel
    {
        [[maybe_unused]] const TileSetup setup;
        Aligned<uint32_t> memory;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < kGroups * panels; ++task) {
            const int64_t group = task % kGroups, begin = task / kGroups * panel, wide = std::min(panel, columns - begin);
            float* own = sums + group * size + begin * kTileWords;
            for (int64_t first = group * kChunk; first < out; first += kGroups * kChunk) {
                const int64_t depth = std::min(kChunk, out - first) / kPairs;
                Tiled left, right;
                TileMemory pool(memory);
                pool.add(left, rows, depth), pool.add(right, wide, depth);
                if (!pool.make()) break;
                fill_left(left, 0, rows, [&](int64_t t, int64_t p) {
                    return t < n ? read<words>(dy + t * out + first + p * kPairs) : words{};
                });
                for (int64_t p = 0; p < depth; ++p)
                    for (int64_t j = 0; j < wide; ++j)
                        paired_rows(weight + (first + p * kPairs) * in + (begin + j) * kLanes, in, kPairs, kLanes,
                                    right.tile(j, p));
                multiply(left, 0, rows, right, 0, wide, own, columns, first >= kGroups * kChunk);
            }
        }
        const int64_t used = std::min(kGroups, (out + kChunk - 1) / kChunk);
#pragma omp for schedule(static)
        for (int64_t t = 0; t < n; ++t)
            for (int64_t j = 0; j < columns; ++j) {
                const float* at = sums + (t / kLanes * columns + j) * kTileWords + t % kLanes * kLanes;
                floats sum = load(at);
                for (int64_t group = 1; group < used; ++group) sum += load(at + group * size);
                store(dx + t * in + j * kLanes, sum);
            }
    }
}

}  // namespace

#endif
