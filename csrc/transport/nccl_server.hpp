// Purpose: the source's side of the nccl transport: sends what receivers ask for, each on a stream
// and a communicator of its own. The source's own streams are not involved; its GPU gives the sends
// a few multiprocessors while they run.
// Threads: thread-safe. One thread listens, one serves each receiver. Ownership: borrows the
// exposed memory; shares the device. Lifecycle: exposures live until withdraw() of their generation
// or close(); both end the links that are open: receivers see PeerDead. The memory may go
// afterwards.
#pragma once

#include <list>
#include <map>
#include <thread>

#include "transport/nccl_link.hpp"

namespace hpcore::transport {

class NcclSender;

class NcclServer {
 public:
  static Result<std::unique_ptr<NcclServer>> open(std::shared_ptr<CudaDevice> device,
                                                  const driver::NcclLibrary& library,
                                                  const NcclOptions& options);
  ~NcclServer();
  NcclServer(const NcclServer&) = delete;
  NcclServer& operator=(const NcclServer&) = delete;

  struct Exposed {
    RegionMap regions;  // the state
    RegionMap area;     // host memory that may be read as bytes; empty: none
    uint64_t generation = 0;
    std::vector<std::string> ids;  // one for each receiver
    uint64_t stream = 0;           // what computed the state last; 0: the legacy default stream
  };
  // The address that receivers need, each with its unique id.
  Result<std::string> expose(Exposed exposed);
  void withdraw(uint64_t generation);
  void close();  // twice is fine

 private:
  friend class NcclSender;
  struct Exposure {
    Exposed what;
    CudaEvent ready;
    std::vector<bool> used;  // ids; guarded by the server's mutex
  };
  NcclServer(std::shared_ptr<CudaDevice> device, const driver::NcclLibrary& library,
             const NcclOptions& options);
  void listen();
  // What a hello asks for; an error is told to the receiver.
  Result<std::shared_ptr<Exposure>> admit(const NcclHello& hello, uint64_t generation);
  void end_senders(uint64_t generation, bool all);

  std::shared_ptr<CudaDevice> device_;
  driver::NcclLibrary library_;
  const NcclOptions options_;
  ControlListener listener_;
  std::atomic<bool> closed_{false};
  std::mutex mutex_;                                            // guards what follows
  std::map<std::string, std::shared_ptr<Exposure>> exposures_;  // by secret
  std::list<std::unique_ptr<NcclSender>> senders_;
  std::thread thread_;
};

}  // namespace hpcore::transport
