// Purpose: element types and reductions that the collectives know, with torch's names.
// Threads: pure functions. Ownership: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hpcore::collective {

enum class DType : uint32_t {
  kFloat64,
  kFloat32,
  kFloat16,
  kBFloat16,
  kFloat8E4M3FN,
  kFloat8E5M2,
  kComplex64,
  kComplex128,
  kInt8,
  kUInt8,
  kInt16,
  kUInt16,
  kInt32,
  kUInt32,
  kInt64,
  kUInt64,
  kBool,
};
constexpr uint32_t kDTypes = 17;

// kAvg divides the sum by the number of ranks (integers: towards zero). kPremulSum multiplies each
// rank's contribution by Reduction::factor before it is added. kExactSum: the sum without rounding
// on the way, rounded once at the end: the same for any order and number of ranks
// (exact_kernels.hpp).
enum class ReduceOp : uint32_t {
  kSum,
  kAvg,
  kProduct,
  kMin,
  kMax,
  kBitAnd,
  kBitOr,
  kBitXor,
  kPremulSum,
  kExactSum,
};
constexpr uint32_t kReduceOps = 10;

struct Reduction {
  ReduceOp op = ReduceOp::kSum;
  double factor = 1.0;
};

[[nodiscard]] size_t size_of(DType dtype);
[[nodiscard]] const char* name_of(DType dtype);  // "float32", "float8_e4m3fn", ...
[[nodiscard]] const char* name_of(ReduceOp op);  // "sum", "avg", ...
[[nodiscard]] std::optional<DType> dtype_named(std::string_view name);
[[nodiscard]] std::optional<ReduceOp> reduce_op_named(std::string_view name);  // any case

}  // namespace hpcore::collective
