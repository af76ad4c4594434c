// Purpose: the head of a .hpd file: superblock, field table, metadata. Reads and checks it; seals a
// new one. What has a right checksum was written by us; the checks of its numbers guard readers
// against another writer's mistake.
// Threads: pure functions.
// Ownership: Head is a value.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/digest.hpp"
#include "base/status.hpp"
#include "dataset/format.hpp"

namespace hpcore::dataset {

struct Head {
  Superblock superblock;
  std::vector<FieldRecord> fields;
  std::string metadata;  // JSON, or empty
};

std::string field_name(const FieldRecord& field);

// kNotFound is the caller's: `fd` is open. kCorrupt, kUnsupported (version, features, byte order),
// kSystem.
Result<Head> read_head(int fd, const std::string& path);

// kInvalid, unless the field can be written: name, dtype, kind, shape; fills in row_bytes.
Status settle_field(FieldRecord* field);

// Fills in what follows from the fields and sections that are set, at the end the own checksum.
// `content` has digested the block table's bytes after begin_digest().
Digester begin_digest(const Head& head);
void seal_head(Head* head, uint32_t page_table_crc, const Digester& content);

// Superblock, field table and metadata as the bytes from offset 0 on.
std::vector<unsigned char> head_bytes(const Head& head);

}  // namespace hpcore::dataset
