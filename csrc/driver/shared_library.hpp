// Purpose: libraries that are loaded at run time: finding one in a list of places, taking its
// functions, and saying what is missing.
// Threads: thread-safe. Ownership: libraries are never unloaded (drivers start threads and exit
// handlers).
#pragma once

#include <string>
#include <vector>

#include "base/status.hpp"

namespace hpcore::driver {

class SharedLibrary {
 public:
  // The first place that loads; "loaded:NAME": one of that name which the process has already.
  // kNotFound: "no WHAT found. Tried: ...; WAY_OUT".
  static Result<SharedLibrary> open(const std::string& what, const std::vector<std::string>& places,
                                    const std::string& way_out);

  // False, and the name is noted in missing(), if there is no such function.
  template <typename Function>
  bool take(const char* name, Function* out) {
    *out = reinterpret_cast<Function>(find(name));
    if (*out == nullptr) missing_ += (missing_.empty() ? "" : ", ") + std::string(name);
    return *out != nullptr;
  }
  // Null if there is none.
  template <typename Function>
  void take_optional(const char* name, Function* out) {
    *out = reinterpret_cast<Function>(find(name));
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::string& missing() const { return missing_; }

 private:
  SharedLibrary(void* handle, std::string path) : handle_(handle), path_(std::move(path)) {}
  [[nodiscard]] void* find(const char* name) const;

  void* handle_;
  std::string path_;
  std::string missing_;
};

}  // namespace hpcore::driver
