// SPDX-License-Identifier: Apache-2.0
// For fuzzers of tables: a small sound image laid out by hand, so that a fuzzer may put its bytes
// where a table is, and everything a guest can ask of it afterwards. Whatever the tables hold: all
// requests end, and no byte that a guest writes lands on the header or a table of the open image.
//
//   cluster  0 header | 1 refcount table | 2 refcount block | 3 L1 table | 4, 5 L2 tables | 6 data
#pragma once

#include <algorithm>
#include <vector>

#include "qcow2/image_stage_test.h"

namespace ringdisk::qcow2 {

class FuzzedImage {
 public:
  static constexpr ByteCount kSize{64 << 10};
  static constexpr uint64_t kDataClusters = 12;
  static constexpr uint64_t kTables = 4;  // clusters that hold no L2 table and no data

  // The input's first byte chooses the version and the geometry.
  explicit FuzzedImage(uint8_t choice, Compression compression = Compression::kDeflate)
      : stage_(image_of(choice, compression), kSize, sim::SimDiskOptions::file()),
        geometry_(stage_.image.cluster_bits,
                  stage_.image.version == 2 ? 4 : stage_.image.refcount_order,
                  stage_.image.extended_l2) {
    std::vector<std::byte> block(cluster());
    stage_.disk.peek(at(2), block);
    const uint64_t l1_entries = geometry_.l1_entries_for(kSize);
    for (uint64_t i = 0; i < 2; ++i) {
      const bool is_used = i < l1_entries;
      stage_.disk.poke(at(4 + i), std::vector<std::byte>(cluster()));
      if (is_used) stage_.put64(at(3) + i * 8, kCopied | at(4 + i));
      if (is_used) store_refcount(block, geometry_.refcount_order(), 4 + i, 1);
    }
    for (uint64_t i = 0; i < kDataClusters; ++i) {
      stage_.disk.poke(at(6 + i), std::vector<std::byte>(cluster(), std::byte{0x11}));
      const uint64_t entry = at(4) + i * geometry_.l2_entry_bytes();
      stage_.put64(entry, kCopied | at(6 + i));
      if (geometry_.has_subclusters()) stage_.put64(entry + 8, 0xffffffff);
      store_refcount(block, geometry_.refcount_order(), 6 + i, 1);
    }
    stage_.disk.poke(at(2), block);
  }

  uint64_t cluster() const { return geometry_.cluster_size(); }
  uint64_t at(uint64_t number) const { return number << geometry_.cluster_bits(); }
  const Geometry& geometry() const { return geometry_; }
  ImageStage& stage() { return stage_; }

  // The front of `bytes`, at most `length` of them, over what is at `place`; they are taken off.
  void overlay(uint64_t place, size_t length, Bytes& bytes) {
    const Bytes front = bytes.first(std::min(length, bytes.size()));
    stage_.disk.poke(place, front);
    bytes = bytes.subspan(front.size());
  }

  // Reads, writes, zeroes, discards, flushes; then a look by a reader and by the check.
  void use() {
    std::vector<std::byte> header(64);
    stage_.disk.peek(0, header);
    stage_.world.diagnostics().add_node("disk.qcow2");
    end(stage_.use(&read_all, true));
    end(stage_.use(&change_all, false));
    std::vector<std::byte> header_after(64);
    stage_.disk.peek(0, header_after);
    CHECK(std::equal(header.begin(), header.begin() + 40, header_after.begin()));
    expect_no_guest_bytes();
    end(stage_.use(&read_all, true));
    auto check = [this](Shard&) { return check_it(); };
    end(stage_.world.run(check));
  }

 private:
  static constexpr std::byte kWritten{0xa7};

  static TestImage image_of(uint8_t choice, Compression compression) {
    TestImage image;
    image.version = (choice & 1) != 0 && compression == Compression::kDeflate ? 2 : 3;
    image.cluster_bits = (choice & 2) != 0 ? 12 : 9;
    image.refcount_order = (choice >> 2) % 7;
    const bool is_plain = image.version == 3 && compression == Compression::kDeflate;
    image.extended_l2 = is_plain && (choice & 0x80) != 0;
    if (image.extended_l2) image.cluster_bits = kExtendedClusterBitsMin;
    image.compression = compression;
    return image;
  }
  // Whether it failed is not for here, as long as it ends.
  static void end(const Result<void>& done) { static_cast<void>(done.ok()); }
  static Task<void> read_all(DeviceQueue& queue) {
    std::vector<std::byte> bytes(4096);
    for (uint64_t from = 0; from < kSize.value(); from += bytes.size()) {
      MutableBuffers target{MutableBytes(bytes)};
      (void)co_await queue.read(GuestOffset(from), target).result();
    }
  }
  static Task<void> change_all(DeviceQueue& queue) {
    const std::vector<std::byte> bytes(3 * 512, kWritten);
    const ConstBuffers source{Bytes(bytes)};
    const ZeroOptions zero;
    for (uint64_t from = 0; from + 4096 <= kSize.value(); from += 4096) {
      const GuestRange range(GuestOffset(from + 512), ByteCount(1024));
      (void)co_await queue.write(GuestOffset(from), source, WriteOptions()).result();
      if (from % 16384 == 4096) (void)co_await queue.write_zeroes(range, zero).result();
      if (from % 16384 == 8192) (void)co_await queue.discard(range).result();
      if (from % 32768 == 8192) (void)co_await queue.flush().result();
    }
    (void)co_await queue.flush().result();
    co_await read_all(queue);
  }
  Task<void> check_it() {
    std::unique_ptr<SharedStorage> storage = stage_.storage();
    const std::function<void(CheckProgress)> no_progress;
    Result<std::optional<CheckReport>> checked =
        co_await check_image(stage_.world.world(), *storage, no_progress).result();
    static_cast<void>(checked.ok());
    co_await storage->node->close();
  }

  void expect_no_guest_bytes() {
    std::vector<std::byte> tables(kTables * cluster());
    stage_.disk.peek(0, tables);
    for (size_t i = 0; i + 64 <= tables.size(); i += 64) {
      const Bytes part = Bytes(tables).subspan(i, 64);
      const bool is_guests =
          std::all_of(part.begin(), part.end(), [](std::byte one) { return one == kWritten; });
      CHECK(!is_guests);
    }
  }

  ImageStage stage_;
  const Geometry geometry_;
};

}  // namespace ringdisk::qcow2
