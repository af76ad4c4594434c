// Purpose: a key/value store that the processes of one node share through memory: no server, no
// socket. What c10d's Store needs (set, get, add, wait, check, compare_set, queues, ...), with
// deadlines, cancellation, and no loss when a process is killed inside any call. Threads:
// thread-safe, across processes. One robust mutex guards the table; it is held for the length of a
// memcpy. Waiters sleep on a doorbell that only changes of their key's shard ring. Ownership:
// shares the mapping (`keep_alive`); a store made by create() also owns its descriptor. Lifecycle:
// create/format once, attach anywhere, close() wakes this process's waiters (they return kAborted).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "store/table.hpp"

namespace hpcore {

// Lets a wait end early, for example because a generation was revoked. check() is called after each
// ring of a doorbell that was attached; it must be cheap. Implementations are thread-safe.
class Interrupt {
 public:
  virtual ~Interrupt() = default;
  [[nodiscard]] virtual Status check() const = 0;  // not ok: the wait returns this
  virtual void attach(Doorbell* doorbell) = 0;     // ring it when check() may have changed
  virtual void detach(Doorbell* doorbell) = 0;
};

struct StoreWait {
  TimePoint deadline = TimePoint::max();
  Interrupt* interrupt = nullptr;
};

class SharedStore {
 public:
  static constexpr size_t kSmallestBytes = 64 << 10;

  // In memory that somebody else owns, such as the segment's store area. The area must be zero.
  static Status format(void* memory, size_t size_bytes);
  static Result<std::shared_ptr<SharedStore>> attach(void* memory, size_t size_bytes,
                                                     std::shared_ptr<void> keep_alive = nullptr);
  // In a memfd of its own; others open it by an inherited descriptor or through
  // /proc/<pid>/fd/<fd>.
  static Result<std::shared_ptr<SharedStore>> create(size_t size_bytes,
                                                     const std::string& name = "hpcore-store");
  static Result<std::shared_ptr<SharedStore>> open(int fd);
  static Result<std::shared_ptr<SharedStore>> open(const std::string& path);
  ~SharedStore();
  SharedStore(const SharedStore&) = delete;
  SharedStore& operator=(const SharedStore&) = delete;

  Status set(std::string_view key, std::string_view value);
  // Blocks until the key is there.
  Result<std::string> get(std::string_view key, const StoreWait& wait = {});
  // Decimal text, as c10d stores counters. A missing key counts as 0.
  Result<int64_t> add(std::string_view key, int64_t delta);
  // Blocks until all keys are there.
  Status wait(const std::vector<std::string>& keys, const StoreWait& wait = {});
  Result<bool> check(const std::vector<std::string>& keys);
  // Sets `desired` if the value is `expected`, or if the key is missing and `expected` is empty.
  // Returns the value that the key then has (`expected` when it is missing).
  Result<std::string> compare_set(std::string_view key, std::string_view expected,
                                  std::string_view desired);
  Result<bool> remove(std::string_view key);
  Status append(std::string_view key, std::string_view value);
  Result<std::vector<std::string>> multi_get(const std::vector<std::string>& keys,
                                             const StoreWait& wait = {});
  Status multi_set(const std::vector<std::string>& keys, const std::vector<std::string>& values);
  Status queue_push(std::string_view key, std::string_view value);
  // Blocks until there is an item; with block = false an empty queue is kNotFound.
  Result<std::string> queue_pop(std::string_view key, bool block, const StoreWait& wait = {});
  Result<int64_t> queue_length(std::string_view key);
  Result<int64_t> key_count();
  Result<std::vector<std::string>> keys();
  Result<uint64_t> free_bytes();

  void close();
  [[nodiscard]] int fd() const { return fd_; }  // -1: the memory belongs to somebody else
  [[nodiscard]] size_t size_bytes() const { return table_.header().size_bytes; }
  void crash_after(int64_t steps) { table_.crash_after(steps); }  // tests only

 private:
  SharedStore(void* memory, size_t size_bytes, std::shared_ptr<void> keep_alive, int fd)
      : keep_alive_(std::move(keep_alive)), table_(memory, size_bytes), fd_(fd) {}
  static Result<std::shared_ptr<SharedStore>> map(int fd, bool fresh);

  // Runs `change` under the mutex, then rings the key's shard.
  Status change(std::string_view key, const std::function<Status()>& change);
  Status read(const std::function<Status()>& read);
  // Runs `look` under the mutex whenever the key's shard changed, until it returns true.
  Status await(std::string_view key, const char* what, const StoreWait& wait,
               const std::function<bool()>& look);
  void announce(std::string_view key);

  std::shared_ptr<void> keep_alive_;
  store::Table table_;
  int fd_;
  std::atomic<bool> closed_{false};
};

}  // namespace hpcore
