// Purpose: reads another process's memory into one's own: the contract, and the one function that
// makes a reader within a node.
//   process_vm_readv   one copy; the other process does nothing. Needs the kernel's leave (ptrace
//                      rules: same user, dumpable, Yama). /proc/pid/mem obeys the same rules, so
//                      it is no way around.
//   arena              memory that both have mapped (arena.hpp): plain loads, nothing else.
//   staging            where that is refused: the other process runs a StagingServer that copies
//                      what is asked for into shared memory. Two copies and the other's help.
//   fabric             from another host, over libfabric: transport/fabric_memory.hpp
// Threads: read() is thread-safe.
// Ownership: nothing of the other process. A pid that was recycled is seen by the digests of what
// was read, not here. Lifecycle: plain object, reads until it is destroyed.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>

#include "base/digest.hpp"
#include "transport/arena.hpp"
#include "transport/regions.hpp"

namespace hpcore::transport {

struct StagingArea;

// True when the caller should give up (generation revoked, deadline passed). Called often, from any
// thread.
using StopCondition = std::function<bool()>;

// Told of each stretch of bytes that has arrived, in order: [offset, offset + bytes).
using Arrival = std::function<void(uint64_t offset, uint64_t bytes)>;

// A stretch is handed over while the CPU's L2 cache still holds it. Set by
// bench/test_bench_copies.py.
constexpr uint64_t kStretchBytes = 1 << 20;

class RemoteMemory {
 public:
  virtual ~RemoteMemory() = default;
  // Copies [offset, offset + bytes) of the other process's range to the same offsets of `into`.
  // kPeerDead: it is gone. kTimeout: it did not answer. kAborted: `stop` said so. Nothing outside
  // `into` is written, and nothing at all after the return, whatever it says.
  [[nodiscard]] virtual Status read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                                    const StopCondition& stop) = 0;
  // The same, and says what has arrived while the rest may still be on its way. What was announced
  // before a failure is right.
  [[nodiscard]] virtual Status stream(uint64_t offset, uint64_t bytes, const RegionMap& into,
                                      const StopCondition& stop, const Arrival& arrival);
  // The same, and digests the bytes as they pass. By default: as they
  // arrive, while they are in the cache.
  [[nodiscard]] virtual Status read_digested(uint64_t offset, uint64_t bytes, const RegionMap& into,
                                             Digester* digester, const StopCondition& stop);
  // Digests the other process's bytes; nothing of `into`'s kind is written. By default through a
  // buffer of kStretchBytes.
  [[nodiscard]] virtual Status digest(uint64_t offset, uint64_t bytes, Digester* digester,
                                      const StopCondition& stop);
  [[nodiscard]] virtual std::string method() const = 0;
  // What the operator should know of how it went, such as a rate far below the link's; empty: fine.
  [[nodiscard]] virtual std::string note() const { return ""; }
};

// kProbe: an arena where there is one, else process_vm_readv, else staging.
enum class Method { kProbe, kArena, kProcessMemory, kStaging };

struct RemoteProcess {
  pid_t pid = 0;
  const RegionMap* regions = nullptr;  // what is exposed there; outlives the reader
  StagingArea* staging =
      nullptr;  // that process's staging area, in shared memory; outlives the reader
  uint64_t generation = 0;
  std::vector<ArenaPlace> arenas{};   // of that process
  ArenaMappings* mappings = nullptr;  // what this process has mapped; null: arenas are not used
};

// Probes unless told which. Fails with kPeerDead if there is no such process, kUnsupported if no
// method is left. `why_not` gets a line for each better method that could not be used.
Result<std::unique_ptr<RemoteMemory>> open_remote_memory(const RemoteProcess& process,
                                                         Method method = Method::kProbe,
                                                         std::string* why_not = nullptr);

}  // namespace hpcore::transport
