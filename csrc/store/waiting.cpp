// The operations that sleep until a key is there.
#include "store/guard.hpp"
#include "store/shared_store.hpp"

namespace hpcore {
namespace {

class Attached {
 public:
  Attached(Interrupt* interrupt, Doorbell* doorbell) : interrupt_(interrupt), doorbell_(doorbell) {
    if (interrupt_ != nullptr) interrupt_->attach(doorbell_);
  }
  ~Attached() {
    if (interrupt_ != nullptr) interrupt_->detach(doorbell_);
  }
  Attached(const Attached&) = delete;
  Attached& operator=(const Attached&) = delete;

 private:
  Interrupt* interrupt_;
  Doorbell* doorbell_;
};

Status timed_out(const char* what, std::string_view key, TimePoint began) {
  const double waited = std::chrono::duration<double>(Clock::now() - began).count();
  return {Code::kTimeout,
          std::string(what) + " timed out after " + std::to_string(waited) + " s: key '" +
              std::string(key.substr(0, 200)) +
              "' was not set. The rank that sets it has not come so far: see its log"};
}

}  // namespace

void SharedStore::announce(std::string_view key) {
  store::Shard& shard = table_.shard_of(key);
  shard.changes.fetch_add(1, std::memory_order_seq_cst);
  shard.doorbell.ring();
}

void SharedStore::close() {
  if (closed_.exchange(true)) return;
  for (store::Shard& shard : table_.header().shards) shard.doorbell.ring();
}

Status SharedStore::await(std::string_view key, const char* what, const StoreWait& wait,
                          const std::function<bool()>& look) {
  store::Shard& shard = table_.shard_of(key);
  const TimePoint began = Clock::now();
  Status status;
  bool first = true;
  uint32_t seen = 0;
  const auto condition = [&] {
    if (closed_.load(std::memory_order_acquire)) {
      status = {Code::kAborted,
                std::string(what) + " of key '" + std::string(key) + "': the store was closed"};
      return true;
    }
    if (wait.interrupt != nullptr && !(status = wait.interrupt->check()).ok()) return true;
    const uint32_t changes = shard.changes.load(std::memory_order_seq_cst);
    if (!first && changes == seen) return false;
    first = false;
    seen = changes;
    store::Guard guard(table_);
    return !(status = guard.status()).ok() || look();
  };
  if (condition()) return status;
  const Attached attached(wait.interrupt, &shard.doorbell);
  if (!shard.doorbell.wait(condition, wait.deadline)) return timed_out(what, key, began);
  return status;
}

Result<std::string> SharedStore::get(std::string_view key, const StoreWait& wait) {
  std::string value;
  Status status = await(key, "get", wait, [&] {
    const store::Node* node = table_.find(key, store::Kind::kValue);
    if (node != nullptr) value = std::string(table_.value_of(*node));
    return node != nullptr;
  });
  if (!status.ok()) return status;
  return value;
}

Status SharedStore::wait(const std::vector<std::string>& keys, const StoreWait& wait) {
  for (;;) {
    for (const auto& key : keys) {
      HPCORE_RETURN_IF_ERROR(await(key, "wait", wait, [&] { return table_.contains(key); }));
    }
    const Result<bool> all = check(keys);  // one may have been deleted while we waited for the next
    if (!all.ok()) return all.status();
    if (all.value()) return {};
  }
}

Result<std::vector<std::string>> SharedStore::multi_get(const std::vector<std::string>& keys,
                                                        const StoreWait& wait) {
  std::vector<std::string> values;
  for (const auto& key : keys) {
    Result<std::string> value = get(key, wait);
    if (!value.ok()) return value.status();
    values.push_back(std::move(value.value()));
  }
  return values;
}

Result<std::string> SharedStore::queue_pop(std::string_view key, bool block,
                                           const StoreWait& wait) {
  std::string item;
  bool found = false;
  const auto look = [&] {
    store::Node* node = table_.find(key, store::Kind::kQueue);
    if (node != nullptr && node->content.load() != 0) {
      item = table_.pop(*node);
      found = true;
    }
    return found || !block;
  };
  Status status = await(key, "queue_pop", wait, look);
  if (!status.ok()) return status;
  if (!found) return Status(Code::kNotFound, "queue '" + std::string(key) + "' is empty");
  return item;
}

}  // namespace hpcore
