// Purpose: the members of one process group and the memory between them: the communicator for
// collectives and the exchange for point-to-point, made at first use. Threads: thread-safe.
// Ownership: shared by the backend and its running operations; owns the group's memory. Lifecycle:
// rank 0 makes a memfd at construction and says in the store where it is; the others open it
// through /proc/<pid>/fd/<fd> at their first operation. abort() ends everything for good.
#pragma once

#include <mutex>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "collective/communicator.hpp"
#include "collective/shared_group.hpp"
#include "roster/worker.hpp"
#include "store/shared_store.hpp"
#include "torch/exchange.hpp"
#include "torch/flight_recorder.hpp"
#include "torch/memory_budget.hpp"

namespace hpcore::torch_binding {

// Ends the waits of a store when the generation is revoked.
class RevocationInterrupt final : public Interrupt {
 public:
  RevocationInterrupt(std::shared_ptr<Revocation> revocation, uint64_t generation)
      : revocation_(std::move(revocation)), generation_(generation) {}
  [[nodiscard]] Status check() const override;
  void attach(Doorbell* doorbell) override { revocation_->attach(doorbell); }
  void detach(Doorbell* doorbell) override { revocation_->detach(doorbell); }

 private:
  std::shared_ptr<Revocation> revocation_;
  uint64_t generation_;
};

// Why a group does nothing any more.
Status generation_over(const std::string& group, uint64_t generation);
Status group_ended(const std::string& group);

class Group {
 public:
  struct Facts {
    c10::intrusive_ptr<c10d::Store> store;  // with a prefix of this group's own
    int rank = 0;
    int size = 1;
    std::string name;
    std::vector<int64_t> global_ranks;
    std::shared_ptr<Revocation> revocation;
    uint64_t generation = 1;
    bool rehearsal = false;
    bool supervised = false;                   // an agent revokes the generation of a lost rank
    std::shared_ptr<FlightRecorder> recorder;  // null: nothing is recorded
    std::shared_ptr<MemoryBudget> budget = std::make_shared<MemoryBudget>();
    bool waiting = false;  // for a first reconfigure: it has no members yet
    std::shared_ptr<roster::Worker> worker = nullptr;  // null outside a job
  };
  static constexpr const char* kWhere = "memory";  // the key in the group's store

  explicit Group(Facts facts);
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  [[nodiscard]] const Facts& facts() const { return facts_; }
  // Blocks at first use, until rank 0 has published the group's memory.
  Result<std::shared_ptr<collective::Communicator>> communicator(TimePoint deadline);
  Result<std::shared_ptr<Exchange>> exchange(TimePoint deadline);
  [[nodiscard]] bool revoked() const {  // a rehearsal belongs to no generation
    return !facts_.rehearsal && facts_.revocation->revoked(facts_.generation);
  }
  void abort();
  // In a subgroup, an error also tells its members' ranks in the job.
  // A timeout also tells what else of this process is in flight, and where the dump is.
  [[nodiscard]] Status with_flight(Status status) const;

 private:
  Status connect(TimePoint deadline);
  Status create_memory();
  Status find_memory(TimePoint deadline);
  Status make_channel();
  [[nodiscard]] Status standing() const;
  [[nodiscard]] Status with_global_ranks(Status status) const;

  Facts facts_;
  std::mutex connecting_;  // held while rank 0 is waited for; the rest below is guarded by mutex_
  std::mutex mutex_;
  std::shared_ptr<collective::SharedGroup> memory_;
  BudgetLease lease_;
  std::shared_ptr<collective::Communicator> communicator_;
  std::shared_ptr<Exchange> exchange_;
  std::atomic<bool> aborted_{false};
};

}  // namespace hpcore::torch_binding
