// SPDX-License-Identifier: Apache-2.0
// Another size and an emptied image on the simulator: what they do, the power failing anywhere in
// them, every request of them failing once.
#include <gtest/gtest.h>

#include "qcow2/edit/edit_fixture_test.h"
#include "qcow2/edit/empty.h"
#include "qcow2/edit/resize.h"

namespace ringdisk::qcow2 {
namespace {

// Larger than what the L1 table of small clusters has room for.
constexpr ByteCount kLargerSize(8 << 20);

enum class Change : uint8_t { kGrow, kEmpty };

class SizeEdit final : public TestedEdit {
 public:
  SizeEdit(TestImage test_image, Change change, uint64_t seed)
      : TestedEdit(test_image), change_(change), seed_(seed) {}

  Task<void> prepare(const World& world, sim::OpenStorages open) override {
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    co_await create_test_image(image, *storage, kEditedSize);
    co_await storage->node->close();
    before.assign(kEditedSize.value(), std::byte{0});
    std::unique_ptr<SharedStorage> again = std::move(open().front());
    co_await write_image(world, image, std::move(again), seed_, before);
    after = before;
    if (change_ == Change::kEmpty) after.assign(after.size(), std::byte{0});
    if (change_ == Change::kGrow) after.resize(kLargerSize.value());
  }
  Task<void> edit(const World& world, std::unique_ptr<SharedStorage> storage) override {
    if (change_ == Change::kGrow) return grow(world, std::move(storage));
    return use_and_empty(world, std::move(storage));
  }

 private:
  Task<void> grow(const World& world, std::unique_ptr<SharedStorage> storage) {
    world.diagnostics.add_node("disk.qcow2");
    const Drivers drivers;
    const OpenGate gate(world.diagnostics);
    Graph graph(world, drivers, gate);
    co_await resize_image(graph, std::move(storage), kLargerSize);
  }
  // As commit does, on an image that has been in use: what its queue wrote is not flushed yet.
  Task<void> use_and_empty(const World& world, std::unique_ptr<SharedStorage> storage) {
    std::shared_ptr<DeviceNode> node =
        co_await open_test_image(world, image, nullptr, std::move(storage), false);
    Result<void> emptied = co_await use_then_empty(*node).result();
    Result<void> closed = co_await node->close().result();
    co_await std::move(emptied);
    co_await std::move(closed);
  }
  Task<void> use_then_empty(DeviceNode& node) {
    std::unique_ptr<DeviceQueue> queue = co_await node.open_queue(Shard::current());
    const Bytes same = Bytes(before).first(before.size() / 4);
    Result<void> used =
        co_await queue->write(GuestOffset(0), ConstBuffers(same), WriteOptions()).result();
    queue.reset();
    co_await std::move(used);
    co_await empty_image(node.format());
  }

  const Change change_;
  const uint64_t seed_;
};

TestImage small_image(uint64_t seed) {
  TestImage image = drawn_edited_image(seed);
  image.cluster_bits = 9 + seed % 4;
  image.extended_l2 = image.version >= 3 && seed % 5 == 4;
  if (image.extended_l2) image.cluster_bits = kExtendedClusterBitsMin;
  return image;
}

TEST(EditCrashTest, ACrashInAChangeLeavesItDoneOrNotDone) {
  for (Change change : {Change::kGrow, Change::kEmpty}) {
    sim::for_each_seed(5, [change](uint64_t seed) {
      SizeEdit edit(small_image(seed), change, seed);
      expect_done_or_not_done(edit, seed);
    });
  }
}

TEST(EditFaultTest, EveryFailureIsToldAndLosesNothing) {
  for (Change change : {Change::kGrow, Change::kEmpty}) {
    SizeEdit edit(small_image(2), change, 2);
    expect_failures_told(edit, 2);
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
