// Where a source's device memory is: written, read back, and handles made for it.
#include <algorithm>

#include "transport/address_text.hpp"
#include "transport/cuda_ipc.hpp"

namespace hpcore::transport {
namespace {

namespace cuda = driver::cuda;

constexpr uint64_t kMark = 0x3130435049435048;  // "HPCIPC01", little-endian

Status damaged(const char* what) {
  return {Code::kCorrupt, std::string("a peer's CUDA IPC address is damaged: ") + what};
}

std::string text_of(const cuda::IpcHandle& handle) {
  return {reinterpret_cast<const char*>(handle.data), sizeof handle.data};
}

bool take_handle(AddressReader* reader, cuda::IpcHandle* handle) {
  const std::string text = reader->text();
  if (text.size() != sizeof handle->data) return false;
  std::memcpy(handle->data, text.data(), text.size());
  return true;
}

}  // namespace

std::string CudaIpcAddress::encode() const {
  AddressWriter writer;
  writer.word(kMark);
  writer.word(generation);
  writer.text(device);
  writer.word(static_cast<uint64_t>(process.pid));
  writer.word(process.start_ticks);
  writer.text(text_of(ready));
  writer.word(allocations.size());
  for (const Allocation& allocation : allocations) {
    writer.word(allocation.base);
    writer.word(allocation.bytes);
    writer.text(text_of(allocation.handle));
  }
  writer.word(regions.size());
  for (const Region& region : regions) {
    writer.word(region.address);
    writer.word(region.bytes);
  }
  return writer.finish();
}

Result<CudaIpcAddress> CudaIpcAddress::decode(const std::string& bytes) {
  std::string body;
  if (const char* why = check_address(bytes, kMark, &body); why != nullptr) return damaged(why);
  AddressReader reader(body);
  CudaIpcAddress address;
  (void)reader.word();
  address.generation = reader.word();
  address.device = reader.text();
  address.process.pid = static_cast<int>(reader.word());
  address.process.start_ticks = reader.word();
  bool handles = take_handle(&reader, &address.ready);
  address.allocations.resize(reader.count(3 * sizeof(uint64_t) + cuda::kIpcHandleBytes));
  for (Allocation& allocation : address.allocations) {
    allocation.base = reader.word();
    allocation.bytes = reader.word();
    handles = take_handle(&reader, &allocation.handle) && handles;
  }
  address.regions.resize(reader.count(2 * sizeof(uint64_t)));
  for (Region& region : address.regions) {
    region.address = reader.word();
    region.bytes = reader.word();
  }
  if (!handles || !reader.whole() || !reader.at_end()) return damaged("a length does not fit");
  return address;
}

Result<std::unique_ptr<CudaIpcExport>> CudaIpcExport::open(std::shared_ptr<CudaDevice> device,
                                                           const RegionMap& regions,
                                                           uint64_t generation, uint64_t stream) {
  std::unique_ptr<CudaIpcExport> made(new CudaIpcExport);
  CudaIpcAddress address;
  address.generation = generation;
  address.device = device->uuid();
  address.process = this_process();
  address.regions = regions.regions();
  Result<CudaEvent> event = CudaEvent::create(device, true);
  if (!event.ok()) return event.status();
  made->ready_ = std::move(event.value());
  HPCORE_RETURN_IF_ERROR(made->ready_.record(reinterpret_cast<cuda::Stream*>(stream)));
  Result<cuda::IpcHandle> ready = made->ready_.handle();
  if (!ready.ok()) return Status(Code::kUnsupported, ready.status().message());
  address.ready = ready.value();
  const CudaDevice::Scope scope(*device);
  const driver::CudaLibrary& library = device->library();
  for (const Region& region : address.regions) {
    const auto covers = [&region](const CudaIpcAddress::Allocation& at) {
      return at.base <= region.address && region.address - at.base < at.bytes;
    };
    std::vector<CudaIpcAddress::Allocation>& known = address.allocations;
    if (region.bytes == 0 || !device->holds(region)) continue;
    if (std::any_of(known.rbegin(), known.rend(), covers)) continue;
    CudaIpcAddress::Allocation found;
    HPCORE_RETURN_IF_ERROR(device->status(
        library.address_range(&found.base, &found.bytes, region.address), "finding an allocation"));
    const Status shared =
        device->status(library.ipc_get_mem(&found.handle, found.base), "sharing device memory");
    if (!shared.ok()) {
      return Status(Code::kUnsupported, shared.message() +
                                            ". Memory that was not made by cudaMalloc cannot be "
                                            "shared (PyTorch: expandable_segments:False)");
    }
    known.push_back(found);
  }
  made->address_ = address.encode();
  return made;
}

}  // namespace hpcore::transport
