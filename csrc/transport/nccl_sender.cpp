#include "transport/nccl_sender.hpp"

#include <algorithm>

#include "base/service_thread.hpp"

namespace hpcore::transport {
namespace {

constexpr auto kLook = std::chrono::milliseconds(50);  // at close() and at NCCL while idle
constexpr auto kNap = std::chrono::microseconds(50);
constexpr double kDrainLimit_s = 10;

TimePoint in_seconds(double count) {
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(count));
}

}  // namespace

NcclSender::NcclSender(NcclServer* server, Fd connection)
    : server_(server), socket_(std::move(connection)) {}

NcclSender::~NcclSender() {
  end();
  if (thread_.joinable()) thread_.join();
}

Status NcclSender::start() {
  Result<std::thread> thread = start_service_thread("hpcore-nccl", [this] { run(); }, false);
  if (!thread.ok()) return thread.status();
  thread_ = std::move(thread.value());
  return {};
}

void NcclSender::end() {
  stopped_.store(true);
  socket_.cut();
}

// The communicator first: its kernels must not outlive the memory that they read.
void NcclSender::run() {
  const Status status = serve();
  if (!status.ok() && status.code() != Code::kPeerDead) {
    (void)socket_.send(ControlFrame::failed(status));
  }
  comm_.reset();
  if (stream_.get() != nullptr && !stream_.drain(kDrainLimit_s).ok()) {
    stream_.abandon();
    for (Slot& slot : slots_) slot.scratch.abandon();
  }
  socket_.cut();
  ended_.store(true, std::memory_order_release);
}

Status NcclSender::alive() {
  if (stopped_.load()) return {Code::kPeerDead, "the source was closed"};
  return socket_.still_open();
}

// kPeerDead: the receiver has left.
Status NcclSender::next_frame(ControlFrame* frame) {
  for (;;) {
    HPCORE_RETURN_IF_ERROR(alive());
    if (comm_ != nullptr) HPCORE_RETURN_IF_ERROR(comm_->error());
    const Result<bool> got = socket_.receive(frame, Clock::now() + kLook);
    if (!got.ok()) return got.status();
    if (got.value()) return {};
  }
}

Status NcclSender::await(const CudaEvent& event) {
  for (;;) {
    const Result<bool> done = event.done();
    if (!done.ok()) return done.status();
    if (done.value()) return {};
    HPCORE_RETURN_IF_ERROR(alive());
    if (comm_ != nullptr) HPCORE_RETURN_IF_ERROR(comm_->error());
    std::this_thread::sleep_for(kNap);
  }
}

Status NcclSender::serve() {
  ControlFrame frame;
  const Result<bool> came = socket_.receive(&frame, in_seconds(server_->options_.setup_limit_s));
  if (!came.ok()) return came.status();
  if (!came.value() || frame.kind != FrameKind::kHello) {
    return {Code::kCorrupt, "a connection began without a hello"};
  }
  const NcclHello hello = NcclHello::of(frame);
  Result<std::shared_ptr<NcclServer::Exposure>> admitted = server_->admit(hello, frame.number);
  if (!admitted.ok()) return admitted.status();
  exposure_ = std::move(admitted.value());
  generation_.store(exposure_->what.generation);
  ControlFrame welcome;
  welcome.kind = FrameKind::kWelcome;
  HPCORE_RETURN_IF_ERROR(socket_.send(welcome));
  if (hello.wants == NcclHello::Wants::kArea) return serve_area();
  HPCORE_RETURN_IF_ERROR(bring_up(hello.id));
  return serve_state();
}

Status NcclSender::serve_area() {
  const RegionMap& area = exposure_->what.area;
  for (;;) {
    ControlFrame frame;
    HPCORE_RETURN_IF_ERROR(next_frame(&frame));
    if (frame.offset > area.bytes() || frame.bytes > area.bytes() - frame.offset) {
      return {Code::kInvalid, "asked for bytes outside of the exposure area"};
    }
    frame.kind = FrameKind::kBytes;
    HPCORE_RETURN_IF_ERROR(socket_.send(frame));
    HPCORE_RETURN_IF_ERROR(socket_.send_bytes(area, frame.offset, frame.bytes));
  }
}

Status NcclSender::bring_up(const driver::nccl::UniqueId& id) {
  for (const Region& region : exposure_->what.regions.regions()) {
    on_device_.push_back(region.bytes > 0 && server_->device_->holds(region));
  }
  Result<CudaStream> stream = CudaStream::create(server_->device_);
  if (!stream.ok()) return stream.status();
  stream_ = std::move(stream.value());
  slots_.resize(server_->options_.lane.slots);
  for (Slot& slot : slots_) {
    Result<CudaEvent> event = CudaEvent::create(server_->device_);
    if (!event.ok()) return event.status();
    slot.done = std::move(event.value());
  }
  auto opened =
      NcclComm::open(server_->device_, server_->library_, id, 0, 2,
                     in_seconds(server_->options_.setup_limit_s), [this] { return alive(); });
  if (!opened.ok()) return opened.status();
  comm_ = std::move(opened.value());
  return await(exposure_->ready);
}

Status NcclSender::serve_state() {
  const uint64_t total = exposure_->what.regions.bytes();
  const uint64_t most = server_->options_.lane.piece_bytes * slots_.size();
  for (;;) {
    ControlFrame frame;
    HPCORE_RETURN_IF_ERROR(next_frame(&frame));
    const bool inside = frame.offset <= total && frame.bytes <= total - frame.offset;
    if (frame.kind != FrameKind::kRequest || !inside || frame.bytes == 0 || frame.bytes > most) {
      return {Code::kInvalid, "asked for " + std::to_string(frame.bytes) + " bytes from " +
                                  std::to_string(frame.offset) + " of " + std::to_string(total)};
    }
    HPCORE_RETURN_IF_ERROR(send(frame.offset, frame.bytes));
  }
}

Result<NcclSender::Slot*> NcclSender::free_slot() {
  Slot& slot = slots_[next_slot_++ % slots_.size()];
  if (slot.used) {
    if (Status status = await(slot.done); !status.ok()) return status;
  }
  slot.used = true;
  return &slot;
}

// From where it lies if it is one piece of device memory, else gathered first.
Result<NcclComm::Part> NcclSender::part_of(Slot* slot, uint64_t offset, uint64_t bytes) {
  const RegionMap& regions = exposure_->what.regions;
  std::vector<iovec> pieces;
  regions.pieces(offset, bytes, &pieces);
  if (pieces.size() == 1 && on_device_[regions.region_at(offset)]) {
    return NcclComm::Part{true, reinterpret_cast<uint64_t>(pieces[0].iov_base), bytes};
  }
  if (slot->scratch.address() == 0) {
    Result<CudaBuffer> made = CudaBuffer::create(server_->device_, CudaBuffer::Kind::kDevice,
                                                 server_->options_.lane.piece_bytes);
    if (!made.ok()) return made.status();
    slot->scratch = std::move(made.value());
  }
  const std::vector<iovec> to{{reinterpret_cast<void*>(slot->scratch.address()), bytes}};
  if (Status status = copy_ranges(*server_->device_, to, pieces, stream_.get()); !status.ok()) {
    return status;
  }
  return NcclComm::Part{true, slot->scratch.address(), bytes};
}

Status NcclSender::send(uint64_t offset, uint64_t bytes) {
  const uint64_t piece_bytes = server_->options_.lane.piece_bytes;
  std::vector<NcclComm::Part> parts;
  std::vector<Slot*> taken;
  for (uint64_t at = 0; at < bytes; at += piece_bytes) {
    Result<Slot*> slot = free_slot();
    if (!slot.ok()) return slot.status();
    Result<NcclComm::Part> part =
        part_of(slot.value(), offset + at, std::min(piece_bytes, bytes - at));
    if (!part.ok()) return part.status();
    parts.push_back(part.value());
    taken.push_back(slot.value());
  }
  HPCORE_RETURN_IF_ERROR(comm_->exchange(parts, 1, stream_.get(),
                                         in_seconds(server_->options_.setup_limit_s),
                                         [this] { return alive(); }));
  for (Slot* slot : taken) HPCORE_RETURN_IF_ERROR(slot->done.record(stream_.get()));
  return {};
}

}  // namespace hpcore::transport
