// The operations. What sleeps is in waiting.cpp, what maps memory in mapping.cpp.
#include "store/shared_store.hpp"

#include <charconv>

#include "store/guard.hpp"

namespace hpcore {
namespace {

constexpr size_t kLongestKey = 64 << 10;

Status check_key(std::string_view key) {
  if (key.size() <= kLongestKey) return {};
  return {Code::kInvalid, "a key may have 65536 bytes, this one has " + std::to_string(key.size()) +
                              ": it begins with '" + std::string(key.substr(0, 80)) + "'"};
}

std::string quoted(std::string_view text) {
  std::string quoted(1, '\'');
  quoted.append(text.substr(0, 80));
  return quoted.append(1, '\'');
}

}  // namespace

Status SharedStore::read(const std::function<Status()>& read) {
  store::Guard guard(table_);
  HPCORE_RETURN_IF_ERROR(guard.status());
  return read();
}

Status SharedStore::change(std::string_view key, const std::function<Status()>& change) {
  HPCORE_RETURN_IF_ERROR(check_key(key));
  HPCORE_RETURN_IF_ERROR(read(change));
  announce(key);
  return {};
}

Status SharedStore::set(std::string_view key, std::string_view value) {
  return change(key, [&] { return table_.put(key, value); });
}

Result<int64_t> SharedStore::add(std::string_view key, int64_t delta) {
  int64_t sum = 0;
  Status status = change(key, [&]() -> Status {
    if (const store::Node* node = table_.find(key, store::Kind::kValue)) {
      const std::string_view text = table_.value_of(*node);
      const auto end = text.data() + text.size();
      if (const auto parsed = std::from_chars(text.data(), end, sum);
          parsed.ptr != end || text.empty()) {
        return {Code::kInvalid,
                "add() needs a number in key " + quoted(key) + ", it holds " + quoted(text)};
      }
    }
    if (__builtin_add_overflow(sum, delta, &sum)) {
      return {Code::kInvalid, "add(" + std::to_string(delta) + ") overflows key " + quoted(key)};
    }
    return table_.put(key, std::to_string(sum));
  });
  if (!status.ok()) return status;
  return sum;
}

Result<bool> SharedStore::check(const std::vector<std::string>& keys) {
  bool all = true;
  Status status = read([&] {
    for (const auto& key : keys) all = all && table_.contains(key);
    return Status();
  });
  if (!status.ok()) return status;
  return all;
}

Result<std::string> SharedStore::compare_set(std::string_view key, std::string_view expected,
                                             std::string_view desired) {
  std::string now(expected);
  Status status = change(key, [&]() -> Status {
    const store::Node* node = table_.find(key, store::Kind::kValue);
    if (node != nullptr) now = std::string(table_.value_of(*node));
    const bool matches = node != nullptr ? now == expected : expected.empty();
    if (!matches) return {};
    HPCORE_RETURN_IF_ERROR(table_.put(key, desired));
    now = std::string(desired);
    return {};
  });
  if (!status.ok()) return status;
  return now;
}

Result<bool> SharedStore::remove(std::string_view key) {
  bool removed = false;
  Status status = change(key, [&] {
    removed = table_.erase(key, store::Kind::kValue);
    removed = table_.erase(key, store::Kind::kQueue) || removed;
    return Status();
  });
  if (!status.ok()) return status;
  return removed;
}

Status SharedStore::append(std::string_view key, std::string_view value) {
  return change(key, [&] { return table_.append(key, value); });
}

Status SharedStore::multi_set(const std::vector<std::string>& keys,
                              const std::vector<std::string>& values) {
  if (keys.size() != values.size()) {
    return {Code::kInvalid, "multi_set got " + std::to_string(keys.size()) + " keys but " +
                                std::to_string(values.size()) + " values"};
  }
  for (size_t i = 0; i < keys.size(); ++i) HPCORE_RETURN_IF_ERROR(set(keys[i], values[i]));
  return {};
}

Status SharedStore::queue_push(std::string_view key, std::string_view value) {
  return change(key, [&] { return table_.push(key, value); });
}

Result<int64_t> SharedStore::queue_length(std::string_view key) {
  int64_t length = 0;
  Status status = read([&] {
    if (const store::Node* node = table_.find(key, store::Kind::kQueue)) {
      length = node->content.load() == 0 ? 0 : static_cast<int64_t>(node->length);
    }
    return Status();
  });
  if (!status.ok()) return status;
  return length;
}

Result<int64_t> SharedStore::key_count() {
  int64_t count = 0;
  Status status = read([&] {
    count = static_cast<int64_t>(table_.header().key_count);
    return Status();
  });
  if (!status.ok()) return status;
  return count;
}

Result<std::vector<std::string>> SharedStore::keys() {
  std::vector<std::string> keys;
  Status status = read([&] {
    table_.each([&](const store::Node&, std::string_view key) { keys.emplace_back(key); });
    return Status();
  });
  if (!status.ok()) return status;
  return keys;
}

Result<uint64_t> SharedStore::free_bytes() {
  uint64_t bytes = 0;
  Status status = read([&] {
    bytes = table_.free_bytes();
    return Status();
  });
  if (!status.ok()) return status;
  return bytes;
}

}  // namespace hpcore
