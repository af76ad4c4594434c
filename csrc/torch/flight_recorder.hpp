// Purpose: the last operations of all groups of this process, and how far each came: what is told
// when one times out, and what a dump shows. Its JSON has the fields of torch's own flight recorder
// (c10d/FlightRecorder.hpp, version 2.10), so that torch's trace analyser reads it; it takes no
// stack traces, so it is always on.
// Threads: thread-safe. Ownership: shared by the groups' Work objects. Bound: `capacity` entries,
// the oldest make room; a group's facts go with its last entry. Lifecycle: begin(), then started()
// and ended() once each; late calls for an entry that made room do nothing.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace hpcore::torch_binding {

class FlightRecorder {
 public:
  static constexpr size_t kDefaultCapacity = 2000;
  static constexpr size_t kMaxDims = 6;
  struct Shape {
    std::array<int64_t, kMaxDims> sizes{};
    uint8_t dims = 0;
    at::ScalarType dtype = at::ScalarType::Undefined;
  };
  struct Operation {
    const char* title = "";  // lives for ever
    uint64_t sequence = 0;
    bool is_p2p = false;
    std::chrono::milliseconds timeout{};
  };

  struct Group {
    int id = 0;  // 0, 1, ... in the order they were made
    std::string name;
    std::vector<int64_t> ranks;
  };
  using GroupPtr = std::shared_ptr<const Group>;

  // With a dump prefix, dump() writes to that name followed by the rank.
  FlightRecorder(size_t capacity, std::string dump_prefix)
      : capacity_(capacity), dump_prefix_(std::move(dump_prefix)) {
    entries_.reserve(capacity_);  // touched only as they are used
  }

  GroupPtr new_group(std::string name, std::vector<int64_t> ranks);
  uint64_t begin(GroupPtr group, const Operation& operation, const std::vector<at::Tensor>& inputs,
                 const std::vector<at::Tensor>& outputs);
  void started(uint64_t id);
  void ended(uint64_t id, bool well);

  [[nodiscard]] std::string json() const;
  // One line: what has begun and not ended, the oldest first, at most `most` of them.
  [[nodiscard]] std::string in_flight(size_t most = 8) const;
  // Writes json() where the prefix says; the path, or empty without a prefix or on failure.
  std::string dump(int rank) const;

 private:
  enum class State : uint8_t { kScheduled, kStarted, kCompleted, kFailed };
  struct Entry {
    uint64_t id = 0;  // 0: empty; else 1, 2, ...
    GroupPtr group;
    State state = State::kScheduled;
    Operation operation;
    int64_t created_ns = 0, started_ns = 0, ended_ns = 0;  // of the wall clock, as torch's are
    Shape input, output;                                   // of the first tensors
    uint32_t inputs = 0, outputs = 0;
  };
  Entry* find(uint64_t id);
  [[nodiscard]] std::vector<Entry> ordered() const;
  static std::string entry_json(const Entry& entry);
  static std::string groups_json(const std::vector<Entry>& entries);
  static std::string status_json(const std::vector<Entry>& entries);

  mutable std::mutex mutex_;
  size_t capacity_;
  std::vector<Entry> entries_;  // at most capacity_; the entry of id i is at (i - 1) % capacity_
  int next_group_ = 0;
  uint64_t next_id_ = 1;
  std::string dump_prefix_;
};

// One operation's entry, as its Work holds it; empty where nothing is recorded.
class FlightTicket {
 public:
  FlightTicket() = default;
  FlightTicket(std::shared_ptr<FlightRecorder> recorder, uint64_t id)
      : recorder_(std::move(recorder)), id_(id) {}
  void started() const {
    if (recorder_) recorder_->started(id_);
  }
  void ended(bool well) const {
    if (recorder_) recorder_->ended(id_, well);
  }

 private:
  std::shared_ptr<FlightRecorder> recorder_;
  uint64_t id_ = 0;
};

}  // namespace hpcore::torch_binding
