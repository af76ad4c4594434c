#include "collective/dtype.hpp"

#include <cctype>

namespace hpcore::collective {
namespace {

struct TypeRow {
  const char* name;
  size_t size_bytes;
};

constexpr TypeRow kTypes[kDTypes] = {
    {"float64", 8},     {"float32", 4},   {"float16", 2},     {"bfloat16", 2}, {"float8_e4m3fn", 1},
    {"float8_e5m2", 1}, {"complex64", 8}, {"complex128", 16}, {"int8", 1},     {"uint8", 1},
    {"int16", 2},       {"uint16", 2},    {"int32", 4},       {"uint32", 4},   {"int64", 8},
    {"uint64", 8},      {"bool", 1},
};

constexpr const char* kOps[kReduceOps] = {"sum",  "avg", "product", "min",        "max",
                                          "band", "bor", "bxor",    "premul_sum", "exact_sum"};

bool same_letters(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::tolower(static_cast<unsigned char>(a[i])) != b[i]) return false;
  }
  return true;
}

}  // namespace

size_t size_of(DType dtype) { return kTypes[static_cast<uint32_t>(dtype)].size_bytes; }
const char* name_of(DType dtype) { return kTypes[static_cast<uint32_t>(dtype)].name; }
const char* name_of(ReduceOp op) { return kOps[static_cast<uint32_t>(op)]; }

std::optional<DType> dtype_named(std::string_view name) {
  for (uint32_t i = 0; i < kDTypes; ++i) {
    if (name == kTypes[i].name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::optional<ReduceOp> reduce_op_named(std::string_view name) {
  for (uint32_t i = 0; i < kReduceOps; ++i) {
    if (same_letters(name, kOps[i])) return static_cast<ReduceOp>(i);
  }
  return std::nullopt;
}

}  // namespace hpcore::collective
