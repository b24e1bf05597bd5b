// Kernels of a training step; each makes one pass over its operands, where Torch's operations would make several. A plain C
// interface without Torch's headers compiles in seconds and can be called by ctypes.
//
// Storage is float, double or bfloat16. Arithmetic is double for double and float for the others; a result is rounded
// once, when it is stored. Reductions run in an order that depends on shapes alone, never on the number of threads.
// Vectors are GCC's vector extension, which Clang supports as well: 16 lanes, split where the processor has fewer.

#include "attention.hpp"
#include "dropout.hpp"
#include "elementwise.hpp"
#include "linear.hpp"

// Each kernel's address for each storage type, under its name. ctypes reads the address and calls it.
#define LORASCOPE_EXPORT(kernel)                                        \
    extern "C" {                                                        \
    auto kernel##_bfloat16 = &kernel<bfloat16>;                         \
    auto kernel##_float32 = &kernel<float>;                             \
    auto kernel##_float64 = &kernel<double>;                            \
    }

LORASCOPE_EXPORT(rms_norm_forward)
LORASCOPE_EXPORT(rms_norm_backward)
extern "C" {
auto residual_norm_forward_bfloat16 = &residual_norm_forward;
auto residual_norm_backward_bfloat16 = &residual_norm_backward;
}
LORASCOPE_EXPORT(silu_mul_forward)
LORASCOPE_EXPORT(silu_mul_backward)
LORASCOPE_EXPORT(cross_entropy)
extern "C" {
auto dropout_bits = &kept_bits;
}
LORASCOPE_EXPORT(dropout)
LORASCOPE_EXPORT(add_dropped)
LORASCOPE_EXPORT(attention_forward)
LORASCOPE_EXPORT(attention_backward)
// Returns true if a call since the last query ran out of memory; its results are then invalid.
extern "C" bool allocation_failed() { return no_memory.exchange(false); }

#ifdef LORASCOPE_PAIRS
extern "C" {
auto linear_forward_bfloat16 = &linear_forward;
auto linear_backward_bfloat16 = &linear_backward;
auto gated_forward_bfloat16 = &gated_forward;
auto gated_backward_bfloat16 = &gated_backward<bfloat16>;
auto residual_gated_backward_bfloat16 = &gated_backward<float>;
auto head_forward_bfloat16 = &head_forward;
auto head_backward_bfloat16 = &head_backward;
}
#endif
