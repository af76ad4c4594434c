// Faults of the loopback doubles: numbers by name, 0 unless set. From outside of the process:
// LOOPBACK_FAULTS="name=number,name=number", read when the library is loaded. From inside:
// loopback_fault("name", number), which every double exports.
#pragma once

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace loopback {

struct Fault {
  const char* name;
  std::atomic<long> value{0};
  explicit Fault(const char* its_name) : name(its_name) {}

  [[nodiscard]] long get() const { return value.load(); }
  // For "the n-th from now": true once, when the count comes to 0.
  bool strikes() {
    long left = value.load();
    while (left > 0 && !value.compare_exchange_weak(left, left - 1)) {
    }
    return left == 1;
  }
};

template <size_t kCount>
bool set_fault(Fault (&faults)[kCount], const char* name, long value) {
  for (Fault& fault : faults) {
    if (std::strcmp(fault.name, name) != 0) continue;
    fault.value.store(value);
    return true;
  }
  return false;
}

// Names that are another double's are passed over.
template <size_t kCount>
void read_environment(Fault (&faults)[kCount]) {
  const char* text = std::getenv("LOOPBACK_FAULTS");
  while (text != nullptr && *text != '\0') {
    char name[64] = {};
    long value = 0;
    if (std::sscanf(text, "%63[^=]=%ld", name, &value) == 2) set_fault(faults, name, value);
    text = std::strchr(text, ',');
    if (text != nullptr) ++text;
  }
}

}  // namespace loopback
