// Purpose: one receiver's link at its source: answers one control connection.
// Threads: one of its own; end() from any thread. Ownership: its connection, stream, communicator
// and staging: as much as a lane's window.
#pragma once

#include "transport/nccl_server.hpp"

namespace hpcore::transport {

class NcclSender {
 public:
  NcclSender(NcclServer* server, Fd connection);
  ~NcclSender();  // ends and joins
  NcclSender(const NcclSender&) = delete;
  NcclSender& operator=(const NcclSender&) = delete;
  Status start();
  void end();
  [[nodiscard]] bool ended() const { return ended_.load(std::memory_order_acquire); }
  [[nodiscard]] uint64_t generation() const { return generation_.load(); }

 private:
  struct Slot {
    CudaEvent done;
    CudaBuffer scratch;
    bool used = false;
  };
  void run();
  Status serve();
  Status bring_up(const driver::nccl::UniqueId& id);
  Status serve_state();
  Status serve_area();
  Status send(uint64_t offset, uint64_t bytes);
  Result<Slot*> free_slot();
  Result<NcclComm::Part> part_of(Slot* slot, uint64_t offset, uint64_t bytes);
  Status next_frame(ControlFrame* frame);
  Status await(const CudaEvent& event);
  Status alive();

  NcclServer* server_;
  ControlSocket socket_;
  std::shared_ptr<NcclServer::Exposure> exposure_;
  std::vector<bool> on_device_;  // by region
  CudaStream stream_;
  std::vector<Slot> slots_;
  size_t next_slot_ = 0;
  std::unique_ptr<NcclComm> comm_;
  std::atomic<uint64_t> generation_{UINT64_MAX};
  std::atomic<bool> stopped_{false};
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace hpcore::transport
