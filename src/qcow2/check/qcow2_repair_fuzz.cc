// SPDX-License-Identifier: Apache-2.0
// A small sound image with some of its entries, refcounts, bitmaps and header bytes changed, then
// checked, repaired, checked again and used. The input's first byte chooses the geometry; each 8
// bytes after it are one change:
//
//   | where (1) | which one (2) | what (1) | value (4) |
//
// A byte that is left over chooses what else the image has: 1 dirty bitmaps, 2 a data file, 4 a raw
// one, 8 subclusters of all kinds.
//
// Whatever was changed: nothing crashes or loops, what a repair says is left is what the next check
// finds, and a repair that leaves no corruption leaves no leak and neither dirty nor corrupt bit.
#include <algorithm>

#include "qcow2/bitmaps/bitmap_keeper.h"
#include "qcow2/check/damaged_image_test.h"
#include "qcow2/data_file_fixture_test.h"

namespace ringdisk::qcow2 {
namespace {

constexpr ByteCount kDiskSize(64 << 10);
constexpr ByteCount kExtendedDiskSize(256 << 10);  // clusters of 16 KiB at least
constexpr size_t kChangeBytes = 8;
constexpr size_t kChangesMax = 32;
constexpr uint64_t kFileBytesMax = 1 << 20;
constexpr uint64_t kBitmapEntryBytes = 32;  // of one whose name has at most 8 bytes

class Patient {
 public:
  Patient(uint8_t choice, uint8_t features) {
    image_.version = (choice & 1) != 0 ? 2 : 3;
    image_.cluster_bits = (choice & 2) != 0 ? 12 : 9;
    image_.refcount_order = image_.version == 2 ? 4 : (choice >> 2) % 7;
    image_.extended_l2 = image_.version == 3 && (choice & 0x80) != 0;
    if (image_.extended_l2) image_.cluster_bits = kExtendedClusterBitsMin;
    image_.has_data_file = image_.version == 3 && (features & 2) != 0;
    image_.data_file_is_raw = image_.has_data_file && (features & 4) != 0;
    const bool has_bitmaps = image_.version == 3 && (features & 1) != 0;
    sim::SimDisk disk(sim::SimDiskOptions::file(), 1);
    disk.poke(0, encode_test_image(image_, image_.extended_l2 ? kExtendedDiskSize : kDiskSize));
    if (has_bitmaps) {
      auto add = [&](Shard&) { return add_bitmaps(disk); };
      CHECK(world_.run(add).ok());
    }
    auto fill = [&](Shard&) { return write(disk, {0, 1, 2, 3, 7, 8, 9, 15}); };
    CHECK(world_.run(fill).ok());
    if (image_.extended_l2 && (features & 8) != 0) {
      auto thin = [&](Shard&) { return thin_out(disk); };
      CHECK(world_.run(thin).ok());
    }
    bytes_.resize(disk.size());
    disk.peek(0, bytes_);
  }

  void change(Bytes change) {
    const auto where = static_cast<uint8_t>(change[0]) % 11;
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
      case 8:
        return put(bitmap_directory() + which % 16 * 8, what, value);
      case 9:
        return put_byte(bitmap_directory() + which % 128, value);
      case 10:
        return put(get(bitmap_directory() + which % 2 * kBitmapEntryBytes) + which / 2 % 2 * 8,
                   what, value);
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
  sim::OpenStorages opener(sim::SimDisk& disk) {
    return [this, &disk] {
      std::vector<std::unique_ptr<SharedStorage>> storages;
      storages.push_back(storage_on(disk));
      if (image_.has_data_file) storages.push_back(data_on(data_));
      return storages;
    };
  }
  Task<void> write(sim::SimDisk& disk, std::vector<uint64_t> clusters) {
    const sim::OpenStorages open = opener(disk);
    std::shared_ptr<DeviceNode> node =
        co_await open_image_on(world_.world(), image_, open, nullptr, false);
    const uint64_t cluster = uint64_t{1} << image_.cluster_bits;
    Result<void> written = co_await write_with(*node, cluster, clusters).result();
    Result<void> closed = co_await node->close().result();
    co_await std::move(written);
    co_await std::move(closed);
  }
  // Its entries in the directory are kBitmapEntryBytes long.
  Task<void> add_bitmaps(sim::SimDisk& disk) {
    const sim::OpenStorages open = opener(disk);
    const std::vector<BitmapEdit> edits = {add_bitmap("first"), add_bitmap("other", 512)};
    const ImageEdit add = [&edits](HomeParts parts) { return parts.bitmaps.edit(edits); };
    co_await edit_image_on(world_.world(), open, add);
  }
  // Subclusters that are zeros, and such that are nothing, beside those with data.
  Task<void> thin_out(sim::SimDisk& disk) {
    const sim::OpenStorages open = opener(disk);
    std::shared_ptr<DeviceNode> node =
        co_await open_image_on(world_.world(), image_, open, nullptr, false);
    Result<void> thinned = co_await thin_out_through(*node).result();
    Result<void> closed = co_await node->close().result();
    co_await std::move(thinned);
    co_await std::move(closed);
  }
  static Task<void> thin_out_through(DeviceNode& node) {
    std::unique_ptr<DeviceQueue> queue = co_await node.open_queue(Shard::current());
    const uint64_t cluster = node.format().limits().cluster_size.value();
    const ByteCount some(cluster / 4);
    ZeroOptions keeping;
    keeping.may_unmap = false;
    co_await queue->write_zeroes(GuestRange(GuestOffset(cluster / 2), some), keeping);
    co_await queue->discard(GuestRange(GuestOffset(cluster + cluster / 8), some));
  }

  // What comes of it is not for here, as long as it ends.
  void use(sim::SimDisk& disk) {
    auto change = [&](Shard&) { return write(disk, {1, 5, 15}); };
    const Result<void> written = world_.run(change);
    static_cast<void>(written.ok());
    auto read = [&](Shard&) { return read_all(disk); };
    const Result<void> done = world_.run(read);
    static_cast<void>(done.ok());
  }
  Task<void> read_all(sim::SimDisk& disk) {
    const sim::OpenStorages open = opener(disk);
    std::shared_ptr<DeviceNode> node =
        co_await open_image_on(world_.world(), image_, open, nullptr, true);
    // A damaged header may claim any size.
    std::vector<std::byte> bytes(std::min(node->size(), ByteCount(8 << 20)).value());
    Result<void> read = co_await read_with(*node, bytes).result();
    Result<void> closed = co_await node->close().result();
    co_await std::move(read);
    co_await std::move(closed);
  }

  // 0: there is none.
  uint64_t bitmap_directory() const {
    constexpr int kExtensionsMax = 8;
    uint64_t at = get(96) & 0xffffffff;  // the header's length
    for (int i = 0; i < kExtensionsMax; ++i) {
      const uint64_t type = get(at) >> 32, length = get(at) & 0xffffffff;
      if (type == static_cast<uint64_t>(ExtensionType::kBitmaps)) return get(at + 24);
      at += 8 + (length + 7) / 8 * 8;
    }
    return 0;
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
  sim::SimDisk data_{sim::SimDiskOptions::file(), 2};
  std::vector<std::byte> bytes_;
};

}  // namespace
}  // namespace ringdisk::qcow2

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size == 0) return 0;
  using ringdisk::qcow2::kChangeBytes;
  using ringdisk::qcow2::kChangesMax;
  const bool has_more = (size - 1) % kChangeBytes != 0;
  ringdisk::qcow2::Patient patient(bytes[0], has_more ? bytes[size - 1] : 0);
  // why: libFuzzer hands out uint8_t, our spans hold std::byte
  ringdisk::Bytes changes(reinterpret_cast<const std::byte*>(bytes + 1), size - 1);
  for (size_t i = 0; i < kChangesMax && changes.size() >= kChangeBytes; ++i) {
    patient.change(changes.first(kChangeBytes));
    changes = changes.subspan(kChangeBytes);
  }
  patient.treat();
  return 0;
}
