// Purpose: errors as values. Native code returns Status or Result<T>; nothing throws across a
// thread or library boundary; the bindings turn a Status into a Python exception
// (csrc/bind/errors.hpp). Threads: plain values. Ownership: a Status owns its message.
#pragma once

#include <string>
#include <utility>
#include <variant>

namespace hpcore {

enum class Code {
  kOk,
  kRevoked,   // the generation is over: Python's RosterChanged
  kTimeout,   // a deadline passed: DeadlineExceeded
  kAborted,   // closed or cancelled by this process
  kMismatch,  // ranks disagree on op, shape, dtype or layout
  kInvalid,   // bad argument
  kNotFound,  // no such key, file, slot
  kCorrupt,   // digest or format does not hold
  kNoSpace,   // a bound was reached
  kPeerDead,  // the other process is gone
  kUnsupported,
  kSystem,  // a system call failed; the message carries errno
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  [[nodiscard]] bool ok() const { return code_ == Code::kOk; }
  [[nodiscard]] Code code() const { return code_; }
  [[nodiscard]] const std::string& message() const { return message_; }

  static Status system(const std::string& what, int error_number);  // "what: strerror (errno N)"

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value)
      : content_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit on purpose
  Result(Status status) : content_(std::in_place_index<1>, std::move(status)) {}  // NOLINT
  [[nodiscard]] bool ok() const { return content_.index() == 0; }
  [[nodiscard]] T& value() { return std::get<0>(content_); }
  [[nodiscard]] const T& value() const { return std::get<0>(content_); }
  [[nodiscard]] Status status() const { return ok() ? Status() : std::get<1>(content_); }

 private:
  std::variant<T, Status> content_;
};

}  // namespace hpcore

#define HPCORE_RETURN_IF_ERROR(expr)                                      \
  do {                                                                    \
    if (::hpcore::Status status_ = (expr); !status_.ok()) return status_; \
  } while (false)
