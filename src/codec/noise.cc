// SPDX-License-Identifier: Apache-2.0
// Two looks: how evenly the bytes of some samples are spread, then whether any stretch comes twice.
#include "codec/noise.h"

#include <algorithm>
#include <array>

#include "base/endian.h"

namespace ringdisk {
namespace {

constexpr size_t kBlockMin = 4096;
constexpr size_t kSampleBytes = 512;
constexpr size_t kSamplesMax = 16;

// Chi-square over the 256 values of a byte has mean 255 and deviation 22.6 where all are equally
// likely. At 400 and 8 KiB of samples, a Huffman code would save 0.4 % of the bytes.
bool is_evenly_spread(Bytes block) {
  std::array<uint32_t, 256> counts{};
  const size_t samples = std::min(kSamplesMax, block.size() / kSampleBytes);
  const size_t stride = block.size() / samples;
  for (size_t i = 0; i < samples; ++i) {
    for (std::byte byte : block.subspan(i * stride, kSampleBytes)) {
      ++counts[static_cast<uint8_t>(byte)];
    }
  }
  constexpr uint64_t kChiSquareMax = 400;
  const uint64_t sampled = samples * kSampleBytes;
  uint64_t squares = 0;
  for (uint64_t count : counts) squares += count * count;
  return squares * counts.size() <= sampled * (sampled + kChiSquareMax);
}

// Of all runs of eight bytes one in 64 is remembered, chosen by its content: so both copies of a
// stretch remember the same ones, wherever they lie, and one of some hundred bytes is hardly
// missed. The table forgets about as fast as deflate's window.
bool has_repeats(Bytes block) {
  constexpr uint64_t kMixer = 0x9e3779b97f4a7c15;
  constexpr unsigned kSlotBits = 11;
  std::array<uint64_t, 1u << kSlotBits> remembered{};
  for (size_t at = 0; at + 8 <= block.size(); ++at) {
    const uint64_t run = load_le64(&block[at]);
    const uint64_t mixed = run * kMixer;
    if (mixed >> 58 != 0) continue;
    uint64_t& slot = remembered[(mixed >> 40) & (remembered.size() - 1)];
    if (slot == run) return true;
    slot = run;
  }
  return false;
}

}  // namespace

bool is_noise(Bytes block) {
  return block.size() >= kBlockMin && is_evenly_spread(block) && !has_repeats(block);
}

}  // namespace ringdisk
