// Purpose: RemoteMemory for state that lies in arenas: read by plain loads from this process's own
// mapping of them. Regions outside of any arena (small tensors, optimizer state of older steps) are
// read by another reader, which is made for the same process.
// Threads: thread-safe. Ownership: shares the views with their ArenaMappings.
#pragma once

#include "transport/arena.hpp"
#include "transport/remote_memory.hpp"

namespace hpcore::transport {

class MappedMemory final : public RemoteMemory {
 public:
  // `other` reads what lies outside; null: nothing does.
  MappedMemory(const RemoteProcess& process,
               std::vector<std::shared_ptr<ArenaMappings::View>> views,
               std::unique_ptr<RemoteMemory> other);
  [[nodiscard]] Status read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                            const StopCondition& stop) override;
  [[nodiscard]] Status read_digested(uint64_t offset, uint64_t bytes, const RegionMap& into,
                                     Digester* digester, const StopCondition& stop) override;
  [[nodiscard]] Status digest(uint64_t offset, uint64_t bytes, Digester* digester,
                              const StopCondition& stop) override;
  [[nodiscard]] std::string method() const override { return method_; }
  // Whether any region lies outside all arenas.
  static bool needs_other(const RemoteProcess& process);

 private:
  template <typename Here, typename There>
  Status walk(uint64_t offset, uint64_t bytes, const StopCondition& stop, const Here& here,
              const There& there);
  std::vector<std::shared_ptr<ArenaMappings::View>> views_;
  RegionMap local_;  // where the regions are mapped here; address 0: they are not
  std::unique_ptr<RemoteMemory> other_;
  std::string method_;
};

}  // namespace hpcore::transport
