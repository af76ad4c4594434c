// Purpose: the types of elements that a .hpd file can hold; the codes are part of the format.
// Threads: plain data. Ownership: none.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace hpcore::dataset {

enum class Dtype : uint32_t {
  kUint8 = 1,
  kUint16 = 2,
  kUint32 = 3,
  kUint64 = 4,
  kInt8 = 5,
  kInt16 = 6,
  kInt32 = 7,
  kInt64 = 8,
  kFloat16 = 9,
  kBfloat16 = 10,
  kFloat32 = 11,
  kFloat64 = 12,
  kBool = 13,
};

struct DtypeFacts {
  Dtype dtype;
  std::string_view name;
  uint32_t bytes;
};

inline constexpr std::array<DtypeFacts, 13> kDtypes = {{
    {Dtype::kUint8, "uint8", 1},
    {Dtype::kUint16, "uint16", 2},
    {Dtype::kUint32, "uint32", 4},
    {Dtype::kUint64, "uint64", 8},
    {Dtype::kInt8, "int8", 1},
    {Dtype::kInt16, "int16", 2},
    {Dtype::kInt32, "int32", 4},
    {Dtype::kInt64, "int64", 8},
    {Dtype::kFloat16, "float16", 2},
    {Dtype::kBfloat16, "bfloat16", 2},
    {Dtype::kFloat32, "float32", 4},
    {Dtype::kFloat64, "float64", 8},
    {Dtype::kBool, "bool", 1},
}};

// 0 and "unknown" for a code that this version does not know.
constexpr uint32_t dtype_bytes(Dtype dtype) {
  for (const DtypeFacts& facts : kDtypes)
    if (facts.dtype == dtype) return facts.bytes;
  return 0;
}

constexpr std::string_view dtype_name(Dtype dtype) {
  for (const DtypeFacts& facts : kDtypes)
    if (facts.dtype == dtype) return facts.name;
  return "unknown";
}

}  // namespace hpcore::dataset
