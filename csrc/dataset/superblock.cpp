#include "dataset/superblock.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>

namespace hpcore::dataset {
namespace {

constexpr uint64_t kFieldTableOffset = sizeof(Superblock);

Status corrupt(const std::string& path, const std::string& what) {
  return {Code::kCorrupt, "dataset " + path + ": " + what};
}

Status unsupported(const std::string& path, const std::string& what) {
  return {Code::kUnsupported, "dataset " + path + " " + what};
}

Result<size_t> read_at(int fd, const std::string& path, void* to, size_t bytes, uint64_t offset) {
  auto* at = static_cast<unsigned char*>(to);
  size_t done = 0;
  while (done < bytes) {
    const ssize_t got = pread(fd, at + done, bytes - done, static_cast<off_t>(offset + done));
    if (got < 0) {
      const int error_number = errno;
      if (error_number == EINTR) continue;
      return Status::system("reading " + std::to_string(bytes) + " bytes at " +
                                std::to_string(offset) + " of dataset " + path,
                            error_number);
    }
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

Status check_identity(const Superblock& s, const std::string& path) {
  if (s.magic != kMagic) return corrupt(path, "is not a .hpd file (magic number differs)");
  if (s.crc != crc32c(&s, offsetof(Superblock, crc))) {
    if (s.byte_order == __builtin_bswap32(kByteOrder)) {
      return unsupported(path, "was written big-endian; a .hpd file is little-endian");
    }
    return corrupt(path,
                   "the superblock (bytes 0 to 4096) does not match its checksum; copy or "
                   "build the file again");
  }
  if (s.version != kVersion) {
    return unsupported(
        path, "is of version " + std::to_string(s.version) + "; this hpcore reads version " +
                  std::to_string(kVersion) +
                  (s.version < kVersion ? ": build it again"
                                        : ": use a newer hpcore, or build it again"));
  }
  if (s.byte_order != kByteOrder) {
    return unsupported(path, "has byte order mark " + std::to_string(s.byte_order) +
                                 "; a .hpd file is little-endian");
  }
  if (const uint64_t unknown = s.incompatible & ~kKnownIncompatible; unknown != 0) {
    return unsupported(path, "needs features that this hpcore does not know (bits " +
                                 std::to_string(unknown) + "): use a newer one");
  }
  return {};
}

bool sound(const Superblock& s) {
  constexpr uint64_t kMost = uint64_t{1} << 62;
  if (s.file_bytes > kMost || s.page_table_offset > kMost || s.block_table_offset > kMost)
    return false;
  const uint64_t pages = align_up(s.blocks * 4, kBlockBytes) / kBlockBytes;
  return s.superblock_bytes == sizeof(Superblock) && s.block_bytes == kBlockBytes &&
         s.fields >= 1 && s.fields <= kMostFields && s.field_table_offset == kFieldTableOffset &&
         s.metadata_offset == kFieldTableOffset + s.fields * sizeof(FieldRecord) &&
         s.metadata_bytes <= kDataAlignment && s.blocks_begin == kDataAlignment &&
         s.metadata_offset + s.metadata_bytes <= s.blocks_begin &&
         s.block_table_offset >= s.blocks_begin &&
         s.blocks == align_up(s.block_table_offset - s.blocks_begin, kBlockBytes) / kBlockBytes &&
         s.page_table_offset == s.block_table_offset + s.blocks * sizeof(uint32_t) &&
         s.file_bytes == s.page_table_offset + pages * sizeof(uint32_t);
}

// Is [offset, offset + bytes) a section of the block space?
bool inside(const Superblock& s, uint64_t offset, uint64_t bytes, uint64_t alignment) {
  return offset % alignment == 0 && offset >= s.blocks_begin && offset <= s.block_table_offset &&
         bytes <= s.block_table_offset - offset;
}

bool sound(const Superblock& s, const FieldRecord& f) {
  FieldRecord again = f;
  if (!settle_field(&again).ok() || again.row_bytes != f.row_bytes) return false;
  if (!inside(s, f.data_offset, f.data_bytes, kDataAlignment)) return false;
  if (f.kind != FieldKind::kVarying) {
    if (f.data_bytes % f.row_bytes != 0 || f.rows != f.data_bytes / f.row_bytes) return false;
  }
  if (f.kind == FieldKind::kTokens) {
    return f.documents < s.file_bytes / 8 &&
           inside(s, f.document_table_offset, (f.documents + 1) * 8, kTableAlignment);
  }
  if (f.kind == FieldKind::kVarying) {
    return std::has_single_bit(f.group_rows) && f.group_rows <= kGroupRows &&
           f.rows < s.file_bytes / 4 &&
           inside(s, f.row_table_offset, row_table_bytes(f.rows, f.group_rows), kTableAlignment);
  }
  return true;
}

Status read_fields(int fd, const std::string& path, Head* head) {
  const Superblock& s = head->superblock;
  head->fields.resize(s.fields);
  const size_t bytes = s.fields * sizeof(FieldRecord);
  Result<size_t> got = read_at(fd, path, head->fields.data(), bytes, s.field_table_offset);
  HPCORE_RETURN_IF_ERROR(got.status());
  if (got.value() != bytes || crc32c(head->fields.data(), bytes) != s.field_table_crc) {
    return corrupt(path, "the field table (bytes 4096 to " + std::to_string(4096 + bytes) +
                             ") does not match its checksum; copy or build the file again");
  }
  head->metadata.resize(s.metadata_bytes);
  got = read_at(fd, path, head->metadata.data(), s.metadata_bytes, s.metadata_offset);
  HPCORE_RETURN_IF_ERROR(got.status());
  if (got.value() != s.metadata_bytes ||
      crc32c(head->metadata.data(), s.metadata_bytes) != s.metadata_crc) {
    return corrupt(path, "the metadata (bytes " + std::to_string(s.metadata_offset) + " to " +
                             std::to_string(s.metadata_offset + s.metadata_bytes) +
                             ") do not match their checksum; copy or build the file again");
  }
  for (const FieldRecord& field : head->fields) {
    if (!sound(s, field)) {
      return corrupt(path, "the numbers of field " + field_name(field) +
                               " contradict each other: another program wrote them wrong");
    }
  }
  return {};
}

}  // namespace

std::string field_name(const FieldRecord& field) {
  return {field.name.data(), strnlen(field.name.data(), field.name.size())};
}

Result<Head> read_head(int fd, const std::string& path) {
  if constexpr (std::endian::native != std::endian::little) {
    return unsupported(path, "cannot be read on a big-endian machine");
  }
  struct stat info{};
  if (fstat(fd, &info) != 0) return Status::system("looking at dataset " + path, errno);
  const uint64_t size_bytes = static_cast<uint64_t>(info.st_size);
  Head head;
  Superblock& s = head.superblock;
  Result<size_t> got = read_at(fd, path, &s, sizeof s, 0);
  HPCORE_RETURN_IF_ERROR(got.status());
  if (got.value() != sizeof s) {
    return corrupt(
        path, "has " + std::to_string(size_bytes) + " bytes, too few for a superblock of 4096");
  }
  HPCORE_RETURN_IF_ERROR(check_identity(s, path));
  if (!sound(s)) return corrupt(path, "the superblock's numbers contradict each other");
  if (size_bytes != s.file_bytes) {
    return corrupt(path, "was cut short or grew: it has " + std::to_string(size_bytes) +
                             " bytes, should have " + std::to_string(s.file_bytes) +
                             "; copy or build it again");
  }
  HPCORE_RETURN_IF_ERROR(read_fields(fd, path, &head));
  return head;
}

Status settle_field(FieldRecord* field) {
  const std::string name = field_name(*field);
  if (name.empty() || name.size() >= field->name.size()) {
    return {Code::kInvalid, "a field's name has 1 to 63 bytes, not " + std::to_string(name.size())};
  }
  const uint64_t item_bytes = dtype_bytes(field->dtype);
  if (item_bytes == 0) {
    return {Code::kInvalid, "field " + name + " has an unknown dtype (code " +
                                std::to_string(static_cast<uint32_t>(field->dtype)) + ")"};
  }
  if (field->dimensions > kMostDimensions) {
    return {Code::kInvalid, "field " + name + " has " + std::to_string(field->dimensions) +
                                " dimensions, more than " + std::to_string(kMostDimensions)};
  }
  const bool tokens = field->kind == FieldKind::kTokens;
  if (tokens && (field->dimensions != 0 || field->dtype > Dtype::kUint32)) {
    return {Code::kInvalid,
            "field " + name + ": tokens are uint8, uint16 or uint32 without a shape"};
  }
  if (!tokens && field->kind != FieldKind::kFixed && field->kind != FieldKind::kVarying) {
    return {Code::kInvalid, "field " + name + " is of no known kind"};
  }
  uint64_t bytes = item_bytes;
  for (uint32_t i = 0; i < field->dimensions; ++i) {
    if (field->shape[i] == 0 || __builtin_mul_overflow(bytes, field->shape[i], &bytes) ||
        bytes > uint64_t{1} << 48) {
      return {Code::kInvalid, "field " + name + ": a row has 1 to 2^48 bytes; dimension " +
                                  std::to_string(i) + " is " + std::to_string(field->shape[i])};
    }
  }
  field->row_bytes = bytes;
  return {};
}

Digester begin_digest(const Head& head) {
  Digester content;
  content.update(head.fields.data(), head.fields.size() * sizeof(FieldRecord));
  content.update(head.metadata.data(), head.metadata.size());
  return content;
}

void seal_head(Head* head, uint32_t page_table_crc, const Digester& content) {
  Superblock& s = head->superblock;
  const Digest128 digest = content.finish();
  std::memcpy(s.digest.data(), digest.data(), s.digest.size());
  s.uuid = s.digest;
  s.uuid[6] = static_cast<unsigned char>((s.uuid[6] & 0x0F) | 0x80);
  s.uuid[8] = static_cast<unsigned char>((s.uuid[8] & 0x3F) | 0x80);
  s.magic = kMagic;
  s.version = kVersion;
  s.superblock_bytes = sizeof s;
  s.block_bytes = kBlockBytes;
  s.byte_order = kByteOrder;
  s.fields = static_cast<uint32_t>(head->fields.size());
  s.field_table_offset = kFieldTableOffset;
  s.metadata_offset = kFieldTableOffset + s.fields * sizeof(FieldRecord);
  s.metadata_bytes = head->metadata.size();
  s.blocks_begin = kDataAlignment;
  s.field_table_crc = crc32c(head->fields.data(), s.fields * sizeof(FieldRecord));
  s.metadata_crc = crc32c(head->metadata.data(), head->metadata.size());
  s.page_table_crc = page_table_crc;
  s.crc = crc32c(&s, offsetof(Superblock, crc));
}

std::vector<unsigned char> head_bytes(const Head& head) {
  const size_t table_bytes = head.fields.size() * sizeof(FieldRecord);
  std::vector<unsigned char> bytes(sizeof(Superblock) + table_bytes + head.metadata.size());
  std::memcpy(bytes.data(), &head.superblock, sizeof(Superblock));
  std::memcpy(bytes.data() + sizeof(Superblock), head.fields.data(), table_bytes);
  std::memcpy(bytes.data() + sizeof(Superblock) + table_bytes, head.metadata.data(),
              head.metadata.size());
  return bytes;
}

}  // namespace hpcore::dataset
