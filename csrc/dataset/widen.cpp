#include "dataset/widen.hpp"

#include <cstring>

namespace hpcore::dataset {
namespace {

// Rows in a file are aligned to their numbers, and so is the caller's memory.
template <typename From, typename To>
inline __attribute__((always_inline)) void loop(const void* from, size_t count, void* to) {
  const From* in = static_cast<const From*>(from);
  To* out = static_cast<To*>(to);
  for (size_t i = 0; i < count; ++i) out[i] = in[i];
}

struct Portable {
  static constexpr const char* kName = "portable";
  template <typename From, typename To>
  static void run(const void* from, size_t count, void* to) {
    loop<From, To>(from, count, to);
  }
};

#if defined(__x86_64__)
struct Avx2 {
  static constexpr const char* kName = "avx2";
  template <typename From, typename To>
  __attribute__((target("avx2"))) static void run(const void* from, size_t count, void* to) {
    loop<From, To>(from, count, to);
  }
};

struct Avx512 {
  static constexpr const char* kName = "avx512";
  template <typename From, typename To>
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512"))) static void
  run(const void* from, size_t count, void* to) {
    loop<From, To>(from, count, to);
  }
};
#endif

template <typename Number>
void copy(const void* from, size_t count, void* to) {
  std::memcpy(to, from, count * sizeof(Number));
}

template <typename Code>
Widen choose(unsigned from_bytes, unsigned to_bytes) {
  switch (from_bytes * 16 + to_bytes) {
    case 0x11:
      return copy<uint8_t>;
    case 0x12:
      return Code::template run<uint8_t, uint16_t>;
    case 0x14:
      return Code::template run<uint8_t, uint32_t>;
    case 0x18:
      return Code::template run<uint8_t, uint64_t>;
    case 0x22:
      return copy<uint16_t>;
    case 0x24:
      return Code::template run<uint16_t, uint32_t>;
    case 0x28:
      return Code::template run<uint16_t, uint64_t>;
    case 0x44:
      return copy<uint32_t>;
    case 0x48:
      return Code::template run<uint32_t, uint64_t>;
    case 0x88:
      return copy<uint64_t>;
    default:
      return nullptr;
  }
}

struct Choice {
  const char* name;
  Widen (*code)(unsigned, unsigned);
};

Choice make_choice() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return {Avx512::kName, choose<Avx512>};
  }
  if (__builtin_cpu_supports("avx2")) return {Avx2::kName, choose<Avx2>};
#endif
  return {Portable::kName, choose<Portable>};
}

const Choice& choice() {
  static const Choice made = make_choice();
  return made;
}

}  // namespace

Widen widen_code(unsigned from_bytes, unsigned to_bytes) {
  return choice().code(from_bytes, to_bytes);
}

const char* widen_code_name() { return choice().name; }

}  // namespace hpcore::dataset
