#include "transport/nccl_link.hpp"

#include "transport/address_text.hpp"

namespace hpcore::transport {
namespace {

constexpr uint64_t kMark = 0x313043434e435048;  // "HPCNCC01", little-endian
constexpr size_t kSecretBytes = 16;

Status damaged(const char* what) {
  return {Code::kCorrupt, std::string("a peer's NCCL address is damaged: ") + what};
}

}  // namespace

std::string NcclAddress::encode() const {
  AddressWriter writer;
  writer.word(kMark);
  writer.text(place);
  writer.text(secret);
  writer.word(generation);
  writer.word(piece_bytes);
  writer.word(regions.size());
  for (const Region& region : regions) {
    writer.word(region.address);
    writer.word(region.bytes);
  }
  return writer.finish();
}

Result<NcclAddress> NcclAddress::decode(const std::string& bytes) {
  std::string body;
  if (const char* why = check_address(bytes, kMark, &body); why != nullptr) return damaged(why);
  AddressReader reader(body);
  NcclAddress address;
  (void)reader.word();
  address.place = reader.text();
  address.secret = reader.text();
  address.generation = reader.word();
  address.piece_bytes = reader.word();
  address.regions.resize(reader.count(2 * sizeof(uint64_t)));
  for (Region& region : address.regions) {
    region.address = reader.word();
    region.bytes = reader.word();
  }
  if (!reader.whole() || !reader.at_end()) return damaged("a length does not fit");
  if (address.secret.size() != kSecretBytes || address.piece_bytes == 0) return damaged("a size");
  return address;
}

ControlFrame NcclHello::frame(uint64_t generation) const {
  ControlFrame frame;
  frame.kind = FrameKind::kHello;
  frame.number = generation;
  frame.set_text(secret + static_cast<char>(wants) + std::string(id.internal, sizeof id.internal));
  return frame;
}

NcclHello NcclHello::of(const ControlFrame& frame) {
  NcclHello hello;
  hello.secret.assign(frame.text.data(), kSecretBytes);
  hello.wants = static_cast<Wants>(frame.text[kSecretBytes]);
  std::memcpy(hello.id.internal, frame.text.data() + kSecretBytes + 1, sizeof hello.id.internal);
  return hello;
}

Result<driver::nccl::UniqueId> nccl_unique_id(const std::string& bytes) {
  driver::nccl::UniqueId id{};
  if (bytes.size() != sizeof id.internal) {
    return Status(Code::kInvalid, "an NCCL unique id has " + std::to_string(sizeof id.internal) +
                                      " bytes, not " + std::to_string(bytes.size()));
  }
  std::memcpy(id.internal, bytes.data(), bytes.size());
  return id;
}

}  // namespace hpcore::transport
