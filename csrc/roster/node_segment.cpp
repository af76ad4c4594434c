#include "roster/node_segment.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "roster/commit_word.hpp"
#include "roster/life_word.hpp"

namespace hpcore::roster {
namespace {

constexpr size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }
constexpr size_t kHeaderBytes = round_up(sizeof(Header), kPage);
constexpr size_t kBoardsBytes = round_up(2 * sizeof(Board), kPage);
constexpr size_t kBlobsBytes = round_up(2 * sizeof(Blob) * kMaxSlots, kPage);
constexpr size_t kSlotBytes = round_up(sizeof(Slot), kPage);

size_t slot_stride(size_t staging_bytes) {
  return kSlotBytes + kControlBytes + round_up(staging_bytes, kPage) + kExposureBytes;
}

size_t slots_offset(size_t store_bytes) {
  return round_up(kHeaderBytes + kBoardsBytes + kBlobsBytes + round_up(store_bytes, kPage),
                  2 << 20);
}

double age_s(uint64_t at_ns) {
  if (at_ns == 0) return -1;
  const uint64_t now = monotonic_ns();
  return now <= at_ns ? 0 : static_cast<double>(now - at_ns) * 1e-9;
}

}  // namespace

Result<std::shared_ptr<NodeSegment>> NodeSegment::create(const SegmentOptions& options) {
  if (options.slots < 1 || options.slots > kMaxSlots) {
    return Status(Code::kInvalid, "a node segment has 1 to " + std::to_string(kMaxSlots) +
                                      " slots (ranks + standbys + spares), asked for " +
                                      std::to_string(options.slots));
  }
  const size_t size = slots_offset(options.store_bytes) +
                      slot_stride(options.staging_bytes) * static_cast<size_t>(options.slots);
  Fd fd(memfd_create("hpcore-segment", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return Status::system("memfd_create", errno);
  if (ftruncate(fd.get(), static_cast<off_t>(size)) != 0) {
    return Status::system("sizing the node segment to " + std::to_string(size) + " bytes", errno);
  }
  // A process that shrank it would kill all the others by SIGBUS. Holes may still be punched.
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    return Status::system("sealing the node segment's size", errno);
  }
  auto mapping = Mapping::map_shared(fd.get(), size);
  if (!mapping.ok()) return mapping.status();
  std::shared_ptr<NodeSegment> segment(new NodeSegment(std::move(fd), std::move(mapping.value())));
  Header& header = segment->header();
  header.layout_version = kLayoutVersion;
  header.slots = static_cast<uint32_t>(options.slots);
  header.staging_bytes = options.staging_bytes;
  header.store_bytes = options.store_bytes;
  header.agent_pid.store(getpid());
  header.magic.store(kMagic, std::memory_order_release);
  return segment;
}

Result<std::shared_ptr<NodeSegment>> NodeSegment::attach(int number) {
  Fd fd(fcntl(number, F_DUPFD_CLOEXEC, 3));
  if (!fd.valid()) {
    return Status::system("descriptor " + std::to_string(number) + " is not a node segment", errno);
  }
  struct stat about{};
  if (fstat(fd.get(), &about) != 0) return Status::system("fstat of the node segment", errno);
  if (about.st_size < static_cast<off_t>(kHeaderBytes)) {
    return Status(Code::kInvalid, "descriptor " + std::to_string(number) + " has " +
                                      std::to_string(about.st_size) + " bytes: not a node segment");
  }
  auto mapping = Mapping::map_shared(fd.get(), static_cast<size_t>(about.st_size));
  if (!mapping.ok()) return mapping.status();
  std::shared_ptr<NodeSegment> segment(new NodeSegment(std::move(fd), std::move(mapping.value())));
  const Header& header = segment->header();
  if (header.magic.load(std::memory_order_acquire) != kMagic ||
      header.layout_version != kLayoutVersion) {
    return Status(Code::kInvalid, "the node segment has layout " +
                                      std::to_string(header.layout_version) +
                                      ", this library knows " + std::to_string(kLayoutVersion) +
                                      ": agent and workers must use one hpcore");
  }
  const size_t size = slots_offset(header.store_bytes) +
                      slot_stride(header.staging_bytes) * static_cast<size_t>(header.slots);
  if (static_cast<size_t>(about.st_size) < size) {
    return Status(Code::kCorrupt, "the node segment has " + std::to_string(about.st_size) +
                                      " bytes, its header speaks of " + std::to_string(size));
  }
  return segment;
}

size_t NodeSegment::slot_offset(int index) const {
  return slots_offset(header().store_bytes) +
         slot_stride(header().staging_bytes) * static_cast<size_t>(index);
}

Slot& NodeSegment::slot(int index) const {
  return *reinterpret_cast<Slot*>(mapping_.data() + slot_offset(index));
}

std::span<std::byte> NodeSegment::control_area(int index) const {
  return {mapping_.data() + slot_offset(index) + kSlotBytes, kControlBytes};
}

std::span<std::byte> NodeSegment::staging_area(int index) const {
  return {mapping_.data() + slot_offset(index) + kSlotBytes + kControlBytes,
          header().staging_bytes};
}

std::span<std::byte> NodeSegment::channel_area(int index) const {
  return {mapping_.data() + slot_offset(index) + kSlotBytes,
          kControlBytes + header().staging_bytes};
}

std::span<std::byte> NodeSegment::exposure_area(int index) const {
  return {mapping_.data() + slot_offset(index) + kSlotBytes + kControlBytes +
              round_up(header().staging_bytes, kPage),
          kExposureBytes};
}

std::span<std::byte> NodeSegment::store_area() const {
  return {mapping_.data() + kHeaderBytes + kBoardsBytes + kBlobsBytes, header().store_bytes};
}

Board& NodeSegment::board(int which) const {
  return *reinterpret_cast<Board*>(mapping_.data() + kHeaderBytes +
                                   sizeof(Board) * static_cast<size_t>(which));
}

Blob& NodeSegment::blob(int rank, int which) const {
  const size_t index = static_cast<size_t>(rank % kMaxSlots) * 2 + static_cast<size_t>(which);
  return *reinterpret_cast<Blob*>(mapping_.data() + kHeaderBytes + kBoardsBytes +
                                  sizeof(Blob) * index);
}

Status NodeSegment::prepare_slot(int index, uint64_t incarnation) {
  if (!has_slot(index)) return {Code::kNotFound, "there is no slot " + std::to_string(index)};
  HPCORE_RETURN_IF_ERROR(release_slot(index));
  Slot& slot = this->slot(index);
  slot.version.store(kVersionNone);
  slot.incarnation.store(incarnation);
  slot.state.store(static_cast<uint32_t>(WorkerState::kStarting), std::memory_order_release);
  return {};
}

Status NodeSegment::release_slot(int index) {
  if (!has_slot(index)) return {Code::kNotFound, "there is no slot " + std::to_string(index)};
  Slot& slot = this->slot(index);
  const uint32_t life = slot.life.load();
  if (life != 0 && !owner_died(life) && kill(slot.pid.load(), 0) == 0) {
    return {Code::kInvalid, "slot " + std::to_string(index) + " is held by pid " +
                                std::to_string(slot.pid.load()) +
                                ", which lives: kill it and wait for its end first"};
  }
  close_commits(look(slot.commit).generation);  // what it has said must not be forgotten
  const size_t bytes = slot_stride(header().staging_bytes);
  if (fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                static_cast<off_t>(slot_offset(index)), static_cast<off_t>(bytes)) == 0) {
    return {};
  }
  std::memset(mapping_.data() + slot_offset(index), 0, bytes);  // a kernel without hole punching
  return {};
}

SlotInfo NodeSegment::slot_info(int index) const {
  const Slot& slot = this->slot(index);
  const CommitWord commit = CommitWord::unpack(slot.commit.load(std::memory_order_acquire));
  return {slot.pid.load(),
          slot.incarnation.load(),
          static_cast<WorkerState>(slot.state.load(std::memory_order_acquire)),
          slot.flags.load(),
          slot.version.load(std::memory_order_acquire),
          commit.generation,
          commit.steps,
          commit.closed,
          age_s(slot.heartbeat_ns.load()),
          slot.heartbeats.load(),
          slot.step.load(),
          slot.phase.load(),
          age_s(slot.progress_ns.load())};
}

}  // namespace hpcore::roster
