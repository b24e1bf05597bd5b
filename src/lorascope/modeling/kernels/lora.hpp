// What low-rank adapters add to one linear layer, and their gradients (Hu et al. 2021, arXiv 2106.09685, section 4.1):
// y += factor * dropped(x) A^T B^T for the slots of each adapter.
#pragma once

#include <vector>

#include "dropout.hpp"
#include "products.hpp"

#ifdef LORASCOPE_PAIRS

namespace {

// One adapter in a layer and the slots that are its own; kernels/calls.py has the same fields in the same order.
struct LoraPart {
    int64_t first, slots, rank;  // slots are a multiple of 32
    double factor;
    const bfloat16 *a, *b;  // [rank, in], [out, rank]
    bfloat16* hidden;       // dropped(x) A^T [slots, rank filled up to a multiple of 32]
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

inline uint32_t two_words(const uint16_t* kept, int64_t part) {
    return kept == nullptr ? ~0u : uint32_t(kept[part]) | uint32_t(kept[part + 1]) << 16;
}

// Tasks of all parts, `each` giving a part's number of them: use(part, task in the part).
template <class Each, class Use> void for_each_part(int64_t parts, Each each, Use use) {
    std::vector<int64_t> first(parts + 1, 0);
    for (int64_t part = 0; part < parts; ++part) first[part + 1] = first[part] + each(part);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < first[parts]; ++task) {
        int64_t part = 0;
        while (task >= first[part + 1]) ++part;
        use(part, task - first[part]);
    }
}

void lora_forward(int64_t n, const LoraPart* parts, int64_t in, int64_t out, const bfloat16* x, bfloat16* y) {
    thread_local Aligned<uint32_t> memory;
    struct Operands {
        Tiled a, b;  // A^T and B^T
    };
    std::vector<Operands> operands(n);
    std::vector<std::vector<const uint16_t*>> bits(n);
    TileMemory room(memory);
    for (int64_t part = 0; part < n; ++part) {
        room.add(operands[part].a, parts[part].tiles(), in / kPairs);
        room.add(operands[part].b, out / kLanes, parts[part].wide() / kPairs);
        bits[part] = parts[part].bits(in);
    }
    if (!room.make()) return;
#pragma omp parallel
    {
        [[maybe_unused]] const TileSetup setup;
        for_each_part(n, [&](int64_t part) { return parts[part].tiles(); }, [&](int64_t part, int64_t i) {
            const LoraPart& own = parts[part];
            for (int64_t p = 0; p < in / kPairs; ++p)
                turned_rows(own.a + i * kLanes * in + p * kPairs, in, own.rank - i * kLanes, kPairs,
                            operands[part].a.tile(i, p));
        });
        for_each_part(n, [&](int64_t) { return out / kLanes; }, [&](int64_t part, int64_t i) {
            const LoraPart& own = parts[part];
            for (int64_t p = 0; p < own.wide() / kPairs; ++p)
                turned_rows(own.b + i * kLanes * own.rank + p * kPairs, own.rank, kLanes, own.rank - p * kPairs,
                            operands[part].b.tile(i, p));
        });
        Aligned<uint32_t> own_memory;
        Aligned<float> sums_memory;
        for_each_part(n, [&](int64_t part) { return (parts[part].slots + kSlots - 1) / kSlots; },
                      [&](int64_t part, int64_t task) {
            const LoraPart& own = parts[part];
            const int64_t first = task * kSlots, slots = std::min(kSlots, own.slots - first), wide = own.wide();
            Tiled dropped, hidden;
            TileMemory room(own_memory);
            room.add(dropped, slots / kLanes, in / kPairs), room.add(hidden, slots / kLanes, wide / kPairs);
            if (!room.make()) return;
            fill_left(dropped, 0, slots / kLanes, [&](int64_t t, int64_t p) {
                const bfloat16* row = x + (own.first + first + t) * in;
                return kept_pairs(row + p * kPairs, two_words(bits[part][first + t], 2 * p));
            });
            const auto keep = [&](int64_t t, int64_t j, halves h) {
                write(own.hidden + (first + t) * wide + j * kLanes, h);
                write(hidden.tile(t / kLanes, j / 2) + t % kLanes * kLanes + j % 2 * (kLanes / 2), h);
            };
            multiply_panels(dropped, slots / kLanes, operands[part].a, 0, own.tiles(), sums_memory,
                                        [&](int64_t t, int64_t j, int64_t wide_here, const SumsRow& sums) {
                for (int64_t c = 0; c < wide_here; ++c) keep(t, j + c, rounded(sums[c]));
            });
            if (own.tiles() % 2 != 0)
                for (int64_t t = 0; t < slots; ++t) keep(t, own.tiles(), halves{});
            const float factor = float(own.factor);
            multiply_panels(hidden, slots / kLanes, operands[part].b, 0, out / kLanes, sums_memory,
                                        [&](int64_t t, int64_t j, int64_t wide_here, const SumsRow& sums) {
                bfloat16* to = y + (own.first + first + t) * out + j * kLanes;
                for (int64_t c = 0; c < wide_here; ++c)
                    store(to + c * kLanes, load(to + c * kLanes) + factor * sums[c]);
            });
        });
    }
}

void lora_backward(int64_t n, const LoraPart* parts, int64_t in, int64_t out, const bfloat16* x, const bfloat16* dy,
                        bfloat16* dx) {
    thread_local Aligned<uint32_t> memory;
    struct Operands {
        Tiled b, a;                   // B and A, to go back through
        Tiled dhidden, x, dy, hidden;  // summed over slots
    };
    std::vector<Operands> operands(n);
    std::vector<std::vector<const uint16_t*>> bits(n);
    TileMemory room(memory);
    for (int64_t part = 0; part < n; ++part) {
        const LoraPart& own = parts[part];
        Operands& to = operands[part];
        const int64_t depth = own.slots / kPairs;
        room.add(to.b, own.tiles(), out / kPairs), room.add(to.a, in / kLanes, own.wide() / kPairs);
        room.add(to.dhidden, own.tiles(), depth), room.add(to.x, in / kLanes, depth);
        room.add(to.dy, out / kLanes, depth), room.add(to.hidden, own.tiles(), depth);
        bits[part] = own.bits(in);
    }
    if (!room.make()) return;
#pragma omp parallel
    {
        [[maybe_unused]] const TileSetup setup;
        for_each_part(n, [&](int64_t part) { return parts[part].tiles(); }, [&](int64_t part, int64_t i) {
            const LoraPart& own = parts[part];
            for (int64_t p = 0; p < out / kPairs; ++p)
                paired_rows(own.b + p * kPairs * own.rank + i * kLanes, own.rank, kPairs, own.rank - i * kLanes,
                            operands[part].b.tile(i, p));
        });
        for_each_part(n, [&](int64_t) { return dx == nullptr ? 0 : in / kLanes; }, [&](int64_t part, int64_t i) {
            const LoraPart& own = parts[part];
            for (int64_t p = 0; p < own.wide() / kPairs; ++p)
                paired_rows(own.a + p * kPairs * in + i * kLanes, in, own.rank - p * kPairs, kLanes,
                            operands[part].a.tile(i, p));
        });
        Aligned<uint32_t> own_memory;
        Aligned<float> sums_memory;
        for_each_part(n, [&](int64_t part) { return (parts[part].slots + kSlots - 1) / kSlots; },
                      [&](int64_t part, int64_t task) {
            const LoraPart& own = parts[part];
            const Operands& to = operands[part];
            const int64_t first = task * kSlots, slots = std::min(kSlots, own.slots - first), wide = own.wide();
            Tiled grad, dhidden;
            TileMemory room(own_memory);
            room.add(grad, slots / kLanes, out / kPairs), room.add(dhidden, slots / kLanes, wide / kPairs);
            if (!room.make()) return;
            fill_left(grad, 0, slots / kLanes, [&](int64_t t, int64_t p) {
                return read<words>(dy + (own.first + first + t) * out + p * kPairs);
            });
            for (int64_t t = 0; t < slots; t += kPairs) {
                const int64_t p = (first + t) / kPairs, slot = own.first + first + t;
                words tile[kLanes];
                for (int64_t j = 0; j < out / kLanes; ++j) {
                    interleave(tile, [&](int64_t r) { return read<halves>(dy + (slot + r) * out + j * kLanes); });
                    turn(tile), put(to.dy.tile(j, p), tile);
                }
                for (int64_t j = 0; j < own.tiles(); ++j)
                    paired_rows(own.hidden + (first + t) * wide + j * kLanes, wide, kPairs, kLanes,
                                to.hidden.tile(j, p));
                for (int64_t j = 0; j < in / kLanes; ++j) {
                    interleave(tile, [&](int64_t r) {
                        const uint16_t* kept = bits[part][first + t + r];
                        const __mmask16 chosen = kept == nullptr ? 0xffff : kept[j];
                        return (halves)_mm256_maskz_loadu_epi16(chosen, x + (slot + r) * in + j * kLanes);
                    });
                    put(to.x.tile(j, p), tile);
                }
            }
            const float factor = float(own.factor);
            const auto keep = [&](int64_t t, int64_t j, halves h) {
                write(dhidden.tile(t / kLanes, j / 2) + t % kLanes * kLanes + j % 2 * (kLanes / 2), h);
            };
            multiply_panels(grad, slots / kLanes, to.b, 0, own.tiles(), sums_memory,
                                        [&](int64_t t, int64_t j, int64_t wide_here, const SumsRow& sums) {
                for (int64_t c = 0; c < wide_here; ++c) keep(t, j + c, rounded(factor * sums[c]));
            });
            if (own.tiles() % 2 != 0)
                for (int64_t t = 0; t < slots; ++t) keep(t, own.tiles(), halves{});
            for (int64_t t = 0; t < slots; t += kPairs)
                for (int64_t j = 0; j < own.tiles(); ++j) {
                    words tile[kLanes];
                    interleave(tile, [&](int64_t r) {
                        return read<halves>(dhidden.tile((t + r) / kLanes, j / 2) + (t + r) % kLanes * kLanes +
                                            j % 2 * (kLanes / 2));
                    });
                    turn(tile), put(to.dhidden.tile(j, (first + t) / kPairs), tile);
                }
            if (dx == nullptr) return;
            multiply_panels(dhidden, slots / kLanes, to.a, 0, in / kLanes, sums_memory,
                                        [&](int64_t t, int64_t j, int64_t wide_here, const SumsRow& sums) {
                const uint16_t* kept = bits[part][first + t];
                bfloat16* line = dx + (own.first + first + t) * in + j * kLanes;
                for (int64_t c = 0; c < wide_here; ++c) {
                    const floats more = kept == nullptr ? sums[c] : where(unpacked(kept[j + c]), sums[c], 0);
                    store(line + c * kLanes, load(line + c * kLanes) + more);
                }
            });
        });
        // two tile columns of A's gradient a task, then as many tile rows of B's
        for_each_part(n, [&](int64_t) { return (in + kPairs - 1) / kPairs; }, [&](int64_t part, int64_t task) {
            const LoraPart& own = parts[part];
            const Operands& from = operands[part];
            float* sums = sums_memory.fit(own.tiles() * 2 * kTileWords);
            if (sums == nullptr) return;
            multiply(from.dhidden, 0, own.tiles(), from.x, 2 * task, 2, sums, 2);
            for (int64_t r = 0; r < own.rank; ++r) {
                const SumsRow row{sums + r / kLanes * 2 * kTileWords + r % kLanes * kLanes};
                float* to = own.da + r * in + task * kPairs;
                store(to, load(to) + row[0]), store(to + kLanes, load(to + kLanes) + row[1]);
            }
        });
        for_each_part(n, [&](int64_t) { return out / kPairs; }, [&](int64_t part, int64_t task) {
            const LoraPart& own = parts[part];
            const Operands& from = operands[part];
            const float factor = float(own.factor);
            float* sums = sums_memory.fit(2 * own.tiles() * kTileWords);
            if (sums == nullptr) return;
            multiply(from.dy, 2 * task, 2, from.hidden, 0, own.tiles(), sums, own.tiles());
            for (int64_t r = 0; r < kPairs; ++r) {
                const SumsRow row{sums + r / kLanes * own.tiles() * kTileWords + r % kLanes * kLanes};
                float* to = own.db + (task * kPairs + r) * own.rank;
                for (int64_t j = 0, left = own.rank; left > 0; ++j, left -= kLanes)
                    store(to + j * kLanes, load(to + j * kLanes, left) + factor * row[j], left);
            }
        });
    }
}

}  // namespace

#endif
