#include "torch/store.hpp"

#include "torch/error.hpp"

namespace hpcore::torch_binding {
namespace {

using Bytes = HpcoreStore::Bytes;
using Strings = HpcoreStore::Strings;

std::string_view view(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
Bytes bytes(const std::string& text) { return {text.begin(), text.end()}; }
// c10d::Store has a method of this name.
void check_status(const Status& status) { torch_binding::check(status); }

}  // namespace

HpcoreStore::HpcoreStore(std::shared_ptr<SharedStore> store, std::string prefix,
                         std::shared_ptr<Interrupt> interrupt, std::chrono::milliseconds timeout)
    : Store(timeout),
      store_(std::move(store)),
      prefix_(std::move(prefix)),
      interrupt_(std::move(interrupt)) {}

c10::intrusive_ptr<c10d::Store> HpcoreStore::clone() {
  return c10::make_intrusive<HpcoreStore>(store_, prefix_, interrupt_, timeout_);
}

void HpcoreStore::set(const std::string& key, const Bytes& value) {
  check_status(store_->set(full(key), view(value)));
}

Bytes HpcoreStore::compareSet(const std::string& key, const Bytes& expected, const Bytes& desired) {
  return bytes(torch_binding::check(store_->compare_set(full(key), view(expected), view(desired))));
}

Bytes HpcoreStore::get(const std::string& key) {
  return bytes(torch_binding::check(store_->get(full(key), until(timeout_))));
}

int64_t HpcoreStore::add(const std::string& key, int64_t value) {
  return torch_binding::check(store_->add(full(key), value));
}

bool HpcoreStore::deleteKey(const std::string& key) {
  return torch_binding::check(store_->remove(full(key)));
}

bool HpcoreStore::check(const Strings& keys) {
  return torch_binding::check(store_->check(full(keys)));
}

void HpcoreStore::wait(const Strings& keys, const std::chrono::milliseconds& timeout) {
  check_status(store_->wait(full(keys), until(timeout)));
}

void HpcoreStore::append(const std::string& key, const Bytes& value) {
  check_status(store_->append(full(key), view(value)));
}

std::vector<Bytes> HpcoreStore::multiGet(const Strings& keys) {
  std::vector<Bytes> values;
  for (const auto& value : torch_binding::check(store_->multi_get(full(keys), until(timeout_)))) {
    values.push_back(bytes(value));
  }
  return values;
}

void HpcoreStore::multiSet(const Strings& keys, const std::vector<Bytes>& values) {
  Strings texts;
  for (const auto& value : values) texts.emplace_back(view(value));
  check_status(store_->multi_set(full(keys), texts));
}

void HpcoreStore::queuePush(const std::string& key, const Bytes& value) {
  check_status(store_->queue_push(full(key), view(value)));
}

Bytes HpcoreStore::queuePop(const std::string& key, bool block) {
  const auto item = store_->queue_pop(full(key), block, until(timeout_));
  if (item.status().code() == Code::kNotFound) {  // the class that torch documents
    C10_THROW_ERROR(DistQueueEmptyError, item.status().message());
  }
  return bytes(torch_binding::check(item));
}

int64_t HpcoreStore::queueLen(const std::string& key) {
  return torch_binding::check(store_->queue_length(full(key)));
}

Strings HpcoreStore::listKeys() {
  Strings own;
  for (const auto& key : torch_binding::check(store_->keys())) {
    if (key.starts_with(prefix_)) own.push_back(key.substr(prefix_.size()));
  }
  return own;
}

void HpcoreStore::barrier(const std::string& key, int64_t world_size,
                          const std::chrono::milliseconds& timeout) {
  if (world_size < 1) {
    raise({Code::kInvalid, "store barrier '" + key + "': world_size is " +
                               std::to_string(world_size) + ", needs at least 1"});
  }
  const int64_t before = add(key, 1) - 1;
  const std::string opened = key + "/open/" + std::to_string(before / world_size);
  if (before % world_size == world_size - 1) set(opened, Bytes{1});
  wait({opened}, timeout);
  // Whoever is in this round has seen the one before: its key can go.
  if (before >= world_size && before % world_size == world_size - 1) {
    deleteKey(key + "/open/" + std::to_string(before / world_size - 1));
  }
}

Strings HpcoreStore::full(const Strings& keys) const {
  Strings all;
  for (const auto& key : keys) all.push_back(full(key));
  return all;
}

StoreWait HpcoreStore::until(std::chrono::milliseconds timeout) const {
  constexpr std::chrono::milliseconds kLongest = std::chrono::hours(24 * 365);  // no overflow
  const bool forever = timeout == kNoTimeout || timeout > kLongest;
  return {forever ? TimePoint::max() : Clock::now() + timeout, interrupt_.get()};
}

}  // namespace hpcore::torch_binding
