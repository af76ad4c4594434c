// Purpose: the .hpd file, version 2, as docs/dataset-format.md specifies it. Numbers little-endian.
//   offset 0       superblock, 4096 bytes, closed by its own checksum
//   offset 4096    field table: 256 bytes a field; behind it the metadata (JSON)
//   offset 2 MiB   data sections, one a field, each 2 MiB aligned; then row tables and document
//                  tables, each 4 KiB aligned; zeros in between
//   behind them    block table: a CRC-32C for each 256 KiB from 2 MiB on, the last may be shorter;
//                  page table: a CRC-32C for each 256 KiB of the block table
// Every byte is covered: block -> block table -> page table -> superblock.
// Threads: plain data.
// Ownership: none.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "dataset/dtype.hpp"

namespace hpcore::dataset {

constexpr std::array<char, 8> kMagic = {'H', 'P', 'D', 'A', 'T', 'A', '\r', '\n'};
constexpr uint32_t kVersion = 2;
constexpr uint32_t kByteOrder = 0x01020304;
constexpr uint32_t kBlockBytes = 256 << 10;
constexpr uint64_t kDataAlignment = 2 << 20;
constexpr uint64_t kTableAlignment = 4096;
constexpr uint32_t kMostFields = 1024;
constexpr uint32_t kMostDimensions = 8;
constexpr uint32_t kGroupRows = 1024;  // at most: rows that share an 8-byte base
// Feature bits that this version knows: none. A reader ignores unknown compatible ones and refuses
// unknown incompatible ones.
constexpr uint64_t kKnownIncompatible = 0;

enum class FieldKind : uint32_t {
  kTokens = 1,   // one long stream of numbers, cut into sequences when it is read
  kFixed = 2,    // rows of one shape, without an index
  kVarying = 3,  // rows whose first dimension varies, with a row table
};

struct FieldRecord {
  std::array<char, 64> name{};  // UTF-8, 1 to 63 bytes, then zeros
  Dtype dtype{};
  FieldKind kind{};
  uint32_t dimensions = 0;                        // how many of shape count
  uint32_t group_rows = 0;                        // kVarying: a power of two up to 1024
  std::array<uint64_t, kMostDimensions> shape{};  // of a row; kVarying: without the first dimension
  uint64_t row_bytes = 0;  // of a token, a fixed row, an item of a varying row
  uint64_t rows = 0;       // kTokens: how many tokens
  uint64_t data_offset = 0;
  uint64_t data_bytes = 0;
  // kVarying: u64 a group: where its first row begins; then u32 a row, and one more: how far behind
  // its group's base it begins. Bytes from data_offset on.
  uint64_t row_table_offset = 0;
  // kTokens: u64 a document: its first token; then the number of tokens.
  uint64_t document_table_offset = 0;
  uint64_t documents = 0;
  uint64_t vocabulary = 0;  // kTokens: every token is below
  uint64_t separator = 0;   // kTokens: token that ends each document, plus one; 0: none
  std::array<unsigned char, 256 - 216> reserved{};
};
static_assert(sizeof(FieldRecord) == 256 && std::is_trivially_copyable_v<FieldRecord>);
static_assert(offsetof(FieldRecord, shape) == 80 && offsetof(FieldRecord, row_bytes) == 144);
static_assert(offsetof(FieldRecord, separator) == 208);

struct Superblock {
  std::array<char, 8> magic{};
  uint32_t version = 0;
  uint32_t superblock_bytes = 0;
  std::array<unsigned char, 16>
      uuid{};  // version 8 (RFC 9562): the digest, with the marks of a uuid
  std::array<unsigned char, 16> digest{};  // Digest128 of field table, metadata, block table
  uint64_t compatible = 0;
  uint64_t incompatible = 0;
  uint32_t block_bytes = 0;
  uint32_t fields = 0;
  uint64_t field_table_offset = 0;
  uint64_t metadata_offset = 0;
  uint64_t metadata_bytes = 0;
  uint64_t blocks_begin = 0;  // offset of block 0
  uint64_t blocks = 0;
  uint64_t block_table_offset = 0;  // where the last block ends
  uint64_t page_table_offset = 0;
  uint64_t file_bytes = 0;
  uint32_t field_table_crc = 0;
  uint32_t metadata_crc = 0;
  uint32_t page_table_crc = 0;
  uint32_t byte_order = 0;
  std::array<unsigned char, 4096 - 152 - 4> reserved{};
  uint32_t crc = 0;  // of the 4092 bytes before
};
static_assert(sizeof(Superblock) == 4096 && std::is_trivially_copyable_v<Superblock>);
static_assert(offsetof(Superblock, byte_order) == 148 && offsetof(Superblock, crc) == 4092);

constexpr uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

// Groups of a row table: the last entry, where the data ends, has a group like any row.
constexpr uint64_t row_groups(uint64_t rows, uint64_t group_rows) { return rows / group_rows + 1; }

constexpr uint64_t row_table_bytes(uint64_t rows, uint64_t group_rows) {
  return row_groups(rows, group_rows) * sizeof(uint64_t) + (rows + 1) * sizeof(uint32_t);
}

}  // namespace hpcore::dataset
