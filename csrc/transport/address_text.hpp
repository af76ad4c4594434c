// Purpose: addresses of peers as bytes that can be carried in a roster: words and texts, one after
// the other, closed by a CRC, read back without trusting any length.
// Threads, ownership: plain values; a reader borrows its input.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "base/digest.hpp"

namespace hpcore::transport {

class AddressWriter {
 public:
  void word(uint64_t value) { out_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void text(const std::string& value) {
    word(value.size());
    out_ += value;
  }
  std::string finish() {
    word(crc32c(out_.data(), out_.size()));
    return std::move(out_);
  }

 private:
  std::string out_;
};

class AddressReader {
 public:
  explicit AddressReader(const std::string& in) : at_(in.data()), end_(in.data() + in.size()) {}
  uint64_t word() {
    uint64_t value = 0;
    if (left() < sizeof value) {
      whole_ = false;
      return 0;
    }
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  std::string text() {
    const uint64_t bytes = word();
    if (bytes > left()) {
      whole_ = false;
      return "";
    }
    std::string value(at_, bytes);
    at_ += bytes;
    return value;
  }
  // A count of things that take at least so many bytes each: never more than can follow.
  uint64_t count(uint64_t bytes_each) {
    const uint64_t value = word();
    if (value > left() / bytes_each) whole_ = false;
    return whole_ ? value : 0;
  }
  [[nodiscard]] bool whole() const { return whole_; }
  [[nodiscard]] bool at_end() const { return at_ == end_; }

 private:
  [[nodiscard]] uint64_t left() const { return static_cast<uint64_t>(end_ - at_); }
  const char* at_;
  const char* end_;
  bool whole_ = true;
};

// What lies between mark and check value, both left in place: null if all is as it was written,
// else what is wrong.
inline const char* check_address(const std::string& bytes, uint64_t mark, std::string* body) {
  constexpr size_t kCrcBytes = sizeof(uint64_t);
  if (bytes.size() < 2 * kCrcBytes) return "it is too short";
  *body = bytes.substr(0, bytes.size() - kCrcBytes);
  uint64_t crc = 0;
  uint64_t found = 0;
  std::memcpy(&crc, bytes.data() + body->size(), kCrcBytes);
  std::memcpy(&found, body->data(), sizeof found);
  if (found != mark) return "it has no or another version's mark";
  if (crc != crc32c(body->data(), body->size())) return "its check value does not match";
  return nullptr;
}

}  // namespace hpcore::transport
