// Purpose: torch.distributed's store over the shared-memory store, under a prefix of its own.
// Threads: thread-safe. Ownership: shares the SharedStore; the interrupt may be null.
// Lifecycle: any number of them over one SharedStore; keys stay until somebody deletes them.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include "store/shared_store.hpp"

namespace hpcore::torch_binding {

class HpcoreStore final : public c10d::Store {
 public:
  using Bytes = std::vector<uint8_t>;
  using Strings = std::vector<std::string>;
  using Store::barrier;
  using Store::compareSet;
  using Store::set;

  HpcoreStore(std::shared_ptr<SharedStore> store, std::string prefix,
              std::shared_ptr<Interrupt> interrupt, std::chrono::milliseconds timeout);

  [[nodiscard]] const std::string& prefix() const { return prefix_; }
  c10::intrusive_ptr<Store> clone() override;
  void set(const std::string& key, const Bytes& value) override;
  Bytes compareSet(const std::string& key, const Bytes& expected, const Bytes& desired) override;
  Bytes get(const std::string& key) override;
  int64_t add(const std::string& key, int64_t value) override;
  bool deleteKey(const std::string& key) override;
  bool check(const Strings& keys) override;
  int64_t getNumKeys() override { return static_cast<int64_t>(listKeys().size()); }
  void wait(const Strings& keys) override { wait(keys, timeout_); }
  void wait(const Strings& keys, const std::chrono::milliseconds& timeout) override;
  void append(const std::string& key, const Bytes& value) override;
  std::vector<Bytes> multiGet(const Strings& keys) override;
  void multiSet(const Strings& keys, const std::vector<Bytes>& values) override;
  bool hasExtendedApi() const override { return true; }
  void queuePush(const std::string& key, const Bytes& value) override;
  Bytes queuePop(const std::string& key, bool block) override;
  int64_t queueLen(const std::string& key) override;
  Strings listKeys() override;
  // Blocks until it was called `world_size` times for the key; may be used again at once: every
  // world_size calls are one round.
  void barrier(const std::string& key, int64_t world_size,
               const std::chrono::milliseconds& timeout) override;

 private:
  [[nodiscard]] std::string full(const std::string& key) const { return prefix_ + key; }
  [[nodiscard]] Strings full(const Strings& keys) const;
  // c10d: a timeout of zero means none.
  [[nodiscard]] StoreWait until(std::chrono::milliseconds timeout) const;

  std::shared_ptr<SharedStore> store_;
  std::string prefix_;
  std::shared_ptr<Interrupt> interrupt_;
};

}  // namespace hpcore::torch_binding
