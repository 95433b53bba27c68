// SPDX-License-Identifier: Apache-2.0
// Cutting work into jobs:
//
//   |----------------------- 2 MiB -----------------------|    at 0.15 ns a byte
//   |  part  |  part  |  part  |  part  |  part  |  part  |    about 50 us each, whole 4 KiB
//
// At most a group's capacity of them at a time.
#include "luks/cipher_work.h"

#include <algorithm>
#include <array>
#include <optional>

#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk::luks {
namespace {

constexpr size_t kPartUnit = 4096;
// 20 to 40 us with the wide kernels. Where nothing is known of the cost, this is what is done in
// one go.
constexpr size_t kPartBytesMax = 256 << 10;
static_assert(kPartUnit % kSectorSizeMax == 0 && kPartBytesMax % kPartUnit == 0);

size_t bytes_in(uint64_t ns, double ns_per_byte) {
  const double bytes = static_cast<double>(ns) / ns_per_byte;
  return bytes < double{kPartBytesMax} ? static_cast<size_t>(bytes) : kPartBytesMax;
}

size_t in_place_bytes(const Offload* offload, double ns_per_byte) {
  return offload ? bytes_in(kInPlaceNsMax, ns_per_byte) : kPartBytesMax;
}

size_t part_bytes(double ns_per_byte) {
  const size_t bytes = ns_per_byte > 0 ? bytes_in(kOffloadSliceNs, ns_per_byte) : kPartBytesMax;
  return std::max(bytes / kPartUnit * kPartUnit, kPartUnit);
}

class CipherJob final : public OffloadJob {
 public:
  CipherJob(const SectorCipher& cipher, CipherPiece piece) : cipher_(cipher), piece_(piece) {}
  void compute() override { result_ = piece_.compute(cipher_); }
  Result<void> take_result() { return std::move(result_); }

 private:
  const SectorCipher& cipher_;
  const CipherPiece piece_;
  Result<void> result_;
};

}  // namespace

CipherPiece CipherPiece::part(size_t offset, size_t length) const {
  CipherPiece cut = *this;
  cut.first += offset / kSectorNumberBytes;
  cut.source = source.slice(offset, length);
  cut.target = target.slice(offset, length);
  return cut;
}

CipherWork::CipherWork(const SectorCipher& cipher, Offload* offload, double ns_per_byte,
                       Shard& shard)
    : cipher_(cipher),
      offload_(ns_per_byte > 0 ? offload : nullptr),
      ns_per_byte_(ns_per_byte),
      shard_(shard),
      in_place_bytes_max_(in_place_bytes(offload_, ns_per_byte)),
      part_bytes_(part_bytes(ns_per_byte)) {}

uint64_t CipherWork::cost_ns(size_t bytes) const {
  return static_cast<uint64_t>(static_cast<double>(bytes) * ns_per_byte_);
}

Task<void> CipherWork::run(CipherPiece piece) {
  if (!offload_) return run_in_turns(piece);
  return piece.size() <= part_bytes_ ? run_job(piece) : run_jobs(piece);
}

Task<void> CipherWork::run_in_turns(CipherPiece piece) {
  for (size_t done = 0; done < piece.size(); done += part_bytes_) {
    if (done != 0) co_await NextTurn(shard_);
    const size_t length = std::min(part_bytes_, piece.size() - done);
    co_await piece.part(done, length).compute(cipher_);
  }
}

Task<void> CipherWork::run_job(CipherPiece piece) {
  CipherJob job(cipher_, piece);
  OffloadGroup group;
  group.add(job, cost_ns(piece.size()));
  co_await offload_->run(group);
  co_await job.take_result();
}

Task<void> CipherWork::run_jobs(CipherPiece piece) {
  for (size_t done = 0; done < piece.size();) {
    std::array<std::optional<CipherJob>, OffloadGroup::capacity()> jobs;
    OffloadGroup group;
    for (std::optional<CipherJob>& job : jobs) {
      const size_t length = std::min(part_bytes_, piece.size() - done);
      if (length == 0) break;
      group.add(job.emplace(cipher_, piece.part(done, length)), cost_ns(length));
      done += length;
    }
    co_await offload_->run(group);
    for (std::optional<CipherJob>& job : jobs) {
      if (!job) break;
      co_await job->take_result();
    }
  }
}

}  // namespace ringdisk::luks
