// SPDX-License-Identifier: Apache-2.0
// Which ciphers are measured, and the bound that follows from each.
#include "jobs/calibrate.h"

#include <array>

#include "crypto/sector_cipher.h"
#include "runtime/offload.h"

namespace ringdisk {
namespace {

constexpr int kRounds = 10;
constexpr size_t kBytes = 65536;

struct Tried {
  const char* spec;
  size_t key_bytes;
  const char* name;
};
constexpr std::array<Tried, 3> kTried = {{
    {"aes-xts-plain64", 64, "aes-xts-plain64, 256 bits"},
    {"aes-xts-plain64", 32, "aes-xts-plain64, 128 bits"},
    {"aes-cbc-essiv:sha256", 32, "aes-cbc-essiv:sha256, 256 bits"},
}};

template <class Work>
CipherCost::Way measure_way(const Clock& clock, Work work) {
  CipherCost::Way way;
  const Duration quickest = measure_quickest(kRounds, clock, work);
  way.ns_per_byte = static_cast<double>(quickest.count()) / double{kBytes};
  if (way.ns_per_byte > 0) {
    way.in_place_bytes =
        static_cast<uint64_t>(static_cast<double>(kInPlaceNsMax) / way.ns_per_byte);
  }
  return way;
}

Result<CipherCost> measure(const Tried& tried, CpuFeatures features, const Clock& clock) {
  std::array<std::byte, 64> key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(i);
  ASSIGN_OR_RETURN(const CipherSpec spec, CipherSpec::parse(tried.spec));
  ASSIGN_OR_RETURN(
      const std::unique_ptr<SectorCipher> cipher,
      make_sector_cipher(spec, Bytes(key).first(tried.key_bytes), kSectorSizeMin, features));
  std::vector<std::byte> memory(kBytes);
  CipherCost cost;
  cost.cipher = tried.name;
  cost.kernel = cipher->kernel();
  cost.decrypt = measure_way(clock, [&] { return cipher->decrypt(0, memory, memory).ok(); });
  cost.encrypt = measure_way(clock, [&] { return cipher->encrypt(0, memory, memory).ok(); });
  return cost;
}

}  // namespace

Task<Calibration> calibrate(const World& world, CpuFeatures features) {
  Calibration calibration;
  for (const Tried& tried : kTried) {
    std::string newest;
    for (const char* name : {"vaes512", "vaes256", "aesni", "none"}) {
      Result<CpuFeatures> chosen = CpuFeatures::choose(name, features);
      if (!chosen.ok()) continue;
      CipherCost cost = co_await measure(tried, chosen.value(), world.clock);
      // What has no kernel of ours is the same with all of them.
      if (cost.kernel == newest) continue;
      newest = cost.kernel;
      calibration.ciphers.push_back(cost);
    }
  }
  calibration.crossing = co_await measure_crossing(world);
  co_return calibration;
}

}  // namespace ringdisk
