// SPDX-License-Identifier: Apache-2.0
// A small sound image with some of its entries, refcounts and header bytes changed, then checked,
// repaired, checked again and used. The input's first byte chooses the geometry; each 8 bytes after
// it are one change:
//
//   | where (1) | which one (2) | what (1) | value (4) |
//
// Whatever was changed: nothing crashes or loops, what a repair says is left is what the next check
// finds, and a repair that leaves no corruption leaves no leak and neither dirty nor corrupt bit.
#include <algorithm>

#include "qcow2/check/damaged_image_test.h"

namespace ringdisk::qcow2 {
namespace {

constexpr ByteCount kDiskSize(64 << 10);
constexpr ByteCount kExtendedDiskSize(256 << 10);  // clusters of 16 KiB at least
constexpr size_t kChangeBytes = 8;
constexpr size_t kChangesMax = 32;
constexpr uint64_t kFileBytesMax = 1 << 20;

class Patient {
 public:
  explicit Patient(uint8_t choice) {
    image_.version = (choice & 1) != 0 ? 2 : 3;
    image_.cluster_bits = (choice & 2) != 0 ? 12 : 9;
    image_.refcount_order = image_.version == 2 ? 4 : (choice >> 2) % 7;
    image_.extended_l2 = image_.version == 3 && (choice & 0x80) != 0;
    if (image_.extended_l2) image_.cluster_bits = kExtendedClusterBitsMin;
    sim::SimDisk disk(sim::SimDiskOptions::file(), 1);
    disk.poke(0, encode_test_image(image_, image_.extended_l2 ? kExtendedDiskSize : kDiskSize));
    auto fill = [&](Shard&) {
      return write_clusters(world_.world(), image_, storage_on(disk), {0, 1, 2, 3, 7, 8, 9, 15});
    };
    CHECK(world_.run(fill).ok());
    bytes_.resize(disk.size());
    disk.peek(0, bytes_);
  }

  void change(Bytes change) {
    const auto where = static_cast<uint8_t>(change[0]) % 8;
    const uint64_t which = load_be16(&change[1]);
    const auto what = static_cast<uint8_t>(change[3]);
    const uint32_t value = load_be32(&change[4]);
    const Geometry geometry(image_.cluster_bits, image_.refcount_order, image_.extended_l2);
    const uint64_t l1 = get(40);
    switch (where) {
      case 0:
        return put(l1 + which % 4 * 8, what, value);
      case 1:
      case 2: {
        const uint64_t table = get(l1 + which / 64 % 2 * 8) & kOffsetMask;
        return put(table + which % (geometry.cluster_size() / 8) * 8, what, value);
      }
      case 3:
        return put(get(kRefcountTableFieldsAt) + which % 8 * 8, what, value);
      case 4:
        return put_byte(get(get(kRefcountTableFieldsAt)) + which % geometry.cluster_size(), value);
      case 5:
        return put_byte(which % 112, value);
      case 6:
        return put_byte(which, value);
      default:
        bytes_.resize(std::clamp<uint64_t>(value % kFileBytesMax, 512, kFileBytesMax));
        return;
    }
  }

  void treat() {
    sim::SimDisk disk(sim::SimDiskOptions::file(), 1);
    disk.poke(0, bytes_);
    const Result<CheckReport> first = check(disk, CheckRepair::kNone);
    const Result<CheckReport> repaired = check(disk, CheckRepair::kAll);
    if (!first.ok() || !repaired.ok()) return;
    const Result<CheckReport> second = check(disk, CheckRepair::kNone);
    CHECK(second.ok());
    CHECK_EQ(second.value().corruptions, repaired.value().corruptions);
    CHECK_EQ(second.value().leaks, repaired.value().leaks);
    if (second.value().corruptions == 0) {
      CHECK_EQ(second.value().leaks, uint64_t{0});
      std::byte features[8];
      disk.peek(kIncompatibleFeaturesAt, features);
      if (image_.version == 3) CHECK_EQ(load_be64(features) & 3, uint64_t{0});
    }
    use(disk);
    CHECK(check(disk, CheckRepair::kLeaks).ok());
  }

 private:
  static std::unique_ptr<SharedStorage> storage_on(sim::SimDisk& disk) {
    return std::make_unique<SharedStorage>(
        std::make_unique<sim::SimStorageNode>(disk, "disk.qcow2", 1));
  }
  Result<CheckReport> check(sim::SimDisk& disk, CheckRepair repair) {
    CheckOptions options;
    options.repair = repair;
    options.memory_max = 1 << 20;
    auto work = [&](Shard&) { return check_storage(world_.world(), storage_on(disk), options); };
    return world_.run(work);
  }
  // What comes of it is not for here, as long as it ends.
  void use(sim::SimDisk& disk) {
    auto write = [&](Shard&) {
      return write_clusters(world_.world(), image_, storage_on(disk), {1, 5, 15});
    };
    const Result<void> written = world_.run(write);
    static_cast<void>(written.ok());
    auto read = [&](Shard&) { return read_disk(world_.world(), image_, storage_on(disk)); };
    const Result<std::vector<std::byte>> content = world_.run(read);
    static_cast<void>(content.ok());
  }

  uint64_t get(uint64_t at) const { return at + 8 <= bytes_.size() ? load_be64(&bytes_[at]) : 0; }
  void put(uint64_t at, uint8_t what, uint32_t value) {
    if (at > bytes_.size() || bytes_.size() - at < 8) return;
    const uint64_t before = load_be64(&bytes_[at]);
    const uint64_t flags = (what & 0x80 ? kCopied : 0) | (what & 0x40 ? kReadsZero : 0);
    uint64_t after = 0;
    switch (what % 6) {
      case 0:
        after = flags;
        break;
      case 1:
        after = uint64_t{value} << 9 | flags;
        break;
      case 2:
        after = uint64_t{value % 64} << image_.cluster_bits | flags;
        break;
      case 3:
        after = before ^ uint64_t { 1 } << value % 64;
        break;
      case 4:
        after = kCompressed | uint64_t{value % 4} << 60 | value % 65536;
        break;
      default:
        after = ~uint64_t{0} << value % 64;
    }
    store_be64(&bytes_[at], after);
  }
  void put_byte(uint64_t at, uint32_t value) {
    if (at < bytes_.size()) bytes_[at] = static_cast<std::byte>(value);
  }

  TestImage image_;
  sim::SimWorld world_{1, 1};
  std::vector<std::byte> bytes_;
};

}  // namespace
}  // namespace ringdisk::qcow2

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size == 0) return 0;
  using ringdisk::qcow2::kChangeBytes;
  using ringdisk::qcow2::kChangesMax;
  ringdisk::qcow2::Patient patient(bytes[0]);
  // why: libFuzzer hands out uint8_t, our spans hold std::byte
  ringdisk::Bytes changes(reinterpret_cast<const std::byte*>(bytes + 1), size - 1);
  for (size_t i = 0; i < kChangesMax && changes.size() >= kChangeBytes; ++i) {
    patient.change(changes.first(kChangeBytes));
    changes = changes.subspan(kChangeBytes);
  }
  patient.treat();
  return 0;
}
