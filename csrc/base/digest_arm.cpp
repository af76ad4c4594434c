#include "base/digest_kernel.hpp"

#if defined(__aarch64__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>

#if defined(__clang__)
#define HPCORE_CRC_TARGET __attribute__((target("crc")))
#else
#define HPCORE_CRC_TARGET __attribute__((target("+crc")))
#endif

namespace hpcore {
namespace {

HPCORE_CRC_TARGET void crc_lanes(Digest128& lanes, const unsigned char* at, size_t strides) {
  uint32_t a = lanes[0], b = lanes[1], c = lanes[2], d = lanes[3];
  for (; strides > 0; --strides, at += 32) {
    a = __crc32cd(a, load_digest_word(at));
    b = __crc32cd(b, load_digest_word(at + 8));
    c = __crc32cd(c, load_digest_word(at + 16));
    d = __crc32cd(d, load_digest_word(at + 24));
  }
  lanes = {a, b, c, d};
}

HPCORE_CRC_TARGET uint32_t crc_stream(uint32_t crc, const unsigned char* at, size_t bytes) {
  for (; bytes >= 8; bytes -= 8, at += 8) crc = __crc32cd(crc, load_digest_word(at));
  for (; bytes > 0; --bytes, ++at) crc = __crc32cb(crc, *at);
  return crc;
}

}  // namespace

std::vector<DigestKernel> hardware_digest_kernels() {
  if ((getauxval(AT_HWCAP) & HWCAP_CRC32) == 0) return {};
  return {{"armv8-crc", crc_lanes, crc_stream, nullptr}};
}

}  // namespace hpcore
#endif
