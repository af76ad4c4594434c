// Purpose: the .hpd file. All numbers little-endian, all parts checked by a CRC-32C.
//   offset 0      superblock, 4096 bytes, closed by its own checksum
//   data_offset   tokens, 2 MiB aligned; one checksum per block of 256 KiB, the last may be shorter
//   behind them   block table: u32 a block; document table: first token of each document as u64,
//                 then the number of tokens
// Threads: plain data.
// Ownership: none.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace hpcore::dataset {

constexpr std::array<char, 8> kMagic = {'H', 'P', 'D', 'A', 'T', 'A', '\r', '\n'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kBlockBytes = 256 << 10;
constexpr uint64_t kDataAlignment = 2 << 20;

struct Superblock {
  std::array<char, 8> magic{};
  uint32_t version = 0;
  uint32_t superblock_bytes = 0;
  // Version 8 (RFC 9562): made from the content, so equal files have equal ids.
  std::array<unsigned char, 16> uuid{};
  uint32_t token_bytes = 0;  // 1, 2 or 4: uint8, uint16, uint32
  uint32_t vocabulary = 0;   // every token is below
  uint64_t tokens = 0;
  uint64_t documents = 0;
  uint64_t data_offset = 0;
  uint64_t data_bytes = 0;
  uint32_t block_bytes = 0;
  uint32_t separator = 0;  // token that ends each document, plus one; 0: none
  uint64_t blocks = 0;
  uint64_t block_table_offset = 0;
  uint64_t document_table_offset = 0;
  uint64_t file_bytes = 0;
  uint32_t block_table_crc = 0;
  uint32_t document_table_crc = 0;
  std::array<unsigned char, 4096 - 120 - 4> reserved{};
  uint32_t crc = 0;  // of the 4092 bytes before
};
static_assert(sizeof(Superblock) == 4096 && std::is_trivially_copyable_v<Superblock>);
static_assert(offsetof(Superblock, crc) == 4092);

}  // namespace hpcore::dataset
