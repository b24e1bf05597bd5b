// Low-rank adapters of linear layers with one input, and their gradients (Hu et al. 2021, arXiv 2106.09685, section 4.1):
// y = x W^T + b + factor * dropped(x) A^T B^T for the slots of each adapter. Updates are added to sums before rounding: a
// rounded result would lose most of a small update.
#pragma once

#include <vector>

#include "dropout.hpp"
#include "gemm.hpp"

#ifdef LORASCOPE_PAIRS

namespace {

// One adapter in a layer and its slots; ctypes_structs.py has the same fields in the same order.
struct LoraSegment {
    int64_t first, slots, rank;  // the first two are multiples of 32
    double factor;
    const float *a, *b;     // [rank, in], [out, rank], rounded when they are multiplied
    bfloat16* hidden;       // factor * dropped(x) A^T [slots, rank filled up to a multiple of 32]
    float *da, *db;         // gradients to add to, as a and b
    int64_t rows;           // of the dropout's bits; 0 without dropout
    const int64_t* widths;
    const uint16_t* kept;

    int64_t wide() const { return round_up(rank, kPairs); }
    int64_t tiles() const { return round_up(rank, kLanes) / kLanes; }

    // Where each slot's bits begin.
    std::vector<const uint16_t*> bits(int64_t in) const {
        std::vector<const uint16_t*> found(slots, nullptr);
        const uint16_t* own = kept;
        for (int64_t row = 0, slot = 0; row < rows; ++row) {
            for (int64_t i = 0; i < widths[row]; ++i) found[slot++] = own + i * in / kLanes;
            own += (widths[row] * in + kBlock - 1) / kBlock * (kBlock / kLanes);
        }
        return found;
    }
};

// A frozen layer y = x W^T + b with its adapters; ctypes_structs.py has the same fields in the same order.
struct Linear {
    int64_t out;
    const bfloat16 *weight, *bias;  // [out, in]; [out] or null
    bfloat16* y;                    // [n, out], or its gradient in the backward pass; null with a residual stream
    float* residual;                // [n, out], to which the output is added, or its gradient; without adapters, or null
    int64_t n_segments;
    const LoraSegment* segments;
};

// An adapter in one of the layers with one input, and the first tile column of that layer's outputs among all.
struct Adapted {
    const LoraSegment& own;
    const Linear& layer;
    int64_t begin;
    std::vector<const uint16_t*> bits;

    int64_t tasks() const { return (own.slots + kSlots - 1) / kSlots; }
};

inline std::vector<Adapted> adapters_of(int64_t in, int64_t count, const Linear* layers) {
    std::vector<Adapted> found;
    int64_t begin = 0;
    for (int64_t layer = 0; layer < count; begin += layers[layer++].out / kLanes)
        for (int64_t segment = 0; segment < layers[layer].n_segments; ++segment) {
            const LoraSegment& own = layers[layer].segments[segment];
            found.push_back({own, layers[layer], begin, own.bits(in)});
        }
    return found;
}

// Tile rows that an adapter shares with a task: the first one in each, and their number.
struct Common {
    int64_t own, task, rows;

    Common(const LoraSegment& segment, int64_t first, int64_t tile_rows) {
        const int64_t begin = std::max(segment.first, first);
        own = (begin - segment.first) / kLanes, task = (begin - first) / kLanes;
        rows = (std::min(segment.first + segment.slots, first + tile_rows * kLanes) - begin) / kLanes;
    }
};

inline uint32_t two_words(const uint16_t* kept, int64_t part) {
    return kept == nullptr ? ~0u : uint32_t(kept[part]) | uint32_t(kept[part + 1]) << 16;
}

// Runs the tasks of all adapters; each(adapter) is their number: use(index of the adapter, its task).
template <class Each, class Use> void for_each_adapter(const std::vector<Adapted>& adapters, Each each, Use use) {
    std::vector<int64_t> first(1, 0);
    for (const Adapted& adapter : adapters) first.push_back(first.back() + each(adapter));
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < first.back(); ++task) {
        size_t at = 0;
        while (task >= first[at + 1]) ++at;
        use(at, task - first[at]);
    }
}

// The updates of adapters in a forward pass. prepare() and add() belong in a parallel region.
class LoraForward {
    struct Operands {
        Tiled a, b, hidden;  // A^T, B^T, factor * dropped(x) A^T
    };
    const int64_t in;
    const std::vector<Adapted> adapters;
    std::vector<Operands> operands;

  public:
    LoraForward(int64_t in, int64_t count, const Linear* layers)
        : in(in), adapters(adapters_of(in, count, layers)), operands(adapters.size()) {}

    void ask(TileMemory& pool) {
        for (size_t at = 0; at < adapters.size(); ++at) {
            const LoraSegment& own = adapters[at].own;
            pool.add(operands[at].a, own.tiles(), in / kPairs);
            pool.add(operands[at].b, adapters[at].layer.out / kLanes, own.wide() / kPairs);
            pool.add(operands[at].hidden, own.slots / kLanes, own.wide() / kPairs);
        }
    }

    void prepare(const bfloat16* x) {
        if (adapters.empty()) return;
        for_each_adapter(adapters, [](const Adapted& adapter) { return adapter.own.tiles(); }, [&](size_t at, int64_t i) {
            const LoraSegment& own = adapters[at].own;
            for (int64_t p = 0; p < in / kPairs; ++p)
                turned_rows(own.a + i * kLanes * in + p * kPairs, in, own.rank - i * kLanes, kPairs,
                            operands[at].a.tile(i, p));
        });
        for_each_adapter(adapters, [](const Adapted& adapter) { return adapter.layer.out / kLanes; },
                         [&](size_t at, int64_t i) {
            const LoraSegment& own = adapters[at].own;
            for (int64_t p = 0; p < own.wide() / kPairs; ++p)
                turned_rows(own.b + i * kLanes * own.rank + p * kPairs, own.rank, kLanes, own.rank - p * kPairs,
                            operands[at].b.tile(i, p));
        });
        Aligned<uint32_t> memory;
        Aligned<float> sums_memory;
        for_each_adapter(adapters, [](const Adapted& adapter) { return adapter.tasks(); }, [&](size_t at, int64_t task) {
            const LoraSegment& own = adapters[at].own;
            const int64_t first = task * kSlots, rows = std::min(kSlots, own.slots - first) / kLanes, wide = own.wide();
            Tiled dropped;
            TileMemory pool(memory);
            pool.add(dropped, rows, in / kPairs);
            if (!pool.make()) return;
            fill_left(dropped, 0, rows, [&](int64_t t, int64_t p) {
                const bfloat16* row = x + (own.first + first + t) * in;
                return kept_pairs(row + p * kPairs, two_words(adapters[at].bits[first + t], 2 * p));
            });
            const Tiled& hidden = operands[at].hidden;
            const auto keep = [&](int64_t t, int64_t j, halves h) {
                write(own.hidden + t * wide + j * kLanes, h);
                write(hidden.tile(t / kLanes, j / 2) + t % kLanes * kLanes + j % 2 * (kLanes / 2), h);
            };
            const float factor = float(own.factor);
            multiply_panels(dropped, rows, operands[at].a, 0, own.tiles(), sums_memory,
                            [&](int64_t t, int64_t j, int64_t count, const SumsRow& sums) {
                for (int64_t c = 0; c < count; ++c) keep(first + t, j + c, rounded(factor * sums[c]));
            });
            if (own.tiles() % 2 != 0)
                for (int64_t t = 0; t < rows * kLanes; ++t) keep(first + t, own.tiles(), halves{});
        });
    }

    // Adds to sums of the slots from `first` on and of `wide` tile columns from `column` on.
    void add(int64_t first, int64_t rows, int64_t column, int64_t wide, float* sums) const {
        for (size_t at = 0; at < adapters.size(); ++at) {
            const Adapted& adapter = adapters[at];
            const Common common(adapter.own, first, rows);
            const int64_t begin = std::max(column, adapter.begin);
            const int64_t stop = std::min(column + wide, adapter.begin + adapter.layer.out / kLanes);
            if (common.rows <= 0 || begin >= stop) continue;
            multiply(operands[at].hidden, common.own, common.rows, operands[at].b, begin - adapter.begin, stop - begin,
                     sums + (common.task * wide + begin - column) * kTileWords, wide, true);
        }
    }
};

// The gradients of adapters, and their input gradients. prepare(), add() and sum_up() belong in a parallel region.
class LoraBackward {
    struct Operands {
        Tiled b, a, back;       // B, A, and factor * dy B
        Tiled dhidden, hidden;  // operands that are summed over slots, with x and dy
    };
    const int64_t in;
    const bool wants_dx;
    const std::vector<Adapted> adapters;
    std::vector<Operands> operands;

  public:
    LoraBackward(int64_t in, int64_t count, const Linear* layers, bool wants_dx)
        : in(in), wants_dx(wants_dx), adapters(adapters_of(in, count, layers)), operands(adapters.size()) {}

    void ask(TileMemory& pool) {
        for (size_t at = 0; at < adapters.size(); ++at) {
            const LoraSegment& own = adapters[at].own;
            const int64_t out = adapters[at].layer.out, depth = own.slots / kPairs;
            Operands& to = operands[at];
            pool.add(to.b, own.tiles(), out / kPairs), pool.add(to.back, own.slots / kLanes, own.wide() / kPairs);
            if (wants_dx) pool.add(to.a, in / kLanes, own.wide() / kPairs);
            pool.add(to.dhidden, own.tiles(), depth), pool.add(to.hidden, own.tiles(), depth);
        }
    }

    void prepare() {
        if (adapters.empty()) return;
        for_each_adapter(adapters, [](const Adapted& adapter) { return adapter.own.tiles(); }, [&](size_t at, int64_t i) {
            const LoraSegment& own = adapters[at].own;
            for (int64_t p = 0; p < adapters[at].layer.out / kPairs; ++p)
                paired_rows(own.b + p * kPairs * own.rank + i * kLanes, own.rank, kPairs, own.rank - i * kLanes,
                            operands[at].b.tile(i, p));
        });
        for_each_adapter(adapters, [&](const Adapted&) { return wants_dx ? in / kLanes : 0; }, [&](size_t at, int64_t i) {
            const LoraSegment& own = adapters[at].own;
            for (int64_t p = 0; p < own.wide() / kPairs; ++p)
                paired_rows(own.a + p * kPairs * in + i * kLanes, in, own.rank - p * kPairs, kLanes,
                            operands[at].a.tile(i, p));
        });
        Aligned<uint32_t> memory;
        Aligned<float> sums_memory;
        for_each_adapter(adapters, [](const Adapted& adapter) { return adapter.tasks(); }, [&](size_t at, int64_t task) {
            const LoraSegment& own = adapters[at].own;
            const Operands& to = operands[at];
            const int64_t first = task * kSlots, slots = std::min(kSlots, own.slots - first), wide = own.wide();
            const int64_t out = adapters[at].layer.out;
            const bfloat16* dy = adapters[at].layer.y;
            Tiled grad;
            TileMemory pool(memory);
            pool.add(grad, slots / kLanes, out / kPairs);
            if (!pool.make()) return;
            fill_left(grad, 0, slots / kLanes, [&](int64_t t, int64_t p) {
                return read<words>(dy + (own.first + first + t) * out + p * kPairs);
            });
            for (int64_t t = first; t < first + slots; t += kPairs)
                for (int64_t j = 0; j < own.tiles(); ++j)
                    paired_rows(own.hidden + t * wide + j * kLanes, wide, kPairs, kLanes, to.hidden.tile(j, t / kPairs));
            const float factor = float(own.factor);
            const auto place = [&](int64_t t, int64_t j) {
                return to.back.tile(t / kLanes, j / 2) + t % kLanes * kLanes + j % 2 * (kLanes / 2);
            };
            multiply_panels(grad, slots / kLanes, to.b, 0, own.tiles(), sums_memory,
                            [&](int64_t t, int64_t j, int64_t count, const SumsRow& sums) {
                for (int64_t c = 0; c < count; ++c) write(place(first + t, j + c), rounded(factor * sums[c]));
            });
            if (own.tiles() % 2 != 0)
                for (int64_t t = first; t < first + slots; ++t) write(place(t, own.tiles()), halves{});
            for (int64_t t = first; t < first + slots; t += kPairs)
                for (int64_t j = 0; j < own.tiles(); ++j) {
                    words tile[kLanes];
                    interleave(tile, [&](int64_t r) { return read<halves>(place(t + r, j)); });
                    turn(tile), put(to.dhidden.tile(j, t / kPairs), tile);
                }
        });
    }

    // Adds to sums of the slots from `first` on and of `wide` tile columns of the input from `column` on.
    void add(int64_t first, int64_t rows, int64_t column, int64_t wide, float* sums, Aligned<float>& memory) const {
        for (size_t at = 0; at < adapters.size(); ++at) {
            const Common common(adapters[at].own, first, rows);
            if (common.rows <= 0) continue;
            float* more = memory.fit(common.rows * wide * kTileWords);
            if (more == nullptr) return;
            multiply(operands[at].back, common.own, common.rows, operands[at].a, column, wide, more, wide);
            for (int64_t t = 0; t < common.rows * kLanes; ++t) {
                const uint16_t* kept = adapters[at].bits[common.own * kLanes + t];
                for (int64_t j = 0; j < wide; ++j) {
                    const int64_t tile = (t / kLanes * wide + j) * kTileWords + t % kLanes * kLanes;
                    float* to = sums + common.task * wide * kTileWords + tile;
                    const floats own = load(more + tile);
                    store(to, load(to) + (kept == nullptr ? own : where(unpacked(kept[column + j]), own, 0)));
                }
            }
        }
    }

    // Two tile columns of an operand that is summed over an adapter's slots: get(slot of the adapter, which of the two).
    // finish(tile) may transpose each tile of pairs (slot pair, column): as it is, it belongs to a right operand,
    // transposed to a left one.
    template <class Get, class Finish>
    static Tiled two_columns(const LoraSegment& own, Aligned<uint32_t>& memory, Get get, Finish finish) {
        Tiled to;
        TileMemory pool(memory);
        pool.add(to, 2, own.slots / kPairs);
        if (!pool.make()) return {};
        for (int64_t p = 0; p < to.depth; ++p)
            for (int64_t half = 0; half < 2; ++half) {
                words tile[kLanes];
                interleave(tile, [&](int64_t r) { return get(p * kPairs + r, half); });
                finish(tile), put(to.tile(half, p), tile);
            }
        return to;
    }

    // Adds to the gradients of A and B: two tile columns of A's a task, then as many tile rows of B's.
    void sum_up(const bfloat16* x) {
        if (adapters.empty()) return;
        Aligned<uint32_t> memory;
        Aligned<float> sums_memory;
        for_each_adapter(adapters, [&](const Adapted&) { return in / kPairs; }, [&](size_t at, int64_t task) {
            const LoraSegment& own = adapters[at].own;
            float* sums = sums_memory.fit(own.tiles() * 2 * kTileWords);
            const auto get = [&](int64_t t, int64_t half) {
                const uint16_t* kept = adapters[at].bits[t];
                const int64_t j = 2 * task + half;
                return kept_halves(x + (own.first + t) * in + j * kLanes, kept == nullptr ? 0xffff : kept[j]);
            };
            const Tiled dropped = two_columns(own, memory, get, [](words*) {});
            if (sums == nullptr || dropped.data == nullptr) return;
            multiply(operands[at].dhidden, 0, own.tiles(), dropped, 0, 2, sums, 2);
            for (int64_t r = 0; r < own.rank; ++r) {
                const SumsRow row{sums + r / kLanes * 2 * kTileWords + r % kLanes * kLanes};
                float* to = own.da + r * in + task * kPairs;
                store(to, load(to) + row[0]), store(to + kLanes, load(to + kLanes) + row[1]);
            }
        });
        for_each_adapter(adapters, [](const Adapted& adapter) { return adapter.layer.out / kPairs; },
                         [&](size_t at, int64_t task) {
            const LoraSegment& own = adapters[at].own;
            const Linear& layer = adapters[at].layer;
            float* sums = sums_memory.fit(2 * own.tiles() * kTileWords);
            const auto get = [&](int64_t t, int64_t half) {
                return read<halves>(layer.y + (own.first + t) * layer.out + (2 * task + half) * kLanes);
            };
            const Tiled dy = two_columns(own, memory, get, turn);
            if (sums == nullptr || dy.data == nullptr) return;
            multiply(dy, 0, 2, operands[at].hidden, 0, own.tiles(), sums, own.tiles());
            for (int64_t r = 0; r < kPairs; ++r) {
                const SumsRow row{sums + r / kLanes * own.tiles() * kTileWords + r % kLanes * kLanes};
                float* to = own.db + (task * kPairs + r) * own.rank;
                for (int64_t j = 0, left = own.rank; left > 0; ++j, left -= kLanes)
                    store(to + j * kLanes, load(to + j * kLanes, left) + row[j], left);
            }
        });
    }
};

}  // namespace

#endif
