#include "transport/nccl_memory.hpp"

#include <algorithm>

namespace hpcore::transport {
namespace {

TimePoint in_seconds(double count) {
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(count));
}

Status of_generation(const NcclAddress& address, uint64_t generation) {
  if (address.generation == generation) return {};
  return {Code::kMismatch, "the peer's NCCL address is of generation " +
                               std::to_string(address.generation) + ", this is generation " +
                               std::to_string(generation)};
}

// Connects and says what is wanted.
Result<ControlSocket> greet(const NcclAddress& address, const NcclHello& hello,
                            TimePoint deadline) {
  Result<ControlSocket> socket = ControlSocket::connect(address.place, deadline);
  if (!socket.ok()) return socket;
  if (Status status = socket.value().send(hello.frame(address.generation)); !status.ok()) {
    return status;
  }
  ControlFrame answer;
  const Result<bool> came = socket.value().receive(&answer, deadline);
  if (!came.ok()) return came.status();
  if (!came.value()) return Status(Code::kTimeout, "the source does not answer");
  if (answer.kind == FrameKind::kFailed) return answer.failure();
  if (answer.kind != FrameKind::kWelcome) return Status(Code::kCorrupt, "an answer out of turn");
  return socket;
}

}  // namespace

Result<std::unique_ptr<NcclMemory>> NcclMemory::open(std::shared_ptr<CudaDevice> device,
                                                     const driver::NcclLibrary& library,
                                                     const std::string& address,
                                                     uint64_t generation, const RegionMap& expected,
                                                     const std::string& unique_id,
                                                     const NcclOptions& options) {
  Result<NcclAddress> peer = NcclAddress::decode(address);
  if (!peer.ok()) return peer.status();
  HPCORE_RETURN_IF_ERROR(of_generation(peer.value(), generation));
  HPCORE_RETURN_IF_ERROR(expected.same_sizes(RegionMap(peer.value().regions), "the peer"));
  const Result<driver::nccl::UniqueId> id = nccl_unique_id(unique_id);
  if (!id.ok()) return id.status();
  NcclOptions agreed = options;
  agreed.lane.piece_bytes = peer.value().piece_bytes;
  std::unique_ptr<NcclMemory> made(new NcclMemory(device, agreed));
  made->total_bytes_ = expected.bytes();
  HPCORE_RETURN_IF_ERROR(made->connect(library, peer.value(), id.value()));
  NcclMemory* self = made.get();
  DeviceLane::Ways ways;
  ways.fetch = [self](std::span<DeviceLane::Slot* const> slots, uint64_t offset, uint64_t bytes,
                      const RegionMap& into) { return self->fetch(slots, offset, bytes, into); };
  ways.check = [self] { return self->check(); };
  ways.cancel = [self] {
    self->comm_->abort();
    self->socket_.cut();
  };
  Result<std::unique_ptr<DeviceLane>> lane =
      DeviceLane::open(std::move(device), agreed.lane, std::move(ways));
  if (!lane.ok()) return lane.status();
  made->lane_ = std::move(lane.value());
  return made;
}

NcclMemory::~NcclMemory() {
  if (comm_) comm_->abort();
  lane_.reset();
}

Status NcclMemory::connect(const driver::NcclLibrary& library, const NcclAddress& address,
                           const driver::nccl::UniqueId& id) {
  const TimePoint deadline = in_seconds(options_.setup_limit_s);
  NcclHello hello;
  hello.secret = address.secret;
  hello.id = id;
  Result<ControlSocket> socket = greet(address, hello, deadline);
  if (!socket.ok()) return socket.status();
  socket_ = std::move(socket.value());
  auto comm = NcclComm::open(device_, library, id, 1, 2, deadline, [this] { return heard(); });
  if (!comm.ok()) return comm.status();
  comm_ = std::move(comm.value());
  return {};
}

// Under the lane's lock: requests leave in the order of the receives.
Status NcclMemory::fetch(std::span<DeviceLane::Slot* const> slots, uint64_t offset, uint64_t bytes,
                         const RegionMap& into) {
  struct Scatter {
    std::vector<iovec> to;
    uint64_t from, bytes;
  };
  ControlFrame request;
  request.kind = FrameKind::kRequest;
  request.offset = offset;
  request.bytes = bytes;
  HPCORE_RETURN_IF_ERROR(socket_.send(request));
  const uint64_t piece_bytes = options_.lane.piece_bytes;
  std::vector<NcclComm::Part> parts;
  std::vector<Scatter> scatters;
  for (size_t i = 0; i < slots.size(); ++i) {
    const uint64_t at = offset + i * piece_bytes;
    const uint64_t length = std::min(piece_bytes, offset + bytes - at);
    std::vector<iovec> pieces;
    into.pieces(at, length, &pieces);
    uint64_t target = reinterpret_cast<uint64_t>(pieces[0].iov_base);
    if (pieces.size() > 1 || !device_->holds({target, length})) {
      HPCORE_RETURN_IF_ERROR(lane_->ensure(&slots[i]->scratch, CudaBuffer::Kind::kDevice));
      target = slots[i]->scratch.address();
      scatters.push_back({std::move(pieces), target, length});
    }
    parts.push_back({false, target, length});
  }
  HPCORE_RETURN_IF_ERROR(comm_->exchange(
      parts, 0, lane_->stream(), in_seconds(options_.setup_limit_s), [this] { return heard(); }));
  for (const Scatter& scatter : scatters) {
    const std::vector<iovec> from{{reinterpret_cast<void*>(scatter.from), scatter.bytes}};
    HPCORE_RETURN_IF_ERROR(lane_->copy(scatter.to, from));
  }
  return {};
}

Status NcclMemory::heard() {
  const std::scoped_lock lock(hearing_);
  ControlFrame frame;
  const Result<bool> came = socket_.receive(&frame, TimePoint());
  if (!came.ok()) return came.status();
  if (!came.value()) return {};
  return frame.kind == FrameKind::kFailed ? frame.failure()
                                          : Status(Code::kCorrupt, "an answer out of turn");
}

Status NcclMemory::check() {
  HPCORE_RETURN_IF_ERROR(heard());
  return comm_->error();
}

Status NcclMemory::run(uint64_t offset, uint64_t bytes, const RegionMap* into,
                       const StopCondition& stop, const Arrival& arrival, Digester* digester) {
  if (offset > total_bytes_ || bytes > total_bytes_ - offset) {
    return {Code::kInvalid, "a read of bytes " + std::to_string(offset) + " to " +
                                std::to_string(offset + bytes) + " of " +
                                std::to_string(total_bytes_)};
  }
  if (bytes == 0) return {};
  return lane_->run(offset, bytes, into, stop, arrival, digester);
}

Status NcclMemory::read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                        const StopCondition& stop) {
  return run(offset, bytes, &into, stop, nullptr, nullptr);
}

Status NcclMemory::stream(uint64_t offset, uint64_t bytes, const RegionMap& into,
                          const StopCondition& stop, const Arrival& arrival) {
  return run(offset, bytes, &into, stop, arrival, nullptr);
}

Status NcclMemory::read_digested(uint64_t offset, uint64_t bytes, const RegionMap& into,
                                 Digester* digester, const StopCondition& stop) {
  return run(offset, bytes, &into, stop, nullptr, digester);
}

Status NcclMemory::digest(uint64_t offset, uint64_t bytes, Digester* digester,
                          const StopCondition& stop) {
  return run(offset, bytes, nullptr, stop, nullptr, digester);
}

Result<std::unique_ptr<NcclArea>> NcclArea::open(const std::string& address, uint64_t generation,
                                                 const NcclOptions& options) {
  Result<NcclAddress> peer = NcclAddress::decode(address);
  if (!peer.ok()) return peer.status();
  HPCORE_RETURN_IF_ERROR(of_generation(peer.value(), generation));
  NcclHello hello;
  hello.secret = peer.value().secret;
  hello.wants = NcclHello::Wants::kArea;
  Result<ControlSocket> socket = greet(peer.value(), hello, in_seconds(options.setup_limit_s));
  if (!socket.ok()) return socket.status();
  std::unique_ptr<NcclArea> made(new NcclArea(options));
  made->socket_ = std::move(socket.value());
  return made;
}

Status NcclArea::read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                      const StopCondition& stop) {
  const std::scoped_lock lock(mutex_);
  const TimePoint deadline = in_seconds(options_.lane.answer_limit_s);
  ControlFrame frame;
  frame.kind = FrameKind::kRequest;
  frame.offset = offset;
  frame.bytes = bytes;
  HPCORE_RETURN_IF_ERROR(socket_.send(frame));
  const Result<bool> came = socket_.receive(&frame, deadline);
  if (!came.ok()) return came.status();
  Status status;
  if (!came.value()) {
    status = {Code::kTimeout, "the source does not answer"};
  } else if (frame.kind != FrameKind::kBytes) {
    status = frame.failure();
  } else {
    status = socket_.receive_bytes(into, offset, bytes, deadline, stop);
  }
  if (!status.ok()) socket_.cut();  // half an answer may still come
  return status;
}

}  // namespace hpcore::transport
