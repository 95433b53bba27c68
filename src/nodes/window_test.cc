// SPDX-License-Identifier: Apache-2.0
// A stretch of a file: what lies around it stays, and where it ends. (What any storage has to do is
// contract_test.cc.)
#include "nodes/window.h"

#include <gtest/gtest.h>

#include <vector>

#include "nodes/mem.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using sim::SimWorld;

constexpr uint64_t kFileBytes = 65536;
constexpr uint64_t kOffset = 1000;  // in the middle of a block
constexpr ByteCount kSize(4000);

// All of `storage` is `content`.
Task<void> fill(SharedStorage& storage, uint8_t content) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  std::vector<std::byte> bytes(storage.node->size().value(), std::byte{content});
  co_await access->write(HostOffset(0), ConstBuffers(Bytes(bytes)));
}

Task<std::vector<std::byte>> bytes_of(SharedStorage& storage) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  std::vector<std::byte> bytes(storage.node->size().value());
  co_await access->read(HostOffset(0), MutableBuffers(MutableBytes(bytes)));
  co_return std::move(bytes);
}

std::unique_ptr<SharedStorage> new_file() {
  MemOptions options;
  options.block_size = 512;
  return std::make_unique<SharedStorage>(
      std::make_unique<MemNode>("mem", 1, ByteCount(kFileBytes), options));
}

// A window's child, which the window owns, seen from outside.
class SeenStorage final : public StorageNode {
 public:
  explicit SeenStorage(SharedStorage& seen) : StorageNode("seen", 1), seen_(*seen.node) {}
  const char* driver() const override { return seen_.driver(); }
  const StorageLimits& limits() const override { return seen_.limits(); }
  ByteCount size() const override { return seen_.size(); }
  Task<ByteCount> allocated_size() override { return seen_.allocated_size(); }
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override {
    return seen_.open_queue(shard);
  }
  Task<void> close() override { co_return; }

 private:
  StorageNode& seen_;
};

struct Stage {
  explicit Stage(std::optional<ByteCount> size) {
    Window window;
    window.offset = ByteCount(kOffset);
    window.size = size;
    auto child = std::make_unique<SharedStorage>(std::make_unique<SeenStorage>(*file));
    part = std::make_unique<SharedStorage>(std::make_unique<WindowNode>(std::move(child), window));
  }
  Result<void> run(const std::function<Task<void>(Shard&)>& body) { return world.run(body); }

  SimWorld world;
  std::unique_ptr<SharedStorage> file = new_file();
  std::unique_ptr<SharedStorage> part;
};

Task<void> change_everything(SharedStorage& part) {
  co_await fill(part, 2);
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(part, Shard::current());
  const HostRange front(HostOffset(0), ByteCount(700));
  co_await access->write_zeroes(front);
  const HostRange all(HostOffset(0), part.node->size());
  co_await access->discard(all);
  co_await access->flush();
}

// Every byte outside of the window is what it was.
Task<void> expect_surroundings(Stage& stage) {
  co_await fill(*stage.file, 1);
  co_await change_everything(*stage.part);
  std::vector<std::byte> bytes = co_await bytes_of(*stage.file);
  EXPECT_EQ(bytes.size(), kFileBytes);
  const uint64_t end = kOffset + stage.part->node->size().value();
  size_t changed = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const bool inside = i >= kOffset && i < end;
    if (!inside && bytes[i] != std::byte{1}) ++changed;
    if (inside && bytes[i] == std::byte{1}) ++changed;
  }
  EXPECT_EQ(changed, 0u);
}

TEST(WindowTest, WhatLiesAroundItIsNotTouched) {
  for (const std::optional<ByteCount> size : {std::optional(kSize), std::optional<ByteCount>()}) {
    Stage stage(size);
    auto body = [&stage](Shard&) { return expect_surroundings(stage); };
    EXPECT_TRUE(stage.run(body).ok());
  }
}

Task<Result<void>> resize(SharedStorage& part, ByteCount size) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(part, Shard::current());
  co_return co_await access->resize(size).result();
}

Task<void> cut_and_grow(Stage& stage) {
  co_await fill(*stage.file, 1);
  Result<void> cut = co_await resize(*stage.part, kSize);
  EXPECT_TRUE(cut.ok());
  EXPECT_EQ(stage.part->node->size(), kSize);
  EXPECT_EQ(stage.file->node->size().value(), kOffset + kSize.value());
  Result<void> grown = co_await resize(*stage.part, kSize * 2);
  EXPECT_TRUE(grown.ok());
  std::vector<std::byte> bytes = co_await bytes_of(*stage.part);
  EXPECT_EQ(bytes.size(), 2 * kSize.value());
  EXPECT_EQ(bytes[kSize.value() - 1], std::byte{1});
  EXPECT_EQ(bytes[kSize.value()], std::byte{0});
}

TEST(WindowTest, WithoutASizeItEndsWithTheFile) {
  Stage stage(std::nullopt);
  auto body = [&stage](Shard&) { return cut_and_grow(stage); };
  EXPECT_TRUE(stage.run(body).ok());
}

Task<void> write_behind_the_end(Stage& stage) {
  std::unique_ptr<StorageAccess> access =
      co_await StorageAccess::open(*stage.part, Shard::current());
  std::vector<std::byte> bytes(512, std::byte{2});
  co_await access->write(HostOffset(kSize.value() - 256), ConstBuffers(Bytes(bytes)));
}

TEST(WindowTest, WithASizeItStaysSoLarge) {
  Stage stage(kSize);
  EXPECT_FALSE(stage.part->node->limits().grows);
  auto write = [&stage](Shard&) { return write_behind_the_end(stage); };
  Result<void> written = stage.run(write);
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().kind, ErrorKind::kNoSpace);
  EXPECT_EQ(stage.file->node->size().value(), kFileBytes);
}

TEST(WindowTest, WhatTheFileDoesNotHaveIsRefused) {
  Stage stage(kSize);
  const StorageNode& file = *stage.file->node;
  auto fits = [&](uint64_t offset, std::optional<uint64_t> size) {
    Window window;
    window.offset = ByteCount(offset);
    if (size) window.size = ByteCount(*size);
    return check_window(window, file, stage.world.diagnostics()).ok();
  };
  EXPECT_TRUE(fits(0, kFileBytes));
  EXPECT_TRUE(fits(kFileBytes, 0));
  EXPECT_TRUE(fits(kFileBytes, std::nullopt));
  EXPECT_FALSE(fits(kFileBytes + 1, std::nullopt));
  EXPECT_FALSE(fits(1, kFileBytes));
  EXPECT_FALSE(fits(2, ~uint64_t{0}));
  EXPECT_FALSE(fits(~uint64_t{0}, 2));
}

}  // namespace
}  // namespace ringdisk
